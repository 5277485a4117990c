#include "base/units.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

int units_u64(const char *text, uint64_t max, uint64_t *ret, struct err *e)
{
    char shown[STR_SHOW_MAX];
    uint64_t value = 0;

    if (!*text)
        return err_set(e, ERR_USER, "empty text where a number is expected");
    for (const char *p = text; *p; p++) {
        if (*p < '0' || *p > '9')
            return err_set(e, ERR_USER, "\"%s\" is not a whole number", str_show(shown, text));
        if (__builtin_mul_overflow(value, 10U, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value) || value > max)
            return err_set(e, ERR_USER, "%s is larger than %llu", str_show(shown, text),
                           (unsigned long long)max);
    }
    *ret = value;
    return 0;
}

int units_i64(const char *text, int64_t min, int64_t max, int64_t *ret, struct err *e)
{
    bool negative = text[0] == '-';
    uint64_t magnitude;

    if (units_u64(text + negative, (uint64_t)INT64_MAX, &magnitude, e) < 0)
        return -1;
    int64_t value = negative ? -(int64_t)magnitude : (int64_t)magnitude;

    if (value < min || value > max)
        return err_set(e, ERR_USER, "%lld is not between %lld and %lld", (long long)value,
                       (long long)min, (long long)max);
    *ret = value;
    return 0;
}

int units_mode(const char *text, uint32_t *ret, struct err *e)
{
    size_t n = strlen(text);
    uint32_t value = 0;

    if (n == 0 || n > 5 || strspn(text, "01234567") != n)
        return err_set(e, ERR_USER, "a file mode is 1 to 5 octal digits");
    for (size_t i = 0; i < n; i++)
        value = value * 8 + (uint32_t)(text[i] - '0');
    if (value > 07777)
        return err_set(e, ERR_USER, "file mode %o is larger than 7777", value);
    *ret = value;
    return 0;
}

static int invalid_size(const char *text, struct err *e)
{
    char shown[STR_SHOW_MAX];

    return err_set(e, ERR_USER, "Invalid size: %s, expected <number>[<k|m|g|t>]",
                   str_show(shown, text));
}

/* "[-]digits[.digits][e[-]digits]" and no more: strtod alone would take "inf", "0x1p3", " 1". */
static bool is_decimal(const char *p, const char *end)
{
    if (p < end && (*p == '-' || *p == '+'))
        p++;
    const char *start = p;

    while (p < end && (isdigit((unsigned char)*p) || *p == '.'))
        p++;
    if (p == start || (p == start + 1 && *start == '.') ||
        memchr(start, '.', (size_t)(p - start)) != memrchr(start, '.', (size_t)(p - start)))
        return false;
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '-' || *p == '+'))
            p++;
        if (p == end)
            return false;
        while (p < end && isdigit((unsigned char)*p))
            p++;
    }
    return p == end;
}

int units_size(const char *text, int64_t *ret, struct err *e)
{
    static const char unit_names[] = "kmgt";
    size_t n = strlen(text);
    int64_t whole = 0;

    if (n == 0 || n > 40)
        return invalid_size(text, e);
    if (isdigit((unsigned char)text[n - 1])) {
        if (units_i64(text, INT64_MIN + 1, INT64_MAX, &whole, e) < 0)
            return invalid_size(text, e);
        *ret = whole;
        return 0;
    }
    const char *unit = strchr(unit_names, tolower((unsigned char)text[n - 1]));

    if (!unit || !*unit || !is_decimal(text, text + n - 1))
        return invalid_size(text, e);
    double value = strtod(text, NULL) * (double)(1ULL << (10 * (unit - unit_names + 1)));

    if (!isfinite(value) || fabs(value) >= 9.2e18)
        return invalid_size(text, e);
    *ret = (int64_t)value;
    return 0;
}

int units_duration(const char *text, uint64_t *ret_s, struct err *e)
{
    static const struct {
        char unit;
        uint32_t seconds;
    } table[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'y', 31536000}};
    size_t n = strlen(text);
    uint64_t factor = 1, value;
    char digits[24];

    if (n && !isdigit((unsigned char)text[n - 1])) {
        factor = 0;
        for (size_t i = 0; i < ARRAY_SIZE(table); i++)
            if (table[i].unit == text[n - 1])
                factor = table[i].seconds;
        n--;
    }
    if (!factor || n == 0 || n >= sizeof(digits))
        return err_set(e, ERR_USER, "a duration is <number>[s|m|h|d|y], for instance 30s or 2h");
    memcpy(digits, text, n);
    digits[n] = '\0';
    if (units_u64(digits, UINT64_MAX / 31536000 / 1000000000, &value, e) < 0)
        return -1;
    *ret_s = value * factor;
    return 0;
}

char *units_size_str(char buf[UNITS_TEXT_MAX], double n, bool bytes)
{
    static const char *const unit_names[] = {"", "k", "m", "g", "t"};

    for (size_t i = 0; i < ARRAY_SIZE(unit_names); i++, n /= 1024) {
        const char *unit = i == 0 && bytes ? " bytes" : unit_names[i];

        if (n < 100 && n != floor(n))
            return snprintf(buf, UNITS_TEXT_MAX, "%.1f%s", n, unit), buf;
        if (n < 1024)
            return snprintf(buf, UNITS_TEXT_MAX, "%lld%s", (long long)n, unit), buf;
    }
    return NULL;
}

