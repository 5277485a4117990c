#pragma once
/*
 * gunzip_inner.h - what oci/gunzip and oci/gunzip_ahead share. Inside of oci/gunzip.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "oci/gunzip.h"
#include "oci/inflate_block.h"

enum { GUNZIP_CHUNKS = 32 }; /* of one stream at most */

struct inflate_chunk;

struct chunk_queue {
    struct inflate_chunk *each[GUNZIP_CHUNKS];
    unsigned n;
};

/* Chunks of a stream. */
struct ahead {
    struct inflate_crew *crew;  /* NULL: none are made */
    bool joined;                /* it may be asked for chunks */
    struct chunk_queue guessed; /* in the order of the stream */
    struct chunk_queue adopted; /* not yet written, in order */
    uint64_t next;              /* byte of the stream that the next one begins at */
    size_t share;               /* bytes of the stream for one */
    size_t gap;                 /* bytes between two, which the decoder goes through meanwhile */
    unsigned misses;            /* dropped since the last one was adopted */
    uint64_t pause_until;       /* byte of the stream */
    uint64_t bytes;             /* that came from them */
};

enum gunzip_place { GUNZIP_HEADER, GUNZIP_BODY, GUNZIP_TRAILER };

struct gunzip {
    gunzip_sink *sink;
    void *arg;
    uint64_t max_output, out;

    uint8_t *in; /* GUNZIP_INPUT bytes: of the stream from byte `origin` on */
    size_t n;    /* that are there */
    uint64_t origin;
    bool ended; /* no more will come for now: use what is there */
    enum gunzip_place place;
    bool has_member; /* one has ended */
    uint32_t crc, size;

    struct inflate state;        /* its pos is from in[0] on, in header and trailer too */
    struct inflate_bytes window; /* the window, and bytes behind it */
    size_t written;              /* of the bytes */

    struct ahead ahead;
    bool waits;                            /* for input, more than it works */
    uint64_t idle_ns, busy_ns, stopped_ns; /* since it was judged; when it last returned */
};

/* Bytes of the stream in order, from whoever decoded them. */
int gunzip_write(struct gunzip *g, const void *data, size_t n, struct err *e);
/* What this decoder has written and not yet given on. */
int gunzip_write_own(struct gunzip *g, struct err *e);

/* gunzip_ahead.c; all do nothing without a crew. */

/* Posts what is far enough ahead. */
void gunzip_ahead_guess(struct gunzip *g);
/* Between two blocks: 1 when a chunk was adopted, and the decoder is where it ended; 0 to go on alone; -1. */
int gunzip_ahead_adopt(struct gunzip *g, struct err *e);
/* Writes what was adopted. */
int gunzip_ahead_write(struct gunzip *g, struct err *e);
/* May input be held for it? */
bool gunzip_ahead_joins(struct gunzip *g);
/* Gives back what is the crew's, which is then not used any more. */
void gunzip_ahead_free(struct gunzip *g);
