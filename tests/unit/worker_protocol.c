/*
 * Messages in and check-ins out.
 * rows: B021 B022 B023 B027 B030 B031 B032 B033 B034 B044 B045 B046 B048 B051 B052 B061 B062 B087 S57
 */
#include "base/bounds.h"
#include "base/mem.h"
#include "test.h"
#include "worker/protocol.h"

#define UUID "0x0123456789abcdef0123456789abcdef"
#define RUN_HEAD                                     \
    "{\"type\":\"run\",\"bundle\":{\"uuid\":\"" UUID \
    "\",\"command\":\"true\",\"metadata\":{},\"dependencies\":[]"
#define RUN_TAIL \
    "},\"resources\":{\"cpus\":1,\"gpus\":0,\"docker_image\":\"a:b\",\"time\":60.9,\"memory\":4194304,\"disk\":0,\"network\":true}}"
#define RUN  RUN_HEAD RUN_TAIL
#define KILL "{\"type\":\"kill\",\"uuid\":\"" UUID "\"}"

static cJSON *parse(const char *text)
{
    struct err e = ERR_INIT;
    cJSON *v = NULL;

    assert_ok(json_parse(text, strlen(text), &v, &e), &e);
    return v;
}

static struct action *read_text(const char *text, struct str_list *notes)
{
    AUTO(cJSON) cJSON *v = parse(text);
    struct action *list = NULL;

    protocol_read_actions(v, &list, notes);
    return list;
}

/* How many actions and how many complaints each answer gives. */
static const struct {
    const char *text;
    unsigned actions, notes;
} answers[] = {
    {"[null]", 0, 0},
    {"[]", 0, 0},
    {KILL, 1, 0},
    {"[" KILL ",null," KILL "]", 2, 0},
    {"[{\"type\":\"dance\",\"uuid\":\"" UUID "\"}," KILL "]", 1, 1},
    {"[{\"type\":\"kill\",\"uuid\":\"../../etc\"}," KILL "]", 1, 1},
    {"[{\"type\":\"kill\"}," KILL "]", 1, 1},
    {"[7,\"x\",[]," KILL "]", 1, 3},
    {"[{\"type\":\"mark_finalized\",\"uuid\":\"" UUID "\",\"future\":{\"a\":1}}]", 1, 0},
    {"[{\"type\":\"write\",\"uuid\":\"" UUID "\",\"subpath\":\"m\",\"string\":\"x\"}]", 1, 0},
    {"[{\"type\":\"write\",\"uuid\":\"" UUID "\",\"subpath\":\"m\"}]", 0, 1},
    {"[{\"type\":\"netcat\",\"uuid\":\"" UUID "\",\"socket_id\":1,\"port\":80,\"message\":\"x\"}]",
     1, 0},
    {"[{\"type\":\"netcat\",\"uuid\":\"" UUID
     "\",\"socket_id\":1.5,\"port\":80,\"message\":\"x\"}]",
     0, 1},
    {"[{\"type\":\"read\",\"uuid\":\"" UUID
     "\",\"socket_id\":1,\"path\":\"\",\"read_args\":{\"type\":\"x\"}}]",
     1, 0},
    {"[{\"type\":\"read\",\"uuid\":\"" UUID "\",\"socket_id\":1,\"path\":\"\",\"read_args\":7}]", 0,
     1},
    {"[" RUN "]", 1, 0},
    {"[" RUN_HEAD "},\"resources\":{\"docker_image\":\"a:b\"}}]", 0, 1},
};

static void answers_are_read_element_by_element(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
        AUTO(str_list) struct str_list notes = {0};
        struct action *list = read_text(answers[i].text, &notes);
        unsigned n = 0;

        for (struct action *a = list; a; a = a->next)
            n++;
        if (n != answers[i].actions || notes.n != answers[i].notes)
            fail_msg("%s: %u actions, %zu notes", answers[i].text, n, notes.n);
        action_list_free(list);
    }
}

static void a_run_message_is_read_whole(void **state)
{
    (void)state;
    AUTO(str_list) struct str_list notes = {0};
    struct action *a = read_text(
        "[{\"type\":\"run\",\"bundle\":{\"uuid\":\"" UUID "\",\"command\":\"python x.py\","
        "\"metadata\":{\"exclude_patterns\":[\"a\",\"b*\"],\"store\":null,\"other\":1},"
        "\"dependencies\":[{\"parent_name\":null,\"parent_path\":\"train\",\"parent_uuid\":\"" UUID
        "\",\"child_path\":\"data\",\"location\":null}],\"location\":null},"
        "\"resources\":{\"cpus\":2,\"gpus\":1,\"docker_image\":\"python:3\",\"time\":3600.5,\"memory\":2147483648,"
        "\"disk\":-5,\"network\":false,\"tag\":\"\",\"runs_left\":null}}]",
        &notes);

    assert_non_null(a);
    const struct bundle *b = a->bundle;
    assert_int_equal(a->type, ACTION_RUN);
    assert_string_equal(b->command, "python x.py");
    assert_int_equal(b->n_deps, 1);
    assert_string_equal(b->deps[0].child_path, "data");
    assert_string_equal(b->deps[0].parent_path, "train");
    assert_null(b->deps[0].location);
    assert_int_equal(b->exclude_patterns.n, 2);
    assert_string_equal(b->store, ""); /* B062 */
    assert_int_equal(b->time_s, 3600); /* B061 */
    assert_int_equal(b->disk, -5);
    assert_int_equal(b->cpus, 2);
    assert_int_equal(b->gpus, 1);
    assert_int_equal(b->memory, 2147483648LL);
    assert_false(b->network);
    action_list_free(a);
}

