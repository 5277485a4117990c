/*
 * Which CPUs and GPUs a worker offers (--cpuset, --gpuset) and which of them a run gets.
 * rows: B024 B025 B026 B076 B077 B203 B204 D19 D27 D28
 */
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/str.h"
#include "base/tree.h"
#include "runtime/gpu.h"
#include "test.h"
#include "worker/gpuset.h"
#include "worker/placement.h"
#include "worker/topology.h"
#include "worker/usage.h"

/* ---- topology ---- */

static char top[] = "/tmp/placement.XXXXXX";

static void put(const char *name, const char *text)
{
    AUTO_FREE char *path = mem_printf("%s/%s", top, name);
    AUTO_FREE char *dir = mem_strdup(path);
    struct err e = ERR_INIT;

    *strrchr(dir, '/') = '\0';
    assert_ok(path_mkdirs(dir, 0755, &e), &e);
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_int_equal(fd_write_all(fd, text, strlen(text)), 0);
}

/* Two sockets of four cores of two threads each, numbered as Intel's: 0-7 the first threads, 8-15 the second. */
static int make_sysfs(void **state UNUSED)
{
    assert_non_null(mkdtemp(top));
    put("devices/system/cpu/online", "0-15\n");
    put("devices/system/node/online", "0-1\n");
    put("devices/system/node/node0/cpulist", "0-3,8-11\n");
    put("devices/system/node/node1/cpulist", "4-7,12-15\n");
    for (int cpu = 0; cpu < 16; cpu++) {
        AUTO_FREE char *name = mem_printf("devices/system/cpu/cpu%d/topology/core_cpus_list", cpu);
        AUTO_FREE char *text = mem_printf("%d,%d\n", cpu % 8, cpu % 8 + 8);
        put(name, text);
    }
    return 0;
}

static int remove_sysfs(void **state UNUSED)
{
    struct err e = ERR_INIT;

    return tree_remove_at(AT_FDCWD, top, &e);
}

static void read_topology(struct topology *t)
{
    struct err e = ERR_INIT;

    assert_ok(topology_read(top, t, &e), &e);
    assert_int_equal(t->n, 16);
    assert_int_equal(t->cpus[9].core, 1);
    assert_int_equal(t->cpus[9].node, 0);
    assert_int_equal(t->cpus[12].node, 1);
    t->affinity = (struct cpu_set){0};
    assert_ok(cpu_set_parse("0-15", &t->affinity, &e), &e);
}

/* ---- --cpuset ---- */

#define FORMAT  "CPUSET_STR invalid format: must be a string of comma-separated integers"
#define TWICE   "CPUSET_STR invalid: CPUs not distinct values"
#define OUTSIDE "CPUSET_STR invalid: CPUs out of range"

static const struct {
    const char *text, *set, *error;
} cpusets[] = {
    {"ALL", "1-2,5", NULL},    {"1", "1", NULL},       {"5,1", "1,5", NULL},
    {" 2 ,+1", "1-2", NULL},   {"", NULL, FORMAT},     {"1,", NULL, FORMAT},
    {"1-2", NULL, FORMAT},     {"all", NULL, FORMAT},  {"1,x", NULL, FORMAT},
    {"1,1", NULL, TWICE},      {"1,01", NULL, TWICE},  {"99999,99999", NULL, TWICE},
    {"0", NULL, OUTSIDE},      {"1,3", NULL, OUTSIDE}, {"-1", NULL, OUTSIDE},
    {"1,4096", NULL, OUTSIDE},
};

static void cpuset_within_the_affinity(void **state UNUSED)
{
    AUTO(topology) struct topology t = {0};
    struct err e = ERR_INIT;

    read_topology(&t);
    t.affinity = (struct cpu_set){0};
    assert_ok(cpu_set_parse("1-2,5", &t.affinity, &e), &e);
    for (size_t i = 0; i < ARRAY_SIZE(cpusets); i++) {
        struct cpu_set set = {0};
        int rc = topology_cpuset(&t, cpusets[i].text, &set, &e);
        if (cpusets[i].error) {
            if (rc == 0)
                fail_msg("--cpuset '%s' is accepted", cpusets[i].text);
            assert_string_equal(e.msg, cpusets[i].error);
        } else {
            AUTO_FREE char *text = cpu_set_text(&set);
            assert_ok(rc, &e);
            assert_string_equal(text, cpusets[i].set);
        }
    }
}

