/*
 * The plans of typical specs against tests/fixtures/plans/NAME.plan: the order of a launch is reviewed in a diff.
 * CW_UPDATE=1 writes the files anew. rows: S32 S33 S34 S36 S38 S39
 */
#include <fcntl.h>
#include <stdlib.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/str.h"
#include "base/tree.h"
#include "runtime/mounts.h"
#include "runtime/plan.h"
#include "runtime/seccomp.h"
#include "runtime/spec.h"
#include "runtime/user.h"
#include "tests/unit/test.h"

static struct ctr_spec *bundle(uint32_t first_id)
{
    struct ctr_spec *s = ctr_spec_new();

    str_list_add(&s->overlay_lower, "/layers/a");
    s->overlay_dir = mem_strdup("/overlay");
    s->process.cwd = mem_strdup("/0x1");
    str_list_add(&s->process.args, "/bin/bash");
    str_list_add(&s->process.args, "-c");
    str_list_add(&s->process.args, "true");
    str_list_add(&s->process.env, "PATH=/bin");
    s->init = true;
    ctr_spec_add_mount(s, "/0x1", "bind", "/runs/0x1",
                       first_id ? "rbind,x-cworker.owner" : "rbind");
    ctr_spec_add_mount(s, "/0x1_dependencies/d", "bind", "/deps/d",
                       first_id ? "rbind,rro,idmap" : "rbind,rro");
    ctr_spec_isolate(s, 1 << 30, first_id);
    /* what the host allows would show */
    while (s->process.n_rlimits)
        free(s->process.rlimits[--s->process.n_rlimits].type);
    ctr_spec_add_rlimit(s, "RLIMIT_NOFILE", 1024, 4096);
    return s;
}

static void compare(const char *name, const struct ctr_spec *s, bool userns)
{
    AUTO(launch_plan) struct launch_plan *p = NULL;
    struct sock_filter *some = (struct sock_filter *)(uintptr_t)1;
    struct ctr_seccomp filter = {.insns = some, .n = 1};
    struct ctr_user user = {.uid = 0, .gid = 0, .home = (char *)"/root"};
    struct plan_input in = {.user = &user, .seccomp = &filter, .user_namespace = userns};
    struct err e = ERR_INIT;
    const char *top = getenv("CW_TOP");
    AUTO_FREE char *path = mem_printf("%s/tests/fixtures/plans/%s.plan", top ? top : ".", name);
    AUTO(str) struct str want = STR_INIT(1 << 20);

    assert_ok(plan_build(s, &in, &p, &e), &e);
    AUTO_FREE char *got = plan_text(p);
    AUTO_CLOSE int fd = open(
        path, getenv("CW_UPDATE") ? O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC : O_RDONLY | O_CLOEXEC,
        0644);

    if (fd < 0)
        fail_msg("%s is missing", path);
    if (getenv("CW_UPDATE")) {
        assert_int_equal(fd_write_all(fd, got, strlen(got)), 0);
        return;
    }
    assert_ok(fd_read_all(fd, &want, &e), &e);
    assert_string_equal(got, str_text(&want));
}

static void test_bundle(void **state)
{
    AUTO(ctr_spec) struct ctr_spec *s = bundle(100000);

    (void)state;
    compare("bundle", s, true);
}

/* The same where ids cannot be mapped. */
static void test_bundle_without_userns(void **state)
{
    AUTO(ctr_spec) struct ctr_spec *s = bundle(100000);

    (void)state;
    compare("bundle-no-userns", s, false);
}

static void test_everything(void **state)
{
    AUTO(ctr_spec) struct ctr_spec *s = bundle(0);

    (void)state;
    s->init = false;
    s->process.no_new_privileges = false;
    s->process.terminal = true;
    s->process.console_rows = 24;
    s->process.console_columns = 80;
    s->process.has_oom_score_adj = true;
    s->process.oom_score_adj = 500;
    s->process.apparmor_profile = mem_strdup("profile");
    s->process.has_umask = true;
    s->process.umask = 077;
    s->root_readonly = true;
    s->rootfs_propagation = mem_strdup("rslave");
    s->sysctl = mem_zalloc(sizeof(*s->sysctl));
    s->sysctl[s->n_sysctl++] =
        (struct ctr_key_value){mem_strdup("net.ipv4.conf.eth0/1.forwarding"), mem_strdup("1")};
    ctr_spec_add_mount(s, "/ro", "tmpfs", "tmpfs", "ro,size=1m");
    ctr_spec_add_device(s, &(struct ctr_device){.path = (char *)"/dev/fuse",
                                                .type = 'c',
                                                .major = 10,
                                                .minor = 229,
                                                .file_mode = 0600,
                                                .uid = 1});
    compare("everything", s, false);
}