static void a_kill_has_a_message(void **state)
{
    (void)state;
    AUTO(str_list) struct str_list notes = {0};
    struct action *a = read_text("[" KILL ",{\"type\":\"kill\",\"uuid\":\"" UUID
                                 "\",\"kill_message\":\"Kill requested: q\"}]",
                                 &notes);

    assert_string_equal(a->kill_message, "Kill requested");
    assert_string_equal(a->next->kill_message, "Kill requested: q");
    action_list_free(a);
}

static const struct {
    const char *key;
    bool ok;
} keys[] = {
    {"a", true},        {"a/b", true},      {".", true},
    {"./", true},       {"./a", true},      {"a.b", true},
    {"...", true},      {"/foo/bar", true}, {"", false},
    {"..", false},      {"a/..", false},    {"a/../b", false},
    {"../a", false},    {"/..", false},     {"/", false},
    {"//", false},      {"/proc", false},   {"/proc/self", false},
    {"/sys/x", false},  {"/dev", false},    {"/./dev/null", false},
    {"/process", true}, {"/device", true},  {"/" UUID, false},
    {"a/", true},       {"a//b", true},
};

static void keys_that_leave_the_bundle_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        struct err e = ERR_INIT;
        if ((protocol_check_child_path(keys[i].key, &e) == 0) != keys[i].ok)
            fail_msg("key \"%s\": %s", keys[i].key, keys[i].ok ? e.msg : "accepted");
    }
}

static const char *raw(const cJSON *o, const char *key)
{
    static char text[4096];
    char *s = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(o, key));

    snprintf(text, sizeof(text), "%s", s ? s : "(missing)");
    free(s);
    return text;
}

static struct run_report report(void)
{
    return (struct run_report){.uuid = UUID,
                               .run_status = "Running",
                               .state = "running",
                               .remote = "host(1)",
                               .bundle_start_time = 1700000000.5,
                               .cpu_usage = -1,
                               .memory_usage = 0.5,
                               .disk_utilization = 8214,
                               .times = {{1700000000.5, 1700000003}}};
}

static void a_checkin_has_all_fields_with_their_types(void **state)
{
    (void)state;
    static const char *const expected[][2] = {
        {"tag", "null"},
        {"group_name", "null"},
        {"cpus", "8"},
        {"gpus", "0"},
        {"memory_bytes", "67430486016"},
        {"free_disk_bytes", "812034637824"},
        {"dependencies", "[]"},
        {"hostname", "\"node7\""},
        {"shared_file_system", "false"},
        {"tag_exclusive", "false"},
        {"exit_after_num_runs", "999999999"},
        {"is_terminating", "false"},
        {"preemptible", "true"},
    };
    static const char *const of_run[][2] = {
        {"uuid", "\"" UUID "\""},
        {"run_status", "\"Running\""},
        {"bundle_start_time", "1700000000.5"},
        {"container_time_total", "0"},
        {"docker_image", "null"},
        {"state", "\"running\""},
        {"remote", "\"host(1)\""},
        {"exitcode", "null"},
        {"failure_message", "null"},
        {"cpu_usage", "null"},
        {"memory_usage", "0.5"},
        {"disk_utilization", "8214"},
        {"container_time_user", "0"},
        {"container_time_system", "0"},
    };
    struct run_report run = report();
    const struct checkin_request r = {.cpus = 8,
                                      .memory_bytes = 67430486016,
                                      .free_disk_bytes = 812034637824,
                                      .hostname = "node7",
                                      .exit_after_num_runs = 999999999,
                                      .preemptible = true,
                                      .runs = &run,
                                      .n_runs = 1};
    AUTO_FREE char *text = protocol_checkin_text(&r);
    AUTO(cJSON) cJSON *v = parse(text);
    const cJSON *first = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(v, "runs"), 0);

    for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
        assert_string_equal(raw(v, expected[i][0]), expected[i][1]);
    for (size_t i = 0; i < ARRAY_SIZE(of_run); i++)
        assert_string_equal(raw(first, of_run[i][0]), of_run[i][1]);
    const cJSON *times = cJSON_GetObjectItemCaseSensitive(first, "bundle_profile_stats");
    assert_int_equal(cJSON_GetArraySize(times), 5);
    assert_string_equal(raw(times, "RUN_STAGE.PREPARING"),
                        "{\"start\":1700000000.5,\"end\":1700000003,\"elapsed\":2.5}");
    assert_string_equal(raw(times, "RUN_STAGE.FINALIZING"),
                        "{\"start\":null,\"end\":null,\"elapsed\":null}");
}

