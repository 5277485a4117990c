/*
 * Which GPUs there are is asked of NVML; where that is not installed, the driver's files under /proc tell. How one gets
 * into a container says the host's CDI specification; without one (or for a GPU it does not name, which means that it
 * is older than the hardware) the driver's nodes and libraries are put in place by what is found on the host.
 */
#include "runtime/gpu.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"
#include "runtime/cdi.h"
#include "runtime/cdi_edits.h"
#include "runtime/gpu_own.h"
#include "runtime/nvml.h"
#include "runtime/spec.h"

enum { GPUS_MAX = 256 };
#define CDI_KIND "nvidia.com/gpu"

/* --- finding ----------------------------------------------------------------------------------------------------- */

/* "Key: \t value" in the driver's information file; a new string or NULL. */
static char *field(const char *text, const char *key)
{
    size_t n = strlen(key);

    for (const char *line = text; line && *line;
         line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (strncmp(line, key, n) != 0 || line[n] != ':')
            continue;
        const char *value = line + n + 1 + strspn(line + n + 1, " \t");

        return mem_strndup(value, strcspn(value, "\n"));
    }
    return NULL;
}

static int read_information(int dir, const char *bus, struct ctr_gpu *g, struct err *e)
{
    AUTO_FREE char *path = mem_printf("%s/information", bus);
    AUTO(str) struct str text = STR_INIT(65536);

    if (fd_read_file_at(dir, path, &text, e) < 0)
        return -1;
    AUTO_FREE char *uuid = field(str_text(&text), "GPU UUID"),
                   *model = field(str_text(&text), "Model");
    AUTO_FREE char *minor = field(str_text(&text), "Device Minor");
    uint64_t number = 0;

    if (!uuid || !minor || units_u64(minor, 255, &number, e) < 0)
        return err_set(e, ERR_HOST, "%s names no UUID or minor number", path);
    snprintf(g->uuid, sizeof(g->uuid), "%s", uuid);
    snprintf(g->name, sizeof(g->name), "%s", model ? model : "");
    g->minor = (unsigned)number;
    g->numa_node = -1;
    g->usable = true;
    return 0;
}

/* In the order of bus addresses, as nvidia-smi counts. No such directory: no GPUs. */
static int list_by_driver(const struct gpu_places *at, struct ctr_gpu *out, size_t *ret_n,
                          struct err *e)
{
    AUTO_FREE char *path = mem_printf("%s/gpus", at->driver);
    struct dirent **names = NULL;
    int n = scandir(path, &names, NULL, alphasort), rc = 0;
    AUTO_CLOSE int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    size_t found = 0;

    for (int i = 0; i < n; i++) {
        if (rc == 0 && names[i]->d_name[0] != '.' && found < GPUS_MAX) {
            out[found] = (struct ctr_gpu){.index = (unsigned)found};
            rc = read_information(dir, names[i]->d_name, &out[found], e);
            found++;
        }
        free(names[i]);
    }
    free(names);
    *ret_n = found;
    return rc;
}

/* Only GPUs that open are offered. */
static void check_opens(const struct gpu_places *at, struct ctr_gpu *g)
{
    AUTO_FREE char *path = mem_printf("%s/nvidia%u", at->dev, g->minor);
    AUTO_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (!g->usable || fd >= 0)
        return;
    g->usable = false;
    snprintf(g->why_not, sizeof(g->why_not), "%s does not open: %s", path, strerror(errno));
}

int gpu_list_at(const struct gpu_places *at, struct ctr_gpu **ret, size_t *ret_n, struct err *e)
{
    AUTO_FREE struct ctr_gpu *list = NULL;
    struct err trouble = ERR_INIT;
    size_t n = 0;

    if (ctr_nvml_list(at->nvml, &list, &n, &trouble) < 0) {
        list = mem_array(GPUS_MAX, sizeof(*list));
        if (list_by_driver(at, list, &n, e) < 0)
            return -1;
        for (size_t i = 0; i < n && trouble.kind != ERR_ABSENT; i++) {
            list[i].usable = false;
            snprintf(list[i].why_not, sizeof(list[i].why_not), "%.150s", trouble.msg);
        }
    }
    for (size_t i = 0; i < n; i++)
        check_opens(at, &list[i]);
    *ret = take_ptr(&list);
    *ret_n = n;
    return 0;
}

/* --- putting into a spec ----------------------------------------------------------------------------------------- */

/* Does the name begin with one of the driver's user-space libraries' names? */
static bool is_driver_library(const char *name, const char *version)
{
    static const char *const names[] = {"libcuda.so.", "libcudadebugger.so.", "libnvcuvid.so.",
                                        "libnvidia-"};
    AUTO_FREE char *ending = mem_printf(".so.%s", version);

    if (!str_ends(name, ending))
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (str_starts(name, names[i]))
            return true;
    return false;
}

