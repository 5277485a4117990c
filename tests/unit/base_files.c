/* path, fd, statefile, proc: on a real directory. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/statefile.h"
#include "base/str.h"
#include "base/tree.h"
#include "test.h"

static int make_dir(char *template)
{
    assert_non_null(mkdtemp(template));
    int fd = open(template, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static void beneath_means_beneath(void **state UNUSED) /* S01, S02 */
{
    char name[] = "/tmp/cw-files-XXXXXX";
    AUTO_CLOSE int dir = make_dir(name);
    static const char *const bad[] = {"..",  "/etc/passwd", "up/passwd",
                                      "abs", "sub/../../x", "proc/self/root/etc"};
    struct err e = ERR_INIT;

    assert_int_equal(mkdirat(dir, "sub", 0755), 0);
    assert_int_equal(symlinkat("/etc", dir, "up"), 0);
    assert_int_equal(symlinkat("/etc/passwd", dir, "abs"), 0);
    assert_int_equal(symlinkat("/proc", dir, "proc"), 0);
    assert_int_equal(symlinkat("sub", dir, "inside"), 0);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(path_open_beneath(dir, bad[i], O_RDONLY, 0, &e), -1);
        assert_int_equal(path_open_beneath_links(dir, bad[i], O_RDONLY, 0, &e), -1);
        char *nowhere = NULL;
        assert_int_equal(path_real_beneath_links(dir, bad[i], &nowhere, &e), -1);
        assert_null(nowhere);
    }
    AUTO_FREE char *top = NULL, *real = NULL, *sub = realpath(name, NULL);
    assert_ok(path_real_beneath_links(dir, "", &top, &e), &e);
    assert_string_equal(top, sub);
    assert_ok(path_real_beneath_links(dir, "inside", &real, &e), &e);
    assert_true(str_ends(real, "/sub") && str_starts(real, sub));
    AUTO_CLOSE int linked = path_open_beneath_links(dir, "inside", O_RDONLY, 0, &e);
    assert_true(linked >= 0);
    assert_int_equal(path_open_beneath(dir, "inside", O_RDONLY, 0, &e), -1);
    /* In a root, an absolute link leads to the root's own file. */
    AUTO_CLOSE int made = path_mkdirs_in_root(dir, "/etc/deep/er", 0755, &e);
    assert_true(made >= 0);
    assert_int_equal(faccessat(dir, "etc/deep/er", F_OK, 0), 0);
    AUTO_CLOSE int up = path_open_in_root(dir, "up/deep", O_RDONLY, 0, &e);
    assert_true(up >= 0);
    assert_int_equal(path_open_in_root(dir, "../../../../etc/passwd", O_RDONLY, 0, &e), -1);
    assert_ok(tree_remove_at(AT_FDCWD, name, &e), &e);
}

static void normalisation(void **state UNUSED)
{
    static const struct {
        const char *in, *out;
    } rows[] = {{"", ""},     {"a//b/./c/", "a/b/c"}, {"a/../b", "b"},
                {"..", NULL}, {"a/../../b", NULL},    {"/x", "x"},
                {".", ""}};

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO_FREE char *out = path_normalize(rows[i].in);

        if (!str_eq(out, rows[i].out))
            fail_msg("%s gives %s", rows[i].in, out ? out : "NULL");
    }
}

