#include "worker/deps_place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/http.h"
#include "base/jobs.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/statefile.h"
#include "base/tree.h"

enum { NAME_KEEP = 160, RECORD_MAX = 65536, COLLISIONS_MAX = 100 };
#define LOCK_POLL_NS (NS_PER_S / 5)

struct record {
    char *uuid, *path;
    uint64_t bytes;
    bool is_dir;
    double last_used;
};
static const struct json_field record_fields[] = {
    JSON_FIELD(struct record, uuid, "parent_uuid", JSON_STR, JSON_REQUIRED, 64),
    JSON_FIELD(struct record, path, "parent_path", JSON_STR, JSON_REQUIRED, 8192),
    JSON_FIELD(struct record, bytes, "size_bytes", JSON_U64, JSON_REQUIRED, 0),
    JSON_FIELD(struct record, is_dir, "directory", JSON_BOOL, JSON_REQUIRED, 0),
    JSON_FIELD(struct record, last_used, "last_used", JSON_DOUBLE, JSON_REQUIRED, 0),
    {0},
};

void deps_place_free(struct deps_place *p)
{
    if (!p)
        return;
    close_fd(&p->lock);
    free(p->name);
    free(p);
}

static int open_sub(const char *work_dir, const char *name, char **ret_path, struct err *e)
{
    AUTO_FREE char *path = mem_printf("%s/%s", work_dir, name);

    if (path_mkdirs(path, 0770, e) < 0)
        return -1;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return err_sys(e, "open %s", path);
    if (ret_path)
        *ret_path = take_ptr(&path);
    return fd;
}

int deps_dirs_open(const char *work_dir, const char *owner, struct deps_dirs *ret, struct err *e)
{
    struct deps_dirs d = {.contents = -1, .state = -1};

    d.contents = open_sub(work_dir, "dependencies", &d.contents_path, e);
    d.state = d.contents < 0 ? -1 : open_sub(work_dir, "dependencies-state", NULL, e);
    d.owner = http_escape(owner, "");
    *ret = d;
    if (d.state >= 0)
        return 0;
    deps_dirs_close(ret);
    return -1;
}

void deps_dirs_close(struct deps_dirs *d)
{
    close_fd(&d->contents);
    close_fd(&d->state);
    free(d->contents_path);
    free(d->owner);
}

char *deps_place_name(const char *uuid, const char *path, unsigned collision)
{
    AUTO_FREE char *name = *path ? mem_printf("%s_%s", uuid, path) : mem_strdup(uuid);
    char digest[DIGEST_TEXT_MAX];
    char underscores[COLLISIONS_MAX + 1];

    for (char *p = name; *p; p++)
        if (*p == '/')
            *p = '_';
    if (strlen(name) > NAME_KEEP) {
        digest_of(path, strlen(path), digest);
        char *shortened = mem_printf("%.*s_%.32s", NAME_KEEP - 40, name, digest_hex(digest));

        free(name);
        name = shortened;
    }
    collision = collision < COLLISIONS_MAX ? collision : COLLISIONS_MAX;
    memset(underscores, '_', collision);
    underscores[collision] = '\0';
    return mem_printf("%s%s", name, underscores);
}

char *deps_place_temporary(const char *name)
{
    return mem_printf(".tmp-%s", name);
}

static int open_lock(const struct deps_dirs *d, const char *name, int create, struct err *e)
{
    AUTO_FREE char *file = mem_printf("%s.lock", name);
    int fd = openat(d->state, file, O_RDWR | create | O_CLOEXEC | O_NOFOLLOW, 0600);

    return fd < 0 ? err_sys(e, "open lock %s", file) : fd;
}

/* A lock file goes with its place, so that whoever waited for it may hold one that is gone. By an open, not a look-up:
 * that is when a network file system asks what is there. */
