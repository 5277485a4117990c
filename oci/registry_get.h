#pragma once
/*
 * registry_get.h - one GET of a session: at the places of its repository in order, authenticated when challenged,
 * redirects followed, repeated with back-off while that helps. Inside of oci/registry.
 *
 * Threads: any; a get belongs to one. Ownership: answer is released by the caller.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/http.h"
#include "base/str.h"
#include "oci/registry.h"

struct cancel;
struct err;
struct http_client;
struct oci_auth;
struct oci_local;
struct oci_ref;
struct oci_registries;

struct oci_session {
    struct oci_local *local; /* opened when first asked; only if the reference is of a file */
    const struct oci_ref *ref;
    const struct oci_registries *registries;
    struct http_client *http;
    struct cancel *cancel;
    struct oci_auth *auth;
    struct str_list bases; /* "https://host"; mirrors first */
    size_t mirrors;        /* how many of them, at the start */
    pthread_mutex_t lock;  /* guards the rest */
    bool left_mirrors;     /* they are asked no more */
    size_t preferred;      /* the place that answered last; SIZE_MAX: none yet */
};

/* What is asked, and what was answered. */
struct oci_get {
    const char *path;   /* "/manifests/latest" */
    const char *accept; /* a whole header line, or NULL */
    uint64_t max_body;
    uint64_t timeout_ns;

    /* A document: judged where it came from, so that the next place is asked when it is no good. May be NULL. */
    int (*check)(const struct http_response *answer, const void *arg, struct err *e);
    const void *check_arg;

    /* A blob: streamed. taken says how much the sink has had of its `size` bytes, over all attempts. */
    oci_blob_sink *sink;
    void *sink_arg;
    const uint64_t *taken;
    uint64_t size;
    bool no_range; /* asks from the start, because ranges were answered wrongly; set inside, too */

    bool answered;    /* the server said something */
    bool sink_failed; /* the error is the sink's, not the registry's */
    bool
        hopeless; /* it would go the same way again: redirected in a circle, busy time after time */
    uint64_t offset, discard;
    struct http_response answer;
};

/* 0 with a 2xx answer. ERR_ABSENT: no place has it. ERR_USER: denied. */
int oci_registry_get(struct oci_session *s, struct oci_get *g, struct err *e) MUST_CHECK;
/* Is that Content-Range exactly from `offset` to the end of `size` (S19)? text may be NULL. */
bool oci_registry_is_range(const char *text, uint64_t offset, uint64_t size);
/* Wait, unless cancelled. */
int oci_registry_pause(struct oci_session *s, uint64_t ns, struct err *e) MUST_CHECK;
