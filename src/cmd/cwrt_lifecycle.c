/* create, start, run, kill, delete. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/opt.h"
#include "base/statefile.h"
#include "base/str.h"
#include "cwrt.h"
#include "runtime/container.h"
#include "runtime/names.h"
#include "runtime/spec.h"
#include "runtime/spec_json.h"
#include "runtime/tty.h"

struct create_options {
    char *bundle, *config, *pid_file, *console_socket, *pidfd_socket;
    int64_t preserve_fds;
    bool detach, keep, no_pivot, no_new_keyring, no_subreaper;
};

/* clang-format off */
static const struct opt create_table[] = {
    OPT_ROW(struct create_options, bundle, "bundle", 'b', OPT_STR, "DIR", ".", "directory that holds config.json"),
    OPT_ROW(struct create_options, config, "config", 'f', OPT_STR, "FILE", "config.json", "its name"),
    OPT_ROW(struct create_options, pid_file, "pid-file", 0, OPT_STR, "FILE", NULL, "write the process id here"),
    OPT_ROW(struct create_options, console_socket, "console-socket", 0, OPT_STR, "SOCKET", NULL, "send the terminal's master there"),
    OPT_ROW(struct create_options, pidfd_socket, "pidfd-socket", 0, OPT_STR, "SOCKET", NULL, "send a pidfd of the first process there"),
    {.name = "preserve-fds", .type = OPT_INT, .offset = offsetof(struct create_options, preserve_fds), .arg = "N", .def = "0", .max = 65536,
     .help = "descriptors from 3 up to pass on (besides LISTEN_FDS)"},
    OPT_ROW(struct create_options, detach, "detach", 'd', OPT_FLAG, NULL, NULL, "run: do not wait for the end"),
    OPT_ROW(struct create_options, keep, "keep", 0, OPT_FLAG, NULL, NULL, "run: do not delete it at the end"),
    OPT_ROW(struct create_options, no_pivot, "no-pivot", 0, OPT_FLAG, NULL, NULL, "refused: a container's root is always pivoted"),
    OPT_ROW(struct create_options, no_new_keyring, "no-new-keyring", 0, OPT_FLAG, NULL, NULL, "accepted; a keyring of its own is made all the same"),
    OPT_ROW(struct create_options, no_subreaper, "no-subreaper", 0, OPT_FLAG, NULL, NULL, "accepted for runc's sake"),
    {0},
};
/* clang-format on */

