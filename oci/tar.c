/*
 * The parser is a small machine that is always waiting for one thing: a header block, the body of an
 * extended header, a block of a sparse map, file data, or padding. Headers that lie whole in the fed
 * buffer are read where they are; data is passed on where it is.
 */
#include "oci/tar.h"

#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "oci/tar_pax.h"

enum { BLOCK = 512 };

enum tar_state {
    IN_HEADER,    /* collecting a header block */
    IN_EXTENSION, /* body of x, L or K */
    IN_SKIPPED,   /* body of g: not looked at */
    IN_GNU_MAP,   /* old GNU: further blocks of the sparse map */
    IN_PAX_MAP,   /* PAX 1.0: the map before the data */
    IN_DATA,
    IN_PADDING,
    ENDED, /* two zero blocks: what follows is no concern of tar */
};

struct tar {
    const struct tar_ops *ops;
    void *arg;
    enum tar_state state;
    unsigned char block[BLOCK];
    size_t have; /* of block */
    bool zero_seen;
    uint64_t fed;
    bool amid; /* an entry has begun, perhaps by a header that belongs to it */

    char kind;       /* x, L, K while IN_EXTENSION */
    struct str body; /* of an extension, or of a PAX map */
    uint64_t left;   /* bytes of body, data or skipped still to come */
    unsigned padding;

    struct tar_ext ext;
    struct tar_entry entry;
    char name[256 + 1], linkname[100 + 1];
    uint64_t stored; /* data bytes of the entry in the archive */
    size_t piece;    /* of the sparse map */
    uint64_t at;     /* offset in the unpacked file */
    uint64_t piece_left;
    /* PAX 1.0: place in the body, numbers seen and wanted, offset that waits for its length. */
    size_t map_at;
    uint64_t map_seen, map_want, map_offset;
};

/* Field of a header block. */
struct field {
    unsigned at, n;
};
static const struct field F_NAME = {0, 100}, F_MODE = {100, 8}, F_UID = {108, 8}, F_GID = {116, 8},
                          F_SIZE = {124, 12}, F_MTIME = {136, 12}, F_SUM = {148, 8},
                          F_LINK = {157, 100}, F_MAJOR = {329, 8}, F_MINOR = {337, 8},
                          F_PREFIX = {345, 155}, F_STAR_PREFIX = {345, 131},
                          F_REAL_SIZE = {483, 12};
enum { AT_TYPE = 156, AT_MAGIC = 257, AT_GNU_MAP = 386, AT_GNU_MORE = 482, AT_STAR_TAIL = 508 };

struct tar *tar_new(const struct tar_ops *ops, void *arg)
{
    struct tar *t = mem_new(struct tar);

    t->ops = ops;
    t->arg = arg;
    t->body = STR_INIT(BOUND_PAX_HEADER);
    return t;
}

void tar_begin_at(struct tar *t, uint64_t offset)
{
    t->fed = offset;
}

void tar_free(struct tar *t)
{
    if (!t)
        return;
    tar_ext_reset(&t->ext);
    str_free(&t->body);
    free(t);
}

static int not_valid(struct err *e, const char *what)
{
    return err_set(e, ERR_USER, "not a valid tar: %s", what);
}

/* Two's complement over the whole field, the top bit of the first byte being the mark. */
static bool base256(const unsigned char *p, unsigned n, int64_t *ret)
{
    bool minus = p[0] & 0x40;
    uint64_t v = minus ? UINT64_MAX : 0;

    for (unsigned i = 0; i < n; i++) {
        unsigned char c = i ? p[i] : (unsigned char)((p[0] & 0x3f) | (minus ? 0xc0 : 0));

        if ((v >> 55) != (minus ? 0x1ff : 0))
            return false;
        v = v << 8 | c;
    }
    *ret = (int64_t)v;
    return true;
}

