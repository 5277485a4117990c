#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/fd.h"
#include "base/jobs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/tree.h"
#include "base/treesum.h"
#include "oci/inflate_crew.h"
#include "oci/layer.h"
#include "oci/pull_inner.h"
#include "oci/registry.h"
#include "oci/spool.h"
#include "oci/unpacker.h"

#define CHECKPOINT "checkpoint"

int pull_publish(struct pull *p, struct pull_layer *l, struct oci_layer *unpacked, const char *key,
                 struct err *e)
{
    struct treesum sum;
    const struct store_layer named = {key, l->diff_id, oci_layer_bytes(unpacked), &sum};

    if (oci_layer_sum(unpacked, &sum, e) < 0)
        return -1;
    return store_publish(p->store, &p->work, l->dir_name, &named, e);
}

struct stream {
    struct pull *p;
    struct pull_layer *l;
    struct unpacker *unpacker;
    bool from_spool;
};

static int on_blob(void *arg, const void *data, size_t n, struct err *e)
{
    struct stream *s = arg;

    if (cancel_fired(s->p->stop))
        return err_set(e, ERR_CANCELLED, "cancelled");
    if (!s->from_spool)
        oci_spool_add(&s->l->spool, data, n);
    if (unpacker_feed(s->unpacker, data, n, e) < 0)
        return -1;
    pull_report(s->p, s->l, n, 0, false);
    return 0;
}

void pull_close_layer(struct pull_layer *l)
{
    close_fd(&l->dir);
    close_fd(&l->checkpoint);
    oci_spool_close(&l->spool);
}

