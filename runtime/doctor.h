#pragma once
/*
 * doctor.h - what this host lacks, in words. Door of runtime/. Threads: any; blocks shortly.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

enum ctr_check_result { CTR_CHECK_OK, CTR_CHECK_WARN, CTR_CHECK_MISSING };
struct ctr_check {
    const char *name; /* "cgroup v2 controllers" */
    enum ctr_check_result result;
    char text[256]; /* what is there, what it means, what to do */
};
/* All checks of kernel, cgroups, namespaces, overlay, seccomp, bpf, ids. *ret freed with free(). */
void ctr_doctor(struct ctr_check **ret, size_t *ret_n);
/* One answer for the start of programs: 0 when containers with limits can be run; else ERR_HOST naming what is missing. */
struct err;
int ctr_doctor_cgroup(struct err *e) MUST_CHECK;
