#include "runtime/nvml.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "runtime/gpu.h"

/* The part of the library's interface that is used: stable since driver 450 (nvml.h of the CUDA toolkit). */
struct nvml_device; /* opaque */
struct nvml_pci {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
};
struct nvml_process { /* nvmlProcessInfo_v2_t, which _v3 calls fill */
    unsigned pid;
    unsigned long long used_memory;
    unsigned gpu_instance, compute_instance;
};
enum { NVML_SUCCESS = 0, GPUS_MAX = 256, MIG_ENABLED = 1 };

struct api {
    void *handle;
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error_string)(int);
    int (*count)(unsigned *);
    int (*by_index)(unsigned, struct nvml_device **);
    int (*uuid)(struct nvml_device *, char *, unsigned);
    int (*name)(struct nvml_device *, char *, unsigned);
    int (*minor)(struct nvml_device *, unsigned *);
    int (*pci)(struct nvml_device *, struct nvml_pci *);
    /* NULL in drivers that know no MIG */
    int (*mig_mode)(struct nvml_device *, unsigned *current, unsigned *pending);
    int (*mig_max)(struct nvml_device *, unsigned *);
    int (*mig_by_index)(struct nvml_device *, unsigned, struct nvml_device **);
    int (*gpu_instance)(struct nvml_device *, unsigned *);
    int (*compute_instance)(struct nvml_device *, unsigned *);
    int (*processes)(struct nvml_device *, unsigned *, struct nvml_process *);
};

static int load(const char *library, struct api *a, struct err *e)
{
    const struct {
        const char *name;
        void *slot;
        bool optional;
    } symbols[] = {
        {"nvmlInit_v2", &a->init, false},
        {"nvmlShutdown", &a->shutdown, false},
        {"nvmlErrorString", &a->error_string, false},
        {"nvmlDeviceGetCount_v2", &a->count, false},
        {"nvmlDeviceGetHandleByIndex_v2", &a->by_index, false},
        {"nvmlDeviceGetUUID", &a->uuid, false},
        {"nvmlDeviceGetName", &a->name, false},
        {"nvmlDeviceGetMinorNumber", &a->minor, false},
        {"nvmlDeviceGetPciInfo_v3", &a->pci, true},
        {"nvmlDeviceGetMigMode", &a->mig_mode, true},
        {"nvmlDeviceGetMaxMigDeviceCount", &a->mig_max, true},
        {"nvmlDeviceGetMigDeviceHandleByIndex", &a->mig_by_index, true},
        {"nvmlDeviceGetGpuInstanceId", &a->gpu_instance, true},
        {"nvmlDeviceGetComputeInstanceId", &a->compute_instance, true},
        {"nvmlDeviceGetComputeRunningProcesses_v3", &a->processes, true},
    };

    a->handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!a->handle)
        return err_set(e, ERR_ABSENT, "%s is not installed", library);
    for (size_t i = 0; i < ARRAY_SIZE(symbols); i++) {
        void *symbol = dlsym(a->handle, symbols[i].name);

        if (!symbol && !symbols[i].optional)
            return err_set(e, ERR_HOST, "%s has no %s: a driver from before 2020?", library,
                           symbols[i].name);
        memcpy(symbols[i].slot, &symbol, sizeof(symbol));
    }
    return 0;
}

static int trouble(const struct api *a, int code, const char *what, struct err *e)
{
    const char *text = a->error_string(code);

    return err_set(e, ERR_HOST, "NVML: %s: %.200s", what, text ? text : "unknown error");
}

static int numa_node(const struct api *a, struct nvml_device *d, struct ctr_gpu *g)
{
    struct nvml_pci pci = {0};
    char path[96];
    int node = -1;

    if (!a->pci || a->pci(d, &pci) != NVML_SUCCESS)
        return -1;
    snprintf(g->pci, sizeof(g->pci), "%04x:%02x:%02x", pci.domain & 0xffff, pci.bus & 0xff,
             pci.device & 0xff);
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%04x:%02x:%02x.0/numa_node",
             pci.domain & 0xffff, pci.bus & 0xff, pci.device & 0xff);
    FILE *f = fopen(path, "re");

    if (f && fscanf(f, "%d", &node) != 1)
        node = -1;
    if (f)
        fclose(f);
    return node;
}

