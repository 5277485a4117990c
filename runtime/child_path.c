#include <fcntl.h>
#include <sys/stat.h>
#include <linux/openat2.h>

#include "runtime/child.h"

enum { PATH_BYTES = 4096, LINKS_MAX = 16, RACE_RETRIES = 64 };

static int open_in_root(int rootfd, const char *path, int flags, int how_flags)
{
    struct open_how how = {
        .flags = (unsigned long long)(how_flags | O_CLOEXEC),
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS |
                   (flags & CHILD_NO_LINKS ? RESOLVE_NO_SYMLINKS : 0),
    };
    long fd = -1;

    for (int i = 0; i < RACE_RETRIES; i++) {
        fd = SYS(openat2, rootfd, path, &how, sizeof(how));
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
            break;
    }
    return (int)fd;
}

int child_open(int rootfd, const char *path, int flags)
{
    return open_in_root(rootfd, path, flags, O_PATH);
}

static int copy_path(char *dst, const char *src)
{
    unsigned long n = child_strlen(src);

    if (n >= PATH_BYTES) {
        errno = ENAMETOOLONG;
        return -1;
    }
    for (unsigned long i = 0; i <= n; i++)
        dst[i] = src[i];
    return 0;
}

/* Put link text in place of the component that ends at `end`, in front of `rest`. */
static int splice_link(char *path, unsigned long start, const char *link, unsigned long n,
                       const char *rest)
{
    char tail[PATH_BYTES];
    unsigned long at = link[0] == '/' ? 0 : start;

    if (copy_path(tail, rest) < 0)
        return -1;
    if (at + n + child_strlen(tail) + 1 >= PATH_BYTES) {
        errno = ENAMETOOLONG;
        return -1;
    }
    for (unsigned long i = 0; i < n; i++)
        path[at++] = link[i];
    return copy_path(path + at, tail);
}

/*
 * Walk `path` from the root, making what is missing. The whole prefix is resolved from the root each time, so a
 * link is judged by the same rule wherever it stands. A dangling link (/etc/resolv.conf in many images) is read and
 * what it names inside the root is made instead.
 */
static int walk(int rootfd, char *path, int flags, int as_dir)
{
    int dir = (int)SYS(openat, rootfd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC, 0), links = 0;
    unsigned long i = 0;

    while (dir >= 0) {
        while (path[i] == '/')
            i++;
        if (!path[i])
            return dir;
        unsigned long start = i;

        /* NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Branch): the text ends with a NUL */
        while (path[i] && path[i] != '/')
            i++;
        char kept = path[i];
        unsigned long end = i;

        while (path[end] == '/')
            end++;
        int is_last = !path[end], next;

        path[i] = '\0';
        next = open_in_root(rootfd, path, flags, O_PATH | (is_last ? 0 : O_DIRECTORY));
        if (next < 0 && errno == ENOENT) {
            long made = is_last && !as_dir ? SYS(mknodat, dir, path + start, S_IFREG | 0644, 0)
                                           : SYS(mkdirat, dir, path + start, 0755);
            char link[PATH_BYTES];

            if (made < 0 && errno == EEXIST && !(flags & CHILD_NO_LINKS) && links++ < LINKS_MAX) {
                long n = SYS(readlinkat, dir, path + start, link, sizeof(link));

                path[i] = kept;
                if (n <= 0 || splice_link(path, start, link, (unsigned long)n, path + i) < 0)
                    break;
                SYS(close, dir);
                dir = (int)SYS(openat, rootfd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
                i = 0;
                continue;
            }
            if (made < 0)
                break;
            next = open_in_root(rootfd, path, flags, O_PATH);
        }
        path[i] = kept;
        if (next < 0)
            break;
        SYS(close, dir);
        dir = next;
    }
    int why = errno;

    if (dir >= 0)
        SYS(close, dir);
    errno = why;
    return -1;
}

int child_open_or_make(int rootfd, const char *path, int flags, int as_dir)
{
    char copy[PATH_BYTES];
    int fd = child_open(rootfd, path, flags);

    if (fd >= 0 || errno != ENOENT)
        return fd;
    return copy_path(copy, path) < 0 ? -1 : walk(rootfd, copy, flags, as_dir);
}

int child_open_parent(int rootfd, const char *path, int flags, const char **ret_name)
{
    char copy[PATH_BYTES];
    unsigned long slash = 0;

    if (copy_path(copy, path) < 0)
        return -1;
    for (unsigned long i = 0; path[i]; i++)
        if (path[i] == '/')
            slash = i;
    *ret_name = path[slash] == '/' ? path + slash + 1 : path;
    copy[slash] = '\0';
    if (!**ret_name) {
        errno = EINVAL;
        return -1;
    }
    return child_open_or_make(rootfd, slash ? copy : ".", flags, 1);
}
