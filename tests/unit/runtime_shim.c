/*
 * Shims: both ends, with real containers.
 * needs: root cgroup2 alone
 * timeout: 300
 * rows: S48 S49 S56 S41 S40
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/tree.h"
#include "runtime/cgroup.h"
#include "runtime/exit.h"
#include "runtime/shim.h"
#include "runtime/shim_log.h"
#include "runtime/shim_proto.h"
#include "runtime/spec.h"
#include "tests/unit/test.h"

static char *top, *root, *runtime_dir, *shim_path;
static bool
    partial; /* development on a hybrid host: CW_PARTIAL=1 leaves out what needs controllers */

/* A root with busybox in it. */
static void make_root(void)
{
    struct err e = ERR_INIT;
    AUTO_FREE char *bin = mem_printf("%s/bin", root);
    AUTO_FREE char *script =
        mem_printf("cp \"$(command -v busybox)\" %s/busybox && chmod 755 %s/busybox && "
                   "for a in sh sleep cat echo head dd true kill mkdir; do ln -s busybox %s/$a; "
                   "done && mkdir %s/proc %s/dev %s/sys %s/tmp",
                   bin, bin, bin, root, root, root, root);
    char *argv[] = {(char *)"/bin/sh", (char *)"-c", script, NULL};
    struct proc_result r;

    assert_ok(path_mkdirs(bin, 0755, &e), &e);
    assert_ok(proc_run(argv, NULL, NULL, 0, NULL, NULL, 30 * NS_PER_S, &r, &e), &e);
    assert_int_equal(r.status, 0);
}

static int setup(void **state UNUSED)
{
    const char *build = getenv("CW_BUILD"), *tmp = getenv("TMPDIR");

    partial = getenv("CW_PARTIAL");
    top = mem_printf("%s/shim-test-%d", tmp ? tmp : "/tmp", getpid());
    root = mem_printf("%s/root", top);
    runtime_dir = mem_printf("%s/run", top);
    shim_path = mem_printf("%s/bin/cwshim", build ? build : "build");
    make_root();
    return 0;
}

static int teardown(void **state UNUSED)
{
    struct err e = ERR_INIT;

    if (tree_remove_at(AT_FDCWD, top, &e) < 0)
        fail_msg("%s", e.msg);
    free(top);
    free(root);
    free(runtime_dir);
    free(shim_path);
    return 0;
}

static struct ctr_spec *make_spec(const char *id, const char *script)
{
    struct ctr_spec *s = ctr_spec_new();

    ctr_spec_isolate(s, 1 << 20, 0);
    s->has_process = true;
    s->root_path = mem_strdup(root);
    s->cgroups_path = mem_printf("/cw-shim-test" TEST_VARIANT "/%s", id);
    str_list_add(&s->process.args, "/bin/sh");
    str_list_add(&s->process.args, "-c");
    str_list_add(&s->process.args, script);
    str_list_setenv(&s->process.env, "PATH", "/bin");
    mem_replace(&s->process.cwd, "/");
    if (partial)
        ctr_spec_add_annotation(s, CTR_ANNOTATION "cgroup.partial", "true");
    return s;
}

static struct ctr_shim *spawn(const char *id, struct ctr_spec *spec, struct err *e)
{
    struct ctr_shim_opts o = {.shim_path = shim_path, .runtime_dir = runtime_dir, .id = id};
    struct ctr_shim *shim = NULL;
    AUTO(ctr_spec) struct ctr_spec *s = spec;

    return ctr_shim_spawn(&o, s, &shim, e) < 0 ? NULL : shim;
}

static struct ctr_shim *spawn_script(const char *id, const char *script)
{
    struct err e = ERR_INIT;
    struct ctr_shim *s = spawn(id, make_spec(id, script), &e);

    if (!s)
        fail_msg("%s", e.msg);
    return s;
}

static struct ctr_shim *start_script(const char *id, const char *script)
{
    struct err e = ERR_INIT;
    struct ctr_shim *s = spawn_script(id, script);

