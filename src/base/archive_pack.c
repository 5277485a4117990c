/*
 * Our own tar writer, in GNU form: names are kept byte for byte, long ones in 'L' and 'K' entries, large numbers in base 256.
 * The tree belongs to somebody who may be writing to it: each file is opened once, and what its header promised is what
 * is sent, cut or filled with zeroes (S54, B122).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/archive.h"
#include "base/bounds.h"
#include "base/err.h"
#include "base/jobs.h"
#include "base/mem.h"
#include "base/tree.h"

enum { BLOCK = 512, BUFFER = 64 * 1024 };

struct header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100],
        magic[8];
    char uname[32], gname[32], devmajor[8], devminor[8], rest[167];
};
_Static_assert(sizeof(struct header) == BLOCK, "a tar header is one block");

/* Files with several links that were sent already: the next name is sent as a link. */
struct sent {
    dev_t dev;
    ino_t ino;
    char *path;
};

struct packer {
    const struct archive_pack *o;
    archive_sink *sink;
    void *arg;
    struct cancel *cancel;
    struct sent *sent; /* open hash, path NULL: free */
    size_t n_sent, cap_sent;
    char *buf;
};

static int put(struct packer *p, const void *data, size_t n, struct err *e)
{
    if (cancel_fired(p->cancel))
        return err_set(e, ERR_CANCELLED, "cancelled");
    return p->sink(p->arg, data, n, e);
}

static int put_padding(struct packer *p, uint64_t size, struct err *e)
{
    static const char zeroes[BLOCK];
    size_t rest = (size_t)(size % BLOCK);

    return rest ? put(p, zeroes, BLOCK - rest, e) : 0;
}

/* Octal while it fits, else base 256 with the top bit set. */
static void put_number(char *field, size_t width, uint64_t value)
{
    if (value >> (3 * (width - 1)) == 0) {
        snprintf(field, width, "%0*llo", (int)width - 1, (unsigned long long)value);
        return;
    }
    for (size_t i = width; i-- > 0; value >>= 8)
        field[i] = (char)(value & 0xff);
    field[0] = (char)0x80;
}

static int put_header(struct packer *p, const char *name, const char *link, char type,
                      const struct stat *st, uint64_t size, struct err *e)
{
    struct header h = {.magic = "ustar  ", .type = type};
    bool root = p->o && p->o->numeric_owner_root;
    unsigned sum = 0;

    memcpy(h.name, name, strnlen(name, sizeof(h.name)));
    if (link)
        memcpy(h.link, link, strnlen(link, sizeof(h.link)));
    put_number(h.mode, sizeof(h.mode), st->st_mode & 07777);
    put_number(h.uid, sizeof(h.uid), root ? 0 : st->st_uid);
    put_number(h.gid, sizeof(h.gid), root ? 0 : st->st_gid);
    put_number(h.size, sizeof(h.size), size);
    put_number(h.mtime, sizeof(h.mtime), st->st_mtime > 0 ? (uint64_t)st->st_mtime : 0);
    memset(h.checksum, ' ', sizeof(h.checksum));
    for (size_t i = 0; i < sizeof(h); i++)
        sum += ((unsigned char *)&h)[i];
    snprintf(h.checksum, sizeof(h.checksum), "%06o", sum);
    return put(p, &h, sizeof(h), e);
}

/* A name that does not fit into the header goes before it as a file of its own. */
static int put_long(struct packer *p, char type, const char *text, struct err *e)
{
    static const struct stat nothing;
    size_t n = strlen(text) + 1;

    if (n <= sizeof(((struct header *)NULL)->name))
        return 0;
    if (put_header(p, "././@LongLink", NULL, type, &nothing, n, e) < 0 || put(p, text, n, e) < 0)
        return -1;
    return put_padding(p, n, e);
}

static int put_entry(struct packer *p, const char *name, const char *link, char type,
                     const struct stat *st, uint64_t size, struct err *e)
{
    if ((link && put_long(p, 'K', link, e) < 0) || put_long(p, 'L', name, e) < 0)
        return -1;
    return put_header(p, name, link, type, st, size, e);
}

/* --- hard links -------------------------------------------------------------------------------------------------- */

static struct sent *sent_slot(struct sent *table, size_t cap, dev_t dev, ino_t ino)
{
    size_t i = (size_t)((ino ^ (uint64_t)dev << 32) * 0x9e3779b97f4a7c15ULL) & (cap - 1);

    while (table[i].path && (table[i].ino != ino || table[i].dev != dev))
        i = (i + 1) & (cap - 1);
    return &table[i];
}

