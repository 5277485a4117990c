#pragma once
/*
 * cwrun.h - what the verbs of cwrun share.
 *
 * Each verb is `int cwrun_<verb>(int argc, char **argv)` with argv[0] the verb's name; it returns the exit status:
 * the command's own, 125 our failure, 126 not executable, 127 not found, 2 a bad command line.
 * Threads: single-threaded program (pulling starts threads and ends them).
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/opt.h"
#include "base/str.h"

struct image;
struct oci_store;

enum { EXIT_OURS = 125, EXIT_NOT_EXECUTABLE = 126, EXIT_NOT_FOUND = 127, EXIT_USAGE = 2 };

#define CWRUN_WORK_DIR    "/var/lib/cworker"
#define CWRUN_RUNTIME_DIR "/run/cworker"

/* Flags of every verb that touches images. */
struct image_options {
    char *store;
    struct str_list insecure, mirrors;
    char *docker_config, *certs_dir, *trust_policy, *platform;
    int64_t registry_timeout; /* seconds */
    bool quiet;
    bool json; /* pull: events on stdout */
    /* not flags */
    bool registries_only; /* the reference is not of who runs us: it cannot name files (S58) */
    bool take_names;      /* import: an archive's names become the store's */
};
#define IMAGE_OPTION_ROWS(struct_type, member)                                                     \
    OPT_ROW(struct_type, member.store, "store", 0, OPT_STR, "DIR", CWRUN_WORK_DIR "/images",       \
            "image store"),                                                                        \
        OPT_ROW(struct_type, member.insecure, "insecure-registry", 0, OPT_LIST, "HOST", NULL,      \
                "speak http, or https without verification, to this registry; repeatable"),        \
        OPT_ROW(struct_type, member.mirrors, "registry-mirror", 0, OPT_LIST, "REGISTRY=URL", NULL, \
                "ask this mirror first; repeatable"),                                              \
        OPT_ROW(struct_type, member.docker_config, "docker-config", 0, OPT_STR, "FILE", NULL,      \
                "credentials (default: ~/.docker/config.json)"),                                   \
        OPT_ROW(struct_type, member.certs_dir, "certs-dir", 0, OPT_STR, "DIR",                     \
                "/etc/docker/certs.d", "CAs and client certificates by registry"),                 \
        OPT_ROW(struct_type, member.trust_policy, "trust-policy", 0, OPT_STR, "FILE", NULL,        \
                "which images may be used: registries, digests, signatures"),                      \
        OPT_ROW(struct_type, member.platform, "platform", 0, OPT_STR, "OS/ARCH[/VARIANT]", NULL,   \
                "of the image (default: $DOCKER_DEFAULT_PLATFORM, or this machine's)"),            \
        OPT_ROW(struct_type, member.registry_timeout, "registry-timeout", 0, OPT_INT, "SECONDS",   \
                "60", "give a registry up that is silent or slower than 1 KiB/s for so long"),     \
        OPT_ROW(struct_type, member.quiet, "quiet", 'q', OPT_FLAG, NULL, NULL, "no progress")

enum pull_policy { PULL_MISSING, PULL_ALWAYS, PULL_NEVER };
/* Open the store and get the image by the policy, with progress on stderr. */
int cwrun_get_image(const struct image_options *o, const char *reference, enum pull_policy policy,
                    struct oci_store **ret_store, struct image **ret, struct err *e) MUST_CHECK;

/* Print "cwrun: …" (and where to find out more, for a fault of the host) and return the exit status for it. */
int cwrun_fail(const struct err *e);
/* Parse a verb's flags. 0 go on; 1 help was printed; -1 usage error was printed. */
int cwrun_parse(const struct opt *table, const char *usage, const char *about, int argc,
                char **argv, bool stop_at_word, void *options, struct str_list *words,
                int *ret_next);

int cwrun_run(int argc, char **argv);
int cwrun_bundle(int argc, char **argv);
int cwrun_pull(int argc, char **argv);
int cwrun_images(int argc, char **argv);
int cwrun_rmi(int argc, char **argv);
int cwrun_prune(int argc, char **argv);
int cwrun_inspect(int argc, char **argv);
int cwrun_pin(int argc, char **argv); /* "unpin", too */
int cwrun_mount(int argc, char **argv);
int cwrun_umount(int argc, char **argv);
/* `cwrun doctor --images`: the exit status. */
int cwrun_check_images(const char *store, bool repair);
int cwrun_doctor(int argc, char **argv);
int cwrun_ps(int argc, char **argv);
int cwrun_logs(int argc, char **argv);
int cwrun_exec(int argc, char **argv);
int cwrun_attach(int argc, char **argv);
int cwrun_stats(int argc, char **argv);
int cwrun_kill(int argc, char **argv);
