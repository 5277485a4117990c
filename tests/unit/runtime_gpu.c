/* needs: root */
/* GPUs from the driver's files and CDI specifications, on directories made here; nodes are bound to /dev/null's numbers. */
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/tree.h"
#include "runtime/cdi.h"
#include "runtime/cdi_edits.h"
#include "runtime/cdi_yaml.h"
#include "runtime/elf.h"
#include "runtime/gpu_own.h"
#include "runtime/ldcache.h"
#include "runtime/spec.h"
#include "test.h"

static char top[64];

static char *at(const char *path)
{
    return mem_printf("%s/%s", top, path);
}

static void put(const char *path, const char *text)
{
    AUTO_FREE char *whole = at(path);
    AUTO_FREE char *dir = mem_strndup(whole, (size_t)(strrchr(whole, '/') - whole));
    struct err e = ERR_INIT;

    assert_ok(path_mkdirs(dir, 0755, &e), &e);
    AUTO_CLOSE int fd = open(whole, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(fd_write_all(fd, text, strlen(text)), 0);
}

static void put_node(const char *name)
{
    AUTO_FREE char *path = at(name);

    assert_int_equal(mknod(path, S_IFCHR | 0666, makedev(1, 3)), 0);
}

static int set_up(void **state UNUSED)
{
    snprintf(top, sizeof(top), "/tmp/cw-gpu-XXXXXX");
    if (!mkdtemp(top) || chmod(top, 0755) < 0)
        return -1;
    put("driver/version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 2023\nGCC version: 12\n");
    put("driver/gpus/0000:01:00.0/information",
        "Model: \t\t NVIDIA H100\nIRQ: 1\nGPU UUID: \t GPU-aaaa\nDevice Minor: \t 1\n");
    put("driver/gpus/0000:02:00.0/information",
        "Model: \t\t NVIDIA H100\nGPU UUID: \t GPU-bbbb\nDevice Minor: \t 0\n");
    put("lib/libcuda.so.535.104.05", "not a library");
    put("lib/libnvidia-ml.so.535.104.05", "not a library");
    put("lib/libcuda.so.470.1", "an old one");
    put("lib/libz.so.1", "another");
    put("dev/nvidia-caps/x", "");
    put("dev/dri/x", "");
    put("scratch/x", "");
    put_node("dev/nvidia0");
    put_node("dev/nvidia1");
    put_node("dev/nvidiactl");
    return 0;
}

static int tear_down(void **state UNUSED)
{
    struct err e = ERR_INIT;

    return tree_remove_at(AT_FDCWD, top, &e);
}

struct places {
    char *nvml, *driver, *dev, *cdi, *lib, *sys, *scratch;
    const char *cdi_dirs[1], *lib_dirs[1];
    struct gpu_places p;
};

static void find_places(struct places *p)
{
    p->nvml = at("no-such-library.so");
    p->driver = at("driver");
    p->dev = at("dev");
    p->cdi = at("cdi");
    p->lib = at("lib");
    p->cdi_dirs[0] = p->cdi;
    p->lib_dirs[0] = p->lib;
    p->sys = at("sys");
    p->scratch = at("scratch");
    p->p = (struct gpu_places){p->nvml,     p->driver, p->dev, p->cdi_dirs, 1,
                               p->lib_dirs, 1,         p->sys, p->lib};
}

static void free_places(struct places *p)
{
    free(p->nvml);
    free(p->driver);
    free(p->dev);
    free(p->cdi);
    free(p->lib);
    free(p->sys);
    free(p->scratch);
}

static const struct ctr_mount *mounted(const struct ctr_spec *s, const char *destination)
{
    for (size_t i = 0; i < s->n_mounts; i++)
        if (str_eq(s->mounts[i].destination, destination))
            return &s->mounts[i];
    return NULL;
}

static bool has_device(const struct ctr_spec *s, const char *path)
{
    for (size_t i = 0; i < s->n_devices; i++)
        if (str_eq(s->devices[i].path, path))
            return true;
    return mounted(s, path); /* from another place of the host */
}

static bool has_rule(const struct ctr_spec *s, unsigned major, unsigned minor)
{
    for (size_t i = 0; i < s->resources.n_devices; i++)
        if (s->resources.devices[i].major == major && s->resources.devices[i].minor == minor)
            return true;
    return false;
}

static void a_host_without_gpus_is_quiet(void **state UNUSED)
{
    static const char *const none[] = {"/nonexistent"};
    const struct gpu_places nowhere = {
        "/nonexistent.so", "/nonexistent", "/nonexistent", none, 1, none, 1,
        "/nonexistent",    "/nonexistent"};
    struct ctr_gpu *list = NULL;
    struct err e = ERR_INIT;
    size_t n = 7;

    assert_ok(gpu_list_at(&nowhere, &list, &n, &e), &e);
    assert_int_equal(n, 0);
    free(list);
}

static void found_by_the_drivers_files(void **state UNUSED) /* D29 */
{
    struct places p;
    struct ctr_gpu *list = NULL;
    struct err e = ERR_INIT;
    size_t n = 0;

    find_places(&p);
    AUTO_FREE char *gone = at("dev/nvidia0");
    assert_int_equal(unlink(gone), 0);
    assert_ok(gpu_list_at(&p.p, &list, &n, &e), &e);
    assert_int_equal(n, 2);
    assert_string_equal(list[0].uuid, "GPU-aaaa");
    assert_int_equal(list[0].minor, 1);
    assert_true(list[0].usable);
    assert_false(list[1].usable); /* only GPUs that open are offered */
    assert_has(list[1].why_not, "does not open");
    free(list);
    free_places(&p);
}

static void exactly_the_chosen_one(void **state UNUSED) /* B078, S45 */
{
    AUTO(ctr_spec) struct ctr_spec *s = ctr_spec_new();
    static const char *const wanted[] = {"GPU-aaaa"}, *const unknown[] = {"GPU-cccc"};
    struct places p;
    struct err e = ERR_INIT;

    find_places(&p);
    str_list_setenv(&s->process.env, "NVIDIA_VISIBLE_DEVICES",
                    "all"); /* the image's wish chooses nothing */
    assert_ok(gpu_edit_spec_at(&p.p, s, wanted, 1, p.scratch, &e), &e);
    assert_true(has_device(s, "/dev/nvidia1"));
    assert_true(has_device(s, "/dev/nvidiactl"));
    assert_false(has_device(s, "/dev/nvidia0"));
    AUTO_FREE char *cuda = at("lib/libcuda.so.535.104.05"), *old = at("lib/libcuda.so.470.1");
    assert_non_null(mounted(s, cuda));
    assert_null(mounted(s, old));
    assert_int_equal(gpu_edit_spec_at(&p.p, s, unknown, 1, p.scratch, &e), -1);
    assert_int_equal(e.kind, ERR_ABSENT);
    free_places(&p);
}

/* What the driver tells in /proc about the others is hidden, all of it from a run that has none. */
static void the_others_are_not_told_of(void **state UNUSED) /* B078, S36 */
{
    static const char *const first[] = {"GPU-aaaa"}, *const both[] = {"GPU-bbbb", "GPU-aaaa"};
    AUTO(ctr_spec) struct ctr_spec *none = ctr_spec_new();
    AUTO(ctr_spec) struct ctr_spec *one = ctr_spec_new();
    AUTO(ctr_spec) struct ctr_spec *two = ctr_spec_new();
    const char *all = "/proc/driver/nvidia", *a = "/proc/driver/nvidia/gpus/0000:01:00.0",
               *b = "/proc/driver/nvidia/gpus/0000:02:00.0";
    struct places p;
    struct err e = ERR_INIT;

    find_places(&p);
    ctr_spec_isolate(none, 0, 0);
    ctr_spec_isolate(one, 0, 0);
    ctr_spec_isolate(two, 0, 0);
    assert_ok(gpu_edit_spec_at(&p.p, none, first, 0, p.scratch, &e), &e);
    assert_ok(gpu_edit_spec_at(&p.p, one, first, 1, p.scratch, &e), &e);
    assert_ok(gpu_edit_spec_at(&p.p, two, both, 2, p.scratch, &e), &e);
    assert_true(str_list_has(&none->masked_paths, all));
    assert_false(str_list_has(&one->masked_paths, all));
    assert_false(str_list_has(&one->masked_paths, a));
    assert_true(str_list_has(&one->masked_paths, b));
    assert_int_equal(one->masked_paths.n, none->masked_paths.n);
    assert_int_equal(two->masked_paths.n, none->masked_paths.n - 1);
    free_places(&p);
}

static const char yaml[] =
    "---\n"
    "cdiVersion: 0.5.0\n"
    "kind: nvidia.com/gpu\n"
    "containerEdits:\n"
    "  env:\n  - NVIDIA_VISIBLE_DEVICES=void\n"
    "  deviceNodes:\n  - path: /dev/nvidiactl\n    hostPath: %s/dev/nvidiactl\n"
    "  mounts:\n"
    "  - hostPath: %s/lib/libcuda.so.535.104.05\n"
    "    containerPath: /usr/lib64/libcuda.so.535.104.05\n"
    "    options: [ro, nosuid]\n"
    "  hooks:\n"
    "  - hookName: createContainer\n    path: /usr/bin/nvidia-cdi-hook\n"
    "    args: [nvidia-cdi-hook, create-symlinks, --link, 'libcuda.so.1::/usr/lib64/libcuda.so', "
    "--link, 'libcuda.so.535.104.05::/usr/lib64/libcuda.so.1']\n"
    "  - hookName: createContainer\n    path: /usr/bin/nvidia-cdi-hook\n"
    "    args: [nvidia-cdi-hook, %s, --folder, /usr/lib64]\n"
    "devices:\n"
    "- name: GPU-aaaa\n  containerEdits:\n    deviceNodes:\n"
    "    - path: /dev/nvidia1\n      hostPath: %s/dev/nvidia1\n"
    "- name: \"1\"\n  containerEdits:\n    deviceNodes:\n"
    "    - path: /dev/nvidia0\n      hostPath: %s/dev/nvidia0\n";

static void put_yaml(const char *hook)
{
    AUTO_FREE char *text = mem_printf(yaml, top, top, hook, top, top);

    put("cdi/nvidia.yaml", text);
}

static void cdi_edits_are_made(void **state UNUSED)
{
    AUTO(ctr_spec) struct ctr_spec *s = ctr_spec_new();
    static const char *const wanted[] = {"GPU-aaaa"}, *const second[] = {"GPU-bbbb"};
    struct places p;
    struct err e = ERR_INIT;

    put_yaml("update-ldcache");
    find_places(&p);
    assert_ok(gpu_edit_spec_at(&p.p, s, wanted, 1, p.scratch, &e), &e);
    assert_true(has_device(s, "/dev/nvidia1"));
    assert_false(has_device(s, "/dev/nvidia0"));
    assert_non_null(
        mounted(s, "/usr/lib64/libcuda.so.1")); /* the hook's effect, without the hook */
    assert_string_equal(str_list_getenv(&s->process.env, "NVIDIA_VISIBLE_DEVICES"), "void");
    assert_null(str_list_getenv(&s->process.env, "LD_LIBRARY_PATH"));   /* it would hide RUNPATHs */
    assert_ok(gpu_edit_spec_at(&p.p, s, second, 1, p.scratch, &e), &e); /* by its index */
    assert_true(has_device(s, "/dev/nvidia0"));
    free_places(&p);
}

static void hooks_are_never_executed(void **state UNUSED) /* S45 */
{
    AUTO(ctr_spec) struct ctr_spec *s = ctr_spec_new();
    static const char *const wanted[] = {"GPU-aaaa"};
    struct places p;
    struct err e = ERR_INIT;

    find_places(&p);
    put_yaml("run-what-i-say");
    assert_int_equal(gpu_edit_spec_at(&p.p, s, wanted, 1, p.scratch, &e), -1);
    assert_has(e.msg, "no hook is executed");
    put_yaml("update-ldcache");
    AUTO_FREE char *file = at("cdi/nvidia.yaml");
    assert_int_equal(chmod(file, 0666), 0);
    assert_int_equal(gpu_edit_spec_at(&p.p, s, wanted, 1, p.scratch, &e), -1);
    assert_has(e.msg, "not root's alone");
    free_places(&p);
}

/* The driver was updated: the specification is noticed as stale, and the run gets the driver's files without it. */
static void stale_specifications_are_noticed(void **state UNUSED)
{
    static const struct {
        const char *remove, *put, *version, *says;
    } rows[] = {
        {"lib/libcuda.so.535.104.05", "lib/libcuda.so.550.1.2", "550.1.2", "not on this host"},
        {NULL, "lib/libcuda.so.550.1.2", "550.1.2", "driver 550.1.2 is loaded"},
    };
    static const char *const wanted[] = {"GPU-aaaa"};
    struct places p;
    char text[400];

    find_places(&p);
    put_yaml("update-ldcache");
    gpu_cdi_text_at(&p.p, text, sizeof(text));
    assert_has(text, "/cdi/nvidia.yaml");
    assert_null(strstr(text, "stale"));
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO(ctr_spec) struct ctr_spec *s = ctr_spec_new();
        AUTO_FREE char *version = mem_printf("NVRM version: X  %s  Sat\n", rows[i].version);
        AUTO_FREE char *gone = rows[i].remove ? at(rows[i].remove) : NULL;
        AUTO_FREE char *new = at(rows[i].put);
        struct err e = ERR_INIT;

        put(rows[i].put, "new");
        put("driver/version", version);
        assert_true(!gone || unlink(gone) == 0);
        assert_ok(gpu_edit_spec_at(&p.p, s, wanted, 1, p.scratch, &e), &e);
        assert_has(ctr_spec_annotation(s, CTR_GPU_NOTE), rows[i].says);
        assert_non_null(mounted(s, new));
        assert_true(has_device(s, "/dev/nvidia1"));
        gpu_cdi_text_at(&p.p, text, sizeof(text));
        assert_has(text, "stale");
        put("lib/libcuda.so.535.104.05", "back");
    }
    free_places(&p);
}

