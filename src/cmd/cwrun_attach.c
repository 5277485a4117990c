/*
 * attach: come back to a program that `cwrun exec` gave a terminal to, and that was left running.
 */
#include "cmd/cwrun_attach.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"
#include "cmd/cwrun.h"
#include "cmd/cwrun_launch.h"
#include "cmd/cwrun_local.h"
#include "runtime/tty.h"
#include "runtime/tty_session.h"

enum { SESSIONS_MAX = 64 };

struct attach_options {
    char *runtime_dir;
};
static const struct opt table[] = {
    OPT_ROW(struct attach_options, runtime_dir, "runtime-dir", 0, OPT_STR, "DIR", CWRUN_RUNTIME_DIR,
            "the worker's --runtime-dir; " CWRUN_RUNTIME_DIR "/runs for bundles that cwrun runs"),
    {0},
};

static void say_left(const char *runtime_dir, const char *uuid, pid_t pid)
{
    bool usual = str_eq(runtime_dir, CWRUN_RUNTIME_DIR);

    fprintf(stderr,
            "\r\ncwrun: left; the program goes on until it or the run ends. To come back: "
            "cwrun attach %s%s%s%.10s %d\n",
            usual ? "" : "--runtime-dir ", usual ? "" : runtime_dir, usual ? "" : " ", uuid, pid);
}

int cwrun_visit(int sock, int signals, const char *runtime_dir, const char *uuid, pid_t pid,
                int *ret_status, struct err *e)
{
    AUTO(tty_raw) struct tty_raw raw = TTY_RAW_INIT;
    enum tty_parting how = TTY_PART_ENDED;

    if (tty_enter_raw(&raw, -1, e) < 0)
        return -1;
    *ret_status = tty_visit(sock, signals, raw.active, &how, e);
    tty_leave_raw(&raw);
    if (*ret_status < 0)
        return -1;
    if (how == TTY_PART_LEFT)
        say_left(runtime_dir, uuid, pid);
    if (how == TTY_PART_TAKEN)
        fprintf(stderr, "\r\ncwrun: somebody else has attached to program %d\n", pid);
    return 0;
}

static int several(const char *uuid, const pid_t *pids, size_t n, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(4096);

    for (size_t i = 0; i < n; i++) {
        AUTO_FREE char *path = mem_printf("/proc/%d/comm", pids[i]);
        AUTO(str) struct str name = STR_INIT(64);
        char shown[STR_SHOW_MAX];
        struct err ignored = ERR_INIT;

        if (fd_read_file_at(AT_FDCWD, path, &name, &ignored) == 0 && name.len)
            name.buf[name.len - 1] = '\0'; /* the newline */
        if (str_appendf(&text, "%s%d (%s)", i ? ", " : "", pids[i],
                        str_show(shown, str_text(&name))) < 0)
            break;
    }
    return err_set(e, ERR_USER, "several programs of %s can be attached to; which one? %s", uuid,
                   str_text(&text));
}

static int choose(int dir, const char *uuid, const char *text, pid_t *ret, struct err *e)
{
    pid_t pids[SESSIONS_MAX];
    uint64_t number = 0;

    if (text) {
        if (units_u64(text, INT32_MAX, &number, e) < 0)
            return err_wrap(e, "process id");
        *ret = (pid_t)number;
        return 0;
    }
    size_t n = tty_sessions(dir, pids, SESSIONS_MAX);

    if (n == 0)
        return err_set(e, ERR_ABSENT,
                       "no program of %s has a terminal to come back to; `cwrun exec` starts one",
                       uuid);
    if (n > 1)
        return several(uuid, pids, n, e);
    *ret = pids[0];
    return 0;
}

static int attach(const struct attach_options *o, const char *name, const char *pid_text,
                  int *ret_status, struct err *e)
{
    AUTO(cJSON) cJSON *run = NULL;
    AUTO_CLOSE int signals = cwrun_open_signals(e);
    pid_t pid = 0;

    if (signals < 0 || cwrun_local_find(o->runtime_dir, name, false, &run, e) < 0)
        return -1;
    const char *uuid = cwrun_local_text(run, "uuid");
    AUTO_FREE char *path = mem_printf("%s/%s", o->runtime_dir, uuid);
    AUTO_CLOSE int dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (dir < 0)
        return err_sys(e, "open %s", path);
    if (choose(dir, uuid, pid_text, &pid, e) < 0)
        return -1;
    AUTO_CLOSE int sock = tty_come_back(dir, pid, e);

    return sock < 0 ? -1 : cwrun_visit(sock, signals, o->runtime_dir, uuid, pid, ret_status, e);
}

int cwrun_attach(int argc, char **argv)
{
    AUTO(str_list) struct str_list words = {0};
    struct attach_options o = {0};
    struct err e = ERR_INIT;
    int status = 0;
    int rc = cwrun_parse(
        table, "cwrun attach [flags] UUID [PID]",
        "Come back to the terminal of a program that `cwrun exec` started in a run and that was left with Ctrl-P "
        "Ctrl-Q, or whose terminal was lost: what it wrote last is shown, and a program that fills the screen draws it "
        "anew. Who was attached before is sent away. The process id, which exec said when it was left, is needed only when "
        "there are several. Exit status: the program's own, or 0 when it was left again.",
        argc, argv, false, &o, &words, NULL);

    if (rc == 0 && (words.n < 1 || words.n > 2)) {
        fputs("cwrun attach: error: which run?\n", stderr);
        rc = -1;
    }
    if (rc == 0 &&
        attach(&o, words.items[0], words.n == 2 ? words.items[1] : NULL, &status, &e) < 0)
        status = cwrun_fail(&e);
    opt_free(table, &o);
    return rc < 0 ? EXIT_USAGE : rc == 1 ? 0 : status;
}
