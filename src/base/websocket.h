#pragma once
/*
 * websocket.h - websocket frames (wslay) on a connection made by libcurl (RFC 6455 client).
 *
 * Blocking calls for a thread of its own: open, then next/send. Pings are answered inside.
 * Threads: one per connection. Messages above 64 KiB are errors.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/http.h"

struct err;
struct cancel;
struct websocket;

/* url: ws:// or wss://; its path is sent raw, not percent-encoded (protocol section 4, B180). */
int websocket_open(const char *url, const struct http_tls *tls, uint64_t timeout_ns,
                   struct cancel *cancel, struct websocket **ret, struct err *e) MUST_CHECK;
int websocket_send_text(struct websocket *w, const char *text, struct err *e) MUST_CHECK;
/* Next text or binary message into s: 1; 0 when the deadline passed; -1 closed or broken. */
int websocket_next(struct websocket *w, uint64_t deadline_ns, struct cancel *cancel, struct str *s,
                   struct err *e) MUST_CHECK;
void websocket_close(struct websocket *w); /* NULL is fine */
