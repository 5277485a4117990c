/* needs: root */
/* rows: S19 S20 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/codec.h"
#include "base/digest.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/tree.h"
#include "base/treesum.h"
#include "oci/inflate_crew.h"
#include "oci/layer.h"
#include "oci/unpacker.h"
#include "tar_maker.h"
#include "test.h"

enum { FILES = 420, FILE_SIZE = 90000, FEED = 65536 };

static char scratch[64];
static int top = -1;
static struct str tar, blob;
static char digest[DIGEST_TEXT_MAX], diff_id[DIGEST_TEXT_MAX];
static struct treesum whole;
static struct inflate_crew *crew; /* for the layers made next */
static size_t resumed, afresh;    /* tries that went on, and that found their checkpoint spoiled */

static int to_blob(void *arg UNUSED, const void *data, size_t n, struct err *e UNUSED)
{
    tar_bytes(&blob, data, n);
    return 0;
}

static void put_some(int i, const char *data)
{
    char path[64], other[64];

    snprintf(path, sizeof(path), "d%d/f%d", i % 7, i);
    snprintf(other, sizeof(other), "d%d/f%d", (i - 7) % 7, i - 7);
    if (i % 100 == 3) /* again, by another name and another content: not to be done twice */
        tar_put(&tar, &(struct tar_member){.path = other, .type = '0', .data = "short", .mode = 1});
    if (i % 40 == 9)
        tar_put(&tar, &(struct tar_member){.path = path, .type = '1', .link = other});
    else
        tar_put(&tar, &(struct tar_member){.path = path,
                                           .type = '0',
                                           .mode = 0600 + (unsigned)i % 64,
                                           .data = data + i,
                                           .n = FILE_SIZE - (size_t)i,
                                           .uid = (unsigned)i});
    snprintf(path, sizeof(path), "implied%d/by/f", i);
    if (i % 130 == 5)
        tar_put(&tar, &(struct tar_member){.path = path, .type = '0', .data = "x", .mode = 0644});
    snprintf(path, sizeof(path), "d%d/.wh.gone%d", i % 7, i);
    if (i % 30 == 1)
        tar_put(&tar, &(struct tar_member){.path = path, .type = '0'});
    if (i % 45 == 2)
        tar_pax1(&tar, "path", "a long name for what comes next");
    if (i % 45 == 2)
        tar_put(&tar, &(struct tar_member){.path = "n", .type = '2', .link = "d1"});
}

/* Some 45 MB that do not compress, so that there are checkpoints, and every kind of entry after them. */
static void make_layer(enum codec_kind kind)
{
    AUTO_FREE char *data = mem_alloc(FILE_SIZE + FILES);
    struct err e = ERR_INIT;
    uint64_t seed = 1;

    str_free(&tar);
    str_free(&blob);
    tar = STR_INIT(128 * BOUND_MIB);
    blob = STR_INIT(128 * BOUND_MIB);
    for (int k = 0; k < FILE_SIZE + FILES; k++)
        data[k] = (char)((seed = seed * 6364136223846793005 + 1442695040888963407) >> 56);
    for (int i = 0; i < 7; i++) {
        char path[8];

        snprintf(path, sizeof(path), "d%d", i);
        tar_put(&tar, &(struct tar_member){.path = path, .type = '5', .mode = 0700 + (unsigned)i});
    }
    for (int i = 7; i < FILES; i++) {
        seed = seed * 6364136223846793005 + 1442695040888963407;
        memcpy(data + (seed >> 33) % FILE_SIZE, &seed, sizeof(seed));
        put_some(i, data);
    }
    tar_end(&tar);
    digest_of(tar.buf, tar.len, diff_id);
    if (kind == CODEC_GZIP) {
        AUTO(codec) struct codec *c = codec_gzip_encoder(1, to_blob, NULL);

        assert_ok(codec_feed(c, tar.buf, tar.len, &e), &e);
        assert_ok(codec_finish(c, &e), &e);
    } else {
        tar_bytes(&blob, tar.buf, tar.len);
    }
    digest_of(blob.buf, blob.len, digest);
}

