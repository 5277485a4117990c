/*
 * A thin layer over libuv. Two things are ours: the mailbox (libuv's async handles coalesce, so a queue
 * stands behind one), and that a watched descriptor keeps its blocking mode, which uv_poll_init would
 * change for everybody who shares the open file (a shim's socket is also used for blocking requests).
 */
#include "base/loop.h"

#include <fcntl.h>
#include <pthread.h>
#include <uv.h>

#include "base/err.h"
#include "base/mem.h"

struct post {
    loop_fn *fn;
    void *arg;
    struct post *next;
};

struct loop {
    uv_loop_t uv;
    uv_async_t wake;
    pthread_t owner;
    pthread_mutex_t lock; /* guards the mailbox: first, last */
    struct post *first, **last;
};

struct loop_watch {
    union {
        uv_handle_t handle;
        uv_poll_t poll;
        uv_timer_t timer;
        uv_signal_t signal;
    } u;
    int fd;
    loop_fd_fn *fd_fn;
    loop_fn *fn;
    void *arg;
};

static struct post *mailbox_take(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    struct post *p = l->first;
    l->first = NULL;
    l->last = &l->first;
    pthread_mutex_unlock(&l->lock);
    return p;
}

static void deliver(uv_async_t *wake)
{
    struct post *p = mailbox_take(wake->data);

    while (p) {
        struct post *next = p->next;

        p->fn(p->arg);
        free(p);
        p = next;
    }
}

int loop_new(struct loop **ret, struct err *e)
{
    struct loop *l = mem_new(struct loop);
    int rc = uv_loop_init(&l->uv);

    if (rc < 0) {
        free(l);
        return err_sysno(e, -rc, "make the event loop");
    }
    rc = uv_async_init(&l->uv, &l->wake, deliver);
    if (rc < 0) {
        uv_loop_close(&l->uv);
        free(l);
        return err_sysno(e, -rc, "make the event loop's mailbox");
    }
    l->wake.data = l;
    l->owner = pthread_self();
    pthread_mutex_init(&l->lock, NULL);
    l->last = &l->first;
    *ret = l;
    return 0;
}

void loop_free(struct loop *l)
{
    if (!l)
        return;
    uv_close((uv_handle_t *)&l->wake, NULL);
    /* Close callbacks of freed watches run here; nothing else may be left. Twice: a stop may be pending. */
    if (uv_run(&l->uv, UV_RUN_DEFAULT))
        uv_run(&l->uv, UV_RUN_DEFAULT);
    BUG_ON(uv_loop_close(&l->uv) != 0);
    for (struct post *p = mailbox_take(l), *next; p; p = next) {
        next = p->next;
        free(p);
    }
    pthread_mutex_destroy(&l->lock);
    free(l);
}

void loop_run(struct loop *l)
{
    loop_assert_main(l);
    uv_run(&l->uv, UV_RUN_DEFAULT);
}

void loop_drain(struct loop *l)
{
    loop_assert_main(l);
    deliver(&l->wake);
}

void loop_stop(struct loop *l)
{
    uv_stop(&l->uv);
}

void loop_assert_main(struct loop *l)
{
    BUG_ON(!pthread_equal(l->owner, pthread_self()));
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct loop_watch *w = h->data;
    int got = (events & UV_READABLE ? LOOP_READ : 0) | (events & UV_WRITABLE ? LOOP_WRITE : 0);

    /* An error is told as readiness: the owner's next call on the descriptor says what it is. */
    w->fd_fn(w->arg, w->fd, status < 0 ? LOOP_READ | LOOP_WRITE : got);
}

struct loop_watch *loop_add_fd(struct loop *l, int fd, int events, loop_fd_fn *fn, void *arg)
{
    struct loop_watch *w = mem_new(struct loop_watch);
    int flags = fcntl(fd, F_GETFL);

    loop_assert_main(l);
    BUG_ON(flags < 0 || uv_poll_init(&l->uv, &w->u.poll, fd) < 0);
    BUG_ON(fcntl(fd, F_SETFL, flags) < 0);
    w->fd = fd;
    w->fd_fn = fn;
    w->arg = arg;
    w->u.poll.data = w;
    BUG_ON(uv_poll_start(&w->u.poll,
                         (events & LOOP_READ ? UV_READABLE : 0) |
                             (events & LOOP_WRITE ? UV_WRITABLE : 0),
                         on_poll) < 0);
    return w;
}

static void on_timer(uv_timer_t *h)
{
    struct loop_watch *w = h->data;

    w->fn(w->arg);
}

struct loop_watch *loop_add_timer(struct loop *l, loop_fn *fn, void *arg)
{
    struct loop_watch *w = mem_new(struct loop_watch);

    loop_assert_main(l);
    uv_timer_init(&l->uv, &w->u.timer);
    w->fn = fn;
    w->arg = arg;
    w->u.timer.data = w;
    return w;
}

void loop_arm(struct loop_watch *timer, uint64_t delay_ns)
{
    /* libuv counts from the start of the loop's round; a long callback must not shorten the delay. */
    uv_update_time(timer->u.timer.loop);
    uv_timer_start(&timer->u.timer, on_timer, delay_ns / 1000000 + (delay_ns % 1000000 != 0), 0);
}

void loop_disarm(struct loop_watch *timer)
{
    uv_timer_stop(&timer->u.timer);
}

static void on_signal(uv_signal_t *h, int signo)
{
    struct loop_watch *w = h->data;

    (void)signo;
    w->fn(w->arg);
}

struct loop_watch *loop_add_signal(struct loop *l, int signo, loop_fn *fn, void *arg)
{
    struct loop_watch *w = mem_new(struct loop_watch);

    loop_assert_main(l);
    uv_signal_init(&l->uv, &w->u.signal);
    w->fn = fn;
    w->arg = arg;
    w->u.signal.data = w;
    BUG_ON(uv_signal_start(&w->u.signal, on_signal, signo) < 0);
    return w;
}

static void on_closed(uv_handle_t *h)
{
    free(h->data);
}

void loop_watch_free(struct loop_watch *w)
{
    if (w)
        uv_close(&w->u.handle, on_closed);
}

void loop_post(struct loop *l, loop_fn *fn, void *arg)
{
    struct post *p = mem_new(struct post);

    p->fn = fn;
    p->arg = arg;
    pthread_mutex_lock(&l->lock);
    *l->last = p;
    l->last = &p->next;
    pthread_mutex_unlock(&l->lock);
    uv_async_send(&l->wake);
}
