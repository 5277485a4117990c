#pragma once
/*
 * tube.h - bytes from one thread to another, through a bounded buffer: joins what pushes to what pulls.
 *
 * The writer ends with tube_close; the reader that wants no more says tube_break. Threads: one writer, one reader.
 * Ownership: whoever made it frees it when both are done.
 */
#include <stddef.h>

#include "base/cleanup.h"

struct err;
struct tube;

struct tube *tube_new(size_t bytes);
void tube_free(struct tube *t);
DEFINE_AUTO(tube, tube_free)
/* Blocks while the tube is full. -1 when the reader is gone: with its error, if it gave one. */
int tube_write(struct tube *t, const void *data, size_t n, struct err *e) MUST_CHECK;
/* Blocks while it is empty. Up to n bytes, 0 at the end, -1 with the writer's error. */
long tube_read(struct tube *t, void *buf, size_t n, struct err *e) MUST_CHECK;
/* The same without a copy: *ret points to the bytes until tube_consume has let (some of) them go. */
long tube_peek(struct tube *t, const void **ret, struct err *e) MUST_CHECK;
void tube_consume(struct tube *t, size_t n);
/* The writer's end; why: NULL when all is written. */
void tube_close(struct tube *t, const struct err *why);
/* The reader's end; why: NULL when it has enough. */
void tube_break(struct tube *t, const struct err *why);
