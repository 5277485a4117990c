#include "runtime/shim_log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/fd.h"

int shim_log_open(int dirfd, const char *name, struct shim_log *l, int *ret_write, struct err *e)
{
    int ends[2];

    *l = (struct shim_log){.pipe = -1, .file = -1};
    AUTO_CLOSE int file =
        openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (file < 0)
        return err_sys(e, "open %s", name);
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_sys(e, "pipe for %s", name);
    AUTO_CLOSE int from = ends[0];
    AUTO_CLOSE int into = ends[1];

    /* only our end: the container's writes shall block, not fail */
    if (fcntl(from, F_SETFL, O_NONBLOCK) < 0)
        return err_sys(e, "pipe for %s", name);
    l->file = take_fd(&file);
    l->pipe = take_fd(&from);
    *ret_write = take_fd(&into);
    return 0;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void keep(struct shim_log *l, const char *data, size_t n)
{
    if (l->total < SHIM_LOG_HEAD) {
        size_t part = smaller(n, SHIM_LOG_HEAD - (size_t)l->total);

        /* A full disk loses the text, never the container. */
        if (pwrite(l->file, data, part, (off_t)l->total) < 0 && errno == EIO)
            close_fd(&l->file);
        l->total += part;
        data += part;
        n -= part;
    }
    if (n > SHIM_LOG_TAIL) {
        l->total += n - SHIM_LOG_TAIL;
        data += n - SHIM_LOG_TAIL;
        n = SHIM_LOG_TAIL;
    }
    while (n) {
        size_t at = (size_t)((l->total - SHIM_LOG_HEAD) % SHIM_LOG_TAIL);
        size_t part = smaller(n, SHIM_LOG_TAIL - at);

        memcpy(l->tail + at, data, part);
        l->total += part;
        data += part;
        n -= part;
    }
}

/* Put the mark and the ring behind the head. */
static void write_tail(const struct shim_log *l)
{
    char text[SHIM_LOG_MARK + SHIM_LOG_TAIL];
    uint64_t after = l->total - SHIM_LOG_HEAD;
    size_t n = 0, have = (size_t)(after < SHIM_LOG_TAIL ? after : SHIM_LOG_TAIL);
    size_t first = after < SHIM_LOG_TAIL ? 0 : (size_t)(after % SHIM_LOG_TAIL);

    if (after > SHIM_LOG_TAIL)
        n = (size_t)snprintf(text, SHIM_LOG_MARK, "\n[... %" PRIu64 " bytes left out ...]\n",
                             after - SHIM_LOG_TAIL);
    memcpy(text + n, l->tail + first, have - first);
    memcpy(text + n + have - first, l->tail, first);
    n += have;
    if (pwrite(l->file, text, n, SHIM_LOG_HEAD) == (ssize_t)n &&
        ftruncate(l->file, SHIM_LOG_HEAD + (off_t)n) < 0)
        return; /* a few old bytes stay at the end */
}

bool shim_log_drain(struct shim_log *l, size_t budget)
{
    char buf[16384];
    uint64_t before = l->total;
    bool more = false;

    while (l->pipe >= 0) {
        ssize_t n = read(l->pipe, buf, sizeof(buf));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            close_fd(&l->pipe);
            break;
        }
        keep(l, buf, (size_t)n);
        if (budget <= (size_t)n) {
            more = true;
            break;
        }
        budget -= (size_t)n;
    }
    if (l->total != before && l->total > SHIM_LOG_HEAD && l->file >= 0)
        write_tail(l);
    return more;
}

void shim_log_close(struct shim_log *l)
{
    close_fd(&l->pipe);
    close_fd(&l->file);
}
