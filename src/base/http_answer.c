/*
 * The answer as it comes: status line, headers, body. Framing is held against S19 here, caps against S05.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/http.h"
#include "base/http_transfer.h"
#include "base/mem.h"

/* More of a body that nobody wants than this, and closing the connection is cheaper than reading on. */
#define DROP_MAX (64 * BOUND_KIB)

struct status_text {
    int status;
    const char *text;
};

static const struct status_text status_texts[] = {
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {413, "Request Entity Too Large"},
    {414, "Request-URI Too Long"},
    {416, "Requested Range Not Satisfiable"},
    {429, "Too Many Requests"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
};

static const char *status_text(int status)
{
    for (size_t i = 0; i < ARRAY_SIZE(status_texts); i++) {
        if (status_texts[i].status == status)
            return status_texts[i].text;
    }
    return status >= 500 ? "Server Error" : status >= 400 ? "Client Error" : "Unknown";
}

static size_t refuse(struct transfer *t, enum err_kind kind, const char *why)
{
    AUTO_FREE char *origin = http_origin(t->url);

    err_set(t->e, kind, "%s: %s", origin, why);
    t->failed = true;
    return 0; /* fewer bytes than offered: libcurl ends the transfer */
}

/* "HTTP/1.1 404 Not Found": start afresh, as 1xx answers and proxies come before the real one. */
static size_t status_line(struct transfer *t, const char *line, size_t n)
{
    struct http_response *ret = t->ret;
    const char *end = line + n;
    const char *p = memchr(line, ' ', n);

    str_list_free(&ret->headers);
    ret->headers = (struct str_list){0};
    t->has_length = t->has_chunked = false;
    ret->status = 0;
    while (p && p < end && *p == ' ')
        p++;
    for (int i = 0; p && p < end && i < 3 && isdigit((unsigned char)*p); i++)
        ret->status = ret->status * 10 + (*p++ - '0');
    if (ret->status < 100)
        return refuse(t, ERR_REMOTE, "malformed HTTP status line");
    while (p < end && *p == ' ')
        p++;
    str_escape(ret->reason, sizeof(ret->reason), p, (size_t)(end - p));
    if (!ret->reason[0])
        snprintf(ret->reason, sizeof(ret->reason), "%s", status_text(ret->status));
    return 1;
}

/* Two lengths, or a length beside chunks, let two readers see two bodies: refused (S19). */
static size_t note_framing(struct transfer *t, const char *name, const char *value)
{
    if (strcmp(name, "content-length") == 0) {
        if (strlen(value) >= sizeof(t->length) || (t->has_length && strcmp(t->length, value) != 0))
            return refuse(t, ERR_REMOTE, "contradicting Content-Length headers");
        snprintf(t->length, sizeof(t->length), "%s", value);
        t->has_length = true;
    } else if (strcmp(name, "transfer-encoding") == 0) {
        t->has_chunked = true;
    }
    if (t->has_length && t->has_chunked)
        return refuse(t, ERR_REMOTE, "answer has both Content-Length and Transfer-Encoding");
    return 1;
}

static size_t header_line(struct transfer *t, const char *line, size_t n)
{
    const char *colon = memchr(line, ':', n);

    if (!colon || colon == line)
        return 1; /* folded or broken: libcurl has judged it */
    while (n && isspace((unsigned char)line[n - 1]))
        n--;

    const char *value = colon + 1;
    const char *end = line + n;

    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    if (memchr(line, '\0', n))
        return refuse(t, ERR_REMOTE, "NUL in an HTTP header");

    AUTO_FREE char *name = mem_strndup(line, (size_t)(colon - line));
    AUTO_FREE char *text = mem_strndup(value, value < end ? (size_t)(end - value) : 0);

    for (char *p = name; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    str_list_take(&t->ret->headers, mem_printf("%s: %s", name, text));
    return note_framing(t, name, text);
}

static bool is_redirect(const struct transfer *t)
{
    int s = t->ret->status;

    return t->may_follow && (s == 301 || s == 302 || s == 303 || s == 307 || s == 308) &&
           http_header(t->ret, "location");
}

static bool is_success(const struct transfer *t)
{
    return t->ret->status >= 200 && t->ret->status < 300;
}

/* The head is whole: this is the answer, or a redirect, or an interim one (1xx). */
static size_t end_of_head(struct transfer *t)
{
    const struct http_request *r = t->r;

    if (t->ret->status < 200)
        return 1;
    t->head_done = true;
    t->ret->answered_early = !t->body_sent;
    t->follow = is_redirect(t);
    if (t->follow)
        return 1;
    if (r->on_head && r->on_head(r->sink_arg, t->ret, t->e) < 0) {
        t->failed = true;
        return 0;
    }
    t->progress_ns = clock_now_ns();
    if (is_success(t) && t->has_length && strcmp(r->method, "HEAD") != 0 && !r->accept_gzip_json &&
        strtoull(t->length, NULL, 10) > r->max_body)
        return refuse(t, ERR_LIMIT, "the answer is larger than allowed");
    return 1;
}

size_t http_answer_header(char *data, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    size_t got = size * n, len = got, ok;

    if (t->head_done)
        return got; /* trailers */
    t->head_bytes += got;
    if (t->head_bytes > BOUND_HTTP_HEADERS)
        return refuse(t, ERR_LIMIT, "HTTP headers are larger than allowed");
    while (len && (data[len - 1] == '\r' || data[len - 1] == '\n'))
        len--;
    if (len >= 5 && strncasecmp(data, "HTTP/", 5) == 0)
        ok = status_line(t, data, len);
    else if (len == 0)
        ok = end_of_head(t);
    else
        ok = header_line(t, data, len);
    return ok ? got : 0;
}

/* An error body, of which we keep the start; or that of a redirect. */
static size_t drop(struct transfer *t, size_t n)
{
    t->dropped += n;
    if (t->dropped > DROP_MAX) {
        t->enough = true;
        return 0;
    }
    return n;
}

static size_t collect_error(struct transfer *t, const char *data, size_t n)
{
    struct str *body = &t->ret->body;
    size_t room = BOUND_HTTP_ERROR_BODY - body->len;
    size_t keep = n < room ? n : room;

    body->max = BOUND_HTTP_ERROR_BODY;
    if (keep && str_append(body, data, keep) < 0)
        return 0;
    return keep == n ? n : drop(t, n - keep) ? n : 0;
}

static size_t collect(struct transfer *t, const char *data, size_t n)
{
    const struct http_request *r = t->r;

    if (r->sink) {
        int rc = r->sink(r->sink_arg, data, n, t->e);

        t->progress_ns = clock_now_ns(); /* a slow sink is not a silent server */
        if (rc < 0)
            t->failed = true;
        return rc < 0 ? 0 : n;
    }
    t->ret->body.max = r->max_body;
    return str_append(&t->ret->body, data, n) < 0 ? 0 : n;
}

size_t http_answer_body(char *data, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    size_t got = size * n;

    if (t->follow)
        return drop(t, got);
    t->ret->received += got;
    if (!is_success(t))
        return collect_error(t, data, got);
    if (t->ret->received > t->r->max_body)
        return refuse(t, ERR_LIMIT, "the answer is larger than allowed");
    return collect(t, data, got);
}
