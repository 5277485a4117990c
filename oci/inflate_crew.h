#pragma once
/*
 * inflate_crew.h - threads that decode chunks of deflate streams ahead, for the layers of one pull.
 *
 * One crew serves several streams. What it has at most is fixed when it is made: threads, and chunks with the memory they
 * need, so that a pull's memory does not grow with cores or layers. A stream takes a chunk when one is free and cores are
 * idle, fills it, posts it, and waits for it when its turn has come; it gives every chunk back before its own end.
 *
 *   taken ─post─► queued ─► at work ─► done ─(window known: post again)─► queued ─► at work ─► done ─give─► free
 *
 * The threads are confined to an empty set of descriptors and the directory given (S31).
 * Threads: any. Ownership: the crew outlives its streams.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

struct inflate_chunk;
struct inflate_crew;

struct inflate_crew_opts {
    unsigned threads, chunks; /* no threads: what is posted is done at once, by who posts */
    size_t search, input,
        memory; /* bytes: of a chunk's share of the stream at most; that it may see; to decode into */
    unsigned cores; /* of this machine; 0: do not look whether any is idle */
    int dir;        /* to confine the threads to; -1: not at all */
};

/* What a pull takes on a machine of so many cores: threads 0 when there is nothing to gain. Memory: below 8 MiB. */
struct inflate_crew_opts inflate_crew_usual(unsigned cores, int dir);
/* With as many of the threads as can be had. */
struct inflate_crew *inflate_crew_new(const struct inflate_crew_opts *o);
void inflate_crew_free(struct inflate_crew *c);
DEFINE_AUTO(inflate_crew, inflate_crew_free)
const struct inflate_crew_opts *inflate_crew_opts(const struct inflate_crew *c);
/* A layer is being unpacked, with two threads of its own; it is no more. c may be NULL. */
void inflate_crew_busy(struct inflate_crew *c, int layers);
/*
 * May a stream hold input for the crew to look ahead in? One at a time, while cores are idle: each that did would have megabytes
 * of it. Once it may, it may until it leaves.
 */
bool inflate_crew_join(struct inflate_crew *c);
void inflate_crew_leave(struct inflate_crew *c);
/* One that is free, if cores are idle; else NULL. */
struct inflate_chunk *inflate_crew_take(struct inflate_crew *c);
void inflate_crew_give(struct inflate_crew *c, struct inflate_chunk *chunk);
/* Decode it; or, resolve: fill in what was unknown, before anything else. */
void inflate_crew_post(struct inflate_crew *c, struct inflate_chunk *chunk, bool resolve);
/*
 * Wait until what was posted is done. A job that nobody has begun is taken back: false, and it is the caller's to do, or to
 * leave.
 */
bool inflate_crew_wait(struct inflate_crew *c, struct inflate_chunk *chunk);
bool inflate_crew_is_done(struct inflate_crew *c, struct inflate_chunk *chunk);
