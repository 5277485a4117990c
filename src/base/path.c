#include "base/path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/openat2.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

/* openat2 answers EAGAIN when a rename raced with the walk: an attacker may cause it on purpose. */
enum { RACE_RETRIES = 64 };

static int open_resolved(int dirfd, const char *path, int flags, mode_t mode, uint64_t resolve,
                         struct err *e)
{
    struct open_how how = {
        .flags = (uint64_t)(flags | O_CLOEXEC),
        .mode = flags & (O_CREAT | O_TMPFILE) ? mode : 0,
        .resolve = resolve | RESOLVE_NO_MAGICLINKS,
    };
    char shown[STR_SHOW_MAX];

    for (int i = 0; i < RACE_RETRIES; i++) {
        int fd = (int)syscall(SYS_openat2, dirfd, path, &how, sizeof(how));

        if (fd >= 0)
            return fd;
        if (errno != EAGAIN && errno != EINTR)
            break;
    }
    return err_sys(e, "open %s", str_show(shown, path));
}

int path_open_beneath(int dirfd, const char *path, int flags, mode_t mode, struct err *e)
{
    return open_resolved(dirfd, path, flags, mode,
                         RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV, e);
}

int path_open_beneath_links(int dirfd, const char *path, int flags, mode_t mode, struct err *e)
{
    return open_resolved(dirfd, path, flags, mode, RESOLVE_BENEATH | RESOLVE_NO_XDEV, e);
}

int path_real_beneath_links(int dirfd, const char *path, char **ret, struct err *e)
{
    AUTO_CLOSE int fd = *path ? path_open_beneath_links(dirfd, path, O_PATH, 0, e)
                              : fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
    char link[64], real[BOUND_PATH];

    if (fd < 0)
        return *path ? -1 : err_sys(e, "duplicate a descriptor");
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, real, sizeof(real) - 1);

    if (n < 0)
        return err_sys(e, "find where %s is", *path ? path : "a directory");
    *ret = mem_strndup(real, (size_t)n);
    return 0;
}

int path_open_in_root(int dirfd, const char *path, int flags, mode_t mode, struct err *e)
{
    return open_resolved(dirfd, path, flags, mode, RESOLVE_IN_ROOT, e);
}

typedef int open_fn(int, const char *, int, mode_t, struct err *);

/* Open, or make and open, one prefix of the path after the other. `open_one` resolves each whole
 * prefix from the top, so that links are judged by the same rule every time. */
static int mkdirs(int top, const char *path, mode_t mode, open_fn *open_one, struct err *e)
{
    AUTO_CLOSE int fd = openat(top, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    AUTO_FREE char *copy = mem_strdup(path);
    char shown[STR_SHOW_MAX];
    char *p = copy;

    if (fd < 0)
        return err_sys(e, "open the directory above %s", str_show(shown, path));
    while (*p == '/')
        p++;
    for (char *end; *p; p = end) {
        end = p + strcspn(p, "/");
        char kept = *end;

        *end = '\0';
        int next = open_one(top, copy, O_PATH | O_DIRECTORY, 0, e);

        if (next < 0 && e->sys == ENOENT) {
            if (mkdirat(fd, p, mode) < 0 && errno != EEXIST)
                return err_sys(e, "make directory %s", str_show(shown, copy));
            next = open_one(top, copy, O_PATH | O_DIRECTORY, 0, e);
        }
        if (next < 0)
            return -1;
        close(fd);
        fd = next;
        *end = kept;
        while (*end == '/')
            end++;
    }
    return take_fd(&fd);
}

int path_mkdirs_in_root(int rootfd, const char *path, mode_t mode, struct err *e)
{
    return mkdirs(rootfd, path, mode, path_open_in_root, e);
}

int path_mkdirs_beneath(int dirfd, const char *path, mode_t mode, struct err *e)
{
    return mkdirs(dirfd, path, mode, path_open_beneath, e);
}

int path_mkdirs(const char *path, mode_t mode, struct err *e)
{
    AUTO_FREE char *copy = mem_strdup(path);

    for (char *p = copy + strspn(copy, "/"); *p;) {
        p += strcspn(p, "/");
        char kept = *p;

        *p = '\0';
        if (mkdir(copy, mode) < 0 && errno != EEXIST)
            return err_sys(e, "make directory %s", copy);
        *p = kept;
        p += strspn(p, "/");
    }
    struct stat st;

    if (stat(path, &st) < 0)
        return err_sys(e, "make directory %s", path);
    if (!S_ISDIR(st.st_mode))
        return err_set(e, ERR_USER, "%s is there already and is not a directory", path);
    return 0;
}

int path_reopen(int fd, int flags, struct err *e)
{
    char name[40];
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_sys(e, "stat a held descriptor");
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return err_set(e, ERR_USER, "neither a regular file nor a directory");
    if (S_ISDIR(st.st_mode))
        return (fd = openat(fd, ".", flags | O_DIRECTORY | O_CLOEXEC)) >= 0
                   ? fd
                   : err_sys(e, "reopen a directory");
    /* A link to our own descriptor table; only the kernel decides where it leads. */
    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    int again = open(name, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    return again >= 0 ? again : err_sys(e, "reopen a file");
}

char *path_normalize(const char *path)
{
    AUTO(str_list) struct str_list parts = {0}, kept = {0};

    str_list_split(&parts, path, '/');
    for (size_t i = 0; i < parts.n; i++) {
        const char *part = parts.items[i];

        if (!*part || str_eq(part, "."))
            continue;
        if (!str_eq(part, "..")) {
            str_list_add(&kept, part);
            continue;
        }
        if (!kept.n)
            return NULL;
        free(kept.items[--kept.n]);
        kept.items[kept.n] = NULL;
    }
    return str_list_join(&kept, "/");
}

bool path_is_component(const char *name)
{
    return *name && !str_eq(name, ".") && !str_eq(name, "..") && !strchr(name, '/');
}
