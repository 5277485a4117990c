#include "oci/unpacker.h"

#include <pthread.h>

#include "base/bounds.h"
#include "base/confine.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/tube.h"
#include "oci/layer.h"

/* Small enough for the cache: what is written on one core is read on the other soon after. */
enum { COMPRESSED_TUBE = 256 * 1024, PLAIN_TUBE = 512 * 1024 };

struct stage {
    struct unpacker *u;
    pthread_t thread;
    struct tube *in; /* NULL: no such stage */
    int (*take)(struct oci_layer *l, const void *data, size_t n, struct err *e);
    int (*end)(struct oci_layer *l, struct err *e);
    struct tube *out; /* of the next stage, or NULL */
    struct err failure;
};

struct unpacker {
    struct oci_layer *layer;
    struct stage first, second;
};

static int take_all(struct stage *s, struct err *e)
{
    const void *data;
    long n;

    while ((n = tube_peek(s->in, &data, e)) > 0) {
        if (s->take(s->u->layer, data, (size_t)n, e) < 0)
            return -1;
        tube_consume(s->in, (size_t)n);
    }
    return n < 0 ? -1 : s->end(s->u->layer, e);
}

static void *run(void *arg)
{
    struct stage *s = arg;

    confine_thread(oci_layer_dir(s->u->layer), oci_layer_checkpoint_fd(s->u->layer));
    int rc = take_all(s, &s->failure);

    if (rc < 0)
        tube_break(s->in, &s->failure);
    if (s->out)
        tube_close(s->out, rc < 0 ? &s->failure : NULL);
    else
        oci_layer_park(s->u->layer);
    return NULL;
}

static int to_second(void *arg, const void *data, size_t n, struct err *e)
{
    struct unpacker *u = arg;

    return tube_write(u->second.in, data, n, e);
}

static void release(struct unpacker *u)
{
    tube_free(u->first.in);
    tube_free(u->second.in);
    free(u);
}

static int start_stage(struct stage *s, struct err *e)
{
    int rc = pthread_create(&s->thread, NULL, run, s);

    return rc ? err_sysno(e, rc, "start a thread") : 0;
}

int unpacker_start(struct oci_layer *layer, bool split, struct unpacker **ret, struct err *e)
{
    struct unpacker *u = mem_new(struct unpacker);

    u->layer = layer;
    u->first = (struct stage){.u = u, .in = tube_new(COMPRESSED_TUBE), .take = oci_layer_feed};
    if (split) {
        u->second = (struct stage){
            .u = u, .in = tube_new(PLAIN_TUBE), .take = oci_layer_write, .end = oci_layer_finish};
        u->first.end = oci_layer_decoded;
        u->first.out = u->second.in;
        oci_layer_write_by(layer, to_second, u);
    } else {
        u->first.end = oci_layer_finish;
    }
    if (split && start_stage(&u->second, e) < 0) {
        release(u);
        return -1;
    }
    if (start_stage(&u->first, e) < 0) {
        if (split) {
            tube_close(u->second.in, e);
            pthread_join(u->second.thread, NULL);
        }
        release(u);
        return -1;
    }
    *ret = u;
    return 0;
}

int unpacker_feed(struct unpacker *u, const void *data, size_t n, struct err *e)
{
    return tube_write(u->first.in, data, n, e);
}

int unpacker_end(struct unpacker *u, const struct err *why, struct err *e)
{
    tube_close(u->first.in, why);
    pthread_join(u->first.thread, NULL);
    if (u->second.in)
        pthread_join(u->second.thread, NULL);
    /* The second's failure is handed back to the first, and the first's forward: both have the one that was. */
    const struct err failure =
        u->first.failure.kind != ERR_NONE ? u->first.failure : u->second.failure;

    release(u);
    if (failure.kind == ERR_NONE)
        return 0;
    *e = failure;
    return -1;
}