static const char edits[] =
    "{\"cdiVersion\": \"%s\", \"kind\": \"nvidia.com/gpu\", \"devices\": [{\"name\": \"GPU-aaaa\","
    "\"containerEdits\": {\"deviceNodes\": [{\"path\": \"/dev/null\", \"type\": \"c\", \"major\": 1, "
    "\"minor\": %d, \"permissions\": \"r\", \"uid\": 7, \"gid\": 8, \"fileMode\": 416}],"
    "\"mounts\": [{\"hostPath\": \"%s/socket\", \"containerPath\": \"/run/nvidia-persistenced/socket\"},"
    "{\"hostPath\": \"tmpfs\", \"containerPath\": \"/t\", \"type\": \"tmpfs\"},"
    "{\"hostPath\": \"%s/lib\", \"containerPath\": \"/x\", \"options\": [\"rw\", \"suid\"]}],"
    "\"additionalGids\": [0, 44, 107]%s}}]}";

static void put_edits(const char *version, int minor, const char *more)
{
    AUTO_FREE char *text = mem_printf(edits, version, minor, top, top, more);

    put("cdi/nvidia.yaml", "");
    AUTO_FREE char *yaml_file = at("cdi/nvidia.yaml");
    assert_int_equal(unlink(yaml_file), 0);
    put("cdi/nvidia.json", text);
}

