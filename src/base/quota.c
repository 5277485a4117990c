#include "base/quota.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>
#include <linux/fs.h>
#include <linux/quota.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/tree.h"

#define LOCK_WAIT_NS (10 * NS_PER_S)
#define LOCK_LOOK_NS (2 * NS_PER_MS)

/* A quarter of a million ids that look like no administrator's (/etc/projid counts from small numbers). */
#define IDS_FIRST 0x63770000u
#define IDS_COUNT 0x40000u
#define TRIES     64
#define BLOCK     1024 /* the unit of dqb_bhardlimit (QIF_DQBLKSIZE) */

static int quota_call(int dirfd, unsigned command, uint32_t id, struct if_dqblk *d)
{
    return (int)syscall(SYS_quotactl_fd, dirfd, QCMD(command, PRJQUOTA), id, d);
}

static bool is_ours(uint32_t id)
{
    return id >= IDS_FIRST && id - IDS_FIRST < IDS_COUNT;
}

/*
 * Between the choice of an id and its first directory nobody else may choose: there is no way to ask the kernel for both
 * at once. One file for each file system, in /run, which only root can write and all workers of a host share. It goes
 * with the descriptor, also when we are killed. -1: it cannot be had.
 */
static int lock_ids(int dirfd, struct err *e)
{
    struct stat st;

    if (fstat(dirfd, &st) < 0)
        return err_sys(e, "look at the directory");
    AUTO_FREE char *path =
        mem_printf("/run/cworker-quota-%u-%u.lock", major(st.st_dev), minor(st.st_dev));
    AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, "open %s", path);
    uint64_t deadline = clock_in_ns(LOCK_WAIT_NS);

    /* It is held for two calls; whoever was stopped between them must not stop everybody else's runs. */
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return err_sys(e, "lock %s", path);
        if (clock_passed(deadline))
            return err_set(e, ERR_HOST, "%s is held by another worker, which does not go on", path);
        (void)nanosleep(&(struct timespec){.tv_nsec = LOCK_LOOK_NS}, NULL);
    }
    return take_fd(&fd);
}

/*
 * An id nobody has a file under. Call with the lock: then one with a limit and no files is what a crash left, or a
 * directory whose limit was not lifted before it was removed. 0: none found; -1: no quota here.
 */
static int64_t free_id(int dirfd, uint32_t seed)
{
    for (uint32_t i = 0; i < TRIES; i++) {
        uint32_t id = IDS_FIRST + (seed + i) % IDS_COUNT;
        struct if_dqblk d = {0};

        if (quota_call(dirfd, Q_GETQUOTA, id, &d) < 0) {
            if (errno == ENOENT)
                return id; /* XFS: never seen */
            return -1;
        }
        if (!d.dqb_curspace && !d.dqb_curinodes)
            return id;
    }
    return 0;
}

static int set_id(int fd, uint32_t id, bool is_dir)
{
    struct fsxattr x = {0};

    if (ioctl(fd, FS_IOC_FSGETXATTR, &x) < 0)
        return -1;
    x.fsx_projid = id;
    if (is_dir) /* ext4 refuses it on files */
        x.fsx_xflags |= FS_XFLAG_PROJINHERIT;
    return ioctl(fd, FS_IOC_FSSETXATTR, &x);
}

/* What an earlier attempt left counts too. Only files and directories can be told; the rest holds no bytes. */
static int set_id_of(void *arg, int parentfd, const char *name, const char *path,
                     const struct stat *st, struct err *e)
{
    const uint32_t *id = arg;

    (void)path, (void)e;
    if (!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode))
        return 0;
    AUTO_CLOSE int fd = openat(parentfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0)
        (void)set_id(
            fd, *id,
            S_ISDIR(
                st->st_mode)); /* gone or changed meanwhile: then it is made anew, and inherits */
    return 0;
}

/* The limit first: a directory with an id of ours always has one. */
static int take_id(int dirfd, uint32_t seed, uint64_t bytes, uint32_t *ret, struct err *e)
{
    struct if_dqblk d = {.dqb_bhardlimit = (bytes + BLOCK - 1) / BLOCK, .dqb_valid = QIF_BLIMITS};
    struct if_dqblk any = {0};

    if (quota_call(dirfd, Q_GETQUOTA, IDS_FIRST, &any) < 0 && errno != ENOENT)
        return err_set(e, ERR_ABSENT, "the file system has no project quota");
    AUTO_CLOSE int lock = lock_ids(dirfd, e);
    int64_t id = lock < 0 ? -1 : free_id(dirfd, seed);

    if (id < 0)
        return lock < 0 ? -1 : err_set(e, ERR_ABSENT, "the file system has no project quota");
    if (id == 0)
        return err_set(e, ERR_HOST, "all project ids tried are taken");
    if (quota_call(dirfd, Q_SETQUOTA, (uint32_t)id, &d) < 0)
        return err_sys(e, "set a project quota");
    if (set_id(dirfd, (uint32_t)id, true) < 0) {
        err_sys(e, "give the directory a project id");
        d.dqb_bhardlimit = 0;
        (void)quota_call(dirfd, Q_SETQUOTA, (uint32_t)id, &d);
        return -1;
    }
    *ret = (uint32_t)id;
    return 0;
}

int quota_limit(int dirfd, uint32_t seed, uint64_t bytes, struct err *e)
{
    uint32_t id = 0;

    return take_id(dirfd, seed, bytes, &id, e) < 0 ? -1 : tree_walk(dirfd, set_id_of, &id, NULL, e);
}

int quota_usage(int dirfd, uint64_t *ret_used, uint64_t *ret_limit, struct err *e)
{
    struct fsxattr x = {0};
    struct if_dqblk d = {0};

    if (ioctl(dirfd, FS_IOC_FSGETXATTR, &x) < 0 || !is_ours(x.fsx_projid) ||
        quota_call(dirfd, Q_GETQUOTA, x.fsx_projid, &d) < 0 || !d.dqb_bhardlimit)
        return err_set(e, ERR_ABSENT, "no quota");
    *ret_used = d.dqb_curspace;
    *ret_limit = d.dqb_bhardlimit * BLOCK;
    return 0;
}

void quota_lift(int dirfd)
{
    struct fsxattr x = {0};
    struct if_dqblk d = {.dqb_valid = QIF_BLIMITS};

    if (ioctl(dirfd, FS_IOC_FSGETXATTR, &x) == 0 && is_ours(x.fsx_projid))
        (void)quota_call(dirfd, Q_SETQUOTA, x.fsx_projid, &d);
}
