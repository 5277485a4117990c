#include "oci/tar_pax.h"

#include <string.h>
#include <linux/limits.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

void tar_ext_reset(struct tar_ext *x)
{
    free(x->path);
    free(x->link);
    free(x->long_path);
    free(x->long_link);
    free(x->sparse_name);
    for (size_t i = 0; i < x->n_xattrs; i++) {
        free(x->xattrs[i].name);
        free(x->xattrs[i].value);
    }
    free(x->xattrs);
    free(x->map);
    *x = (struct tar_ext){0};
}

bool tar_digits(const char *text, size_t n, uint64_t *ret)
{
    uint64_t v = 0;

    if (!n)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(text[i] - '0'), &v))
            return false;
    }
    *ret = v;
    return true;
}

/* "[-]seconds[.fraction]"; the fraction is cut to nanoseconds. */
static bool parse_time(const char *text, size_t n, struct timespec *ret)
{
    bool minus = n && *text == '-';
    uint64_t s, ns = 0;

    if (minus)
        text++, n--;
    const char *dot = memchr(text, '.', n);
    size_t whole = dot ? (size_t)(dot - text) : n;

    if (!tar_digits(text, whole, &s) || s > INT64_MAX / 2)
        return false;
    if (dot) {
        size_t digits = n - whole - 1;

        for (size_t i = 0; i < digits; i++)
            if (dot[1 + i] < '0' || dot[1 + i] > '9')
                return false;
        for (size_t i = 0; i < 9; i++)
            ns = ns * 10 + (i < digits ? (uint64_t)(dot[1 + i] - '0') : 0);
    }
    ret->tv_sec = minus ? -(time_t)s : (time_t)s;
    ret->tv_nsec = (long)ns;
    if (minus && ns) {
        ret->tv_sec--;
        ret->tv_nsec = 1000000000L - (long)ns;
    }
    return true;
}

void tar_ext_drop_map(struct tar_ext *x)
{
    free(x->map);
    x->map = NULL;
    x->n_map = 0;
    x->sparse_offset_open = false;
}

int tar_ext_piece(struct tar_ext *x, uint64_t offset, uint64_t n, struct err *e)
{
    if (x->n_map >= BOUND_TAR_SPARSE)
        return err_set(e, ERR_LIMIT, "sparse file of more than %d pieces", BOUND_TAR_SPARSE);
    if ((x->n_map & (x->n_map - 1)) == 0)
        x->map = mem_realloc(x->map, x->n_map ? x->n_map * 2 : 1, sizeof(*x->map));
    x->map[x->n_map++] = (struct tar_piece){offset, n};
    return 0;
}

int tar_ext_check_map(const struct tar_ext *x, uint64_t real_size, uint64_t stored, struct err *e)
{
    uint64_t at = 0, sum = 0;

    for (size_t i = 0; i < x->n_map; i++) {
        const struct tar_piece *p = &x->map[i];
        uint64_t end;

        if (p->offset < at || __builtin_add_overflow(p->offset, p->n, &end) || end > real_size)
            return err_set(e, ERR_USER, "sparse map out of order or beyond the file's end");
        at = end;
        sum += p->n;
    }
    if (sum != stored)
        return err_set(e, ERR_USER, "sparse map of %llu bytes over %llu stored",
                       (unsigned long long)sum, (unsigned long long)stored);
    return 0;
}

struct record {
    const char *key, *value;
    size_t key_n, n;
};

typedef int record_fn(struct tar_ext *x, const struct record *r, struct err *e);

static int bad(const struct record *r, struct err *e)
{
    char shown[STR_SHOW_MAX];

    return err_set(e, ERR_USER, "PAX record %s: not valid",
                   str_escape(shown, sizeof(shown), r->key, r->key_n));
}

static int take_text(char **slot, const struct record *r, struct err *e)
{
    if (memchr(r->value, '\0', r->n))
        return bad(r, e);
    if (r->n >= BOUND_PATH)
        return err_set(e, ERR_LIMIT, "name above %d bytes", BOUND_PATH - 1);
    free(*slot);
    *slot = r->n ? mem_strndup(r->value, r->n) : NULL; /* an empty value takes the override back */
    return 0;
}

static int take_number(bool *has, uint64_t *slot, const struct record *r, struct err *e)
{
    *has = r->n != 0;
    return !r->n || tar_digits(r->value, r->n, slot) ? 0 : bad(r, e);
}

static int on_path(struct tar_ext *x, const struct record *r, struct err *e)
{
    return take_text(&x->path, r, e);
}

static int on_link(struct tar_ext *x, const struct record *r, struct err *e)
{
    return take_text(&x->link, r, e);
}

static int on_size(struct tar_ext *x, const struct record *r, struct err *e)
{
    return take_number(&x->has_size, &x->size, r, e);
}

static int on_uid(struct tar_ext *x, const struct record *r, struct err *e)
{
    return take_number(&x->has_uid, &x->uid, r, e);
}

static int on_gid(struct tar_ext *x, const struct record *r, struct err *e)
{
    return take_number(&x->has_gid, &x->gid, r, e);
}

