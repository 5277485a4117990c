/*
 * cwrun - for people: run one container or one bundle, look after images, ask what the host lacks.
 */
#include "cmd/cwrun.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static const struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
    bool needs_root;
    const char *help;
} verbs[] = {
    {"run", cwrun_run, true, "run a command in a container of an image"},
    {"bundle", cwrun_bundle, true, "run a bundle description in the worker's environment"},
    {"pull", cwrun_pull, true, "fetch an image into the store"},
    {"images", cwrun_images, true, "list the images of the store"},
    {"inspect", cwrun_inspect, true, "show an image's digests, layers and configuration as JSON"},
    {"rmi", cwrun_rmi, true, "remove images"},
    {"prune", cwrun_prune, true, "remove unused images until the store is below a size"},
    {"pin", cwrun_pin, true, "keep images whatever space is wanted for"},
    {"unpin", cwrun_pin, true, "keep them no longer"},
    {"mount", cwrun_mount, true, "show an image's merged tree, read-only, at a directory"},
    {"umount", cwrun_umount, true, "take such a view away"},
    {"ps", cwrun_ps, true, "list the runs of this host's worker"},
    {"logs", cwrun_logs, true, "show what a run has written"},
    {"exec", cwrun_exec, true, "run another program in a run that lives"},
    {"attach", cwrun_attach, true, "come back to a program that exec was made to leave"},
    {"stats", cwrun_stats, true, "show what runs use"},
    {"kill", cwrun_kill, true, "end runs"},
    {"doctor", cwrun_doctor, false, "say what this host lacks, and what to do about it"},
};

static void usage(FILE *out)
{
    fputs("usage: cwrun VERB [flags] ...\n\n", out);
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
        fprintf(out, "  %-10s %s\n", verbs[i].name, verbs[i].help);
    fputs(
        "\n`cwrun VERB --help` shows a verb's flags. Exit status: the command's own; 125 cwrun failed,\n"
        "126 not executable, 127 not found.\n",
        out);
}

int cwrun_fail(const struct err *e)
{
    fprintf(stderr, "cwrun: %s\n", e->msg);
    if (e->kind == ERR_HOST)
        fputs("cwrun: `cwrun doctor` says what this host lacks\n", stderr);
    return EXIT_OURS;
}

int cwrun_parse(const struct opt *table, const char *usage_text, const char *about, int argc,
                char **argv, bool stop_at_word, void *options, struct str_list *words,
                int *ret_next)
{
    struct err e = ERR_INIT;
    bool help = false;

    opt_defaults(table, options);
    int next = opt_parse(table, argc, argv, stop_at_word, options, words, &help, &e);

    if (help) {
        opt_print_help(table, usage_text, about, stdout);
        return 1;
    }
    if (next < 0) {
        fprintf(stderr, "usage: %s\ncwrun %s: error: %s\n", usage_text, argv[0], e.msg);
        return -1;
    }
    if (ret_next)
        *ret_next = next;
    return 0;
}

static bool asks_help(int argc, char **argv)
{
    return argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    int first = 1;

    sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
    log_setup(LOG_L_WARN, false);
    if (name && strcmp(name, "--debug") == 0) {
        log_setup(LOG_L_DEBUG, false);
        name = argc > 2 ? argv[2] : NULL;
        first = 2;
    }
    if (!name || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 ||
        strcmp(name, "help") == 0) {
        usage(name ? stdout : stderr);
        return name ? 0 : EXIT_USAGE;
    }
    if (strcmp(name, "--version") == 0)
        return printf("cwrun %s\n", CW_VERSION) < 0;
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
        if (strcmp(verbs[i].name, name) != 0)
            continue;
        if (verbs[i].needs_root && geteuid() != 0 && !asks_help(argc - first, argv + first)) {
            fprintf(stderr, "cwrun: %s needs root: try `sudo cwrun %s …`\n", name, name);
            return EXIT_OURS;
        }
        return verbs[i].run(argc - first, argv + first);
    }
    fprintf(stderr, "cwrun: there is no verb \"%.60s\"\n\n", name);
    usage(stderr);
    return EXIT_USAGE;
}
