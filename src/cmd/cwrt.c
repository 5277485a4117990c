/*
 * cwrt - the OCI runtime command line: create, start, state, kill, delete and the rest, as runc has them, over the
 * same runtime/ that runs bundles.
 */
#include "cwrt.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/opt.h"
#include "runtime/container.h"
#include "runtime/state.h"

struct cwrt_global cwrt_global;

static const struct opt globals[] = {
    OPT_ROW(struct cwrt_global, root, "root", 0, OPT_STR, "DIR", "/run/cwrt",
            "directory for the state of containers"),
    OPT_ROW(struct cwrt_global, log, "log", 0, OPT_STR, "FILE", NULL, "write errors here too"),
    OPT_ROW(struct cwrt_global, log_format, "log-format", 0, OPT_STR, "FORMAT", "text",
            "text or json"),
    OPT_ROW(struct cwrt_global, debug, "debug", 0, OPT_FLAG, NULL, NULL, "say more"),
    OPT_ROW(
        struct cwrt_global, cgroup, "cgroup", 0, OPT_STR, "MODE", "full",
        "full: a container's limits hold or it is not run; partial: on a host whose cgroup v2 has no controllers, run with what there is"),
    OPT_ROW(
        struct cwrt_global, systemd_cgroup, "systemd-cgroup", 0, OPT_FLAG, NULL, NULL,
        "linux.cgroupsPath is slice:prefix:name, and no path; the groups are made without asking systemd"),
    OPT_ROW(struct cwrt_global, cgroup_manager, "cgroup-manager", 0, OPT_STR, "NAME", NULL,
            "cgroupfs, or systemd for --systemd-cgroup"),
    OPT_ROW(struct cwrt_global, rootless, "rootless", 0, OPT_STR, "VALUE", NULL,
            "accepted for runc's sake"),
    OPT_ROW(struct cwrt_global, criu, "criu", 0, OPT_STR, "PATH", NULL, "accepted for runc's sake"),
    OPT_ROW(struct cwrt_global, version, "version", 'v', OPT_FLAG, NULL, NULL, "print the version"),
    {0},
};

static const struct {
    const char *name;
    cwrt_command *run;
    const char *about;
} commands[] = {
    {"create", cwrt_create, "create a container, stopped before its program"},
    {"start", cwrt_start, "let a created container run its program"},
    {"run", cwrt_run, "create and start"},
    {"state", cwrt_state, "a container's state, as JSON"},
    {"kill", cwrt_kill, "send a signal"},
    {"delete", cwrt_delete, "remove what is left of a stopped container"},
    {"exec", cwrt_exec, "run another program in a container"},
    {"list", cwrt_list, "all containers of this --root"},
    {"ps", cwrt_ps, "processes of a container"},
    {"pause", cwrt_pause, "freeze all processes"},
    {"resume", cwrt_resume, "let them go on"},
    {"update", cwrt_update, "change limits"},
    {"events", cwrt_events, "figures and out-of-memory events"},
    {"spec", cwrt_spec, "write a config.json to start from"},
    {"features", cwrt_features, "what this runtime can do, as JSON"},
    {"shim", cwrt_shim, "for cworkerd and cwrun: create a container and become its cwshim"},
};

static void usage(FILE *out)
{
    opt_print_help(globals, "cwrt [global flags] COMMAND [flags] [arguments]", "An OCI runtime.",
                   out);
    fputs("\ncommands:\n", out);
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].about);
}

/* What podman and containerd read to tell their users why. */
static void log_error(const char *message)
{
    if (!cwrt_global.log)
        return;
    AUTO_CLOSE int fd = open(cwrt_global.log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    AUTO_FREE char *now = state_now(), *line = NULL;

    if (str_eq(cwrt_global.log_format, "json")) {
        AUTO(cJSON) cJSON *o = cJSON_CreateObject();

        json_add_str(o, "level", "error");
        json_add_str(o, "msg", message);
        json_add_str(o, "time", now);
        AUTO_FREE char *text = json_text(o);

        line = mem_printf("%s\n", text);
    } else {
        line = mem_printf("time=\"%s\" level=error msg=\"%s\"\n", now, message);
    }
    if (fd < 0 || fd_write_all(fd, line, strlen(line)) < 0)
        fprintf(stderr, "cwrt: cannot write %s\n", cwrt_global.log);
}

static int fail(const struct err *e)
{
    fprintf(stderr, "cwrt: %s\n", e->msg);
    log_error(e->msg);
    return 1;
}

int cwrt_flags(const struct opt *table, int argc, char **argv, void *options,
               struct str_list *words, size_t min, size_t max, const char *usage_text,
               struct err *e)
{
    bool help = false;

    opt_defaults(table, options);
    if (opt_parse(table, argc, argv, false, options, words, &help, e) < 0)
        return -1;
    if (help) {
        opt_print_help(table, usage_text, "", stdout);
        return 1;
    }
    if (words->n < min || words->n > max)
        return err_set(e, ERR_USER, "usage: %s", usage_text);
    return 0;
}

static int dispatch(int argc, char **argv, struct err *e)
{
    bool help = false;
    int first;

    opt_defaults(globals, &cwrt_global);
    first = opt_parse(globals, argc, argv, true, &cwrt_global, NULL, &help, e);
    if (first < 0)
        return -1;
    if (cwrt_global.version) {
        printf("cwrt version %s\nspec: 1.3.0\n", CW_VERSION);
        return 0;
    }
    if (help || first >= argc) {
        usage(help ? stdout : stderr);
        return help ? 0 : 1;
    }
    if (cwrt_global.cgroup_manager && !str_eq(cwrt_global.cgroup_manager, "cgroupfs") &&
        !str_eq(cwrt_global.cgroup_manager, "systemd"))
        return err_set(e, ERR_USER,
                       "--cgroup-manager: cgroupfs or systemd; a container has a cgroup always");
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (strcmp(commands[i].name, argv[first]) == 0)
            return commands[i].run(argc - first, argv + first, e);
    return err_set(e, ERR_USER, "no such command: %s", argv[first]);
}

int main(int argc, char **argv)
{
    struct err e = ERR_INIT;

    log_setup(LOG_L_WARN, false);
    int status = dispatch(argc, argv, &e);

    if (status < 0)
        status = fail(&e);
    opt_free(globals, &cwrt_global);
    return status;
}
