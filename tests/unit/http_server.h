#pragma once
/*
 * http_server.h - a small HTTP server in threads of a test program, on 127.0.0.1.
 *
 * A handler sees the request (head, and a body when it asks for one) and writes what it likes on the socket, well-formed or
 * not; so hostile servers are as easy as good ones. One thread a connection; keep-alive unless the handler says no.
 * Requests are recorded. Include after cmocka.h.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

struct server;
struct exchange {
    struct server *server;
    int fd;
    char method[16], path[4096];
    char head[16384];  /* request line and headers */
    char early[65536]; /* body bytes that came with the head */
    size_t early_n;
    char *body; /* after server_read_body */
    size_t body_n;
};
/* Return true to keep the connection. */
typedef bool server_handler(struct exchange *x, void *arg);

struct server {
    int fd;
    int port;
    char url[64];
    server_handler *handler;
    void *arg;
    pthread_t thread;
    atomic_int requests, connections, open;
    pthread_mutex_t lock;
    char *last_head; /* of the last request; under lock */
};

UNUSED static void server_send(struct exchange *x, const void *data, size_t n)
{
    const char *p = data;

    while (n) {
        ssize_t done = send(x->fd, p, n, MSG_NOSIGNAL);

        if (done <= 0)
            return;
        p += done;
        n -= (size_t)done;
    }
}

UNUSED static void server_printf(struct exchange *x, const char *fmt, ...) PRINTF_LIKE(2, 3);
UNUSED static void server_printf(struct exchange *x, const char *fmt, ...)
{
    char buf[16384];
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(buf, sizeof(buf), fmt, ap);
    va_end(ap);
    server_send(x, buf, (size_t)n);
}

/* A whole answer with Content-Length; headers: "A: b\r\n…" or "". */
UNUSED static void server_answer(struct exchange *x, const char *status, const char *headers,
                                 const void *body, size_t n)
{
    server_printf(x, "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\n\r\n", status, headers, n);
    server_send(x, body, n);
}

UNUSED static const char *server_header(const struct exchange *x, const char *name, char *buf,
                                        size_t size)
{
    size_t n = strlen(name);

    for (const char *p = strchr(x->head, '\n'); p && p[1]; p = strchr(p + 1, '\n')) {
        if (strncasecmp(p + 1, name, n) == 0 && p[1 + n] == ':') {
            const char *v = p + n + 2 + strspn(p + n + 2, " ");

            snprintf(buf, size, "%.*s", (int)strcspn(v, "\r\n"), v);
            return buf;
        }
    }
    return NULL;
}

static ssize_t server_more(struct exchange *x, char *buf, size_t n)
{
    if (x->early_n) {
        size_t k = n < x->early_n ? n : x->early_n;

        memcpy(buf, x->early, k);
        memmove(x->early, x->early + k, x->early_n - k);
        x->early_n -= k;
        return (ssize_t)k;
    }
    return recv(x->fd, buf, n, 0);
}

static bool server_exact(struct exchange *x, char *buf, size_t n)
{
    while (n) {
        ssize_t got = server_more(x, buf, n);

        if (got <= 0)
            return false;
        buf += got;
        n -= (size_t)got;
    }
    return true;
}

static bool server_line(struct exchange *x, char *buf, size_t size)
{
    for (size_t i = 0; i + 1 < size; i++) {
        if (!server_exact(x, buf + i, 1))
            return false;
        if (buf[i] == '\n') {
            buf[i] = '\0';
            return true;
        }
    }
    return false;
}

static bool server_take(struct exchange *x, size_t n)
{
    x->body = realloc(x->body, x->body_n + n + 1);
    if (!server_exact(x, x->body + x->body_n, n))
        return false;
    x->body_n += n;
    x->body[x->body_n] = '\0';
    return true;
}

/* Read the whole body, plain or chunked. False when it breaks off. */
UNUSED static bool server_read_body(struct exchange *x)
{
    char value[64], line[128];

    if (server_header(x, "Content-Length", value, sizeof(value)))
        return server_take(x, strtoul(value, NULL, 10));
    if (!server_header(x, "Transfer-Encoding", value, sizeof(value)))
        return server_take(x, 0);
    for (;;) {
        if (!server_line(x, line, sizeof(line)))
            return false;

        size_t n = strtoul(line, NULL, 16);

        if (!server_take(x, n) || !server_line(x, line, sizeof(line)))
            return false;
        if (n == 0)
            return true;
    }
}

static bool server_read_head(struct exchange *x)
{
    size_t n = 0;

    x->head[0] = '\0';
    memcpy(x->head, x->early, x->early_n);
    n = x->early_n;
    x->early_n = 0;
    for (;;) {
        x->head[n] = '\0';

        char *end = strstr(x->head, "\r\n\r\n");

        if (n && x->head[0] == 0x16)
            return false; /* TLS, which this server does not speak, must not wait for its end */
        if (end) {
            x->early_n = n - (size_t)(end + 4 - x->head);
            memcpy(x->early, end + 4, x->early_n);
            end[2] = '\0';
            return sscanf(x->head, "%15s %4095s", x->method, x->path) == 2;
        }
        if (n + 1 >= sizeof(x->head))
            return false;

        ssize_t got = recv(x->fd, x->head + n, sizeof(x->head) - 1 - n, 0);

        if (got <= 0)
            return false;
        n += (size_t)got;
    }
}

static void *server_connection(void *arg)
{
    struct exchange *x = arg;
    struct server *s = x->server;
    bool keep = true;

    while (keep && server_read_head(x)) {
        s->requests++;
        pthread_mutex_lock(&s->lock);
        free(s->last_head);
        s->last_head = strdup(x->head);
        pthread_mutex_unlock(&s->lock);
        x->body_n = 0;
        keep = s->handler(x, s->arg);
    }
    close(x->fd);
    free(x->body);
    free(x);
    s->open--;
    return NULL;
}

static void *server_run(void *arg)
{
    struct server *s = arg;

    for (;;) {
        int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
        pthread_t thread;

        if (fd < 0)
            return NULL;

        struct exchange *x = calloc(1, sizeof(*x));

        x->server = s;
        x->fd = fd;
        s->connections++;
        s->open++;
        pthread_create(&thread, NULL, server_connection, x);
        pthread_detach(thread);
    }
}

UNUSED static void server_start(struct server *s, server_handler *handler, void *arg)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);

    *s = (struct server){.handler = handler, .arg = arg};
    pthread_mutex_init(&s->lock, NULL);
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(s->fd, 64), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&a, &n), 0);
    s->port = ntohs(a.sin_port);
    snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%d", s->port);
    assert_int_equal(pthread_create(&s->thread, NULL, server_run, s), 0);
}

/* Does the last request's head hold this text? */
UNUSED static bool server_saw(struct server *s, const char *text)
{
    pthread_mutex_lock(&s->lock);
    bool saw = s->last_head && strcasestr(s->last_head, text);
    pthread_mutex_unlock(&s->lock);
    return saw;
}

/* Until no handler is at work any more: connections must have been closed by their clients or handlers. */
static void server_wait_idle(struct server *s)
{
    for (int i = 0; s->open && i < 6000; i++)
        usleep(10000);
    assert_int_equal(s->open, 0);
}

/* Connections must have been closed by their clients or handlers. */
UNUSED static void server_stop(struct server *s)
{
    shutdown(s->fd, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->fd);
    server_wait_idle(s);
    free(s->last_head);
    pthread_mutex_destroy(&s->lock);
}