    assert_false(ctr_shim_is_started(s));
    assert_ok(ctr_shim_start(s, &e), &e);
    assert_true(ctr_shim_is_started(s));
    return s;
}

static void wait_end(struct ctr_shim *s)
{
    assert_int_equal(fd_wait(ctr_shim_fd(s), POLLIN, clock_in_ns(60 * NS_PER_S)), 1);
}

static int open_run(const char *id)
{
    AUTO_FREE char *path = mem_printf("%s/%s", runtime_dir, id);

    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static bool has_record(const char *id, struct exit_record *r, struct err *e)
{
    AUTO_CLOSE int dir = open_run(id);

    return dir >= 0 && ctr_exit_read(dir, r, e) == 0;
}

static bool group_exists(const char *id)
{
    AUTO_FREE char *path = mem_printf("/cw-shim-test" TEST_VARIANT "/%s", id);
    AUTO(ctr_cgroup) struct ctr_cgroup *cg = NULL;
    struct err e = ERR_INIT;

    return ctr_cgroup_open(path, &cg, &e) == 0;
}

/* The record of a run that ended by itself; everything of it is removed. */
static struct exit_record finish(const char *id, struct ctr_shim *s)
{
    struct exit_record r = {0};
    struct err e = ERR_INIT;

    wait_end(s);
    ctr_shim_free(s);
    if (!has_record(id, &r, &e))
        fail_msg("%s: %s", id, e.msg);
    assert_false(group_exists(id));
    return r;
}

static void clean(const char *id)
{
    struct err e = ERR_INIT;

    assert_ok(ctr_shim_cleanup(runtime_dir, id, &e), &e);
    assert_int_equal(open_run(id), -1);
    assert_ok(ctr_shim_cleanup(runtime_dir, id, &e), &e); /* twice is fine */
}

static struct exit_record run_script(const char *id, const char *script)
{
    struct exit_record r = finish(id, start_script(id, script));

    return r;
}

static void status_and_signal(void **state UNUSED)
{
    static const struct {
        const char *script;
        int status, signal;
    } rows[] = {
        {"exit 0", 0, 0},
        {"exit 7", 7, 0},
        {"exit 255", 255, 0},
        {"exec /bin/busybox sh -c 'exit 137'", 137,
         0}, /* a status that looks like a kill is none */
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct exit_record r = run_script("status", rows[i].script);

        assert_true(r.started);
        assert_int_equal(r.status, rows[i].status);
        assert_int_equal(r.signal, rows[i].signal);
        assert_false(r.oom_killed);
        assert_int_equal(r.oom_kills, 0);
        assert_true(r.end_ns >= r.start_ns && r.start_ns > 0 && r.end_epoch >= r.start_epoch);
        assert_true(r.max_rss_kib > 0);
        clean("status");
    }
}

/* Until it has said that. */
static void wait_word(const char *id, const char *word)
{
    AUTO_FREE char *text = ctr_shim_log(runtime_dir, id);

    for (int i = 0; i < 1200 && !str_eq(text, word); i++) {
        poll(NULL, 0, 50);
        free(text);
        text = ctr_shim_log(runtime_dir, id);
    }
    assert_string_equal(text, word);
}

static void kills(void **state UNUSED)
{
    struct err e = ERR_INIT;
    struct ctr_shim *s =
        start_script("kill", "trap 'exit 42' TERM; echo up; while :; do sleep 0.05; done");

    wait_word("kill", "up\n"); /* before the trap, the signal ends nothing at all (pid 1) */
    assert_ok(ctr_shim_kill(s, SIGTERM, &e), &e);
    struct exit_record r = finish("kill", s);

    assert_int_equal(r.status, 42);
    clean("kill");

    s = start_script("kill", "trap '' TERM; sleep 1000 & sleep 1000");
    assert_ok(ctr_shim_kill(s, SIGKILL, &e), &e);
    r = finish("kill", s);
    assert_int_equal(r.status, 137);
    assert_int_equal(r.signal, SIGKILL);
    assert_false(r.oom_killed);
    clean("kill");

    s = start_script("kill", "sleep 1000");
    assert_int_equal(ctr_shim_kill(s, 4711, &e), -1);
    assert_int_equal(e.kind, ERR_USER);
    assert_ok(ctr_shim_kill(s, SIGKILL, &e), &e);
    finish("kill", s);
    clean("kill");
}

/* Created and never started: no program ran, and the record says so. */
static void killed_before_start(void **state UNUSED)
{
    struct err e = ERR_INIT;
    struct ctr_shim *s = spawn_script("unstarted", "exit 3");

    assert_ok(ctr_shim_kill(s, SIGKILL, &e), &e);
    struct exit_record r = finish("unstarted", s);

    assert_false(r.started);
    assert_int_equal(r.signal, SIGKILL);
    clean("unstarted");
}

static void failures(void **state UNUSED)
{
    struct err e = ERR_INIT;
    struct exit_record r;
    struct ctr_spec *spec = make_spec("fail", "true");

    mem_replace(&spec->root_path, "/no/such/root");
    assert_null(spawn("fail", spec, &e));
    assert_has(e.msg, "/no/such/root");
    assert_int_equal(open_run("fail"), -1);
    assert_false(group_exists("fail"));

    spec = make_spec("fail", "true");
    mem_replace(&spec->process.args.items[0], "/bin/no-such-program");
    assert_null(spawn("fail", spec, &e));
    assert_has(e.msg, "no-such-program");
    assert_int_equal(open_run("fail"), -1);
    assert_false(group_exists("fail"));

    /* what only execve finds out: no program at all */
    AUTO_FREE char *text = mem_printf("%s/bin/text", root);
    AUTO_CLOSE int fd = open(text, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);

    assert_int_equal(fd_write_all(fd, "\177neither ELF nor script", 20), 0);
    close_fd(&fd);
    spec = make_spec("fail", "true");
    mem_replace(&spec->process.args.items[0], "/bin/text");
    struct ctr_shim *s = spawn("fail", spec, &e);

    assert_non_null(s);
    assert_int_equal(ctr_shim_start(s, &e), -1);
    assert_has(e.msg, "/bin/text");
    r = finish("fail", s);
    assert_false(r.started);
    assert_has(r.start_error, "/bin/text");
    assert_int_equal(r.start_error_kind, e.kind);
    clean("fail");

    struct ctr_shim_opts o = {
        .shim_path = "/no/such/shim", .runtime_dir = runtime_dir, .id = "fail"};
    AUTO(ctr_spec) struct ctr_spec *any = make_spec("fail", "true");

    assert_int_equal(ctr_shim_spawn(&o, any, &s, &e), -1);
    assert_has(e.msg, "/no/such/shim");
    assert_int_equal(open_run("fail"), -1);
    o.id = "../fail";
    assert_int_equal(ctr_shim_spawn(&o, any, &s, &e), -1);
    assert_int_equal(e.kind, ERR_USER);
}

static struct ctr_shim *spawn_by(const char *path, const char *id, struct err *e)
{
    AUTO(ctr_spec) struct ctr_spec *spec = make_spec(id, "true");
    struct ctr_shim_opts o = {.shim_path = path, .runtime_dir = runtime_dir, .id = id};
    struct ctr_shim *s = NULL;

    return ctr_shim_spawn(&o, spec, &s, e) < 0 ? NULL : s;
}

/*
 * The container is there, and then the program that is to look after it cannot be executed, or is another one: nothing
 * of the container stays.
 */
static void shim_that_is_none(void **state UNUSED)
{
    static const struct {
        const char *program, *message;
    } rows[] = {{"neither ELF nor script", "Exec format error"}, {"#!/bin/true\n", "has ended"}};
    AUTO_FREE char *dir = mem_printf("%s/other", top), *shim = mem_printf("%s/cwshim", dir),
                   *link = mem_printf("%s/cwrt", dir), *cwrt = NULL;
    AUTO_FREE char *beside =
        mem_printf("%.*s/cwrt", (int)(strrchr(shim_path, '/') - shim_path), shim_path);
    struct err e = ERR_INIT;

    assert_ok(path_mkdirs(dir, 0755, &e), &e);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO_CLOSE int fd = open(shim, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);

        assert_int_equal(fd_write_all(fd, rows[i].program, strlen(rows[i].program)), 0);
        close_fd(&fd);
        if (i == 0) {
            assert_null(spawn_by(shim, "none", &e));
            assert_has(e.msg, "no cwrt beside it");
            cwrt = realpath(beside, NULL);
            assert_int_equal(symlink(cwrt, link), 0);
        }
        assert_null(spawn_by(shim, "none", &e));
        assert_has(e.msg, rows[i].message);
        assert_int_equal(open_run("none"), -1);
        assert_false(group_exists("none"));
    }
}

