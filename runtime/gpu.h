#pragma once
/*
 * gpu.h - GPUs of this host. Door of runtime/.
 *
 * NVIDIA's are found by NVML (dlopen) or the driver's files and used through CDI specifications where these are true of
 * this host, else nodes and libraries are found by ourselves; AMD's by the kernel's kfd topology, their programs come with
 * the image. Order of a run: ctr_gpu_check ─► ctr_gpu_edit_spec ─► the run ─► ctr_gpu_check.
 * Threads: any; calls wait for each other.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct err;
struct ctr_spec;

enum { CTR_GPU_PROCESSES = 16 };
enum ctr_gpu_kind { CTR_GPU_NVIDIA, CTR_GPU_AMD };

struct ctr_gpu {
    enum ctr_gpu_kind kind;
    char uuid[64];  /* "GPU-…" or "MIG-…" */
    unsigned index; /* as nvidia-smi counts; AMD's follow */
    unsigned minor; /* of /dev/nvidiaN, of /dev/dri/renderDN */
    bool is_mig;    /* an instance; then the two ids say which */
    unsigned mig_gpu_instance, mig_compute_instance;
    char pci[16]; /* "0000:01:00" as the kernel's log names it; "": unknown */
    char name[96];
    int numa_node;                    /* -1 unknown */
    int processes[CTR_GPU_PROCESSES]; /* that compute on it, by the host's numbers; the first few */
    unsigned n_processes;
    bool usable;
    char why_not[160];
};
/* Host without GPUs: 0 with *ret_n 0. */
int ctr_gpu_list(struct ctr_gpu **ret, size_t *ret_n, struct err *e) MUST_CHECK;
/*
 * Put exactly these GPUs (by uuid) into the spec: device nodes, rules, driver libraries, the loader's cache. By the host's
 * CDI specification where one names them and is true, else by what the driver has on this host; a stale one is noted in
 * the annotation CTR_GPU_NOTE. No hook is executed: the known ones' effects are made by mounts; an unknown one is an
 * error (S45). The image's environment has no say.
 *   scratch  directory of the run's own for the cache file, which lives as long as the container; s->overlay_lower is
 *            set before. NULL: the cache stays the image's
 * Errors: ERR_ABSENT: no such GPU; ERR_HOST: the specification or the driver's files are not usable.
 */
int ctr_gpu_edit_spec(struct ctr_spec *s, const char *const *uuids, size_t n, const char *scratch,
                      struct err *e) MUST_CHECK;
#define CTR_GPU_NOTE "org.codalab.cworker.gpu.note"
/* What the host's CDI specification for NVIDIA's GPUs is worth, in words: "/etc/cdi/nvidia.yaml", "none", "…: stale: …". */
void ctr_gpu_cdi_text(char *buf, size_t size);

/*
 * Are these GPUs fit? They open, the driver answers, no process that is dead holds one, and the kernel's log has no Xid of
 * the hardware's about them. One that is not is withdrawn for the life of this program.
 *   since_ns     look at the log from then on (clock_now_ns()); 0: not at all
 *   patience_ns  how long dead processes may take to let go
 * Errors: ERR_HOST naming the first and why. Blocks: on the driver, and up to patience_ns.
 */
int ctr_gpu_check(const char *const *uuids, size_t n, uint64_t since_ns, uint64_t patience_ns,
                  struct err *e) MUST_CHECK;
/* Any thread; quick. withdraw: by who knows better, for instance that a dead run still holds it. readmit: by the same, when
 * that reason is gone; a check that it passes must follow. */
void ctr_gpu_withdraw(const char *uuid);
void ctr_gpu_readmit(const char *uuid);
bool ctr_gpu_is_withdrawn(const char *uuid);
