#include "worker/dep_links.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/path.h"
#include "worker/bundle_spec.h"
#include "worker/protocol.h"

struct places {
    struct dep_place *items;
    size_t n;
};

static struct dep_place *add(struct places *p)
{
    p->items = mem_realloc(p->items, p->n + 1, sizeof(*p->items));
    struct dep_place *place = &p->items[p->n++];

    *place = (struct dep_place){0};
    return place;
}

static int add_entry(struct places *places, int dirfd, const char *dir, const char *name,
                     struct err *e)
{
    struct dep_place *p = add(places);
    char text[BOUND_LINK];

    p->key = mem_strdup(name);
    ssize_t n = readlinkat(dirfd, name, text, sizeof(text) - 1);
    if (n >= 0) {
        /* A link cannot be a mount's source: resolved on the host it would lead anywhere. */
        p->link = mem_strndup(text, (size_t)n);
        return 0;
    }
    if (errno != EINVAL)
        return err_sys(e, "read %s/%s", dir, name);
    p->source = mem_printf("%s/%s", dir, name);
    return 0;
}

/* The run writes these itself: as read-only links to a parent's they would make every command fail at once. */
static bool is_own_output(const char *name)
{
    return str_eq(name, "stdout") || str_eq(name, "stderr");
}

static int add_all(struct places *places, const char *path, struct err *e)
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct dirent *entry;
    int rc = 0;

    if (fd < 0 && (errno == ENOTDIR || errno == ELOOP))
        return err_set(e, ERR_USER, "Key value . is not compatible with non-directories: %s", path);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d)
        return err_sys(e, "open dependency %s", path);
    take_fd(&fd);
    while (rc == 0 && (entry = readdir(d))) {
        if (!path_is_component(entry->d_name) || is_own_output(entry->d_name))
            continue;
        rc = places->n >= 10 * BOUND_BUNDLE_DEPENDENCIES
                 ? err_set(e, ERR_LIMIT, "the dependency with key . has too many entries")
                 : add_entry(places, dirfd(d), path, entry->d_name, e);
    }
    closedir(d);
    return rc;
}

static int add_dep(struct places *places, const struct bundle_dep *dep, const char *path,
                   struct err *e)
{
    if (protocol_check_child_path(dep->child_path, e) < 0)
        return -1;
    AUTO_FREE char *plain = path_normalize(dep->child_path);
    if (!*plain)
        return add_all(places, path, e);
    struct dep_place *p = add(places);
    p->key = dep->child_path[0] == '/' ? mem_printf("/%s", plain) : take_ptr(&plain);
    p->source = mem_strdup(path);
    return 0;
}

int dep_links_resolve(const struct bundle *b, const struct str_list *paths, struct dep_place **ret,
                      size_t *ret_n, struct err *e)
{
    struct places places = {0};

    BUG_ON(paths->n != b->n_deps);
    for (size_t i = 0; i < b->n_deps; i++)
        if (add_dep(&places, &b->deps[i], paths->items[i], e) < 0) {
            dep_places_free(places.items, places.n);
            return -1;
        }
    if (dep_places_check(places.items, places.n, b->uuid, e) < 0) {
        dep_places_free(places.items, places.n);
        return -1;
    }
    *ret = places.items;
    *ret_n = places.n;
    return 0;
}

/* Directory of a relative path's last component, made when wanted; *ret_name points into path. */
static int open_parent(int dirfd, const char *path, bool make, const char **ret_name, struct err *e)
{
    const char *slash = strrchr(path, '/');

    *ret_name = slash ? slash + 1 : path;
    if (!slash)
        return openat(dirfd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    AUTO_FREE char *parent = mem_strndup(path, (size_t)(slash - path));
    return make ? path_mkdirs_beneath(dirfd, parent, 0755, e)
                : path_open_beneath(dirfd, parent, O_PATH | O_DIRECTORY, 0, e);
}

static int make_link(int dirfd, const char *dir, const char *key, const char *text, struct err *e)
{
    char old[BOUND_LINK], shown[STR_SHOW_MAX];
    const char *name;
    AUTO_CLOSE int parent = open_parent(dirfd, key, true, &name, e);

    if (parent < 0)
        return err_wrap(e, "dependency key %s", str_show(shown, key));
    if (symlinkat(text, parent, name) == 0)
        return 0;
    if (errno != EEXIST)
        return err_sys(e, "dependency key %s", str_show(shown, key));
    ssize_t n = readlinkat(parent, name, old, sizeof(old));
    if (n >= 0 && (size_t)n == strlen(text) && memcmp(old, text, (size_t)n) == 0)
        return 0;
    return err_set(e, ERR_USER, "[Errno 17] File exists: '%s' -> '%s/%s'", text, dir,
                   str_show(shown, key));
}

int dep_links_make(int dirfd, const char *dir, const char *uuid, bool shared_fs,
                   const struct dep_place *places, size_t n, struct str_list *ret_placed,
                   struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        const struct dep_place *p = &places[i];
        AUTO_FREE char *text = dep_place_link(p, uuid, shared_fs);

        if (text && make_link(dirfd, dir, p->key, text, e) < 0)
            return -1;
        if (p->key[0] != '/')
            str_list_add(ret_placed, p->key);
    }
    return 0;
}

/* A link of ours, or an empty mount point; anything else is the user's. */
static bool remove_placed(int parent, const char *name)
{
    struct stat st;

    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT;
    if (S_ISDIR(st.st_mode))
        return unlinkat(parent, name, AT_REMOVEDIR) == 0;
    if (S_ISLNK(st.st_mode) || (S_ISREG(st.st_mode) && st.st_size == 0))
        return unlinkat(parent, name, 0) == 0;
    return false;
}

void dep_links_remove(int dirfd, const struct str_list *placed)
{
    for (size_t i = 0; i < placed->n; i++) {
        AUTO_FREE char *path = mem_strdup(placed->items[i]);

        for (bool go_on = true; go_on;) {
            struct err ignored = ERR_INIT;
            const char *name;
            AUTO_CLOSE int parent = open_parent(dirfd, path, false, &name, &ignored);
            char *slash = strrchr(path, '/');
            go_on = parent >= 0 && remove_placed(parent, name) && slash;
            if (go_on)
                *slash = '\0';
        }
    }
}
