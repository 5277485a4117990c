/*
 * Which GPUs there are is asked of NVML; where that is not installed, the driver's files under /proc tell. How one gets
 * into a container says the host's CDI specification. One that is missing, does not name the GPU or is not true any more
 * (the driver was updated and nobody made it anew) is not used: then the driver's nodes and libraries are put in place by
 * what is found on the host.
 */
#include "runtime/gpu.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/statefile.h"
#include "base/str.h"
#include "runtime/cdi.h"
#include "runtime/gpu_own.h"
#include "runtime/ldcache.h"
#include "runtime/nvml.h"
#include "runtime/spec.h"

#define CDI_KIND "nvidia.com/gpu"
enum { LDCACHE_MAX = 8 << 20 };

/* --- finding ----------------------------------------------------------------------------------------------------- */

/* Only GPUs that open are offered. */
static void check_opens(const struct gpu_places *at, struct ctr_gpu *g)
{
    AUTO_FREE char *path = g->kind == CTR_GPU_AMD
                               ? mem_printf("%s/dri/renderD%u", at->dev, g->minor)
                               : mem_printf("%s/nvidia%u", at->dev, g->minor);
    AUTO_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (!g->usable || fd >= 0)
        return;
    g->usable = false;
    snprintf(g->why_not, sizeof(g->why_not), "%s does not open: %s", path, strerror(errno));
}

static int list_nvidia(const struct gpu_places *at, struct ctr_gpu **ret, size_t *ret_n,
                       struct err *e)
{
    struct err trouble = ERR_INIT;

    if (ctr_nvml_list(at->nvml, ret, ret_n, &trouble) == 0)
        return 0;
    *ret = mem_array(GPUS_MAX, sizeof(**ret));
    if (gpu_driver_list(at, *ret, ret_n, e) < 0)
        return -1;
    for (size_t i = 0; i < *ret_n && trouble.kind != ERR_ABSENT; i++) {
        (*ret)[i].usable = false;
        snprintf((*ret)[i].why_not, sizeof((*ret)[i].why_not), "%.150s", trouble.msg);
    }
    return 0;
}

int gpu_list_at(const struct gpu_places *at, struct ctr_gpu **ret, size_t *ret_n, struct err *e)
{
    AUTO_FREE struct ctr_gpu *list = NULL;
    size_t n = 0;

    if (list_nvidia(at, &list, &n, e) < 0)
        return -1;
    gpu_amd_list(at, list, &n);
    for (size_t i = 0; i < n; i++)
        check_opens(at, &list[i]);
    *ret = take_ptr(&list);
    *ret_n = n;
    return 0;
}

/* --- putting into a spec ----------------------------------------------------------------------------------------- */

/* The name a CDI file has for the GPU: its uuid, or its index ("0", "0:1" for an instance). NULL: none. */
static char *cdi_name(const struct ctr_cdi *cdi, const struct ctr_gpu *g)
{
    AUTO_FREE char *index =
        g->is_mig ? mem_printf("%u:%u", g->index, g->mig_gpu_instance) : mem_printf("%u", g->index);

    if (ctr_cdi_has(cdi, g->uuid))
        return mem_strdup(g->uuid);
    return ctr_cdi_has(cdi, index) ? take_ptr(&index) : NULL;
}

static int choose(const struct ctr_gpu *list, size_t n_list, const char *const *uuids, size_t n,
                  const struct ctr_gpu **chosen, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < n_list && !chosen[i]; k++)
            if (str_eq(list[k].uuid, uuids[i]))
                chosen[i] = &list[k];
        if (!chosen[i])
            return err_set(e, ERR_ABSENT, "GPU %s is not on this host", uuids[i]);
        if (!chosen[i]->usable)
            return err_set(e, ERR_HOST, "GPU %s cannot be used: %s", uuids[i], chosen[i]->why_not);
    }
    return 0;
}

/*
 * The specification that is true of this host and names all of them; *names are its names for them. *ret NULL: there is
 * none, and *why says what is wrong with one that names them.
 */
static int find_cdi(const struct gpu_places *at, const struct ctr_gpu *const *gpus, size_t n,
                    struct ctr_cdi **ret, struct str_list *names, struct err *why, struct err *e)
{
    AUTO(ctr_cdi) struct ctr_cdi *cdi = NULL;
    struct err ignored = ERR_INIT;

