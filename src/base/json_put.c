/* JSON as text at once, without a tree: for what is written often. See json.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"

/* The separator that is due, and the key. -1: no room. */
static int begin(struct str *s, const char *key)
{
    char last = s->len ? s->buf[s->len - 1] : '[';

    if (last != '[' && last != '{' && str_append(s, ",", 1) < 0)
        return -1;
    if (!key)
        return 0;
    return str_append(s, "\"", 1) < 0 || str_append_text(s, key) < 0 || str_append(s, "\":", 2) < 0
               ? -1
               : 0;
}

int json_put_text(struct str *s, const char *key, const char *text, size_t n)
{
    return begin(s, key) < 0 ? -1 : str_append(s, text, n);
}

static bool is_plain(char c)
{
    return (unsigned char)c >= 0x20 && c != '"' && c != '\\';
}

int json_put_str(struct str *s, const char *key, const char *value)
{
    if (!value)
        return json_put_null(s, key);
    if (begin(s, key) < 0 || str_append(s, "\"", 1) < 0)
        return -1;
    for (const char *p = value; *p;) {
        size_t n = 0;
        while (p[n] && is_plain(p[n]))
            n++;
        if (str_append(s, p, n) < 0)
            return -1;
        p += n;
        if (!*p)
            break;
        int rc = *p == '"' || *p == '\\' ? str_appendf(s, "\\%c", *p)
                                         : str_appendf(s, "\\u%04x", (unsigned)*p);
        if (rc < 0)
            return -1;
        p++;
    }
    return str_append(s, "\"", 1);
}

int json_put_int(struct str *s, const char *key, int64_t value)
{
    char text[24];
    int n = snprintf(text, sizeof(text), "%lld", (long long)value);

    return json_put_text(s, key, text, (size_t)n);
}

int json_put_micro(struct str *s, const char *key, double value)
{
    char text[32];

    if (!isfinite(value))
        return json_put_null(s, key);
    /* Beyond that a double does not hold millionths any more. */
    if (fabs(value) > 4e9) {
        int n = snprintf(text, sizeof(text), "%.17g", value);
        return json_put_text(s, key, text, (size_t)n);
    }
    long long micro = llround(value * 1e6);
    unsigned long long size =
        micro < 0 ? 0ULL - (unsigned long long)micro : (unsigned long long)micro;
    int n = snprintf(text, sizeof(text), "%s%llu.%06llu", micro < 0 ? "-" : "", size / 1000000,
                     size % 1000000);
    while (text[n - 1] == '0')
        n--;
    if (text[n - 1] == '.')
        n--;
    return json_put_text(s, key, text, (size_t)n);
}

int json_put_bool(struct str *s, const char *key, bool value)
{
    return json_put_text(s, key, value ? "true" : "false", value ? 4 : 5);
}

int json_put_null(struct str *s, const char *key)
{
    return json_put_text(s, key, "null", 4);
}

int json_put_open(struct str *s, const char *key, char bracket)
{
    BUG_ON(bracket != '{' && bracket != '[');
    return json_put_text(s, key, &bracket, 1);
}

int json_put_close(struct str *s, char bracket)
{
    BUG_ON(bracket != '}' && bracket != ']');
    return str_append(s, &bracket, 1);
}
