#include "base/pack.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"

bool pack_u64(struct str *out, uint64_t v)
{
    return str_append(out, &v, sizeof(v)) == 0;
}

bool pack_bytes(struct str *out, const void *data, size_t n)
{
    return pack_u64(out, n) && (!n || str_append(out, data, n) == 0);
}

bool pack_text(struct str *out, const char *text)
{
    return pack_bytes(out, text, strlen(text));
}

bool pack_read_u64(struct unpack *u, uint64_t *ret)
{
    if (u->n < sizeof(*ret))
        return false;
    memcpy(ret, u->p, sizeof(*ret));
    u->p += sizeof(*ret);
    u->n -= sizeof(*ret);
    return true;
}

bool pack_read_view(struct unpack *u, const void **ret, size_t *ret_n)
{
    uint64_t n;

    if (!pack_read_u64(u, &n) || n > u->n)
        return false;
    *ret = u->p;
    *ret_n = (size_t)n;
    u->p += n;
    u->n -= (size_t)n;
    return true;
}

bool pack_read_bytes(struct unpack *u, void *ret, size_t n)
{
    const void *data;
    size_t got;

    if (!pack_read_view(u, &data, &got) || got != n)
        return false;
    if (n)
        memcpy(ret, data, n);
    return true;
}

bool pack_read_text(struct unpack *u, char **ret)
{
    const void *data;
    size_t n;

    if (!pack_read_view(u, &data, &n) || memchr(data, '\0', n))
        return false;
    *ret = mem_strndup(data, n);
    return true;
}