/* Octal between blanks and NULs, or base-256. */
static int number(const unsigned char *block, struct field f, int64_t min, int64_t max,
                  int64_t *ret, struct err *e)
{
    const unsigned char *p = block + f.at, *end = p + f.n;
    int64_t v = 0;

    if (*p & 0x80) {
        if (!base256(p, f.n, &v))
            return not_valid(e, "number out of range");
    } else {
        while (p < end && (*p == ' ' || *p == '\0'))
            p++;
        for (; p < end && *p >= '0' && *p <= '7'; p++)
            v = v * 8 + (*p - '0'); /* at most 12 digits: 36 bits */
        for (; p < end; p++)
            if (*p != ' ' && *p != '\0')
                return not_valid(e, "a number that is not octal");
    }
    if (v < min || v > max)
        return not_valid(e, "number out of range");
    *ret = v;
    return 0;
}

static bool checksum_is_right(const unsigned char *b)
{
    int64_t want;
    int64_t plain = 0, with_signs = 0; /* some old writers summed signed chars */
    struct err ignored;

    for (unsigned i = 0; i < BLOCK; i++) {
        unsigned char c = i >= F_SUM.at && i < F_SUM.at + F_SUM.n ? ' ' : b[i];

        plain += c;
        with_signs += (signed char)c;
    }
    return number(b, F_SUM, 0, INT64_MAX, &want, &ignored) == 0 &&
           (want == plain || want == with_signs);
}

static size_t field_len(const unsigned char *b, struct field f)
{
    return strnlen((const char *)b + f.at, f.n);
}

static void read_names(struct tar *t, const unsigned char *b)
{
    struct field prefix = F_PREFIX;
    size_t n = field_len(b, F_NAME), at = 0;

    if (memcmp(b + AT_MAGIC, "ustar\0", 6) != 0)
        prefix.n = 0;
    else if (memcmp(b + AT_STAR_TAIL, "tar\0", 4) == 0)
        prefix = F_STAR_PREFIX;
    if (prefix.n && (at = field_len(b, prefix))) {
        memcpy(t->name, b + prefix.at, at);
        t->name[at++] = '/';
    }
    memcpy(t->name + at, b + F_NAME.at, n);
    t->name[at + n] = '\0';
    n = field_len(b, F_LINK);
    memcpy(t->linkname, b + F_LINK.at, n);
    t->linkname[n] = '\0';
}

static int type_of(char flag, const char *path, enum tar_type *ret, struct err *e)
{
    size_t n = strlen(path);

    switch (flag) {
    case '\0':
    case '0':
    case '7':
    case 'S':
        /* V7 had no directories but by this slash. */
        *ret = n && path[n - 1] == '/' && flag != 'S' ? TAR_DIR : TAR_FILE;
        return 0;
    case '1': *ret = TAR_HARDLINK; return 0;
    case '2': *ret = TAR_SYMLINK; return 0;
    case '3': *ret = TAR_CHAR; return 0;
    case '4': *ret = TAR_BLOCK; return 0;
    case '5': *ret = TAR_DIR; return 0;
    case '6': *ret = TAR_FIFO; return 0;
    default: return err_set(e, ERR_USER, "tar entry of unknown type 0x%02x", (unsigned char)flag);
    }
}

static int read_numbers(struct tar *t, const unsigned char *b, struct err *e)
{
    struct tar_entry *d = &t->entry;
    const struct tar_ext *x = &t->ext;
    int64_t mode, uid, gid, mtime, major = 0, minor = 0;

    if (number(b, F_MODE, 0, INT64_MAX, &mode, e) < 0 ||
        number(b, F_MTIME, INT64_MIN / 2, INT64_MAX / 2, &mtime, e) < 0)
        return -1;
    if (number(b, F_UID, 0, x->has_uid ? INT64_MAX : UINT32_MAX - 1, &uid, e) < 0 ||
        number(b, F_GID, 0, x->has_gid ? INT64_MAX : UINT32_MAX - 1, &gid, e) < 0)
        return -1;
    if ((d->type == TAR_CHAR || d->type == TAR_BLOCK) &&
        (number(b, F_MAJOR, 0, 0xfff, &major, e) < 0 ||
         number(b, F_MINOR, 0, 0xfffff, &minor, e) < 0))
        return -1;
    if ((x->has_uid && x->uid >= UINT32_MAX) || (x->has_gid && x->gid >= UINT32_MAX))
        return not_valid(e, "owner out of range");
    d->mode = (uint32_t)mode & 07777;
    d->uid = (uint32_t)(x->has_uid ? x->uid : (uint64_t)uid);
    d->gid = (uint32_t)(x->has_gid ? x->gid : (uint64_t)gid);
    d->mtime = x->has_mtime ? x->mtime : (struct timespec){.tv_sec = mtime};
    d->major = (uint32_t)major;
    d->minor = (uint32_t)minor;
    return 0;
}