    if (ctr_cdi_load(at->cdi, at->n_cdi, CDI_KIND, &cdi, e) < 0)
        return -1;
    for (size_t i = 0; cdi && i < n; i++) {
        char *name = cdi_name(cdi, gpus[i]);

        if (name)
            str_list_take(names, name);
    }
    if (!cdi)
        return 0;
    AUTO_FREE char *version = gpu_driver_version(at, &ignored);

    if (names->n < n)
        err_set(why, ERR_HOST, "%s does not name all GPUs: is it older than the hardware?",
                ctr_cdi_file(cdi));
    else if (ctr_cdi_check(cdi, (const char *const *)names->items, n, version, why) == 0)
        *ret = take_ptr(&cdi);
    return 0;
}

static bool is_of(const struct ctr_gpu *g, const struct ctr_gpu *const *gpus, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(gpus[i]->pci, g->pci))
            return true;
    return false;
}

/* The driver's directory in the run's own proc tells of the run's own GPUs only; their programs read the rest of it. */
static void show_own(struct ctr_spec *s, const struct ctr_gpu *list, size_t n_list,
                     const struct ctr_gpu *const *gpus, size_t n)
{
    struct str_list masked = {0};

    for (size_t i = 0; i < s->masked_paths.n; i++)
        if (!str_eq(s->masked_paths.items[i], "/proc/driver/nvidia"))
            str_list_add(&masked, s->masked_paths.items[i]);
    for (size_t i = 0; i < n_list; i++) {
        if (list[i].kind != CTR_GPU_NVIDIA || !*list[i].pci || is_of(&list[i], gpus, n))
            continue;
        AUTO_FREE char *path = mem_printf("/proc/driver/nvidia/gpus/%s.0", list[i].pci);

        if (!str_list_has(&masked, path))
            str_list_add(&masked, path);
    }
    str_list_free(&s->masked_paths);
    s->masked_paths = masked;
}

static int edit_nvidia(const struct gpu_places *at, struct ctr_spec *s,
                       const struct ctr_gpu *const *gpus, size_t n, struct str_list *libs,
                       struct err *e)
{
    AUTO(ctr_cdi) struct ctr_cdi *cdi = NULL;
    AUTO(str_list) struct str_list names = {0};
    struct err stale = ERR_INIT;

    if (find_cdi(at, gpus, n, &cdi, &names, &stale, e) < 0)
        return -1;
    if (cdi)
        return ctr_cdi_apply(cdi, (const char *const *)names.items, n, s, libs, e);
    if (stale.kind != ERR_NONE)
        ctr_spec_add_annotation(s, CTR_GPU_NOTE, stale.msg);
    if (gpu_driver_edit(at, s, gpus, n, libs, e) == 0)
        return 0;
    return stale.kind == ERR_NONE
               ? -1
               : err_wrap(e, "stale CDI specification (%.200s), and without it", stale.msg);
}

/* Into the run's own directory, and from there over the image's. */
static int refresh_cache(struct ctr_spec *s, const struct str_list *libs, const char *scratch,
                         struct err *e)
{
    AUTO(str) struct str old = STR_INIT(LDCACHE_MAX);
    AUTO(str) struct str new = STR_INIT(2 * (size_t)LDCACHE_MAX);
    AUTO_FREE struct ldcache_entry *entries = mem_array(libs->n + 1, sizeof(*entries));
    AUTO_CLOSE int dir = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTO_FREE char *path = mem_printf("%s/ld.so.cache", scratch);

    if (dir < 0)
        return err_sys(e, "open %s", scratch);
    for (size_t i = 0; i < libs->n; i++) {
        char *equals = strchr(libs->items[i], '=');

        *equals = '\0'; /* the list is not needed any more */
        entries[i] = (struct ldcache_entry){libs->items[i], equals + 1};
    }
    if (ldcache_of_layers(&s->overlay_lower, &old, e) < 0 ||
        ldcache_merge(str_text(&old), old.len, entries, libs->n, &new, e) < 0 ||
        statefile_replace(dir, "ld.so.cache", str_text(&new), new.len, 0644, false, e) < 0)
        return err_wrap(e, "the loader's cache");
    ctr_spec_add_mount(s, "/etc/ld.so.cache", "bind", path, "bind,ro,nosuid,nodev,noexec");
    return 0;
}

