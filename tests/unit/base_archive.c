/* Packing and unpacking trees; GNU tar is the judge of what we pack. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/archive.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/tree.h"
#include "test.h"

static char top[64];
static int topfd = -1;

static int set_up(void **state UNUSED)
{
    snprintf(top, sizeof(top), "/tmp/cw-archive-XXXXXX");
    if (!mkdtemp(top))
        return -1;
    topfd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return topfd < 0 ? -1 : 0;
}

static int tear_down(void **state UNUSED)
{
    struct err e = ERR_INIT;

    close(topfd);
    return tree_remove_at(AT_FDCWD, top, &e);
}

static void sh(const char *script)
{
    AUTO_FREE char *whole = mem_printf("cd %s && umask 022 && %s", top, script);
    char *argv[] = {(char *)"bash", (char *)"-ec", whole, NULL};
    AUTO(str) struct str out = STR_INIT(65536), err = STR_INIT(65536);
    struct proc_result r = {0};
    struct err e = ERR_INIT;

    assert_ok(proc_run(argv, NULL, NULL, 0, &out, &err, 60 * NS_PER_S, &r, &e), &e);
    if (r.status)
        fail_msg("%s: %d: %s%s", script, r.status, str_text(&out), str_text(&err));
}

static int to_file(void *arg, const void *data, size_t n, struct err *e)
{
    return fd_write_all(*(int *)arg, data, n) < 0 ? err_sys(e, "write") : 0;
}

static long from_file(void *arg, void *buf, size_t n, struct err *e UNUSED)
{
    return (long)fd_read_full(*(int *)arg, buf, n);
}

static int pack(const char *dir, const char *file, const struct archive_pack *o, struct err *e)
{
    AUTO_CLOSE int in = openat(topfd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTO_CLOSE int out = openat(topfd, file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(in >= 0 && out >= 0);
    return archive_pack_tar(in, o, to_file, &out, NULL, e);
}

static int unpack(const char *file, const char *dir, const struct archive_limits *lim,
                  struct err *e)
{
    mkdirat(topfd, dir, 0755);
    AUTO_CLOSE int in = openat(topfd, file, O_RDONLY | O_CLOEXEC);
    AUTO_CLOSE int out = openat(topfd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_true(in >= 0 && out >= 0);
    return archive_unpack_tar(out, from_file, &in, lim, NULL, e);
}

static const char make_tree[] =
    "mkdir -p t/empty t/a/b && cd t && echo hi > a/f && ln a/f a/hard && ln -s nowhere a/dangling && ln -s / a/root && "
    "chmod 4755 a/f && head -c 100000 /dev/urandom > a/b/big && : > a/zero && "
    "n=$(printf 'x%.0s' $(seq 200)) && mkdir -p $n/$n && echo deep > $n/$n/$n && ln -s $n/$n/$n long && "
    "echo odd > $'new\\nline' && echo latin > $'\\xff\\xfe' && mkfifo fifo && touch -d @1600000000 a/f";

static void gnu_tar_reads_what_we_pack(void **state UNUSED) /* B114 */
{
    struct err e = ERR_INIT;

    sh(make_tree);
    assert_ok(pack("t", "t.tar", NULL, &e), &e);
    sh("mkdir u && tar xf t.tar -C u && test -p u/fifo && rm u/fifo t/fifo && diff -r --no-dereference t u && test u/a/f -ef u/a/hard && "
       "test $(stat -c %Y%a u/a/f) = $(stat -c %Y%a t/a/f) && tar tf t.tar | head -n 1 | grep -qx ./");
}

static void a_round_trip_keeps_all_but_privileges(void **state UNUSED) /* B129, B142, S28 */
{
    const struct archive_limits lim = {.max_bytes = 1 << 20};
    struct err e = ERR_INIT;

    sh(make_tree);
    assert_ok(pack("t", "t.tar", NULL, &e), &e);
    assert_ok(unpack("t.tar", "u", &lim, &e), &e);
    sh("rm t/fifo && diff -r --no-dereference t u && test $(stat -c %a u/a/f) = 755 && test u/a/f -ef u/a/hard && "
       "test -d u/empty && test $(readlink u/a/dangling) = nowhere");
}

static void gnu_and_pax_archives_are_read(void **state UNUSED)
{
    static const char *const formats[] = {"gnu", "pax", "ustar"};
    const struct archive_limits lim = {.max_bytes = 1 << 20};

    sh("mkdir t && cd t && mkdir d && echo x > d/f && ln -s d/f l && ln d/f d/h && echo \xc3\xa4 > d/\xc3\xa4 && truncate -s 50000 d/s");
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        AUTO_FREE char *script = mem_printf("rm -rf u; tar cf t.tar --format=%s %s -C t .",
                                            formats[i], i < 2 ? "-S" : "");
        struct err e = ERR_INIT;

        sh(script);
        assert_ok(unpack("t.tar", "u", &lim, &e), &e);
        sh("diff -r --no-dereference t u");
    }
}

