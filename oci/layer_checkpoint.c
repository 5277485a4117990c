/*
 * Two halves meet here, maybe of two threads. The decoder's state is taken when all that was fed has been decoded, at
 * some plain offset U; the tar's and the tree's when the writer, which is behind, next comes between two entries, at
 * T >= U. Only then the file is written. Going on means decoding from U and writing from T.
 *
 *   magic, CRC of the rest, length | boot id, digest, diff id, size | received, U, head, digests, decoder | T, stand-ins, tree
 *
 * The magic is written last and wiped first: a file with it is whole, as far as a killed process goes.
 */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/pack.h"
#include "base/str.h"
#include "base/treesum.h"
#include "base/treewriter.h"
#include "oci/layer_inner.h"
#include "oci/tar.h"

#define AFTER_SPOILING BOUND_MIB

struct header {
    char magic[8];
    uint64_t crc, length;
};
/* With the version in it: another one's structs may look otherwise. */
static const char version[] = "cworker " CW_VERSION " " __VERSION__;
static const char magic[8] = "cwlayer2";

struct checkpoint {
    int fd;
    char *boot_id;
    uint64_t last; /* received when the last state was taken; who feeds only */

    pthread_mutex_t lock; /* guards the rest */
    struct str state;     /* the decoder's, packed */
    bool pending, spoiled;
    uint64_t offset; /* U */
};

void oci_layer_checkpoint_free(struct checkpoint *c)
{
    if (!c)
        return;
    pthread_mutex_destroy(&c->lock);
    str_free(&c->state);
    free(c->boot_id);
    free(c);
}

/* ---- making one ---- */

static bool pack_decoder(const struct oci_layer *l, struct str *out)
{
    return pack_u64(out, l->received) && pack_u64(out, oci_layer_decoder_out(l)) &&
           pack_bytes(out, l->head, sizeof(l->head)) && digest_save(l->blob, out) &&
           digest_save(l->diff, out) && oci_layer_decoder_save(l, out);
}

static bool is_due(struct oci_layer *l)
{
    struct checkpoint *c = l->checkpoint;

    pthread_mutex_lock(&c->lock);
    /* Soon again when there is none on disk, but not all the time. */
    uint64_t every = c->spoiled ? AFTER_SPOILING : BOUND_CHECKPOINT;
    bool due = !c->pending && l->received >= BOUND_CHECKPOINT && l->received - c->last >= every;

    pthread_mutex_unlock(&c->lock);
    return due;
}

int oci_layer_checkpoint_decoded(struct oci_layer *l, struct err *e)
{
    struct checkpoint *c = l->checkpoint;

    if (!c || !oci_layer_decoder_is_there(l) || !is_due(l))
        return 0;
    /* Without the lock: who writes may be this thread, too. */
    if (oci_layer_decoder_settle(l, e) < 0)
        return -1;
    pthread_mutex_lock(&c->lock);
    str_clear(&c->state);
    if (pack_decoder(l, &c->state)) {
        c->pending = true;
        c->offset = oci_layer_decoder_out(l);
        c->last = l->received;
    }
    pthread_mutex_unlock(&c->lock);
    return 0;
}

static bool pack_writer(const struct oci_layer *l, uint64_t offset, struct str *out)
{
    bool ok = pack_u64(out, offset) && pack_u64(out, l->n_stand_ins);

    for (size_t i = 0; ok && i < l->n_stand_ins; i++) {
        const struct stand_in *s = &l->stand_ins[i];

        ok = pack_text(out, s->target) && pack_text(out, s->path) && pack_u64(out, s->at_target) &&
             pack_u64(out, s->ino);
    }
    return ok && treewriter_save(l->writer, out);
}

static int wipe(int fd, struct err *e)
{
    static const struct header none;

    return pwrite(fd, &none, sizeof(none), 0) == sizeof(none) ? 0 : err_sys(e, "drop a checkpoint");
}

static int write_at(int fd, const char *p, size_t n, off_t at, struct err *e)
{
    while (n) {
        ssize_t done = pwrite(fd, p, n, at);

        if (done < 0)
            return err_sys(e, "write a checkpoint");
        p += done;
        n -= (size_t)done;
        at += done;
    }
    return 0;
}

static int write_file(struct checkpoint *c, const struct str *body, struct err *e)
{
    struct header h = {.crc = treesum_crc(TREESUM_CRC, body->buf, body->len), .length = body->len};

    memcpy(h.magic, magic, sizeof(h.magic));
    if (wipe(c->fd, e) < 0 || write_at(c->fd, body->buf, body->len, sizeof(h), e) < 0)
        return -1;
    return write_at(c->fd, (const char *)&h, sizeof(h), 0, e);
}

static bool pack_name(const struct oci_layer *l, const char *boot_id, struct str *out)
{
    return pack_text(out, version) && pack_text(out, boot_id) && pack_text(out, l->desc.diff_id) &&
           pack_text(out, l->desc.digest) && pack_u64(out, l->desc.size);
}