static int begin_entry(struct tar *t, struct err *e)
{
    t->entry.xattrs = t->ext.xattrs;
    t->entry.n_xattrs = t->ext.n_xattrs;
    if (t->ops->entry(t->arg, &t->entry, e) < 0)
        return -1;
    t->piece = 0;
    t->at = t->piece_left = 0;
    t->left = t->stored;
    t->state = IN_DATA;
    return 0;
}

/* Sparse and plain files alike: the map of a plain file is one piece. */
static int begin_data(struct tar *t, struct err *e)
{
    struct tar_ext *x = &t->ext;

    if (!x->sparse) {
        if (tar_ext_piece(x, 0, t->stored, e) < 0)
            return -1;
    } else if (x->sparse_offset_open || tar_ext_check_map(x, t->entry.size, t->stored, e) < 0) {
        return x->sparse_offset_open ? not_valid(e, "half a sparse map") : -1;
    }
    return begin_entry(t, e);
}

/* Pairs of offset and length in a block of the old GNU map; an empty offset field ends it. */
static int gnu_pairs(struct tar *t, const unsigned char *b, unsigned at, unsigned pairs,
                     struct err *e)
{
    for (unsigned i = 0; i < pairs; i++) {
        struct field off = {at + i * 24, 12}, len = {at + i * 24 + 12, 12};
        int64_t o, n;

        if (!b[off.at])
            return 0;
        if (number(b, off, 0, INT64_MAX, &o, e) < 0 || number(b, len, 0, INT64_MAX, &n, e) < 0 ||
            tar_ext_piece(&t->ext, (uint64_t)o, (uint64_t)n, e) < 0)
            return -1;
    }
    return 0;
}

static int begin_gnu_sparse(struct tar *t, const unsigned char *b, struct err *e)
{
    int64_t real;

    tar_ext_drop_map(&t->ext);
    if (number(b, F_REAL_SIZE, 0, INT64_MAX, &real, e) < 0 || gnu_pairs(t, b, AT_GNU_MAP, 4, e) < 0)
        return -1;
    t->ext.sparse = true;
    t->entry.size = (uint64_t)real;
    if (!b[AT_GNU_MORE])
        return begin_data(t, e);
    t->state = IN_GNU_MAP;
    return 0;
}

static int on_gnu_map(struct tar *t, const unsigned char *b, struct err *e)
{
    if (gnu_pairs(t, b, 0, 21, e) < 0)
        return -1;
    return b[504] ? 0 : begin_data(t, e);
}

/* One block of a PAX 1.0 map: numbers a line, the first being the count of pairs. */
static int on_pax_map(struct tar *t, const unsigned char *b, struct err *e)
{
    if (t->stored < BLOCK)
        return not_valid(e, "sparse map cut off");
    t->stored -= BLOCK;
    if (str_append(&t->body, b, BLOCK) < 0)
        return err_set(e, ERR_LIMIT, "sparse map above %llu bytes", BOUND_PAX_HEADER);

    const char *nl;
    uint64_t v;

    while ((nl = memchr(t->body.buf + t->map_at, '\n', t->body.len - t->map_at))) {
        const char *p = t->body.buf + t->map_at;

        if (!tar_digits(p, (size_t)(nl - p), &v))
            return not_valid(e, "sparse map");
        if (t->map_seen == 0 && v > BOUND_TAR_SPARSE)
            return err_set(e, ERR_LIMIT, "sparse file of more than %d pieces", BOUND_TAR_SPARSE);
        if (t->map_seen == 0)
            t->map_want = 1 + 2 * v;
        else if (t->map_seen % 2)
            t->map_offset = v;
        else if (tar_ext_piece(&t->ext, t->map_offset, v, e) < 0)
            return -1;
        t->map_at += (size_t)(nl - p) + 1;
        if (++t->map_seen == t->map_want)
            return begin_data(t, e);
    }
    return t->body.len - t->map_at > 32 ? not_valid(e, "sparse map") : 0;
}

