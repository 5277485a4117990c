/*
 * cworkerd: the worker service. Takes every flag of cl-worker; started through a symbolic link of that name it is one.
 * Exit status: 0 ended as told; 1 could not start; 2 the command line is wrong.
 */
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "worker/options.h"
#include "worker/worker.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

static int complain(const char *argv0, const struct err *e)
{
    const char *slash = strrchr(argv0, '/');
    const char *prog = slash ? slash + 1 : argv0;

    if (e->kind != ERR_USER) {
        fprintf(stderr, "%s\n", e->msg);
        return EXIT_FAILED;
    }
    fprintf(stderr, "usage: %s [flags]; see %s --help\n%s: error: %s\n", prog, prog, prog, e->msg);
    return EXIT_USAGE;
}

static int start(struct options *o)
{
    struct err e = ERR_INIT;

    /* Some fifty threads, each with work now and then: an arena a thread would keep its own leftovers for good. */
    mallopt(M_ARENA_MAX, 2);
    log_setup(o->verbose ? LOG_L_DEBUG : LOG_L_INFO, true);
    if (options_credentials(o, &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        return EXIT_FAILED;
    }
    if (worker_run(o, &e) < 0) {
        log_err("%s", e.msg);
        return EXIT_FAILED;
    }
    return 0;
}

int main(int argc, char **argv)
{
    AUTO(options) struct options o = {0};
    enum options_result what;
    struct err e = ERR_INIT;

    if (options_read(argc, argv, &o, &what, &e) < 0)
        return complain(argv[0], &e);
    switch (what) {
    case OPTIONS_HELP:
        opt_print_help(options_table, "cworkerd [flags]",
                       "Run bundles of a CodaLab server on this machine, without a Docker daemon.",
                       stdout);
        return 0;
    case OPTIONS_VERSION: puts("cworkerd " CW_VERSION); return 0;
    default: return start(&o);
    }
}
