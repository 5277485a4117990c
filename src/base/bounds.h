#pragma once
/*
 * bounds.h - every maximum for data from outside, with the reason for its value (S05).
 *
 * A bound is checked before memory or disk is taken. tests/unit/base_bounds.c drives each at N and
 * N+1. Grouped by the room that enforces it; add a row here rather than a number in the code.
 */
#define BOUND_KIB 1024ULL
#define BOUND_MIB (1024ULL * 1024)
#define BOUND_GIB (1024ULL * 1024 * 1024)

/* JSON: deeper than any real document; cJSON recurses, so this also bounds the stack. */
#define BOUND_JSON_DEPTH  64
#define BOUND_CONFIG_JSON (4 * BOUND_MIB) /* config.json: seccomp lists are the bulk, some 60 KiB */
/* certs.d: all authorities of a host; a whole system's are some 220 KiB. */
#define BOUND_CERTIFICATES BOUND_MIB

/* HTTP: headers as curl's own limit is 300 KiB a response; a URL as common servers take. */
#define BOUND_URL             8192
#define BOUND_HTTP_HEADERS    (64 * BOUND_KIB)
#define BOUND_HTTP_ERROR_BODY (16 * BOUND_KIB) /* text of an error answer we may show */
#define BOUND_HTTP_REDIRECTS  10

/* Service messages (protocol 2.1: the server refuses bodies above 8 MiB; so do we). */
#define BOUND_SERVICE_JSON         (8 * BOUND_MIB)
#define BOUND_STATUS_TEXT          (8 * BOUND_KIB) /* B052 */
#define BOUND_CHECKIN_DEPENDENCIES 60000           /* bytes of compact JSON, B051 */
#define BOUND_COMMAND \
    (1 * BOUND_MIB) /* ARG_MAX share: one argument may be 128 KiB, see bundle_spec */
#define BOUND_BUNDLE_DEPENDENCIES 10000
#define BOUND_EXCLUDE_PATTERNS    1000

/* Registry documents: docker's and containerd's limit for a manifest is 4 MiB. */
#define BOUND_REF             512
#define BOUND_MANIFEST        (4 * BOUND_MIB)
#define BOUND_IMAGE_CONFIG    (8 * BOUND_MIB)
#define BOUND_INDEX_DEPTH     3
#define BOUND_INDEX_MANIFESTS 1000
#define BOUND_LAYERS          500 /* overlayfs: OVL_MAX_STACK */
#define BOUND_TOKEN           (64 * BOUND_KIB)
#define BOUND_SIGNATURE       (64 * BOUND_KIB) /* payload or key: both are well below one */
#define BOUND_SIGNATURES      100              /* of one image: each is a request */
#define BOUND_TRUST_RULES     1000
#define BOUND_BOX_MEMBERS     10000 /* files of an image archive: three a layer and image */

/* Archives: paths as the kernel takes them; entries as twice the largest image seen (2 million). */
#define BOUND_PATH              4096
#define BOUND_LINK              4096
#define BOUND_PAX_HEADER        (1 * BOUND_MIB)
#define BOUND_TAR_ENTRIES       10000000ULL
#define BOUND_TREE_DEPTH        2048 /* path of 4096 bytes cannot nest deeper */
#define BOUND_UNPACKED          (4ULL * 1024 * BOUND_GIB)
#define BOUND_COMPRESSION_RATIO 1100 /* gzip's own maximum is 1032:1 */
#define BOUND_ZSTD_WINDOW_LOG   27   /* 128 MiB: the format's recommended decoder limit is 8 MiB */
#define BOUND_GZIP_HEADER       (64 * BOUND_KIB) /* name, comment and extra field of one member */
#define BOUND_TAR_SPARSE        65536            /* pieces of one sparse file: 1 MiB of memory */
#define BOUND_TAR_DIRS          2000000 /* directories of one layer: each is remembered till its end */
#define BOUND_TAR_XATTRS        256     /* records of one entry */
#define BOUND_CHECKPOINT        (16 * BOUND_MIB) /* compressed bytes that a restart costs at most */
#define BOUND_CHECKPOINT_FILE   (64 * BOUND_MIB) /* some 700 000 directories: above, none is made */
#define BOUND_TAR_LINKS         10000 /* files of lower layers that hard links of one layer name */

/* What a run may make us hold. */
#define BOUND_CTR_STDERR   (8 * BOUND_KIB) /* own stderr of the container: becomes failure_message */
#define BOUND_PASSWD_FILE  (1 * BOUND_MIB)
#define BOUND_PASSWD_LINE  (16 * BOUND_KIB)
#define BOUND_SUMMARY      (16 * BOUND_MIB) /* text of a summarize_file */
#define BOUND_NETCAT_REPLY (64 * BOUND_MIB)
#define BOUND_SHIM_MESSAGE (64 * BOUND_KIB)

/* The local socket (S60): a request is a method and a uuid; an answer names every run. */
#define BOUND_LOCAL_REQUEST (64 * BOUND_KIB)
#define BOUND_LOCAL_ANSWER  (64 * BOUND_MIB)
#define BOUND_LOCAL_CLIENTS 32
