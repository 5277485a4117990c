#include "worker/run_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/jobs.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/statefile.h"
#include "worker/reserve.h"
#include "worker/run.h"

#define ID_MAX 127
#define NOTE   ".asked"

struct save_job;

struct run_store {
    int parent, dir, lock;
    char *name; /* of dir in parent */
    char *id;
    struct lane *lane;
    struct reserve *reserve;
    struct save_job *waiting; /* newest first; main only */
    pthread_mutex_t mutex;    /* what main and the lane both know of a save */
};

/* A worker id as a file name: what is not plain becomes %XX; ids of 127 bytes may pass 255, so those are hashed. */
static char *dir_name(const char *id)
{
    AUTO(str) struct str s = STR_INIT(4 * ID_MAX);
    uint64_t hash = 14695981039346656037u;

    for (const unsigned char *p = (const unsigned char *)id; *p; p++) {
        hash = (hash ^ *p) * 1099511628211u;
        bool plain = strchr("._-()", *p)
                         ? p != (const unsigned char *)id || *p != '.'
                         : (*p >= '0' && *p <= '9') || ((*p | 32) >= 'a' && (*p | 32) <= 'z');
        BUG_ON(str_appendf(&s, plain ? "%c" : "%%%02X", *p) < 0);
    }
    if (s.len > 200)
        return mem_printf("%.150s-%016llx", str_text(&s), (unsigned long long)hash);
    return str_take(&s);
}

