#include <ctype.h>
#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/http.h"
#include "base/mem.h"

static bool is_unreserved(unsigned char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           (c && strchr("_.-~", c));
}

static char *escape_into(char *out, const char *text, const char *keep, bool plus)
{
    static const char hex[] = "0123456789ABCDEF";

    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (is_unreserved(*p) || strchr(keep, *p)) {
            *out++ = (char)*p;
        } else if (plus && *p == ' ') {
            *out++ = '+';
        } else {
            *out++ = '%';
            *out++ = hex[*p >> 4];
            *out++ = hex[*p & 15];
        }
    }
    *out = '\0';
    return out;
}

char *http_escape(const char *text, const char *keep)
{
    char *s = mem_alloc(strlen(text) * 3 + 1);

    escape_into(s, text, keep ? keep : "", false);
    return s;
}

char *http_form(const char *const *pairs)
{
    size_t size = 1;

    for (const char *const *p = pairs; *p; p++)
        size += strlen(*p) * 3 + 1;

    char *s = mem_alloc(size);
    char *out = s;

    *out = '\0';
    for (const char *const *p = pairs; *p; p += 2) {
        BUG_ON(!p[1]);
        if (p != pairs)
            *out++ = '&';
        out = escape_into(out, p[0], "", true);
        *out++ = '=';
        out = escape_into(out, p[1], "", true);
    }
    return s;
}
