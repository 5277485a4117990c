#pragma once
/*
 * cwrun_launch.h - the part that `run` and `bundle` share: a container of this process, from spec to exit status.
 *
 * new ──► fill l->spec (l->dir is its overlay directory, l->first_id its user-id range) ──► run ──► free
 * Whatever happens nothing is left: no mount, cgroup, link, directory, process (S08). Single-threaded.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"

struct ctr_spec;
struct exit_record;

struct cwrun_launch {
    char *id;          /* "cwrun-<8 hex>" */
    char *dir;         /* writable layer: <work dir>/cwrun/<id> */
    uint32_t first_id; /* host id of container id 0; 0: no user namespace */
    int id_lock;       /* holds the range */
    bool keep;         /* leave dir, and say where it is */
    bool partial_cgroup;
    struct ctr_spec *spec;
    bool oom_killed; /* after run: the memory limit was met */
};

/* store: image store; the writable layer goes to the same file system, beside it. */
int cwrun_launch_new(const char *store, bool own_ids, bool keep, struct cwrun_launch **ret,
                     struct err *e) MUST_CHECK;
void cwrun_launch_free(struct cwrun_launch *l);
DEFINE_AUTO(cwrun_launch, cwrun_launch_free)
/* network: "none", "internal", "external", "host". Blocks until the container ended; signals are forwarded. */
int cwrun_launch_run(struct cwrun_launch *l, const char *network, int *ret_status, struct err *e)
    MUST_CHECK;
/* Descriptor that tells SIGINT, SIGTERM and their like from now on (signalfd, non-blocking); -1. */
int cwrun_open_signals(struct err *e) MUST_CHECK;
/* Print and give 126 or 127 where the command was at fault, else 125. */
int cwrun_launch_failed(const struct err *e);
