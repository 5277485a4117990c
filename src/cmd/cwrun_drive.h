#pragma once
/*
 * cwrun_drive.h - the worker's state machine and the worker's containers, driven in the foreground for one bundle.
 *
 * cwrun_drive steps run_stage.h from PREPARING to FINALIZING and does what it wants as the worker does it, with
 * container.h; what the run says afterwards is what the worker would have reported. Results are left where they are.
 * Threads: single-threaded programs only. Ownership: the caller's.
 */
#include "base/cleanup.h"
#include "base/err.h"

struct container_env;
struct image;
struct run;
struct str_list;

struct drive {
    struct run *run; /* in PREPARING; CPUs, GPUs and ids placed */
    const struct container_env *env;
    const struct image *image;
    const struct str_list *paths; /* host path of each dependency */
    /* A program of ours beside the run, or NULL: begun when the run has, and the run ends with it, unless it ends because the
     * person has left a terminal in the run: then with the program there. */
    char *const *beside;
    int beside_status; /* after: how it ended, as a shell counts; -1: it was not begun; 0: left */
    int signals; /* from cwrun_open_signals: any of them ends the run, as a kill from the server */

    char *
        own_output; /* after: what the wrapping bash wrote on its own stdout and stderr; NULL: nothing */
    char *note; /* after: what could not be cleaned up; NULL: all was */
};
void cwrun_drive(struct drive *d);
