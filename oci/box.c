#include "oci/box.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/codec.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/path.h"
#include "oci/tar.h"

enum { BLOCK = 512, PIECE = 256 * 1024, LINK_HOPS = 8 };

struct member {
    char *name, *link; /* link: normalised name of another member, or NULL */
    uint64_t offset, n;
};

struct oci_box {
    int dir;     /* of a directory, else -1 */
    int archive; /* of an archive, else -1 */
    struct member *members;
    size_t n_members, room;
};

void oci_box_free(struct oci_box *b)
{
    if (!b)
        return;
    for (size_t i = 0; i < b->n_members; i++) {
        free(b->members[i].name);
        free(b->members[i].link);
    }
    free(b->members);
    close_fd(&b->dir);
    close_fd(&b->archive);
    free(b);
}

void oci_box_piece_free(struct oci_box_piece *p)
{
    close_fd(&p->fd);
}

/* ---- the walk over an archive ---- */

struct walk {
    struct oci_box *box;
    bool entered;       /* an entry was just announced */
    uint64_t announced; /* bytes of it */
    uint64_t seen;
};

/* The name a link means: symbolic ones are relative to where they stand, hard ones to the top. NULL: outside. */
static char *link_target(const struct tar_entry *t)
{
    const char *slash = strrchr(t->path, '/');

    if (t->type == TAR_HARDLINK || !slash || t->link[0] == '/')
        return path_normalize(t->link);
    AUTO_FREE char *joined = mem_printf("%.*s/%s", (int)(slash - t->path), t->path, t->link);

    return path_normalize(joined);
}

static int on_entry(void *arg, const struct tar_entry *t, struct err *e)
{
    struct walk *w = arg;
    struct oci_box *b = w->box;
    bool is_link = t->type == TAR_SYMLINK || t->type == TAR_HARDLINK;

    w->entered = true;
    w->announced = t->type == TAR_FILE ? t->size : 0;
    w->seen = 0;
    if (t->type != TAR_FILE && !is_link)
        return 0;
    if (b->n_members == BOUND_BOX_MEMBERS)
        return err_set(e, ERR_LIMIT, "more than %d files", BOUND_BOX_MEMBERS);
    AUTO_FREE char *name = path_normalize(t->path);
    AUTO_FREE char *link = is_link ? link_target(t) : NULL;

    if (!name || !*name || (is_link && !link))
        return err_set(e, ERR_USER, "a member's name leads outside of the archive");
    if (b->n_members == b->room) {
        b->room = b->room ? 2 * b->room : 64;
        b->members = mem_realloc(b->members, b->room, sizeof(*b->members));
    }
    b->members[b->n_members++] = (struct member){.name = take_ptr(&name), .link = take_ptr(&link)};
    return 0;
}

static int on_data(void *arg, const void *data, size_t n, struct err *e)
{
    (void)data, (void)e;
    ((struct walk *)arg)->seen += n;
    return 0;
}

static int on_hole(void *arg, uint64_t n, struct err *e)
{
    (void)arg, (void)n;
    return err_set(e, ERR_USER, "a member is a sparse file");
}

static int on_end(void *arg, struct err *e)
{
    struct walk *w = arg;

    return w->seen == w->announced ? 0 : err_set(e, ERR_USER, "a member is a sparse file");
}

/* The contents of a member need not be read for the walk: zeros stand in for them. */
static int skip_contents(struct tar *tar, uint64_t n, struct err *e)
{
    static const char zeros[PIECE];

    while (n) {
        size_t part = n < PIECE ? (size_t)n : PIECE;

        if (tar_feed(tar, zeros, part, e) < 0)
            return -1;
        n -= part;
    }
    return 0;
}

static int read_block(int fd, char block[BLOCK], uint64_t at, struct err *e)
{
    ssize_t n = pread(fd, block, BLOCK, (off_t)at);

    if (n < 0)
        return err_sys(e, "read");
    return n == BLOCK ? 0 : err_set(e, ERR_USER, "is cut off");
}

static int walk_members(struct oci_box *b, struct tar *tar, struct walk *w, uint64_t size,
                        struct err *e)
{
    uint64_t at = 0;

    while (at < size) {
        char block[BLOCK];

        w->entered = false;
        if (read_block(b->archive, block, at, e) < 0 || tar_feed(tar, block, BLOCK, e) < 0)
            return -1;
        at += BLOCK;
        if (!w->entered || !w->announced)
            continue;
        uint64_t whole = (w->announced + BLOCK - 1) / BLOCK * BLOCK;

        if (whole > size - at)
            return err_set(e, ERR_USER, "is cut off");
        b->members[b->n_members - 1].offset = at;
        b->members[b->n_members - 1].n = w->announced;
        if (skip_contents(tar, whole, e) < 0)
            return -1;
        at += whole;
    }
    return tar_finish(tar, e);
}

static int walk(struct oci_box *b, struct err *e)
{
    static const struct tar_ops ops = {on_entry, on_data, on_hole, on_end, NULL};
    struct walk w = {.box = b};
    AUTO(tar) struct tar *tar = tar_new(&ops, &w);
    struct stat st;

    if (fstat(b->archive, &st) < 0)
        return err_sys(e, "look at it");
    /* Padding to whole records may have been left off, or be odd: only whole blocks can matter. */
    return walk_members(b, tar, &w, (uint64_t)st.st_size / BLOCK * BLOCK, e);
}

/* ---- opening ---- */

