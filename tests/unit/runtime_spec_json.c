/*
 * config.json ⇄ spec: what is read, what is refused, and that writing and reading again changes nothing.
 */
#include "base/mem.h"
#include "runtime/idmap.h"
#include "runtime/names.h"
#include "runtime/spec.h"
#include "runtime/spec_json.h"
#include "tests/unit/test.h"

static struct ctr_spec *must_read(const char *text)
{
    struct ctr_spec *s = NULL;
    struct err e = ERR_INIT;

    assert_ok(ctr_spec_from_json(text, strlen(text), &s, &e), &e);
    return s;
}

static void test_full_document_round_trips(void **state)
{
    static const char text[] =
        "{\"ociVersion\":\"1.3.0\",\"hostname\":\"h\",\"domainname\":\"d\",\"root\":{\"path\":\"r\",\"readonly\":true},"
        "\"process\":{\"terminal\":true,\"consoleSize\":{\"height\":24,\"width\":80},\"args\":[\"a\",\"\"],\"env\":[\"A=b=c\"],\"cwd\":\"/w\","
        "\"user\":{\"uid\":5,\"gid\":6,\"umask\":63,\"additionalGids\":[7,8]},\"noNewPrivileges\":true,"
        "\"capabilities\":{\"bounding\":[\"CAP_CHOWN\",\"CAP_KILL\"],\"ambient\":[\"CAP_KILL\"]},"
        "\"rlimits\":[{\"type\":\"RLIMIT_NOFILE\",\"soft\":1,\"hard\":18446744073709551615}],\"oomScoreAdj\":-7,"
        "\"apparmorProfile\":\"p\",\"selinuxLabel\":\"l\",\"ioPriority\":{\"class\":\"IOPRIO_CLASS_BE\",\"priority\":3},"
        "\"scheduler\":{\"policy\":\"SCHED_BATCH\",\"nice\":5,\"flags\":[\"SCHED_FLAG_RESET_ON_FORK\"]},\"execCPUAffinity\":{\"initial\":\"0\",\"final\":\"0-1\"}},"
        "\"mounts\":[{\"destination\":\"data\",\"source\":\"/d\",\"options\":[\"rbind\",\"ro\"],"
        "\"uidMappings\":[{\"containerID\":0,\"hostID\":5,\"size\":1}],\"gidMappings\":[{\"containerID\":0,\"hostID\":6,\"size\":1}]}],"
        "\"hooks\":{\"poststop\":[{\"path\":\"/bin/true\",\"timeout\":3}]},\"annotations\":{\"k\":\"v\"},"
        "\"linux\":{\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"time\"},{\"type\":\"network\",\"path\":\"/n\"}],"
        "\"devices\":[{\"path\":\"/dev/x\",\"type\":\"c\",\"major\":1,\"minor\":3,\"fileMode\":438,\"uid\":1,\"gid\":2}],"
        "\"sysctl\":{\"net.ipv4.ip_forward\":\"1\"},\"maskedPaths\":[\"/m\"],\"readonlyPaths\":[\"/o\"],\"cgroupsPath\":\"/c\","
        "\"rootfsPropagation\":\"rslave\",\"personality\":{\"domain\":\"LINUX32\"},"
        "\"timeOffsets\":{\"monotonic\":{\"secs\":-5,\"nanosecs\":9},\"boottime\":{\"secs\":5}},"
        "\"seccomp\":{\"defaultAction\":\"SCMP_ACT_ALLOW\"},"
        "\"resources\":{\"memory\":{\"limit\":1000,\"swap\":3000,\"reservation\":5},\"cpu\":{\"shares\":512,\"quota\":-1,\"period\":100,"
        "\"burst\":1,\"idle\":1,\"cpus\":\"0\",\"mems\":\"0\"},\"pids\":{\"limit\":9},"
        "\"blockIO\":{\"weight\":100,\"throttleReadBpsDevice\":[{\"major\":8,\"minor\":0,\"rate\":5},{\"major\":8,\"minor\":16,\"rate\":6}]},"
        "\"hugepageLimits\":[{\"pageSize\":\"2MB\",\"limit\":4}],\"rdma\":{\"mlx5\":{\"hcaHandles\":3}},"
        "\"unified\":{\"memory.high\":\"7\"},\"devices\":[{\"allow\":false,\"access\":\"rwm\"},{\"allow\":true,\"type\":\"c\",\"major\":1,\"access\":\"r\"}]}}}";
    AUTO(ctr_spec) struct ctr_spec *s = must_read(text);
    AUTO_FREE char *first = ctr_spec_to_json(s);
    AUTO(ctr_spec) struct ctr_spec *again = must_read(first);
    AUTO_FREE char *second = ctr_spec_to_json(again);

    (void)state;
    assert_string_equal(first, second);
    assert_string_equal(s->mounts[0].destination, "/data");
    assert_string_equal(s->mounts[0].type, "bind");
    assert_int_equal(s->resources.memory_swap_limit, 2000);
    assert_int_equal(again->resources.memory_swap_limit, 2000);
    assert_true(again->process.rlimits[0].hard == UINT64_MAX);
    assert_int_equal(again->resources.n_unified, s->resources.n_unified);
    assert_int_equal(again->process.io_priority, 2 << 13 | 3);
    assert_int_equal(again->time_monotonic.secs, -5);
    assert_has(first, "8:0 rbps=5\\n8:16 rbps=6");
}