static void every_edit_of_a_device(void **state UNUSED) /* S45, S52 */
{
    AUTO(ctr_spec) struct ctr_spec *s = ctr_spec_new();
    AUTO_FREE char *socket_path = at("socket");
    static const char *const wanted[] = {"GPU-aaaa"};
    struct places p;
    struct err e = ERR_INIT;

    find_places(&p);
    assert_int_equal(mknod(socket_path, S_IFSOCK | 0666, 0), 0);
    put_edits("0.6.0", 3, "");
    assert_ok(gpu_edit_spec_at(&p.p, s, wanted, 1, p.scratch, &e), &e);
    assert_null(ctr_spec_annotation(s, CTR_GPU_NOTE));
    assert_int_equal(s->n_devices, 1);
    assert_int_equal(s->devices[0].uid, 7);
    assert_int_equal(s->devices[0].gid, 8);
    assert_int_equal(s->devices[0].file_mode, 0640);
    assert_string_equal(s->resources.devices[0].access, "r");
    assert_null(mounted(s, "/run/nvidia-persistenced/socket")); /* a service of the host's */
    assert_string_equal(mounted(s, "/t")->type, "tmpfs");
    assert_true(str_list_has(&mounted(s, "/x")->options, "ro")); /* whatever the file says */
    assert_true(str_list_has(&mounted(s, "/x")->options, "nosuid"));
    assert_false(str_list_has(&mounted(s, "/x")->options, "rw"));
    assert_int_equal(s->process.n_additional_gids, 2); /* never root's */
    assert_int_equal(s->process.additional_gids[0], 44);
    free_places(&p);
}

