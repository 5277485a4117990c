/*
 * NVIDIA's driver as it is found on the host: what /proc/driver/nvidia tells, the nodes in /dev, the libraries of the
 * loaded version in the usual directories. Used where no CDI specification is true of this host.
 */
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
#include "runtime/cdi_edits.h"
#include "runtime/gpu_own.h"
#include "runtime/spec.h"

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
    snprintf(g->pci, sizeof(g->pci), "%.*s", (int)strcspn(bus, "."), bus);
    snprintf(g->name, sizeof(g->name), "%s", model ? model : "");
    g->minor = (unsigned)number;
    g->numa_node = -1;
    g->usable = true;
    return 0;
}

/* In the order of bus addresses, as nvidia-smi counts. No such directory: no GPUs. */
int gpu_driver_list(const struct gpu_places *at, struct ctr_gpu *out, size_t *ret_n, struct err *e)
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
char *gpu_driver_version(const struct gpu_places *at, struct err *e)
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

/* libcuda.so without a number, too: some programs ask for it by that name. */
static int add_library(struct ctr_spec *s, const char *dir, const char *name, struct str_list *libs,
                       struct err *e)
{
    AUTO_FREE char *path = mem_printf("%s/%s", dir, name);

    if (cdi_edits_library(s, path, path, libs, e) < 0)
        return -1;
    if (!str_starts(name, "libcuda.so."))
        return 0;
    AUTO_FREE char *plain = mem_printf("%s/libcuda.so", dir);
    AUTO_FREE char *entry = mem_printf("libcuda.so=%s", plain);

    str_list_add(libs, entry);
    return cdi_edits_bind(s, path, plain, e);
}

/* The driver's libraries of this version in one directory; their number, or -1. */
static int add_directory(struct ctr_spec *s, const char *path, const char *version,
                         struct str_list *libs, struct err *e)
{
    struct dirent **names = NULL;
    int n = scandir(path, &names, NULL, alphasort), added = 0;

    for (int i = 0; i < n; i++) {
        if (added >= 0 && is_driver_library(names[i]->d_name, version))
            added = add_library(s, path, names[i]->d_name, libs, e) < 0 ? -1 : added + 1;
        free(names[i]);
    }
    free(names);
    return added;
}

static int add_libraries(const struct gpu_places *at, struct ctr_spec *s, struct str_list *libs,
                         struct err *e)
{
    AUTO_FREE char *version = gpu_driver_version(at, e);
    int added = 0;

    if (!version)
        return -1;
    for (size_t i = 0; i < at->n_library_dirs && !added; i++)
        if ((added = add_directory(s, at->library_dirs[i], version, libs, e)) < 0)
            return -1;
    return added ? 0
                 : err_set(e, ERR_HOST, "no libraries of driver %s are installed on this host",
                           version);
}

/* People look with nvidia-smi; a host without it is none the worse. */
static int add_programs(const struct gpu_places *at, struct ctr_spec *s, struct err *e)
{
    static const char *const names[] = {"nvidia-smi", "nvidia-debugdump"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        AUTO_FREE char *host = mem_printf("%s/%s", at->bin_dir, names[i]);
        AUTO_FREE char *inside = mem_printf("/usr/bin/%s", names[i]);

        if (access(host, X_OK) == 0 && cdi_edits_bind(s, host, inside, e) < 0)
            return -1;
    }
    return 0;
}

/*
 * The right to use a MIG instance is a node of its own, whose number the driver's "access" file has: one for the GPU
 * instance, one for the compute instance in it.
 */
static int add_capability(const struct gpu_places *at, struct ctr_spec *s, const char *access_file,
                          struct err *e)
{
    AUTO(str) struct str text = STR_INIT(4096);
    uint64_t number = 0;

    if (fd_read_file_at(AT_FDCWD, access_file, &text, e) < 0)
        return err_wrap(e, "MIG");
    AUTO_FREE char *minor = field(str_text(&text), "DeviceFileMinor");

    if (!minor || units_u64(minor, 1 << 20, &number, e) < 0)
        return err_set(e, ERR_HOST, "%s names no DeviceFileMinor", access_file);
    AUTO_FREE char *inside =
        mem_printf("/dev/nvidia-caps/nvidia-cap%llu", (unsigned long long)number);
    AUTO_FREE char *host =
        mem_printf("%s/nvidia-caps/nvidia-cap%llu", at->dev, (unsigned long long)number);

    return cdi_edits_node(s, inside, host, "rw", e);
}

static int add_mig(const struct gpu_places *at, struct ctr_spec *s, const struct ctr_gpu *g,
                   struct err *e)
{
    AUTO_FREE char *instance =
        mem_printf("%s/capabilities/gpu%u/mig/gi%u", at->driver, g->minor, g->mig_gpu_instance);
    AUTO_FREE char *whole = mem_printf("%s/access", instance);
    AUTO_FREE char *compute = mem_printf("%s/ci%u/access", instance, g->mig_compute_instance);

    if (add_capability(at, s, whole, e) < 0 || add_capability(at, s, compute, e) < 0)
        return err_wrap(e, "%s", g->uuid);
    return 0;
}

static int add_common(const struct gpu_places *at, struct ctr_spec *s, struct err *e)
{
    static const struct {
        const char *name;
        bool optional;
    } common[] = {{"nvidiactl", false},
                  {"nvidia-uvm", true},
                  {"nvidia-uvm-tools", true},
                  {"nvidia-modeset", true}};

    for (size_t i = 0; i < ARRAY_SIZE(common); i++) {
        AUTO_FREE char *inside = mem_printf("/dev/%s", common[i].name);
        AUTO_FREE char *host = mem_printf("%s/%s", at->dev, common[i].name);

        if (common[i].optional && access(host, F_OK) < 0)
            continue;
        if (cdi_edits_node(s, inside, host, "rw", e) < 0)
            return -1;
    }
    return 0;
}

int gpu_driver_edit(const struct gpu_places *at, struct ctr_spec *s, const struct ctr_gpu *const *g,
                    size_t n, struct str_list *libs, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        AUTO_FREE char *inside = mem_printf("/dev/nvidia%u", g[i]->minor);
        AUTO_FREE char *host = mem_printf("%s/nvidia%u", at->dev, g[i]->minor);

        if (cdi_edits_node(s, inside, host, "rw", e) < 0 ||
            (g[i]->is_mig && add_mig(at, s, g[i], e) < 0))
            return -1;
    }
    if (add_common(at, s, e) < 0 || add_libraries(at, s, libs, e) < 0)
        return -1;
    return add_programs(at, s, e);
}
