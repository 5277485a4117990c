/*
 * OpenSSL's low-level interface, because its EVP has no way to put a state aside in the middle of a stream, which a
 * pull needs to go on after a restart. Both run the same assembly, with the CPU's SHA extensions.
 */
#include "base/digest.h"

#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/late_crypto.h"
#include "base/mem.h"
#include "base/pack.h"
#include "base/str.h"

union state {
    SHA256_CTX sha256;
    SHA512_CTX sha512;
};

static void init256(union state *s)
{
    BUG_ON(SHA256_Init(&s->sha256) != 1);
}

static void update256(union state *s, const void *data, size_t n)
{
    BUG_ON(SHA256_Update(&s->sha256, data, n) != 1);
}

static void final256(union state *s, unsigned char *sum)
{
    BUG_ON(SHA256_Final(sum, &s->sha256) != 1);
}

static void init512(union state *s)
{
    BUG_ON(SHA512_Init(&s->sha512) != 1);
}

static void update512(union state *s, const void *data, size_t n)
{
    BUG_ON(SHA512_Update(&s->sha512, data, n) != 1);
}

static void final512(union state *s, unsigned char *sum)
{
    BUG_ON(SHA512_Final(sum, &s->sha512) != 1);
}

static const struct algorithm {
    const char *prefix;
    size_t hex, state;
    void (*init)(union state *s);
    void (*update)(union state *s, const void *data, size_t n);
    void (*final)(union state *s, unsigned char *sum);
} algorithms[] = {
    {"sha256:", 64, sizeof(SHA256_CTX), init256, update256, final256},
    {"sha512:", 128, sizeof(SHA512_CTX), init512, update512, final512},
};

struct digest {
    const struct algorithm *algorithm;
    union state state;
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
    d->algorithm->init(&d->state);
    return d;
}

void digest_free(struct digest *d)
{
    free(d);
}

void digest_update(struct digest *d, const void *data, size_t n)
{
    d->algorithm->update(&d->state, data, n);
}

void digest_text(const struct digest *d, char ret[DIGEST_TEXT_MAX])
{
    unsigned char sum[SHA512_DIGEST_LENGTH];
    union state copy = d->state;
    char *p = stpcpy(ret, d->algorithm->prefix);

    d->algorithm->final(&copy, sum);
    for (size_t i = 0; i < d->algorithm->hex / 2; i++) {
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

bool digest_save(const struct digest *d, struct str *out)
{
    return pack_bytes(out, &d->state, d->algorithm->state);
}

bool digest_restore(struct digest *d, struct unpack *in)
{
    return pack_read_bytes(in, &d->state, d->algorithm->state);
}
