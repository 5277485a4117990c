#pragma once
/*
 * tar_maker.h - tar streams written by hand, so that they may say what no decent tool would.
 */
#include <stdio.h>
#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/str.h"

struct tar_member {
    const char *path;
    char type; /* '0', '5', … */
    const char *link, *data;
    size_t n; /* of data; 0: strlen */
    unsigned mode, uid, gid, mtime, major, minor;
};

static inline void tar_checksum(unsigned char *h)
{
    unsigned sum = 0;

    memset(h + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += h[i];
    snprintf((char *)h + 148, 8, "%06o", sum & 0777777);
}

static inline void tar_header(unsigned char h[512], const struct tar_member *m, size_t size)
{
    memset(h, 0, 512);
    memcpy(h, m->path, strnlen(m->path, 100));
    snprintf((char *)h + 100, 8, "%07o", m->mode & 07777);
    snprintf((char *)h + 108, 8, "%07o", m->uid & 07777777);
    snprintf((char *)h + 116, 8, "%07o", m->gid & 07777777);
    snprintf((char *)h + 124, 12, "%011zo", size & 077777777777);
    snprintf((char *)h + 136, 12, "%011o", m->mtime);
    h[156] = (unsigned char)m->type;
    if (m->link)
        memcpy(h + 157, m->link, strnlen(m->link, 100));
    memcpy(h + 257, "ustar\00000", 8);
    snprintf((char *)h + 329, 8, "%07o", m->major & 07777777);
    snprintf((char *)h + 337, 8, "%07o", m->minor & 07777777);
    tar_checksum(h);
}

static inline void tar_bytes(struct str *out, const void *data, size_t n)
{
    BUG_ON(str_append(out, data, n) < 0);
}

static inline void tar_data(struct str *out, const void *data, size_t n)
{
    static const char zero[512];

    tar_bytes(out, data, n);
    tar_bytes(out, zero, -n & 511);
}

static inline void tar_put(struct str *out, const struct tar_member *m)
{
    unsigned char h[512];
    size_t n = m->n ? m->n : m->data ? strlen(m->data) : 0;

    tar_header(h, m, n);
    tar_bytes(out, h, sizeof(h));
    if (n)
        tar_data(out, m->data, n);
}

/* One PAX record of an `x` header; the value may hold anything. */
static inline void tar_record(struct str *records, const char *key, const void *value, size_t n)
{
    size_t len = strlen(key) + n + 3, digits = 1;
    char number[24];

    while ((size_t)snprintf(number, sizeof(number), "%zu", len + digits) != digits)
        digits++;
    BUG_ON(str_appendf(records, "%zu %s=", len + digits, key) < 0);
    tar_bytes(records, value, n);
    tar_bytes(records, "\n", 1);
}

static inline void tar_pax(struct str *out, const struct str *records)
{
    tar_put(out, &(struct tar_member){
                     .path = "pax", .type = 'x', .data = records->buf, .n = records->len});
}

static inline void tar_pax1(struct str *out, const char *key, const char *value)
{
    AUTO(str) struct str r = STR_INIT(BOUND_MIB);

    tar_record(&r, key, value, strlen(value));
    tar_pax(out, &r);
}

static inline void tar_end(struct str *out)
{
    static const char zero[1024];

    tar_bytes(out, zero, sizeof(zero));
}
