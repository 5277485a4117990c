/*
 * Project quotas, in the machine's /scratch, which has them; a tmpfs has none and says so.
 * needs: root cgroup2
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/quota.h"
#include "base/tree.h"
#include "test.h"

#define MB (1024ull * 1024)

static char *top;
static int top_fd = -1;

static int set_up(void **state UNUSED)
{
    /* It was promised to the machine alone that /scratch has quotas; TMPDIR lies on it. */
    const char *tmp = getenv("TMPDIR");

    top = mem_printf("%s/quota.XXXXXX", tmp ? tmp : "/scratch/tmp");
    if (!mkdtemp(top))
        return -1;
    top_fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return top_fd < 0;
}

static int tear_down(void **state UNUSED)
{
    struct err e = ERR_INIT;

    close(top_fd);
    int rc = tree_remove_at(AT_FDCWD, top, &e);
    free(top);
    return rc;
}

static int make_dir(const char *name)
{
    assert_int_equal(mkdirat(top_fd, name, 0755), 0);
    int fd = openat(top_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

/* How much of `bytes` can be written to a new file, as a process without CAP_SYS_RESOURCE. */
static uint64_t fill(int dir, const char *name, uint64_t bytes)
{
    AUTO_CLOSE int fd = openat(dir, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    AUTO_FREE char *block = mem_zalloc(64 * 1024);
    uint64_t n = 0;

    assert_true(fd >= 0);
    while (n < bytes) {
        ssize_t got = write(fd, block, 64 * 1024);
        if (got < 0) {
            assert_int_equal(errno, EDQUOT);
            break;
        }
        n += (uint64_t)got;
    }
    return n;
}

static void drop_resource(cap_flag_value_t value)
{
    const cap_value_t which[] = {CAP_SYS_RESOURCE};
    cap_t caps = cap_get_proc();

    assert_int_equal(cap_set_flag(caps, CAP_EFFECTIVE, 1, which, value), 0);
    assert_int_equal(cap_set_proc(caps), 0);
    cap_free(caps);
}

static void limits_hold(void **state UNUSED)
{
    AUTO_CLOSE int a = make_dir("a");
    AUTO_CLOSE int b = make_dir("b");
    uint64_t used = 0, limit = 0;
    struct err e = ERR_INIT;

    assert_int_equal(mkdirat(a, "before", 0755), 0);
    drop_resource(CAP_CLEAR);
    assert_true(fill(a, "before/file", 3 * MB) == 3 * MB);
    drop_resource(CAP_SET);
    assert_int_equal(quota_usage(a, &used, &limit, &e), -1);
    assert_int_equal(e.kind, ERR_ABSENT);
    /* Two with the same seed: each has its own account, and what was there before counts. (Another build of this test may be
     * looking for an id at the same instant: that one has other seeds.) */
    uint32_t seed = 0;

    memcpy(&seed, top + strlen(top) - sizeof(seed), sizeof(seed));
    assert_ok(quota_limit(a, seed, 8 * MB, &e), &e);
    assert_ok(quota_limit(b, seed, 2 * MB, &e), &e);
    assert_ok(quota_usage(a, &used, &limit, &e), &e);
    assert_true(limit == 8 * MB && used >= 3 * MB && used < 4 * MB);
    drop_resource(CAP_CLEAR);
    uint64_t more = fill(a, "before/more", 100 * MB), other = fill(b, "x", 100 * MB);
    drop_resource(CAP_SET);
    assert_true(more > 4 * MB && more <= 5 * MB);
    assert_true(other > MB && other <= 2 * MB);
    assert_ok(quota_usage(a, &used, &limit, &e), &e);
    assert_true(used + 256 * 1024 >= limit);
    /* Lifted, it is free again, and its id may be another's. */
    quota_lift(a);
    assert_int_equal(quota_usage(a, &used, &limit, &e), -1);
    drop_resource(CAP_CLEAR);
    assert_true(fill(a, "free", 10 * MB) == 10 * MB);
    drop_resource(CAP_SET);
}

static void none_here(void **state UNUSED)
{
    AUTO_CLOSE int dir = open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    uint64_t used, limit;
    struct err e = ERR_INIT;

    assert_int_equal(quota_limit(dir, 1, MB, &e), -1);
    assert_int_equal(e.kind, ERR_ABSENT);
    assert_int_equal(quota_usage(dir, &used, &limit, &e), -1);
    quota_lift(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(none_here),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