/* Open and lock a worker's directory. 1: taken; 0: a live worker holds it. */
static int try_take(struct run_store *s, const char *name, struct err *e)
{
    AUTO_CLOSE int dir = openat(s->parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (dir < 0)
        return err_sys(e, "open state directory %s", name);
    AUTO_CLOSE int lock = openat(dir, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (lock < 0)
        return err_sys(e, "open the lock of state directory %s", name);
    if (flock(lock, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            return 0;
        return err_sys(e, "lock state directory %s", name);
    }
    s->dir = take_fd(&dir);
    s->lock = take_fd(&lock);
    mem_replace(&s->name, name);
    return 1;
}

/* What stands there already is not written again: the disk may be full. */
static int note_id(const struct run_store *s, struct err *e)
{
    AUTO(str) struct str old = STR_INIT(ID_MAX);
    struct err ignored = ERR_INIT;

    if (statefile_read(s->dir, "id", &old, &ignored) == 0 && str_eq(str_text(&old), s->id))
        return 0;
    return statefile_replace(s->dir, "id", s->id, strlen(s->id), 0600, true, e);
}

static int take_id(struct run_store *s, const char *id, bool made_here, struct err *e)
{
    AUTO_FREE char *name = dir_name(id);

    if (mkdirat(s->parent, name, 0700) < 0 && errno != EEXIST)
        return err_sys(e, "make state directory %s", name);
    int rc = try_take(s, name, e);
    if (rc < 0)
        return -1;
    if (rc == 0)
        return err_set(e, ERR_LIMIT,
                       "a worker with the id %s is already alive on this work directory", id);
    s->id = mem_strdup(id);
    return note_id(s, e) < 0 ||
                   (made_here && statefile_replace(s->dir, "made-here", "", 0, 0600, true, e) < 0)
               ? -1
               : 0;
}

/* The first id a worker without --id has made on this host and that no live worker holds. 1 when found. */
static int take_old_id(struct run_store *s, const char *hostname, struct err *e)
{
    AUTO_CLOSE int list = fd_dup(s->parent);
    DIR *d = list < 0 ? NULL : fdopendir(list);
    struct dirent *entry;
    int found = 0;

    if (!d)
        return err_sys(e, "read the state directory");
    take_fd(&list);
    rewinddir(d);
    while (found <= 0 && (entry = readdir(d))) {
        struct stat st;
        AUTO_FREE char *mark = mem_printf("%s/made-here", entry->d_name);
        AUTO(str) struct str id = STR_INIT(ID_MAX);
        if (!path_is_component(entry->d_name) ||
            fstatat(s->parent, mark, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        struct err ignored = ERR_INIT;
        found = try_take(s, entry->d_name, &ignored);
        if (found <= 0)
            continue;
        if (statefile_read(s->dir, "id", &id, &ignored) == 0 &&
            str_starts(str_text(&id), hostname)) {
            s->id = str_take(&id);
            continue;
        }
        close_fd(&s->dir);
        close_fd(&s->lock);
        found = 0;
    }
    closedir(d);
    return found;
}

static int choose_id(struct run_store *s, const char *id, struct err *e)
{
    char host[65] = "";

    if (id)
        return take_id(s, id, false, e);
    gethostname(host, sizeof(host) - 1);
    AUTO_FREE char *prefix = mem_printf("%s(", host);
    int rc = take_old_id(s, prefix, e);
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    AUTO_FREE char *made = mem_printf("%s(%d)", host, (int)getpid());
    return take_id(s, made, true, e);
}

int run_store_open(const char *work_dir, const char *id, struct run_store **ret, struct err *e)
{
    AUTO(run_store) struct run_store *s = mem_new(struct run_store);
    AUTO_FREE char *path = mem_printf("%s/state", work_dir);

    pthread_mutex_init(&s->mutex, NULL);
    s->parent = s->dir = s->lock = -1;
    if (id && (!*id || strlen(id) > ID_MAX || strchr(id, '/')))
        return err_set(e, ERR_USER, "a worker id has 1 to %d characters and no '/'", ID_MAX);
    if (path_mkdirs(path, 0700, e) < 0)
        return -1;
    s->parent = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->parent < 0)
        return err_sys(e, "open %s", path);
    if (choose_id(s, id, e) < 0)
        return -1;
    statefile_sweep(s->dir);
    s->reserve = reserve_new(s->dir);
    *ret = take_ptr(&s);
    return 0;
}

void run_store_close(struct run_store *s)
{
    if (!s)
        return;
    pthread_mutex_destroy(&s->mutex);
    reserve_free(s->reserve);
    close_fd(&s->lock);
    close_fd(&s->dir);
    close_fd(&s->parent);
    free(s->name);
    free(s->id);
    free(s);
}

const char *run_store_id(const struct run_store *s)
{
    return s->id;
}

const char *run_store_name(const struct run_store *s)
{
    return s->name;
}

void run_store_use_lane(struct run_store *s, struct lane *lane)
{
    s->lane = lane;
}

/* ---- saving ----
 *
 * A run changes faster than a disk syncs. A save that waits in the lane is passed over when a later one of the same run is
 * behind it: the later one tells both that they are durable. So a crowd of runs costs a write each, not one a change.
 */

struct save_job {
    struct job job;           /* first */
    struct run_store *store;  /* outlives its lane's jobs */
    int dir;                  /* its */
    char *name, *note, *text; /* text NULL: remove */
    void (*saved)(void *arg, const struct err *error);
    void *arg;
    struct err error;
    struct save_job *next;  /* main: of those not done */
    struct save_job *older; /* passed over for this one; told and freed with it */
    bool begun, passed;     /* under the store's mutex */
};

/* False when a later save of the same run will do. */
static bool begin_save(struct save_job *j)
{
    pthread_mutex_lock(&j->store->mutex);
    j->begun = true;
    bool passed = j->passed;
    pthread_mutex_unlock(&j->store->mutex);
    return !passed;
}

static void save_run(struct job *job)
{
    struct save_job *j = (struct save_job *)job;

    if (!begin_save(j))
        return;

    if (!j->text)
        (void)!statefile_remove(j->dir, j->name, true, &j->error);
    else
        (void)!reserve_write(j->store->reserve, j->name, j->text, true, &j->error);
    if (j->error.kind == ERR_NONE)
        unlinkat(j->dir, j->note, 0);
}

static void tell_and_free(struct save_job *j, const struct err *error)
{
    if (j->older)
        tell_and_free(j->older, error);
    if (j->saved)
        j->saved(j->arg, error);
    free(j->name);
    free(j->note);
    free(j->text);
    free(j);
}

static void save_done(struct job *job)
{
    struct save_job *j = (struct save_job *)job, **at = &j->store->waiting;
    struct err error = j->error;

    while (*at && *at != j)
        at = &(*at)->next;
    if (*at)
        *at = j->next;
    if (!j->passed || !j->job.ran)
        tell_and_free(j, error.kind == ERR_NONE ? NULL : &error);
}

/* The newest save of that name, if it has not begun: passed over from now on. Main only looks at the list. */
static struct save_job *pass_over(struct run_store *s, const char *name)
{
    struct save_job *j = s->waiting;

    while (j && !str_eq(j->name, name))
        j = j->next;
    if (!j)
        return NULL;
    pthread_mutex_lock(&s->mutex);
    j->passed = !j->begun;
    bool passed = j->passed;
    pthread_mutex_unlock(&s->mutex);
    return passed ? j : NULL;
}

static void submit(struct run_store *s, const char *uuid, char *text,
                   void (*saved)(void *, const struct err *), void *arg)
{
    struct save_job *j = mem_new(struct save_job);

    j->job.run = save_run;
    j->job.done = save_done;
    j->store = s;
    j->dir = s->dir;
    j->name = mem_printf("%s.json", uuid);
    j->note = mem_printf("%s" NOTE, uuid);
    j->text = text;
    j->saved = saved;
    j->arg = arg;
    if (s->lane) {
        j->older = pass_over(s, j->name);
        j->next = s->waiting;
        s->waiting = j;
        lane_submit(s->lane, &j->job);
        return;
    }
    save_run(&j->job);
    save_done(&j->job);
}

void run_store_save(struct run_store *s, const struct run *r,
                    void (*saved)(void *, const struct err *), void *arg)
{
    cJSON *o = run_to_json(r);
    char *text = json_text(o);

    cJSON_Delete(o);
    submit(s, r->bundle.uuid, text, saved, arg);
}

void run_store_forget(struct run_store *s, const char *uuid)
{
    submit(s, uuid, NULL, NULL, NULL);
}

/* ---- what is being asked for ---- */

int run_store_note(struct run_store *s, const struct bundle *b, struct err *e)
{
    AUTO_FREE char *name = mem_printf("%s" NOTE, b->uuid);
    AUTO(cJSON) cJSON *v = json_write_fields(bundle_fields, b);
    AUTO_FREE char *text = json_text(v);

    /* Also on a full disk: a run that is taken and cannot be made says why, one that is not hangs in "starting". */
    return reserve_write(s->reserve, name, text, false, e);
}

void run_store_unnote(struct run_store *s, const char *uuid)
{
    AUTO_FREE char *name = mem_printf("%s" NOTE, uuid);

    unlinkat(s->dir, name, 0);
}

static int load_note(struct run_store *s, const char *name, struct bundle **ret, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(4 * BOUND_SERVICE_JSON);
    AUTO(cJSON) cJSON *v = NULL;
    AUTO(bundle) struct bundle *b = mem_new(struct bundle);

    if (statefile_read(s->dir, name, &text, e) < 0 ||
        json_parse(str_text(&text), text.len, &v, e) < 0 ||
        json_read_fields(v, bundle_fields, b, e) < 0)
        return -1;
    if (!protocol_is_uuid(b->uuid))
        return err_set(e, ERR_USER, "its uuid is not usable");
    if (!b->store)
        b->store = mem_strdup("");
    *ret = take_ptr(&b);
    return 0;
}

int run_store_load_notes(struct run_store *s, struct bundle ***ret, size_t *ret_n, struct err *e)
{
    AUTO_CLOSE int list = fd_dup(s->dir);
    DIR *d = list < 0 ? NULL : fdopendir(list);
    struct dirent *entry;

    if (!d)
        return err_sys(e, "read the state directory");
    take_fd(&list);
    rewinddir(d);
    *ret = NULL;
    *ret_n = 0;
    while ((entry = readdir(d))) {
        struct err ignored = ERR_INIT;
        struct bundle *b = NULL;

        if (!str_ends(entry->d_name, NOTE))
            continue;
        AUTO_FREE char *run =
            mem_printf("%.*s.json", (int)(strlen(entry->d_name) - strlen(NOTE)), entry->d_name);
        if (faccessat(s->dir, run, F_OK, 0) < 0 && load_note(s, entry->d_name, &b, &ignored) == 0) {
            *ret = mem_realloc(*ret, *ret_n + 1, sizeof(**ret));
            (*ret)[(*ret_n)++] = b;
        } else {
            unlinkat(s->dir, entry->d_name, 0);
        }
    }
    closedir(d);
    return 0;
}

/* ---- loading ---- */

static int load_one(struct run_store *s, const char *name, const char *uuid, struct run **ret,
                    struct err *e)
{
    AUTO(str) struct str text = STR_INIT(4 * BOUND_SERVICE_JSON);
    AUTO(cJSON) cJSON *v = NULL;
    AUTO(run) struct run *r = NULL;

    if (statefile_read(s->dir, name, &text, e) < 0 ||
        json_parse(str_text(&text), text.len, &v, e) < 0 || run_from_json(v, &r, e) < 0)
        return -1;
    if (!str_eq(r->bundle.uuid, uuid))
        return err_set(e, ERR_USER, "it holds another run");
    *ret = take_ptr(&r);
    return 0;
}

static void load_file(struct run_store *s, const char *name, struct run ***runs, size_t *n,
                      struct str_list *notes, struct str_list *damaged)
{
    AUTO_FREE char *uuid = mem_strndup(name, strlen(name) - strlen(".json"));
    struct err e = ERR_INIT, aside = ERR_INIT;
    struct run *r = NULL;

    if (!protocol_is_uuid(uuid))
        return;
    if (load_one(s, name, uuid, &r, &e) == 0) {
        *runs = mem_realloc(*runs, *n + 1, sizeof(**runs));
        (*runs)[(*n)++] = r;
        return;
    }
    str_list_take(notes, mem_printf("state file %s is damaged and set aside: %s", name, e.msg));
    str_list_add(damaged, uuid);
    if (statefile_set_aside(s->dir, name, &aside) < 0)
        str_list_take(notes, mem_printf("state file %s: %s", name, aside.msg));
}

int run_store_load(struct run_store *s, struct run ***ret, size_t *ret_n,
                   struct str_list *ret_notes, struct str_list *ret_damaged, struct err *e)
{
    AUTO_CLOSE int list = fd_dup(s->dir);
    DIR *d = list < 0 ? NULL : fdopendir(list);
    struct dirent *entry;

    if (!d)
        return err_sys(e, "read the state directory");
    take_fd(&list);
    rewinddir(d);
    *ret = NULL;
    *ret_n = 0;
    while ((entry = readdir(d)))
        if (str_ends(entry->d_name, ".json"))
            load_file(s, entry->d_name, ret, ret_n, ret_notes, ret_damaged);
    closedir(d);
    return 0;
}

void run_store_remove(struct run_store *s)
{
    struct err ignored = ERR_INIT;
    AUTO_FREE struct bundle **notes = NULL;
    size_t n = 0;

    (void)!run_store_load_notes(s, &notes, &n, &ignored);
    for (size_t i = 0; i < n; i++) {
        run_store_unnote(s, notes[i]->uuid);
        bundle_free(notes[i]);
    }
    reserve_remove(s->dir);
    (void)!statefile_remove(s->dir, "id", false, &ignored);
    (void)!statefile_remove(s->dir, "made-here", false, &ignored);
    (void)!statefile_remove(s->dir, "lock", false, &ignored);
    /* Not empty (another run's state): left. */
    unlinkat(s->parent, s->name, AT_REMOVEDIR);
}
