#pragma once
/*
 * digest.h - streaming SHA-256/512 (OpenSSL), and the digest grammar (S13). Threads: any.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

struct err;

#define DIGEST_TEXT_MAX (7 + 128 + 1) /* "sha512:" + 128 hex + NUL */

/* "sha256:" + 64 or "sha512:" + 128 lower-case hex digits, nothing else. */
bool digest_is_valid(const char *text);
/* The hex part; borrowed. */
const char *digest_hex(const char *text);

struct digest;
/* algorithm: "sha256" or "sha512", or a whole digest text whose algorithm is taken. */
struct digest *digest_new(const char *algorithm);
void digest_free(struct digest *d);
DEFINE_AUTO(digest, digest_free)
void digest_update(struct digest *d, const void *data, size_t n);
/* Text so far without ending the stream (for checkpoints and the end). */
void digest_text(const struct digest *d, char ret[DIGEST_TEXT_MAX]);
/* One shot, sha256. */
void digest_of(const void *data, size_t n, char ret[DIGEST_TEXT_MAX]);
/* The state in the middle of a stream, for a digest of the same algorithm in a later process of this very program.
 * False when the buffer is full; when it is no such state. */
struct str;
struct unpack;
bool digest_save(const struct digest *d, struct str *out);
bool digest_restore(struct digest *d, struct unpack *in);