static void edits_that_are_refused(void **state UNUSED)
{
    static const struct {
        const char *version;
        int minor;
        const char *more, *says;
    } rows[] = {
        {"2.0.0", 3, "", "cdiVersion"},
        {"1.1.0", 3, ", \"netDevices\": [{}]", "netDevices"},
        {"0.7.0", 3, ", \"intelRdt\": {}", "intelRdt"},
        {"0.7.0", 3, ", \"env\": [\"=x\"]", "NAME=VALUE"},
    };
    static const char *const wanted[] = {"GPU-aaaa"};
    struct places p;

    find_places(&p);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO(ctr_spec) struct ctr_spec *s = ctr_spec_new();
        struct err e = ERR_INIT;

        put("socket", "");
        put_edits(rows[i].version, rows[i].minor, rows[i].more);
        assert_int_equal(gpu_edit_spec_at(&p.p, s, wanted, 1, p.scratch, &e), -1);
        assert_has(e.msg, rows[i].says);
    }
    /* a node with other numbers than the file has: the hardware changed */
    AUTO(ctr_spec) struct ctr_spec *s = ctr_spec_new();
    struct err e = ERR_INIT;

    put_edits("0.6.0", 5, "");
    assert_ok(gpu_edit_spec_at(&p.p, s, wanted, 1, p.scratch, &e), &e);
    assert_has(ctr_spec_annotation(s, CTR_GPU_NOTE), "is device 1:3");
    free_places(&p);
}