static void hostile_archives_stay_inside(void **state UNUSED) /* S22, S23, B142, D47 */
{
    static const struct {
        const char *script;
        bool taken;
    } rows[] = {
        {"echo x > f && tar cPf t.tar --transform 's|^|../|' f", false},
        {"ln -s /tmp link && tar cf t.tar link && rm link && mkdir link && echo x > link/escaped && tar rf t.tar link/escaped",
         false},
        {"echo x > f && ln f g && tar cPf t.tar --transform 'flags=h;s|^f$|../../etc/passwd|' f g",
         false},
        {"mknod n c 1 3 && tar cf t.tar n", true},                        /* left out */
        {"echo x > abs && tar cPf t.tar --transform 's|^|/|' abs", true}, /* lands inside */
    };
    const struct archive_limits lim = {.max_bytes = 1 << 20};

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO_FREE char *script =
            mem_printf("rm -rf s u t.tar && mkdir s && cd s && %s && mv t.tar ..", rows[i].script);
        struct err e = ERR_INIT;

        sh(script);
        if ((unpack("t.tar", "u", &lim, &e) == 0) != rows[i].taken)
            fail_msg("%s: %s", rows[i].script, e.msg);
        sh("test ! -e escaped && test ! -e /tmp/escaped && test -z \"$(find u -type c)\"");
    }
}

static void limits_hold(void **state UNUSED) /* S05 */
{
    const struct archive_limits bytes = {.max_bytes = 4999},
                                entries = {.max_bytes = 1 << 20, .max_entries = 2};
    struct err e = ERR_INIT;

    sh("mkdir t && head -c 5000 /dev/zero > t/f && touch t/g t/h && tar cf t.tar -C t f g h && head -c 3000 t.tar > cut.tar");
    assert_int_equal(unpack("t.tar", "u", &bytes, &e), -1);
    assert_int_equal(e.kind, ERR_LIMIT);
    assert_int_equal(unpack("t.tar", "v", &entries, &e), -1);
    assert_int_equal(e.kind, ERR_LIMIT);
    assert_int_equal(unpack("cut.tar", "w", &(struct archive_limits){.max_bytes = 1 << 20}, &e),
                     -1);
}

static void exclusion_table(void **state UNUSED) /* B115 */
{
    static const struct {
        const char *pattern, *path;
        bool out;
    } rows[] = {
        {"bye.txt", "./a/bye.txt", true}, {"bye.txt", "./bye.txt", true},
        {"a/*", "./x/a/f", true},         {"a/*", "./a", false},
        {"d*f", "./d/e/f", true},         {"./x", "./x", true},
        {"./x", "./a/x", false},          {"/x", "./x", false},
        {"dir/", "./dir", true},          {"dir", "./dir/below", true},
        {"*.log", "./a/.log", true},      {"[ab]", "./a", true},
        {".git", "./.gitignore", false},  {"", "./x", false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO(str_list) struct str_list l = {0};

        str_list_add(&l, rows[i].pattern);
        if (archive_excluded(&l, rows[i].path) != rows[i].out)
            fail_msg("%s against %s", rows[i].pattern, rows[i].path);
    }
}

static void what_is_left_out_is_left_out(void **state UNUSED) /* B091, B115, B116 */
{
    AUTO(str_list) struct str_list exclude = {0}, skip = {0};
    const struct archive_pack o = {
        .exclude = &exclude, .skip_top = &skip, .numeric_owner_root = true};
    struct err e = ERR_INIT;

    str_list_add(&exclude, "*.o");
    str_list_add(&exclude, "cache");
    str_list_add(&skip, "dep");
    str_list_add(&skip, "n/dep");
    sh("mkdir -p t/cache t/n t/dep2 t/.git && touch t/a.o t/cache/x t/n/y.o t/keep t/.git/HEAD && ln -s /x t/dep && ln -s /x t/n/dep && mkdir t/n/sub && ln -s /x t/n/sub/dep");
    assert_ok(pack("t", "t.tar", &o, &e), &e);
    sh("test \"$(tar tf t.tar | sort | tr '\\n' ' ')\" = './ ./.git/ ./.git/HEAD ./dep2/ ./keep ./n/ ./n/sub/ ./n/sub/dep '");
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(gnu_tar_reads_what_we_pack),
        T(a_round_trip_keeps_all_but_privileges),
        T(gnu_and_pax_archives_are_read),
        T(hostile_archives_stay_inside),
        T(limits_hold),
        T(exclusion_table),
        T(what_is_left_out_is_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