/* "fs" in the layer's directory, made if it is not there, and what is kept beside it of a large layer. */
static int open_tree(struct pull *p, struct pull_layer *l, int dir, struct err *e)
{
    bool made = mkdirat(dir, "fs", 0755) == 0;

    if (!made && errno != EEXIST)
        return err_sys(e, "make a directory for the layer");
    l->dir = openat(dir, "fs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (l->dir < 0 || (made && fchmod(l->dir, 0755) < 0))
        return err_sys(e, "make a directory for the layer");
    if (l->desc->size <= BOUND_CHECKPOINT)
        return 0;
    oci_spool_open(dir, l->desc, l->diff_id, p->store->boot_id, &l->spool);
    l->checkpoint = openat(dir, CHECKPOINT, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    return l->checkpoint < 0 ? err_sys(e, "make a checkpoint file") : 0;
}

/* In that directory, gone on with if that can be: 1, else from the start: 0. */
static int begin_in(struct pull *p, struct pull_layer *l, int dir, struct oci_layer **ret,
                    struct err *e)
{
    const struct oci_layer_desc desc = {l->desc->digest, l->diff_id, l->desc->size};
    AUTO(oci_layer) struct oci_layer *layer = NULL;

    if (open_tree(p, l, dir, e) < 0 || oci_layer_new(l->dir, &desc, &layer, e) < 0)
        return -1;
    oci_layer_help_by(layer, p->crew);
    int rc = l->checkpoint < 0 ? 0 : oci_layer_resume(layer, l->checkpoint, p->store->boot_id, e);

    if (rc >= 0)
        *ret = take_ptr(&layer);
    return rc;
}

static int begin(struct pull *p, struct pull_layer *l, struct oci_layer **ret, struct err *e)
{
    l->resumed = l->desc->size > BOUND_CHECKPOINT &&
                 store_partial_take(p->store, &p->work, l->dir_name, l->diff_id);
    if (!l->resumed && mkdirat(p->work.fd, l->dir_name, 0700) < 0)
        return err_sys(e, "make a directory for the layer");
    AUTO_CLOSE int dir =
        openat(p->work.fd, l->dir_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (dir < 0)
        return err_sys(e, "open the layer's directory");
    int rc = begin_in(p, l, dir, ret, e);

    if (!l->resumed || rc > 0)
        return rc;
    /* Its tree is not to be gone on with, but what came of the layer may be. */
    oci_layer_free(take_ptr(ret));
    err_clear(e);
    pull_close_layer(l);
    return tree_remove_at(dir, "fs", e) < 0 ? -1 : begin_in(p, l, dir, ret, e);
}

static int from_spool(struct stream *s, uint64_t offset, struct err *e)
{
    s->from_spool = true;
    int rc = oci_spool_read(&s->l->spool, offset, on_blob, s, e);

    s->from_spool = false;
    return rc;
}

/* Bytes from the registry to the threads that unpack them. What those met counts, not that the fetching ended. */
static int stream(struct pull *p, struct pull_layer *l, struct oci_layer *layer, struct err *e)
{
    struct stream s = {.p = p, .l = l};
    uint64_t received = oci_layer_received(layer);

    if (l->spool.size < received) /* it must hold all of them, or it is of no use */
        oci_spool_close(&l->spool);
    uint64_t here = l->spool.size > received ? l->spool.size : received;

    pull_report(p, l, received, 0, true);
    if (unpacker_start(layer, p->split, &s.unpacker, e) < 0)
        return -1;
    inflate_crew_busy(p->crew, 1);
    int rc = here > received ? from_spool(&s, received, e) : 0;

    if (rc == 0)
        rc = oci_session_blob(p->session, l->desc, here, on_blob, &s, e);
    if (unpacker_end(s.unpacker, rc < 0 ? e : NULL, e) < 0)
        rc = -1;
    inflate_crew_busy(p->crew, -1);
    return rc;
}

/* What was fetched is kept for the next try when it was not the layer's fault. */
static void keep_rest(struct pull *p, struct pull_layer *l, const struct err *why)
{
    if (why->kind == ERR_REMOTE || why->kind == ERR_CANCELLED)
        store_partial_keep(p->store, p->work.fd, l->dir_name);
}

static int drop_aids(struct pull *p, struct pull_layer *l, struct err *e)
{
    AUTO_FREE char *checkpoint = mem_printf("%s/" CHECKPOINT, l->dir_name);
    AUTO_FREE char *spool = mem_printf("%s/" OCI_SPOOL_NAME, l->dir_name);

    close_fd(&l->checkpoint);
    oci_spool_close(&l->spool);
    if (unlinkat(p->work.fd, checkpoint, 0) < 0 ||
        (unlinkat(p->work.fd, spool, 0) < 0 && errno != ENOENT))
        return err_sys(e, "remove a checkpoint");
    return 0;
}

static int unpack(struct pull *p, struct pull_layer *l, struct err *e)
{
    AUTO(oci_layer) struct oci_layer *layer = NULL;

    if (begin(p, l, &layer, e) < 0)
        return -1;
    if (stream(p, l, layer, e) < 0) {
        keep_rest(p, l, e);
        return -1;
    }
    if (l->checkpoint >= 0 && drop_aids(p, l, e) < 0)
        return -1;
    if (oci_layer_depends(layer)) {
        l->chained = true;
        l->unpacked = take_ptr(&layer);
        return 0;
    }
    int rc = pull_publish(p, l, layer, l->key, e);

    close_fd(&l->dir);
    return rc;
}

/* What a mirror keeps, or an earlier pull left, may be damaged: then it is fetched once more, from the registry itself. */
static int unpack_at_last(struct pull *p, struct pull_layer *l, struct err *e)
{
    bool from_mirror = oci_session_has_mirrors(p->session);

    if (unpack(p, l, e) == 0)
        return 0;
    if (e->kind != ERR_USER || !(from_mirror || l->resumed))
        return -1;
    log_debug("layer %s of a mirror or an earlier pull: %s: asking the registry itself",
              l->desc->digest, e->msg);
    oci_session_leave_mirrors(p->session);
    pull_close_layer(l);
    err_clear(e);
    return tree_remove_at(p->work.fd, l->dir_name, e) < 0 ? -1 : unpack(p, l, e);
}

int pull_fetch_layer(struct pull *p, struct pull_layer *l, struct err *e)
{
    AUTO_CLOSE int lock = store_lock_layer(p->store, l->diff_id, p->stop, e);
    int rc = 0;

    if (lock < 0)
        return -1;
    if (store_has(p->store, l->key))
        pull_report(p, l, l->desc->size, 1, true);
    else if ((rc = unpack_at_last(p, l, e)) == 0)
        pull_report(p, l, 0, 1, true);
    /* Who waits for this name sees that it is gone and makes a new one. */
    unlinkat(p->store->locks, digest_hex(l->diff_id), 0);
    return rc;
}