static int to_file(void *arg, const void *data, size_t n, struct err *e)
{
    return fd_write_all(*(int *)arg, data, n) < 0 ? err_sys(e, "decode it beside") : 0;
}

/* Decoded into a file that has no name; takes the place of *fd. */
static int decode(int *fd, enum codec_kind kind, struct err *e)
{
    const char *tmp = getenv("TMPDIR");
    AUTO_CLOSE int out = open(tmp && *tmp ? tmp : "/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    AUTO(codec) struct codec *c = codec_decoder(kind, BOUND_UNPACKED, to_file, &out);
    AUTO_FREE char *buf = mem_alloc(PIECE);
    ssize_t n;

    if (out < 0)
        return err_sys(e, "a temporary file to decode it into");
    while ((n = fd_read_full(*fd, buf, PIECE)) > 0)
        if (codec_feed(c, buf, (size_t)n, e) < 0)
            return -1;
    if (n < 0)
        return err_sys(e, "read");
    if (codec_finish(c, e) < 0)
        return -1;
    close_fd(fd);
    *fd = take_fd(&out);
    return 0;
}

static int open_archive(struct oci_box *b, struct err *e)
{
    unsigned char magic[4] = {0};

    if (pread(b->archive, magic, sizeof(magic), 0) < 0)
        return err_sys(e, "read");
    if (magic[0] == 0x1f && magic[1] == 0x8b && decode(&b->archive, CODEC_GZIP, e) < 0)
        return -1;
    if (!memcmp(magic, "\x28\xb5\x2f\xfd", 4) && decode(&b->archive, CODEC_ZSTD, e) < 0)
        return -1;
    return walk(b, e);
}

int oci_box_open(const char *path, struct oci_box **ret, struct err *e)
{
    AUTO(oci_box) struct oci_box *b = mem_new(struct oci_box);
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat st;

    b->dir = b->archive = -1;
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, "%s", path);
    if (S_ISDIR(st.st_mode)) {
        b->dir = take_fd(&fd);
    } else if (S_ISREG(st.st_mode)) {
        b->archive = take_fd(&fd);
        if (open_archive(b, e) < 0)
            return err_wrap(e, "%s", path);
    } else {
        return err_set(e, ERR_USER, "%s is neither a directory nor an archive", path);
    }
    *ret = take_ptr(&b);
    return 0;
}

/* ---- looking inside ---- */

/* Of two members of one name the later counts, as it does for who unpacks the archive. */
static const struct member *find_member(const struct oci_box *b, const char *name)
{
    for (int hop = 0; hop < LINK_HOPS; hop++) {
        const struct member *m = NULL;

        for (size_t i = b->n_members; i-- && !m;)
            if (str_eq(b->members[i].name, name))
                m = &b->members[i];
        if (!m || !m->link)
            return m;
        name = m->link;
    }
    return NULL;
}

static int find_beneath(int dir, const char *name, struct oci_box_piece *ret, struct err *e)
{
    AUTO_CLOSE int fd =
        path_open_beneath(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0, e);
    struct stat st;

    if (fd < 0)
        return -1;
    if (fstat(fd, &st) < 0)
        return err_sys(e, "%s", name);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_USER, "%s is not a regular file", name);
    *ret = (struct oci_box_piece){take_fd(&fd), 0, (uint64_t)st.st_size};
    return 0;
}

int oci_box_find(const struct oci_box *b, const char *name, struct oci_box_piece *ret,
                 struct err *e)
{
    char shown[STR_SHOW_MAX];

    if (b->dir >= 0)
        return find_beneath(b->dir, name, ret, e);
    const struct member *m = find_member(b, name);

    if (!m)
        return err_set(e, ERR_ABSENT, "there is no %s in it", str_show(shown, name));
    int fd = fd_dup(b->archive);

    if (fd < 0)
        return err_sys(e, "duplicate a descriptor");
    *ret = (struct oci_box_piece){fd, m->offset, m->n};
    return 0;
}

int oci_box_stream(const struct oci_box_piece *p,
                   int (*sink)(void *arg, const void *data, size_t n, struct err *e), void *arg,
                   struct err *e)
{
    AUTO_FREE char *buf = mem_alloc(PIECE);

    for (uint64_t done = 0; done < p->n;) {
        size_t part = p->n - done < PIECE ? (size_t)(p->n - done) : PIECE;
        ssize_t n = pread(p->fd, buf, part, (off_t)(p->offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "read");
        if (n == 0)
            return err_set(e, ERR_USER, "became shorter while it was read");
        if (sink(arg, buf, (size_t)n, e) < 0)
            return -1;
        done += (uint64_t)n;
    }
    return 0;
}

static int to_str(void *arg, const void *data, size_t n, struct err *e)
{
    return str_append(arg, data, n) < 0 ? err_set(e, ERR_LIMIT, "is larger than allowed") : 0;
}

int oci_box_read(const struct oci_box *b, const char *name, struct str *ret, struct err *e)
{
    AUTO(oci_box_piece) struct oci_box_piece p = OCI_BOX_PIECE_INIT;
    char shown[STR_SHOW_MAX];

    str_clear(ret);
    if (oci_box_find(b, name, &p, e) < 0)
        return -1;
    if (p.n > ret->max)
        return err_set(e, ERR_LIMIT, "%s is larger than allowed", str_show(shown, name));
    return oci_box_stream(&p, to_str, ret, e) < 0 ? err_wrap(e, "%s", str_show(shown, name)) : 0;
}
