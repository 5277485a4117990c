/* threads: yes */
/* needs: root */
/* rows: S21 S22 S23 S24 S25 S63 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/tree.h"
#include "oci/layer.h"
#include "tar_maker.h"
#include "test.h"

enum { ROUNDS = 40, FILES_A_ROUND = 40 };

static char scratch[64];
static int top = -1;

static int set_up(void **state UNUSED)
{
    snprintf(scratch, sizeof(scratch), "/tmp/cw-hostile-XXXXXX");
    if (!mkdtemp(scratch))
        return -1;
    top = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (mkdirat(top, "canary", 0751) < 0 || mkdirat(top, "canary/d", 0700) < 0 ||
        mkdirat(top, "layer", 0755) < 0)
        return -1;
    AUTO_CLOSE int f = openat(top, "canary/f", O_WRONLY | O_CREAT | O_CLOEXEC, 0640);

    return f < 0 || write(f, "safe", 4) != 4 ? -1 : 0;
}

static int tear_down(void **state UNUSED)
{
    struct err e = ERR_INIT;

    close(top);
    return tree_remove_at(AT_FDCWD, scratch, &e);
}

static int add_up(void *arg, int parent UNUSED, const char *name UNUSED, const char *path,
                  const struct stat *st, struct err *e UNUSED)
{
    struct str *s = arg;

    return str_appendf(s, "%s %o %u %u %lld %lld %lu\n", path, st->st_mode, st->st_uid, st->st_gid,
                       S_ISREG(st->st_mode) ? (long long)st->st_size : 0,
                       (long long)st->st_mtim.tv_nsec, (unsigned long)st->st_nlink);
}

/* All of the canary: a new string. */
static char *canary(void)
{
    struct str s = STR_INIT(4096);
    AUTO_CLOSE int dir = openat(top, "canary", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct err e = ERR_INIT;
    struct stat st;

    assert_int_equal(fstat(dir, &st), 0);
    assert_int_equal(add_up(&s, -1, ".", ".", &st, &e), 0);
    assert_ok(tree_walk(dir, add_up, &s, NULL, &e), &e);
    return s.buf;
}

static int unpack_into(int dir, const struct str *tar, size_t chunk, struct err *e)
{
    char digest[DIGEST_TEXT_MAX];
    AUTO(oci_layer) struct oci_layer *l = NULL;

    digest_of(str_text(tar), tar->len, digest);
    const struct oci_layer_desc desc = {digest, digest, tar->len};

    if (oci_layer_new(dir, &desc, &l, e) < 0)
        return -1;
    for (size_t at = 0; at < tar->len; at += chunk)
        if (oci_layer_feed(l, tar->buf + at, tar->len - at < chunk ? tar->len - at : chunk, e) < 0)
            return -1;
    return oci_layer_finish(l, e);
}

/* ---- one format, one reader ---- */

static int count(void *arg, int parent UNUSED, const char *name UNUSED, const char *path UNUSED,
                 const struct stat *st UNUSED, struct err *e UNUSED)
{
    ++*(int *)arg;
    return 0;
}

static void other_formats_are_refused(void **state UNUSED) /* S21 */
{
    static const struct {
        const char *name, *head;
        size_t n;
    } formats[] = {
        {"zip", "PK\3\4\24\0\0\0\0\0", 10},
        {"7z", "7z\xbc\xaf\x27\x1c\0\4", 8},
        {"xz",
         "\xfd"
         "7zXZ\0",
         6},
        {"bzip2", "BZh91AY&SY", 10},
        {"lzma", "]\0\0\x80\0", 5},
        {"lz4", "\4\x22\x4d\x18", 4},
        {"lzip", "LZIP\1", 5},
        {"compress", "\x1f\x9d\x90", 3},
        {"cpio", "070701000000010000", 18},
        {"cpio, old", "070707000000", 12},
        {"ar", "!<arch>\ndebian-binary", 21},
        {"rar", "Rar!\x1a\7\0", 7},
        {"cab", "MSCF\0\0\0\0", 8},
        {"xar", "xar!\0\x1c\0\1", 8},
        {"mtree", "#mtree\n./f type=file contents=/etc/passwd\n", 42},
        {"mtree with a set", "/set type=file\nf contents=/etc/shadow mode=644\n", 47},
        {"warc", "WARC/1.0\r\n", 10},
        {"uuencode", "begin 644 f\n#0V%T\n`\nend\n", 24},
        {"rpm", "\xed\xab\xee\xdb\3\0", 6},
        {"iso", "\1CD001\1", 7},
        {"ELF", "\177ELF\2\1\1", 7},
        {"script", "#!/bin/sh\ntouch /tmp/x\n", 23},
        {"squashfs", "hsqs\7\0\0\0", 8},
        {"nothing but text", "usr/bin/env", 11},
    };

    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        AUTO(str) struct str blob = STR_INIT(BOUND_MIB);
        AUTO_CLOSE int dir = openat(top, "layer", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct err e = ERR_INIT;
        int entries = 0;

        while (blob.len < 8192)
            tar_bytes(&blob, formats[i].head, formats[i].n);
        if (unpack_into(dir, &blob, 1000, &e) == 0)
            fail_msg("%s: was taken", formats[i].name);
        assert_ok(tree_walk(dir, count, &entries, NULL, &e), &e);
        assert_int_equal(entries, 0);
    }
}

/* ---- somebody swaps a directory for a link meanwhile ---- */

struct swapper {
    int dir;
    atomic_bool stop;
    atomic_ulong swaps;
};

static void *swap(void *arg)
{
    struct swapper *s = arg;

    while (!atomic_load(&s->stop))
        if (renameat2(s->dir, "d", s->dir, "out", RENAME_EXCHANGE) == 0)
            atomic_fetch_add(&s->swaps, 1);
    return NULL;
}

static void make_entries(struct str *tar, int round)
{
    char path[64], target[64];

    tar_put(tar, &(struct tar_member){.path = "d", .type = '5', .mode = 0, .uid = 7, .mtime = 9});
    for (int i = 0; i < FILES_A_ROUND; i++) {
        snprintf(path, sizeof(path), "d/f%d", i);
        tar_put(tar, &(struct tar_member){
                         .path = path, .type = '0', .data = "hostile", .mode = 04777, .uid = 7});
        snprintf(target, sizeof(target), "d/h%d", i);
        tar_put(tar, &(struct tar_member){.path = target, .type = '1', .link = path});
        tar_put(tar, &(struct tar_member){.path = target, .type = '1', .link = "d/f"});
        snprintf(path, sizeof(path), "d/.wh.d%d", i);
        tar_put(tar, &(struct tar_member){.path = path, .type = '0'});
        snprintf(path, sizeof(path), "d/n%d", i);
        tar_put(tar, &(struct tar_member){.path = path, .type = '3', .major = 1, .minor = 3});
    }
    tar_put(tar, &(struct tar_member){.path = "d/.wh..wh..opq", .type = '0'});
    /* Over what is there, in turn: replaced, and replaced by a directory. */
    tar_put(tar, &(struct tar_member){.path = "d/d", .type = round % 2 ? '5' : '2', .link = ".."});
    tar_put(tar, &(struct tar_member){.path = "d/f", .type = round % 3 ? '0' : '5', .data = NULL});
    tar_end(tar);
}

static void a_swapped_link_leads_nowhere(void **state UNUSED) /* S63 */
{
    static const char *const targets[] = {"../canary", NULL};
    AUTO_FREE char *before = canary(), *absolute = mem_printf("%s/canary", scratch);
    AUTO_CLOSE int dir = openat(top, "layer", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct swapper s = {.dir = dir};
    unsigned long done = 0;
    struct err e = ERR_INIT;
    pthread_t t;

    for (int round = 0; round < ROUNDS; round++) {
        AUTO(str) struct str tar = STR_INIT(BOUND_MIB);
        const char *target = targets[round % 2] ? targets[round % 2] : absolute;

        make_entries(&tar, round);
        assert_ok(tree_empty(dir, &e), &e);
        assert_int_equal(mkdirat(dir, "d", 0755), 0);
        assert_int_equal(symlinkat(target, dir, "out"), 0);
        atomic_store(&s.stop, false);
        unsigned long before_it = atomic_load(&s.swaps);
        assert_int_equal(pthread_create(&t, NULL, swap, &s), 0);
        while (atomic_load(&s.swaps) == before_it) /* it is at it */
            sched_yield();
        /* It may be refused or taken; both are fine. */
        done += unpack_into(dir, &tar, 700, &e) == 0;
        err_clear(&e);
        if (round % 4 == 3 && tree_remove_at(dir, "d", &e) < 0)
            err_clear(&e);
        atomic_store(&s.stop, true);
        pthread_join(t, NULL);
        AUTO_FREE char *now = canary();

        assert_string_equal(now, before);
    }
    print_message("%lu swaps, %lu of %d layers taken\n", atomic_load(&s.swaps), done, ROUNDS);
    assert_true(atomic_load(&s.swaps) >= ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(other_formats_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_swapped_link_leads_nowhere, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
