/*
 * exec: another program in a run of this host's worker, in all its namespaces, its cgroup and behind its filters.
 *
 *   name ──► shim ──► its config.json, init and cgroup ──► ctr_exec_at ──► wait until it ends, or the person leaves
 *
 * The program is our child, not the worker's: neither has to know of the other. What it uses counts for the run. With a
 * terminal it is the child of a second process, which stays when we leave (runtime/tty_session.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "cmd/cwrun.h"
#include "cmd/cwrun_attach.h"
#include "cmd/cwrun_launch.h"
#include "cmd/cwrun_local.h"
#include "runtime/container.h"
#include "runtime/shim.h"
#include "runtime/spec.h"
#include "runtime/spec_json.h"
#include "runtime/tty.h"
#include "runtime/tty_session.h"

struct exec_options {
    char *runtime_dir, *workdir, *user;
    struct str_list env;
    bool tty, no_tty;
};

#define ROW(member, name, short_name, type, arg, def, help) \
    OPT_ROW(struct exec_options, member, name, short_name, type, arg, def, help)
static const struct opt table[] = {
    ROW(tty, "tty", 't', OPT_FLAG, NULL, NULL, "a terminal, also where standard input is none"),
    ROW(no_tty, "no-tty", 'T', OPT_FLAG, NULL, NULL,
        "no terminal, also where standard input is one"),
    ROW(env, "env", 'e', OPT_LIST, "NAME=VALUE", NULL, "environment variable; repeatable"),
    ROW(workdir, "workdir", 'w', OPT_STR, "DIR", NULL, "working directory (default: the run's)"),
    ROW(user, "user", 'u', OPT_STR, "USER[:GROUP]", NULL, "names are looked up in the container"),
    ROW(runtime_dir, "runtime-dir", 0, OPT_STR, "DIR", CWRUN_RUNTIME_DIR,
        "the worker's --runtime-dir; " CWRUN_RUNTIME_DIR "/runs for bundles that cwrun runs"),
    {0},
};

static int read_spec(const char *runtime_dir, const char *uuid, struct ctr_spec **ret,
                     struct err *e)
{
    AUTO_FREE char *path = mem_printf("%s/%s/config.json", runtime_dir, uuid);
    AUTO(str) struct str text = STR_INIT(BOUND_CONFIG_JSON);

    if (fd_read_file_at(AT_FDCWD, path, &text, e) < 0)
        return -1;
    return ctr_spec_from_json(str_text(&text), text.len, ret, e);
}

/* The run's own process, with another program and what the flags say. */
static int set_process(struct ctr_process *p, const struct exec_options *o, char **words,
                       struct err *e)
{
    const char *term = getenv("TERM");
    struct winsize size;

    str_list_free(&p->args);
    for (; *words; words++)
        str_list_add(&p->args, *words);
    p->terminal = o->tty || (!o->no_tty && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO));
    if (p->terminal && term)
        str_list_setenv(&p->env, "TERM", term);
    /* From the beginning: a program may ask before we are there to tell it. */
    if (p->terminal && ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0) {
        p->console_rows = size.ws_row;
        p->console_columns = size.ws_col;
    }
    for (size_t i = 0; i < o->env.n; i++) {
        AUTO_FREE char *name = mem_strdup(o->env.items[i]);
        char *equals = strchr(name, '=');

        if (!equals || equals == name)
            return err_set(e, ERR_USER, "--env %.100s: NAME=VALUE is wanted", name);
        *equals = '\0';
        str_list_setenv(&p->env, name, equals + 1);
    }
    if (o->workdir)
        mem_replace(&p->cwd, o->workdir);
    if (o->user)
        mem_replace(&p->user_name, o->user);
    return 0;
}

/* What a program is started with. */
struct starting {
    const char *runtime_dir, *uuid;
    struct ctr_shim *shim;
    struct ctr_spec *spec;
    int init;
};

static int start(const struct starting *s, int console, pid_t *ret_pid, int *ret_pidfd,
                 struct err *e)
{
    const struct ctr_exec_opts eo = {
        .process = &s->spec->process, .stdio = {0, 1, 2}, .console_socket = console};

    return ctr_exec_at(ctr_shim_pid(s->shim), s->init, ctr_shim_cgroup(s->shim), s->spec, &eo,
                       ret_pid, ret_pidfd, e);
}

static int start_on_terminal(const struct starting *s, int dir, int fds[TTY_FD_END], pid_t *ret_pid,
                             struct err *e)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(e, "socket pair");
    AUTO_CLOSE int ours = pair[0], theirs = pair[1];

    if (start(s, theirs, ret_pid, &fds[TTY_FD_PROGRAM], e) < 0 ||
        (fds[TTY_FD_MASTER] = tty_receive(ours, e)) < 0)
        return -1;
    fds[TTY_FD_LISTENER] = tty_listen(dir, *ret_pid, e);
    return fds[TTY_FD_LISTENER] < 0 ? -1 : 0;
}