static void remember(struct packer *p, const struct stat *st, const char *path)
{
    if (p->n_sent * 2 >= p->cap_sent) {
        size_t cap = p->cap_sent ? p->cap_sent * 2 : 256;
        struct sent *bigger = mem_array(cap, sizeof(*bigger));

        for (size_t i = 0; i < p->cap_sent; i++)
            if (p->sent[i].path)
                *sent_slot(bigger, cap, p->sent[i].dev, p->sent[i].ino) = p->sent[i];
        free(p->sent);
        p->sent = bigger;
        p->cap_sent = cap;
    }
    struct sent *s = sent_slot(p->sent, p->cap_sent, st->st_dev, st->st_ino);

    if (!s->path) {
        *s = (struct sent){st->st_dev, st->st_ino, mem_strdup(path)};
        p->n_sent++;
    }
}

static const char *sent_before(const struct packer *p, const struct stat *st)
{
    return p->cap_sent ? sent_slot(p->sent, p->cap_sent, st->st_dev, st->st_ino)->path : NULL;
}

/* --- entries ----------------------------------------------------------------------------------------------------- */

static int put_contents(struct packer *p, int fd, uint64_t size, struct err *e)
{
    uint64_t left = size;

    while (left) {
        size_t want = left < BUFFER ? (size_t)left : BUFFER;
        ssize_t got = read(fd, p->buf, want);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_sys(e, "read");
        if (got == 0) { /* it shrank: zeroes for what was promised */
            memset(p->buf, 0, want);
            got = (ssize_t)want;
        }
        if (put(p, p->buf, (size_t)got, e) < 0)
            return -1;
        left -= (uint64_t)got;
    }
    return put_padding(p, size, e);
}

static bool is_gone(int sys)
{
    return sys == ENOENT || sys == ELOOP || sys == ENXIO || sys == ENOTDIR || sys == ESTALE;
}

static int put_file(struct packer *p, int parent, const char *name, const char *member,
                    struct err *e)
{
    AUTO_CLOSE int fd =
        openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat st;

    if (fd < 0)
        return is_gone(errno) ? 0 : err_sys(e, "open");
    if (fstat(fd, &st) < 0)
        return err_sys(e, "stat");
    if (!S_ISREG(st.st_mode)) /* became something else since it was listed */
        return 0;
    if (st.st_nlink > 1) {
        const char *first = sent_before(p, &st);

        if (first)
            return put_entry(p, member, first, '1', &st, 0, e);
        remember(p, &st, member);
    }
    if (put_entry(p, member, NULL, '0', &st, (uint64_t)st.st_size, e) < 0)
        return -1;
    return put_contents(p, fd, (uint64_t)st.st_size, e);
}

static int put_symlink(struct packer *p, int parent, const char *name, const char *member,
                       const struct stat *st, struct err *e)
{
    char target[BOUND_LINK + 1];
    ssize_t n = readlinkat(parent, name, target, sizeof(target) - 1);

    if (n < 0)
        return is_gone(errno) || errno == EINVAL ? 0 : err_sys(e, "read link");
    target[n] = '\0';
    return put_entry(p, member, target, '2', st, 0, e);
}

static int visit(void *arg, int parent, const char *name, const char *path, const struct stat *st,
                 struct err *e)
{
    struct packer *p = arg;
    AUTO_FREE char *member = mem_printf("./%s%s", path, S_ISDIR(st->st_mode) ? "/" : "");
    AUTO_FREE char *matched = mem_strndup(member, strlen(path) + 2);

    if ((p->o && p->o->skip_top && str_list_has(p->o->skip_top, path)) ||
        (p->o && archive_excluded(p->o->exclude, matched)))
        return 1;
    switch (st->st_mode & S_IFMT) {
    case S_IFDIR: return put_entry(p, member, NULL, '5', st, 0, e);
    case S_IFREG: return put_file(p, parent, name, member, e);
    case S_IFLNK: return put_symlink(p, parent, name, member, st, e);
    case S_IFIFO: return put_entry(p, member, NULL, '6', st, 0, e);
    default: return 0; /* sockets and devices mean nothing elsewhere */
    }
}

static void free_packer(struct packer *p)
{
    for (size_t i = 0; i < p->cap_sent; i++)
        free(p->sent[i].path);
    free(p->sent);
    free(p->buf);
}

int archive_pack_tar(int dirfd, const struct archive_pack *o, archive_sink *sink, void *arg,
                     struct cancel *cancel, struct err *e)
{
    static const char end[2 * BLOCK];
    struct packer p = {
        .o = o, .sink = sink, .arg = arg, .cancel = cancel, .buf = mem_alloc(BUFFER)};
    struct stat st;
    int rc = fstat(dirfd, &st) < 0 ? err_sys(e, "stat") : put_entry(&p, "./", NULL, '5', &st, 0, e);

    if (rc == 0)
        rc = tree_walk(dirfd, visit, &p, cancel, e);
    if (rc == 0)
        rc = put(&p, end, sizeof(end), e);
    free_packer(&p);
    return rc;
}
