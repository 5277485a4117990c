#pragma once
/*
 * reply_netcat.h - say something to a TCP port of a run and hear the answer (protocol 9.8). Inner header of reply*.c.
 * Threads: any; blocks, never longer than NETCAT_TOTAL_NS and the time to connect.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"

struct cancel;
struct err;

/* The server gives up after 60 s (B178); a peer that has answered and keeps the connection open is not waited for. */
#define NETCAT_TOTAL_NS   (50 * NS_PER_S)
#define NETCAT_CONNECT_NS (5 * NS_PER_S)
#define NETCAT_SILENCE_NS (3 * NS_PER_S)

struct netcat {
    int netns; /* connect from inside; -1: from here */
    const char *host, *message;
    uint16_t port;
    struct cancel *cancel;
};

/* Connect to host, or to a loopback of the namespace, and converse. Errors have the errno in e->sys. */
int netcat_ask(const struct netcat *n, struct str *answer, struct err *e) MUST_CHECK;

/*
 * Send the message and collect what comes until the peer closes, a whole HTTP answer to an HTTP request is there, the
 * peer is silent after having spoken, or total_ns is over. Neither side waits for the other to read first.
 */
int netcat_converse(int fd, const char *message, uint64_t total_ns, uint64_t silence_ns,
                    struct cancel *cancel, struct str *answer, struct err *e) MUST_CHECK;

/* How far an HTTP answer has been looked at. All zeroes to begin with. */
struct http_shape {
    enum { SHAPE_UNKNOWN, SHAPE_LENGTH, SHAPE_CHUNKED, SHAPE_OPEN } kind;
    size_t end; /* LENGTH: of the answer; CHUNKED: of the chunks seen */
};
/* Is the answer to `request` complete in these n bytes? Call again with more of the same bytes. Pure. */
bool http_shape_is_whole(struct http_shape *s, const char *request, const char *data, size_t n);
