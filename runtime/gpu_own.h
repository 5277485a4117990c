#pragma once
/*
 * gpu_own.h - where gpu*.c look; tests look elsewhere. Inner header of gpu*.c.
 */
#include <stddef.h>

#include "base/str.h"
#include "runtime/gpu.h"

struct gpu_places {
    const char *nvml;       /* NULL: libnvidia-ml.so.1 */
    const char *driver;     /* /proc/driver/nvidia */
    const char *dev;        /* /dev */
    const char *const *cdi; /* directories */
    size_t n_cdi;
    const char *const *library_dirs;
    size_t n_library_dirs;
    const char *sys;     /* /sys */
    const char *bin_dir; /* of nvidia-smi */
};
enum { GPUS_MAX = 256 };

int gpu_list_at(const struct gpu_places *at, struct ctr_gpu **ret, size_t *ret_n, struct err *e)
    MUST_CHECK;
int gpu_edit_spec_at(const struct gpu_places *at, struct ctr_spec *s, const char *const *uuids,
                     size_t n, const char *scratch, struct err *e) MUST_CHECK;
void gpu_cdi_text_at(const struct gpu_places *at, char *buf, size_t size);

/* gpu_driver.c: NVIDIA's driver without CDI. libs: "soname=path" entries for the loader's cache; added to. */
int gpu_driver_list(const struct gpu_places *at, struct ctr_gpu *out, size_t *ret_n, struct err *e)
    MUST_CHECK;
int gpu_driver_edit(const struct gpu_places *at, struct ctr_spec *s, const struct ctr_gpu *const *g,
                    size_t n, struct str_list *libs, struct err *e) MUST_CHECK;
/* "535.104.05", a new string; NULL with e when it is not loaded. */
char *gpu_driver_version(const struct gpu_places *at, struct err *e);

/* gpu_amd.c: GPUs appended to out, of which *n are there already. */
void gpu_amd_list(const struct gpu_places *at, struct ctr_gpu *out, size_t *n);
int gpu_amd_edit(const struct gpu_places *at, struct ctr_spec *s, const struct ctr_gpu *g,
                 struct err *e) MUST_CHECK;

/* gpu_health.c. */
int gpu_check_at(const struct gpu_places *at, const char *const *uuids, size_t n, uint64_t since_ns,
                 uint64_t patience_ns, struct err *e) MUST_CHECK;
/* The number of the error that a record of /dev/kmsg reports about the GPU at this address since then, when it is one of the
 * hardware; else 0. */
unsigned gpu_xid_of(const char *record, const char *pci, uint64_t since_us);
/* A process of the list that is dead or stuck in the kernel; 0: none. */
int gpu_dead_holder(const struct ctr_gpu *g);
