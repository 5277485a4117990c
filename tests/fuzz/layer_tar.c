/* rows: S05 S22 */
/*
 * Any bytes as a layer's tar: what is told of it does not depend on how the bytes were cut when they came; and what oci/tar.h
 * promises of entries holds. Sums of header blocks are put right first, as nobody would guess them.
 */
#include <stdio.h>
#include <string.h>

#include "base/bounds.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/mem.h"
#include "fuzz.h"
#include "oci/tar.h"

enum { BLOCK = 512, AT_SUM = 148, SUM = 8 };

/* What was told, as one number, so that two tellings can be compared. */
struct told {
    struct digest *all;
    uint64_t size, got; /* of the file */
    bool in_file;
    unsigned entries;
};

static void note(struct told *t, const void *data, size_t n)
{
    digest_update(t->all, data, n);
}

static void note_text(struct told *t, const char *text)
{
    note(t, text, strlen(text) + 1);
}

static int on_entry(void *arg, const struct tar_entry *d, struct err *e)
{
    struct told *t = arg;
    const uint64_t numbers[] = {d->type,
                                d->mode,
                                d->uid,
                                d->gid,
                                (uint64_t)d->mtime.tv_sec,
                                (uint64_t)d->mtime.tv_nsec,
                                d->size,
                                d->major,
                                d->minor,
                                d->n_xattrs};

    (void)e;
    BUG_ON(t->in_file || strlen(d->path) >= BOUND_PATH || strlen(d->link) >= BOUND_PATH);
    BUG_ON(d->mode > 07777 || d->uid == UINT32_MAX || d->gid == UINT32_MAX);
    BUG_ON(d->mtime.tv_nsec < 0 || d->mtime.tv_nsec >= 1000000000);
    BUG_ON(*d->link && d->type != TAR_SYMLINK && d->type != TAR_HARDLINK);
    note(t, numbers, sizeof(numbers));
    note_text(t, d->path);
    note_text(t, d->link);
    for (size_t i = 0; i < d->n_xattrs; i++) {
        note_text(t, d->xattrs[i].name);
        note(t, d->xattrs[i].value, d->xattrs[i].n);
    }
    t->in_file = d->type == TAR_FILE;
    t->size = d->size;
    t->got = 0;
    t->entries++;
    return 0;
}

static int on_data(void *arg, const void *data, size_t n, struct err *e)
{
    struct told *t = arg;

    (void)e;
    BUG_ON(!t->in_file || !n || n > t->size - t->got);
    t->got += n;
    note(t, data, n);
    return 0;
}

static int on_hole(void *arg, uint64_t n, struct err *e)
{
    struct told *t = arg;

    (void)e;
    BUG_ON(!t->in_file || !n || n > t->size - t->got);
    t->got += n;
    note(t, &n, sizeof(n));
    return 0;
}

static int on_end(void *arg, struct err *e)
{
    struct told *t = arg;

    (void)e;
    BUG_ON(!t->in_file || t->got != t->size);
    t->in_file = false;
    return 0;
}

/* In pieces of `step` bytes. How it ended, with the digest of what was told. */
static int tell(const uint8_t *data, size_t n, size_t step, char ret[DIGEST_TEXT_MAX])
{
    static const struct tar_ops ops = {on_entry, on_data, on_hole, on_end, NULL};
    struct told t = {.all = digest_new("sha256")};
    AUTO(tar) struct tar *tar = tar_new(&ops, &t);
    struct err e = ERR_INIT;
    int rc = 0;

    for (size_t at = 0; at < n && rc == 0; at += step)
        rc = tar_feed(tar, data + at, n - at < step ? n - at : step, &e);
    if (rc == 0)
        rc = tar_finish(tar, &e);
    BUG_ON(rc == 0 && t.in_file);
    note(&t, &t.entries, sizeof(t.entries));
    digest_text(t.all, ret);
    digest_free(t.all);
    return rc;
}

static void put_sums_right(uint8_t *data, size_t n)
{
    for (size_t at = 0; at + BLOCK <= n; at += BLOCK) {
        uint8_t *b = data + at;
        unsigned sum = 0;

        if (memcmp(b + 257, "ustar", 5) != 0)
            continue;
        memset(b + AT_SUM, ' ', SUM);
        for (int i = 0; i < BLOCK; i++)
            sum += b[i];
        snprintf((char *)b + AT_SUM, SUM, "%06o", sum);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const size_t steps[] = {1, 7, 512, 700};
    AUTO_FREE uint8_t *copy = mem_dup(data, n);
    char whole[DIGEST_TEXT_MAX], cut[DIGEST_TEXT_MAX];

    put_sums_right(copy, n);
    int rc = tell(copy, n, n + 1, whole);

    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        BUG_ON(tell(copy, n, steps[i], cut) != rc);
        BUG_ON(rc == 0 && strcmp(cut, whole) != 0);
    }
    return 0;
}
