/*
 * Control groups: paths and limits as values, then real groups with real processes.
 * needs: root cgroup2
 * rows: S40 S41 S48 S49
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"
#include "runtime/cgroup.h"
#include "runtime/cgroup_limits.h"
#include "runtime/devfilter.h"
#include "runtime/spec.h"
#include "tests/unit/test.h"

#define TOP "/cw-cgroup-test" TEST_VARIANT
#define NOTHING                        \
    {                                  \
        .memory_swap_limit = INT64_MIN \
    }

/* --- values ------------------------------------------------------------------------------------ */

static void paths(void **state UNUSED)
{
    static const struct {
        const char *given, *want; /* NULL: refused */
    } rows[] = {
        {"/a/b", "/a/b"},
        {"/a//b/", "/a/b"},
        {"/a/../b", NULL},
        {"/..", NULL},
        {"/", NULL},
        {"system.slice:cw:run1", "/system.slice/cw-run1.scope"},
        {"user-7-x.slice:cw:r", "/user.slice/user-7.slice/user-7-x.slice/cw-r.scope"},
        {":cw:r", "/system.slice/cw-r.scope"},
        {"a.slice:cw", NULL},
        {"notaslice:cw:r", NULL},
        {"a.slice:cw:", NULL},
        {"-a.slice:cw:r", NULL},
        {"a--b.slice:cw:r", NULL},
    };
    struct err e = ERR_INIT;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO_FREE char *got = NULL;
        int rc = ctr_cgroup_resolve(rows[i].given, "id", &got, &e);

        if (!rows[i].want) {
            if (rc == 0)
                fail_msg("%s: taken as %s", rows[i].given, got);
            assert_int_equal(e.kind, ERR_USER);
        } else {
            assert_ok(rc, &e);
            assert_string_equal(got, rows[i].want);
        }
    }
    AUTO_FREE char *none = NULL;

    assert_ok(ctr_cgroup_resolve(NULL, "the-id", &none, &e), &e);
    assert_true(str_ends(none, "/the-id"));
}

static void weights(void **state UNUSED)
{
    static const uint64_t rows[][2] = {{0, 0},      {1, 1},          {2, 1},
                                       {1024, 100}, {262144, 10000}, {1 << 30, 10000}};

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_int_equal(ctr_cgroup_weight_of_shares(rows[i][0]), rows[i][1]);
    for (uint64_t s = 2; s < 262144; s += 7) /* never goes down, never leaves the kernel's range */
        assert_in_range(ctr_cgroup_weight_of_shares(s), 1, ctr_cgroup_weight_of_shares(s + 7));
    for (uint64_t s = 3; s < 262144; s++) { /* the curve, by the C library's functions */
        double l = log2((double)s), weight = pow(10, (l * l + 125 * l) / 612.0 - 7.0 / 34.0);

        assert_in_range(ctr_cgroup_weight_of_shares(s), (uint64_t)ceil(weight - 1e-6),
                        (uint64_t)ceil(weight + 1e-6));
    }
    assert_int_equal(ctr_cgroup_io_weight_of_blkio(10), 1);
    assert_int_equal(ctr_cgroup_io_weight_of_blkio(1000), 10000);
    assert_int_equal(ctr_cgroup_io_weight_of_blkio(0), 0);
}

static void writes(void **state UNUSED)
{
    struct ctr_key_value unified[] = {{(char *)"memory.high", (char *)"1000"}};
    struct ctr_resources r = {.memory_limit = 4096,
                              .memory_swap_limit = 0,
                              .pids_limit = -1,
                              .cpu_shares = 1024,
                              .cpu_quota = 50000,
                              .cpuset_cpus = (char *)"0-1",
                              .unified = unified,
                              .n_unified = 1};
    static const char *const want[] = {
        "cpuset.cpus=0-1",      "memory.max=4096", "memory.swap.max=0", "cpu.weight=100",
        "cpu.max=50000 100000", "pids.max=max",    "memory.high=1000"};
    AUTO(ctr_cgroup_limits) struct ctr_cgroup_limits l = {0};
    struct err e = ERR_INIT;

    assert_ok(ctr_cgroup_limits_of(&r, &l, &e), &e);
    assert_int_equal(l.n, ARRAY_SIZE(want));
    for (size_t i = 0; i < l.n; i++) {
        AUTO_FREE char *got = mem_printf("%s=%s", l.items[i].file, l.items[i].value);

        assert_string_equal(got, want[i]);
    }
    assert_int_equal(l.controllers, CTR_CG_CPUSET | CTR_CG_MEMORY | CTR_CG_CPU | CTR_CG_PIDS);
    static const char *const bad[] = {"../x.y", "memory", "", "a/b.c", ".hidden"};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct ctr_cgroup_limits none = {0};

        unified[0].key = (char *)bad[i];
        assert_int_equal(ctr_cgroup_limits_of(&r, &none, &e), -1);
        assert_int_equal(e.kind, ERR_USER);
    }
}

