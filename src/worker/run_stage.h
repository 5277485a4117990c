#pragma once
/*
 * run_stage.h - the state machine of a run: wants = run_stage_step(run, event).
 *
 *   PREPARING ─► RUNNING ─► CLEANING_UP ─► UPLOADING_RESULTS ─► FINALIZING ─► FINISHED
 *       └───────────────────────►┘ └──────────── (no contents) ──────►┘
 *                                 └─► RESTAGED (also from UPLOADING_RESULTS and FINALIZING)
 *
 * Pure: it reads and changes the run it is given and nothing else; what shall be done is answered as a set
 * of wants, which the run manager carries out and answers with further events. Every stage can be entered
 * again after a crash: the ENTER event asks for all that the stage is waiting for. An event that a stage does
 * not know (late answers, doubles) changes nothing.
 * Source: protocol document 5.5-5.7, 6. Threads: any; the run's owner.
 */
#include <stdbool.h>
#include <stdint.h>

#include "runtime/exit.h"
#include "worker/run.h"

enum run_event_kind {
    EV_ENTER,        /* after creation and after a restart of the worker */
    EV_STATUS,       /* text: what is waited for (dependencies, image, CPUs) */
    EV_INPUTS_READY, /* every dependency and the image are there */
    EV_PLACED,       /* CPUs and GPUs are reserved (set by the manager in the run) */
    EV_INPUT_FAILED, /* text: failure message */
    EV_CREATED,      /* text: image digest or NULL; the container is there, stopped */
    EV_START_FAILED, /* text: failure message */
    EV_STARTED,      /* number: CLOCK_BOOTTIME ns */
    EV_EXITED,       /* record, text: own output of the container or NULL */
    EV_VANISHED,     /* the container and its record are gone */
    EV_LIMITS,       /* flags: which limits are passed now */
    EV_KILL,         /* text: kill message */
    EV_RESTAGE,
    EV_CLEANED, /* number: bytes in the bundle directory; -1: unknown; record of a killed one, or NULL */
    EV_UPLOAD_STATUS,  /* text */
    EV_UPLOADED,       /* flag: an attempt had a server error */
    EV_UPLOAD_FAILED,  /* text: error */
    EV_UPLOAD_STOPPED, /* cancelled */
    EV_MARK_FINALIZED,
    EV_MEASURED,    /* number: bytes */
    EV_BUNDLE_GONE, /* the server does not know the bundle any more (D18) */
};
#define RUN_EVENT_COUNT (EV_BUNDLE_GONE + 1)

enum {
    LIMIT_TIME = 1,
    LIMIT_DISK = 2,
    LIMIT_FULL = 4, /* no limit of the run's: the worker's own disk (EV_EXITED only) */
};

struct run_event {
    enum run_event_kind kind;
    double now; /* epoch */
    const char *text;
    int64_t number;
    bool flag;
    unsigned limits;
    const struct exit_record *record;
};
/* EV_EXITED: limits says which were met when it ended: a program that died of a full quota says nothing of that itself. */

enum run_want {
    WANT_SAVE = 1,   /* the run changed in a way that must survive */
    WANT_INPUTS = 2, /* ask for dependencies and image; answer STATUS, INPUTS_READY, INPUT_FAILED */
    WANT_PLACE = 4,  /* reserve CPUs and GPUs; answer STATUS (and try again) or PLACED */
    WANT_CREATE = 8, /* directory, links, container, network; answer CREATED or START_FAILED */
    WANT_START = 16, /* once saved: let it go; answer STARTED or START_FAILED */
    WANT_WATCH = 32, /* adopt or go on watching; answer EXITED, VANISHED, LIMITS, MEASURED */
    WANT_CLEAN =
        64, /* end and remove the container, free what it held, remove links, measure; CLEANED */
    WANT_UPLOAD = 128,      /* answer UPLOADED, UPLOAD_FAILED */
    WANT_STOP_UPLOAD = 256, /* answer UPLOAD_STOPPED (or what came before) */
    WANT_REMOVE_DIR = 512,  /* the bundle directory goes */
    WANT_FORGET = 1024,     /* the run is over: state file and memory go */
    WANT_TELL = 2048,       /* worth a check-in soon */
};

/* What has to be done now; a set of enum run_want. */
unsigned run_stage_step(struct run *r, const struct run_event *ev, bool shared_fs);
