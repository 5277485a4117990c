#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/str.h"
#include "base/tree.h"
#include "oci/layer.h"
#include "oci/store_inner.h"

#define CHECKPOINT "checkpoint"

static int open_in(int dir, const char *name)
{
    return openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

bool store_partial_take(struct oci_store *s, const struct store_work *w, const char *name,
                        const char *diff_id)
{
    return renameat(s->partial, digest_hex(diff_id), w->fd, name) == 0;
}

bool store_partial_keep(struct oci_store *s, int work, const char *name)
{
    AUTO_CLOSE int dir = open_in(work, name);
    AUTO_CLOSE int file =
        dir < 0 ? -1 : openat(dir, CHECKPOINT, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    char diff_id[DIGEST_TEXT_MAX];

    return file >= 0 && oci_layer_has_checkpoint(file, s->boot_id, diff_id) &&
           !store_has(s, digest_hex(diff_id)) &&
           renameat2(work, name, s->partial, digest_hex(diff_id), RENAME_NOREPLACE) == 0;
}

void store_partial_rescue(struct oci_store *s, const char *work)
{
    AUTO_CLOSE int dir = open_in(s->tmp, work);
    int copy = dir < 0 ? -1 : openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = copy >= 0 ? fdopendir(copy) : NULL;

    if (!d) {
        close_fd(&copy);
        return;
    }
    for (struct dirent *entry; (entry = readdir(d));)
        if (path_is_component(entry->d_name))
            store_partial_keep(s, dir, entry->d_name);
    closedir(d);
}

static bool is_of_use(struct oci_store *s, const char *name, double max_age_s)
{
    AUTO_FREE char *path = mem_printf("%s/" CHECKPOINT, name);
    AUTO_CLOSE int file = openat(s->partial, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    char diff_id[DIGEST_TEXT_MAX];
    struct stat st;

    return file >= 0 && fstat(file, &st) == 0 &&
           clock_epoch() - (double)st.st_mtim.tv_sec < max_age_s && !store_has(s, name) &&
           oci_layer_has_checkpoint(file, s->boot_id, diff_id) && str_eq(digest_hex(diff_id), name);
}

void store_partial_sweep(struct oci_store *s, double max_age_s)
{
    AUTO(str_list) struct str_list gone = {0};
    int copy = openat(s->partial, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = copy >= 0 ? fdopendir(copy) : NULL;

    if (!d) {
        close_fd(&copy);
        return;
    }
    for (struct dirent *entry; (entry = readdir(d));)
        if (path_is_component(entry->d_name) && !is_of_use(s, entry->d_name, max_age_s))
            str_list_add(&gone, entry->d_name);
    closedir(d);
    for (size_t i = 0; i < gone.n; i++) {
        struct err ignored = ERR_INIT;

        if (tree_remove_at(s->partial, gone.items[i], &ignored) < 0)
            err_clear(&ignored);
    }
}