/* More than we have room for: none is known. */
static void list_processes(const struct api *a, struct nvml_device *d, struct ctr_gpu *g)
{
    struct nvml_process list[CTR_GPU_PROCESSES];
    unsigned n = CTR_GPU_PROCESSES;

    g->n_processes = 0;
    if (!a->processes || a->processes(d, &n, list) != NVML_SUCCESS || n > CTR_GPU_PROCESSES)
        return;
    for (unsigned i = 0; i < n; i++)
        g->processes[g->n_processes++] = (int)list[i].pid;
}

/* One device into *g. A device that answers with an error is listed, unusable, with the reason. */
static void describe(const struct api *a, struct nvml_device *d, struct ctr_gpu *g)
{
    int code = a->uuid(d, g->uuid, sizeof(g->uuid));

    if (code == NVML_SUCCESS)
        code = a->name(d, g->name, sizeof(g->name));
    g->usable = code == NVML_SUCCESS;
    if (!g->usable)
        snprintf(g->why_not, sizeof(g->why_not), "NVML: %.150s", a->error_string(code));
    else
        list_processes(a, d, g);
}

static size_t describe_mig(const struct api *a, struct nvml_device *parent,
                           const struct ctr_gpu *of, struct ctr_gpu *out, size_t room)
{
    unsigned current = 0, pending = 0, most = 0;
    size_t n = 0;

    if (!a->mig_mode || !a->mig_max || !a->mig_by_index ||
        a->mig_mode(parent, &current, &pending) != NVML_SUCCESS || current != MIG_ENABLED ||
        a->mig_max(parent, &most) != NVML_SUCCESS)
        return 0;
    for (unsigned i = 0; i < most && n < room; i++) {
        struct nvml_device *d;

        if (a->mig_by_index(parent, i, &d) != NVML_SUCCESS)
            continue;
        out[n] = *of;
        describe(a, d, &out[n]);
        if (a->gpu_instance)
            a->gpu_instance(d, &out[n].mig_gpu_instance);
        if (a->compute_instance)
            a->compute_instance(d, &out[n].mig_compute_instance);
        out[n++].is_mig = true;
    }
    return n;
}

static int list(const struct api *a, struct ctr_gpu *out, size_t *ret_n, struct err *e)
{
    unsigned count = 0;
    size_t n = 0;
    int code = a->count(&count);

    if (code != NVML_SUCCESS)
        return trouble(a, code, "count", e);
    for (unsigned i = 0; i < count && n < GPUS_MAX; i++) {
        struct ctr_gpu *g = &out[n];
        struct nvml_device *d = NULL;

        memset(g, 0, sizeof(*g));
        g->index = g->minor = i;
        g->numa_node = -1;
        code = a->by_index(i, &d);
        if (code != NVML_SUCCESS) {
            snprintf(g->why_not, sizeof(g->why_not), "NVML: %.150s", a->error_string(code));
            n++;
            continue;
        }
        describe(a, d, g);
        a->minor(d, &g->minor);
        g->numa_node = numa_node(a, d, g);
        struct ctr_gpu whole = *g;
        size_t instances = describe_mig(a, d, &whole, g, GPUS_MAX - n);

        n += instances ? instances : 1;
    }
    *ret_n = n;
    return 0;
}

int ctr_nvml_list(const char *library, struct ctr_gpu **ret, size_t *ret_n, struct err *e)
{
    struct ctr_gpu *out = mem_array(GPUS_MAX, sizeof(*out));
    struct api a = {0};
    int rc = load(library ? library : "libnvidia-ml.so.1", &a, e);

    if (rc == 0) {
        int code = a.init();

        rc = code == NVML_SUCCESS ? list(&a, out, ret_n, e) : trouble(&a, code, "start", e);
        a.shutdown();
    }
    if (a.handle)
        dlclose(a.handle);
    if (rc == 0)
        *ret = take_ptr(&out);
    free(out);
    return rc;
}