static void mig_instances_by_the_drivers_files(void **state UNUSED)
{
    AUTO(ctr_spec) struct ctr_spec *s = ctr_spec_new();
    AUTO(str_list) struct str_list libs = {0};
    const struct ctr_gpu g = {.uuid = "MIG-1",
                              .minor = 1,
                              .is_mig = true,
                              .mig_gpu_instance = 3,
                              .mig_compute_instance = 0};
    const struct ctr_gpu *const list[] = {&g};
    struct places p;
    struct err e = ERR_INIT;

    find_places(&p);
    put_node("dev/nvidia-caps/nvidia-cap30");
    put_node("dev/nvidia-caps/nvidia-cap31");
    put_node("dev/nvidia-caps/nvidia-cap40");
    put("driver/capabilities/gpu1/mig/gi3/access",
        "DeviceFileMinor: 30\nDeviceFileMode: 292\nDeviceFileModify: 1\n");
    put("driver/capabilities/gpu1/mig/gi3/ci0/access", "DeviceFileMinor: 31\n");
    put("driver/capabilities/gpu1/mig/gi4/access", "DeviceFileMinor: 40\n");
    assert_ok(gpu_driver_edit(&p.p, s, list, 1, &libs, &e), &e);
    assert_true(has_device(s, "/dev/nvidia1"));
    assert_true(has_device(s, "/dev/nvidia-caps/nvidia-cap30"));
    assert_true(has_device(s, "/dev/nvidia-caps/nvidia-cap31"));
    assert_false(has_device(s, "/dev/nvidia-caps/nvidia-cap40")); /* the neighbour's */
    free_places(&p);
}

