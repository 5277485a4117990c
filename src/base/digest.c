#include "base/digest.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

static const struct algorithm {
    const char *prefix;
    size_t hex;
    const EVP_MD *(*md)(void);
} algorithms[] = {
    {"sha256:", 64, EVP_sha256},
    {"sha512:", 128, EVP_sha512},
};

struct digest {
    const struct algorithm *algorithm;
    EVP_MD_CTX *ctx;
};

static const struct algorithm *find(const char *text)
{
    for (size_t i = 0; i < ARRAY_SIZE(algorithms); i++) {
        const char *prefix = algorithms[i].prefix;

        if (str_starts(text, prefix) || (strlen(text) == 6 && !memcmp(text, prefix, 6)))
            return &algorithms[i];
    }
    return NULL;
}

bool digest_is_valid(const char *text)
{
    const struct algorithm *a = text ? find(text) : NULL;

    if (!a || !str_starts(text, a->prefix))
        return false;
    const char *hex = text + strlen(a->prefix);

    return strlen(hex) == a->hex && strspn(hex, "0123456789abcdef") == a->hex;
}

const char *digest_hex(const char *text)
{
    const char *colon = strchr(text, ':');

    return colon ? colon + 1 : text;
}

struct digest *digest_new(const char *algorithm)
{
    struct digest *d = mem_new(struct digest);

    d->algorithm = find(algorithm);
    BUG_ON(!d->algorithm);
    d->ctx = EVP_MD_CTX_new();
    BUG_ON(!d->ctx || EVP_DigestInit_ex(d->ctx, d->algorithm->md(), NULL) != 1);
    return d;
}

void digest_free(struct digest *d)
{
    if (!d)
        return;
    EVP_MD_CTX_free(d->ctx);
    free(d);
}

void digest_update(struct digest *d, const void *data, size_t n)
{
    BUG_ON(EVP_DigestUpdate(d->ctx, data, n) != 1);
}

void digest_text(const struct digest *d, char ret[DIGEST_TEXT_MAX])
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    EVP_MD_CTX *copy = EVP_MD_CTX_new();

    BUG_ON(!copy || EVP_MD_CTX_copy_ex(copy, d->ctx) != 1 ||
           EVP_DigestFinal_ex(copy, sum, &n) != 1);
    EVP_MD_CTX_free(copy);
    char *p = stpcpy(ret, d->algorithm->prefix);

    for (unsigned i = 0; i < n; i++) {
        *p++ = "0123456789abcdef"[sum[i] >> 4];
        *p++ = "0123456789abcdef"[sum[i] & 15];
    }
    *p = '\0';
}

void digest_of(const void *data, size_t n, char ret[DIGEST_TEXT_MAX])
{
    AUTO(digest) struct digest *d = digest_new("sha256");

    digest_update(d, data, n);
    digest_text(d, ret);
}