/* The mask of this very process is what ALL means. */
static void all_is_the_affinity_mask(void **state UNUSED)
{
    AUTO(topology) struct topology t = {0};
    struct err e = ERR_INIT;
    struct cpu_set set = {0};
    cpu_set_t old, one;

    assert_int_equal(sched_getaffinity(0, sizeof(old), &old), 0);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &old))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    assert_ok(topology_read("/sys", &t, &e), &e);
    assert_int_equal(sched_setaffinity(0, sizeof(old), &old), 0);
    assert_ok(topology_cpuset(&t, "ALL", &set, &e), &e);
    assert_int_equal(cpu_set_count(&set), 1);
    assert_true(cpu_set_has(&set, (unsigned)cpu));
}

/* ---- --gpuset ---- */

static const struct ctr_gpu gpus[] = {
    {.uuid = "GPU-a", .index = 0, .usable = true},
    {.uuid = "GPU-b", .index = 1, .usable = false, .why_not = "does not open"},
    {.uuid = "MIG-c", .index = 2, .usable = true, .is_mig = true},
    {.uuid = "MIG-d", .index = 2, .usable = true, .is_mig = true},
    {.uuid = "GPU-e", .index = 3, .usable = true},
};

static unsigned skips;

static void note_skip(const struct ctr_gpu *gpu)
{
    assert_string_equal(gpu->uuid, "GPU-b");
    skips++;
}

static const struct {
    const char *text, *uuids; /* NULL: out of range */
    unsigned skipped;
} gpusets[] = {
    {"ALL", "GPU-a MIG-c MIG-d GPU-e", 1},
    {"NONE", "", 0},
    {"", "", 0},
    {"0", "GPU-a", 0},
    {"3,0", "GPU-a GPU-e", 0},
    {"GPU-e,0", "GPU-a GPU-e", 0},
    {"MIG-d", "MIG-d", 0},
    {"1,0", "GPU-a", 1}, /* there, but it does not open: not offered */
    {"2", NULL, 0},      /* divided: its instances have names of their own */
    {"4", NULL, 0},
    {"GPU-x", NULL, 0},
    {"0,GPU-x", NULL, 0},
    {"0,0", NULL, 0},
    {"0,GPU-a", NULL, 0},
    {"0,", NULL, 0},
    {"none", NULL, 0},
};

static void gpuset(void **state UNUSED)
{
    for (size_t i = 0; i < ARRAY_SIZE(gpusets); i++) {
        AUTO(str_list) struct str_list uuids = {0};
        AUTO_FREE struct ctr_gpu *got = NULL;
        struct err e = ERR_INIT;
        size_t n = 0;

        skips = 0;
        int rc = gpuset_choose(gpusets[i].text, gpus, ARRAY_SIZE(gpus), &got, &n, note_skip, &e);
        if (!gpusets[i].uuids) {
            if (rc == 0)
                fail_msg("--gpuset '%s' is accepted", gpusets[i].text);
            assert_string_equal(e.msg, "GPUSET_STR invalid: GPUs out of range");
            continue;
        }
        assert_ok(rc, &e);
        for (size_t k = 0; k < n; k++)
            str_list_add(&uuids, got[k].uuid);
        AUTO_FREE char *all = str_list_join(&uuids, " ");
        assert_string_equal(all, gpusets[i].uuids);
        assert_int_equal(skips, gpusets[i].skipped);
    }
}

/* ---- placement ---- */

static const struct {
    const char *allowed, *used;
    unsigned n;
    int near;
    const char *cpus, *nodes; /* NULL: too few are free */
} choices[] = {
    {"0-15", "", 2, -1, "0,8", "0"},               /* the threads of one core */
    {"0-15", "", 2, 1, "4,12", "1"},               /* near a GPU */
    {"0-15", "0,8", 2, -1, "1,9", "0"},            /* the fuller node that still fits */
    {"0-15", "0-3,8-10", 4, -1, "4-5,12-13", "1"}, /* not the one CPU that is left there */
    {"0-15", "0", 1, -1, "8", "0"}, /* beside a core in use before a whole one is broken */
    {"0-15", "", 16, -1, "0-15", "0-1"},
    {"0-15", "", 9, -1, NULL, NULL}, /* checked apart: more than a node has */
    {"2,5", "", 2, -1, "2,5", "0-1"},
    {"2,5", "2", 2, -1, NULL, NULL},
    {"0-15", "0-15", 1, -1, NULL, NULL},
};

