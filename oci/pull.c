/*
 * A pull: resolve the reference to a manifest and its configuration, fetch the layers that are missing
 * (several at once, the largest first, each streamed into a private directory), name them, sync once, write
 * the index.
 *
 * The calling thread waits for the workers and passes its cancel token on to a token of the pull's own, which
 * the first failure fires, too: then the others stop within a second.
 */
#include "oci/pull.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/jobs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/tree.h"
#include "base/treesum.h"
#include "base/units.h"
#include "oci/image.h"
#include "oci/layer.h"
#include "oci/lower.h"
#include "oci/manifest.h"
#include "oci/platform.h"
#include "oci/ref.h"
#include "oci/registry.h"
#include "oci/store_inner.h"
#include "oci/trust.h"
#include "oci/unpacker.h"

enum { PARALLEL_MIN = 2, PARALLEL_MAX = 16 };
#define PROGRESS_EVERY_NS (100 * NS_PER_MS)

struct pull_layer {
    const struct oci_desc *desc;
    const char *diff_id;
    char *key, *chain_key; /* by diff id; by chain id */
    size_t same_as;        /* index of the first layer of that diff id, or its own */
    bool chained;          /* it is, or will be, in the store under chain_key */

    char dir_name[32];                   /* in the work directory, while unpacked but not named */
    int dir;                             /* its "fs" */
    int checkpoint;                      /* file beside it, for large layers */
    struct oci_layer *unpacked;          /* kept for completion */
    struct oci_layer_progress *progress; /* NULL unless it is missing; guarded by the pull's lock */
};

struct pull {
    struct oci_store *store;
    const struct oci_ref *ref;
    const struct oci_pull_opts *o;
    struct cancel *stop;
    struct oci_session *session;
    struct store_work work;

    char top_digest[DIGEST_TEXT_MAX], manifest_digest[DIGEST_TEXT_MAX];
    struct oci_doc doc;
    struct oci_config_doc config;
    struct pull_layer *layers;
    size_t n;

    pthread_mutex_t lock; /* guards what follows */
    bool split;           /* layers are few: there are cores for two threads each */
    size_t *missing;      /* indices, largest first */
    size_t n_missing, next, running;
    struct err failure;
    struct oci_progress progress;
    struct oci_layer_progress *each; /* in the order of missing */
    uint64_t reported_ns;
    int done_fd; /* eventfd: a worker ended */
};

/* ---- progress ---- */

/* Bytes and layers that are done now; of layer l, if it is of one. */
static void report(struct pull *p, struct pull_layer *l, uint64_t bytes, unsigned layers, bool now)
{
    AUTO_FREE struct oci_layer_progress *each = NULL;

    pthread_mutex_lock(&p->lock);
    p->progress.bytes += bytes;
    p->progress.layers_done += layers;
    if (l && l->progress) {
        l->progress->started = true;
        l->progress->bytes += bytes;
        l->progress->done |= layers > 0;
    }
    uint64_t t = clock_now_ns();
    bool due = p->o->progress && (now || t - p->reported_ns >= PROGRESS_EVERY_NS);
    struct oci_progress copy = p->progress;

    if (due) {
        p->reported_ns = t;
        copy.each = each = p->n_missing ? mem_dup(p->each, p->n_missing * sizeof(*p->each)) : NULL;
    }
    pthread_mutex_unlock(&p->lock);
    if (due)
        p->o->progress(p->o->progress_arg, &copy);
}

static void enter_phase(struct pull *p, enum oci_phase phase)
{
    pthread_mutex_lock(&p->lock);
    p->progress.phase = phase;
    pthread_mutex_unlock(&p->lock);
    report(p, NULL, 0, 0, true);
}

/* ---- resolving ---- */

static int check_desc(const struct oci_desc *d, const struct str *body, struct err *e)
{
    return d->size == body->len
               ? 0
               : err_set(e, ERR_USER, "manifest %s has %zu bytes, not the %llu announced",
                         d->digest, body->len, (unsigned long long)d->size);
}