static void test_extras_round_trip(void **state)
{
    AUTO(ctr_spec) struct ctr_spec *s = ctr_spec_new();

    (void)state;
    str_list_add(&s->overlay_lower, "/layers/\"a\"");
    str_list_add(&s->overlay_lower, "/layers/b,c:d");
    s->overlay_dir = mem_strdup("/o");
    s->process.cwd = mem_strdup("/");
    s->process.user_name = mem_strdup("alice");
    str_list_add(&s->process.args, "x");
    s->init = true;
    ctr_spec_isolate(s, 1 << 20, 100000);
    AUTO_FREE char *text = ctr_spec_to_json(s);
    AUTO(ctr_spec) struct ctr_spec *again = must_read(text);
    struct err e = ERR_INIT;

    assert_ok(ctr_spec_validate(again, &e), &e);
    assert_int_equal(again->overlay_lower.n, 2);
    assert_string_equal(again->overlay_lower.items[0], "/layers/\"a\"");
    assert_string_equal(again->overlay_dir, "/o");
    assert_string_equal(again->process.user_name, "alice");
    assert_true(again->init && again->default_seccomp && again->userns_optional &&
                !again->sealed_env);
    assert_true(again->process.caps.bounding == s->process.caps.bounding);
    AUTO_FREE char *same = ctr_spec_to_json(again);

    assert_string_equal(text, same);
}

