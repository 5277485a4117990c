#pragma once
/*
 * late_crypto.h - libcrypto, loaded when it is first used (late.h): it has nine tenths of all relocations of a
 * program that is linked with it. Instead of <openssl/evp.h> and the like. A confined thread loads nothing: confine.c sees to
 * it before.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>

#define LATE_CRYPTO(X)         \
    X(BIO_free)                \
    X(BIO_new_file)            \
    X(BIO_new_mem_buf)         \
    X(CRYPTO_get_ex_new_index) \
    X(ERR_clear_error)         \
    X(EVP_DecodeBlock)         \
    X(EVP_DigestVerify)        \
    X(EVP_DigestVerifyInit)    \
    X(EVP_EncodeBlock)         \
    X(EVP_MD_CTX_free)         \
    X(EVP_MD_CTX_new)          \
    X(EVP_PKEY_free)           \
    X(EVP_PKEY_get_base_id)    \
    X(EVP_PKEY_get_bits)       \
    X(EVP_sha256)              \
    X(OPENSSL_sk_new_null)     \
    X(OPENSSL_sk_num)          \
    X(OPENSSL_sk_pop_free)     \
    X(OPENSSL_sk_push)         \
    X(OPENSSL_sk_value)        \
    X(PEM_read_bio_PUBKEY)     \
    X(PEM_read_bio_PrivateKey) \
    X(PEM_read_bio_X509)       \
    X(PEM_read_bio_X509_AUX)   \
    X(SHA1)                    \
    X(SHA256_Final)            \
    X(SHA256_Init)             \
    X(SHA256_Update)           \
    X(SHA512_Final)            \
    X(SHA512_Init)             \
    X(SHA512_Update)           \
    X(X509_NAME_cmp)           \
    X(X509_check_private_key)  \
    X(X509_free)               \
    X(X509_get_issuer_name)

struct late_crypto {
#define LATE_MEMBER(f) __typeof__(&(f)) to_##f;
    LATE_CRYPTO(LATE_MEMBER)
#undef LATE_MEMBER
};
const struct late_crypto *late_crypto(void);

#undef EVP_PKEY_get_base_id
#define BIO_free                (late_crypto()->to_BIO_free)
#define BIO_new_file            (late_crypto()->to_BIO_new_file)
#define BIO_new_mem_buf         (late_crypto()->to_BIO_new_mem_buf)
#define CRYPTO_get_ex_new_index (late_crypto()->to_CRYPTO_get_ex_new_index)
#define ERR_clear_error         (late_crypto()->to_ERR_clear_error)
#define EVP_DecodeBlock         (late_crypto()->to_EVP_DecodeBlock)
#define EVP_DigestVerify        (late_crypto()->to_EVP_DigestVerify)
#define EVP_DigestVerifyInit    (late_crypto()->to_EVP_DigestVerifyInit)
#define EVP_EncodeBlock         (late_crypto()->to_EVP_EncodeBlock)
#define EVP_MD_CTX_free         (late_crypto()->to_EVP_MD_CTX_free)
#define EVP_MD_CTX_new          (late_crypto()->to_EVP_MD_CTX_new)
#define EVP_PKEY_free           (late_crypto()->to_EVP_PKEY_free)
#define EVP_PKEY_get_base_id    (late_crypto()->to_EVP_PKEY_get_base_id)
#define EVP_PKEY_get_bits       (late_crypto()->to_EVP_PKEY_get_bits)
#define EVP_sha256              (late_crypto()->to_EVP_sha256)
#define OPENSSL_sk_new_null     (late_crypto()->to_OPENSSL_sk_new_null)
#define OPENSSL_sk_num          (late_crypto()->to_OPENSSL_sk_num)
#define OPENSSL_sk_pop_free     (late_crypto()->to_OPENSSL_sk_pop_free)
#define OPENSSL_sk_push         (late_crypto()->to_OPENSSL_sk_push)
#define OPENSSL_sk_value        (late_crypto()->to_OPENSSL_sk_value)
#define PEM_read_bio_PUBKEY     (late_crypto()->to_PEM_read_bio_PUBKEY)
#define PEM_read_bio_PrivateKey (late_crypto()->to_PEM_read_bio_PrivateKey)
#define PEM_read_bio_X509       (late_crypto()->to_PEM_read_bio_X509)
#define PEM_read_bio_X509_AUX   (late_crypto()->to_PEM_read_bio_X509_AUX)
#define SHA1                    (late_crypto()->to_SHA1)
#define SHA256_Final            (late_crypto()->to_SHA256_Final)
#define SHA256_Init             (late_crypto()->to_SHA256_Init)
#define SHA256_Update           (late_crypto()->to_SHA256_Update)
#define SHA512_Final            (late_crypto()->to_SHA512_Final)
#define SHA512_Init             (late_crypto()->to_SHA512_Init)
#define SHA512_Update           (late_crypto()->to_SHA512_Update)
#define X509_NAME_cmp           (late_crypto()->to_X509_NAME_cmp)
#define X509_check_private_key  (late_crypto()->to_X509_check_private_key)
#define X509_free               (late_crypto()->to_X509_free)
#define X509_get_issuer_name    (late_crypto()->to_X509_get_issuer_name)