/* "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat…": the first word with a dot after "Module". */
static char *driver_version(const struct gpu_places *at, struct err *e)
{
    AUTO_FREE char *path = mem_printf("%s/version", at->driver);
    AUTO(str) struct str text = STR_INIT(65536);

    if (fd_read_file_at(AT_FDCWD, path, &text, e) < 0)
        return NULL;
    for (const char *p = str_text(&text); *p;) {
        size_t digits = strspn(p, "0123456789.");

        if (digits >= 3 && memchr(p, '.', digits) && p[digits] == ' ')
            return mem_strndup(p, digits);
        p += digits ? digits : 1;
    }
    err_set(e, ERR_HOST, "%s names no version", path);
    return NULL;
}

static int add_libraries(const struct gpu_places *at, struct ctr_spec *s, struct err *e)
{
    AUTO_FREE char *version = driver_version(at, e);
    size_t added = 0;

    if (!version)
        return -1;
    for (size_t i = 0; i < at->n_library_dirs && !added; i++) {
        DIR *dir = opendir(at->library_dirs[i]);
        struct dirent *entry;
        int rc = 0;

        while (dir && rc == 0 && (entry = readdir(dir))) {
            if (!is_driver_library(entry->d_name, version))
                continue;
            AUTO_FREE char *path = mem_printf("%s/%s", at->library_dirs[i], entry->d_name);

            rc = cdi_edits_library(s, path, path, e);
            added++;
        }
        if (dir)
            closedir(dir);
        if (rc < 0)
            return -1;
    }
    return added ? 0
                 : err_set(e, ERR_HOST, "no libraries of driver %s are installed on this host",
                           version);
}

static int add_by_driver(const struct gpu_places *at, struct ctr_spec *s,
                         const struct ctr_gpu *const *gpus, size_t n, struct err *e)
{
    static const struct {
        const char *name;
        bool optional;
    } common[] = {{"nvidiactl", false}, {"nvidia-uvm", true}, {"nvidia-uvm-tools", true}};

    for (size_t i = 0; i < n; i++) {
        AUTO_FREE char *inside = mem_printf("/dev/nvidia%u", gpus[i]->minor);
        AUTO_FREE char *host = mem_printf("%s/nvidia%u", at->dev, gpus[i]->minor);

        if (gpus[i]->is_mig)
            return err_set(e, ERR_HOST,
                           "%s: MIG instances need a CDI specification (nvidia-ctk cdi generate)",
                           gpus[i]->uuid);
        if (cdi_edits_node(s, inside, host, "rw", e) < 0)
            return -1;
    }
    for (size_t i = 0; i < ARRAY_SIZE(common); i++) {
        AUTO_FREE char *inside = mem_printf("/dev/%s", common[i].name);
        AUTO_FREE char *host = mem_printf("%s/%s", at->dev, common[i].name);

        if (common[i].optional && access(host, F_OK) < 0)
            continue;
        if (cdi_edits_node(s, inside, host, "rw", e) < 0)
            return -1;
    }
    return add_libraries(at, s, e);
}

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

int gpu_edit_spec_at(const struct gpu_places *at, struct ctr_spec *s, const char *const *uuids,
                     size_t n, struct err *e)
{
    AUTO_FREE const struct ctr_gpu **chosen = mem_array(n, sizeof(*chosen));
    AUTO_FREE struct ctr_gpu *list = NULL;
    AUTO(ctr_cdi) struct ctr_cdi *cdi = NULL;
    AUTO(str_list) struct str_list names = {0};
    size_t n_list = 0;

    if (n == 0)
        return 0;
    if (gpu_list_at(at, &list, &n_list, e) < 0 || choose(list, n_list, uuids, n, chosen, e) < 0 ||
        ctr_cdi_load(at->cdi, at->n_cdi, CDI_KIND, &cdi, e) < 0)
        return -1;
    for (size_t i = 0; cdi && i < n; i++) {
        char *name = cdi_name(cdi, chosen[i]);

        if (name)
            str_list_take(&names, name);
    }
    if (names.n == n)
        return ctr_cdi_apply(cdi, (const char *const *)names.items, n, s, e);
    return add_by_driver(at, s, chosen, n, e);
}

static const char *const cdi_dirs[] = {"/etc/cdi", "/run/cdi"};
static const char *const library_dirs[] = {"/usr/lib/x86_64-linux-gnu", "/usr/lib64",
                                           "/usr/lib/aarch64-linux-gnu", "/usr/lib"};
static const struct gpu_places host = {
    .driver = "/proc/driver/nvidia",
    .dev = "/dev",
    .cdi = cdi_dirs,
    .n_cdi = ARRAY_SIZE(cdi_dirs),
    .library_dirs = library_dirs,
    .n_library_dirs = ARRAY_SIZE(library_dirs),
};

int ctr_gpu_list(struct ctr_gpu **ret, size_t *ret_n, struct err *e)
{
    return gpu_list_at(&host, ret, ret_n, e);
}

int ctr_gpu_edit_spec(struct ctr_spec *s, const char *const *uuids, size_t n, struct err *e)
{
    return gpu_edit_spec_at(&host, s, uuids, n, e);
}