/* The other process: it is the program's parent, and the keeper of its terminal. */
static _Noreturn void keep(const struct starting *s, int dir, int visitor)
{
    int fds[TTY_FD_END] = {-1, -1, -1, -1, -1, -1, -1, -1};
    AUTO_FREE char *name = NULL, *shim = NULL;
    struct err e = ERR_INIT;
    pid_t pid = -1;

    /* Not the person's job any more: keys and hang-ups reach the program through its own terminal only. */
    setsid();
    fds[TTY_FD_VISITOR] = visitor;
    fds[TTY_FD_DIR] = dir;
    if (start_on_terminal(s, dir, fds, &pid, &e) < 0) {
        if (pid > 0)
            kill(pid, SIGKILL);
        (void)!tty_say(visitor, TTY_FAILED, &e, sizeof(e));
        _exit(1);
    }
    name = mem_printf(TTY_SOCKET_PREFIX "%d", pid);
    if (tty_say(visitor, TTY_STARTED, &pid, sizeof(pid)) < 0 || ctr_shim_find(NULL, &shim, &e) < 0)
        err_clear(&e); /* then this program goes on as the keeper, with more memory */
    tty_become_keeper(shim, name, fds);
}

/* Returns the connection to the keeper. */
static int start_keeper(const struct starting *s, pid_t *ret_pid, struct err *e)
{
    AUTO_FREE char *path = mem_printf("%s/%s", s->runtime_dir, s->uuid);
    AUTO_CLOSE int dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    AUTO_CLOSE int ours = -1;
    int pair[2];

    if (dir < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(e, "a terminal in %s", path);
    ours = pair[0];
    pid_t keeper =
#undef fork /* one thread */
        fork();

    if (keeper == 0)
        keep(s, dir, pair[1]);
    close(pair[1]);
    if (keeper < 0)
        return err_sys(e, "start the keeper of a terminal");
    return tty_await_start(ours, ret_pid, e) < 0 ? -1 : take_fd(&ours);
}

static int exec_in(const struct exec_options *o, const char *uuid, char **words, int *ret_status,
                   struct err *e)
{
    AUTO(ctr_shim) struct ctr_shim *shim = NULL;
    AUTO(ctr_spec) struct ctr_spec *spec = NULL;
    AUTO_CLOSE int init = -1, pidfd = -1, keeper = -1;
    AUTO_CLOSE int signals = cwrun_open_signals(e);
    pid_t pid = 0;

    if (signals < 0 || ctr_shim_adopt(o->runtime_dir, uuid, &shim, e) < 0 ||
        read_spec(o->runtime_dir, uuid, &spec, e) < 0 ||
        set_process(&spec->process, o, words, e) < 0 || (init = ctr_shim_open_init(shim, e)) < 0)
        return -1;
    if (!ctr_shim_is_started(shim))
        return err_set(e, ERR_USER, "run %s has not started its program yet", uuid);
    const struct starting s = {o->runtime_dir, uuid, shim, spec, init};
    bool terminal = spec->process.terminal;

    if (terminal ? (keeper = start_keeper(&s, &pid, e)) < 0 : start(&s, -1, &pid, &pidfd, e) < 0)
        return -1;
    /* A shim takes few connections, and a program may stay for days: the worker must not find them all taken. */
    ctr_shim_free(take_ptr(&shim));
    if (terminal)
        return cwrun_visit(keeper, signals, o->runtime_dir, uuid, pid, ret_status, e);
    *ret_status = tty_wait(pidfd, signals, e);
    return *ret_status < 0 ? -1 : 0;
}

static int find_and_exec(const struct exec_options *o, const char *name, char **words,
                         int *ret_status, struct err *e)
{
    AUTO(cJSON) cJSON *run = NULL;

    if (cwrun_local_find(o->runtime_dir, name, false, &run, e) < 0)
        return -1;
    return exec_in(o, cwrun_local_text(run, "uuid"), words, ret_status, e);
}

int cwrun_exec(int argc, char **argv)
{
    struct exec_options o = {0};
    struct err e = ERR_INIT;
    int next = 0, status = 0;
    int rc = cwrun_parse(
        table, "cwrun exec [flags] UUID [--] PROGRAM [ARGUMENT...]",
        "Run another program in a run that lives, with its limits and walls. On a terminal it gets one of its "
        "own: sizes and keys are passed on, and Ctrl-P Ctrl-Q leaves the program running, as does the loss of that "
        "terminal; `cwrun attach` comes back. The beginning of a uuid will do. Exit status: the program's own.",
        argc, argv, true, &o, NULL, &next);
    char **words = argv + next + 1;

    if (rc == 0 && next < argc && *words && str_eq(*words, "--"))
        words++;
    if (rc == 0 && (next >= argc || !*words)) {
        fputs("cwrun exec: error: a run and a program are wanted\n", stderr);
        rc = -1;
    }
    if (rc == 0 && find_and_exec(&o, argv[next], words, &status, &e) < 0)
        status = cwrun_launch_failed(&e);
    opt_free(table, &o);
    return rc < 0 ? EXIT_USAGE : rc == 1 ? 0 : status;
}