static int begin_extension(struct tar *t, char kind, uint64_t size, struct err *e)
{
    if (size > BOUND_PAX_HEADER)
        return err_set(e, ERR_LIMIT, "extended tar header above %llu bytes", BOUND_PAX_HEADER);
    str_clear(&t->body);
    t->kind = kind;
    t->amid = t->amid || kind != 'g';
    t->left = size;
    t->padding = (unsigned)(-size & (BLOCK - 1));
    t->state = kind == 'g' ? IN_SKIPPED : IN_EXTENSION;
    return 0;
}

static int end_extension(struct tar *t, struct err *e)
{
    size_t n = strnlen(str_text(&t->body), t->body.len);

    if (t->kind == 'x')
        return tar_ext_records(&t->ext, str_text(&t->body), t->body.len, e);
    if (n >= BOUND_PATH)
        return err_set(e, ERR_LIMIT, "name above %d bytes", BOUND_PATH - 1);
    char **slot = t->kind == 'L' ? &t->ext.long_path : &t->ext.long_link;

    free(*slot);
    *slot = mem_strndup(str_text(&t->body), n);
    return 0;
}

static const char *first_of(const char *a, const char *b, const char *c, const char *d)
{
    return a ? a : b ? b : c ? c : d;
}

static int on_entry_header(struct tar *t, const unsigned char *b, uint64_t size, struct err *e)
{
    struct tar_ext *x = &t->ext;
    char flag = (char)b[AT_TYPE];
    bool sparse_pax = x->sparse;

    t->amid = true;
    read_names(t, b);
    t->entry = (struct tar_entry){0};
    t->entry.path = first_of(x->sparse_name, x->path, x->long_path, t->name);
    t->entry.link = first_of(NULL, x->link, x->long_link, t->linkname);
    if (type_of(flag, t->entry.path, &t->entry.type, e) < 0 || read_numbers(t, b, e) < 0)
        return -1;
    if (t->entry.type != TAR_SYMLINK && t->entry.type != TAR_HARDLINK)
        t->entry.link = "";
    /* Only files have data, whatever the size field of others says (Go's reader does the same). */
    t->stored = t->entry.type == TAR_FILE ? size : 0;
    t->entry.size = sparse_pax && x->has_real_size ? x->real_size : t->stored;
    t->padding = (unsigned)(-t->stored & (BLOCK - 1));
    if (t->entry.type != TAR_FILE) {
        x->sparse = false; /* a map makes no holes in what is no file */
        tar_ext_drop_map(x);
        return begin_data(t, e);
    }
    if (flag == 'S')
        return begin_gnu_sparse(t, b, e);
    if (sparse_pax && x->sparse_major == 1) {
        str_clear(&t->body);
        t->map_at = 0;
        t->map_seen = t->map_want = t->map_offset = 0;
        tar_ext_drop_map(x);
        t->state = IN_PAX_MAP;
        return 0;
    }
    return begin_data(t, e);
}

static int on_header(struct tar *t, const unsigned char *b, struct err *e)
{
    static const unsigned char zero[BLOCK];
    int64_t size;

    if (!b[0] && !memcmp(b, zero, BLOCK)) {
        t->state = t->zero_seen ? ENDED : IN_HEADER;
        t->zero_seen = true;
        return 0;
    }
    if (t->zero_seen)
        return not_valid(e, "a lone zero block");
    if (!checksum_is_right(b))
        return not_valid(e, "wrong header checksum");
    if (number(b, F_SIZE, 0, INT64_MAX, &size, e) < 0)
        return -1;
    switch (b[AT_TYPE]) {
    case 'x':
    case 'X': return begin_extension(t, 'x', (uint64_t)size, e);
    case 'g':
    case 'L':
    case 'K': return begin_extension(t, (char)b[AT_TYPE], (uint64_t)size, e);
    default: break;
    }
    if (t->ext.has_size)
        size = (int64_t)t->ext.size;
    if (size < 0 || (uint64_t)size > BOUND_UNPACKED)
        return err_set(e, ERR_LIMIT, "tar entry above %llu bytes", BOUND_UNPACKED);
    return on_entry_header(t, b, (uint64_t)size, e);
}

