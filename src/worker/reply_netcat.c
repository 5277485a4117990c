/*
 * The peer is the user's program: it may never read, never stop writing, never close. One loop serves both directions, so that
 * a peer that writes before it reads cannot block us, and every wait ends with the clock or the cancel token.
 */
#include "worker/reply_netcat.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/err.h"
#include "base/jobs.h"
#include "base/mem.h"
#include "netns/inside.h"

enum { PIECE = 16384 };

/* --- HTTP: where an answer ends (RFC 9112 section 6.3) -------------------------------------------------------------- */

/* The next line end in [p, end), or NULL. */
static const char *line_end(const char *p, const char *end)
{
    for (; p < end; p++)
        if (p + 1 < end && p[0] == '\r' && p[1] == '\n')
            return p;
    return NULL;
}

static const char *header_value(const char *head, size_t n, const char *name, size_t *ret_n)
{
    size_t name_n = strlen(name);

    for (const char *p = memmem(head, n, "\r\n", 2), *end = head + n; p && p + 2 < end;) {
        const char *line = p + 2;
        const char *next = memmem(line, (size_t)(end - line), "\r\n", 2);
        size_t line_n = next ? (size_t)(next - line) : (size_t)(end - line);

        if (line_n > name_n && strncasecmp(line, name, name_n) == 0 && line[name_n] == ':') {
            const char *v = line + name_n + 1;

            while (v < line + line_n && *v == ' ')
                v++;
            *ret_n = (size_t)(line + line_n - v);
            return v;
        }
        p = next;
    }
    return NULL;
}

static void judge_head(struct http_shape *s, const char *request, const char *data, size_t head_n)
{
    size_t n = 0;
    const char *v = header_value(data, head_n, "Transfer-Encoding", &n);
    bool empty =
        head_n > 12 && (memcmp(data + 9, "204", 3) == 0 || memcmp(data + 9, "304", 3) == 0);

    s->end = head_n + 4;
    s->kind = SHAPE_OPEN;
    if (empty || strncmp(request, "HEAD ", 5) == 0) {
        s->kind = SHAPE_LENGTH;
    } else if (v) {
        if (n >= 7 && strncasecmp(v + n - 7, "chunked", 7) == 0)
            s->kind = SHAPE_CHUNKED;
    } else if ((v = header_value(data, head_n, "Content-Length", &n)) && n && n < 16) {
        s->kind = SHAPE_LENGTH;
        s->end += strtoull(v, NULL, 10); /* ends at the CR */
    }
}

/* Chunk after chunk; true behind the last one and its trailer. */
static bool chunks_end(struct http_shape *s, const char *data, size_t n)
{
    while (s->end < n) {
        const char *line = data + s->end;
        const char *eol = line_end(line, data + n);

        if (!eol)
            return false;
        unsigned long long size = strtoull(line, NULL, 16); /* ends at the CR */

        if (size ==
            0) /* the line's own end is the blank line's beginning when there is no trailer */
            return memmem(eol, n - (size_t)(eol - data), "\r\n\r\n", 4) != NULL;
        if (size > n)
            return false;
        s->end = (size_t)(eol - data) + 2 + size + 2;
    }
    return false;
}

bool http_shape_is_whole(struct http_shape *s, const char *request, const char *data, size_t n)
{
    if (s->kind == SHAPE_UNKNOWN) {
        if (!strstr(request, " HTTP/1.") || n < 12 || memcmp(data, "HTTP/1.", 7) != 0)
            return false;
        const char *end = memmem(data, n, "\r\n\r\n", 4);

        if (!end ||
            data[9] ==
                '1') /* 100 Continue: the answer comes behind it; then the peer's silence decides */
            return false;
        judge_head(s, request, data, (size_t)(end - data));
    }
    if (s->kind == SHAPE_LENGTH)
        return n >= s->end;
    return s->kind == SHAPE_CHUNKED && chunks_end(s, data, n);
}

/* --- the conversation -------------------------------------------------------------------------------------------- */

struct talk {
    int fd;
    const char *message;
    size_t left;
    struct str *answer;
    struct http_shape shape;
};

static void send_some(struct talk *t)
{
    ssize_t n = send(t->fd, t->message, t->left, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n >= 0) {
        t->message += n;
        t->left -= (size_t)n;
    } else if (errno != EAGAIN && errno != EINTR) {
        t->left = 0; /* it listens no more; what it said before counts */
    }
}

/* 1: there is more to come; 0: that was all. */
static int receive_some(struct talk *t, struct err *e)
{
    char buf[PIECE];
    ssize_t n = recv(t->fd, buf, sizeof(buf), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 1;
    if (n < 0)
        return t->answer->len ? 0 : err_sys(e, "receive");
    if (n == 0)
        return 0;
    if (str_append(t->answer, buf, (size_t)n) < 0)
        return err_set(e, ERR_LIMIT, "the answer is larger than %zu bytes", t->answer->max);
    return 1;
}

int netcat_converse(int fd, const char *message, uint64_t total_ns, uint64_t silence_ns,
                    struct cancel *cancel, struct str *answer, struct err *e)
{
    struct talk t = {.fd = fd, .message = message, .left = strlen(message), .answer = answer};
    uint64_t end = clock_in_ns(total_ns);
    int more = 1;

    while (more > 0 && !http_shape_is_whole(&t.shape, message, str_text(answer), answer->len)) {
        uint64_t silence = clock_in_ns(silence_ns);
        uint64_t until = answer->len && silence < end ? silence : end;
        struct pollfd p[2] = {{.fd = fd, .events = (short)(POLLIN | (t.left ? POLLOUT : 0))},
                              {.fd = cancel_fd(cancel), .events = POLLIN}};
        int ready = poll(p, 2, clock_left_ms(until));

        if (ready < 0 && errno != EINTR)
            return err_sys(e, "wait for the answer");
        if (cancel_fired(cancel))
            return err_set(e, ERR_CANCELLED, "the worker is ending");
        if (ready == 0 || clock_passed(end))
            return 0;
        if (p[0].revents & POLLOUT)
            send_some(&t);
        if (p[0].revents & (POLLIN | POLLHUP | POLLERR))
            more = receive_some(&t, e);
    }
    return more;
}

/* The run's own address; a program that listens on the container's loopback only is found there. */
static int connect_to(const struct netcat *n, struct err *e)
{
    static const char *const loopbacks[] = {"127.0.0.1", "::1"};
    struct err other = ERR_INIT;
    int fd = net_connect_inside(n->netns, n->host, n->port, NETCAT_CONNECT_NS, e);

    for (size_t i = 0; fd < 0 && e->sys == ECONNREFUSED && i < ARRAY_SIZE(loopbacks); i++)
        fd = net_connect_inside(n->netns, loopbacks[i], n->port, NETCAT_CONNECT_NS, &other);
    return fd;
}

int netcat_ask(const struct netcat *n, struct str *answer, struct err *e)
{
    AUTO_CLOSE int fd = connect_to(n, e);

    return fd < 0 ? -1
                  : netcat_converse(fd, n->message, NETCAT_TOTAL_NS, NETCAT_SILENCE_NS, n->cancel,
                                    answer, e);
}
