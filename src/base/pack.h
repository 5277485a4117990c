#pragma once
/*
 * pack.h - numbers and byte strings in a row, for files that only this very program reads again.
 *
 * Not for anything from outside: numbers are as the machine has them. Reading is bounded all the same, as a file may be
 * cut off. Threads: any.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct str;

/* False when the buffer has reached its bound. */
bool pack_u64(struct str *out, uint64_t v);
bool pack_bytes(struct str *out, const void *data, size_t n);
bool pack_text(struct str *out, const char *text); /* not NULL */

struct unpack {
    const char *p;
    size_t n; /* left */
};
/* False when there is not that much; u is then of no more use. */
bool pack_read_u64(struct unpack *u, uint64_t *ret);
/* Exactly n bytes were packed. */
bool pack_read_bytes(struct unpack *u, void *ret, size_t n);
/* What is packed next: borrowed from u's buffer. */
bool pack_read_view(struct unpack *u, const void **ret, size_t *ret_n);
bool pack_read_text(struct unpack *u, char **ret); /* a new string */