/* --- groups -------------------------------------------------------------------------------------- */

static struct ctr_cgroup *make(const char *name, const struct ctr_resources *r)
{
    AUTO_FREE char *path = mem_printf(TOP "/%s", name);
    struct ctr_cgroup *cg = NULL;
    struct err e = ERR_INIT;

    assert_ok(ctr_cgroup_create(path, r, false, &cg, &e), &e);
    return cg;
}

static void drop(struct ctr_cgroup *cg)
{
    struct err e = ERR_INIT;

    assert_ok(ctr_cgroup_kill(cg, &e), &e);
    assert_ok(ctr_cgroup_wait_empty(cg, 20 * NS_PER_S, &e), &e);
    assert_ok(ctr_cgroup_remove(cg, &e), &e);
    assert_ok(ctr_cgroup_remove(cg, &e), &e); /* twice is fine */
    ctr_cgroup_free(cg);
}

static void assert_file(struct ctr_cgroup *cg, const char *file, const char *want)
{
    AUTO(str) struct str text = STR_INIT(4096);
    struct err e = ERR_INIT;

    assert_ok(fd_read_file_at(ctr_cgroup_fd(cg), file, &text, &e), &e);
    if (strncmp(str_text(&text), want, strlen(want)) != 0)
        fail_msg("%s: \"%s\" instead of \"%s\"", file, str_text(&text), want);
}

/* A process in the group that waits. */
static pid_t sleeper(struct ctr_cgroup *cg)
{
    struct err e = ERR_INIT;
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

    if (pid == 0)
        for (;;)
            pause();
    assert_true(pid > 0);
    assert_ok(ctr_cgroup_add_pid(cg, pid, &e), &e);
    return pid;
}