/* Processes that stay behind when the init ends die with it (S48). */
static void nothing_survives(void **state UNUSED)
{
    struct exit_record r =
        run_script("behind", "(while :; do sleep 0.01 & done) & sleep 0.5; exit 9");

    assert_int_equal(r.status, 9);
    clean("behind");
}

static void last_words(void **state UNUSED)
{
    AUTO_FREE char *text = NULL;
    struct err e = ERR_INIT;

    run_script("words", "echo on stdout; echo on stderr >&2; exit 1");
    text = ctr_shim_log(runtime_dir, "words");
    assert_string_equal(text, "on stdout\non stderr\n");
    clean("words");
    free(text);
    run_script(
        "words",
        "echo first; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done; echo last");
    text = ctr_shim_log(runtime_dir, "words");
    assert_true(strlen(text) <= BOUND_CTR_STDERR);
    assert_true(str_starts(text, "first\nline 1\nline 2\n"));
    assert_has(text, "bytes left out");
    assert_true(str_ends(text, "line 3000\nlast\n"));
    clean("words");

    /* while it runs, too */
    struct ctr_shim *s = start_script("words", "echo early; sleep 1000");

    wait_word("words", "early\n");
    assert_ok(ctr_shim_kill(s, SIGKILL, &e), &e);
    finish("words", s);
    clean("words");
}