/* Honoured or refused by name, never ignored. */
static void test_refused(void **state)
{
    static const struct {
        const char *json, *says;
    } rows[] = {
        {"{\"ociVersion\":\"2.0.0\"}", "ociVersion"},
        {"{\"ociVersion\":\"1.4.0\"}", "ociVersion"},
        {"{}", "ociVersion"},
        {"[]", "not an object"},
        {"{\"ociVersion\":\"1.0.0\",\"windows\":{\"x\":1}}", "windows"},
        {"{\"ociVersion\":\"1.0.0\",\"linux\":{\"intelRdt\":{\"closID\":\"..\"}}}", "closID"},
        {"{\"ociVersion\":\"1.3.0\",\"linux\":{\"netDevices\":{\"a-name-far-too-long\":{}}}}",
         "netDevices"},
        {"{\"ociVersion\":\"1.0.0\",\"linux\":{\"resources\":{\"memory\":{\"swappiness\":60}}}}",
         "swappiness"},
        {"{\"ociVersion\":\"1.0.0\",\"linux\":{\"resources\":{\"memory\":{\"disableOOMKiller\":true}}}}",
         "disableOOMKiller"},
        {"{\"ociVersion\":\"1.0.0\",\"linux\":{\"resources\":{\"memory\":{\"swap\":5}}}}", "swap"},
        {"{\"ociVersion\":\"1.0.0\",\"linux\":{\"resources\":{\"network\":{\"classID\":5}}}}",
         "classID"},
        {"{\"ociVersion\":\"1.0.0\",\"linux\":{\"resources\":{\"cpu\":{\"realtimeRuntime\":5}}}}",
         "realtimeRuntime"},
        {"{\"ociVersion\":\"1.0.0\",\"linux\":{\"timeOffsets\":{\"monotonic\":{\"secs\":1}}}}",
         "time namespace"},
        {"{\"ociVersion\":\"1.0.0\",\"process\":{\"capabilities\":{\"bounding\":[\"CAP_X\"]}}}",
         "CAP_X"},
        {"{\"ociVersion\":\"1.0.0\",\"process\":{\"user\":{\"uid\":-1}}}", "uid"},
        {"{\"ociVersion\":\"1.0.0\",\"process\":{\"user\":{\"uid\":4294967296}}}", "uid"},
        {"{\"ociVersion\":\"1.0.0\",\"process\":{\"scheduler\":{\"policy\":\"SCHED_X\"}}}",
         "scheduler"},
        {"{\"ociVersion\":\"1.0.0\",\"hooks\":{\"prestart\":[{\"path\":\"relative\"}]}}",
         "hooks.prestart[0]"},
        {"{\"ociVersion\":\"1.0.0\"} x", "config.json"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct ctr_spec *s = NULL;
        struct err e = ERR_INIT;

        if (ctr_spec_from_json(rows[i].json, strlen(rows[i].json), &s, &e) == 0)
            fail_msg("accepted: %s", rows[i].json);
        assert_has(e.msg, rows[i].says);
    }
}

/* Unknown properties must not be errors (runtime-spec config.md "Extensibility"); nothing said is nothing refused. */
static void test_tolerated(void **state)
{
    AUTO(ctr_spec)
    struct ctr_spec *s = must_read(
        "{\"ociVersion\":\"1.1.0-rc.2\",\"futureThing\":{},\"hostname\":\"\",\"windows\":null,"
        "\"linux\":{\"resources\":{\"memory\":{\"disableOOMKiller\":false,\"kernel\":0}},\"x\":1}}");

    (void)state;
    assert_null(s->hostname);
    assert_false(s->has_process);
}

static void test_validate(void **state)
{
    static const struct {
        const char *json, *says;
    } rows[] = {
        {"\"process\":{\"args\":[],\"cwd\":\"/\"}", "args"},
        {"\"process\":{\"args\":[\"a\"],\"cwd\":\"x\"}", "cwd"},
        {"\"process\":{\"args\":[\"a\"],\"cwd\":\"/\",\"env\":[\"x\"]}", "env[0]"},
        {"\"process\":{\"args\":[\"a\"],\"cwd\":\"/\",\"rlimits\":[{\"type\":\"RLIMIT_X\",\"soft\":1,\"hard\":1}]}",
         "RLIMIT_X"},
        {"\"process\":{\"args\":[\"a\"],\"cwd\":\"/\",\"rlimits\":[{\"type\":\"RLIMIT_CPU\",\"soft\":2,\"hard\":1}]}",
         "soft"},
        {"\"mounts\":[{\"destination\":\"/proc/self\",\"type\":\"tmpfs\"}]", "below /proc"},
        {"\"mounts\":[{\"destination\":\"/x\",\"type\":\"bind\"}]", "source"},
        {"\"linux\":{\"namespaces\":[{\"type\":\"user\"}]}", "mount namespace"},
        {"\"linux\":{\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"mount\"}]}", "twice"},
        {"\"linux\":{\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"bogus\"}]}", "bogus"},
        {"\"linux\":{\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"user\"}]}", "uidMappings"},
        {"\"linux\":{\"namespaces\":[{\"type\":\"mount\"}],\"sysctl\":{\"kernel.panic\":\"1\"}}",
         "kernel.panic"},
        {"\"linux\":{\"namespaces\":[{\"type\":\"mount\"}],\"sysctl\":{\"net.x\":\"1\"}}",
         "network namespace"},
        {"\"linux\":{\"namespaces\":[{\"type\":\"mount\"}],\"maskedPaths\":[\"x\"]}",
         "maskedPaths"},
        {"\"linux\":{\"namespaces\":[{\"type\":\"mount\"}]},\"hostname\":\"x\"", "hostname"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO_FREE char *text =
            mem_printf("{\"ociVersion\":\"1.0.0\",\"root\":{\"path\":\"r\"}%s,%s}",
                       strstr(rows[i].json, "\"linux\"")
                           ? ""
                           : ",\"linux\":{\"namespaces\":[{\"type\":\"mount\"}]}",
                       rows[i].json);
        AUTO(ctr_spec) struct ctr_spec *s = must_read(text);
        struct err e = ERR_INIT;

        if (ctr_spec_validate(s, &e) == 0)
            fail_msg("accepted: %s", text);
        assert_has(e.msg, rows[i].says);
    }
}

static void test_signals(void **state)
{
    static const struct {
        const char *text;
        int want; /* -1: refused */
    } rows[] = {{"9", 9},      {"KILL", 9},        {"SIGKILL", 9},  {"sigterm", 15},
                {"RTMIN", 34}, {"SIGRTMIN+3", 37}, {"RTMAX-1", 63}, {"0", 0},
                {"65", -1},    {"-1", -1},         {"SIG", -1},     {"RTMIN+31", -1},
                {"", -1}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct err e = ERR_INIT;
        int sig = -1;

        assert_int_equal(ctr_names_signal(rows[i].text, &sig, &e), rows[i].want < 0 ? -1 : 0);
        assert_int_equal(sig, rows[i].want);
    }
}

/* The owner's id on disk and the user's inside change places; every other id keeps its own. */
static void test_exchange(void **state)
{
    static const uint32_t pairs[][2] = {{1000, 0},  {0, 1000},  {5, 5}, {65535, 0},
                                        {0, 65535}, {70000, 3}, {1, 2}};
    struct ctr_idmap item = {0, 100000, 65536};
    struct ctr_idmaps container = {&item, 1};

    (void)state;
    for (size_t p = 0; p < ARRAY_SIZE(pairs); p++) {
        uint32_t owner = pairs[p][0], user = pairs[p][1];
        struct ctr_idmaps m;

        idmap_exchange(&container, owner, user, &m);
        assert_int_equal(idmap_host_id(&m, owner), 100000 + user);
        for (uint32_t id = 0; id < 65536; id += 13)
            if (id != owner && id != user)
                assert_int_equal(idmap_host_id(&m, id), 100000 + id);
        int64_t want = owner < 65536 ? 100000 + (int64_t)owner : -1;

        assert_true(idmap_host_id(&m, user) == want);
        free(m.items);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_document_round_trips),
        cmocka_unit_test(test_extras_round_trip),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_tolerated),
        cmocka_unit_test(test_validate),
        cmocka_unit_test(test_signals),
        cmocka_unit_test(test_exchange),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
