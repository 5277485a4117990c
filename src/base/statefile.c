#include "base/statefile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crash.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"

/* ".tmp-<16 hex>-<name>": hidden from readers, recognised by the sweep. */
#define TMP_PREFIX ".tmp-"

static char *temporary_name(const char *name)
{
    uint64_t r = 0;

    if (getrandom(&r, sizeof(r), 0) != (ssize_t)sizeof(r))
        r = clock_now_ns();
    return mem_printf(TMP_PREFIX "%016llx-%s", (unsigned long long)r, name);
}

static int write_temporary(int dirfd, const char *tmp, const void *data, size_t n, mode_t mode,
                           bool durable, struct err *e)
{
    AUTO_CLOSE int fd =
        openat(dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);

    if (fd < 0)
        return err_sys(e, "create a temporary file");
    if (fd_write_all(fd, data, n) < 0)
        return err_sys(e, "write");
    if (durable && fdatasync(fd) < 0)
        return err_sys(e, "sync");
    return 0;
}

static int sync_directory(int dirfd, struct err *e)
{
    AUTO_CLOSE int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        return err_sys(e, "sync the directory");
    return 0;
}

int statefile_replace(int dirfd, const char *name, const void *data, size_t n, mode_t mode,
                      bool durable, struct err *e)
{
    AUTO_FREE char *tmp = temporary_name(name);

    crash_point("statefile: before");
    if (write_temporary(dirfd, tmp, data, n, mode, durable, e) < 0)
        goto failed;
    crash_point("statefile: written");
    if (renameat(dirfd, tmp, dirfd, name) < 0) {
        err_sys(e, "rename into place");
        goto failed;
    }
    crash_point("statefile: renamed");
    if (durable && sync_directory(dirfd, e) < 0)
        return err_wrap(e, "file %s", name);
    return 0;
failed:
    unlinkat(dirfd, tmp, 0);
    return err_wrap(e, "file %s", name);
}

int statefile_replace_in(int dirfd, const char *spare, const char *name, const void *data, size_t n,
                         bool durable, struct err *e)
{
    AUTO_CLOSE int fd = openat(dirfd, spare, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return err_sys(e, "open %s", spare);
    if (fd_write_all(fd, data, n) < 0 || ftruncate(fd, (off_t)n) < 0)
        return err_sys(e, "write %s", spare);
    if (durable && fdatasync(fd) < 0)
        return err_sys(e, "sync %s", spare);
    crash_point("statefile: spare written");
    if (renameat(dirfd, spare, dirfd, name) < 0)
        return err_sys(e, "rename %s into place as %s", spare, name);
    crash_point("statefile: spare renamed");
    return durable && sync_directory(dirfd, e) < 0 ? err_wrap(e, "file %s", name) : 0;
}

int statefile_move(int from, const char *name, int dirfd, const char *to, struct err *e)
{
    crash_point("statefile: to be moved");
    if (renameat(from, name, dirfd, to) < 0)
        return err_sys(e, "move into place as %s", to);
    crash_point("statefile: moved");
    return sync_directory(dirfd, e) < 0 ? err_wrap(e, "file %s", to) : 0;
}

int statefile_read(int dirfd, const char *name, struct str *s, struct err *e)
{
    return fd_read_file_at(dirfd, name, s, e);
}

int statefile_remove(int dirfd, const char *name, bool durable, struct err *e)
{
    crash_point("statefile: to be removed");
    if (unlinkat(dirfd, name, 0) < 0 && errno != ENOENT)
        return err_sys(e, "remove %s", name);
    crash_point("statefile: removed");
    return durable ? sync_directory(dirfd, e) : 0;
}

void statefile_sweep(int dirfd)
{
    int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (!dir) {
        if (fd >= 0)
            close(fd);
        return;
    }
    while ((entry = readdir(dir)))
        if (str_starts(entry->d_name, TMP_PREFIX))
            unlinkat(dirfd, entry->d_name, 0);
    closedir(dir);
}

int statefile_set_aside(int dirfd, const char *name, struct err *e)
{
    AUTO_FREE char *aside = mem_printf("%s.bad-%lld", name, (long long)clock_epoch());

    if (renameat(dirfd, name, dirfd, aside) < 0)
        return err_sys(e, "set %s aside", name);
    return 0;
}
