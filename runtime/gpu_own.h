#pragma once
/*
 * gpu_own.h - where gpu.c looks; tests look elsewhere. Inner header of gpu.c.
 */
#include <stddef.h>

#include "runtime/gpu.h"

struct gpu_places {
    const char *nvml;       /* NULL: libnvidia-ml.so.1 */
    const char *driver;     /* /proc/driver/nvidia */
    const char *dev;        /* /dev */
    const char *const *cdi; /* directories */
    size_t n_cdi;
    const char *const *library_dirs;
    size_t n_library_dirs;
};
int gpu_list_at(const struct gpu_places *at, struct ctr_gpu **ret, size_t *ret_n, struct err *e)
    MUST_CHECK;
int gpu_edit_spec_at(const struct gpu_places *at, struct ctr_spec *s, const char *const *uuids,
                     size_t n, struct err *e) MUST_CHECK;
