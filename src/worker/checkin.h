#pragma once
/*
 * checkin.h - the check-in loop: when to call, never two at a time, what after a failure (protocol 2.4, 3.5).
 *
 * The server holds a check-in open for up to 5 s: it waits on a thread of its own, and runs are not delayed
 * (B041). At most one is in flight (B040); the next begins `pause_ns` after the last returned (B042), or at once when
 * woken; after two failures in a row 5 s are added, for ever (B043).
 * Threads: main only. Ownership: checkin_new/checkin_free; free when checkin_is_in_flight is false.
 */
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct checkin;
struct lane;
struct loop;
struct service;

struct checkin_opts {
    struct loop *loop;
    struct lane *lane; /* its own, one thread */
    struct service *service;
    uint64_t pause_ns;
    char *(*body)(void *arg);                         /* the request as of now; a new string */
    void (*accepted)(void *arg, const cJSON *answer); /* 200; answer is an array */
    void (*failed)(void *arg);
    void *arg;
};

struct checkin *checkin_new(const struct checkin_opts *o);
/* Call as soon as possible: now, or when the one in flight has returned (B182). */
void checkin_wake(struct checkin *c);
/*
 * Something that people wait for is to be told: as checkin_wake, but not while the server is away. One in flight is
 * waited for, up to the 5 s the server holds it: given up, it may be carrying a message, which would be lost (1.6).
 * See nudge.h for how it is made to return.
 */
void checkin_tell(struct checkin *c);
/* From `accepted` only: if nothing calls it earlier, the next one begins so soon, instead of after the pause. */
void checkin_next_in(struct checkin *c, uint64_t ns);
/* No more calls; the one in flight is cancelled. */
void checkin_stop(struct checkin *c);
bool checkin_is_in_flight(const struct checkin *c);
bool checkin_is_waited_for(
    const struct checkin *c); /* one is in flight, and there is news behind it */
bool checkin_has_succeeded(const struct checkin *c);       /* the last one did */
uint64_t checkin_last_success_ns(const struct checkin *c); /* 0: never */
void checkin_free(struct checkin *c);
