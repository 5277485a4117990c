/*
 * Project quotas, in the machine's /scratch (ext4) and on an XFS made here; a tmpfs has none and says so.
 * needs: root cgroup2
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/fs.h>
#include <linux/quota.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/quota.h"
#include "base/tree.h"
#include "test.h"

#define MB (1024ull * 1024)

static char *top;
static int top_fd = -1;

static bool is_xfs;

/* A program with the image's and the mount's names as sh's $1 and $2. */
static int shell(const char *line)
{
    AUTO_FREE char *image = mem_printf("%s.img", top);
    char *argv[] = {(char *)"sh", (char *)"-c", (char *)line, (char *)"sh", image, top, NULL};
    struct proc_result result = {0};
    struct err e = ERR_INIT;

    return proc_run(argv, NULL, NULL, 0, NULL, NULL, 60 * NS_PER_S, &result, &e) < 0
               ? -1
               : result.status;
}

static int set_up(void **state UNUSED)
{
    /* It was promised to the machine alone that /scratch has quotas; TMPDIR lies on it. */
    const char *tmp = getenv("TMPDIR");

    is_xfs = false;
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
    if (is_xfs && shell("umount $2 && rm $1") != 0)
        return -1;
    int rc = tree_remove_at(AT_FDCWD, top, &e);
    free(top);
    return rc;
}

static int set_up_xfs(void **state)
{
    if (set_up(state) < 0)
        return -1;
    close(top_fd);
    if (shell("truncate -s 400M $1 && mkfs.xfs -q $1 && mount -o loop,prjquota $1 $2") != 0)
        return -1;
    is_xfs = true;
    top_fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return top_fd < 0;
}

/* Another build of this test may be looking for ids at the same instant, on the same file system: that one has other seeds. */
static uint32_t own_seed(uint32_t add)
{
    uint32_t seed = 0;

    memcpy(&seed, top + strlen(top) - sizeof(seed), sizeof(seed));
    return seed + add;
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
            assert_int_equal(errno, is_xfs ? ENOSPC : EDQUOT);
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
    /* Two with the same seed: each has its own account, and what was there before counts. */
    uint32_t seed = own_seed(0);

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

/* The project id of a directory; 0: none. */
static uint32_t id_of(int dir)
{
    struct fsxattr x = {0};

    assert_int_equal(ioctl(dir, FS_IOC_FSGETXATTR, &x), 0);
    return x.fsx_projid;
}

enum { PROCESSES = 6, DIRS = 8 }; /* fewer than are tried */

/* Another worker: waits for the others, then takes limits as fast as it can. All look for an id in the same place. */
static int rival(int ready, int n)
{
    struct err e = ERR_INIT;
    char c;

    if (read(ready, &c, 1) != 0) /* until the parent has closed its end */
        return 1;
    for (int i = 0; i < DIRS; i++) {
        char name[32];

        snprintf(name, sizeof(name), "rival%d.%d", n, i);
        AUTO_CLOSE int dir = openat(top_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0 || quota_limit(dir, own_seed(1000), (uint64_t)(n + 1) * MB, &e) < 0)
            return 2;
        if (i % 4 == 3) { /* and gives some back */
            quota_lift(dir);
            if (unlinkat(top_fd, name, AT_REMOVEDIR) < 0)
                return 3;
        }
    }
    return 0;
}

static void rivals_get_ids_of_their_own(void **state UNUSED)
{
    uint32_t seen[PROCESSES * DIRS] = {0};
    size_t n_seen = 0;
    pid_t pids[PROCESSES];
    int ready[2];

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    for (int n = 0; n < PROCESSES; n++) {
        for (int i = 0; i < DIRS; i++) {
            char name[32];

            snprintf(name, sizeof(name), "rival%d.%d", n, i);
            assert_int_equal(mkdirat(top_fd, name, 0755), 0);
        }
        pids[n] = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
        if (pids[n] == 0) {
            close(ready[1]);
            _exit(rival(ready[0], n));
        }
    }
    close(ready[0]);
    close(ready[1]);
    for (int n = 0; n < PROCESSES; n++) {
        int status = -1;

        assert_int_equal(waitpid(pids[n], &status, 0), pids[n]);
        assert_int_equal(status, 0);
    }
    for (int n = 0; n < PROCESSES; n++)
        for (int i = 0; i < DIRS; i++) {
            char name[32];
            uint64_t used, limit = 0;
            struct err e = ERR_INIT;

            snprintf(name, sizeof(name), "rival%d.%d", n, i);
            AUTO_CLOSE int dir = openat(top_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            if (dir < 0)
                continue;
            uint32_t id = id_of(dir);
            for (size_t k = 0; k < n_seen; k++)
                assert_int_not_equal(seen[k], id);
            seen[n_seen++] = id;
            assert_ok(quota_usage(dir, &used, &limit, &e), &e);
            assert_true(limit == (uint64_t)(n + 1) * MB);
        }
    assert_int_equal(n_seen, PROCESSES * DIRS * 3 / 4);
}

static bool is_forgotten(uint32_t id)
{
    struct if_dqblk d = {0};

    return syscall(SYS_quotactl_fd, top_fd, QCMD(Q_GETQUOTA, PRJQUOTA), id, &d) < 0 ||
           d.dqb_curinodes == 0;
}

/* An id whose directory is gone is free for the next, lifted or not: what a crash forgot is no loss. */
static void ids_come_back(void **state UNUSED)
{
    uint32_t first = 0;
    struct err e = ERR_INIT;

    for (int i = 0; i < 3; i++) {
        AUTO_CLOSE int dir = make_dir("again");
        assert_ok(quota_limit(dir, own_seed(2000), MB, &e), &e);
        first = first ? first : id_of(dir);
        assert_int_equal(id_of(dir), first);
        if (i == 0)
            quota_lift(dir);
        assert_int_equal(unlinkat(top_fd, "again", AT_REMOVEDIR), 0);
        close_fd(&dir);
        /* XFS takes its time to forget a removed directory; what it has not forgotten is not free. */
        (void)!syncfs(top_fd);
        for (int k = 0; !is_forgotten(first) && k < 600; k++)
            usleep(100000);
    }
}

/* On the file system that is this build's own: the other build's ids are chosen under another lock. */
static void a_lock_that_is_not_let_go(void **state UNUSED)
{
    AUTO_CLOSE int dir = make_dir("late");
    struct err e = ERR_INIT;
    struct stat st;

    assert_int_equal(fstat(dir, &st), 0);
    AUTO_FREE char *path =
        mem_printf("/run/cworker-quota-%u-%u.lock", major(st.st_dev), minor(st.st_dev));
    AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(quota_limit(dir, own_seed(3000), MB, &e), -1);
    assert_non_null(strstr(e.msg, "held by another worker"));
    close_fd(&fd);
    err_clear(&e);
    assert_ok(quota_limit(dir, own_seed(3000), MB, &e), &e);
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
        cmocka_unit_test(rivals_get_ids_of_their_own),
        cmocka_unit_test(ids_come_back),
        cmocka_unit_test(none_here),
    };
    const struct CMUnitTest xfs[] = {
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(rivals_get_ids_of_their_own),
        cmocka_unit_test(ids_come_back),
        cmocka_unit_test(a_lock_that_is_not_let_go),
    };
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);

    return failed + cmocka_run_group_tests(xfs, set_up_xfs, tear_down);
}