static void amd_gpus(void **state UNUSED)
{
    AUTO(ctr_spec) struct ctr_spec *s = ctr_spec_new();
    static const char *const wanted[] = {"GPU-00000000000000ff"};
    struct ctr_gpu *list = NULL;
    struct places p;
    struct err e = ERR_INIT;
    size_t n = 0;

    find_places(&p);
    put("sys/class/kfd/kfd/topology/nodes/0/properties", "cpu_cores_count 8\nsimd_count 0\n");
    put("sys/class/kfd/kfd/topology/nodes/1/properties",
        "simd_count 256\ngfx_target_version 90010\nlocation_id 768\ndomain 0\n"
        "drm_render_minor 128\nunique_id 255\n");
    put("sys/class/kfd/kfd/topology/nodes/10/properties",
        "simd_count 256\nlocation_id 1024\ndrm_render_minor 129\nunique_id 0\n");
    put("sys/class/drm/renderD128/device/numa_node", "1\n");
    put_node("dev/kfd");
    put_node("dev/dri/renderD128");
    assert_ok(gpu_list_at(&p.p, &list, &n, &e), &e);
    assert_int_equal(n, 4); /* behind NVIDIA's two */
    assert_int_equal(list[2].kind, CTR_GPU_AMD);
    assert_string_equal(list[2].uuid, wanted[0]);
    assert_string_equal(list[2].pci, "0000:03:00");
    assert_int_equal(list[2].numa_node, 1);
    assert_true(list[2].usable);
    assert_string_equal(list[3].uuid, "GPU-0000:04:00"); /* no serial number: by its place */
    assert_false(list[3].usable);
    free(list);
    assert_ok(gpu_edit_spec_at(&p.p, s, wanted, 1, p.scratch, &e), &e);
    assert_true(has_device(s, "/dev/kfd"));
    assert_true(has_device(s, "/dev/dri/renderD128"));
    assert_false(has_device(s, "/dev/dri/renderD129"));
    assert_false(has_device(s, "/dev/nvidiactl"));
    assert_true(has_rule(s, 1, 3));
    free_places(&p);
}

