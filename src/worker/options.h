#pragma once
/*
 * options.h - the flags of cl-worker, and a few of our own (protocol 11.1, B199-B207).
 *
 * Order: options_read, then options_credentials. The configuration file (--config) is read first, so that a flag on
 * the command line wins. Threads: single-threaded programs only. Ownership: options_free.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/opt.h"
#include "base/str.h"

struct err;

struct options {
    /* cl-worker's */
    char *server, *ws_server, *work_dir, *network_prefix, *tag, *group, *cpuset, *gpuset,
        *password_file, *id;
    char *bundle_runtime;
    char *kubernetes_cluster_host, *kubernetes_auth_token, *kubernetes_cert_path,
        *kubernetes_cert; /* ignored */
    int64_t max_work_dir_size, max_image_cache_size, max_image_size,
        max_memory; /* bytes; 0: none */
    int64_t idle_seconds, checkin_frequency_seconds, exit_after_num_runs, max_retries, shm_gb;
    bool tag_exclusive, verbose, exit_when_idle, shared_file_system, pass_down_termination;
    bool delete_work_dir_on_exit, exit_on_exception, preemptible;
    /* ours */
    char *config, *image_store, *scratch_dir, *runtime_dir, *cgroup, *cgroup_parent, *userns, *shim,
        *docker_config, *certs_dir, *trust_policy;
    char *ipv4_pool, *ipv6_pool, *ca_file;
    char *network_allow, *network_deny, *network_only;
    int64_t network_egress, network_ingress; /* bytes a second; 0: no limit */
    struct str_list insecure_registries, registry_mirrors, prepull_images;
    int64_t min_free_space; /* bytes; 0: none */
    int64_t pids_limit, pulls, downloads, registry_timeout, bundle_check_seconds,
        shared_dir_seconds;

    char *username, *password; /* by options_credentials */
};

extern const struct opt options_table[];

/* What became of the command line. */
enum options_result { OPTIONS_RUN, OPTIONS_HELP, OPTIONS_VERSION };
/* Errors: ERR_USER: usage and e->msg go to stderr, exit 2 (B200); a bad tag or path: exit 1 (B201), kind ERR_LIMIT. */
int options_read(int argc, char **argv, struct options *ret, enum options_result *ret_what,
                 struct err *e) MUST_CHECK;
void options_free(struct options *o);
DEFINE_AUTO_VALUE(options, options_free)

/*
 * User and password: --password-file, else CODALAB_USERNAME and CODALAB_PASSWORD, else the terminal (B206).
 * Errors: e->msg is all that is to be printed, several lines for lax permissions (B205); exit 1.
 */
int options_credentials(struct options *o, struct err *e) MUST_CHECK;