int oci_layer_checkpoint_between(struct oci_layer *l, uint64_t offset, struct err *e)
{
    struct checkpoint *c = l->checkpoint;
    AUTO(str) struct str body = STR_INIT(BOUND_CHECKPOINT_FILE);
    int rc = 0;

    if (!c)
        return 0;
    pthread_mutex_lock(&c->lock);
    bool due = c->pending && offset >= c->offset;

    if (due) {
        c->pending = false;
        if (!pack_name(l, c->boot_id, &body) || str_append(&body, c->state.buf, c->state.len) < 0 ||
            !pack_writer(l, offset, &body))
            due = false; /* too large: it goes without */
        c->spoiled = !due;
    }
    pthread_mutex_unlock(&c->lock);
    if (due)
        rc = write_file(c, &body, e);
    return rc;
}

int oci_layer_checkpoint_spoil(struct oci_layer *l, struct err *e)
{
    struct checkpoint *c = l->checkpoint;

    if (!c)
        return 0;
    pthread_mutex_lock(&c->lock);
    bool known = c->spoiled;

    c->spoiled = true;
    pthread_mutex_unlock(&c->lock);
    return known ? 0 : wipe(c->fd, e);
}

/* ---- going on ---- */

static bool read_file(int fd, struct str *body)
{
    struct header h;

    if (pread(fd, &h, sizeof(h), 0) != sizeof(h) || memcmp(h.magic, magic, sizeof(magic)) != 0 ||
        h.length > BOUND_CHECKPOINT_FILE)
        return false;
    AUTO_FREE char *data = mem_alloc(h.length + 1);

    return pread(fd, data, h.length, sizeof(h)) == (ssize_t)h.length &&
           treesum_crc(TREESUM_CRC, data, h.length) == h.crc &&
           str_append(body, data, h.length) == 0;
}

static bool next_is(struct unpack *u, const char *wanted)
{
    AUTO_FREE char *text = NULL;

    return pack_read_text(u, &text) && str_eq(text, wanted);
}

static bool is_of(const struct oci_layer *l, const char *boot_id, struct unpack *u)
{
    uint64_t size;

    return next_is(u, version) && next_is(u, boot_id) && next_is(u, l->desc.diff_id) &&
           next_is(u, l->desc.digest) && pack_read_u64(u, &size) && size == l->desc.size;
}

static bool unpack_decoder(struct oci_layer *l, struct unpack *u)
{
    if (!pack_read_u64(u, &l->received) || !pack_read_u64(u, &l->plain) ||
        !pack_read_bytes(u, l->head, sizeof(l->head)) || !digest_restore(l->blob, u) ||
        !digest_restore(l->diff, u))
        return false;
    l->head_n = sizeof(l->head);
    return oci_layer_decoder_restore(l, u);
}

static bool unpack_writer(struct oci_layer *l, struct unpack *u)
{
    uint64_t n, at_target, ino;

    if (!pack_read_u64(u, &l->skip_to) || !pack_read_u64(u, &n) || n > BOUND_TAR_LINKS)
        return false;
    l->stand_ins = mem_array(n, sizeof(*l->stand_ins));
    for (; n; n--) {
        struct stand_in *s = &l->stand_ins[l->n_stand_ins++];

        if (!pack_read_text(u, &s->target) || !pack_read_text(u, &s->path) ||
            !pack_read_u64(u, &at_target) || !pack_read_u64(u, &ino))
            return false;
        s->at_target = at_target;
        s->ino = (ino_t)ino;
    }
    tar_begin_at(l->tar, l->skip_to);
    return treewriter_restore(l->writer, u) && u->n == 0;
}

int oci_layer_resume(struct oci_layer *l, int fd, const char *boot_id, struct err *e)
{
    AUTO(str) struct str body = STR_INIT(BOUND_CHECKPOINT_FILE);
    struct checkpoint *c = l->checkpoint = mem_new(struct checkpoint);
    bool found = read_file(fd, &body);
    struct unpack u = {str_text(&body), body.len};

    pthread_mutex_init(&c->lock, NULL);
    c->state = STR_INIT(BOUND_MIB);
    c->fd = fd;
    c->boot_id = mem_strdup(boot_id);
    if (!found || !is_of(l, boot_id, &u))
        return wipe(fd, e);
    /* From here on the object is half restored: no way back but another one. */
    if (!unpack_decoder(l, &u) || !unpack_writer(l, &u)) {
        if (wipe(fd, e) < 0)
            return -1;
        return err_set(e, ERR_BUG, "a checkpoint that does not hold what it says");
    }
    c->last = l->received;
    return 1;
}

int oci_layer_checkpoint_fd(const struct oci_layer *l)
{
    return l->checkpoint ? l->checkpoint->fd : -1;
}

bool oci_layer_has_checkpoint(int fd, const char *boot_id, char ret_diff_id[DIGEST_TEXT_MAX])
{
    AUTO(str) struct str body = STR_INIT(BOUND_CHECKPOINT_FILE);
    AUTO_FREE char *diff_id = NULL;

    if (!read_file(fd, &body))
        return false;
    struct unpack u = {str_text(&body), body.len};

    if (!next_is(&u, version) || !next_is(&u, boot_id) || !pack_read_text(&u, &diff_id) ||
        !digest_is_valid(diff_id))
        return false;
    memcpy(ret_diff_id, diff_id, strlen(diff_id) + 1);
    return true;
}