static void errors_in_the_kernels_log(void **state UNUSED)
{
    static const struct {
        const char *record;
        unsigned xid;
    } rows[] = {
        {"4,1,2000,-;NVRM: Xid (PCI:0000:65:00): 79, pid=7, GPU has fallen off the bus.", 79},
        {"4,1,2000,-;NVRM: Xid (PCI:0000:65:00.0): 48, DBE", 48},
        {"4,1,999,-;NVRM: Xid (PCI:0000:65:00): 79, before the run", 0},
        {"4,1,2000,-;NVRM: Xid (PCI:0000:66:00): 79, the neighbour", 0},
        {"4,1,2000,-;NVRM: Xid (PCI:0000:65:00): 31, a program's own fault", 0},
        {"4,1,2000,-;NVRM: Xid (PCI:0000:65:00): , no number", 0},
        {"4,1,2000,-;NVRM: Xid (PCI:0000:65:00", 0},
        {"no record; NVRM: Xid (PCI:0000:65:00): 79", 0},
        {"", 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_int_equal(gpu_xid_of(rows[i].record, "0000:65:00", 1000), rows[i].xid);
    assert_int_equal(gpu_xid_of(rows[0].record, "", 0), 0); /* unknown place: nobody's */
}

static void the_dead_that_hold_a_gpu(void **state UNUSED)
{
    struct ctr_gpu g = {.processes = {getpid(), 0}, .n_processes = 1};
    char *const argv[] = {(char *)"/bin/true", NULL};
    struct err e = ERR_INIT;
    pid_t child = 0;
    AUTO_CLOSE int fd = proc_spawn(argv[0], argv, NULL, NULL, 0, &child, &e);

    assert_true(fd >= 0);
    assert_int_equal(gpu_dead_holder(&g), 0);
    g.processes[g.n_processes++] = child;
    assert_int_equal(fd_wait(fd, POLLIN, clock_in_ns(20 * NS_PER_S)), 1);
    assert_int_equal(gpu_dead_holder(&g), child); /* nobody has reaped it */
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(gpu_dead_holder(&g), child); /* gone */
}

static void unfit_gpus_are_withdrawn(void **state UNUSED)
{
    static const char *const both[] = {"GPU-aaaa", "GPU-bbbb"}, *const gone[] = {"GPU-cccc"};
    struct places p;
    struct err e = ERR_INIT;

    find_places(&p);
    assert_ok(gpu_check_at(&p.p, both, 2, 0, 0, &e), &e);
    assert_false(ctr_gpu_is_withdrawn("GPU-bbbb"));
    AUTO_FREE char *node = at("dev/nvidia0");
    assert_int_equal(unlink(node), 0);
    assert_int_equal(gpu_check_at(&p.p, both, 2, 0, 0, &e), -1);
    assert_has(e.msg, "GPU-bbbb cannot be used");
    assert_true(ctr_gpu_is_withdrawn("GPU-bbbb"));
    assert_false(ctr_gpu_is_withdrawn("GPU-aaaa"));
    assert_int_equal(gpu_check_at(&p.p, gone, 1, 0, 0, &e), -1);
    assert_has(e.msg, "not on this host any more");
    free_places(&p);
}

/* --- the loader's cache ------------------------------------------------------------------------------------------- */

static void caches_are_merged(void **state UNUSED) /* S44, S45 */
{
    static const struct ldcache_entry first[] = {{"libz.so.1", "/old/libz.so.1"},
                                                 {"libx.so.10", "/x/libx.so.10"},
                                                 {"libx.so.9", "/x/libx.so.9"},
                                                 {"libcuda.so.1", "/stub/libcuda.so.1"}},
                                      second[] = {{"libcuda.so.1", "/real/libcuda.so.1"}};
    AUTO(str) struct str old = STR_INIT(1 << 20);
    AUTO(str) struct str new = STR_INIT(1 << 20);
    AUTO(str) struct str alone = STR_INIT(1 << 20);
    struct err e = ERR_INIT;

    assert_ok(ldcache_merge(NULL, 0, first, ARRAY_SIZE(first), &old, &e), &e);
    assert_ok(ldcache_merge(str_text(&old), old.len, second, 1, &new, &e), &e);
    assert_non_null(memmem(new.buf, new.len, "/old/libz.so.1", 15));
    assert_non_null(memmem(new.buf, new.len, "/real/libcuda.so.1", 19));
    assert_null(memmem(new.buf, new.len, "/stub/", 6)); /* an image's own stub loses */
    char *ten = memmem(new.buf, new.len, "libx.so.10", 11),
         *nine = memmem(new.buf, new.len, "libx.so.9", 10);
    assert_true(ten && nine && ten < nine);
    assert_ok(ldcache_merge("garbage", 7, second, 1, &alone, &e), &e);
    assert_non_null(memmem(alone.buf, alone.len, "/real/libcuda.so.1", 19));
}

static void the_topmost_cache_counts(void **state UNUSED)
{
    static const struct {
        const char
            *files[3]; /* per layer from the top: content, NULL none, "W" whiteout, "L" link out */
        const char *want;
    } rows[] = {
        {{NULL, "two", "three"}, "two"}, {{"one", "two", NULL}, "one"}, {{NULL, "W", "three"}, ""},
        {{NULL, "L", "three"}, ""},      {{NULL, NULL, NULL}, ""},
    };

    put("outside", "secret of the host");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO(str_list) struct str_list lower = {0};
        AUTO(str) struct str text = STR_INIT(1000);
        struct err e = ERR_INIT;

        for (size_t k = 0; k < 3; k++) {
            AUTO_FREE char *layer = mem_printf("layer%zu-%zu", i, k);
            AUTO_FREE char *file = mem_printf("%s/etc/ld.so.cache", layer);
            AUTO_FREE char *whole = at(file), *lower_path = at(layer), *outside = at("outside");
            const char *content = rows[i].files[k];

            put(file, content ? content : "");
            if (!content || strlen(content) == 1)
                assert_int_equal(unlink(whole), 0);
            if (content && *content == 'W')
                assert_int_equal(mknod(whole, S_IFCHR, 0), 0);
            if (content && *content == 'L')
                assert_int_equal(symlink(outside, whole), 0);
            str_list_add(&lower, lower_path);
        }
        assert_ok(ldcache_of_layers(&lower, &text, &e), &e);
        assert_string_equal(str_text(&text), rows[i].want);
    }
}

static void libraries_get_into_the_cache(void **state UNUSED)
{
    AUTO(ctr_spec) struct ctr_spec *s = ctr_spec_new();
    AUTO(str) struct str text = STR_INIT(1 << 20);
    static const char *const wanted[] = {"GPU-aaaa"};
    struct places p;
    struct err e = ERR_INIT;

    find_places(&p);
    assert_ok(gpu_edit_spec_at(&p.p, s, wanted, 1, p.scratch, &e), &e);
    const struct ctr_mount *m = mounted(s, "/etc/ld.so.cache");
    assert_non_null(m);
    assert_true(str_starts(m->source, p.scratch));
    assert_true(str_list_has(&m->options, "ro"));
    assert_ok(fd_read_file_at(AT_FDCWD, m->source, &text, &e), &e);
    assert_non_null(memmem(text.buf, text.len, "libcuda.so", 11));
    free_places(&p);
}

static void yaml_table(void **state UNUSED) /* S05, S14 */
{
    static const struct {
        const char *text, *json; /* NULL: refused */
    } rows[] = {
        {"a: 1\nb: [x, 'y', \"1\", true, null]\n", "{\"a\":1,\"b\":[\"x\",\"y\",\"1\",true,null]}"},
        {"a: {b: {c: -5}}\n", "{\"a\":{\"b\":{\"c\":-5}}}"},
        {"a: &x 1\nb: *x\n", NULL},
        {"a: 1\na: 2\n", NULL},
        {"- 1\n", NULL},
        {"a: [\n", NULL},
        {"", NULL},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO(cJSON) cJSON *v = NULL;
        struct err e = ERR_INIT;
        int rc = cdi_yaml_parse(rows[i].text, strlen(rows[i].text), &v, &e);

        assert_int_equal(rc, rows[i].json ? 0 : -1);
        if (!rows[i].json)
            continue;
        AUTO_FREE char *text = json_text(v);
        assert_string_equal(text, rows[i].json);
    }
}

static void sonames(void **state UNUSED)
{
    AUTO_FREE char *name = NULL, *none = NULL;
    struct err e = ERR_INIT;

    assert_ok(elf_soname("/lib/x86_64-linux-gnu/libc.so.6", &name, &e), &e);
    assert_string_equal(name, "libc.so.6");
    assert_ok(elf_soname("/etc/passwd", &none, &e), &e);
    assert_null(none);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_host_without_gpus_is_quiet),
        T(found_by_the_drivers_files),
        T(exactly_the_chosen_one),
        T(the_others_are_not_told_of),
        T(cdi_edits_are_made),
        T(hooks_are_never_executed),
        T(stale_specifications_are_noticed),
        T(every_edit_of_a_device),
        T(edits_that_are_refused),
        T(mig_instances_by_the_drivers_files),
        T(amd_gpus),
        T(errors_in_the_kernels_log),
        T(the_dead_that_hold_a_gpu),
        T(unfit_gpus_are_withdrawn),
        T(caches_are_merged),
        T(the_topmost_cache_counts),
        T(libraries_get_into_the_cache),
        T(yaml_table),
        T(sonames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