/* From index to index to the manifest of this platform. */
static int resolve_manifest(struct pull *p, struct err *e)
{
    AUTO_FREE char *reference = mem_strdup(p->ref->digest ? p->ref->digest : p->ref->tag);
    struct oci_platform host;
    struct oci_desc chosen = {0};

    oci_platform_host(&host);
    for (int depth = 0; depth <= BOUND_INDEX_DEPTH; depth++) {
        AUTO(str) struct str body = STR_INIT(BOUND_MANIFEST);
        AUTO_FREE char *type = NULL;
        const struct oci_desc *next;

        if (oci_session_manifest(p->session, reference, &body, &type, p->manifest_digest, e) < 0)
            return -1;
        if (depth == 0)
            memcpy(p->top_digest, p->manifest_digest, sizeof(p->top_digest));
        else if (check_desc(&chosen, &body, e) < 0)
            return -1;
        oci_doc_free(&p->doc);
        if (oci_doc_parse(str_text(&body), body.len, type, &p->doc, e) < 0)
            return err_wrap(e, "manifest %s", p->manifest_digest);
        if (p->doc.kind == OCI_DOC_MANIFEST)
            return 0;
        if (oci_doc_choose(&p->doc, &host, &next, e) < 0)
            return err_wrap(e, "index %s", p->manifest_digest);
        chosen = *next;
        mem_replace(&reference, chosen.digest);
    }
    return err_set(e, ERR_LIMIT, "indexes nested more than %d deep", BOUND_INDEX_DEPTH);
}

static int resolve_config(struct pull *p, struct err *e)
{
    AUTO(str) struct str body = STR_INIT(BOUND_IMAGE_CONFIG);

    if (oci_session_config(p->session, &p->doc.config, &body, e) < 0 ||
        oci_config_parse(str_text(&body), body.len, &p->config, e) < 0)
        return err_wrap(e, "config %s", p->doc.config.digest);
    if (p->config.diff_ids.n != p->doc.n_layers)
        return err_set(e, ERR_USER, "config %s names %zu layers, the manifest %zu",
                       p->doc.config.digest, p->config.diff_ids.n, p->doc.n_layers);
    return 0;
}

static uint64_t compressed_size(const struct oci_doc *d)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < d->n_layers; i++)
        if (__builtin_add_overflow(sum, d->layers[i].size, &sum))
            return UINT64_MAX;
    return sum;
}

static int check_size(struct pull *p, struct err *e)
{
    uint64_t size = compressed_size(&p->doc), max = p->o->max_compressed_size;
    char a[UNITS_TEXT_MAX], b[UNITS_TEXT_MAX];

    if (!max || size <= max)
        return 0;
    return err_set(e, ERR_LIMIT, "%s compressed, more than the %s allowed",
                   units_decimal_str(a, size), units_decimal_str(b, max));
}

/* Chain ids as image-spec config.md has them: of the first layer its diff id, then the digest of
 * "chain id of those below" + " " + "diff id". */
static void name_layers(struct pull *p)
{
    char chain[DIGEST_TEXT_MAX] = "";

    p->n = p->doc.n_layers;
    p->layers = mem_array(p->n, sizeof(*p->layers));
    for (size_t i = 0; i < p->n; i++) {
        struct pull_layer *l = &p->layers[i];

        l->desc = &p->doc.layers[i];
        l->diff_id = p->config.diff_ids.items[i];
        l->dir = l->checkpoint = -1;
        if (i == 0) {
            snprintf(chain, sizeof(chain), "%s", l->diff_id);
        } else {
            AUTO_FREE char *text = mem_printf("%s %s", chain, l->diff_id);

            digest_of(text, strlen(text), chain);
        }
        l->key = store_key(l->diff_id);
        l->chain_key = store_chain_key(chain);
        snprintf(l->dir_name, sizeof(l->dir_name), "layer-%zu", i);
        for (l->same_as = 0; !str_eq(p->layers[l->same_as].diff_id, l->diff_id);)
            l->same_as++;
    }
}

