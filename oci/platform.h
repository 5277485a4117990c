#pragma once
/*
 * platform.h - choosing one image of an index.
 *
 * Pure but for oci_platform_host, which asks the kernel and the CPU, and what looks at the environment. Threads: any.
 * Source: OCI image-spec 1.1 image-index.md, platform variants.
 */
#include <stdbool.h>

#include "base/cleanup.h"

struct err;

struct oci_platform {
    char os[32], arch[32], variant[32]; /* variant "" when none */
};

/* This host, in Go's names; variant: the best this CPU can run. */
void oci_platform_host(struct oci_platform *ret);
/*
 * How well `offered` runs on `host`: 0 not at all, more is better (a variant nearer to the host's own).
 */
int oci_platform_score(const struct oci_platform *host, const struct oci_platform *offered);
/* "linux/arm64[/v8]", the architecture by Go's name or the kernel's. ERR_USER. */
int oci_platform_parse(const char *text, struct oci_platform *ret, struct err *e) MUST_CHECK;
/* That, or Docker's environment variable; NULL: nobody asks for one. */
const char *oci_platform_asked(const char *platform);
/* "linux/arm64/v8" into buf. */
#define OCI_PLATFORM_TEXT 100
char *oci_platform_text(const struct oci_platform *p, char buf[OCI_PLATFORM_TEXT]);