int cwrt_load_bundle(const char *bundle, const char *config, struct ctr_spec **ret,
                     char **ret_bundle, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(BOUND_CONFIG_JSON);
    AUTO_CLOSE int dir = open(bundle, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (dir < 0)
        return err_sys(e, "bundle %s", bundle);
    AUTO_CLOSE int fd = openat(dir, config, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0)
        return err_sys(e, "%s of bundle %s", config, bundle);
    if (fd_read_all(fd, &text, e) < 0)
        return err_wrap(e, "%s of bundle %s", config, bundle);
    if (ctr_spec_from_json(str_text(&text), text.len, ret, e) < 0)
        return -1;
    *ret_bundle = realpath(bundle, NULL);
    return *ret_bundle ? 0 : err_sys(e, "bundle %s", bundle);
}

int cwrt_write_pid_file(const char *path, int pid, struct err *e)
{
    char text[16];
    AUTO_FREE char *copy = mem_strdup(path);
    char *slash = strrchr(copy, '/');
    const char *dir = slash ? copy : ".", *name = slash ? slash + 1 : path;

    if (slash)
        *slash = '\0';
    AUTO_CLOSE int fd = open(*dir ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    snprintf(text, sizeof(text), "%d", pid);
    if (fd < 0)
        return err_sys(e, "pid file %s", path);
    return statefile_replace(fd, name, text, strlen(text), 0644, false, e);
}

int cwrt_send_pidfd(const char *path, int pidfd, const char *kind, struct err *e)
{
    AUTO_CLOSE int sock = tty_connect(path, e);

    return sock < 0 || fd_send(sock, kind, strlen(kind), &pidfd, 1, e) < 0
               ? err_wrap(e, "--pidfd-socket")
               : 0;
}

/* What callers want to know of a container that was just created. */
static int announce(const struct create_options *o, struct ctr *c, struct err *e)
{
    if (o->pid_file && cwrt_write_pid_file(o->pid_file, ctr_pid(c), e) < 0)
        return -1;
    return o->pidfd_socket ? cwrt_send_pidfd(o->pidfd_socket, ctr_pidfd(c), "standard", e) : 0;
}

/* Descriptors that the service manager handed to our caller are the container's (sd_listen_fds(3)). */
static unsigned listen_fds(struct ctr_spec *s)
{
    const char *count = getenv("LISTEN_FDS");
    unsigned n = count ? (unsigned)strtoul(count, NULL, 10) : 0;

    /* LISTEN_PID is not looked at, as with runc and crun: between the service manager and us is often a monitor. */
    if (!n || n > 1024)
        return 0;
    str_list_setenv(&s->process.env, "LISTEN_FDS", count);
    str_list_setenv(&s->process.env, "LISTEN_PID", "1");
    return n;
}

static int check_preserved(unsigned n, struct err *e)
{
    for (unsigned fd = 3; fd < 3 + n; fd++)
        if (fcntl((int)fd, F_GETFD) < 0)
            return err_set(e, ERR_USER, "--preserve-fds: descriptor %u is not open", fd);
    return 0;
}

/* Whoever asks for systemd's names means them, and with them a container without a path has one, too: as runc. */
static int take_systemd_names(struct ctr_spec *s, const char *id, struct err *e)
{
    char shown[STR_SHOW_MAX];

    if (!cwrt_global.systemd_cgroup && !str_eq(cwrt_global.cgroup_manager, "systemd"))
        return 0;
    if (!s->cgroups_path)
        s->cgroups_path = mem_printf("system.slice:cwrt:%s", id);
    if (strchr(s->cgroups_path, ':'))
        return 0;
    return err_set(
        e, ERR_USER,
        "linux.cgroupsPath: with --systemd-cgroup it is slice:prefix:name, and \"%s\" is a path",
        str_show(shown, s->cgroups_path));
}

static int create(const struct create_options *o, const char *id, int console, bool start_here,
                  struct ctr **ret, bool *ret_terminal, struct err *e)
{
    AUTO(ctr_spec) struct ctr_spec *s = NULL;
    AUTO_FREE char *bundle = NULL;

    if (cwrt_load_bundle(o->bundle, o->config, &s, &bundle, e) < 0)
        return -1;
    if (take_systemd_names(s, id, e) < 0)
        return -1;
    if (o->no_pivot)
        return err_set(e, ERR_USER, "--no-pivot: a container's root is always pivoted");
    struct ctr_create_opts co = {
        .id = id,
        .state_root = cwrt_global.root,
        .bundle = bundle,
        .stdio = {0, 1, 2},
        .console_socket = console,
        .preserve_fds = (unsigned)o->preserve_fds + listen_fds(s),
        .start_here = start_here,
        .partial_cgroup = str_eq(cwrt_global.cgroup, "partial"),
    };

    if (check_preserved((unsigned)o->preserve_fds, e) < 0)
        return -1;
    if (s->process.terminal && console < 0)
        return err_set(e, ERR_USER, "process.terminal: needs --console-socket");
    *ret_terminal = s->process.terminal;
    if (ctr_create(s, &co, ret, e) < 0)
        return -1;
    if (ctr_note(*ret))
        fprintf(stderr, "cwrt: note: %s\n", ctr_note(*ret));
    ctr_keep_spec(*ret, take_ptr(&s));
    return 0;
}

/* After a failure that follows creation. */
static int undo(struct ctr *c)
{
    struct err ignored = ERR_INIT;

    if (ctr_delete(c, true, &ignored) < 0)
        fprintf(stderr, "cwrt: %s\n", ignored.msg);
    return -1;
}

int cwrt_create(int argc, char **argv, struct err *e)
{
    struct create_options o = {0};
    AUTO(str_list) struct str_list words = {0};
    AUTO(ctr) struct ctr *c = NULL;
    AUTO_CLOSE int console = -1;
    bool terminal = false;
    int r = cwrt_flags(create_table, argc, argv, &o, &words, 1, 1, "cwrt create [flags] ID", e);

    if (r == 0 && o.console_socket && (console = tty_connect(o.console_socket, e)) < 0)
        r = -1;
    if (r == 0)
        r = create(&o, words.items[0], console, false, &c, &terminal, e);
    if (r == 0 && announce(&o, c, e) < 0)
        r = undo(c);
    opt_free(create_table, &o);
    return r < 0 ? -1 : 0;
}

int cwrt_start(int argc, char **argv, struct err *e)
{
    static const struct opt none[] = {{0}};
    AUTO(str_list) struct str_list words = {0};
    AUTO(ctr) struct ctr *c = NULL;
    int r = cwrt_flags(none, argc, argv, NULL, &words, 1, 1, "cwrt start ID", e);

    if (r != 0)
        return r < 0 ? -1 : 0;
    return ctr_open(cwrt_global.root, words.items[0], &c, e) < 0 || ctr_start(c, e) < 0 ? -1 : 0;
}

/* In the foreground: the terminal is ours to relay, signals are forwarded, the status is the program's. */
static int run_to_end(struct ctr *c, const struct create_options *o, int tty_sock, bool terminal,
                      struct err *e)
{
    AUTO_CLOSE int master = -1;
    AUTO(tty_raw) struct tty_raw raw = TTY_RAW_INIT;

    if (terminal && ((master = tty_receive(tty_sock, e)) < 0 || tty_enter_raw(&raw, master, e) < 0))
        return undo(c);
    if (ctr_start(c, e) < 0)
        return undo(c);
    int status = cwrt_wait_forwarding(ctr_pidfd(c), master, e);

    if (status < 0)
        return undo(c);
    return !o->keep && ctr_delete(c, true, e) < 0 ? -1 : status;
}

static int run(const struct create_options *o, const char *id, struct err *e)
{
    AUTO(ctr) struct ctr *c = NULL;
    AUTO_CLOSE int console = -1, ours = -1;
    bool terminal = false;

    if (o->console_socket) {
        if ((console = tty_connect(o->console_socket, e)) < 0)
            return -1;
    } else if (!o->detach) {
        int pair[2];

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
            return err_sys(e, "socket pair");
        ours = pair[0];
        console = pair[1];
    }
    if (create(o, id, console, true, &c, &terminal, e) < 0)
        return -1;
    if (announce(o, c, e) < 0)
        return undo(c);
    if (!o->detach)
        return run_to_end(c, o, ours, terminal && ours >= 0, e);
    return ctr_start(c, e) < 0 ? undo(c) : 0;
}

int cwrt_run(int argc, char **argv, struct err *e)
{
    struct create_options o = {0};
    AUTO(str_list) struct str_list words = {0};
    int r = cwrt_flags(create_table, argc, argv, &o, &words, 1, 1, "cwrt run [flags] ID", e);

    if (r == 0)
        r = run(&o, words.items[0], e);
    else if (r == 1)
        r = 0;
    opt_free(create_table, &o);
    return r;
}

/* Call fn for the container that is named, or with --regex for each whose id matches (crun's flag). */
static int each(const char *name, bool regex, int (*fn)(const char *id, void *arg, struct err *e),
                void *arg, struct err *e)
{
    AUTO(str_list) struct str_list ids = {0};
    regex_t pattern;
    int r = 0;

    if (!regex)
        return fn(name, arg, e);
    if (regcomp(&pattern, name, REG_EXTENDED | REG_NOSUB) != 0)
        return err_set(e, ERR_USER, "--regex: not a regular expression: %s", name);
    if (ctr_list(cwrt_global.root, &ids, e) < 0)
        r = -1;
    for (size_t i = 0; i < ids.n && r == 0; i++)
        if (regexec(&pattern, ids.items[i], 0, NULL, 0) == 0)
            r = fn(ids.items[i], arg, e);
    regfree(&pattern);
    return r;
}

struct kill_options {
    bool all, regex;
    int sig;
};

static int kill_one(const char *id, void *arg, struct err *e)
{
    const struct kill_options *o = arg;
    AUTO(ctr) struct ctr *c = NULL;
    const struct ctr_info *info;

    if (ctr_open(cwrt_global.root, id, &c, e) < 0 || ctr_info(c, &info, e) < 0)
        return -1;
    if (info->status == CTR_STOPPED && !o->all)
        return err_set(e, ERR_USER, "container not running");
    return ctr_kill(c, o->sig, o->all, e);
}

int cwrt_kill(int argc, char **argv, struct err *e)
{
    static const struct opt table[] = {
        OPT_ROW(struct kill_options, all, "all", 'a', OPT_FLAG, NULL, NULL,
                "to all processes of the container"),
        OPT_ROW(struct kill_options, regex, "regex", 'r', OPT_FLAG, NULL, NULL,
                "to all containers whose id matches the regular expression"),
        {0}};
    struct kill_options o = {0};
    AUTO(str_list) struct str_list words = {0};
    int r = cwrt_flags(table, argc, argv, &o, &words, 1, 2, "cwrt kill [flags] ID [SIGNAL]", e);

    if (r != 0)
        return r < 0 ? -1 : 0;
    o.sig = SIGTERM;
    if (words.n == 2 && ctr_names_signal(words.items[1], &o.sig, e) < 0)
        return -1;
    return each(words.items[0], o.regex, kill_one, &o, e);
}

struct delete_options {
    bool force, regex;
};

static int delete_one(const char *id, void *arg, struct err *e)
{
    const struct delete_options *o = arg;
    AUTO(ctr) struct ctr *c = NULL;
    const struct ctr_info *info;

    if (ctr_open(cwrt_global.root, id, &c, e) < 0)
        return o->force && e->kind == ERR_ABSENT ? 0 : -1;
    if (ctr_info(c, &info, e) < 0)
        return -1;
    if (!o->force && info->status != CTR_STOPPED)
        return err_set(e, ERR_USER, "cannot delete container %s that is not stopped: %s", id,
                       ctr_status_name(info->status));
    return ctr_delete(c, o->force, e);
}

int cwrt_delete(int argc, char **argv, struct err *e)
{
    static const struct opt table[] = {
        OPT_ROW(struct delete_options, force, "force", 'f', OPT_FLAG, NULL, NULL,
                "kill it first; an unknown container is no error"),
        OPT_ROW(struct delete_options, regex, "regex", 'r', OPT_FLAG, NULL, NULL,
                "all containers whose id matches the regular expression"),
        {0}};
    struct delete_options o = {0};
    AUTO(str_list) struct str_list words = {0};
    int r = cwrt_flags(table, argc, argv, &o, &words, 1, 1, "cwrt delete [flags] ID", e);

    return r != 0 ? (r < 0 ? -1 : 0) : each(words.items[0], o.regex, delete_one, &o, e);
}