static void cpus_for_a_run(void **state UNUSED)
{
    AUTO(topology) struct topology t = {0};
    struct err e = ERR_INIT;

    read_topology(&t);
    for (size_t i = 0; i < ARRAY_SIZE(choices); i++) {
        struct cpu_set allowed = {0}, used = {0}, got, nodes;

        assert_ok(cpu_set_parse(choices[i].allowed, &allowed, &e), &e);
        assert_ok(cpu_set_parse(choices[i].used, &used, &e), &e);
        bool ok = placement_cpus(&t, &allowed, &used, choices[i].n, choices[i].near, &got, &nodes);
        if (choices[i].n == 9) {
            assert_true(ok);
            assert_int_equal(cpu_set_count(&got), 9);
            continue;
        }
        if (ok != (choices[i].cpus != NULL))
            fail_msg("case %zu: %d", i, ok);
        if (!ok)
            continue;
        AUTO_FREE char *cpus = cpu_set_text(&got);
        AUTO_FREE char *mems = cpu_set_text(&nodes);
        if (!str_eq(cpus, choices[i].cpus) || !str_eq(mems, choices[i].nodes))
            fail_msg("case %zu: %s of nodes %s", i, cpus, mems);
    }
}

/* Whatever comes and goes: sets are disjoint, within the allowed, and of the size asked for. */
static void sets_are_disjoint(void **state UNUSED)
{
    AUTO(topology) struct topology t = {0};
    struct cpu_set held[8] = {0}, used = {0}, nodes;
    unsigned seed = 12345;

    read_topology(&t);
    for (int step = 0; step < 20000; step++) {
        seed = seed * 1103515245 + 12345;
        struct cpu_set *h = &held[(seed >> 16) % 8];
        unsigned n = 1 + (seed >> 20) % 5;

        if (cpu_set_count(h)) {
            cpu_set_minus(&used, h);
            *h = (struct cpu_set){0};
            continue;
        }
        unsigned before = cpu_set_count(&used);
        if (!placement_cpus(&t, &t.affinity, &used, n, -1, h, &nodes)) {
            assert_true(16 - before < n);
            *h = (struct cpu_set){0};
            continue;
        }
        assert_int_equal(cpu_set_count(h), n);
        for (int cpu = cpu_set_next(h, 0); cpu >= 0; cpu = cpu_set_next(h, (unsigned)cpu + 1)) {
            assert_false(cpu_set_has(&used, (unsigned)cpu));
            cpu_set_add(&used, (unsigned)cpu);
        }
        assert_int_equal(cpu_set_count(&used), before + n);
    }
}

static void gpus_of_one_node(void **state UNUSED)
{
    const struct placement_gpu all[] = {
        {"a", 0, true}, {"b", 0, false}, {"c", 1, false}, {"d", 1, false}, {"e", -1, false}};
    size_t index[5] = {9, 9, 9, 9, 9};
    int node = 9;

    assert_true(placement_gpus(all, 5, 2, index, &node));
    assert_true(index[0] == 2 && index[1] == 3 && node == 1);
    assert_true(placement_gpus(all, 5, 1, index, &node)); /* the fuller node */
    assert_true(index[0] == 1 && node == 0);
    assert_true(placement_gpus(all, 5, 4, index, &node));
    assert_false(placement_gpus(all, 5, 5, index, &node));
    assert_true(placement_gpus(all, 5, 0, index, &node));
    assert_int_equal(node, -1);

    AUTO_FREE char *text = placement_shortage("0x1", "GPUs", 5, 4, 5);
    assert_string_equal(
        text, "Unexpectedly unable to assign enough resources to bundle 0x1: Requested more "
              "GPUs (5) than available (4 currently out of 5 on the machine)");
}

/* What is offered of the disk and of the memory: an int whatever happens. */
static void figures(void **state UNUSED)
{
    struct statvfs v;

    assert_int_equal(statvfs(top, &v), 0);
    int64_t room = (int64_t)v.f_bavail * (int64_t)v.f_frsize;
    int64_t told = usage_free_disk(top);
    assert_true(told > room / 2 && told < room * 2 + (1 << 20)); /* others write meanwhile */
    assert_true(usage_free_disk("/nonexistent/at/all") == 0);
    assert_true(topology_memory() > (64u << 20));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpuset_within_the_affinity),
        cmocka_unit_test(all_is_the_affinity_mask),
        cmocka_unit_test(gpuset),
        cmocka_unit_test(cpus_for_a_run),
        cmocka_unit_test(sets_are_disjoint),
        cmocka_unit_test(gpus_of_one_node),
        cmocka_unit_test(figures),
    };
    return cmocka_run_group_tests(tests, make_sysfs, remove_sysfs);
}