char *units_duration_str(char buf[UNITS_TEXT_MAX], double seconds)
{
    if (seconds < 60) {
        snprintf(buf, UNITS_TEXT_MAX, "%.1fs", seconds);
        return buf;
    }
    double capped = seconds > 1e15 ? 1e15 : seconds;
    uint64_t s = (uint64_t)capped;
    uint64_t m = s / 60, h = m / 60, d = h / 24, y = d / 365;

    if (m < 60)
        snprintf(buf, UNITS_TEXT_MAX, "%llum%llus", (unsigned long long)m,
                 (unsigned long long)(s % 60));
    else if (h < 24)
        snprintf(buf, UNITS_TEXT_MAX, "%lluh%llum", (unsigned long long)h,
                 (unsigned long long)(m % 60));
    else if (d < 365)
        snprintf(buf, UNITS_TEXT_MAX, "%llud%lluh", (unsigned long long)d,
                 (unsigned long long)(h % 24));
    else
        snprintf(buf, UNITS_TEXT_MAX, "%lluy%llud", (unsigned long long)y,
                 (unsigned long long)(d % 365));
    return buf;
}

char *units_decimal_str(char buf[UNITS_TEXT_MAX], uint64_t n)
{
    static const char *const unit_names[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double value = (double)n;
    size_t i = 0;

    while (value >= 1000 && i + 1 < ARRAY_SIZE(unit_names)) {
        value /= 1000;
        i++;
    }
    snprintf(buf, UNITS_TEXT_MAX, "%.4g%s", value, unit_names[i]);
    return buf;
}

void cpu_set_add(struct cpu_set *s, unsigned cpu)
{
    if (cpu < UNITS_CPU_MAX)
        s->bits[cpu / 64] |= 1ULL << (cpu % 64);
}

void cpu_set_del(struct cpu_set *s, unsigned cpu)
{
    if (cpu < UNITS_CPU_MAX)
        s->bits[cpu / 64] &= ~(1ULL << (cpu % 64));
}

bool cpu_set_has(const struct cpu_set *s, unsigned cpu)
{
    return cpu < UNITS_CPU_MAX && (s->bits[cpu / 64] >> (cpu % 64) & 1);
}

unsigned cpu_set_count(const struct cpu_set *s)
{
    unsigned n = 0;

    for (size_t i = 0; i < ARRAY_SIZE(s->bits); i++)
        n += (unsigned)__builtin_popcountll(s->bits[i]);
    return n;
}

void cpu_set_and(struct cpu_set *s, const struct cpu_set *other)
{
    for (size_t i = 0; i < ARRAY_SIZE(s->bits); i++)
        s->bits[i] &= other->bits[i];
}

void cpu_set_or(struct cpu_set *s, const struct cpu_set *other)
{
    for (size_t i = 0; i < ARRAY_SIZE(s->bits); i++)
        s->bits[i] |= other->bits[i];
}

void cpu_set_minus(struct cpu_set *s, const struct cpu_set *other)
{
    for (size_t i = 0; i < ARRAY_SIZE(s->bits); i++)
        s->bits[i] &= ~other->bits[i];
}

int cpu_set_next(const struct cpu_set *s, unsigned from)
{
    for (unsigned word = from / 64; word < ARRAY_SIZE(s->bits); word++) {
        uint64_t left = s->bits[word];

        if (word == from / 64)
            left &= ~0ULL << (from % 64);
        if (left)
            return (int)(word * 64 + (unsigned)__builtin_ctzll(left));
    }
    return -1;
}

static int parse_range(const char *text, struct cpu_set *ret, struct err *e)
{
    AUTO_FREE char *copy = mem_strdup(text);
    char *dash = strchr(copy, '-');
    uint64_t first = 0, last;

    if (dash)
        *dash = '\0';
    if (units_u64(copy, UNITS_CPU_MAX - 1, &first, e) < 0)
        return -1;
    last = first;
    if (dash && units_u64(dash + 1, UNITS_CPU_MAX - 1, &last, e) < 0)
        return -1;
    if (last < first)
        return err_set(e, ERR_USER, "range %s runs backwards", text);
    for (uint64_t cpu = first; cpu <= last; cpu++)
        cpu_set_add(ret, (unsigned)cpu);
    return 0;
}

int cpu_set_parse(const char *text, struct cpu_set *ret, struct err *e)
{
    AUTO(str_list) struct str_list parts = {0};
    struct cpu_set set = {0};

    if (*text)
        str_list_split(&parts, text, ',');
    for (size_t i = 0; i < parts.n; i++)
        if (parse_range(parts.items[i], &set, e) < 0)
            return err_wrap(e, "CPU list");
    *ret = set;
    return 0;
}

char *cpu_set_text(const struct cpu_set *s)
{
    struct str out = STR_INIT(UNITS_CPU_MAX * 6);

    for (int first = cpu_set_next(s, 0); first >= 0;) {
        int last = first;

        while (cpu_set_has(s, (unsigned)last + 1))
            last++;
        int rc = last == first ? str_appendf(&out, "%s%d", out.len ? "," : "", first)
                               : str_appendf(&out, "%s%d-%d", out.len ? "," : "", first, last);
        BUG_ON(rc < 0);
        first = cpu_set_next(s, (unsigned)last + 1);
    }
    return str_take(&out);
}
