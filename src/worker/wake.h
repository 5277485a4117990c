#pragma once
/*
 * wake.h - the websocket that wakes the check-in loop (protocol section 4).
 *
 * One thread: connect, send "a" now and after each message and every 10 s, answer pings, reconnect with
 * back-off after any close or error (B180-B183). Everything works without it, only slower (B184).
 * Threads: main only. The callback runs on the loop's thread; several messages may become one call.
 */
#include "base/cleanup.h"
#include "base/http.h"

struct loop;
struct wake;

struct wake_opts {
    struct loop *loop;
    const char *url;            /* from wake_url */
    const struct http_tls *tls; /* copied; may be NULL */
    void (*woken)(void *arg);   /* check in now */
    void *arg;
};

struct wake *wake_start(const struct wake_opts *o);
/* Ends the thread (within a second) and frees; no call comes afterwards. NULL is fine. */
void wake_stop(struct wake *w);
/* "{ws_server}/worker/{worker_id}"; ws_server NULL or "": made from server (B180). A new string. Pure. */
char *wake_url(const char *server, const char *ws_server, const char *worker_id);
