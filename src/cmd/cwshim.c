/*
 * cwshim - parent and reaper of one container. `cwrt shim` becomes it when it has made one (runtime/shim_hand.h); it is
 * linked statically, as there is one a run for as long as the run lives.
 *
 *   cwshim ID
 *   cwshim terminal NAME     the keeper of a terminal instead (runtime/tty_session.h); `cwrun exec` becomes it
 */
#include <stdio.h>
#include <string.h>

#include "runtime/container.h"
#include "runtime/shim_loop.h"
#include "runtime/tty_session.h"

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
    if (argc == 3 && strcmp(argv[1], TTY_KEEPER) == 0 &&
        strncmp(argv[2], TTY_SOCKET_PREFIX, strlen(TTY_SOCKET_PREFIX)) == 0) {
        tty_keep(argv[2]);
        return 0;
    }
    if (argc != 2 || !ctr_is_id(argv[1])) {
        fputs(usage, stderr);
        return 2;
    }
    return ctr_shim_loop(argv[1]);
}
