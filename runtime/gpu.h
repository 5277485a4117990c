#pragma once
/*
 * gpu.h - GPUs of this host. Door of runtime/. Found by NVML (dlopen) or the driver's files; used through CDI
 * specifications where present, else nodes and libraries found by ourselves. Threads: any; no two calls at once.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

struct err;
struct ctr_spec;

struct ctr_gpu {
    char uuid[64];  /* "GPU-…" or "MIG-…" */
    unsigned index; /* as nvidia-smi counts */
    unsigned minor; /* of /dev/nvidiaN */
    bool is_mig;    /* an instance; then the two ids say which */
    unsigned mig_gpu_instance, mig_compute_instance;
    char name[96];
    int numa_node; /* -1 unknown */
    bool usable;
    char why_not[160];
};
/* Host without GPUs: 0 with *ret_n 0. */
int ctr_gpu_list(struct ctr_gpu **ret, size_t *ret_n, struct err *e) MUST_CHECK;
/*
 * Put exactly these GPUs (by uuid) into the spec: device nodes, rules, driver libraries, environment. By the host's CDI
 * specification where one names them and is not stale, else by what the driver has on this host. No hook is executed:
 * the known ones' effects are made by mounts; an unknown one is an error (S45).
 * Errors: ERR_ABSENT: no such GPU; ERR_HOST: the specification or the driver's files are not usable.
 */
int ctr_gpu_edit_spec(struct ctr_spec *s, const char *const *uuids, size_t n, struct err *e)
    MUST_CHECK;