/* The daemon is gone: its end of the connection closes. A later one finds the run, with its start. */
static void adopted(void **state UNUSED)
{
    struct err e = ERR_INIT;
    struct ctr_shim *s = NULL;
    struct exit_record r;

    ctr_shim_free(spawn_script("adopt", "sleep 0.2; exit 5"));
    assert_ok(ctr_shim_adopt(runtime_dir, "adopt", &s, &e), &e);
    assert_false(ctr_shim_is_started(s));
    assert_true(ctr_shim_netns(s) >= 0);
    assert_int_equal(ctr_shim_cleanup(runtime_dir, "adopt", &e), -1); /* it lives: hands off */
    assert_ok(ctr_shim_start(s, &e), &e);
    ctr_shim_free(s);
    s = NULL;
    if (ctr_shim_adopt(runtime_dir, "adopt", &s, &e) == 0) {
        assert_true(ctr_shim_is_started(s));
        assert_int_equal(ctr_shim_start(s, &e), -1); /* twice */
        wait_end(s);
        ctr_shim_free(s);
    }
    for (int i = 0; i < 1200 && !has_record("adopt", &r, &e); i++)
        poll(NULL, 0, 50);
    assert_true(has_record("adopt", &r, &e));
    assert_int_equal(r.status, 5);
    for (int i = 0; i < 1200 && ctr_shim_cleanup(runtime_dir, "adopt", &e) < 0; i++)
        poll(NULL, 0, 50);
    assert_int_equal(ctr_shim_adopt(runtime_dir, "adopt", &s, &e), -1);
    assert_int_equal(e.kind, ERR_ABSENT);
}

/* Gone, or waiting for the machine's own init to reap it. */
static bool is_dead(pid_t pid)
{
    AUTO_FREE char *path = mem_printf("/proc/%d/stat", pid);
    AUTO(str) struct str text = STR_INIT(4096);
    struct err e = ERR_INIT;

    return fd_read_file_at(AT_FDCWD, path, &text, &e) < 0 || strstr(str_text(&text), ") Z ");
}