static int on_block(struct tar *t, const unsigned char *b, struct err *e)
{
    switch (t->state) {
    case IN_GNU_MAP: return on_gnu_map(t, b, e);
    case IN_PAX_MAP: return on_pax_map(t, b, e);
    default: return on_header(t, b, e);
    }
}

/* Up to n bytes of file data. Returns the count used, -1 with e. */
static ssize_t on_data(struct tar *t, const unsigned char *data, size_t n, struct err *e)
{
    const struct tar_ext *x = &t->ext;

    while (!t->piece_left && t->piece < x->n_map) {
        const struct tar_piece *p = &x->map[t->piece++];

        if (p->offset > t->at && t->ops->hole(t->arg, p->offset - t->at, e) < 0)
            return -1;
        t->at = p->offset;
        t->piece_left = p->n;
    }
    if (n > t->piece_left)
        n = (size_t)t->piece_left;
    if (n && t->ops->data(t->arg, data, n, e) < 0)
        return -1;
    t->at += n;
    t->piece_left -= n;
    t->left -= n;
    return (ssize_t)n;
}

static int end_data(struct tar *t, struct err *e)
{
    if (t->entry.type == TAR_FILE) {
        if (t->entry.size > t->at && t->ops->hole(t->arg, t->entry.size - t->at, e) < 0)
            return -1;
        if (t->ops->end(t->arg, e) < 0)
            return -1;
    }
    tar_ext_reset(&t->ext);
    t->state = IN_PADDING;
    t->amid = false;
    return 0;
}

/* Whatever can go on without more input. */
static int settle(struct tar *t, struct err *e)
{
    if (t->state == IN_EXTENSION && !t->left) {
        if (end_extension(t, e) < 0)
            return -1;
        t->state = IN_PADDING;
    }
    if (t->state == IN_SKIPPED && !t->left)
        t->state = IN_PADDING;
    if (t->state == IN_DATA && !t->left && (on_data(t, NULL, 0, e) < 0 || end_data(t, e) < 0))
        return -1;
    if (t->state == IN_PADDING && !t->padding)
        t->state = IN_HEADER;
    return 0;
}

static size_t at_most(size_t n, uint64_t limit)
{
    return n < limit ? n : (size_t)limit;
}

static ssize_t take_block(struct tar *t, const unsigned char *data, size_t n, struct err *e)
{
    if (!t->have && n >= BLOCK)
        return on_block(t, data, e) < 0 ? -1 : BLOCK;
    size_t part = at_most(n, BLOCK - t->have);

    memcpy(t->block + t->have, data, part);
    t->have += part;
    if (t->have == BLOCK) {
        t->have = 0;
        if (on_block(t, t->block, e) < 0)
            return -1;
    }
    return (ssize_t)part;
}

static ssize_t take(struct tar *t, const unsigned char *data, size_t n, struct err *e)
{
    size_t part = at_most(n, t->left);

    switch (t->state) {
    case IN_EXTENSION:
        if (str_append(&t->body, data, part) < 0)
            return err_set(e, ERR_LIMIT, "extended tar header too large");
        t->left -= part;
        return (ssize_t)part;
    case IN_SKIPPED: t->left -= part; return (ssize_t)part;
    case IN_DATA: return on_data(t, data, part, e);
    case IN_PADDING:
        part = at_most(n, t->padding);
        t->padding -= (unsigned)part;
        return (ssize_t)part;
    case ENDED: return (ssize_t)n;
    default: return take_block(t, data, n, e);
    }
}

int tar_feed(struct tar *t, const void *data, size_t n, struct err *e)
{
    const unsigned char *p = data;

    while (n) {
        ssize_t used = take(t, p, n, e);

        if (used < 0 || settle(t, e) < 0)
            return -1;
        p += used;
        n -= (size_t)used;
        t->fed += (uint64_t)used;
        if (t->ops->between && t->state == IN_HEADER && !t->have && !t->amid && !t->zero_seen &&
            t->ops->between(t->arg, t->fed, e) < 0)
            return -1;
    }
    return 0;
}

int tar_finish(struct tar *t, struct err *e)
{
    bool after_extension = t->ext.path || t->ext.long_path || t->ext.n_xattrs || t->ext.sparse;

    if (t->state == ENDED || (t->state == IN_HEADER && !t->have && !after_extension))
        return 0;
    return not_valid(e, "ends in the middle of an entry");
}
