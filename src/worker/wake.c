#include "worker/wake.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/jobs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/websocket.h"

#define KEEP_ALIVE_NS (10 * NS_PER_S)
#define CONNECT_NS    (15 * NS_PER_S)

/* What a posted call needs; it outlives the thread until the last call has run. */
struct notice {
    void (*woken)(void *arg);
    void *arg;
    bool stopped;        /* main thread */
    atomic_bool pending; /* a call is on its way: another message needs none */
    atomic_int references;
};

struct wake {
    struct loop *loop;
    char *url;
    struct http_tls tls;
    char *tls_text[4];
    struct cancel *cancel;
    struct notice *notice;
    pthread_t thread;
};

static void unref(struct notice *n)
{
    if (atomic_fetch_sub(&n->references, 1) == 1)
        free(n);
}

static void tell(void *arg)
{
    struct notice *n = arg;

    atomic_store(&n->pending, false);
    if (!n->stopped)
        n->woken(n->arg);
    unref(n);
}

static void post(struct wake *w)
{
    if (atomic_exchange(&w->notice->pending, true))
        return;
    atomic_fetch_add(&w->notice->references, 1);
    loop_post(w->loop, tell, w->notice);
}

/* One connection until it breaks. True: it was up. */
static bool serve(struct wake *w, struct err *e)
{
    AUTO(str) struct str message = STR_INIT(65536);
    struct websocket *ws = NULL;
    int rc = 1;

    if (websocket_open(w->url, &w->tls, CONNECT_NS, w->cancel, &ws, e) < 0)
        return false;
    post(w); /* what came while we were away */
    while (rc >= 0 && websocket_send_text(ws, "a", e) >= 0) {
        rc = websocket_next(ws, clock_in_ns(KEEP_ALIVE_NS), w->cancel, &message, e);
        if (rc == 1)
            post(w);
    }
    websocket_close(ws);
    return true;
}

static void *run(void *arg)
{
    struct wake *w = arg;
    struct backoff b = BACKOFF_INIT(NS_PER_S, 60 * NS_PER_S);
    bool told = false;

    while (!cancel_fired(w->cancel)) {
        struct err e = ERR_INIT;
        bool was_up = serve(w, &e);

        if (was_up)
            backoff_reset(&b);
        if (cancel_fired(w->cancel))
            break;
        if (was_up || !told)
            log_info("wake-up channel: %s; trying again", e.msg);
        told = true;
        fd_wait(cancel_fd(w->cancel), POLLIN, clock_in_ns(backoff_next(&b)));
    }
    return NULL;
}

struct wake *wake_start(const struct wake_opts *o)
{
    struct wake *w = mem_new(struct wake);

    w->loop = o->loop;
    w->url = mem_strdup(o->url);
    if (o->tls) {
        w->tls_text[0] = mem_strdup(o->tls->ca_file);
        w->tls_text[1] = mem_strdup(o->tls->ca_dir);
        w->tls = (struct http_tls){
            .ca_file = w->tls_text[0], .ca_dir = w->tls_text[1], .insecure = o->tls->insecure};
    }
    w->cancel = cancel_new();
    w->notice = mem_new(struct notice);
    w->notice->woken = o->woken;
    w->notice->arg = o->arg;
    atomic_store(&w->notice->references, 1);
    int rc = pthread_create(&w->thread, NULL, run, w);

    BUG_ON(rc != 0);
    return w;
}

void wake_stop(struct wake *w)
{
    if (!w)
        return;
    cancel_fire(w->cancel);
    pthread_join(w->thread, NULL);
    w->notice->stopped = true;
    unref(w->notice);
    cancel_unref(w->cancel);
    free(w->url);
    for (size_t i = 0; i < ARRAY_SIZE(w->tls_text); i++)
        free(w->tls_text[i]);
    free(w);
}

char *wake_url(const char *server, const char *ws_server, const char *worker_id)
{
    AUTO_FREE char *base = NULL;

    if (ws_server && *ws_server)
        base = mem_strdup(ws_server);
    else if (str_starts(server, "https://"))
        base = mem_printf("wss://%s", server + strlen("https://"));
    else
        base = mem_printf("ws://%s",
                          str_starts(server, "http://") ? server + strlen("http://") : server);
    size_t n = strlen(base);

    while (n && base[n - 1] == '/')
        base[--n] = '\0';
    return mem_printf("%s%s/worker/%s", base, ws_server && *ws_server ? "" : "/ws", worker_id);
}
