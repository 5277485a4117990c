/*
 * cwshim - parent and reaper of one container. `cwrt shim` becomes it when it has made one (runtime/shim_hand.h); it is
 * linked statically, as there is one a run for as long as the run lives.
 *
 *   cwshim ID
 */
#include <stdio.h>
#include <string.h>

#include "runtime/container.h"
#include "runtime/shim_loop.h"

static const char usage[] =
    "cwshim looks after one container for cworkerd and cwrun; they start it.\n"
    "See `cwrun --help` and `cworkerd --help`.\n";

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        puts("cwshim " CW_VERSION);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    if (argc != 2 || !ctr_is_id(argv[1])) {
        fputs(usage, stderr);
        return 2;
    }
    return ctr_shim_loop(argv[1]);
}
