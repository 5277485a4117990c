/*
 * cwshim - parent and reaper of one container. Started by cworkerd or cwrun, not by people; see runtime/shim_proto.h.
 *
 *   cwshim ID      descriptors: 3 config.json, 4 runtime directory, 5 connection to the daemon
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "runtime/container.h"
#include "runtime/shim_loop.h"
#include "runtime/shim_proto.h"

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
    for (int fd = SHIM_FD_CONFIG; fd < SHIM_N_FDS; fd++) {
        if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
            fputs(usage, stderr);
            return 2;
        }
    }
    /* One process only, no threads: a second one is made so that init, not the daemon, reaps it. */
#undef fork
    pid_t pid = fork();

    if (pid != 0)
        return pid < 0 ? 1 : 0;
    setsid();
    return ctr_shim_loop(argv[1], SHIM_FD_CONFIG, SHIM_FD_DIR, SHIM_FD_CONTROL);
}
