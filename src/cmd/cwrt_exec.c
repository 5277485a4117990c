/* exec: another program in a running container. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/opt.h"
#include "base/units.h"
#include "cwrt.h"
#include "runtime/caps.h"
#include "runtime/container.h"
#include "runtime/spec.h"
#include "runtime/spec_json.h"
#include "runtime/tty.h"

struct exec_options {
    char *process, *cwd, *user, *pid_file, *console_socket, *pidfd_socket, *apparmor,
        *process_label, *cgroup;
    struct str_list env, caps, gids;
    int64_t preserve_fds;
    bool tty, detach, no_new_privs, ignore_paused;
};

/* clang-format off */
static const struct opt table[] = {
    OPT_ROW(struct exec_options, process, "process", 'p', OPT_STR, "FILE", NULL, "the process object as JSON"),
    OPT_ROW(struct exec_options, tty, "tty", 't', OPT_FLAG, NULL, NULL, "give it a terminal"),
    OPT_ROW(struct exec_options, cwd, "cwd", 0, OPT_STR, "DIR", NULL, "its working directory"),
    OPT_ROW(struct exec_options, env, "env", 'e', OPT_LIST, "NAME=VALUE", NULL, "set in its environment; repeatable"),
    OPT_ROW(struct exec_options, user, "user", 'u', OPT_STR, "USER[:GROUP]", NULL, "numbers, or names of the container's"),
    OPT_ROW(struct exec_options, gids, "additional-gids", 'g', OPT_LIST, "GID", NULL, "repeatable"),
    OPT_ROW(struct exec_options, caps, "cap", 'c', OPT_LIST, "CAP", NULL, "grant a capability too; repeatable"),
    OPT_ROW(struct exec_options, detach, "detach", 'd', OPT_FLAG, NULL, NULL, "do not wait for its end"),
    OPT_ROW(struct exec_options, pid_file, "pid-file", 0, OPT_STR, "FILE", NULL, "write its process id here"),
    OPT_ROW(struct exec_options, console_socket, "console-socket", 0, OPT_STR, "SOCKET", NULL, "send the terminal's master there"),
    OPT_ROW(struct exec_options, pidfd_socket, "pidfd-socket", 0, OPT_STR, "SOCKET", NULL, "send a pidfd of it there"),
    OPT_ROW(struct exec_options, no_new_privs, "no-new-privs", 0, OPT_FLAG, NULL, NULL, "it cannot gain privileges"),
    OPT_ROW(struct exec_options, ignore_paused, "ignore-paused", 0, OPT_FLAG, NULL, NULL, "also in a paused container"),
    OPT_ROW(struct exec_options, cgroup, "cgroup", 0, OPT_STR, "PATH", NULL, "in this sub-group of the container's cgroup"),
    OPT_ROW(struct exec_options, apparmor, "apparmor", 0, OPT_STR, "PROFILE", NULL, "AppArmor profile"),
    OPT_ROW(struct exec_options, process_label, "process-label", 0, OPT_STR, "LABEL", NULL, "SELinux label"),
    {.name = "preserve-fds", .type = OPT_INT, .offset = offsetof(struct exec_options, preserve_fds), .arg = "N", .def = "0", .max = 65536,
     .help = "descriptors from 3 up to pass on"},
    {0},
};
/* clang-format on */

/* A process object alone: as a whole config.json around it, so that one reader judges both. */
static int read_process(const char *path, struct ctr_spec **ret, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(BOUND_CONFIG_JSON);
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return err_sys(e, "%s", path);
    if (fd_read_all(fd, &text, e) < 0)
        return err_wrap(e, "%s", path);
    AUTO_FREE char *whole =
        mem_printf("{\"ociVersion\":\"1.0.0\",\"process\":%s}", str_text(&text));

    return ctr_spec_from_json(whole, strlen(whole), ret, e);
}

static int add_gids(struct ctr_process *p, const struct str_list *gids, struct err *e)
{
    for (size_t i = 0; i < gids->n; i++) {
        uint64_t gid;

        if (units_u64(gids->items[i], UINT32_MAX - 1, &gid, e) < 0)
            return err_wrap(e, "--additional-gids");
        p->additional_gids =
            mem_realloc(p->additional_gids, p->n_additional_gids + 1, sizeof(*p->additional_gids));
        p->additional_gids[p->n_additional_gids++] = (uint32_t)gid;
    }
    return 0;
}

static int add_caps(struct ctr_process *p, const struct str_list *caps, struct err *e)
{
    uint64_t mask = 0;

    if (!caps->n)
        return 0;
    if (ctr_caps_parse(caps, &mask, e) < 0)
        return err_wrap(e, "--cap");
    p->caps.bounding |= mask;
    p->caps.effective |= mask;
    p->caps.permitted |= mask;
    p->has_caps = true;
    return 0;
}