/* The shim is killed: the container dies with the clean-up, and there is no record, so the run counts as vanished. */
static void shim_killed(void **state UNUSED)
{
    struct err e = ERR_INIT;
    struct exit_record r;
    struct ctr_shim *s = start_script("killed", "sleep 1000 & sleep 1000");
    struct ctr_shim *again = NULL;

    assert_int_equal(syscall(SYS_pidfd_send_signal, ctr_shim_fd(s), SIGTERM, NULL, 0),
                     0); /* no effect */
    poll(NULL, 0, 200);
    assert_int_equal(fd_wait(ctr_shim_fd(s), POLLIN, 0), 0);
    assert_int_equal(syscall(SYS_pidfd_send_signal, ctr_shim_fd(s), SIGKILL, NULL, 0), 0);
    wait_end(s);
    pid_t init = ctr_shim_pid(s);

    assert_int_equal(ctr_shim_kill(s, SIGTERM, &e), -1);
    assert_int_equal(e.kind, ERR_ABSENT);
    ctr_shim_free(s);
    assert_int_equal(ctr_shim_adopt(runtime_dir, "killed", &again, &e), -1);
    assert_int_equal(e.kind, ERR_ABSENT);
    assert_false(has_record("killed", &r, &e));
    assert_int_equal(e.kind, ERR_ABSENT);
    clean("killed");
    assert_false(group_exists("killed"));
    /* a process leaves its group a moment before it is a zombie */
    for (int i = 0; i < 200 && !is_dead(init); i++)
        poll(NULL, 0, 50);
    assert_true(is_dead(init));
}

static void listed(void **state UNUSED)
{
    AUTO(str_list) struct str_list ids = {0};
    struct err e = ERR_INIT;

    run_script("one", "true");
    run_script("two", "true");
    assert_ok(ctr_shim_list(runtime_dir, &ids, &e), &e);
    assert_int_equal(ids.n, 2);
    assert_true(str_list_has(&ids, "one") && str_list_has(&ids, "two"));
    clean("one");
    clean("two");
    AUTO(str_list) struct str_list none = {0};

    assert_ok(ctr_shim_list("/no/such/dir", &none, &e), &e);
    assert_int_equal(none.n, 0);
}

/* The same id twice: the second is refused while the first lives, and takes over what a dead one left. */
static void same_id(void **state UNUSED)
{
    struct err e = ERR_INIT;
    struct ctr_shim *s = start_script("same", "sleep 1000");

    assert_null(spawn("same", make_spec("same", "true"), &e));
    assert_true(group_exists("same"));
    assert_int_equal(fd_wait(ctr_shim_fd(s), POLLIN, 0), 0);
    syscall(SYS_pidfd_send_signal, ctr_shim_fd(s), SIGKILL, NULL, 0);
    wait_end(s);
    ctr_shim_free(s);
    struct exit_record r = run_script("same", "exit 4");

    assert_int_equal(r.status, 4);
    clean("same");
}

