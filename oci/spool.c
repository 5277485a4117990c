#include "oci/spool.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"
#include "oci/manifest.h"

enum { HEAD = 1024, PIECE = 128 * 1024 };
#define MAGIC "cworker spool 1"

/* What the file begins with: lines, and NULs up to HEAD. */
static void make_head(char head[HEAD], const struct oci_desc *d, const char *diff_id,
                      const char *boot_id)
{
    memset(head, 0, HEAD);
    snprintf(head, HEAD, MAGIC "\n%s\n%s\n%s\n%llu\n", boot_id, diff_id, d->digest,
             (unsigned long long)d->size);
}

static int open_file(int dir, int flags)
{
    return openat(dir, OCI_SPOOL_NAME, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
}

/* Bytes of a layer behind the head; 0 when it is no such file. */
static uint64_t size_of(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > HEAD
               ? (uint64_t)st.st_size - HEAD
               : 0;
}

void oci_spool_open(int dir, const struct oci_desc *d, const char *diff_id, const char *boot_id,
                    struct oci_spool *ret)
{
    char wanted[HEAD], head[HEAD];

    *ret = OCI_SPOOL_NONE;
    if (d->size <= BOUND_CHECKPOINT || !str_ends(d->media_type, "zstd"))
        return;
    make_head(wanted, d, diff_id, boot_id);
    AUTO_CLOSE int fd = open_file(dir, O_RDWR | O_CREAT);

    if (fd < 0)
        return;
    if (pread(fd, head, HEAD, 0) == HEAD && !memcmp(head, wanted, HEAD) && size_of(fd) <= d->size) {
        ret->size = size_of(fd);
    } else if (ftruncate(fd, 0) < 0 || pwrite(fd, wanted, HEAD, 0) != HEAD) {
        unlinkat(dir, OCI_SPOOL_NAME, 0);
        return;
    }
    ret->fd = take_fd(&fd);
}

void oci_spool_close(struct oci_spool *s)
{
    close_fd(&s->fd);
    s->size = 0;
}

void oci_spool_add(struct oci_spool *s, const void *data, size_t n)
{
    const char *p = data;

    while (s->fd >= 0 && n) {
        ssize_t done = pwrite(s->fd, p, n, (off_t)(HEAD + s->size));

        if (done <= 0) {
            /* What is there is right, and gives its room back. */
            if (ftruncate(s->fd, 0) < 0)
                s->size = 0;
            oci_spool_close(s);
            return;
        }
        s->size += (uint64_t)done;
        p += done;
        n -= (size_t)done;
    }
}

int oci_spool_read(const struct oci_spool *s, uint64_t offset,
                   int (*sink)(void *arg, const void *data, size_t n, struct err *e), void *arg,
                   struct err *e)
{
    AUTO_FREE char *piece = mem_alloc(PIECE);

    while (offset < s->size) {
        size_t left = s->size - offset < PIECE ? (size_t)(s->size - offset) : PIECE;
        ssize_t n = pread(s->fd, piece, left, (off_t)(HEAD + offset));

        if (n <= 0)
            return err_sys(e, "read what was kept of the layer");
        if (sink(arg, piece, (size_t)n, e) < 0)
            return -1;
        offset += (uint64_t)n;
    }
    return 0;
}

bool oci_spool_is_in(int dir, const char *boot_id, char ret_diff_id[DIGEST_TEXT_MAX])
{
    AUTO_CLOSE int fd = open_file(dir, O_RDONLY);
    AUTO(str_list) struct str_list lines = {0};
    char head[HEAD + 1];

    if (fd < 0 || !size_of(fd) || pread(fd, head, HEAD, 0) != HEAD)
        return false;
    head[HEAD] = '\0';
    str_list_split(&lines, head, '\n');
    if (lines.n < 5 || !str_eq(lines.items[0], MAGIC) || !str_eq(lines.items[1], boot_id) ||
        !digest_is_valid(lines.items[2]))
        return false;
    snprintf(ret_diff_id, DIGEST_TEXT_MAX, "%s", lines.items[2]);
    return true;
}