static void replaced_or_untouched(void **state UNUSED)
{
    char name[] = "/tmp/cw-files-XXXXXX";
    AUTO_CLOSE int dir = make_dir(name);
    AUTO(str) struct str s = STR_INIT(100);
    struct err e = ERR_INIT;
    struct stat st;

    assert_ok(statefile_replace(dir, "a.json", "one", 3, 0600, true, &e), &e);
    assert_ok(statefile_replace(dir, "a.json", "three", 5, 0600, true, &e), &e);
    assert_ok(statefile_read(dir, "a.json", &s, &e), &e);
    assert_string_equal(str_text(&s), "three");
    assert_int_equal(fstatat(dir, "a.json", &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(close(openat(dir, ".tmp-0123-a.json", O_CREAT | O_WRONLY, 0600)), 0);
    statefile_sweep(dir);
    assert_int_equal(faccessat(dir, ".tmp-0123-a.json", F_OK, 0), -1);
    assert_ok(statefile_set_aside(dir, "a.json", &e), &e);
    assert_int_equal(statefile_read(dir, "a.json", &s, &e), -1);
    assert_int_equal(e.kind, ERR_ABSENT);
    assert_ok(statefile_remove(dir, "a.json", true, &e), &e);
    assert_ok(tree_remove_at(AT_FDCWD, name, &e), &e);
}

static void special_files_do_not_hang(void **state UNUSED) /* S04 */
{
    char name[] = "/tmp/cw-files-XXXXXX";
    AUTO_CLOSE int dir = make_dir(name);
    AUTO(str) struct str s = STR_INIT(100);
    struct err e = ERR_INIT;

    assert_int_equal(mkfifoat(dir, "fifo", 0600), 0);
    assert_int_equal(fd_read_file_at(dir, "fifo", &s, &e), -1);
    assert_has(e.msg, "not a regular file");
    assert_ok(tree_remove_at(AT_FDCWD, name, &e), &e);
}

static void descriptors_travel(void **state UNUSED)
{
    int pair[2], sent[2], got[4];
    size_t n = ARRAY_SIZE(got);
    char buf[8];
    struct err e = ERR_INIT;

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(pipe2(sent, O_CLOEXEC), 0);
    assert_ok(fd_send(pair[0], "hi", 2, sent, 2, &e), &e);
    assert_int_equal(fd_recv(pair[1], buf, sizeof(buf), got, &n, &e), 2);
    assert_int_equal(n, 2);
    assert_int_equal(fcntl(got[0], F_GETFD), FD_CLOEXEC);
    assert_int_equal(write(got[1], "x", 1), 1);
    assert_int_equal(read(sent[0], buf, 1), 1);
    /* A message that does not fit is refused, its descriptors closed. */
    n = ARRAY_SIZE(got);
    assert_ok(fd_send(pair[0], "0123456789", 10, sent, 2, &e), &e);
    assert_int_equal(fd_recv(pair[1], buf, sizeof(buf), got + 2, &n, &e), -1);
    for (size_t i = 0; i < 2; i++) {
        close(pair[i]);
        close(sent[i]);
        close(got[i]);
    }
}

static void helpers_are_bounded(void **state UNUSED) /* S09 */
{
    static const struct {
        const char *script;
        int rc, status;
        enum err_kind kind;
        unsigned seconds;
    } rows[] = {
        {"cat; echo e >&2; exit 3", 0, 3, ERR_NONE, 60},
        {"kill -9 $$", 0, 137, ERR_NONE, 60},
        {"sleep 60", -1, 0, ERR_LIMIT, 1},
        {"yes", -1, 0, ERR_LIMIT, 60},
        {"sleep 100 & exit 0", 0, 0, ERR_NONE,
         60}, /* a grandchild with our pipe is not waited for */
    };

    setenv("CW_SECRET", "planted", 1); /* S10: not inherited */
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char *argv[] = {(char *)"sh", (char *)"-c", (char *)rows[i].script, NULL};
        AUTO(str) struct str out = STR_INIT(10000), err_out = STR_INIT(10000);
        struct proc_result r = {.status = -1};
        struct err e = ERR_INIT;
        int rc =
            proc_run(argv, NULL, "input", 5, &out, &err_out, rows[i].seconds * NS_PER_S, &r, &e);

        if (rc != rows[i].rc || (rc == 0 && r.status != rows[i].status))
            fail_msg("%s: %d, status %d, %s", rows[i].script, rc, r.status, e.msg);
        if (rc < 0)
            assert_int_equal(e.kind, rows[i].kind);
        if (i == 0) {
            assert_string_equal(str_text(&out), "input");
            assert_string_equal(str_text(&err_out), "e\n");
        }
    }
    char *argv[] = {(char *)"env", NULL};
    AUTO(str) struct str out = STR_INIT(10000);
    struct proc_result r;
    struct err e = ERR_INIT;

    assert_ok(proc_run(argv, NULL, NULL, 0, &out, NULL, 60 * NS_PER_S, &r, &e), &e);
    assert_null(strstr(str_text(&out), "planted"));
    char *absent[] = {(char *)"no-such-program-here", NULL};
    assert_int_equal(proc_run(absent, NULL, NULL, 0, NULL, NULL, 60 * NS_PER_S, &r, &e), -1);
    assert_int_equal(e.kind, ERR_ABSENT);
}

static void spawn_places_descriptors(void **state UNUSED)
{
    int p[2];
    char buf[16] = "";
    struct err e = ERR_INIT;
    char *argv[] = {(char *)"sh", (char *)"-c", (char *)"echo x >&4; ls /proc/self/fd | wc -l >&4",
                    NULL};

    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    const int fds[] = {-1, -1, 2, p[1], p[1]};
    AUTO_CLOSE int pidfd = proc_spawn("/bin/sh", argv, NULL, fds, ARRAY_SIZE(fds), NULL, &e);

    assert_true(pidfd >= 0);
    close(p[1]);
    assert_true(fd_read_full(p[0], buf, sizeof(buf) - 1) > 0);
    assert_string_equal(buf, "x\n6\n"); /* 0-4 and ls's own */
    close(p[0]);
}

int main(void)
{
    /* As our programs: a helper that does not read its input is an error of write, not a death. */
    sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beneath_means_beneath),    cmocka_unit_test(normalisation),
        cmocka_unit_test(replaced_or_untouched),    cmocka_unit_test(special_files_do_not_hang),
        cmocka_unit_test(descriptors_travel),       cmocka_unit_test(helpers_are_bounded),
        cmocka_unit_test(spawn_places_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
