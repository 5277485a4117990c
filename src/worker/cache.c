#include "worker/cache.h"

#include "base/mem.h"

struct candidate {
    const struct cache_item *item;
    size_t index;
};

/* Failed ones before the others, each by last use; equal ones as they stood. */
static int first_to_go(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;

    if (x->item->failed != y->item->failed)
        return x->item->failed ? -1 : 1;
    if (x->item->last_used != y->item->last_used)
        return x->item->last_used < y->item->last_used ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

/* How much more than the limit; 0 is no limit. */
static uint64_t excess(uint64_t sum, uint64_t max)
{
    return max && sum > max ? sum - max : 0;
}

/* Sizes come from records on disk: damaged ones must not wrap around to a small sum. */
static uint64_t add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t less(uint64_t over, uint64_t by)
{
    return over > by ? over - by : 0;
}

size_t cache_evict(const struct cache_item *items, size_t n, uint64_t max_bytes,
                   uint64_t max_key_bytes, size_t *victims)
{
    AUTO_FREE struct candidate *order = mem_array(n ? n : 1, sizeof(*order));
    uint64_t bytes = 0, key_bytes = 0;
    size_t n_order = 0, n_victims = 0;

    for (size_t i = 0; i < n; i++) {
        bytes = add(bytes, items[i].bytes);
        key_bytes = add(key_bytes, items[i].key_bytes);
        if (!items[i].in_use)
            order[n_order++] = (struct candidate){.item = &items[i], .index = i};
    }
    uint64_t over = excess(bytes, max_bytes), key_over = excess(key_bytes, max_key_bytes);

    qsort(order, n_order, sizeof(*order), first_to_go);
    for (size_t i = 0; i < n_order && (over || key_over); i++) {
        const struct cache_item *item = order[i].item;
        /* What would not bring a limit nearer stays: dropping it only costs a download. */
        if (!(over && item->bytes) && !(key_over && item->key_bytes))
            continue;
        victims[n_victims++] = order[i].index;
        over = less(over, item->bytes);
        key_over = less(key_over, item->key_bytes);
    }
    return n_victims;
}