static size_t position(const struct launch_plan *p, enum launch_op_kind kind)
{
    for (size_t i = 0; i < p->n_ops; i++)
        if (p->ops[i].kind == kind)
            return i;
    fail_msg("no %s", plan_op_name(kind));
    return 0;
}

/* What must come before what, whatever else is in the plan. */
static void test_order(void **state)
{
    static const enum launch_op_kind order[][2] = {
        {OP_WAIT_MAPS, OP_NEW_CGROUP_NS},
        {OP_NEW_FS, OP_ENTER_ROOT},
        {OP_ENTER_ROOT, OP_ATTACH},
        {OP_ATTACH, OP_READONLY},
        {OP_READONLY, OP_CHDIR},
        {OP_BOUNDING, OP_UID},
        {OP_GROUPS, OP_GID},
        {OP_GID, OP_UID},
        {OP_UID, OP_CAPS},
        {OP_CAPS, OP_NO_NEW_PRIVS},
        {OP_CLOSE, OP_READY},
        {OP_NO_NEW_PRIVS, OP_SECCOMP},
        {OP_WAIT_START, OP_SECCOMP},
        {OP_SECCOMP, OP_EXEC},
    };
    AUTO(ctr_spec) struct ctr_spec *s = bundle(100000);
    AUTO(launch_plan) struct launch_plan *p = NULL;
    struct ctr_seccomp filter = {.insns = (struct sock_filter *)(uintptr_t)1, .n = 1};
    struct ctr_user user = {.home = (char *)"/"};
    struct plan_input in = {.user = &user, .seccomp = &filter, .user_namespace = true};
    struct err e = ERR_INIT;

    (void)state;
    assert_ok(plan_build(s, &in, &p, &e), &e);
    for (size_t i = 0; i < ARRAY_SIZE(order); i++)
        if (position(p, order[i][0]) >= position(p, order[i][1]))
            fail_msg("%s must come before %s", plan_op_name(order[i][0]),
                     plan_op_name(order[i][1]));
    assert_int_equal(p->ops[p->n_ops - 1].kind, OP_EXEC);
}

static void test_bad_options(void **state)
{
    static const char *const bad[] = {"rbind,tmpcopyup", "rbind,idmap", "rbind,x-cworker.owner"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        AUTO(ctr_spec) struct ctr_spec *s = bundle(0);
        AUTO(launch_plan) struct launch_plan *p = NULL;
        struct ctr_user user = {.home = (char *)"/"};
        struct plan_input in = {.user = &user};
        struct err e = ERR_INIT;

        ctr_spec_add_mount(s, "/x", "bind", "/y", bad[i]);
        assert_int_equal(plan_build(s, &in, &p, &e), -1);
        assert_has(e.msg, "/x");
    }
}

/* A bind passes over options of file systems, as mount(2) does, but it is said. */
static void test_options_of_no_effect(void **state)
{
    AUTO(ctr_spec) struct ctr_spec *s = ctr_spec_new();

    (void)state;
    assert_null(mounts_option_of_no_effect(
        ctr_spec_add_mount(s, "/x", "bind", "/y", "rbind,ro,rslave,noatime,defaults")));
    assert_string_equal(
        mounts_option_of_no_effect(ctr_spec_add_mount(s, "/x", "bind", "/y", "rbind,size=5m")),
        "size=5m");
    assert_null(
        mounts_option_of_no_effect(ctr_spec_add_mount(s, "/x", "tmpfs", "tmpfs", "size=5m,sync")));
}

/* GHSA-jq35-85cj-fj4p */
static void test_thermal_counters_are_masked(void **state UNUSED)
{
    static const char *const cpus[] = {"cpu0", "cpu17"};
    AUTO(ctr_spec) struct ctr_spec *s = ctr_spec_new();
    char sys[] = "/tmp/cw-sys-XXXXXX";
    struct err e = ERR_INIT;

    assert_non_null(mkdtemp(sys));
    for (size_t i = 0; i < ARRAY_SIZE(cpus); i++) {
        AUTO_FREE char *dir = mem_printf("%s/devices/system/cpu/%s/thermal_throttle", sys, cpus[i]);
        assert_ok(path_mkdirs(dir, 0755, &e), &e);
    }
    ctr_spec_mask_thermal(s, sys);
    assert_int_equal(s->masked_paths.n, 2);
    assert_true(str_list_has(&s->masked_paths, "/sys/devices/system/cpu/cpu17/thermal_throttle"));
    assert_ok(tree_remove_at(AT_FDCWD, sys, &e), &e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bundle),
        cmocka_unit_test(test_bundle_without_userns),
        cmocka_unit_test(test_everything),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_options_of_no_effect),
        cmocka_unit_test(test_thermal_counters_are_masked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
