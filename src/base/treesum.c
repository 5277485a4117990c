/*
 * Each part is hashed alone and the hashes are added: addition forgets the order. Names of one inode are
 * counted each, its content once, so a walk remembers the inodes that have more than one name.
 */
#include "base/treesum.h"

#include <errno.h>
#include <fcntl.h>
#include <isa-l/crc.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/jobs.h"
#include "base/mem.h"
#include "base/tree.h"

enum { READ_BUFFER = 256 * 1024 };
enum { KIND_NAME = 1, KIND_FILE, KIND_LINK, KIND_NODE };
/* CRC-32C, bits reflected. */
#define POLYNOMIAL 0x82f63b78U
#define X_TO_8     (1U << (31 - 8))

/* splitmix64's end: every bit of the input moves every bit of the result. */
static uint64_t mix(uint64_t v)
{
    v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9U;
    v = (v ^ (v >> 27)) * 0x94d049bb133111ebU;
    return v ^ (v >> 31);
}

static void add(struct treesum *s, unsigned kind, const uint64_t *words, size_t n)
{
    uint64_t h = mix(kind);

    for (size_t i = 0; i < n; i++)
        h = mix(h ^ words[i]) + i;
    s->sum += mix(h);
}

static uint64_t of_text(const char *text)
{
    size_t n = strlen(text);
    uint64_t crc = treesum_crc(TREESUM_CRC, text, n);

    return crc << 32 ^ n ^ (uint64_t)(unsigned char)*text << 24;
}

void treesum_name(struct treesum *s, const char *name)
{
    add(s, KIND_NAME, (uint64_t[]){of_text(name)}, 1);
    s->entries++;
}

void treesum_file(struct treesum *s, mode_t mode, uid_t uid, gid_t gid, uint64_t size, uint32_t crc)
{
    add(s, KIND_FILE, (uint64_t[]){mode & 07777, (uint64_t)uid << 32 | gid, size, crc}, 4);
}

void treesum_link(struct treesum *s, const char *target)
{
    add(s, KIND_LINK, (uint64_t[]){of_text(target)}, 1);
}

void treesum_node(struct treesum *s, mode_t mode, dev_t rdev)
{
    add(s, KIND_NODE, (uint64_t[]){mode, rdev}, 2);
}

uint32_t treesum_crc(uint32_t crc, const void *data, size_t n)
{
    const unsigned char *p = data;

    while (n) {
        int part = n > INT_MAX / 2 ? INT_MAX / 2 : (int)n;

        crc = crc32_iscsi((unsigned char *)p, part, crc);
        p += part;
        n -= (size_t)part;
    }
    return crc;
}

/* Product of two polynomials modulo CRC-32C's; bit 31 is the coefficient of 1. */
static uint32_t product(uint32_t a, uint32_t b)
{
    uint32_t p = 0;

    for (uint32_t bit = 1U << 31; bit; bit >>= 1) {
        if (a & bit)
            p ^= b;
        b = b & 1 ? (b >> 1) ^ POLYNOMIAL : b >> 1;
    }
    return p;
}

/* A zero byte multiplies the remainder by x^8. */
uint32_t treesum_crc_zeros(uint32_t crc, uint64_t n)
{
    for (uint32_t power = X_TO_8; n; n >>= 1) {
        if (n & 1)
            crc = product(power, crc);
        power = product(power, power);
    }
    return crc;
}

/* ---- of a tree ---- */

struct inodes { /* open addressing; 0 is free */
    uint64_t *slots;
    size_t n, cap;
};

struct walk {
    struct treesum sum;
    struct inodes seen;
    struct cancel *cancel;
    unsigned char *buf;
};

static bool insert(struct inodes *t, uint64_t ino)
{
    size_t i = mix(ino) & (t->cap - 1);

    for (; t->slots[i]; i = (i + 1) & (t->cap - 1))
        if (t->slots[i] == ino)
            return false;
    t->slots[i] = ino;
    t->n++;
    return true;
}

/* True the first time. */
static bool is_new(struct inodes *t, uint64_t ino)
{
    if (2 * t->n >= t->cap) {
        struct inodes larger = {.cap = t->cap ? 2 * t->cap : 1024};

        larger.slots = mem_array(larger.cap, sizeof(*larger.slots));
        for (size_t i = 0; i < t->cap; i++)
            if (t->slots[i])
                insert(&larger, t->slots[i]);
        free(t->slots);
        *t = larger;
    }
    return insert(t, ino);
}

/* From `at` up to `end`, which may come earlier. */
static int read_piece(struct walk *w, int fd, uint64_t at, uint64_t end, uint32_t *crc,
                      struct err *e)
{
    while (at < end) {
        uint64_t want = end - at < READ_BUFFER ? end - at : READ_BUFFER;
        ssize_t n = pread(fd, w->buf, want, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "read");
        if (n == 0)
            return err_set(e, ERR_HOST, "ends early");
        if (cancel_fired(w->cancel))
            return err_set(e, ERR_CANCELLED, "cancelled");
        *crc = treesum_crc(*crc, w->buf, (size_t)n);
        at += (uint64_t)n;
    }
    return 0;
}

static int read_file(struct walk *w, int parent, const char *name, const struct stat *st,
                     struct err *e)
{
    AUTO_CLOSE int fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    uint64_t size = (uint64_t)st->st_size, at = 0;
    uint32_t crc = TREESUM_CRC;

    if (fd < 0)
        return err_sys(e, "open");
    while (at < size) {
        off_t data = lseek(fd, (off_t)at, SEEK_DATA);
        off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
        uint64_t from = data < 0 ? size : (uint64_t)data, to = hole < 0 ? size : (uint64_t)hole;

        if (data < 0 && errno != ENXIO)
            from = at; /* a file system that does not tell holes */
        crc = treesum_crc_zeros(crc, from - at);
        if (read_piece(w, fd, from, to, &crc, e) < 0)
            return -1;
        at = to;
    }
    treesum_file(&w->sum, st->st_mode, st->st_uid, st->st_gid, size, crc);
    return 0;
}

static int visit(void *arg, int parent, const char *name, const char *path, const struct stat *st,
                 struct err *e)
{
    struct walk *w = arg;
    char target[PATH_MAX];
    ssize_t n;

    treesum_name(&w->sum, name);
    if (S_ISDIR(st->st_mode) || (st->st_nlink > 1 && !is_new(&w->seen, st->st_ino)))
        return 0;
    if (S_ISREG(st->st_mode))
        return read_file(w, parent, name, st, e) < 0 ? err_wrap(e, "%s", path) : 0;
    if (!S_ISLNK(st->st_mode)) {
        treesum_node(&w->sum, st->st_mode, st->st_rdev);
        return 0;
    }
    n = readlinkat(parent, name, target, sizeof(target) - 1);
    if (n < 0)
        return err_sys(e, "%s", path);
    target[n] = '\0';
    treesum_link(&w->sum, target);
    return 0;
}

int treesum_of(int dirfd, struct cancel *cancel, struct treesum *ret, struct err *e)
{
    AUTO_FREE unsigned char *buf = mem_alloc(READ_BUFFER);
    struct walk w = {.cancel = cancel, .buf = buf};
    int rc = tree_walk(dirfd, visit, &w, cancel, e);

    free(w.seen.slots);
    if (rc == 0)
        *ret = w.sum;
    return rc;
}

void treesum_text(const struct treesum *s, char ret[TREESUM_TEXT_MAX])
{
    snprintf(ret, TREESUM_TEXT_MAX, "%016llx-%llu", (unsigned long long)s->sum,
             (unsigned long long)s->entries);
}