static void texts_are_short_ascii(void **state)
{
    (void)state;
    AUTO_FREE char *long_text = mem_zalloc(20000);
    struct run_report run = report();
    const struct checkin_request r = {.runs = &run, .n_runs = 1, .hostname = "h"};

    memset(long_text, 'x', 19999);
    memcpy(long_text, "\xf0\x9f\x98\x80", 4);
    run.run_status = run.failure_message = long_text;
    run.has_exitcode = true;
    run.exitcode = 137;
    AUTO_FREE char *text = protocol_checkin_text(&r);
    for (const char *p = text; *p; p++)
        assert_in_range((unsigned char)*p, 1, 126);
    assert_true(strlen(text) < 3 * BOUND_STATUS_TEXT);
    assert_has(text, "\"exitcode\":137,");
    assert_has(text, "[cut]");
}

static void a_body_too_large_loses_its_statuses_only(void **state)
{
    (void)state;
    size_t n = 1100;
    AUTO_FREE struct run_report *runs = mem_array(n, sizeof(*runs));
    AUTO_FREE char *status = mem_zalloc(BOUND_STATUS_TEXT);

    memset(status, 'x', BOUND_STATUS_TEXT - 1);
    for (size_t i = 0; i < n; i++) {
        runs[i] = report();
        runs[i].run_status = status;
    }
    const struct checkin_request r = {.runs = runs, .n_runs = n, .hostname = "h"};
    AUTO_FREE char *text = protocol_checkin_text(&r);
    assert_true(strlen(text) < BOUND_SERVICE_JSON);
    AUTO(cJSON) cJSON *v = parse(text);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(v, "runs")), n);
}

/* What is kept must say what a text made anew would say. */
static void assert_fresh(const struct run_report *run)
{
    struct run_report plain = *run;
    const struct checkin_request kept = {.runs = run, .n_runs = 1, .hostname = "h"},
                                 anew = {.runs = &plain, .n_runs = 1, .hostname = "h"};

    plain.kept = NULL;
    AUTO_FREE char *a = protocol_checkin_text(&kept);
    AUTO_FREE char *b = protocol_checkin_text(&anew);
    assert_string_equal(a, b);
}

static void a_kept_text_never_tells_what_was(void **state)
{
    (void)state;
    struct report_text text = {0};
    struct run_report r = report();
    unsigned made = 0;
    char status[] = "one";

    r.kept = &text;
#define CHANGES(change)                  \
    change;                              \
    assert_fresh(&r);                    \
    assert_int_equal(text.made, ++made); \
    assert_fresh(&r);                    \
    assert_int_equal(text.made, made)

    CHANGES(r.run_status = status);
    CHANGES(status[0] = 'x'); /* the same place, another text */
    CHANGES(r.docker_image = "a@sha256:b");
    CHANGES(r.state = "finalizing");
    CHANGES(r.remote = "other");
    CHANGES(r.failure_message = "");
    CHANGES(r.failure_message = "it \"failed\"\n");
    CHANGES(r.failure_message = NULL);
    CHANGES(r.uuid = "0x00000000000000000000000000000002");
    CHANGES(r.bundle_start_time += 1);
    CHANGES(r.container_time_total = 1);
    CHANGES(r.container_time_user = 0.25);
    CHANGES(r.container_time_system = 0.000001);
    CHANGES(r.has_exitcode = true);
    CHANGES(r.exitcode = 3);
    CHANGES(r.cpu_usage = 1.5);
    CHANGES(r.memory_usage = -1);
    CHANGES(r.disk_utilization++);
    for (int i = 0; i < STAGE_COUNT; i++) {
        CHANGES(r.times[i].start = 1700000001.25 + i);
        CHANGES(r.times[i].end = 1700000002.5 + i);
    }
#undef CHANGES
    protocol_checkin_forget(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_read_element_by_element),
        cmocka_unit_test(a_run_message_is_read_whole),
        cmocka_unit_test(a_kill_has_a_message),
        cmocka_unit_test(keys_that_leave_the_bundle_are_refused),
        cmocka_unit_test(a_checkin_has_all_fields_with_their_types),
        cmocka_unit_test(texts_are_short_ascii),
        cmocka_unit_test(a_body_too_large_loses_its_statuses_only),
        cmocka_unit_test(a_kept_text_never_tells_what_was),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
