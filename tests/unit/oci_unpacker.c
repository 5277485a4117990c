/* threads: yes */
/* needs: root */
/* rows: S12 S30 S31 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/codec.h"
#include "base/digest.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/tree.h"
#include "base/treesum.h"
#include "oci/inflate_crew.h"
#include "oci/layer.h"
#include "oci/unpacker.h"
#include "tar_maker.h"
#include "test.h"

static char scratch[64];
static int top = -1;
static struct str tar, blob; /* plain, and as gzip */
static char digest[DIGEST_TEXT_MAX], diff_id[DIGEST_TEXT_MAX];

static int to_blob(void *arg UNUSED, const void *data, size_t n, struct err *e UNUSED)
{
    tar_bytes(&blob, data, n);
    return 0;
}

/* Some MB, so that both tubes are full now and then. */
static void make_layer(void)
{
    AUTO_FREE char *data = mem_alloc(100000);
    AUTO(str) struct str x = STR_INIT(BOUND_MIB);
    struct err e = ERR_INIT;
    uint32_t seed = 1;

    tar = STR_INIT(64 * BOUND_MIB);
    blob = STR_INIT(64 * BOUND_MIB);
    tar_record(&x, "SCHILY.xattr.user.note", "of a directory", 14);
    tar_pax(&tar, &x);
    tar_put(&tar, &(struct tar_member){.path = "d", .type = '5', .mode = 0750, .uid = 7});
    for (int i = 0; i < 60; i++) {
        char path[32];

        for (int k = 0; k < 100000; k++)
            data[k] = (char)((seed = seed * 1664525 + 1013904223) >> 28);
        snprintf(path, sizeof(path), "d/f%d", i);
        tar_put(&tar, &(struct tar_member){.path = path,
                                           .type = '0',
                                           .mode = 0644,
                                           .data = data,
                                           .n = (size_t)(i * 1600),
                                           .uid = (unsigned)i});
    }
    tar_put(&tar, &(struct tar_member){.path = "d/.wh..wh..opq", .type = '0'});
    tar_put(&tar, &(struct tar_member){.path = ".wh.gone", .type = '0'});
    tar_put(&tar, &(struct tar_member){.path = "d/f3", .type = '0', .data = "again", .mode = 0600});
    tar_end(&tar);
    AUTO(codec) struct codec *c = codec_gzip_encoder(1, to_blob, NULL);

    assert_ok(codec_feed(c, tar.buf, tar.len, &e), &e);
    assert_ok(codec_finish(c, &e), &e);
    digest_of(tar.buf, tar.len, diff_id);
    digest_of(blob.buf, blob.len, digest);
}

static int set_up(void **state UNUSED)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -1;
    snprintf(scratch, sizeof(scratch), "/tmp/cw-unpacker-XXXXXX");
    if (!mkdtemp(scratch))
        return -1;
    top = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    make_layer();
    return top < 0 ? -1 : 0;
}

static int tear_down(void **state UNUSED)
{
    struct err e = ERR_INIT;

    str_free(&tar);
    str_free(&blob);
    close(top);
    return tree_remove_at(AT_FDCWD, scratch, &e);
}

static struct oci_layer *new_layer(const char *wanted_diff, int *dir)
{
    const struct oci_layer_desc desc = {digest, wanted_diff, blob.len};
    struct oci_layer *l = NULL;
    struct err e = ERR_INIT;

