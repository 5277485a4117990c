#pragma once
/*
 * pull_inner.h - what the files of a pull share. Inside of oci/pull*.
 *
 *   pull.c          the door: which layers are missing, threads that fetch them, the commit
 *   pull_resolve.c  reference -> manifest and configuration; is it wanted at all
 *   pull_layer.c    one layer: fetched, unpacked, named
 *   pull_progress.c what is told meanwhile
 */
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"
#include "oci/manifest.h"
#include "oci/pull.h"
#include "oci/spool.h"
#include "oci/store_inner.h"

struct inflate_crew;
struct oci_layer;
struct oci_session;

struct pull_layer {
    const struct oci_desc *desc;
    const char *diff_id;
    char *key, *chain_key; /* by diff id; by chain id */
    size_t same_as;        /* index of the first layer of that diff id, or its own */
    bool chained;          /* it is, or will be, in the store under chain_key */

    char dir_name[32];                   /* in the work directory, while unpacked but not named */
    int dir;                             /* its "fs" */
    int checkpoint;                      /* file beside it, for large layers */
    struct oci_spool spool;              /* another one, for some of them */
    bool resumed;                        /* an earlier pull had begun with it */
    struct oci_layer *unpacked;          /* kept for completion */
    struct oci_layer_progress *progress; /* NULL unless it is missing; guarded by the pull's lock */
};

struct pull {
    struct oci_store *store;
    const struct oci_ref *ref;
    const struct oci_pull_opts *o;
    struct cancel *stop;
    struct oci_session *session;
    struct store_work work;

    char top_digest[DIGEST_TEXT_MAX], manifest_digest[DIGEST_TEXT_MAX];
    struct oci_doc doc;
    struct oci_config_doc config;
    struct pull_layer *layers;
    size_t n;

    pthread_mutex_t lock; /* guards what follows */
    bool split;           /* layers are few: there are cores for two threads each */
    size_t *missing;      /* indices, largest first */
    size_t n_missing, next, running;
    struct err failure;
    struct oci_progress progress;
    struct oci_layer_progress *each; /* in the order of missing */
    uint64_t reported_ns;
    int done_fd; /* eventfd: a worker ended */

    struct inflate_crew *crew; /* helps with large layers; NULL: there are no cores for one */
};

/* pull_progress.c. Threads: any. */

/* Bytes and layers that are done now; of layer l, if it is of one; now: whatever was told lately. */
void pull_report(struct pull *p, struct pull_layer *l, uint64_t bytes, unsigned layers, bool now);
void pull_enter_phase(struct pull *p, enum oci_phase phase);

/* pull_resolve.c */

/* top_digest, manifest_digest and doc, whatever the policy says. */
int pull_resolve_manifest(struct pull *p, struct err *e) MUST_CHECK;
/* The same within what policy and options allow. */
int pull_resolve(struct pull *p, struct err *e) MUST_CHECK;
/* Behind it: config, of the right platform. */
int pull_resolve_config(struct pull *p, struct err *e) MUST_CHECK;
/* Of all its layers; UINT64_MAX: more than can be said. */
uint64_t pull_compressed_size(const struct oci_doc *d);

/* pull_layer.c */

/* Unpacked by us, or by somebody else while we waited for the right to. Of a pull's workers. */
int pull_fetch_layer(struct pull *p, struct pull_layer *l, struct err *e) MUST_CHECK;
/* Close what is open of it. */
void pull_close_layer(struct pull_layer *l);
/* What is unpacked in l's directory gets its name in the store. */
int pull_publish(struct pull *p, struct pull_layer *l, struct oci_layer *unpacked, const char *key,
                 struct err *e) MUST_CHECK;
