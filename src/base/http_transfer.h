#pragma once
/*
 * http_transfer.h - one hop of http_perform: easy handle, callbacks, clocks. Internal to http*.c.
 *
 * A slot is an easy handle with a multi handle of its own; the multi keeps the connections, so a slot that
 * is handed to another thread takes them along. Slots are kept by origin and address policy: a connection
 * made without the check of S15 is never reused by a request that asks for it.
 * Threads: a slot and a transfer belong to one thread at a time; the client is locked inside.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/http.h"
#include "base/late_curl.h"

struct err;

struct http_slot {
    CURLM *multi;
    CURL *easy;
    char *key;
    struct http_slot *next;
};

struct http_slot *http_slot_take(struct http_client *c, const char *key);
void http_slot_put(struct http_client *c, struct http_slot *s);
/* Close its connections and free it; NULL is fine. */
void http_slot_drop(struct http_slot *s);
const char *http_client_agent(const struct http_client *c);

struct transfer {
    const struct http_request *r;
    struct http_request own; /* r, where it had to be changed */
    struct http_response *ret;
    struct err *e;
    struct http_slot *slot;
    const char *url;
    const char *agent;
    const struct http_tls *tls;
    bool with_credentials; /* no redirect has led to another origin yet (S16) */
    bool may_follow;       /* a redirect answer is for us, not for the caller */

    bool failed; /* a callback filled e */
    bool head_done;
    bool body_sent;     /* all of our body has been given to libcurl */
    bool enough;        /* the rest of an error body is not wanted */
    bool checked_early; /* an answer that came before the end of our body was looked for */
    bool follow;        /* this answer is a redirect to be followed */
    bool connected;
    int opened[8]; /* sockets opened lately */
    size_t n_opened;
    curl_socket_t sock; /* the connection, when it was opened by this transfer */
    int kept;           /* a duplicate of it, for http_salvage_answer; -1: none */
    size_t body_at;     /* bytes of r->body given */
    char *held;         /* bytes of the source that wait for the look at an early answer */
    size_t held_n, held_at, held_size;
    size_t head_bytes;
    bool has_length, has_chunked;
    char length[24];                  /* Content-Length seen */
    uint64_t dropped;                 /* bytes of a body nobody wants */
    uint64_t progress_ns, moved;      /* when bytes moved last, and how many by then */
    uint64_t window_ns, window_moved; /* of the minimum rate */
    char errbuf[CURL_ERROR_SIZE];
};

/* Carry out one request to t->url, without following redirects. 0 or -1 with t->e. */
int http_transfer_run(struct transfer *t) MUST_CHECK;
/* The handle's TLS settings (http_tls.c). ERR_HOST. */
int http_tls_apply(struct transfer *t) MUST_CHECK;
/* Callbacks of the answer (http_answer.c). */
size_t http_answer_header(char *data, size_t size, size_t n, void *arg);
size_t http_answer_body(char *data, size_t size, size_t n, void *arg);
/*
 * An answer that came before our body was sent, lost by libcurl to a reset (http_salvage.c): keep the connection's
 * descriptor once it is made; after a failed send, feed what was received to the callbacks above. True when that
 * made a whole refusal (status 400 and up). Block: never.
 */
void http_salvage_keep(struct transfer *t);
bool http_salvage_answer(struct transfer *t);
/* The same when libcurl has read the head of the refusal and the reset overtook its text. */
void http_salvage_text(struct transfer *t);
/* "https://host:port" of a URL, for messages. A new string. */
char *http_origin(const char *url);