/* Strangers on the control socket: not root, or not our language. */
static void strangers(void **state UNUSED)
{
    struct err e = ERR_INIT;
    struct ctr_shim *s = start_script("strange", "sleep 1000");
    struct ctr_shim *again = NULL;
    AUTO_FREE char *path = mem_printf("%s/strange/control", runtime_dir);
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    AUTO_CLOSE int dir = open_run("strange");
    AUTO_CLOSE int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct {
        unsigned short family;
        char text[108];
    } a = {.family = AF_UNIX};
    char byte;

    snprintf(a.text, sizeof(a.text), "/proc/self/fd/%d/control", dir);
    assert_int_equal(connect(sock, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(write(sock, "hello", 5), 5);
    assert_int_equal(read(sock, &byte, 1), 0); /* hung up */
    for (int i = 0; i < 20; i++) { /* more than it has places for; the last ones are let in again */
        assert_ok(ctr_shim_adopt(runtime_dir, "strange", &again, &e), &e);
        ctr_shim_free(again);
    }
    assert_ok(ctr_shim_kill(s, SIGKILL, &e), &e);
    finish("strange", s);
    clean("strange");
}

static struct exit_record run_limited(const char *id, int64_t memory, int64_t pids,
                                      const char *script)
{
    struct err e = ERR_INIT;
    struct ctr_spec *spec = make_spec(id, script);

    spec->resources.memory_limit = memory;
    spec->resources.memory_swap_limit = 0;
    spec->resources.pids_limit = pids;
    struct ctr_shim *s = spawn(id, spec, &e);

    if (!s)
        fail_msg("%s", e.msg);
    assert_ok(ctr_shim_start(s, &e), &e);
    return finish(id, s);
}

/* The cause of death comes from the kernel's counters, not from 137. */
static void memory(void **state UNUSED)
{
    if (partial)
        return;
    struct exit_record r =
        run_limited("oom", 24 << 20, 0, "exec dd if=/dev/zero of=/dev/null bs=100M count=1");

    assert_true(r.oom_killed);
    assert_true(r.oom_kills >= 1);
    assert_int_equal(r.signal, SIGKILL);
    assert_true(r.memory_peak > 16 << 20 && r.memory_peak <= 24 << 20);
    clean("oom");

    /* a child is killed, the program survives and says how it goes on (DESIGN §5) */
    r = run_limited("oom", 24 << 20, 0,
                    "dd if=/dev/zero of=/dev/null bs=100M count=1; echo $?; exit 3");
    assert_int_equal(r.status, 3);
    assert_int_equal(r.signal, 0);
    assert_true(r.oom_killed);
    AUTO_FREE char *text = ctr_shim_log(runtime_dir, "oom");

    assert_has(text, "137");
    clean("oom");

    r = run_limited("oom", 64 << 20, 0, "kill -9 $$; exit 137");
    assert_false(r.oom_killed);
    clean("oom");
}

static void pids(void **state UNUSED)
{
    if (partial)
        return;
    struct exit_record r = run_limited(
        "pids", 0, 8, "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 100 & done; exit 6");
    AUTO_FREE char *text = ctr_shim_log(runtime_dir, "pids");

    assert_has(text, "fork");
    assert_true(r.status != 6 || *text);
    clean("pids");
}

static void figures(void **state UNUSED)
{
    struct ctr_stats st = {0};
    struct err e = ERR_INIT;

    if (partial)
        return;
    struct ctr_shim *s =
        start_script("stats", "sleep 1000 & i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; wait");

    for (int i = 0; i < 1200 && (st.cpu_usage_us < 1000 || st.pids_current < 2); i++) {
        assert_ok(ctr_shim_stats(s, &st, &e), &e);
        poll(NULL, 0, 50);
    }
    assert_true(st.cpu_usage_us >= 1000);
    assert_true(st.memory_current > 0 && st.memory_peak >= st.memory_current / 2);
    assert_true(st.pids_current >= 2);
    assert_ok(ctr_shim_kill(s, SIGKILL, &e), &e);
    wait_end(s);
    assert_int_equal(ctr_shim_stats(s, &st, &e), -1);
    struct exit_record r = finish("stats", s);

    assert_true(r.user_us + r.system_us > 0);
    clean("stats");
}

/* --- parts --------------------------------------------------------------------------------------------------- */

/* "Key:\tvalue…" of a file in /proc; a new string. */
static char *proc_value(pid_t pid, const char *file, const char *key)
{
    AUTO_FREE char *path = mem_printf("/proc/%d/%s", pid, file);
    AUTO(str) struct str text = STR_INIT(65536);
    struct err e = ERR_INIT;

    assert_ok(fd_read_file_at(AT_FDCWD, path, &text, &e), &e);
    const char *at = strstr(str_text(&text), key);

    if (!at)
        fail_msg("%s has no %s", path, key);
    at += strlen(key);
    at += strspn(at, ": \t");
    return mem_strndup(at, strcspn(at, "\n"));
}

static pid_t shim_pid(const char *id)
{
    AUTO_FREE char *path = mem_printf("%s/%s/pid", runtime_dir, id);
    AUTO(str) struct str text = STR_INIT(64);
    struct err e = ERR_INIT;

    assert_ok(fd_read_file_at(AT_FDCWD, path, &text, &e), &e);
    return (pid_t)strtol(str_text(&text), NULL, 10);
}

static bool has_mapped(pid_t pid, const char *text)
{
    AUTO_FREE char *path = mem_printf("/proc/%d/maps", (int)pid);
    AUTO(str) struct str maps = STR_INIT(1 << 20);
    struct err e = ERR_INIT;

    assert_ok(fd_read_file_at(AT_FDCWD, path, &maps, &e), &e);
    return strstr(str_text(&maps), text);
}

static bool is_sanitized(pid_t pid)
{
    return has_mapped(pid, "/libasan.so") || has_mapped(pid, "/libtsan.so");
}

/* A shim is one of a thousand on a host, and the last thing of ours beside a hostile program (S48). */
static void small_and_weak(void **state UNUSED)
{
    static const char *const none[] = {"CapInh", "CapAmb", "CapBnd"};
    struct ctr_spec *spec = make_spec("weak", "echo up; exec sleep 1000");
    struct err e = ERR_INIT;
    struct ctr_shim *again = NULL;

    /* with ids of its own: the processes are not root's, and the signals must arrive all the same */
    ctr_spec_add_namespace(spec, "user", NULL);
    ctr_spec_add_idmap(&spec->uid_maps, 0, 1000000, 65536);
    ctr_spec_add_idmap(&spec->gid_maps, 0, 1000000, 65536);
    spec->userns_optional = true;
    struct ctr_shim *s = spawn("weak", spec, &e);
    if (!s)
        fail_msg("%s", e.msg);
    assert_ok(ctr_shim_start(s, &e), &e);
    pid_t pid = shim_pid("weak");
    for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
        AUTO_FREE char *caps = proc_value(pid, "status", none[i]);
        assert_string_equal(caps, "0000000000000000");
    }
    AUTO_FREE char *permitted = proc_value(pid, "status", "CapPrm");
    AUTO_FREE char *effective = proc_value(pid, "status", "CapEff");
    AUTO_FREE char *privileges = proc_value(pid, "status", "NoNewPrivs");
    assert_string_equal(permitted, "0000000000000020"); /* CAP_KILL */
    assert_string_equal(effective, permitted);
    assert_string_equal(privileges, "1");
    AUTO_FREE char *clean_kb = proc_value(pid, "smaps_rollup", "Private_Clean");
    AUTO_FREE char *dirty_kb = proc_value(pid, "smaps_rollup", "Private_Dirty");
    AUTO_FREE char *anonymous_kb = proc_value(pid, "smaps_rollup", "Anonymous");
    printf("cwshim: private clean %s, dirty %s; anonymous %s\n", clean_kb, dirty_kb, anonymous_kb);
    if (!is_sanitized(pid)) { /* the shadow memory is not the shim's fault */
        assert_true(strtol(dirty_kb, NULL, 10) + strtol(clean_kb, NULL, 10) < 512);
        assert_true(strtol(anonymous_kb, NULL, 10) < 128);
        assert_false(has_mapped(pid, ".so")); /* static: no loader, no library */
    }
    ctr_shim_free(s);
    assert_ok(ctr_shim_adopt(runtime_dir, "weak", &again, &e), &e);
    assert_true(ctr_shim_netns(again) >= 0);
    assert_ok(ctr_shim_kill(again, SIGTERM, &e), &e); /* the container's init ignores it */
    assert_ok(ctr_shim_kill(again, SIGKILL, &e), &e);
    struct exit_record r = finish("weak", again);
    assert_int_equal(r.signal, SIGKILL);
    clean("weak");
}

static void messages(void **state UNUSED)
{
    struct err e = ERR_INIT, back = ERR_INIT;
    struct shim_msg m = shim_msg_make(SHIM_KILL, 9, 1, "text"), got;

    assert_ok(shim_msg_parse(&m, sizeof(m), &got, &e), &e);
    assert_memory_equal(&m, &got, sizeof(m));
    assert_int_equal(shim_msg_parse(&m, sizeof(m) - 1, &got, &e), -1);
    assert_int_equal(shim_msg_parse(&m, 0, &got, &e), -1);
    m.magic++;
    assert_int_equal(shim_msg_parse(&m, sizeof(m), &got, &e), -1);
    m.magic--;
    memset(m.text, 'x', sizeof(m.text));
    assert_int_equal(shim_msg_parse(&m, sizeof(m), &got, &e), -1);
    err_set(&e, ERR_USER, "exec /x: no");
    m = shim_msg_of_error(SHIM_FAILED, &e);
    assert_int_equal(shim_msg_error(&m, &back), -1);
    assert_string_equal(back.msg, "exec /x: no");
    assert_int_equal(back.kind, ERR_USER);
    m.a = 4711; /* a kind that does not exist */
    assert_int_equal(shim_msg_error(&m, &back), -1);
    assert_int_equal(back.kind, ERR_HOST);
}

/* Whatever is written, the file is the head, and behind it all of the rest or a mark and the end of it. */
static void log_cap(void **state UNUSED)
{
    static const size_t sizes[] = {0,
                                   1,
                                   SHIM_LOG_HEAD - 1,
                                   SHIM_LOG_HEAD,
                                   SHIM_LOG_HEAD + 1,
                                   SHIM_LOG_HEAD + SHIM_LOG_TAIL,
                                   SHIM_LOG_HEAD + SHIM_LOG_TAIL + 1,
                                   3 * SHIM_LOG_HEAD,
                                   50000};
    AUTO_CLOSE int dir = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTO_FREE char *all = mem_alloc(50000);

    for (size_t i = 0; i < 50000; i++)
        all[i] = (char)('a' + i * 7 / 3 % 26);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        for (size_t step = 1; step < 20000; step = step * 5 + 2) {
            AUTO(str) struct str text = STR_INIT(20000);
            struct err e = ERR_INIT;
            struct shim_log l;
            int into = -1;

            assert_ok(shim_log_open(dir, "cap", &l, &into, &e), &e);
            for (size_t at = 0; at < sizes[i]; at += step) {
                size_t n = sizes[i] - at < step ? sizes[i] - at : step;

                assert_int_equal(write(into, all + at, n), n);
                if (at % 3 == 0 || step > 4000)
                    shim_log_drain(&l, 1 << 20);
            }
            close(into);
            while (shim_log_drain(&l, 1 << 20))
                continue;
            shim_log_close(&l);
            assert_ok(fd_read_file_at(dir, "cap", &text, &e), &e);
            size_t head = sizes[i] < SHIM_LOG_HEAD ? sizes[i] : SHIM_LOG_HEAD,
                   rest = sizes[i] - head;
            size_t tail = rest < SHIM_LOG_TAIL ? rest : SHIM_LOG_TAIL;

            assert_true(text.len <= BOUND_CTR_STDERR);
            assert_memory_equal(str_text(&text), all, head);
            assert_true(text.len >= head + tail);
            assert_memory_equal(str_text(&text) + text.len - tail, all + sizes[i] - tail, tail);
            if (rest > tail)
                assert_has(str_text(&text), " bytes left out");
            else
                assert_int_equal(text.len, sizes[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages),
        cmocka_unit_test(log_cap),
        cmocka_unit_test(status_and_signal),
        cmocka_unit_test(kills),
        cmocka_unit_test(failures),
        cmocka_unit_test(shim_that_is_none),
        cmocka_unit_test(killed_before_start),
        cmocka_unit_test(nothing_survives),
        cmocka_unit_test(last_words),
        cmocka_unit_test(adopted),
        cmocka_unit_test(shim_killed),
        cmocka_unit_test(listed),
        cmocka_unit_test(same_id),
        cmocka_unit_test(strangers),
        cmocka_unit_test(memory),
        cmocka_unit_test(pids),
        cmocka_unit_test(figures),
        cmocka_unit_test(small_and_weak),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
