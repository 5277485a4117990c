/*
 * A cache is a table of (flags, name, path), sorted so that the loader finds a name by bisection, and the strings behind
 * it. Numbers are the machine's own.
 */
#include "runtime/ldcache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/path.h"

#define NEW_MAGIC "glibc-ld.so.cache1.1"
#define OLD_MAGIC "ld.so-1.7.0"

enum {
    ENTRIES_MAX = 100000,
    OLD_HEADER = 16, /* magic, padding, uint32 count */
    OLD_ENTRY = 12,
    FLAG_ELF_LIBC6 = 3,
    FLAG_X86_64 = 0x0300,
    FLAG_AARCH64 = 0x0a00,
    LITTLE_ENDIAN_CACHE = 2,
};
#ifdef __aarch64__
#define FLAGS_OURS (FLAG_ELF_LIBC6 | FLAG_AARCH64)
#else
#define FLAGS_OURS (FLAG_ELF_LIBC6 | FLAG_X86_64)
#endif

struct header {
    char magic[20];
    uint32_t n, strings;
    uint8_t flags, padding[3];
    uint32_t extension, unused[3];
};
struct entry {
    int32_t flags;
    uint32_t key, value, os_version;
    uint64_t hwcap;
};
_Static_assert(sizeof(struct header) == 48 && sizeof(struct entry) == 24, "layout of the file");

struct item {
    int32_t flags;
    const char *key, *value;
    size_t order;
};

/* Numbers inside names are compared as numbers, so that libx.so.10 follows libx.so.9 (_dl_cache_libcmp). */
static int compare_names(const char *a, const char *b)
{
    while (*a) {
        bool da = *a >= '0' && *a <= '9', db = *b >= '0' && *b <= '9';

        if (da && db) {
            unsigned long long x = strtoull(a, (char **)&a, 10), y = strtoull(b, (char **)&b, 10);

            if (x != y)
                return x > y ? 1 : -1;
        } else if (da || db) {
            return da ? 1 : -1;
        } else if (*a != *b) {
            return (unsigned char)*a - (unsigned char)*b;
        } else {
            a++;
            b++;
        }
    }
    return -(int)(unsigned char)*b;
}

/* Descending, as ldconfig writes it. */
static int compare_items(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int c = compare_names(y->key, x->key);

    if (c == 0)
        c = (y->flags > x->flags) - (y->flags < x->flags);
    return c ? c : (x->order > y->order) - (x->order < y->order);
}

/* Where the table begins in which we are interested; NULL: this is no such cache. */
static const char *find_table(const char *p, size_t n, size_t *ret_n)
{
    uint32_t count;
    size_t skip = 0;

    if (n >= OLD_HEADER && memcmp(p, OLD_MAGIC, sizeof(OLD_MAGIC) - 1) == 0) {
        memcpy(&count, p + 12, sizeof(count));
        skip = OLD_HEADER + (size_t)count * OLD_ENTRY;
        skip = (skip + 7) & ~(size_t)7;
    }
    if (skip > n || n - skip < sizeof(struct header) ||
        memcmp(p + skip, NEW_MAGIC, sizeof(NEW_MAGIC) - 1) != 0)
        return NULL;
    *ret_n = n - skip;
    return p + skip;
}

/* The NUL-terminated string at the offset, or NULL. */
static const char *string_at(const char *p, size_t n, uint32_t offset)
{
    return offset < n && memchr(p + offset, '\0', n - offset) ? p + offset : NULL;
}

static bool is_replaced(const char *key, const struct ldcache_entry *add, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(add[i].soname, key))
            return true;
    return false;
}

/* Entries of the old cache that stay. */
static size_t read_old(const char *p, size_t n, const struct ldcache_entry *add, size_t n_add,
                       struct item *out)
{
    struct header h;
    size_t kept = 0;

    memcpy(&h, p, sizeof(h));
    for (size_t i = 0; i < h.n; i++) {
        struct entry x;

        memcpy(&x, p + sizeof(h) + i * sizeof(x), sizeof(x));
        const char *key = string_at(p, n, x.key), *value = string_at(p, n, x.value);

        if (!key || !value || x.hwcap || (x.flags == FLAGS_OURS && is_replaced(key, add, n_add)))
            continue;
        out[kept] = (struct item){x.flags, key, value, kept};
        kept++;
    }
    return kept;
}

