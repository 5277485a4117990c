#pragma once
/*
 * deps_place.h - where a dependency's contents lie on disk, and who may touch them. Inner header of deps*.c.
 *
 *   {work}/dependencies/{name}               the contents, whole or absent
 *   {work}/dependencies/.tmp-{name}          a download under way; garbage unless {name}.lock is held
 *   {work}/dependencies-state/{name}.json    key, size, kind; there exactly while the contents are
 *   {work}/dependencies-state/{name}.lock    flock: exclusive while it is made or removed, shared while it is used; it
 *                                            goes with the contents
 *   {work}/dependencies-state/{name}.use/    a file a run: its contents stay even when its worker is down for a while
 *
 * All of it also serves several workers on one, possibly network, file system (B141). Threads: any; blocks on disk.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"

struct cancel;
struct err;

struct deps_dirs {
    int contents, state; /* O_PATH-less directory descriptors */
    char *contents_path;
    char *owner; /* escaped: part of file names */
};

struct deps_place {
    char *name;
    int lock; /* flock on {name}.lock; -1: not held */
    uint64_t bytes;
    bool is_dir, whole; /* whole: contents and record are there */
    bool marked;        /* some worker's run used it when it was listed */
    double last_used;
};
void deps_place_free(struct deps_place *p); /* the lock falls */
DEFINE_AUTO(deps_place, deps_place_free)

int deps_dirs_open(const char *work_dir, const char *owner, struct deps_dirs *ret, struct err *e)
    MUST_CHECK;
void deps_dirs_close(struct deps_dirs *d);

/* Protocol 7.2: "uuid" or "uuid_a_b", with '_' behind for each collision; long ones are shortened with a digest. */
char *deps_place_name(const char *uuid, const char *path, unsigned collision);

/* The key's place, locked exclusively; waits for another worker's download until cancelled. */
int deps_place_lock(const struct deps_dirs *d, const char *uuid, const char *path,
                    struct cancel *cancel, struct deps_place **ret, struct err *e) MUST_CHECK;
/* From exclusive to shared: it is in use. */
void deps_place_share(struct deps_place *p);
/* Locked exclusively, and nothing came of it: the lock's file goes, the lock itself with the place. */
void deps_place_give_up(const struct deps_dirs *d, const struct deps_place *p);
/* Shared lock on a place known to be whole, without waiting; ERR_ABSENT when it is gone or being removed. */
int deps_place_use(const struct deps_dirs *d, const char *name, const char *uuid, const char *path,
                   struct deps_place **ret, struct err *e) MUST_CHECK;
/* The temporary becomes the contents, and the record is written. */
int deps_place_commit(const struct deps_dirs *d, struct deps_place *p, const char *uuid,
                      const char *path, struct err *e) MUST_CHECK;
/* Name of the temporary; remove what is there. */
char *deps_place_temporary(const char *name);
/* Remove contents, record and marks, unless somebody uses them: ERR_LIMIT. */
int deps_place_remove(const struct deps_dirs *d, const char *name, struct err *e) MUST_CHECK;

void deps_place_mark(const struct deps_dirs *d, const char *name, const char *run);
/* True: other runs, of whatever worker, still use it. */
bool deps_place_unmark(const struct deps_dirs *d, const char *name, const char *run);

/* Start-up (7.7): garbage that nobody holds is removed. */
int deps_place_sweep(const struct deps_dirs *d, struct err *e) MUST_CHECK;
/* fn for each whole place, whichever worker made it. */
int deps_place_each(const struct deps_dirs *d,
                    void (*fn)(void *arg, const char *uuid, const char *path,
                               const struct deps_place *p),
                    void *arg, struct err *e) MUST_CHECK;
/* Drop this owner's marks of runs that are not in the list. */
void deps_place_keep_marks(const struct deps_dirs *d, const struct str_list *runs);
