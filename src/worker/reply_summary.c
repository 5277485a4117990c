/*
 * summarize_file (protocol 9.5): the first and last lines of a file as Python's text mode and splitlines see them. A window is
 * read at each end; a window never begins or ends inside a character (D62).
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "worker/reply_read.h"

#define BINARY "<binary>"

/* Length of the line break at p, 0: none. LF (CR is gone by now), VT, FF, FS, GS, RS, NEL, U+2028, U+2029. */
static size_t break_at(const char *p, size_t left)
{
    if (*p == '\n' || *p == '\v' || *p == '\f' || (*p >= 0x1c && *p <= 0x1e))
        return 1;
    if (left >= 2 && memcmp(p, "\xc2\x85", 2) == 0)
        return 2;
    if (left >= 3 && (memcmp(p, "\xe2\x80\xa8", 3) == 0 || memcmp(p, "\xe2\x80\xa9", 3) == 0))
        return 3;
    return 0;
}

/* CRLF and CR become LF, in place. */
static size_t universal_newlines(char *text, size_t n)
{
    size_t out = 0;

    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\r' && i + 1 < n && text[i + 1] == '\n')
            continue;
        text[out++] = text[i] == '\r' ? '\n' : text[i];
    }
    text[out] = '\0';
    return out;
}

static bool is_continuation(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

/* str_is_utf8 refuses NUL, which Python's decoder takes. */
static bool decodes(const char *text, size_t n)
{
    while (n) {
        size_t part = strnlen(text, n);

        if (!str_is_utf8(text, part))
            return false;
        part = part < n ? part + 1 : n;
        text += part;
        n -= part;
    }
    return true;
}

/* Bytes at [at, at + n) with a NUL behind, and room for one more; fewer at the end of the file. */
static char *window(int fd, uint64_t at, size_t n, size_t *ret_n, struct err *e)
{
    char *buf = mem_alloc(n + 2);
    size_t got = 0;

    while (got < n) {
        ssize_t r = pread(fd, buf + got, n - got, (off_t)(at + got));

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0) {
            err_sys(e, "read");
            free(buf);
            return NULL;
        }
        if (r == 0)
            break;
        got += (size_t)r;
    }
    buf[got] = '\0';
    *ret_n = got;
    return buf;
}

static size_t characters(const char *text, size_t n, uint64_t most)
{
    size_t i = 0;

    for (uint64_t count = 0; i < n; i++)
        if (!is_continuation(text[i]) && count++ == most)
            break;
    return i;
}

/* End of the line that begins at `from`, its break included; *ret_whole: it has one. */
static size_t line_end(const char *text, size_t n, size_t from, bool *ret_whole)
{
    for (size_t i = from; i < n; i++) {
        size_t b = break_at(text + i, n - i);

        if (b) {
            *ret_whole = true;
            return i + b;
        }
    }
    *ret_whole = false;
    return n;
}

static size_t count_lines(const char *text, size_t n)
{
    size_t lines = 0;
    bool whole;

    for (size_t at = 0; at < n; lines++)
        at = line_end(text, n, at, &whole);
    return lines;
}

/* Where line number `index` begins. */
static size_t line_start(const char *text, size_t n, uint64_t index)
{
    size_t at = 0;
    bool whole;

    while (index-- && at < n)
        at = line_end(text, n, at, &whole);
    return at;
}

/* --- the parts: 1 appended, 0 it is no text, -1 with e --------------------------------------------------------------- */

static int append(struct str *s, const char *text, size_t n, struct err *e)
{
    return str_append(s, text, n) < 0 ? err_set(e, ERR_LIMIT, "the summary is too long") : 1;
}

static int head_of(int fd, const struct summary_args *a, struct str *ret, struct err *e)
{
    uint64_t want = a->head * a->line_max;
    size_t n;
    AUTO_FREE char *text = window(fd, 0, want * 4 + 4, &n, e);

    if (!text)
        return -1;
    /* The window may end inside a character, which only matters behind what is wanted. */
    for (size_t i = 0; i < 3 && n == want * 4 + 4 && n && !decodes(text, n); i++)
        n--;
    if (!decodes(text, n))
        return 0;
    n = universal_newlines(text, n);
    n = characters(text, n, want);
    size_t end = 0;

    for (uint64_t lines = 0; lines < a->head && end < n; lines++) {
        bool whole;
        size_t next = line_end(text, n, end, &whole);

        if (!whole)
            break;
        end = next;
    }
    return append(ret, text, end, e);
}

static int tail_of(int fd, uint64_t size, const struct summary_args *a, struct str *ret,
                   struct err *e)
{
    uint64_t want = a->tail * a->line_max + 1;
    size_t n;
    AUTO_FREE char *text = window(fd, size - want, want, &n, e);
    char *p = text;
    bool whole;

    if (!text)
        return -1;
    while (n && is_continuation(*p) && p < text + 3)
        p++, n--;
    if (!decodes(p, n))
        return 0;
    n = universal_newlines(p, n);
    size_t first = line_end(p, n, 0, &whole);

    p += first;
    n -= first;
    size_t lines = count_lines(p, n), at = lines > a->tail ? line_start(p, n, lines - a->tail) : 0;

    if (append(ret, p + at, n - at, e) < 0)
        return -1;
    return n > at && p[n - 1] != '\n' ? append(ret, "\n", 1, e) : 1;
}

static int whole_of(int fd, uint64_t size, const struct summary_args *a, struct str *ret,
                    struct err *e)
{
    size_t n;
    AUTO_FREE char *text = window(fd, 0, size, &n, e);

    if (!text)
        return -1;
    if (!decodes(text, n))
        return 0;
    n = universal_newlines(text, n);
    if (n && text[n - 1] != '\n')
        text[n++] = '\n', text[n] = '\0'; /* window has room for it */
    size_t lines = count_lines(text, n);

    if (lines <= a->head + a->tail)
        return append(ret, text, n, e);
    size_t head = line_start(text, n, a->head), tail = line_start(text, n, lines - a->tail);

    if (append(ret, text, head, e) < 0 ||
        (a->head && a->tail && append(ret, a->truncation, strlen(a->truncation), e) < 0))
        return -1;
    return append(ret, text + tail, n - tail, e);
}

static int ends_of(int fd, uint64_t size, const struct summary_args *a, struct str *ret,
                   struct err *e)
{
    int rc = a->head ? head_of(fd, a, ret, e) : 1;

    if (rc == 1 && a->head && a->tail)
        rc = append(ret, a->truncation, strlen(a->truncation), e);
    return rc == 1 && a->tail ? tail_of(fd, size, a, ret, e) : rc;
}

int reply_summary_text(int fd, uint64_t size, const struct summary_args *a, struct str *ret,
                       struct err *e)
{
    int rc = size > (a->head + a->tail) * a->line_max ? ends_of(fd, size, a, ret, e)
                                                      : whole_of(fd, size, a, ret, e);

    if (rc == 0) {
        str_clear(ret);
        rc = append(ret, BINARY, strlen(BINARY), e);
    }
    return rc < 0 ? -1 : 0;
}
