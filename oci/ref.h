#pragma once
/*
 * ref.h - image references as Docker writes them. Door of oci/.
 *
 * "ubuntu" is docker.io/library/ubuntu:latest; "host:5000/x@sha256:…"; "a/b:tag" (protocol 8.1, B146).
 * Threads: any. Ownership: oci_ref_free.
 */
#include <stdbool.h>

#include "base/cleanup.h"

struct err;

struct oci_ref {
    char *registry;   /* "docker.io", "localhost:5000" */
    char *repository; /* "library/ubuntu" */
    char *tag;        /* NULL when only a digest is given */
    char *digest;     /* "sha256:…", or NULL */
    char *name;       /* as a user would type it, without tag and digest: "ubuntu", "host:5000/x" */
};

/* Errors: ERR_USER, naming the input and the rule. */
int oci_ref_parse(const char *text, struct oci_ref **ret, struct err *e) MUST_CHECK;
void oci_ref_free(struct oci_ref *r);
DEFINE_AUTO(oci_ref, oci_ref_free)
/* Canonical: "docker.io/library/ubuntu:latest" or with "@digest". A new string. */
char *oci_ref_text(const struct oci_ref *r);
/* Familiar: "{name}:{tag}" or "{name}@{digest}". A new string. */
char *oci_ref_familiar(const struct oci_ref *r);
