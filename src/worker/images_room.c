#include "worker/images_room.h"

#include "base/err.h"
#include "base/log.h"
#include "oci/store.h"

uint64_t images_room_target(const struct images_room *r, uint64_t bytes, uint64_t free_bytes)
{
    uint64_t lacking = r->min_free > free_bytes ? r->min_free - free_bytes : 0;
    uint64_t target = r->max_bytes ? r->max_bytes : UINT64_MAX;
    uint64_t fits = bytes > lacking ? bytes - lacking : 0;

    return lacking && fits < target ? fits : target;
}

static uint64_t target_now(struct oci_store *s, const struct images_room *r, uint64_t more)
{
    uint64_t bytes = oci_store_bytes(s);
    uint64_t target = images_room_target(r, bytes, oci_store_free(s));

    if (!more)
        return target;
    if (target > bytes)
        target = bytes;
    return target > more ? target - more : 0;
}

uint64_t images_room_make(struct oci_store *s, const struct images_room *r, uint64_t more,
                          bool *ret_above)
{
    struct err e = ERR_INIT;
    uint64_t freed = 0;

    *ret_above = false;
    if (!r->max_bytes && !r->min_free)
        return 0;
    uint64_t target = target_now(s, r, more);

    if (target != UINT64_MAX && oci_store_prune(s, target, &freed, &e) < 0)
        log_warn("image cache: %s", e.msg);
    else if (freed)
        log_info("image cache freed=%llu", (unsigned long long)freed);
    *ret_above = oci_store_bytes(s) > target_now(s, r, 0);
    return freed;
}
