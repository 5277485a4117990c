/*
 * Shims: what is found after the daemon, the shim, or both were killed; two of one id; strangers at the socket.
 * needs: root cgroup2 alone
 * timeout: 120
 * rows: S48 S49 S56
 */
#include "tests/unit/shim_lab.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adopted), cmocka_unit_test(shim_killed), cmocka_unit_test(listed),
        cmocka_unit_test(same_id), cmocka_unit_test(strangers),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
