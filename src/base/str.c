#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void str_free(struct str *s)
{
    free(s->buf);
    s->buf = NULL;
    s->len = s->cap = 0;
}

static int reserve(struct str *s, size_t extra)
{
    if (extra > s->max - s->len)
        return -1;
    size_t need = s->len + extra + 1;

    if (need <= s->cap)
        return 0;
    size_t cap = s->cap ? s->cap * 2 : 64;

    if (cap < need)
        cap = need;
    if (cap > s->max + 1)
        cap = s->max + 1;
    s->buf = mem_realloc(s->buf, cap, 1);
    s->cap = cap;
    return 0;
}

int str_append(struct str *s, const void *data, size_t n)
{
    if (reserve(s, n) < 0)
        return -1;
    if (n)
        memcpy(s->buf + s->len, data, n);
    s->len += n;
    s->buf[s->len] = '\0';
    return 0;
}

int str_append_text(struct str *s, const char *text)
{
    return str_append(s, text, strlen(text));
}

int str_appendf(struct str *s, const char *fmt, ...)
{
    AUTO_FREE char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0) {
        text = NULL;
        return -1;
    }
    return str_append(s, text, (size_t)n);
}

void str_clear(struct str *s)
{
    s->len = 0;
    if (s->buf)
        s->buf[0] = '\0';
}

const char *str_text(const struct str *s)
{
    return s->buf ? s->buf : "";
}

char *str_take(struct str *s)
{
    char *buf = s->buf ? s->buf : mem_strdup("");

    s->buf = NULL;
    s->len = s->cap = 0;
    return buf;
}

bool str_eq(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

bool str_starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);

    return n >= m && memcmp(s + n - m, suffix, m) == 0;
}

char *str_escape(char *dst, size_t size, const void *data, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    const unsigned char *p = data;
    size_t out = 0;

    for (size_t i = 0; i < n; i++) {
        bool plain = p[i] >= 0x20 && p[i] < 0x7f && p[i] != '\\';
        size_t need = plain ? 1 : 4;
        size_t keep = i + 1 < n ? 3 : 0; /* room for the mark of a cut */

        if (out + need + keep >= size) {
            while (out + 4 > size && out)
                out--;
            memcpy(dst + out, "...", 4);
            return dst;
        }
        if (plain) {
            dst[out++] = (char)p[i];
            continue;
        }
        dst[out++] = '\\';
        dst[out++] = 'x';
        dst[out++] = hex[p[i] >> 4];
        dst[out++] = hex[p[i] & 15];
    }
    dst[out] = '\0';
    return dst;
}

char *str_ascii(const char *text, size_t max)
{
    static const char mark[] = " [cut]";
    size_t n = strlen(text), out = 0;
    char *copy = mem_alloc(n + 1);

    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < 0x80)
            copy[out++] = text[i];
    copy[out] = '\0';
    if (out > max && max >= sizeof(mark))
        memcpy(copy + max - (sizeof(mark) - 1), mark, sizeof(mark));
    else if (out > max)
        copy[max] = '\0';
    return copy;
}

/* Length of the UTF-8 sequence at p (RFC 3629: no overlong forms, no surrogates), or 0. */
static size_t utf8_len(const unsigned char *p, size_t n)
{
    if (p[0] < 0x80)
        return p[0] ? 1 : 0;
    size_t len = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;

    if (p[0] < 0xc2 || p[0] > 0xf4 || n < len)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

bool str_is_utf8(const void *data, size_t n)
{
    const unsigned char *p = data;

    while (n) {
        size_t len = utf8_len(p, n);

        if (!len)
            return false;
        p += len;
        n -= len;
    }
    return true;
}

void str_list_free(struct str_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->items[i]);
    free(l->items);
    l->items = NULL;
    l->n = 0;
}

void str_list_take(struct str_list *l, char *s)
{
    /* Powers of two from 8: grow when the slot for the terminating NULL is used up. */
    size_t need = l->n + 2;

    if (!l->items || ((need - 1) >= 8 && ((need - 1) & (need - 2)) == 0))
        l->items = mem_realloc(l->items, need < 8 ? 8 : (need - 1) * 2, sizeof(char *));
    l->items[l->n++] = s;
    l->items[l->n] = NULL;
}

void str_list_add(struct str_list *l, const char *s)
{
    str_list_take(l, mem_strdup(s));
}

void str_list_copy(struct str_list *dst, const struct str_list *src)
{
    for (size_t i = 0; i < src->n; i++)
        str_list_add(dst, src->items[i]);
}

bool str_list_has(const struct str_list *l, const char *s)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->items[i], s) == 0)
            return true;
    return false;
}

void str_list_split(struct str_list *l, const char *text, char sep)
{
    const char *end;

    while ((end = strchr(text, sep))) {
        str_list_take(l, mem_strndup(text, (size_t)(end - text)));
        text = end + 1;
    }
    str_list_add(l, text);
}

char *str_list_join(const struct str_list *l, const char *sep)
{
    struct str s = STR_INIT(SIZE_MAX / 2);

    for (size_t i = 0; i < l->n; i++)
        if ((i && str_append_text(&s, sep) < 0) || str_append_text(&s, l->items[i]) < 0)
            break;
    return str_take(&s);
}

static char **find_env(const struct str_list *l, const char *name)
{
    size_t n = strlen(name);

    for (size_t i = 0; i < l->n; i++)
        if (strncmp(l->items[i], name, n) == 0 && l->items[i][n] == '=')
            return &l->items[i];
    return NULL;
}

void str_list_setenv(struct str_list *l, const char *name, const char *value)
{
    char *entry = mem_printf("%s=%s", name, value);
    char **slot = find_env(l, name);

    if (!slot) {
        str_list_take(l, entry);
        return;
    }
    free(*slot);
    *slot = entry;
}

const char *str_list_getenv(const struct str_list *l, const char *name)
{
    char **slot = find_env(l, name);

    return slot ? *slot + strlen(name) + 1 : NULL;
}
