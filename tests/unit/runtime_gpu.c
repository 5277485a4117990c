/* needs: root */
/* GPUs from the driver's files and CDI specifications, on directories made here; nodes are bound to /dev/null's numbers. */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/str.h"
#include "base/tree.h"
#include "runtime/cdi.h"
#include "runtime/cdi_edits.h"
#include "runtime/cdi_yaml.h"
#include "runtime/elf.h"
#include "runtime/gpu_own.h"
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
    put("dev/x", "");
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
    char *nvml, *driver, *dev, *cdi, *lib;
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
    p->p = (struct gpu_places){p->nvml, p->driver, p->dev, p->cdi_dirs, 1, p->lib_dirs, 1};
}

static void free_places(struct places *p)
{
    free(p->nvml);
    free(p->driver);
    free(p->dev);
    free(p->cdi);
    free(p->lib);
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
    return false;
}

static void a_host_without_gpus_is_quiet(void **state UNUSED)
{
    static const char *const none[] = {"/nonexistent"};
    const struct gpu_places nowhere = {
        "/nonexistent.so", "/nonexistent", "/nonexistent", none, 1, none, 1};
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
    assert_ok(gpu_edit_spec_at(&p.p, s, wanted, 1, &e), &e);
    assert_true(has_device(s, "/dev/nvidia1"));
    assert_true(has_device(s, "/dev/nvidiactl"));
    assert_false(has_device(s, "/dev/nvidia0"));
    AUTO_FREE char *cuda = at("lib/libcuda.so.535.104.05"), *old = at("lib/libcuda.so.470.1");
    assert_non_null(mounted(s, cuda));
    assert_null(mounted(s, old));
    assert_int_equal(gpu_edit_spec_at(&p.p, s, unknown, 1, &e), -1);
    assert_int_equal(e.kind, ERR_ABSENT);
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
    assert_ok(gpu_edit_spec_at(&p.p, s, wanted, 1, &e), &e);
    assert_true(has_device(s, "/dev/nvidia1"));
    assert_false(has_device(s, "/dev/nvidia0"));
    assert_non_null(
        mounted(s, "/usr/lib64/libcuda.so.1")); /* the hook's effect, without the hook */
    assert_string_equal(str_list_getenv(&s->process.env, "NVIDIA_VISIBLE_DEVICES"), "void");
    assert_string_equal(str_list_getenv(&s->process.env, "LD_LIBRARY_PATH"), "/usr/lib64");
    assert_ok(gpu_edit_spec_at(&p.p, s, second, 1, &e), &e); /* by its index */
    assert_true(has_device(s, "/dev/nvidia0"));
    free_places(&p);
}

static void unknown_hooks_and_stale_files_are_refused(void **state UNUSED) /* S45 */
{
    AUTO(ctr_spec) struct ctr_spec *s = ctr_spec_new();
    static const char *const wanted[] = {"GPU-aaaa"};
    struct places p;
    struct err e = ERR_INIT;

    find_places(&p);
    put_yaml("run-what-i-say");
    assert_int_equal(gpu_edit_spec_at(&p.p, s, wanted, 1, &e), -1);
    assert_has(e.msg, "no hook is executed");
    put_yaml("update-ldcache");
    AUTO_FREE char *library = at("lib/libcuda.so.535.104.05"), *file = at("cdi/nvidia.yaml");
    assert_int_equal(unlink(library), 0);
    assert_int_equal(gpu_edit_spec_at(&p.p, s, wanted, 1, &e), -1);
    assert_has(e.msg, "older than the driver");
    assert_int_equal(chmod(file, 0666), 0);
    assert_int_equal(gpu_edit_spec_at(&p.p, s, wanted, 1, &e), -1);
    assert_has(e.msg, "not root's alone");
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
        T(cdi_edits_are_made),
        T(unknown_hooks_and_stale_files_are_refused),
        T(yaml_table),
        T(sonames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