static bool is_current(const struct deps_dirs *d, const char *name, int fd)
{
    struct err ignored = ERR_INIT;
    AUTO_CLOSE int now = open_lock(d, name, 0, &ignored);
    struct stat a, b;

    return now >= 0 && fstat(fd, &a) == 0 && fstat(now, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* 1: locked, *ret is the lock; 0: somebody else has it. how: LOCK_EX, LOCK_SH. */
static int try_lock(const struct deps_dirs *d, const char *name, int how, int *ret, struct err *e)
{
    for (;;) {
        AUTO_CLOSE int fd = open_lock(d, name, O_CREAT, e);

        if (fd < 0)
            return -1;
        if (flock(fd, how | LOCK_NB) < 0)
            return errno == EWOULDBLOCK || errno == EINTR ? 0 : err_sys(e, "lock a dependency");
        if (!is_current(d, name, fd))
            continue;
        *ret = take_fd(&fd);
        return 1;
    }
}

/* flock(2) cannot be waited for beside a cancel, so it is asked a few times a second: only another worker's download makes
 * us wait at all. */
static int lock_exclusive(const struct deps_dirs *d, const char *name, struct cancel *cancel,
                          int *ret, struct err *e)
{
    int rc;

    while ((rc = try_lock(d, name, LOCK_EX, ret, e)) == 0) {
        if (cancel_fired(cancel))
            return err_set(e, ERR_CANCELLED, "Aborted by user");
        if (fd_wait(cancel_fd(cancel), POLLIN, clock_in_ns(LOCK_POLL_NS)) < 0)
            return err_sys(e, "wait for a dependency");
    }
    return rc < 0 ? -1 : 0;
}

/* Held exclusively: nobody else can take it away, and who waits for it finds that it is gone. */
static void remove_lock(const struct deps_dirs *d, const char *name)
{
    AUTO_FREE char *file = mem_printf("%s.lock", name);

    unlinkat(d->state, file, 0);
}

static int read_record(const struct deps_dirs *d, const char *name, struct record *r, struct err *e)
{
    AUTO_FREE char *file = mem_printf("%s.json", name);
    AUTO(str) struct str text = STR_INIT(RECORD_MAX);
    AUTO(cJSON) cJSON *v = NULL;

    if (statefile_read(d->state, file, &text, e) < 0)
        return -1;
    if (json_parse(str_text(&text), text.len, &v, e) < 0 ||
        json_read_fields(v, record_fields, r, e) < 0)
        return err_wrap(e, "%s", file);
    return 0;
}

/* 1: the place is this key's or free; 0: another key's. Fills whole, bytes, is_dir. */
static int examine(const struct deps_dirs *d, struct deps_place *p, const char *uuid,
                   const char *path)
{
    struct record r = {0};
    struct err ignored = ERR_INIT;
    bool known = read_record(d, p->name, &r, &ignored) == 0;
    bool ours = !known || (str_eq(r.uuid, uuid) && str_eq(r.path, path));

    if (known && ours) {
        p->bytes = r.bytes;
        p->is_dir = r.is_dir;
        p->last_used = r.last_used;
        p->whole = faccessat(d->contents, p->name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    }
    json_free_fields(record_fields, &r);
    return ours;
}

int deps_place_lock(const struct deps_dirs *d, const char *uuid, const char *path,
                    struct cancel *cancel, struct deps_place **ret, struct err *e)
{
    for (unsigned collision = 0; collision < COLLISIONS_MAX; collision++) {
        AUTO(deps_place) struct deps_place *p = mem_new(struct deps_place);

        p->name = deps_place_name(uuid, path, collision);
        p->lock = -1;
        if (lock_exclusive(d, p->name, cancel, &p->lock, e) < 0)
            return -1;
        if (!examine(d, p, uuid, path))
            continue;
        *ret = take_ptr(&p);
        return 0;
    }
    return err_set(e, ERR_LIMIT, "too many dependencies share the name of %s", uuid);
}

void deps_place_share(struct deps_place *p)
{
    flock(p->lock, LOCK_SH);
}

void deps_place_give_up(const struct deps_dirs *d, const struct deps_place *p)
{
    if (!p->whole)
        remove_lock(d, p->name);
}

int deps_place_use(const struct deps_dirs *d, const char *name, const char *uuid, const char *path,
                   struct deps_place **ret, struct err *e)
{
    AUTO(deps_place) struct deps_place *p = mem_new(struct deps_place);

    p->name = mem_strdup(name);
    p->lock = -1;
    int rc = try_lock(d, name, LOCK_SH, &p->lock, e);
    if (rc < 0)
        return -1;
    if (rc == 1 && examine(d, p, uuid, path) && p->whole) {
        *ret = take_ptr(&p);
        return 0;
    }
    /* we may have made it just now */
    if (rc == 1 && !p->whole && flock(p->lock, LOCK_EX | LOCK_NB) == 0 &&
        is_current(d, name, p->lock) && examine(d, p, uuid, path) && !p->whole)
        remove_lock(d, name);
    return err_set(e, ERR_ABSENT, "dependency %s is not in the cache any more", name);
}

int deps_place_commit(const struct deps_dirs *d, struct deps_place *p, const char *uuid,
                      const char *path, struct err *e)
{
    AUTO_FREE char *tmp = deps_place_temporary(p->name), *file = mem_printf("%s.json", p->name);
    const struct record r = {(char *)uuid, (char *)path, p->bytes, p->is_dir, clock_epoch()};
    AUTO(cJSON) cJSON *v = json_write_fields(record_fields, &r);
    AUTO_FREE char *text = json_text(v);

    /* Record last: contents without one are garbage, a record always has its contents. */
    if (tree_remove_at(d->contents, p->name, e) < 0)
        return -1;
    if (renameat(d->contents, tmp, d->contents, p->name) < 0)
        return err_sys(e, "put %s into place", p->name);
    if (statefile_replace(d->state, file, text, strlen(text), 0600, true, e) < 0)
        return -1;
    p->whole = true;
    return 0;
}

static char *mark_dir(const char *name)
{
    return mem_printf("%s.use", name);
}

static bool is_marked(const struct deps_dirs *d, const char *name)
{
    AUTO_FREE char *dir = mark_dir(name);

    /* Only an empty directory can be removed: test and removal are one step. */
    return unlinkat(d->state, dir, AT_REMOVEDIR) < 0 && errno != ENOENT;
}

static int remove_locked(const struct deps_dirs *d, const char *name, struct err *e)
{
    AUTO_FREE char *tmp = deps_place_temporary(name), *file = mem_printf("%s.json", name);

    if (statefile_remove(d->state, file, false, e) < 0 || tree_remove_at(d->contents, tmp, e) < 0)
        return -1;
    /* Aside first: what is being deleted never looks whole. */
    if (renameat(d->contents, name, d->contents, tmp) < 0 && errno != ENOENT)
        return err_sys(e, "set %s aside", name);
    return tree_remove_at(d->contents, tmp, e);
}

int deps_place_remove(const struct deps_dirs *d, const char *name, struct err *e)
{
    AUTO_CLOSE int lock = -1;
    int rc = try_lock(d, name, LOCK_EX, &lock, e);

    if (rc < 0)
        return -1;
    if (rc == 0 || is_marked(d, name))
        return err_set(e, ERR_LIMIT, "dependency %s is in use", name);
    if (remove_locked(d, name, e) < 0)
        return -1;
    remove_lock(d, name);
    return 0;
}

static char *mark_file(const struct deps_dirs *d, const char *run)
{
    return mem_printf("%s@%s", d->owner, run);
}

void deps_place_mark(const struct deps_dirs *d, const char *name, const char *run)
{
    AUTO_FREE char *dir = mark_dir(name), *file = mark_file(d, run);
    AUTO_FREE char *path = mem_printf("%s/%s", dir, file);

    mkdirat(d->state, dir, 0700);
    AUTO_CLOSE int fd UNUSED =
        openat(d->state, path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
}

bool deps_place_unmark(const struct deps_dirs *d, const char *name, const char *run)
{
    AUTO_FREE char *dir = mark_dir(name), *file = mark_file(d, run);
    AUTO_FREE char *path = mem_printf("%s/%s", dir, file);

    unlinkat(d->state, path, 0);
    return is_marked(d, name);
}

/* Names of a directory, copied, so that entries may go while they are looked at. */
static int list(int dirfd_, struct str_list *ret, struct err *e)
{
    int fd = openat(dirfd_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (!dir) {
        err_sys(e, "read the cache of dependencies");
        close_fd(&fd);
        return -1;
    }
    while ((entry = readdir(dir)))
        if (!str_eq(entry->d_name, ".") && !str_eq(entry->d_name, ".."))
            str_list_add(ret, entry->d_name);
    closedir(dir);
    return 0;
}

/* Contents without a record, downloads without a living owner. Not in a directory that a Python worker uses too: its
 * contents have records of another form. */
static void sweep_contents(const struct deps_dirs *d, const struct str_list *names)
{
    if (faccessat(d->contents, "../dependencies-state.json", F_OK, 0) == 0)
        return;
    for (size_t i = 0; i < names->n; i++) {
        const char *entry = names->items[i];
        const char *name = str_starts(entry, ".tmp-") ? entry + 5 : entry;
        AUTO_FREE char *file = mem_printf("%s.json", name);
        struct err ignored = ERR_INIT;
        AUTO_CLOSE int lock = -1;

        if (try_lock(d, name, LOCK_EX, &lock, &ignored) != 1)
            continue;
        bool whole = faccessat(d->state, file, F_OK, 0) == 0;

        if ((name != entry || !whole) && tree_remove_at(d->contents, entry, &ignored) == 0 &&
            !whole)
            remove_lock(d, name);
    }
}

/* Locks of places that are empty: a download that died, or a removal that was cut off. */
static void sweep_locks(const struct deps_dirs *d, const struct str_list *states)
{
    for (size_t i = 0; i < states->n; i++) {
        if (!str_ends(states->items[i], ".lock"))
            continue;
        AUTO_FREE char *name =
            mem_strndup(states->items[i], strlen(states->items[i]) - strlen(".lock"));
        AUTO_FREE char *file = mem_printf("%s.json", name);
        struct err ignored = ERR_INIT;
        AUTO_CLOSE int lock = -1;

        if (faccessat(d->state, file, F_OK, 0) < 0 &&
            try_lock(d, name, LOCK_EX, &lock, &ignored) == 1 &&
            faccessat(d->state, file, F_OK, 0) < 0)
            remove_lock(d, name);
    }
}

/* Records that cannot be read are set aside, those without contents removed. */
static void sweep_records(const struct deps_dirs *d, const struct str_list *states)
{
    for (size_t i = 0; i < states->n; i++) {
        struct err problem = ERR_INIT;
        struct record r = {0};

        if (!str_ends(states->items[i], ".json"))
            continue;
        AUTO_FREE char *name =
            mem_strndup(states->items[i], strlen(states->items[i]) - strlen(".json"));

        if (read_record(d, name, &r, &problem) < 0) {
            int rc UNUSED = statefile_set_aside(d->state, states->items[i], &problem);
        } else if (faccessat(d->contents, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0) {
            int rc UNUSED = statefile_remove(d->state, states->items[i], false, &problem);
        }
        json_free_fields(record_fields, &r);
    }
}

int deps_place_sweep(const struct deps_dirs *d, struct err *e)
{
    AUTO(str_list) struct str_list contents = {0}, states = {0}, left = {0};

    statefile_sweep(d->state);
    if (list(d->contents, &contents, e) < 0 || list(d->state, &states, e) < 0)
        return -1;
    sweep_contents(d, &contents);
    sweep_records(d, &states);
    if (list(d->state, &left, e) < 0)
        return -1;
    sweep_locks(d, &left);
    return 0;
}

static bool has_marks(const struct deps_dirs *d, const char *name)
{
    AUTO_FREE char *dir = mark_dir(name);

    return faccessat(d->state, dir, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int deps_place_each(const struct deps_dirs *d,
                    void (*fn)(void *arg, const char *uuid, const char *path,
                               const struct deps_place *p),
                    void *arg, struct err *e)
{
    AUTO(str_list) struct str_list states = {0};

    if (list(d->state, &states, e) < 0)
        return -1;
    for (size_t i = 0; i < states.n; i++) {
        struct err ignored = ERR_INIT;
        struct record r = {0};

        if (!str_ends(states.items[i], ".json"))
            continue;
        AUTO_FREE char *name =
            mem_strndup(states.items[i], strlen(states.items[i]) - strlen(".json"));

        if (read_record(d, name, &r, &ignored) == 0) {
            const struct deps_place p = {
                name, -1, r.bytes, r.is_dir, true, has_marks(d, name), r.last_used};

            fn(arg, r.uuid, r.path, &p);
        }
        json_free_fields(record_fields, &r);
    }
    return 0;
}

void deps_place_keep_marks(const struct deps_dirs *d, const struct str_list *runs)
{
    AUTO(str_list) struct str_list states = {0};
    AUTO_FREE char *prefix = mem_printf("%s@", d->owner);
    struct err ignored = ERR_INIT;

    if (list(d->state, &states, &ignored) < 0)
        return;
    for (size_t i = 0; i < states.n; i++) {
        AUTO(str_list) struct str_list marks = {0};

        if (!str_ends(states.items[i], ".use"))
            continue;
        AUTO_CLOSE int dir =
            openat(d->state, states.items[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

        if (dir < 0 || list(dir, &marks, &ignored) < 0)
            continue;
        for (size_t k = 0; k < marks.n; k++)
            if (str_starts(marks.items[k], prefix) &&
                !str_list_has(runs, marks.items[k] + strlen(prefix)))
                unlinkat(dir, marks.items[k], 0);
    }
}