/* The container's own process, changed by the flags. */
static int apply_flags(struct ctr_process *p, const struct exec_options *o,
                       const struct str_list *words, struct err *e)
{
    if (words->n > 1) {
        str_list_free(&p->args);
        for (size_t i = 1; i < words->n; i++)
            str_list_add(&p->args, words->items[i]);
    }
    for (size_t i = 0; i < o->env.n; i++) {
        const char *equal = strchr(o->env.items[i], '=');

        if (!equal || equal == o->env.items[i])
            return err_set(e, ERR_USER, "--env: NAME=VALUE");
        AUTO_FREE char *name = mem_strndup(o->env.items[i], (size_t)(equal - o->env.items[i]));

        str_list_setenv(&p->env, name, equal + 1);
    }
    if (o->cwd)
        mem_replace(&p->cwd, o->cwd);
    if (o->user)
        mem_replace(&p->user_name, o->user);
    if (o->apparmor)
        mem_replace(&p->apparmor_profile, o->apparmor);
    if (o->process_label)
        mem_replace(&p->selinux_label, o->process_label);
    if (o->no_new_privs)
        p->no_new_privileges = true;
    p->terminal = o->tty;
    return add_gids(p, &o->gids, e) < 0 ? -1 : add_caps(p, &o->caps, e);
}

static int wait_for(int pidfd, int sock, bool terminal, struct err *e)
{
    AUTO_CLOSE int master = -1;
    AUTO(tty_raw) struct tty_raw raw = TTY_RAW_INIT;

    if (terminal && ((master = tty_receive(sock, e)) < 0 || tty_enter_raw(&raw, master, e) < 0))
        return -1;
    return cwrt_wait_forwarding(pidfd, master, e);
}

static int execute(struct ctr *c, const struct ctr_spec *spec, const struct ctr_process *p,
                   const struct exec_options *o, struct err *e)
{
    AUTO_CLOSE int console = -1, ours = -1, pidfd = -1;
    int pair[2];
    pid_t pid;

    if (o->console_socket && (console = tty_connect(o->console_socket, e)) < 0)
        return -1;
    if (p->terminal && console < 0) {
        if (o->detach)
            return err_set(e, ERR_USER, "--tty --detach needs --console-socket");
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
            return err_sys(e, "socket pair");
        ours = pair[0];
        console = pair[1];
    }
    struct ctr_exec_opts eo = {.process = p,
                               .stdio = {0, 1, 2},
                               .console_socket = console,
                               .cgroup = o->cgroup,
                               .preserve_fds = (unsigned)o->preserve_fds};

    if (ctr_exec(c, spec, &eo, &pid, &pidfd, e) < 0)
        return -1;
    if (o->pid_file && cwrt_write_pid_file(o->pid_file, pid, e) < 0)
        return -1;
    if (o->pidfd_socket && cwrt_send_pidfd(o->pidfd_socket, pidfd, "setns", e) < 0)
        return -1;
    return o->detach ? 0 : wait_for(pidfd, ours, ours >= 0, e);
}

static int run(const struct exec_options *o, const struct str_list *words, struct err *e)
{
    AUTO(ctr) struct ctr *c = NULL;
    AUTO(ctr_spec) struct ctr_spec *given = NULL;
    const struct ctr_info *info;

    if (ctr_open(cwrt_global.root, words->items[0], &c, e) < 0 || ctr_info(c, &info, e) < 0)
        return -1;
    if (info->status == CTR_STOPPED)
        return err_set(e, ERR_USER, "cannot exec in a stopped container");
    if (info->status == CTR_PAUSED && !o->ignore_paused)
        return err_set(e, ERR_USER,
                       "cannot exec in a paused container (use --ignore-paused to override)");
    if (!o->process) {
        struct ctr_process *p = &info->spec->process;

        return words->n < 2 ? err_set(e, ERR_USER, "exec: the program is missing")
               : apply_flags(p, o, words, e) < 0 ? -1
                                                 : execute(c, info->spec, p, o, e);
    }
    if (read_process(o->process, &given, e) < 0)
        return -1;
    if (o->tty)
        given->process.terminal = true;
    return execute(c, info->spec, &given->process, o, e);
}

int cwrt_exec(int argc, char **argv, struct err *e)
{
    struct exec_options o = {0};
    AUTO(str_list) struct str_list words = {0};
    bool help = false;

    opt_defaults(table, &o);
    /* The program's own flags are its own: parsing stops at the container's id. */
    int first = opt_parse(table, argc, argv, true, &o, &words, &help, e);
    int r = first < 0 ? -1 : 0;

    if (help)
        opt_print_help(table, "cwrt exec [flags] ID PROGRAM [ARGUMENTS]", "", stdout);
    for (int i = first; r == 0 && i < argc; i++)
        if (i > first + 1 || strcmp(argv[i], "--") != 0)
            str_list_add(&words, argv[i]);
    if (r == 0 && !help)
        r = words.n ? run(&o, &words, e)
                    : err_set(e, ERR_USER, "usage: cwrt exec [flags] ID PROGRAM [ARGUMENTS]");
    opt_free(table, &o);
    return r;
}
