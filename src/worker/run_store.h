#pragma once
/*
 * run_store.h - one state file a run, and which worker a directory of them belongs to.
 *
 *   {work-dir}/state/{worker}/lock          flock held for the life of the worker
 *                            /id            the worker id in full
 *                            /{uuid}.json   a run
 *                            /{uuid}.asked  a bundle the service is being asked for
 *                            /reserve.N     room for states when the disk is full
 *
 * A save is handed to a lane of one thread, so the order of saves is kept and main never waits for a disk; a
 * callback says when the state is durable. Two live workers never share one of these directories, though the
 * work directory may be shared, over NFS too.
 * Threads: main only. Ownership: run_store_open/run_store_close.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/str.h"

struct bundle;
struct err;
struct lane;
struct run;
struct run_store;

/*
 * Take the state directory of a worker.
 *   id        as given by --id, or NULL: the id first made in this work directory that no live worker holds,
 *             else "{hostname}({pid})" (DESIGN §8, D70)
 * Errors: ERR_LIMIT another live worker has that id here. Blocks shortly.
 */
int run_store_open(const char *work_dir, const char *id, struct run_store **ret, struct err *e)
    MUST_CHECK;
void run_store_close(struct run_store *s);
DEFINE_AUTO(run_store, run_store_close)
const char *run_store_id(const struct run_store *s);   /* borrowed */
const char *run_store_name(const struct run_store *s); /* the id as a file name; borrowed */
/* Saves go there from now on; before, they are made in place. */
void run_store_use_lane(struct run_store *s, struct lane *lane);

/* Save the run as it is now. saved (may be NULL) is called on the main thread with NULL or the error. */
void run_store_save(struct run_store *s, const struct run *r,
                    void (*saved)(void *arg, const struct err *error), void *arg);
/* Remove its file; in order behind its saves. */
void run_store_forget(struct run_store *s, const char *uuid);

/*
 * A bundle the service is about to be asked for: between its yes and our first save it would be lost for good. The note
 * goes with the first save of its run, with run_store_forget, and with run_store_unnote. It survives the worker, not the
 * host (then the server restages). Any thread.
 */
int run_store_note(struct run_store *s, const struct bundle *b, struct err *e) MUST_CHECK;
void run_store_unnote(struct run_store *s, const char *uuid);
/* Notes without a run, to be asked for once more; freed by the caller, each and the array. Unreadable ones are removed. */
int run_store_load_notes(struct run_store *s, struct bundle ***ret, size_t *ret_n, struct err *e)
    MUST_CHECK;

/* All runs of this worker; freed by the caller, each and the array. Damaged files are set aside, told in ret_notes, and
 * their runs' uuids are in ret_damaged (B192). */
int run_store_load(struct run_store *s, struct run ***ret, size_t *ret_n,
                   struct str_list *ret_notes, struct str_list *ret_damaged, struct err *e)
    MUST_CHECK;
/* Take the directory away when no run is left (--delete-work-dir-on-exit). */
void run_store_remove(struct run_store *s);