static int set_up(void **state UNUSED)
{
    snprintf(scratch, sizeof(scratch), "/tmp/cw-checkpoint-XXXXXX");
    if (!mkdtemp(scratch))
        return -1;
    top = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
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

static struct oci_layer *layer_in(int dir)
{
    const struct oci_layer_desc desc = {digest, diff_id, blob.len};
    struct oci_layer *l = NULL;
    struct err e = ERR_INIT;

    assert_ok(oci_layer_new(dir, &desc, &l, &e), &e);
    oci_layer_help_by(l, crew);
    return l;
}

static int fresh_dir(void)
{
    struct err e = ERR_INIT;

    assert_ok(tree_remove_at(top, "layer", &e), &e);
    assert_int_equal(mkdirat(top, "layer", 0755), 0);
    return openat(top, "layer", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int fresh_file(void)
{
    return openat(top, "checkpoint", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

/* From what it has to `upto`, then end as told. */
static int run(struct oci_layer *l, bool split, size_t upto, struct err *e)
{
    struct unpacker *u = NULL;
    struct err dead = ERR_INIT;

    (void)err_set(&dead, ERR_REMOTE, "killed");
    assert_ok(unpacker_start(l, split, &u, e), e);
    for (size_t at = oci_layer_received(l), part; at < upto; at += part) {
        part = upto - at < FEED ? upto - at : FEED;
        if (unpacker_feed(u, blob.buf + at, part, e) < 0)
            break;
    }
    return unpacker_end(u, upto < blob.len ? &dead : NULL, e);
}

static void whole_one(void)
{
    AUTO_CLOSE int dir = fresh_dir();
    AUTO(oci_layer) struct oci_layer *l = layer_in(dir);
    struct err e = ERR_INIT;

    assert_ok(run(l, false, blob.len, &e), &e);
    assert_ok(oci_layer_sum(l, &whole, &e), &e);
}

/* Broken off at each of these places in turn, each time by an object that is then forgotten. With helpers: every second
 * one has none, as on a machine that has become busy. */
static void go_on_after(const size_t *cuts, size_t n, bool split, struct inflate_crew *helpers)
{
    AUTO_CLOSE int dir = fresh_dir();
    AUTO_CLOSE int file = fresh_file();
    struct err e = ERR_INIT;
    struct treesum sum;
    uint64_t fetched = 0;
    size_t before = afresh;

    for (size_t i = 0; i <= n; i++) {
        size_t upto = i < n ? cuts[i] : blob.len;

        crew = i % 2 == split ? helpers : NULL;
        AUTO(oci_layer) struct oci_layer *l = layer_in(dir);
        int rc = oci_layer_resume(l, file, "boot", &e);

        assert_ok(rc, &e);
        if (rc == 0 && i > 0) { /* spoiled just then: from the start */
            close(dir);
            dir = fresh_dir();
            oci_layer_free(take_ptr(&l));
            l = layer_in(dir);
            assert_int_equal(oci_layer_resume(l, file, "boot", &e), 0);
        }
        resumed += rc == 1;
        afresh += rc == 0 && i > 0;
        assert_true(oci_layer_received(l) <= upto);
        fetched += upto - oci_layer_received(l);
        if (run(l, split, upto, &e) < 0) {
            assert_has(e.msg, "killed");
            err_clear(&e);
            continue;
        }
        assert_int_equal(i, n);
        assert_ok(oci_layer_sum(l, &sum, &e), &e);
        assert_true(sum.sum == whole.sum && sum.entries == whole.entries);
    }
    crew = NULL;
    if (afresh == before)
        assert_true(fetched <= blob.len + n * (BOUND_CHECKPOINT + 4 * BOUND_MIB));
}

static void a_killed_one_goes_on(void **state UNUSED)
{
    struct inflate_crew_opts o = inflate_crew_usual(4, -1);

    for (int way = 0; way < 3; way++) {
        AUTO(inflate_crew) struct inflate_crew *helpers = way == 2 ? inflate_crew_new(&o) : NULL;
        enum codec_kind kind = way ? CODEC_GZIP : CODEC_PLAIN;

        if (!helpers) {
            make_layer(kind);
            whole_one();
        }
        assert_true(blob.len > 2 * BOUND_CHECKPOINT);
        for (size_t k = 0; k < (helpers ? 1 : 3); k++) {
            size_t at = BOUND_CHECKPOINT + BOUND_MIB + k * (blob.len - BOUND_CHECKPOINT) / 4;

            if (kind == CODEC_PLAIN)
                go_on_after((size_t[]){at}, 1, k % 2, NULL);
            else
                go_on_after((size_t[]){at, at + 3 * BOUND_MIB, at + 5 * BOUND_MIB + 1}, 3,
                            k % 2 == 0, helpers);
        }
    }
    print_message("went on %zu times, began afresh %zu times\n", resumed, afresh);
    assert_true(resumed >= 3);
}

/* Another layer, another boot, a file cut or changed: none is gone on from, and none is an accident. */
static void what_does_not_fit_is_not_used(void **state UNUSED)
{
    make_layer(CODEC_GZIP);
    AUTO_CLOSE int dir = fresh_dir();
    AUTO_CLOSE int file = fresh_file();
    AUTO(oci_layer) struct oci_layer *first = layer_in(dir), *other = NULL;
    char found[DIGEST_TEXT_MAX], kept[DIGEST_TEXT_MAX];
    struct err e = ERR_INIT;
    struct stat st;

    assert_false(oci_layer_has_checkpoint(file, "boot", found));
    assert_int_equal(oci_layer_resume(first, file, "boot", &e), 0);
    assert_int_equal(run(first, false, blob.len - 2 * BOUND_MIB, &e), -1);
    assert_true(oci_layer_has_checkpoint(file, "boot", found));
    assert_string_equal(found, diff_id);
    assert_false(oci_layer_has_checkpoint(file, "another boot", found));
    assert_int_equal(fstat(file, &st), 0);
    AUTO_FREE char *bytes = mem_alloc((size_t)st.st_size);

    assert_int_equal(pread(file, bytes, (size_t)st.st_size, 0), st.st_size);
    for (off_t at = 0; at < st.st_size; at += st.st_size / 40) {
        char was = bytes[at];

        bytes[at] = (char)~was;
        assert_int_equal(pwrite(file, bytes, (size_t)st.st_size, 0), st.st_size);
        /* Nothing vouches for what is behind the body. */
        other = layer_in(dir);
        assert_int_equal(oci_layer_resume(other, file, "boot", &e), 0);
        oci_layer_free(take_ptr(&other));
        bytes[at] = was;
    }
    assert_int_equal(pwrite(file, bytes, (size_t)st.st_size, 0), st.st_size);
    memcpy(kept, digest, sizeof(kept));
    memset(digest + 7, 'a', 5);
    other = layer_in(dir);
    assert_int_equal(oci_layer_resume(other, file, "boot", &e), 0);
    memcpy(digest, kept, sizeof(kept));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_one_goes_on),
        cmocka_unit_test(what_does_not_fit_is_not_used),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
