#pragma once
/*
 * nvml.h - NVIDIA's management library, loaded at run time: one binary serves nodes with and without GPUs.
 *
 * Programs that are linked statically (cwshim) must not use this file. Threads: one at a time.
 */
#include <stddef.h>

#include "base/cleanup.h"

struct err;
struct ctr_gpu;

/*
 * GPUs, and in MIG mode their instances instead of them, as the library names them.
 *   library  NULL: libnvidia-ml.so.1; tests give a library of their own
 * Errors: ERR_ABSENT when the library is not installed; ERR_HOST when it or the driver is in trouble (its text says).
 * *ret freed with free().
 */
int ctr_nvml_list(const char *library, struct ctr_gpu **ret, size_t *ret_n, struct err *e)
    MUST_CHECK;
