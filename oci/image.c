#include "oci/image.h"

#include <stdatomic.h>

#include "base/mem.h"
#include "oci/manifest.h"
#include "oci/store_inner.h"

struct leased_image {
    struct image image; /* first: struct image * is cast back */
    atomic_uint refs;
    int lease;
};

struct image *image_new(int lease)
{
    struct leased_image *l = mem_new(struct leased_image);

    atomic_init(&l->refs, 1);
    l->lease = lease;
    return &l->image;
}

struct image *image_ref(struct image *i)
{
    if (i)
        atomic_fetch_add_explicit(&((struct leased_image *)i)->refs, 1, memory_order_relaxed);
    return i;
}

void image_unref(struct image *i)
{
    struct leased_image *l = (struct leased_image *)i;

    if (!i || atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) != 1)
        return;
    close_fd(&l->lease);
    free(i->name);
    free(i->repo_digest);
    free(i->manifest_digest);
    free(i->id);
    free(i->platform);
    str_list_free(&i->lowerdirs);
    oci_image_config_free(&i->config);
    free(l);
}

int image_lease_fd(const struct image *i)
{
    return ((const struct leased_image *)i)->lease;
}
