/* rows: S20 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/path.h"
#include "base/tree.h"
#include "base/treesum.h"
#include "base/treewriter.h"
#include "test.h"

static char scratch[64];
static int top = -1;

static int set_up(void **state UNUSED)
{
    snprintf(scratch, sizeof(scratch), "/tmp/cw-sum-XXXXXX");
    if (!mkdtemp(scratch))
        return -1;
    top = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return top < 0 ? -1 : 0;
}

static int tear_down(void **state UNUSED)
{
    struct err e = ERR_INIT;

    close(top);
    return tree_remove_at(AT_FDCWD, scratch, &e);
}

/* The check value of CRC-32C, and zeros counted instead of read. */
static void crc_is_crc32c(void **state UNUSED)
{
    static const char zeros[100000];

    assert_int_equal(treesum_crc(TREESUM_CRC, "123456789", 9) ^ TREESUM_CRC, 0xe3069283);
    for (size_t n = 0; n < sizeof(zeros); n = n * 3 + 1)
        assert_int_equal(treesum_crc_zeros(0x12345678, n), treesum_crc(0x12345678, zeros, n));
    assert_int_equal(treesum_crc_zeros(treesum_crc_zeros(7, 1ULL << 40), 5),
                     treesum_crc_zeros(7, (1ULL << 40) + 5));
}

static void put(struct treewriter *w, const char *path, const char *data, uint64_t hole,
                struct err *e)
{
    const struct tree_meta m = {.mode = 04751, .uid = getuid(), .gid = getgid()};

    assert_ok(treewriter_file(w, path, &m, strlen(data), e), e);
    assert_ok(treewriter_hole(w, hole, e), e);
    assert_ok(treewriter_data(w, data, strlen(data), e), e);
    assert_ok(treewriter_hole(w, hole, e), e);
    assert_ok(treewriter_file_end(w, e), e);
}

/* What is added up while writing is what a walk adds up afterwards. */
static void written_and_read_are_equal(void **state UNUSED)
{
    static const struct treewriter_opts o = {.keep_owner = true,
                                             .keep_special = true,
                                             .create_parents = true,
                                             .inside_links = true,
                                             .overlay = true};
    const struct tree_meta m = {.mode = 0750, .uid = getuid(), .gid = getgid()},
                           fifo = {.mode = S_IFIFO | 0604, .uid = getuid(), .gid = getgid()};
    AUTO(treewriter) struct treewriter *w = NULL;
    struct err e = ERR_INIT;
    struct treesum written, read, other;

    assert_ok(treewriter_new(top, &o, &w, &e), &e);
    assert_ok(treewriter_dir(w, "d", &m, &e), &e);
    assert_ok(treewriter_dir(w, "d", &m, &e), &e);
    put(w, "d/f", "data", 0, &e);
    put(w, "implied/by/f", "", 0, &e);
    put(w, "d/sparse", "in the middle", 1 << 20, &e);
    assert_ok(treewriter_symlink(w, "l", "d", &m, &e), &e);
    put(w, "l/through", "a link", 0, &e);
    assert_ok(treewriter_hardlink(w, "h", "d/f", &e), &e);
    assert_ok(treewriter_hardlink(w, "h", "d/f", &e), &e);
    assert_ok(treewriter_node(w, "p", &fifo, 0, &e), &e);
    assert_ok(treewriter_finish(w, &e), &e);
    assert_true(treewriter_sum(w, &written));
    assert_ok(treesum_of(top, NULL, &read, &e), &e);
    assert_int_equal(written.entries, 10);
    assert_int_equal(read.entries, 10);
    assert_true(written.sum == read.sum);
    /* A file moved is no damage that we look for; a changed one is. */
    assert_int_equal(fchmodat(top, "d/f", 0751, 0), 0);
    assert_ok(treesum_of(top, NULL, &other, &e), &e);
    assert_true(other.sum != read.sum);
    /* Who replaces something must have the sum measured. */
    put(w, "d/f", "other", 0, &e);
    assert_false(treewriter_sum(w, &written));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc_is_crc32c),
        cmocka_unit_test_setup_teardown(written_and_read_are_equal, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
