#pragma once
/*
 * pubkey.h - public keys and signatures made with them (OpenSSL). Threads: any; a key is immutable.
 *
 * Taken: ECDSA on P-256, P-384, P-521 and RSA (PKCS #1 v1.5) from 2048 bits on, both over SHA-256; Ed25519. Ownership: pubkey_free.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

struct err;
struct pubkey;

/* One PEM "PUBLIC KEY" (SubjectPublicKeyInfo). ERR_USER: not one, or of a kind that is not taken. */
int pubkey_parse(const char *pem, size_t n, struct pubkey **ret, struct err *e) MUST_CHECK;
void pubkey_free(struct pubkey *k);
DEFINE_AUTO(pubkey, pubkey_free)
/* Is `signature` (DER for ECDSA, plain for the others) one of these bytes by that key? Any doubt is false. */
bool pubkey_verifies(const struct pubkey *k, const void *data, size_t n, const void *signature,
                     size_t signature_n);