static size_t count_old(const char *p, size_t n)
{
    struct header h;

    memcpy(&h, p, sizeof(h));
    return h.n <= ENTRIES_MAX && h.n <= (n - sizeof(h)) / sizeof(struct entry) ? h.n : 0;
}

static int write_cache(const struct item *items, size_t n, struct str *ret, struct err *e)
{
    struct header h = {.n = (uint32_t)n, .flags = LITTLE_ENDIAN_CACHE};
    size_t at = sizeof(h) + n * sizeof(struct entry), strings = at;
    int rc;

    memcpy(h.magic, NEW_MAGIC, sizeof(h.magic));
    for (size_t i = 0; i < n; i++)
        strings += strlen(items[i].key) + strlen(items[i].value) + 2;
    h.strings = (uint32_t)(strings - at);
    rc = strings > UINT32_MAX ? -1 : str_append(ret, &h, sizeof(h));
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct entry x = {.flags = items[i].flags, .key = (uint32_t)at};

        at += strlen(items[i].key) + 1;
        x.value = (uint32_t)at;
        at += strlen(items[i].value) + 1;
        rc = str_append(ret, &x, sizeof(x));
    }
    for (size_t i = 0; i < n && rc == 0; i++)
        if (str_append(ret, items[i].key, strlen(items[i].key) + 1) < 0 ||
            str_append(ret, items[i].value, strlen(items[i].value) + 1) < 0)
            rc = -1;
    return rc < 0 ? err_set(e, ERR_LIMIT, "the loader's cache is larger than %zu bytes", ret->max)
                  : 0;
}

int ldcache_merge(const void *old, size_t n, const struct ldcache_entry *add, size_t n_add,
                  struct str *ret, struct err *e)
{
    const char *table = n ? find_table(old, n, &n) : NULL;
    size_t n_old = table ? count_old(table, n) : 0, have = 0;
    AUTO_FREE struct item *items = mem_array(n_old + n_add + 1, sizeof(*items));

    if (n_old)
        have = read_old(table, n, add, n_add, items);
    for (size_t i = 0; i < n_add; i++) {
        items[have] = (struct item){FLAGS_OURS, add[i].soname, add[i].path, have};
        have++;
    }
    qsort(items, have, sizeof(*items), compare_items);
    return write_cache(items, have, ret, e);
}

/* --- layers ------------------------------------------------------------------------------------------------------ */

static bool is_whiteout(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

static bool is_opaque(int dir)
{
    char link[64], value[4];

    snprintf(link, sizeof(link), "/proc/self/fd/%d", dir);
    return getxattr(link, "trusted.overlay.opaque", value, sizeof(value)) == 1 && value[0] == 'y';
}

/* One layer: 1 it decides (found, or hidden from the layers below), 0 look further down. */
static int look_in(const char *path, struct str *ret, struct err *e)
{
    struct err ignored = ERR_INIT;
    struct stat st;
    AUTO_CLOSE int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (root < 0)
        return err_sys(e, "layer %s", path);
    AUTO_CLOSE int etc = path_open_in_root(root, "etc", O_PATH, 0, &ignored);

    if (etc < 0 || fstat(etc, &st) < 0)
        return 0;
    if (!S_ISDIR(st.st_mode))
        return 1;
    AUTO_CLOSE int file = path_open_in_root(etc, "ld.so.cache", O_PATH | O_NOFOLLOW, 0, &ignored);

    if (file < 0 || fstat(file, &st) < 0)
        return is_opaque(etc);
    if (is_whiteout(&st) || !S_ISREG(st.st_mode))
        return 1;
    AUTO_CLOSE int readable = path_reopen(file, O_RDONLY, e);

    return readable < 0 || fd_read_all(readable, ret, e) < 0 ? -1 : 1;
}

int ldcache_of_layers(const struct str_list *lower, struct str *ret, struct err *e)
{
    for (size_t i = 0; i < lower->n; i++) {
        int rc = look_in(lower->items[i], ret, e);

        if (rc != 0)
            return rc < 0 ? -1 : 0;
    }
    return 0;
}
