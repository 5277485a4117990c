#pragma once
/*
 * pull.h - resolve a reference, fetch what is missing, commit. Door of oci/.
 *
 * Blocks its (lane) thread; several pulls may run at once; pulls of one layer, in this or another process,
 * share the work. Threads: any.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"

struct err;
struct cancel;
struct http_client;
struct image;
struct oci_store;
struct oci_ref;
struct oci_trust;
struct oci_logins;

enum oci_phase { OCI_RESOLVING, OCI_DOWNLOADING, OCI_EXTRACTING, OCI_COMMITTING, OCI_DONE };

struct oci_layer_progress {
    const char *digest;
    uint64_t bytes, total; /* compressed */
    bool started, done;
};
struct oci_progress {
    enum oci_phase phase;
    uint64_t bytes, total; /* compressed bytes over the layers to fetch; total 0: unknown */
    unsigned layers_done, layers;
    const struct oci_layer_progress *each; /* `layers` of them; only during the call */
};

struct oci_registries {
    struct str_list insecure; /* hosts that may be spoken to over http or without verification */
    struct str_list mirrors;  /* "registry=url" in order of preference */
    char *certs_dir;          /* /etc/docker/certs.d */
    char *docker_config;      /* path of config.json, or NULL */
    char *docker_auths;       /* the text of one, asked before the file, or NULL */
    struct oci_trust *trust;  /* the operator's policy (oci/trust.h), or NULL: any image will do */
    struct oci_logins
        *logins; /* made by oci_registries_credentials: tokens, for all pulls; may be NULL */
    uint64_t patience_ns; /* silence, or less than 1 KiB/s, this long is failure; 0: a minute */
};
/* "[REGISTRY=]URL", without a registry of Docker Hub; tried in the order they are added. ERR_USER. */
int oci_registries_add_mirror(struct oci_registries *r, const char *text, struct err *e) MUST_CHECK;
/* Once. Credentials from `file` or, when that is NULL, from where Docker and its kin look: $DOCKER_AUTH_CONFIG (the
 * document itself), $REGISTRY_AUTH_FILE, $DOCKER_CONFIG/config.json, ~/.docker/config.json. */
void oci_registries_credentials(struct oci_registries *r, const char *file);
/* The trust policy in that file; NULL: none. ERR_USER names the rule that is wrong. */
int oci_registries_load_trust(struct oci_registries *r, const char *file, struct err *e) MUST_CHECK;
/* May that image, which is here already, be used without asking a registry? ERR_USER: no, and why. */
int oci_registries_admit(const struct oci_registries *r, const struct oci_ref *ref, struct err *e)
    MUST_CHECK;
/* Flags plus /etc/docker/daemon.json keys "insecure-registries", "registry-mirrors". */
int oci_registries_load(struct oci_registries *r, const char *daemon_json, struct err *e)
    MUST_CHECK;
void oci_registries_free(struct oci_registries *r);

struct oci_pull_opts {
    const struct oci_registries *registries;
    struct http_client *http;
    struct cancel *cancel;
    uint64_t
        max_compressed_size; /* 0: none; else refused before the first layer byte, ERR_LIMIT (B152) */
    const char *platform; /* "linux/arm64[/v8]"; NULL: DOCKER_DEFAULT_PLATFORM, or this machine's */
    bool take_names;      /* an archive's own names for the image are its names in the store, too */
    /* Free bytes of the store's disk that a pull leaves alone. */
    uint64_t reserve;
    /* So many bytes are missing: true when some were freed, and it is worth to look again. May be NULL. */
    bool (*make_room)(void *arg, uint64_t missing);
    void *make_room_arg;
    unsigned parallel; /* layers at once; 0: number of CPUs */
    void (*progress)(
        void *arg, const struct oci_progress *p); /* any thread, at most 10 a second; may be NULL */
    void *progress_arg;
};

/*
 * Always asks the registry what a tag points to now (B147); what is there is not fetched again.
 * Errors read well to a user and name reference, registry and layer. ERR_ABSENT: no such image there.
 */
int oci_pull(struct oci_store *s, const struct oci_ref *ref, const struct oci_pull_opts *o,
             struct image **ret, struct err *e) MUST_CHECK;

/* Is an image of platform `offered` ("" when it does not say) one to run where `wanted` is asked for? NULL: as above, or
 * whatever there is. ERR_USER: `wanted` is no platform. */
int oci_platform_admits(const char *wanted, const char *offered, bool *ret, struct err *e)
    MUST_CHECK;

/* The exact text of protocol 8.4 is the caller's; this says how big: compressed layers of the platform's manifest. */
int oci_pull_size(const struct oci_ref *ref, const struct oci_pull_opts *o, uint64_t *ret,
                  struct err *e) MUST_CHECK;