static void reap_killed(pid_t pid)
{
    int status = 0;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void limits_are_set(void **state UNUSED)
{
    struct ctr_key_value unified[] = {{(char *)"memory.high", (char *)"33554432"}};
    struct ctr_resources r = {.memory_limit = 64 << 20,
                              .memory_swap_limit = 0,
                              .pids_limit = 17,
                              .cpu_shares = 1024,
                              .cpu_quota = 50000,
                              .cpu_period = 200000,
                              .cpuset_cpus = (char *)"0",
                              .unified = unified,
                              .n_unified = 1};
    struct ctr_cgroup *cg = make("deep/er/limits", &r);
    struct err e = ERR_INIT;

    assert_file(cg, "memory.max", "67108864\n");
    assert_file(cg, "memory.high", "33554432\n");
    assert_file(cg, "memory.swap.max", "0\n");
    assert_file(cg, "memory.oom.group", "0\n"); /* DESIGN §5 */
    assert_file(cg, "pids.max", "17\n");
    assert_file(cg, "cpu.weight", "100\n");
    assert_file(cg, "cpu.max", "50000 200000\n");
    assert_file(cg, "cpuset.cpus.effective", "0\n");
    struct ctr_resources more = {.memory_limit = -1,
                                 .memory_swap_limit = INT64_MIN,
                                 .pids_limit = -1,
                                 .cpu_quota = 60000,
                                 .cpu_burst = 1000};

    assert_ok(ctr_cgroup_update(cg, &more, &e), &e);
    assert_file(cg, "memory.max", "max\n");
    assert_file(cg, "pids.max", "max\n");
    assert_file(cg, "cpu.max", "60000 100000\n");
    assert_file(cg, "cpu.max.burst", "1000\n");
    drop(cg);
}

static void refusals_leave_nothing(void **state UNUSED)
{
    struct ctr_key_value no_file[] = {{(char *)"memory.no_such", (char *)"1"}};
    const struct {
        struct ctr_resources r;
        const char *says;
    } rows[] = {
        {{.memory_swap_limit = INT64_MIN, .cpuset_cpus = (char *)"4000-4001"}, "cpuset.cpus"},
        {{.memory_swap_limit = INT64_MIN, .cpuset_cpus = (char *)"x"}, "cpuset.cpus"},
        {{.memory_swap_limit = INT64_MIN, .unified = no_file, .n_unified = 1}, "memory.no_such"},
        {{.memory_swap_limit = INT64_MIN, .memory_limit = -7}, "memory.max"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct ctr_cgroup *cg = NULL;
        struct err e = ERR_INIT;

        if (ctr_cgroup_create(TOP "/refused", &rows[i].r, false, &cg, &e) == 0)
            fail_msg("row %zu was taken", i);
        assert_has(e.msg, rows[i].says);
        assert_int_equal(ctr_cgroup_open(TOP "/refused", &cg, &e), -1);
        assert_int_equal(e.kind, ERR_ABSENT);
    }
}

/* A group that holds somebody is not taken over; an empty one of the same name is made anew. */
static void names_in_use(void **state UNUSED)
{
    static const struct ctr_resources nothing = NOTHING;
    struct ctr_cgroup *cg = make("used", &nothing), *other = NULL;
    struct err e = ERR_INIT;
    pid_t pid = sleeper(cg);

    assert_int_equal(ctr_cgroup_create(TOP "/used", &nothing, false, &other, &e), -1);
    assert_has(e.msg, "in use");
    assert_int_equal(kill(pid, 0), 0);
    assert_ok(ctr_cgroup_kill(cg, &e), &e);
    reap_killed(pid);
    assert_ok(ctr_cgroup_wait_empty(cg, 20 * NS_PER_S, &e), &e);
    assert_int_equal(mkdirat(ctr_cgroup_fd(cg), "sub", 0755), 0);
    assert_ok(ctr_cgroup_create(TOP "/used", &nothing, false, &other, &e), &e);
    assert_true(faccessat(ctr_cgroup_fd(other), "sub", F_OK, 0) < 0);
    ctr_cgroup_free(cg);
    drop(other);
}

static void freeze_kill_wait(void **state UNUSED)
{
    static const struct ctr_resources nothing = NOTHING;
    struct ctr_cgroup *cg = make("events", &nothing);
    struct err e = ERR_INIT;
    bool is = true;
    AUTO_FREE int *pids = NULL;
    size_t n = 0;

    assert_ok(ctr_cgroup_is_populated(cg, &is, &e), &e);
    assert_false(is);
    pid_t a = sleeper(cg);

    assert_ok(ctr_cgroup_is_populated(cg, &is, &e), &e);
    assert_true(is);
    assert_ok(ctr_cgroup_pids(cg, &pids, &n, &e), &e);
    assert_int_equal(n, 1);
    assert_int_equal(pids[0], a);
    assert_ok(ctr_cgroup_freeze(cg, true, 20 * NS_PER_S, &e), &e);
    assert_ok(ctr_cgroup_is_frozen(cg, &is, &e), &e);
    assert_true(is);
    assert_ok(ctr_cgroup_freeze(cg, false, 20 * NS_PER_S, &e), &e);
    assert_ok(ctr_cgroup_is_frozen(cg, &is, &e), &e);
    assert_false(is);
    /* what does not end within the time is told, with a name */
    assert_int_equal(ctr_cgroup_wait_empty(cg, NS_PER_MS, &e), -1);
    assert_int_equal(e.kind, ERR_LIMIT);
    AUTO_FREE char *name = mem_printf("process %d (", a);

    assert_has(e.msg, name);
    /* also when frozen, also in a sub-group */
    assert_int_equal(mkdirat(ctr_cgroup_fd(cg), "x", 0755), 0);
    assert_int_equal(mkdirat(ctr_cgroup_fd(cg), "x/y", 0755), 0);
    struct ctr_cgroup *sub = NULL;

    assert_ok(ctr_cgroup_open(TOP "/events/x/y", &sub, &e), &e);
    pid_t b = sleeper(sub);

    ctr_cgroup_free(sub);
    free(pids);
    pids = NULL;
    assert_ok(ctr_cgroup_pids(cg, &pids, &n, &e), &e);
    assert_int_equal(n, 2);
    assert_int_equal(ctr_cgroup_remove(cg, &e), -1); /* not while they live */
    assert_ok(ctr_cgroup_freeze(cg, true, 20 * NS_PER_S, &e), &e);
    assert_ok(ctr_cgroup_kill(cg, &e), &e);
    reap_killed(a);
    reap_killed(b);
    drop(cg);
}

static unsigned long long reads_so_far(void)
{
    AUTO(str) struct str text = STR_INIT(4096);
    struct err e = ERR_INIT;

    assert_ok(fd_read_file_at(AT_FDCWD, "/proc/self/io", &text, &e), &e);
    return strtoull(strstr(str_text(&text), "syscr: ") + strlen("syscr: "), NULL, 10);
}

static int descriptors(void)
{
    int n = 0;

    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* A thousand runs are looked at each second: a look is a read of each of twelve files that are held open, no more. */
static void figures_are_cheap(void **state UNUSED)
{
    enum { LOOKS = 1000, FILES = 12 };
    static const struct ctr_resources nothing = NOTHING;
    struct ctr_cgroup *cg = make("figures", &nothing);
    struct ctr_cgroup_stats st;
    struct err e = ERR_INIT;

    pid_t pid = sleeper(cg);
    assert_ok(ctr_cgroup_stats(cg, &st, &e), &e); /* opens them */
    int before = descriptors();
    unsigned long long reads = reads_so_far();
    uint64_t begin = clock_now_ns();
    for (int i = 0; i < LOOKS; i++)
        assert_ok(ctr_cgroup_stats(cg, &st, &e), &e);
    double us = (double)(clock_now_ns() - begin) / 1000 / LOOKS;
    reads = reads_so_far() - reads;
    printf("figures of a run: %.1f us, %llu reads for %d looks\n", us, reads, LOOKS);
    assert_true(reads <= LOOKS * FILES + 4);
    assert_int_equal(descriptors(), before);
    assert_int_equal(st.pids_current, 1);
    assert_ok(ctr_cgroup_kill(cg, &e), &e);
    reap_killed(pid);
    drop(cg);
}

static void gone_is_no_error(void **state UNUSED)
{
    static const struct ctr_resources nothing = NOTHING;
    struct ctr_cgroup *cg = make("gone", &nothing), *again = NULL;
    struct ctr_cgroup_stats st;
    struct err e = ERR_INIT;
    bool is = true;

    assert_ok(ctr_cgroup_open(TOP "/gone", &again, &e), &e);
    assert_ok(ctr_cgroup_stats(cg, &st, &e), &e);
    drop(again);
    assert_ok(ctr_cgroup_kill(cg, &e), &e);
    assert_ok(ctr_cgroup_wait_empty(cg, NS_PER_S, &e), &e);
    assert_ok(ctr_cgroup_is_populated(cg, &is, &e), &e);
    assert_false(is);
    assert_int_equal(ctr_cgroup_stats(cg, &st, &e), -1);
    assert_int_equal(e.kind, ERR_ABSENT);
    assert_ok(ctr_cgroup_remove(cg, &e), &e);
    ctr_cgroup_free(cg);
}

/* --- the device filter, by the kernel ------------------------------------------------------------------ */

enum { OPENED = 10, DENIED = 11, OTHER = 12 };

/* Inside the group: may this node be opened? */
static int try_node(struct ctr_cgroup *cg, const char *path)
{
    int status = 0, go[2];
    struct err e = ERR_INIT;

    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

    if (pid == 0) {
        char byte;

        close(go[1]);
        (void)!read(go[0], &byte, 1);
        int fd = open(path, O_RDONLY | O_CLOEXEC);

        _exit(fd >= 0 ? OPENED : errno == EPERM ? DENIED : OTHER);
    }
    assert_ok(ctr_cgroup_add_pid(cg, pid, &e), &e);
    close(go[0]);
    close(go[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void devices(void **state UNUSED)
{
    static const struct ctr_resources nothing = NOTHING;
    static const struct ctr_device_rule kmsg_too[] = {{false, 'a', -1, -1, "rwm"},
                                                      {true, 'c', 1, 11, "r"}};
    struct ctr_cgroup *cg = make("devices", &nothing);
    const char *tmp = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    AUTO_FREE char *kmsg = mem_printf("%s/kmsg-%d", tmp, getpid());
    AUTO_FREE char *mem = mem_printf("%s/mem-%d", tmp, getpid());
    struct err e = ERR_INIT;

    assert_int_equal(mknod(kmsg, S_IFCHR | 0600, makedev(1, 11)), 0);
    assert_int_equal(mknod(mem, S_IFCHR | 0600, makedev(1, 1)), 0);
    assert_int_equal(try_node(cg, kmsg), OPENED); /* before */
    assert_ok(ctr_devfilter_attach(ctr_cgroup_fd(cg), NULL, 0, false, &e), &e);
    assert_int_equal(ctr_devfilter_count(ctr_cgroup_fd(cg), &e), 1);
    assert_int_equal(try_node(cg, mem),
                     DENIED); /* a node of the container's own making is of no use */
    assert_int_equal(try_node(cg, kmsg), DENIED);
    assert_int_equal(try_node(cg, "/dev/null"), OPENED);
    assert_int_equal(try_node(cg, "/dev/urandom"), OPENED);
    /* replaced, not added to: a second filter could only narrow the first */
    assert_ok(ctr_devfilter_attach(ctr_cgroup_fd(cg), kmsg_too, ARRAY_SIZE(kmsg_too), false, &e),
              &e);
    assert_int_equal(ctr_devfilter_count(ctr_cgroup_fd(cg), &e), 1);
    assert_int_equal(try_node(cg, kmsg), OPENED);
    assert_int_equal(try_node(cg, mem), DENIED);
    assert_ok(ctr_devfilter_attach(ctr_cgroup_fd(cg), NULL, 0, true, &e), &e);
    assert_int_equal(try_node(cg, "/dev/null"), DENIED);
    assert_int_equal(unlink(mem), 0);
    assert_int_equal(unlink(kmsg), 0);
    drop(cg);
}

/* Another worker of the same subtree stops, and takes down the parent that seems to be nobody's: again and again. */
static void a_parent_that_is_taken_down(void **state UNUSED)
{
    enum { ROUNDS = 300, PAUSE_NS = 5000000 };
    static const struct ctr_resources nothing = NOTHING;
    pid_t other = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

    if (other == 0)
        for (prctl(PR_SET_PDEATHSIG, SIGKILL);;) {
            (void)!rmdir("/sys/fs/cgroup" TOP "/shared");
            nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
        }
    for (int i = 0; i < ROUNDS; i++) {
        struct ctr_cgroup *cg = make("shared/run", &nothing);
        struct err e = ERR_INIT;

        assert_ok(ctr_cgroup_remove(cg, &e), &e);
        ctr_cgroup_free(cg);
    }
    kill(other, SIGKILL);
    reap_killed(other);
}

/* Without them groups can be made but limits are not kept, and a test would wait for what never comes. */
static int check_host(void **state UNUSED)
{
    static const char *const wanted[] = {"cpuset", "cpu", "memory", "pids", "io"};
    AUTO(str) struct str text = STR_INIT(4096);
    AUTO(str_list) struct str_list have = {0};
    struct err e = ERR_INIT;
    int absent = 0;

    if (fd_read_file_at(AT_FDCWD, "/sys/fs/cgroup/cgroup.controllers", &text, &e) < 0) {
        print_error("this host has no unified cgroup hierarchy: %s\n", e.msg);
        return -1;
    }
    while (text.len && text.buf[text.len - 1] == '\n')
        text.buf[--text.len] = '\0';
    str_list_split(&have, str_text(&text), ' ');
    for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
        if (!str_list_has(&have, wanted[i])) {
            print_error("this host's cgroup2 lacks the controller %s\n", wanted[i]);
            absent++;
        }
    return absent ? -1 : 0;
}

static int remove_top(void **state UNUSED)
{
    AUTO(ctr_cgroup) struct ctr_cgroup *cg = NULL;
    struct err e = ERR_INIT;

    if (ctr_cgroup_open(TOP, &cg, &e) == 0 && ctr_cgroup_remove(cg, &e) < 0)
        fail_msg("%s", e.msg);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths),
        cmocka_unit_test(weights),
        cmocka_unit_test(writes),
        cmocka_unit_test(limits_are_set),
        cmocka_unit_test(refusals_leave_nothing),
        cmocka_unit_test(names_in_use),
        cmocka_unit_test(freeze_kill_wait),
        cmocka_unit_test(a_parent_that_is_taken_down),
        cmocka_unit_test(figures_are_cheap),
        cmocka_unit_test(gone_is_no_error),
        cmocka_unit_test(devices),
    };

    return cmocka_run_group_tests(tests, check_host, remove_top);
}
