#include "base/pubkey.h"

#include <limits.h>

#include "base/err.h"
#include "base/late_crypto.h"
#include "base/mem.h"

struct pubkey {
    EVP_PKEY *key;
    bool digests; /* signs a SHA-256; else the bytes themselves (Ed25519) */
};

void pubkey_free(struct pubkey *k)
{
    if (!k)
        return;
    EVP_PKEY_free(k->key);
    free(k);
}

static bool is_strong(const EVP_PKEY *key)
{
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_EC: return EVP_PKEY_get_bits(key) >= 256;
    case EVP_PKEY_RSA: return EVP_PKEY_get_bits(key) >= 2048;
    case EVP_PKEY_ED25519: return true;
    default: return false;
    }
}

int pubkey_parse(const char *pem, size_t n, struct pubkey **ret, struct err *e)
{
    AUTO(pubkey) struct pubkey *k = mem_new(struct pubkey);
    BIO *bio = n <= INT_MAX ? BIO_new_mem_buf(pem, (int)n) : NULL;

    if (bio)
        k->key = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
    BIO_free(bio);
    ERR_clear_error();
    if (!k->key)
        return err_set(e, ERR_USER, "is not a public key in PEM form");
    if (!is_strong(k->key))
        return err_set(
            e, ERR_USER,
            "is not a key of a kind that is taken: ECDSA from P-256, RSA from 2048 bits, Ed25519");
    k->digests = EVP_PKEY_get_base_id(k->key) != EVP_PKEY_ED25519;
    *ret = take_ptr(&k);
    return 0;
}

bool pubkey_verifies(const struct pubkey *k, const void *data, size_t n, const void *signature,
                     size_t signature_n)
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    bool ok = c &&
              EVP_DigestVerifyInit(c, NULL, k->digests ? EVP_sha256() : NULL, NULL, k->key) == 1 &&
              EVP_DigestVerify(c, signature, signature_n, data, n) == 1;

    EVP_MD_CTX_free(c);
    ERR_clear_error(); /* what the queue holds is this thread's, and nobody's business */
    return ok;
}
