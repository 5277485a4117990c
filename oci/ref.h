#pragma once
/*
 * ref.h - image references as Docker writes them. Door of oci/.
 *
 * "ubuntu" is docker.io/library/ubuntu:latest; "host:5000/x@sha256:…"; "a/b:tag" (protocol 8.1, B146). Images of files
 * ("oci:DIR:tag", "docker-archive:FILE") are for who may name files of this host: oci_ref_parse knows registries only, so
 * what comes from a service can mean nothing else (S58).
 * Threads: any. Ownership: oci_ref_free.
 */
#include <stdbool.h>

#include "base/cleanup.h"

struct err;

enum oci_transport { OCI_REGISTRY, OCI_LAYOUT, OCI_ARCHIVE, OCI_DOCKER_ARCHIVE };

struct oci_ref {
    enum oci_transport transport;
    char *
        path; /* of a layout or archive, absolute; then registry and repository are "" and tag may be NULL */
    char *registry;   /* "docker.io", "localhost:5000" */
    char *repository; /* "library/ubuntu" */
    char *tag;        /* NULL when only a digest is given */
    char *digest;     /* "sha256:…", or NULL */
    char *name;       /* as a user would type it, without tag and digest: "ubuntu", "host:5000/x" */
};

/* Errors: ERR_USER, naming the input and the rule. */
int oci_ref_parse(const char *text, struct oci_ref **ret, struct err *e) MUST_CHECK;
/*
 * The same, and "oci:DIR[:TAG]", "oci-archive:FILE[:TAG]", "docker-archive:FILE[:NAME:TAG]". As these can be read as names
 * in a registry, too, they mean a file when what follows has a slash, begins with a dot, or is there. Blocks: looks at
 * the disk.
 */
int oci_ref_parse_local(const char *text, struct oci_ref **ret, struct err *e) MUST_CHECK;
void oci_ref_free(struct oci_ref *r);
DEFINE_AUTO(oci_ref, oci_ref_free)
/* Canonical: "docker.io/library/ubuntu:latest" or with "@digest". A new string. */
char *oci_ref_text(const struct oci_ref *r);
/* Familiar: "{name}:{tag}" or "{name}@{digest}"; of files the canonical text. A new string. */
char *oci_ref_familiar(const struct oci_ref *r);
