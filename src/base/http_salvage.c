/*
 * An answer that a reset overtook. A server that refuses an upload answers and closes with our bytes unread; the
 * kernel then resets the connection, our next send fails, and libcurl gives up without another look at what was
 * received before. The bytes are still in the socket's queue (tcp(7): a reset does not discard them), so they are
 * read here from a duplicate of the descriptor (D07). Plain HTTP only: the keys of TLS are libcurl's.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/bounds.h"
#include "base/fd.h"
#include "base/http_transfer.h"
#include "base/mem.h"

#define SALVAGE_MAX (BOUND_HTTP_HEADERS + BOUND_HTTP_ERROR_BODY)

void http_salvage_keep(struct transfer *t)
{
    if (t->r->source && strncasecmp(t->url, "http://", 7) == 0 && t->sock != CURL_SOCKET_BAD)
        t->kept = fd_dup(t->sock); /* -1: an early answer may then be lost, as without us */
}

/* What the queue holds; after a reset nothing more can come, so nothing is waited for. */
static size_t read_queue(int fd, char *buf, size_t size)
{
    size_t n = 0;

    while (n < size) {
        ssize_t got = recv(fd, buf + n, size - n, MSG_DONTWAIT);

        if (got <= 0)
            break;
        n += (size_t)got;
    }
    return n;
}

/* Heads, interim ones included, line by line; the rest of the bytes begins at the returned offset. */
static size_t give_head(struct transfer *t, char *buf, size_t n)
{
    size_t at = 0;

    while (at < n && !t->head_done) {
        char *end = memchr(buf + at, '\n', n - at);
        size_t line = end ? (size_t)(end - buf) + 1 - at : 0;

        if (!line || http_answer_header(buf + at, 1, line, t) != line)
            return n;
        at += line;
    }
    return at;
}

static void give_chunks(struct transfer *t, char *buf, size_t n)
{
    size_t at = 0;

    while (at < n) {
        char *end = memchr(buf + at, '\n', n - at);

        if (!end)
            return;

        size_t size = strtoul(buf + at, NULL, 16); /* buf ends in NUL */
        size_t body = (size_t)(end - buf) + 1;

        if (size == 0 || body >= n)
            return;
        if (size > n - body)
            size = n - body;
        if (http_answer_body(buf + body, 1, size, t) != size)
            return;
        at = body + size;
        while (at < n && (buf[at] == '\r' || buf[at] == '\n'))
            at++;
    }
}

static void give_body(struct transfer *t, char *buf, size_t n)
{
    size_t length = t->has_length ? strtoul(t->length, NULL, 10) : n;

    if (http_header(t->ret, "content-encoding"))
        return; /* the status says enough */
    if (t->has_chunked)
        give_chunks(t, buf, n);
    else if (n)
        (void)http_answer_body(buf, 1, length < n ? length : n, t);
}

bool http_salvage_answer(struct transfer *t)
{
    if (t->kept < 0 || t->head_bytes || t->failed)
        return false;

    AUTO_FREE char *buf = mem_alloc(SALVAGE_MAX + 1);
    size_t n = read_queue(t->kept, buf, SALVAGE_MAX);

    buf[n] = '\0';
    if (n < 5 || strncasecmp(buf, "HTTP/", 5) != 0)
        return false;

    size_t at = give_head(t, buf, n);

    if (!t->head_done || t->failed || t->ret->status < 400)
        return false;
    t->ret->answered_early = true;
    give_body(t, buf + at, n - at);
    return !t->failed;
}

void http_salvage_text(struct transfer *t)
{
    if (t->kept < 0 || t->failed || t->follow || t->has_chunked || !t->has_length ||
        http_header(t->ret, "content-encoding"))
        return;

    uint64_t length = strtoull(t->length, NULL, 10), had = t->ret->received;
    AUTO_FREE char *buf = mem_alloc(SALVAGE_MAX);
    size_t n = had < length ? read_queue(t->kept, buf, SALVAGE_MAX) : 0;

    if (n)
        (void)http_answer_body(buf, 1, n < length - had ? n : length - had, t);
}
