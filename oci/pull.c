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
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/jobs.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"
#include "oci/image.h"
#include "oci/inflate_crew.h"
#include "oci/layer.h"
#include "oci/lower.h"
#include "oci/manifest.h"
#include "oci/platform.h"
#include "oci/pull_inner.h"
#include "oci/ref.h"
#include "oci/registry.h"
#include "oci/store_inner.h"
#include "oci/trust.h"

enum { PARALLEL_MIN = 2, PARALLEL_MAX = 16 };

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
        l->spool = OCI_SPOOL_NONE;
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

        if (pull_fetch_layer(p, l, &e) == 0)
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

/* Those that this process may use. */
static long count_cpus(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set)
                                                        : sysconf(_SC_NPROCESSORS_ONLN);
}

/* Threads that decode large layers ahead, if there are cores that the layers leave idle. */
static void make_crew(struct pull *p)
{
    const struct inflate_crew_opts o = inflate_crew_usual((unsigned)count_cpus(), p->work.fd);

    if (o.threads && p->layers[p->missing[0]].desc->size >= OCI_LAYER_WORTH_HELP)
        p->crew = inflate_crew_new(&o);
}

static unsigned worker_count(struct pull *p)
{
    long cpus = count_cpus();

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
    pull_enter_phase(p, OCI_DOWNLOADING);
    make_crew(p);
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
    inflate_crew_free(take_ptr(&p->crew));
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
        if (rc < 0 || pull_publish(p, l, l->unpacked, l->chain_key, e) < 0)
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

/* Of words we would take ourselves, or none: it is shown, and compared. A new string or NULL. */
static char *platform_text(const struct oci_platform *p)
{
    char text[OCI_PLATFORM_TEXT];
    struct oci_platform ignored;
    struct err e = ERR_INIT;

    return oci_platform_parse(oci_platform_text(p, text), &ignored, &e) < 0 ? NULL
                                                                            : mem_strdup(text);
}

static int commit(struct pull *p, struct image **ret, struct err *e)
{
    AUTO(stored_image) struct stored_image i = {0};
    AUTO_FREE char *staged = NULL;

    i.id = mem_strdup(p->doc.config.digest);
    i.manifest_digest = mem_strdup(p->manifest_digest);
    i.platform = platform_text(&p->config.platform);
    i.compressed_size = pull_compressed_size(&p->doc);
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
    if (!store_is_synced(p->store, &i.keys) &&
        (store_stage(p->store, &p->work, &i, &staged, e) < 0 || store_sync(p->store, e) < 0))
        return -1;
    return store_commit(p->store, &p->work, &i, staged, p->ref, ret, e);
}

/* ---- doors ---- */

/* The name still means what is here under it, whole: nothing to fetch and nothing to write. For a run whose image is
 * cached this is most of what it would wait for. */
static bool is_here(struct pull *p, struct image **ret)
{
    AUTO(image) struct image *img = NULL;
    const char *asked = oci_platform_asked(p->o->platform);
    struct err ignored = ERR_INIT;

    if (p->ref->transport != OCI_REGISTRY || (asked && *asked) ||
        oci_store_find(p->store, p->ref, &img, &ignored) < 0)
        return false;
    const char *at = img->repo_digest ? strrchr(img->repo_digest, '@') : NULL;

    if (!at || !str_eq(at + 1, p->top_digest) || !str_eq(img->manifest_digest, p->manifest_digest))
        return false;
    for (size_t i = 0; i < img->lowerdirs.n; i++)
        if (access(img->lowerdirs.items[i], F_OK) < 0)
            return false;
    *ret = take_ptr(&img);
    return true;
}

static int fetch(struct pull *p, struct image **ret, struct err *e)
{
    AUTO(str_list) struct str_list pins = {0};

    if (is_here(p, ret)) {
        pull_enter_phase(p, OCI_DONE);
        return 0;
    }
    if (pull_resolve_config(p, e) < 0)
        return -1;
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
    pull_enter_phase(p, OCI_COMMITTING);
    if (complete_layers(p, e) < 0 || commit(p, ret, e) < 0)
        return -1;
    pull_enter_phase(p, OCI_DONE);
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
        pull_close_layer(&p->layers[i]);
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
    int rc = pull_resolve(&p, e);

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
        rc = pull_resolve_manifest(&p, e);

    if (rc == 0)
        *ret = pull_compressed_size(&p.doc);
    pull_release(&p);
    return rc < 0 ? with_context(ref, e) : 0;
}
