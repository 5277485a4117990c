/*
 * AMD's GPUs, by the kernel's own description of the compute driver (amdkfd): a node a processor, GPUs are those with a
 * gpu_id. A container needs /dev/kfd, which all share, and the render node of each GPU it gets: kfd refuses the use of a
 * GPU whose render node the device filter does not allow.
 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"
#include "runtime/cdi_edits.h"
#include "runtime/gpu_own.h"
#include "runtime/spec.h"

#define TOPOLOGY "class/kfd/kfd/topology/nodes"

/* "name value" lines. */
static uint64_t property(const char *text, const char *name)
{
    size_t n = strlen(name);
    uint64_t value = 0;
    struct err ignored = ERR_INIT;

    for (const char *line = text; *line;) {
        size_t length = strcspn(line, "\n");

        if (length > n && strncmp(line, name, n) == 0 && line[n] == ' ') {
            AUTO_FREE char *digits = mem_strndup(line + n + 1, length - n - 1);

            return units_u64(digits, UINT64_MAX, &value, &ignored) < 0 ? 0 : value;
        }
        line += length + (line[length] == '\n');
    }
    return 0;
}

static int numa_node(const struct gpu_places *at, unsigned render_minor)
{
    AUTO_FREE char *path =
        mem_printf("%s/class/drm/renderD%u/device/numa_node", at->sys, render_minor);
    AUTO(str) struct str text = STR_INIT(64);
    struct err ignored = ERR_INIT;
    int64_t node = -1;

    if (fd_read_file_at(AT_FDCWD, path, &text, &ignored) < 0)
        return -1;
    AUTO_FREE char *line = mem_strndup(str_text(&text), strcspn(str_text(&text), "\n"));

    return units_i64(line, -1, 4096, &node, &ignored) < 0 ? -1 : (int)node;
}

/* One node into *g; false: a CPU, or nothing that can be read. */
static bool read_node(const struct gpu_places *at, const char *name, struct ctr_gpu *g)
{
    AUTO_FREE char *path = mem_printf("%s/" TOPOLOGY "/%s/properties", at->sys, name);
    AUTO(str) struct str text = STR_INIT(65536);
    struct err ignored = ERR_INIT;

    if (fd_read_file_at(AT_FDCWD, path, &text, &ignored) < 0)
        return false;
    uint64_t unique = property(str_text(&text), "unique_id");
    uint64_t minor = property(str_text(&text), "drm_render_minor");
    uint64_t location = property(str_text(&text), "location_id");

    if (property(str_text(&text), "simd_count") == 0 || minor < 128 || minor > 255)
        return false;
    *g = (struct ctr_gpu){.kind = CTR_GPU_AMD, .minor = (unsigned)minor, .usable = true};
    snprintf(g->pci, sizeof(g->pci), "%04" PRIx64 ":%02" PRIx64 ":%02" PRIx64,
             property(str_text(&text), "domain") & 0xffff, (location >> 8) & 0xff,
             (location >> 3) & 0x1f);
    /* Cards without a serial number are told apart by their place. */
    if (unique)
        snprintf(g->uuid, sizeof(g->uuid), "GPU-%016" PRIx64, unique);
    else
        snprintf(g->uuid, sizeof(g->uuid), "GPU-%s", g->pci);
    snprintf(g->name, sizeof(g->name), "AMD gfx%" PRIu64,
             property(str_text(&text), "gfx_target_version"));
    g->numa_node = numa_node(at, g->minor);
    return true;
}

static int by_number(const struct dirent **a, const struct dirent **b)
{
    return strverscmp((*a)->d_name, (*b)->d_name);
}

void gpu_amd_list(const struct gpu_places *at, struct ctr_gpu *out, size_t *n)
{
    AUTO_FREE char *path = mem_printf("%s/" TOPOLOGY, at->sys);
    struct dirent **names = NULL;
    int found = scandir(path, &names, NULL, by_number);

    for (int i = 0; i < found; i++) {
        if (names[i]->d_name[0] != '.' && *n < GPUS_MAX &&
            read_node(at, names[i]->d_name, &out[*n])) {
            out[*n].index = (unsigned)*n;
            ++*n;
        }
        free(names[i]);
    }
    free(names);
}

int gpu_amd_edit(const struct gpu_places *at, struct ctr_spec *s, const struct ctr_gpu *g,
                 struct err *e)
{
    AUTO_FREE char *kfd = mem_printf("%s/kfd", at->dev);
    AUTO_FREE char *host = mem_printf("%s/dri/renderD%u", at->dev, g->minor);
    AUTO_FREE char *inside = mem_printf("/dev/dri/renderD%u", g->minor);

    if (cdi_edits_node(s, "/dev/kfd", kfd, "rw", e) < 0)
        return -1;
    return cdi_edits_node(s, inside, host, "rw", e);
}
