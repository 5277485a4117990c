#include "base/clock.h"
#include "base/mem.h"
#include "oci/pull_inner.h"

#define PROGRESS_EVERY_NS (100 * NS_PER_MS)

void pull_report(struct pull *p, struct pull_layer *l, uint64_t bytes, unsigned layers, bool now)
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
        each = p->n_missing ? mem_dup(p->each, p->n_missing * sizeof(*p->each)) : NULL;
        copy.each = each;
    }
    pthread_mutex_unlock(&p->lock);
    if (due)
        p->o->progress(p->o->progress_arg, &copy);
}

void pull_enter_phase(struct pull *p, enum oci_phase phase)
{
    pthread_mutex_lock(&p->lock);
    p->progress.phase = phase;
    pthread_mutex_unlock(&p->lock);
    pull_report(p, NULL, 0, 0, true);
}