int gpu_edit_spec_at(const struct gpu_places *at, struct ctr_spec *s, const char *const *uuids,
                     size_t n, const char *scratch, struct err *e)
{
    AUTO_FREE const struct ctr_gpu **chosen = mem_array(n + 1, sizeof(*chosen));
    AUTO_FREE const struct ctr_gpu **nvidia = mem_array(n + 1, sizeof(*nvidia));
    AUTO_FREE struct ctr_gpu *list = NULL;
    AUTO(str_list) struct str_list libs = {0};
    size_t n_list = 0, n_nvidia = 0;

    if (n == 0)
        return 0;
    if (gpu_list_at(at, &list, &n_list, e) < 0 || choose(list, n_list, uuids, n, chosen, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (chosen[i]->kind == CTR_GPU_NVIDIA)
            nvidia[n_nvidia++] = chosen[i];
        else if (gpu_amd_edit(at, s, chosen[i], e) < 0)
            return -1;
    }
    if (n_nvidia && edit_nvidia(at, s, nvidia, n_nvidia, &libs, e) < 0)
        return -1;
    if (n_nvidia)
        show_own(s, list, n_list, nvidia, n_nvidia);
    return libs.n && scratch ? refresh_cache(s, &libs, scratch, e) : 0;
}

void gpu_cdi_text_at(const struct gpu_places *at, char *buf, size_t size)
{
    AUTO(ctr_cdi) struct ctr_cdi *cdi = NULL;
    AUTO_FREE struct ctr_gpu *list = NULL;
    AUTO_FREE const struct ctr_gpu **gpus = NULL;
    AUTO(str_list) struct str_list names = {0};
    struct err e = ERR_INIT, why = ERR_INIT;
    size_t n = 0, n_nvidia = 0;

    if (gpu_list_at(at, &list, &n, &e) < 0) {
        snprintf(buf, size, "%s", e.msg);
        return;
    }
    gpus = mem_array(n + 1, sizeof(*gpus));
    for (size_t i = 0; i < n; i++)
        if (list[i].kind == CTR_GPU_NVIDIA)
            gpus[n_nvidia++] = &list[i];
    if (find_cdi(at, gpus, n_nvidia, &cdi, &names, &why, &e) < 0)
        snprintf(buf, size, "not usable: %s", e.msg);
    else if (cdi)
        snprintf(buf, size, "%s", ctr_cdi_file(cdi));
    else if (why.kind != ERR_NONE)
        snprintf(buf, size, "stale, not used: %s", why.msg);
    else
        snprintf(buf, size, "none; the driver's files are found without");
}

/* --- this host ---------------------------------------------------------------------------------------------------- */

static const char *const cdi_dirs[] = {"/etc/cdi", "/run/cdi"};
static const char *const library_dirs[] = {"/usr/lib/x86_64-linux-gnu/nvidia/current",
                                           "/usr/lib/x86_64-linux-gnu",
                                           "/usr/lib64",
                                           "/usr/lib/aarch64-linux-gnu",
                                           "/usr/local/nvidia/lib64",
                                           "/usr/lib"};
static const struct gpu_places host = {
    .driver = "/proc/driver/nvidia",
    .dev = "/dev",
    .cdi = cdi_dirs,
    .n_cdi = ARRAY_SIZE(cdi_dirs),
    .library_dirs = library_dirs,
    .n_library_dirs = ARRAY_SIZE(library_dirs),
    .sys = "/sys",
    .bin_dir = "/usr/bin",
};

/* NVML is started and stopped by each call; two at once would stop each other's. */
static pthread_mutex_t one_call = PTHREAD_MUTEX_INITIALIZER;

int ctr_gpu_list(struct ctr_gpu **ret, size_t *ret_n, struct err *e)
{
    pthread_mutex_lock(&one_call);
    int rc = gpu_list_at(&host, ret, ret_n, e);

    pthread_mutex_unlock(&one_call);
    return rc;
}

int ctr_gpu_edit_spec(struct ctr_spec *s, const char *const *uuids, size_t n, const char *scratch,
                      struct err *e)
{
    pthread_mutex_lock(&one_call);
    int rc = gpu_edit_spec_at(&host, s, uuids, n, scratch, e);

    pthread_mutex_unlock(&one_call);
    return rc;
}

int ctr_gpu_check(const char *const *uuids, size_t n, uint64_t since_ns, uint64_t patience_ns,
                  struct err *e)
{
    pthread_mutex_lock(&one_call);
    int rc = gpu_check_at(&host, uuids, n, since_ns, patience_ns, e);

    pthread_mutex_unlock(&one_call);
    return rc;
}

void ctr_gpu_cdi_text(char *buf, size_t size)
{
    pthread_mutex_lock(&one_call);
    gpu_cdi_text_at(&host, buf, size);
    pthread_mutex_unlock(&one_call);
}
