#pragma once
/*
 * nudge.h - make the server let go of a check-in that it holds open, when there is news behind it.
 *
 * The server holds a check-in for up to 5 s, waiting for one message for us (protocol 1.8); a second one beside it may not
 * be begun (B040), and one that is given up may carry a message that is then lost. But a message ends it at once, and
 * there is one that everybody may cause: whoever looks at a bundle that runs here makes the server send its worker a
 * `read`. So we look at one of our own. The check-in returns with that read, which is answered as any other, and the
 * next one tells the news. It takes the server two small requests; so it is done for ends of runs only, not in the first
 * moment, when the check-in may return by itself, and no oftener than twice a second.
 * Threads: main only. Ownership: nudge_new/nudge_free; free when nudge_is_active is false.
 */
#include <stdbool.h>

struct lane;
struct loop;
struct nudge;
struct service;

struct nudge_opts {
    struct loop *loop;
    struct lane *lane; /* its own, one thread */
    struct service *service;
    /* Main thread, when it is due: the uuid of a run that the server knows to be running, borrowed until the loop goes
     * on; NULL: not needed any more, or there is none. */
    const char *(*whom)(void *arg);
    void *arg;
};

struct nudge *nudge_new(const struct nudge_opts *o);
/* There is news, and a check-in is held. */
void nudge_soon(struct nudge *n);
/* No more; the question in flight is cancelled. */
void nudge_stop(struct nudge *n);
bool nudge_is_active(const struct nudge *n);
void nudge_free(struct nudge *n);