static int larger_first(const void *a, const void *b, void *arg)
{
    const struct pull *p = arg;
    uint64_t x = p->layers[*(const size_t *)a].desc->size,
             y = p->layers[*(const size_t *)b].desc->size;

    return (x < y) - (x > y);
}

static void find_missing(struct pull *p)
{
    p->missing = mem_array(p->n, sizeof(*p->missing));
    for (size_t i = 0; i < p->n; i++) {
        struct pull_layer *l = &p->layers[i];

        if (l->same_as != i || store_has(p->store, l->key))
            continue;
        l->chained = store_has(p->store, l->chain_key);
        if (!l->chained) {
            p->missing[p->n_missing++] = i;
            p->progress.total += l->desc->size;
        }
    }
    p->progress.layers = (unsigned)p->n_missing;
    if (!p->n_missing)
        return;
    qsort_r(p->missing, p->n_missing, sizeof(*p->missing), larger_first, p);
    p->each = mem_array(p->n_missing, sizeof(*p->each));
    for (size_t k = 0; k < p->n_missing; k++) {
        struct pull_layer *l = &p->layers[p->missing[k]];

        p->each[k] = (struct oci_layer_progress){.digest = l->desc->digest, .total = l->desc->size};
        l->progress = &p->each[k];
    }
}

/* What the layers will take is known only when they are unpacked; compressed ones grow to 2.5-3.5 times.
 * The lower end is asked for: the check is there to fail early, not to forbid what would just fit. */
static uint64_t needed_room(const struct pull *p)
{
    uint64_t need = 0;

    for (size_t k = 0; k < p->n_missing; k++) {
        const struct oci_desc *d = p->layers[p->missing[k]].desc;
        uint64_t grown = str_ends(d->media_type, "tar") ? d->size : d->size + d->size / 2 * 3;

        if (__builtin_add_overflow(need, grown, &need))
            return UINT64_MAX;
    }
    return need;
}

static int check_room(struct pull *p, struct err *e)
{
    uint64_t need = needed_room(p), reserve = p->o->reserve, all, free_bytes;
    char a[UNITS_TEXT_MAX], b[UNITS_TEXT_MAX], c[UNITS_TEXT_MAX], d[UNITS_TEXT_MAX];
    bool asked = false;

    if (!need)
        return 0;
    if (__builtin_add_overflow(need, reserve, &all))
        all = UINT64_MAX;
    for (;; asked = true) {
        free_bytes = store_free_bytes(p->store);
        if (all <= free_bytes)
            return 0;
        if (asked || !p->o->make_room || !p->o->make_room(p->o->make_room_arg, all - free_bytes))
            break;
    }
    return err_set(e, ERR_LIMIT, "needs about %s of disk%s%s%s, %s are free in %s: %s are missing",
                   units_decimal_str(a, need), reserve ? " and " : "",
                   reserve ? units_decimal_str(b, reserve) : "", reserve ? " to be left free" : "",
                   units_decimal_str(c, free_bytes), p->store->path,
                   units_decimal_str(d, all - free_bytes));
}

/* ---- one layer ---- */

static int publish(struct pull *p, struct pull_layer *l, struct oci_layer *unpacked,
                   const char *key, struct err *e)
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
};

static int on_blob(void *arg, const void *data, size_t n, struct err *e)
{
    struct stream *s = arg;

    if (cancel_fired(s->p->stop))
        return err_set(e, ERR_CANCELLED, "cancelled");
    if (unpacker_feed(s->unpacker, data, n, e) < 0)
        return -1;
    report(s->p, s->l, n, 0, false);
    return 0;
}