    assert_ok(tree_remove_at(top, "layer", &e), &e);
    assert_int_equal(mkdirat(top, "layer", 0755), 0);
    *dir = openat(top, "layer", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_ok(oci_layer_new(*dir, &desc, &l, &e), &e);
    return l;
}

static int feed(struct unpacker *u, size_t upto, struct err *e)
{
    for (size_t at = 0; at < upto; at += 10007)
        if (unpacker_feed(u, blob.buf + at, upto - at < 10007 ? upto - at : 10007, e) < 0)
            return -1;
    return 0;
}

static size_t open_files(void)
{
    DIR *d = opendir("/proc/self/fd");
    size_t n = 0;

    while (d && readdir(d))
        n++;
    closedir(d);
    return n;
}

static void one_thread_or_two_make_the_same_tree(void **state UNUSED)
{
    struct treesum sums[3], read;

    for (int mode = 0; mode < 3; mode++) {
        AUTO_CLOSE int dir = -1;
        AUTO(oci_layer) struct oci_layer *l = new_layer(diff_id, &dir);
        struct unpacker *u = NULL;
        struct err e = ERR_INIT;
        size_t files = open_files();
        char note[32] = "";

        if (mode == 0) {
            assert_ok(oci_layer_feed(l, blob.buf, blob.len, &e), &e);
            assert_ok(oci_layer_finish(l, &e), &e);
        } else {
            assert_ok(unpacker_start(l, mode == 2, &u, &e), &e);
            assert_ok(feed(u, blob.len, &e), &e);
            assert_ok(unpacker_end(u, NULL, &e), &e);
            assert_int_equal(open_files(), files);
        }
        assert_ok(oci_layer_sum(l, &sums[mode], &e), &e);
        assert_ok(treesum_of(dir, NULL, &read, &e), &e);
        assert_true(read.sum == sums[mode].sum && read.sum == sums[0].sum);
        AUTO_CLOSE int d = openat(dir, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        assert_int_equal(fgetxattr(d, "user.note", note, sizeof(note)), 14);
        assert_int_equal(fgetxattr(d, "trusted.overlay.opaque", note, sizeof(note)), 1);
    }
}

/* Whichever half finds it, the one who feeds learns what it was. */
static void failures_come_back(void **state UNUSED)
{
    for (int split = 0; split < 2; split++) {
        AUTO_CLOSE int dir = -1;
        AUTO(oci_layer) struct oci_layer *lied = new_layer(digest, &dir);
        struct unpacker *u = NULL;
        struct err e = ERR_INIT;

        assert_ok(unpacker_start(lied, split, &u, &e), &e);
        assert_ok(feed(u, blob.len, &e), &e);
        assert_int_equal(unpacker_end(u, NULL, &e), -1);
        assert_has(e.msg, "digest of the uncompressed layer");

        AUTO_CLOSE int again = -1;
        AUTO(oci_layer) struct oci_layer *full = new_layer(diff_id, &again);

        /* The place is taken by something that cannot be replaced: found by who writes, early. */
        err_clear(&e);
        assert_int_equal(mkdirat(again, "d", 0755), 0);
        assert_int_equal(mkdirat(again, "d/f1", 0755), 0);
        AUTO_FREE char *path = mem_printf("%s/layer/d/f1", scratch);

        assert_int_equal(mount("none", path, "tmpfs", 0, NULL), 0);
        assert_ok(unpacker_start(full, split, &u, &e), &e);
        int rc = feed(u, blob.len, &e), end = unpacker_end(u, rc < 0 ? &e : NULL, &e);

        assert_int_equal(umount2(path, MNT_DETACH), 0);
        assert_int_equal(end, -1);
        assert_has(e.msg, "busy");
    }
}

static void a_broken_off_fetch_ends_them(void **state UNUSED)
{
    for (int split = 0; split < 2; split++) {
        AUTO_CLOSE int dir = -1;
        AUTO(oci_layer) struct oci_layer *l = new_layer(diff_id, &dir);
        struct unpacker *u = NULL;
        struct err e = ERR_INIT, why = ERR_INIT;

        (void)err_set(&why, ERR_REMOTE, "the line is dead");
        assert_ok(unpacker_start(l, split, &u, &e), &e);
        assert_ok(feed(u, blob.len / 2, &e), &e);
        assert_int_equal(unpacker_end(u, &why, &e), -1);
        assert_has(e.msg, "the line is dead");
    }
}

/* Of /proc/self/task/TID/status. */
static bool is_confined(const char *tid, const char *root)
{
    AUTO(str) struct str status = STR_INIT(64 * BOUND_KIB);
    AUTO_FREE char *path = mem_printf("/proc/self/task/%s/status", tid);
    AUTO_FREE char *link = mem_printf("/proc/self/task/%s/root", tid);
    char seen[PATH_MAX] = "";
    struct err e = ERR_INIT;

    /* CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SYS_ADMIN, MKNOD, SETFCAP */
    return fd_read_file_at(AT_FDCWD, path, &status, &e) == 0 &&
           strstr(str_text(&status), "Seccomp:\t2") &&
           strstr(str_text(&status), "NoNewPrivs:\t1") &&
           strstr(str_text(&status), "CapEff:\t000000008820001b") &&
           readlink(link, seen, sizeof(seen) - 1) > 0 && str_eq(seen, root);
}

static size_t count_confined(const char *root)
{
    DIR *d = opendir("/proc/self/task");
    size_t n = 0;

    for (struct dirent *entry; d && (entry = readdir(d));)
        n += *entry->d_name != '.' && is_confined(entry->d_name, root);
    closedir(d);
    return n;
}

static void its_threads_are_confined(void **state UNUSED)
{
    AUTO_FREE char *root = mem_printf("%s/layer", scratch);

    for (int split = 0; split < 2; split++) {
        AUTO_CLOSE int dir = -1;
        AUTO(oci_layer) struct oci_layer *l = new_layer(diff_id, &dir);
        struct unpacker *u = NULL;
        struct err e = ERR_INIT;
        size_t wanted = split ? 2 : 1, seen = 0;

        assert_ok(unpacker_start(l, split, &u, &e), &e);
        assert_ok(feed(u, blob.len / 2, &e), &e);
        for (int i = 0; i < 3000 && (seen = count_confined(root)) < wanted; i++)
            poll(NULL, 0, 10);
        assert_int_equal(seen, wanted);
        assert_int_equal(unpacker_end(u, &e, &e), -1);
    }
}

static void who_helps_is_confined_too(void **state UNUSED)
{
    AUTO_FREE char *root = mem_printf("%s/layer", scratch);
    AUTO_CLOSE int dir = -1;
    AUTO(oci_layer) struct oci_layer *l = new_layer(diff_id, &dir);
    struct inflate_crew_opts o = inflate_crew_usual(5, dir);
    AUTO(inflate_crew) struct inflate_crew *crew = inflate_crew_new(&o);
    size_t seen = 0;

    oci_layer_help_by(l, crew);
    for (int i = 0; i < 3000 && (seen = count_confined(root)) < o.threads; i++)
        poll(NULL, 0, 10);
    assert_int_equal(seen, 3);
    assert_int_equal(seen, o.threads);
    assert_true(fcntl(dir, F_GETFD) >= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_thread_or_two_make_the_same_tree),
        cmocka_unit_test(failures_come_back),
        cmocka_unit_test(a_broken_off_fetch_ends_them),
        cmocka_unit_test(its_threads_are_confined),
        cmocka_unit_test(who_helps_is_confined_too),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
