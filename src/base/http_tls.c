/*
 * TLS settings of a transfer. Of several client certificates libcurl takes one, before the server has said whose it
 * wants; so these are given to OpenSSL, which asks when it knows.
 */
#include <pthread.h>
#include <string.h>

#include "base/bounds.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/http_transfer.h"
#include "base/late_crypto.h"
#include "base/late_ssl.h"
#include "base/mem.h"

struct identity {
    X509 *cert;
    EVP_PKEY *key;
    STACK_OF(X509) * chain;
};

/* Belongs to an SSL_CTX, which may live longer than the transfer. */
struct identities {
    struct identity *items;
    size_t n;
};

static pthread_once_t index_once = PTHREAD_ONCE_INIT;
static int ctx_index;

static void identities_free(struct identities *all)
{
    for (size_t i = 0; i < all->n; i++) {
        X509_free(all->items[i].cert);
        EVP_PKEY_free(all->items[i].key);
        sk_X509_pop_free(all->items[i].chain, X509_free);
    }
    free(all->items);
    free(all);
}

static void free_with_ctx(void *parent UNUSED, void *data, CRYPTO_EX_DATA *ad UNUSED,
                          int idx UNUSED, long argl UNUSED, void *argp UNUSED)
{
    if (data)
        identities_free(data);
}

static void make_index(void)
{
    ctx_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_with_ctx);
    BUG_ON(ctx_index < 0);
}

/* A key with a passphrase is none: nobody is there to be asked. */
static int no_passphrase(char *buf UNUSED, int size UNUSED, int rw UNUSED, void *arg UNUSED)
{
    return 0;
}

static bool read_identity(struct identity *id, const char *cert_file, const char *key_file)
{
    BIO *certs = BIO_new_file(cert_file, "re"), *key = BIO_new_file(key_file, "re");
    X509 *more;

    id->chain = sk_X509_new_null();
    id->cert = certs ? PEM_read_bio_X509_AUX(certs, NULL, no_passphrase, NULL) : NULL;
    while (id->cert && (more = PEM_read_bio_X509(certs, NULL, no_passphrase, NULL)))
        sk_X509_push(id->chain, more);
    id->key = key ? PEM_read_bio_PrivateKey(key, NULL, no_passphrase, NULL) : NULL;
    BIO_free(certs);
    BIO_free(key);
    return id->cert && id->key && X509_check_private_key(id->cert, id->key) == 1;
}

static bool is_of(const X509 *cert, const STACK_OF(X509_NAME) * authorities)
{
    for (int i = 0; i < sk_X509_NAME_num(authorities); i++)
        if (X509_NAME_cmp(X509_get_issuer_name(cert), sk_X509_NAME_value(authorities, i)) == 0)
            return true;
    return false;
}

/* Is it, or one its chain goes through, by an authority that the server named? Naming none, it takes all. */
static bool suits(const struct identity *id, const STACK_OF(X509_NAME) * authorities)
{
    bool fits = sk_X509_NAME_num(authorities) <= 0 || is_of(id->cert, authorities);

    for (int i = 0; i < sk_X509_num(id->chain) && !fits; i++)
        fits = is_of(sk_X509_value(id->chain, i), authorities);
    return fits;
}

/* The server asks for a certificate. None of ours: it is told so, and decides. */
static int choose(SSL *ssl, void *arg UNUSED)
{
    const struct identities *all = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), ctx_index);

    for (size_t i = 0; all && i < all->n; i++) {
        const struct identity *id = &all->items[i];

        if (suits(id, SSL_get0_peer_CA_list(ssl)))
            return SSL_use_certificate(ssl, id->cert) == 1 &&
                   SSL_use_PrivateKey(ssl, id->key) == 1 && SSL_set1_chain(ssl, id->chain) == 1;
    }
    return 1;
}

static CURLcode on_context(CURL *easy UNUSED, void *context, void *arg)
{
    struct transfer *t = arg;
    const struct str_list *files = t->tls->identities;
    struct identities *all = mem_new(struct identities);
    CURLcode rc = CURLE_OK;

    all->items = mem_array(files->n / 2, sizeof(*all->items));
    for (size_t i = 0; i + 1 < files->n && rc == CURLE_OK; i += 2)
        if (!read_identity(&all->items[all->n++], files->items[i], files->items[i + 1])) {
            err_set(t->e, ERR_HOST, "client certificate %s cannot be used with its key %s",
                    files->items[i], files->items[i + 1]);
            t->failed = true;
            rc = CURLE_SSL_CERTPROBLEM;
        }
    if (rc != CURLE_OK || SSL_CTX_set_ex_data(context, ctx_index, all) != 1) {
        identities_free(all);
        return CURLE_SSL_CERTPROBLEM;
    }
    SSL_CTX_set_cert_cb(context, choose, NULL);
    return CURLE_OK;
}

#define SET(option, value) BUG_ON(curl_easy_setopt(easy, option, value) != CURLE_OK)

static CURLcode set_files(CURL *easy, const struct http_tls *tls)
{
    CURLcode rc = CURLE_OK;

    if (tls->ca_pem) {
        struct curl_blob blob = {(void *)tls->ca_pem, strlen(tls->ca_pem), CURL_BLOB_COPY};

        rc = curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &blob);
    }
    if (rc == CURLE_OK && tls->ca_file)
        rc = curl_easy_setopt(easy, CURLOPT_CAINFO, tls->ca_file);
    if (rc == CURLE_OK && tls->ca_dir)
        rc = curl_easy_setopt(easy, CURLOPT_CAPATH, tls->ca_dir);
    if (rc == CURLE_OK && tls->cert_file)
        rc = curl_easy_setopt(easy, CURLOPT_SSLCERT, tls->cert_file);
    if (rc == CURLE_OK && tls->key_file)
        rc = curl_easy_setopt(easy, CURLOPT_SSLKEY, tls->key_file);
    return rc;
}

int http_tls_apply(struct transfer *t)
{
    CURL *easy = t->slot->easy;
    const struct http_tls *tls = t->tls;

    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (!tls)
        return 0;
    if (tls->insecure) {
        SET(CURLOPT_SSL_VERIFYPEER, 0L);
        SET(CURLOPT_SSL_VERIFYHOST, 0L);
    }
    if (tls->identities && tls->identities->n) {
        pthread_once(&index_once, make_index);
        SET(CURLOPT_SSL_CTX_FUNCTION, on_context);
        SET(CURLOPT_SSL_CTX_DATA, t);
    }
    CURLcode rc = set_files(easy, tls);

    return rc == CURLE_OK ? 0 : err_set(t->e, ERR_HOST, "TLS settings: %s", curl_easy_strerror(rc));
}