/* A fresh directory for it, or the one that somebody else had to leave it in. */
static int make_dir(struct pull *p, struct pull_layer *l, bool *taken, struct err *e)
{
    AUTO_CLOSE int dir = -1;

    *taken = l->desc->size > BOUND_CHECKPOINT &&
             store_partial_take(p->store, &p->work, l->dir_name, l->diff_id);
    if (!*taken && mkdirat(p->work.fd, l->dir_name, 0700) < 0)
        return err_sys(e, "make a directory for the layer");
    dir = openat(p->work.fd, l->dir_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0 || (!*taken && mkdirat(dir, "fs", 0755) < 0))
        return err_sys(e, "make a directory for the layer");
    l->dir = openat(dir, "fs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (l->dir < 0 || (!*taken && fchmod(l->dir, 0755) < 0))
        return err_sys(e, "make a directory for the layer");
    if (l->desc->size <= BOUND_CHECKPOINT)
        return 0;
    l->checkpoint = openat(dir, "checkpoint", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    return l->checkpoint < 0 ? err_sys(e, "make a checkpoint file") : 0;
}

static int new_layer(struct pull *p, struct pull_layer *l, struct oci_layer **ret, struct err *e)
{
    const struct oci_layer_desc desc = {l->desc->digest, l->diff_id, l->desc->size};
    AUTO(oci_layer) struct oci_layer *layer = NULL;
    bool taken;

    if (make_dir(p, l, &taken, e) < 0 || oci_layer_new(l->dir, &desc, &layer, e) < 0)
        return -1;
    int rc = l->checkpoint < 0 ? 0 : oci_layer_resume(layer, l->checkpoint, p->store->boot_id, e);

    if (taken && rc <= 0) {
        /* Not to be gone on with: away with it, and from the start. */
        err_clear(e);
        close_fd(&l->dir);
        close_fd(&l->checkpoint);
        return tree_remove_at(p->work.fd, l->dir_name, e) < 0 ? -1 : new_layer(p, l, ret, e);
    }
    if (rc < 0)
        return -1;
    report(p, l, oci_layer_received(layer), 0, true);
    *ret = take_ptr(&layer);
    return 0;
}

/* Bytes from the registry to the threads that unpack them. What those met counts, not that the fetching ended. */
static int stream(struct pull *p, struct pull_layer *l, struct oci_layer *layer, struct err *e)
{
    struct stream s = {.p = p, .l = l};

    if (unpacker_start(layer, p->split, &s.unpacker, e) < 0)
        return -1;
    int rc = oci_session_blob(p->session, l->desc, oci_layer_received(layer), on_blob, &s, e);

    return unpacker_end(s.unpacker, rc < 0 ? e : NULL, e) < 0 ? -1 : rc;
}

/* What was fetched is kept for the next try when it was not the layer's fault. */
static void keep_rest(struct pull *p, struct pull_layer *l, const struct err *why)
{
    if (why->kind == ERR_REMOTE || why->kind == ERR_CANCELLED)
        store_partial_keep(p->store, p->work.fd, l->dir_name);
}

static int unpack(struct pull *p, struct pull_layer *l, struct err *e)
{
    AUTO(oci_layer) struct oci_layer *layer = NULL;

    if (new_layer(p, l, &layer, e) < 0)
        return -1;
    if (stream(p, l, layer, e) < 0) {
        keep_rest(p, l, e);
        return -1;
    }
    if (l->checkpoint >= 0) {
        AUTO_FREE char *path = mem_printf("%s/checkpoint", l->dir_name);

        close_fd(&l->checkpoint);
        if (unlinkat(p->work.fd, path, 0) < 0)
            return err_sys(e, "remove a checkpoint");
    }
    if (oci_layer_depends(layer)) {
        l->chained = true;
        l->unpacked = take_ptr(&layer);
        return 0;
    }
    int rc = publish(p, l, layer, l->key, e);

    close_fd(&l->dir);
    return rc;
}

/* What a mirror keeps may be damaged: then it is fetched once more, from the registry itself. */
static int unpack_at_last(struct pull *p, struct pull_layer *l, struct err *e)
{
    bool from_mirror = oci_session_has_mirrors(p->session);

    if (unpack(p, l, e) == 0)
        return 0;
    if (e->kind != ERR_USER || !from_mirror)
        return -1;
    log_debug("layer %s of a mirror: %s: asking the registry itself", l->desc->digest, e->msg);
    oci_session_leave_mirrors(p->session);
    close_fd(&l->dir);
    close_fd(&l->checkpoint);
    err_clear(e);
    return tree_remove_at(p->work.fd, l->dir_name, e) < 0 ? -1 : unpack(p, l, e);
}

/* Unpacked by us, or by somebody else while we waited for the right to. */
static int fetch_layer(struct pull *p, struct pull_layer *l, struct err *e)
{
    AUTO_CLOSE int lock = store_lock_layer(p->store, l->diff_id, p->stop, e);
    int rc = 0;

    if (lock < 0)
        return -1;
    if (store_has(p->store, l->key))
        report(p, l, l->desc->size, 1, true);
    else if ((rc = unpack_at_last(p, l, e)) == 0)
        report(p, l, 0, 1, true);
    /* Who waits for this name sees that it is gone and makes a new one. */
    unlinkat(p->store->locks, digest_hex(l->diff_id), 0);
    return rc;
}

/* ---- workers ---- */

static struct pull_layer *next_layer(struct pull *p)
{
    pthread_mutex_lock(&p->lock);
    struct pull_layer *l = p->next < p->n_missing && p->failure.kind == ERR_NONE
                               ? &p->layers[p->missing[p->next++]]
                               : NULL;

    pthread_mutex_unlock(&p->lock);
    return l;
}

static void *worker(void *arg)
{
    struct pull *p = arg;
    struct pull_layer *l;

    while ((l = next_layer(p))) {
        struct err e = ERR_INIT;

        if (fetch_layer(p, l, &e) == 0)
            continue;
        err_wrap(&e, "layer %s", l->desc->digest);
        pthread_mutex_lock(&p->lock);
        if (p->failure.kind == ERR_NONE)
            p->failure = e;
        pthread_mutex_unlock(&p->lock);
        cancel_fire(p->stop);
    }
    pthread_mutex_lock(&p->lock);
    p->running--;
    pthread_mutex_unlock(&p->lock);
    uint64_t one = 1;

    BUG_ON(write(p->done_fd, &one, sizeof(one)) != sizeof(one));
    return NULL;
}

static unsigned worker_count(struct pull *p)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    p->split = (long)p->n_missing < cpus;
    unsigned n = p->o->parallel        ? p->o->parallel
                 : cpus < PARALLEL_MIN ? PARALLEL_MIN
                                       : (unsigned)cpus;

    n = n > PARALLEL_MAX ? PARALLEL_MAX : n;
    return n < p->n_missing ? n : (unsigned)p->n_missing;
}

static bool workers_run(struct pull *p)
{
    pthread_mutex_lock(&p->lock);
    bool run = p->running > 0;

    pthread_mutex_unlock(&p->lock);
    return run;
}

static void wait_for_workers(struct pull *p)
{
    struct pollfd fds[] = {{.fd = p->done_fd, .events = POLLIN},
                           {.fd = cancel_fd(p->o->cancel), .events = POLLIN}};
    uint64_t ignored;

    while (workers_run(p)) {
        if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
            continue;
        if (fds[0].revents && read(p->done_fd, &ignored, sizeof(ignored)) < 0)
            continue;
        if (cancel_fired(p->o->cancel)) {
            cancel_fire(p->stop);
            fds[1].fd = -1;
        }
    }
}

static int fetch_missing(struct pull *p, struct err *e)
{
    unsigned n = worker_count(p), started = 0;
    AUTO_FREE pthread_t *threads = mem_array(n, sizeof(*threads));

    p->done_fd = eventfd(0, EFD_CLOEXEC);
    if (p->done_fd < 0)
        return err_sys(e, "eventfd");
    enter_phase(p, OCI_DOWNLOADING);
    p->running = n;
    for (; started < n; started++) {
        int rc = pthread_create(&threads[started], NULL, worker, p);

        if (!rc)
            continue;
        pthread_mutex_lock(&p->lock);
        p->running -= n - started;
        if (p->failure.kind == ERR_NONE)
            err_sysno(&p->failure, rc, "start a thread");
        pthread_mutex_unlock(&p->lock);
        cancel_fire(p->stop);
        break;
    }
    wait_for_workers(p);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    if (cancel_fired(p->o->cancel))
        return err_set(e, ERR_CANCELLED, "cancelled");
    if (p->failure.kind == ERR_NONE)
        return 0;
    *e = p->failure;
    return -1;
}

/* ---- committing ---- */

static const char *key_of(const struct pull *p, size_t i)
{
    const struct pull_layer *l = &p->layers[p->layers[i].same_as];

    return l->chained ? l->chain_key : l->key;
}

/* Layers that take something from those below, from the bottom up: what is below is complete by then. */
static int complete_layers(struct pull *p, struct err *e)
{
    for (size_t i = 0; i < p->n; i++) {
        struct pull_layer *l = &p->layers[i];
        struct oci_lowers below = {.dir = p->store->layers};

        if (!l->unpacked)
            continue;
        for (size_t k = i; k--;)
            str_list_take(&below.keys, mem_printf("%s/fs", key_of(p, k)));
        int rc = oci_layer_complete(l->unpacked, &below, e);

        str_list_free(&below.keys);
        if (rc < 0 || publish(p, l, l->unpacked, l->chain_key, e) < 0)
            return err_wrap(e, "layer %s", l->desc->digest);
    }
    return 0;
}

static void add_ref(struct stored_image *i, char *text, const char *digest)
{
    i->refs = mem_realloc(i->refs, i->n_refs + 1, sizeof(*i->refs));
    i->refs[i->n_refs++] = (struct stored_ref){text, mem_strdup(digest)};
}

/* Names an archive gives its image, as docker load takes them. What is no name of a registry's kind is left out. */
static void add_names(const struct pull *p, struct stored_image *i)
{
    const struct str_list *names = oci_session_names(p->session);

    for (size_t k = 0; k < names->n; k++) {
        AUTO(oci_ref) struct oci_ref *ref = NULL;
        struct err ignored = ERR_INIT;

        if (oci_ref_parse(names->items[k], &ref, &ignored) == 0 && !ref->digest)
            add_ref(i, oci_ref_text(ref), p->top_digest);
    }
}

static int commit(struct pull *p, struct image **ret, struct err *e)
{
    AUTO(stored_image) struct stored_image i = {0};

    i.id = mem_strdup(p->doc.config.digest);
    i.manifest_digest = mem_strdup(p->manifest_digest);
    i.compressed_size = compressed_size(&p->doc);
    for (size_t k = 0; k < p->n; k++)
        str_list_add(&i.keys, key_of(p, k));
    i.config = p->config.config;
    p->config.config = (struct image_config){0};
    if (p->ref->transport == OCI_REGISTRY)
        add_ref(&i, mem_printf("%s/%s@%s", p->ref->registry, p->ref->repository, p->top_digest),
                p->top_digest);
    if (!p->ref->digest)
        add_ref(&i, oci_ref_text(p->ref), p->top_digest);
    if (p->o->take_names)
        add_names(p, &i);
    if (!store_is_synced(p->store, &i.keys) && store_sync(p->store, e) < 0)
        return -1;
    return store_commit(p->store, &i, p->ref, ret, e);
}

/* ---- doors ---- */

static int resolve(struct pull *p, struct err *e)
{
    const struct oci_trust *trust = p->o->registries->trust;

    enter_phase(p, OCI_RESOLVING);
    if (oci_trust_admits(trust, p->ref, e) < 0 || resolve_manifest(p, e) < 0 ||
        oci_trust_check_signature(trust, p->session, p->ref, p->top_digest, e) < 0)
        return -1;
    return check_size(p, e) < 0 || resolve_config(p, e) < 0 ? -1 : 0;
}

static int fetch(struct pull *p, struct image **ret, struct err *e)
{
    AUTO(str_list) struct str_list pins = {0};

    name_layers(p);
    for (size_t i = 0; i < p->n; i++) {
        str_list_add(&pins, p->layers[i].key);
        str_list_add(&pins, p->layers[i].chain_key);
    }
    if (store_begin(p->store, &pins, &p->work, e) < 0)
        return -1;
    find_missing(p);
    if (check_room(p, e) < 0 || (p->n_missing && fetch_missing(p, e) < 0))
        return -1;
    enter_phase(p, OCI_COMMITTING);
    if (complete_layers(p, e) < 0 || commit(p, ret, e) < 0)
        return -1;
    enter_phase(p, OCI_DONE);
    return 0;
}

static void pull_init(struct pull *p, struct oci_store *s, const struct oci_ref *ref,
                      const struct oci_pull_opts *o)
{
    *p = (struct pull){.store = s, .ref = ref, .o = o, .work = STORE_WORK_INIT, .done_fd = -1};
    pthread_mutex_init(&p->lock, NULL);
    p->stop = cancel_new();
}

static void pull_release(struct pull *p)
{
    for (size_t i = 0; i < p->n; i++) {
        oci_layer_free(p->layers[i].unpacked);
        close_fd(&p->layers[i].dir);
        close_fd(&p->layers[i].checkpoint);
        free(p->layers[i].key);
        free(p->layers[i].chain_key);
    }
    free(p->layers);
    free(p->missing);
    free(p->each);
    if (p->store)
        store_end(p->store, &p->work);
    oci_session_free(p->session);
    oci_doc_free(&p->doc);
    oci_config_free(&p->config);
    cancel_unref(p->stop);
    close_fd(&p->done_fd);
    pthread_mutex_destroy(&p->lock);
}

static int with_context(const struct oci_ref *ref, struct err *e)
{
    AUTO_FREE char *name = oci_ref_familiar(ref);

    if (e->kind == ERR_ABSENT && e->sys)
        e->kind = ERR_HOST; /* a file of ours is missing, not the image */
    return err_wrap(e, "image %s", name);
}

int oci_pull(struct oci_store *s, const struct oci_ref *ref, const struct oci_pull_opts *o,
             struct image **ret, struct err *e)
{
    struct pull p;

    pull_init(&p, s, ref, o);
    /* Resolving is this thread's own work, under the caller's token; layers are under p.stop. */
    p.session = oci_session_new(ref, o->registries, o->http, o->cancel);
    int rc = resolve(&p, e);

    if (rc == 0) {
        oci_session_stop_with(p.session, p.stop);
        rc = fetch(&p, ret, e);
    }
    pull_release(&p);
    return rc < 0 ? with_context(ref, e) : 0;
}

int oci_pull_size(const struct oci_ref *ref, const struct oci_pull_opts *o, uint64_t *ret,
                  struct err *e)
{
    struct oci_pull_opts quiet = *o;
    struct pull p;

    quiet.progress = NULL;
    pull_init(&p, NULL, ref, &quiet);
    p.session = oci_session_new(ref, o->registries, o->http, o->cancel);
    int rc = oci_trust_admits(o->registries->trust, ref, e);

    if (rc == 0)
        rc = resolve_manifest(&p, e);

    if (rc == 0)
        *ret = compressed_size(&p.doc);
    pull_release(&p);
    return rc < 0 ? with_context(ref, e) : 0;
}
