#pragma once
/*
 * unpacker.h - a layer taken apart on threads of its own, which can do little else (S31).
 *
 *   network thread ─ tube ─► verify, inflate, verify ─► files            one confined thread
 *   network thread ─ tube ─► verify, inflate, verify ─ tube ─► files     two, when cores are idle
 *
 * The thread that fetches a layer feeds it, and waits for the end. Order: unpacker_start, unpacker_feed as bytes
 * come, unpacker_end always; then the layer is the caller's again. Threads: one at a time.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

struct err;
struct oci_layer;
struct unpacker;

/* The layer is lent until unpacker_end. split: two threads. */
int unpacker_start(struct oci_layer *layer, bool split, struct unpacker **ret, struct err *e)
    MUST_CHECK;
/* Waits while they are behind. -1: they have failed; unpacker_end says why, too. */
int unpacker_feed(struct unpacker *u, const void *data, size_t n, struct err *e) MUST_CHECK;
/*
 * why: NULL when all bytes came: then oci_layer_finish is made; else what went wrong with the fetching. May be e.
 * Waits for the threads and frees u. 0, or -1 with what went wrong first, there or here.
 */
int unpacker_end(struct unpacker *u, const struct err *why, struct err *e) MUST_CHECK;