static int on_mtime(struct tar_ext *x, const struct record *r, struct err *e)
{
    x->has_mtime = r->n != 0;
    return !r->n || parse_time(r->value, r->n, &x->mtime) ? 0 : bad(r, e);
}

static int on_sparse_name(struct tar_ext *x, const struct record *r, struct err *e)
{
    x->sparse = true;
    return take_text(&x->sparse_name, r, e);
}

static int on_sparse_size(struct tar_ext *x, const struct record *r, struct err *e)
{
    x->sparse = true;
    return take_number(&x->has_real_size, &x->real_size, r, e);
}

static int on_sparse_major(struct tar_ext *x, const struct record *r, struct err *e)
{
    bool has;

    x->sparse = true;
    if (take_number(&has, &x->sparse_major, r, e) < 0)
        return -1;
    return x->sparse_major <= 1 ? 0 : bad(r, e);
}

static int on_sparse_offset(struct tar_ext *x, const struct record *r, struct err *e)
{
    uint64_t offset;

    if (x->sparse_offset_open || !tar_digits(r->value, r->n, &offset))
        return bad(r, e);
    x->sparse = x->sparse_offset_open = true;
    return tar_ext_piece(x, offset, 0, e);
}

static int on_sparse_numbytes(struct tar_ext *x, const struct record *r, struct err *e)
{
    if (!x->sparse_offset_open || !tar_digits(r->value, r->n, &x->map[x->n_map - 1].n))
        return bad(r, e);
    x->sparse_offset_open = false;
    return 0;
}

/* "offset,size,offset,size…" */
static int on_sparse_map(struct tar_ext *x, const struct record *r, struct err *e)
{
    const char *p = r->value, *end = r->value + r->n;
    uint64_t pair[2];

    x->sparse = true;
    tar_ext_drop_map(x);
    for (int i = 0; p < end; i ^= 1) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        const char *stop = comma ? comma : end;

        if (!tar_digits(p, (size_t)(stop - p), &pair[i]) || (!comma && i == 0))
            return bad(r, e);
        if (i == 1 && tar_ext_piece(x, pair[0], pair[1], e) < 0)
            return -1;
        p = comma ? comma + 1 : end;
    }
    return 0;
}

static const struct key {
    const char *name;
    record_fn *fn;
} keys[] = {
    {"path", on_path},
    {"linkpath", on_link},
    {"size", on_size},
    {"uid", on_uid},
    {"gid", on_gid},
    {"mtime", on_mtime},
    {"GNU.sparse.name", on_sparse_name},
    {"GNU.sparse.size", on_sparse_size},
    {"GNU.sparse.realsize", on_sparse_size},
    {"GNU.sparse.major", on_sparse_major},
    {"GNU.sparse.offset", on_sparse_offset},
    {"GNU.sparse.numbytes", on_sparse_numbytes},
    {"GNU.sparse.map", on_sparse_map},
};

#define XATTR_PREFIX "SCHILY.xattr."

static int take_xattr(struct tar_ext *x, const struct record *r, struct err *e)
{
    size_t skip = strlen(XATTR_PREFIX);

    if (r->key_n == skip || r->key_n - skip > XATTR_NAME_MAX || memchr(r->key, '\0', r->key_n))
        return bad(r, e);
    if (r->n > XATTR_SIZE_MAX || x->n_xattrs >= BOUND_TAR_XATTRS)
        return err_set(e, ERR_LIMIT, "too many or too large extended attributes");
    if ((x->n_xattrs & (x->n_xattrs - 1)) == 0)
        x->xattrs = mem_realloc(x->xattrs, x->n_xattrs ? x->n_xattrs * 2 : 1, sizeof(*x->xattrs));
    x->xattrs[x->n_xattrs++] = (struct tar_xattr){mem_strndup(r->key + skip, r->key_n - skip),
                                                  mem_dup(r->value, r->n), r->n};
    return 0;
}

static int take_record(struct tar_ext *x, const struct record *r, struct err *e)
{
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        if (strlen(keys[i].name) == r->key_n && !memcmp(keys[i].name, r->key, r->key_n))
            return keys[i].fn(x, r, e);
    if (r->key_n >= strlen(XATTR_PREFIX) && !memcmp(r->key, XATTR_PREFIX, strlen(XATTR_PREFIX)))
        return take_xattr(x, r, e);
    return 0;
}

int tar_ext_records(struct tar_ext *x, const char *data, size_t n, struct err *e)
{
    while (n) {
        const char *space = memchr(data, ' ', n > 20 ? 20 : n);
        uint64_t len;

        if (!space || !tar_digits(data, (size_t)(space - data), &len) || len > n ||
            len < (size_t)(space - data) + 3 || data[len - 1] != '\n')
            return err_set(e, ERR_USER, "PAX header: not valid");
        const char *key = space + 1, *end = data + len - 1;
        const char *equals = memchr(key, '=', (size_t)(end - key));

        if (!equals || equals == key)
            return err_set(e, ERR_USER, "PAX header: record without a name");
        struct record r = {key, equals + 1, (size_t)(equals - key), (size_t)(end - equals - 1)};

        if (take_record(x, &r, e) < 0)
            return -1;
        data += len;
        n -= len;
    }
    return 0;
}
