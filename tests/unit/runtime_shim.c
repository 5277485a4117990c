/*
 * Shims: how a run is started, killed, limited, and how its end is recorded, with real containers.
 * needs: root cgroup2 alone
 * timeout: 200
 * rows: S48 S49 S41 S40
 */
#include "tests/unit/shim_lab.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_and_signal),
        cmocka_unit_test(kills),
        cmocka_unit_test(failures),
        cmocka_unit_test(shim_that_is_none),
        cmocka_unit_test(killed_before_start),
        cmocka_unit_test(nothing_survives),
        cmocka_unit_test(last_words),
        cmocka_unit_test(memory),
        cmocka_unit_test(pids),
        cmocka_unit_test(figures),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
