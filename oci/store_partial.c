#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/tree.h"
#include "oci/layer.h"
#include "oci/spool.h"
#include "oci/store_inner.h"

#define CHECKPOINT "checkpoint"

static int open_in(int dir, const char *name)
{
    return openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* Is there something to go on from? */
static bool is_kept(struct oci_store *s, int dir, char ret_diff_id[DIGEST_TEXT_MAX])
{
    AUTO_CLOSE int file = openat(dir, CHECKPOINT, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    return (file >= 0 && oci_layer_has_checkpoint(file, s->boot_id, ret_diff_id)) ||
           oci_spool_is_in(dir, s->boot_id, ret_diff_id);
}

bool store_partial_take(struct oci_store *s, const struct store_work *w, const char *name,
                        const char *diff_id)
{
    return renameat(s->partial, digest_hex(diff_id), w->fd, name) == 0;
}

bool store_partial_keep(struct oci_store *s, int work, const char *name)
{
    AUTO_CLOSE int dir = open_in(work, name);
    char diff_id[DIGEST_TEXT_MAX];

    return dir >= 0 && is_kept(s, dir, diff_id) && !store_has(s, digest_hex(diff_id)) &&
           renameat2(work, name, s->partial, digest_hex(diff_id), RENAME_NOREPLACE) == 0;
}

void store_partial_rescue(struct oci_store *s, const char *work)
{
    AUTO(str_list) struct str_list names = {0};
    AUTO_CLOSE int dir = open_in(s->tmp, work);

    if (dir >= 0)
        store_names(dir, &names);
    for (size_t i = 0; i < names.n; i++)
        store_partial_keep(s, dir, names.items[i]);
}

static bool is_of_use(struct oci_store *s, const char *name, double max_age_s)
{
    AUTO_CLOSE int dir = open_in(s->partial, name);
    char diff_id[DIGEST_TEXT_MAX];
    struct stat st;

    /* Both files are made in the directory when it is begun or gone on with, its last change. */
    return dir >= 0 && fstat(dir, &st) == 0 &&
           clock_epoch() - (double)st.st_ctim.tv_sec < max_age_s && !store_has(s, name) &&
           is_kept(s, dir, diff_id) && str_eq(digest_hex(diff_id), name);
}

void store_partial_sweep(struct oci_store *s, double max_age_s)
{
    AUTO(str_list) struct str_list all = {0};

    store_names(s->partial, &all);
    for (size_t i = 0; i < all.n; i++) {
        struct err ignored = ERR_INIT;

        if (!is_of_use(s, all.items[i], max_age_s) &&
            tree_remove_at(s->partial, all.items[i], &ignored) < 0)
            err_clear(&ignored); /* next time */
    }
}
