/*
 * The machine of a run: every stage met by every event, and the texts of protocol 5.6 and 5.7.
 * rows: B095 B096 B097 B099 B100 B101 B102 B103 B104 B105 B106 B107 B108 B109 B110 B121 B123 B124 D85
 */
#include "base/mem.h"
#include "test.h"
#include "worker/run_stage.h"

#define UUID "0x0123456789abcdef0123456789abcdef"
#define NOW  1000.0

static struct run *run_in(enum run_stage stage)
{
    struct bundle *b = mem_new(struct bundle);

    b->uuid = mem_strdup(UUID);
    b->command = mem_strdup("true");
    b->image = mem_strdup("python:3");
    b->store = mem_strdup("");
    b->memory = 2LL << 30;
    b->disk = 2 << 20;
    b->time_s = 60;
    struct run *r = run_new(b, "/w/runs/" UUID, 900.0);
    r->stage = stage;
    if (stage >= RUN_RUNNING && stage <= RUN_UPLOADING_RESULTS) {
        r->started = r->has_contents = true;
        r->container_start = 900.0;
    }
    return r;
}

static const struct exit_record good_exit = {
    .started = true,
    .status = 0,
    .start_ns = 1000000000,
    .end_ns = 3500000000,
    .user_us = 1500000,
    .system_us = 250000,
};

static struct run_event event(enum run_event_kind kind)
{
    return (struct run_event){.kind = kind,
                              .now = NOW,
                              .text = "text",
                              .number = 7,
                              .record = &good_exit,
                              .limits = LIMIT_DISK};
}

#define P RUN_PREPARING
#define R RUN_RUNNING
#define C RUN_CLEANING_UP
#define U RUN_UPLOADING_RESULTS
#define F RUN_FINALIZING
#define X RUN_FINISHED
#define S RUN_RESTAGED

/* Where each event leads from each stage. */
static const struct {
    enum run_event_kind kind;
    const char *name;
    enum run_stage to[RUN_STAGE_COUNT]; /* from P R C U F X S */
} paths[] = {
    {EV_ENTER, "enter", {P, R, C, U, F, X, S}},
    {EV_STATUS, "status", {P, R, C, U, F, X, S}},
    {EV_INPUTS_READY, "inputs ready", {P, R, C, U, F, X, S}},
    {EV_PLACED, "placed", {P, R, C, U, F, X, S}},
    {EV_INPUT_FAILED, "input failed", {C, R, C, U, F, X, S}},
    {EV_CREATED, "created", {R, R, C, U, F, X, S}},
    {EV_START_FAILED, "start failed", {C, C, C, U, F, X, S}},
    {EV_STARTED, "started", {P, R, C, U, F, X, S}},
    {EV_EXITED, "exited", {P, C, C, U, F, X, S}},
    {EV_VANISHED, "vanished", {P, C, C, U, F, X, S}},
    {EV_LIMITS, "limits", {P, C, C, U, F, X, S}},
    {EV_KILL, "kill", {C, C, C, U, F, X, S}},
    {EV_RESTAGE, "restage", {C, C, C, U, S, X, S}},
    {EV_CLEANED, "cleaned", {P, R, U, U, F, X, S}},
    {EV_UPLOAD_STATUS, "upload status", {P, R, C, U, F, X, S}},
    {EV_UPLOADED, "uploaded", {P, R, C, F, F, X, S}},
    {EV_UPLOAD_FAILED, "upload failed", {P, R, C, F, F, X, S}},
    {EV_UPLOAD_STOPPED, "upload stopped", {P, R, C, U, F, X, S}},
    {EV_MARK_FINALIZED, "mark finalized", {P, R, C, U, X, X, S}},
    {EV_MEASURED, "measured", {P, R, C, U, F, X, S}},
    {EV_BUNDLE_GONE, "bundle gone", {C, C, C, U, X, X, S}},
};

static void every_stage_meets_every_event(void **state)
{
    (void)state;
    assert_int_equal(ARRAY_SIZE(paths), RUN_EVENT_COUNT);
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        assert_int_equal(paths[i].kind, i);
        for (int stage = 0; stage < RUN_STAGE_COUNT; stage++) {
            AUTO(run) struct run *r = run_in((enum run_stage)stage);
            struct run_event ev = event(paths[i].kind);
            unsigned wants = run_stage_step(r, &ev, false);

            if (r->stage != paths[i].to[stage])
                fail_msg("%s in %s leads to %s", paths[i].name,
                         run_stage_name((enum run_stage)stage), run_stage_name(r->stage));
            if (r->stage != (enum run_stage)stage && !(wants & WANT_SAVE))
                fail_msg("%s in %s is not saved", paths[i].name,
                         run_stage_name((enum run_stage)stage));
        }
    }
}

/* A run is never lost: from wherever a crash left it, ENTER asks for the work of its stage again. */
static void every_stage_can_be_entered_again(void **state)
{
    static const unsigned asks[RUN_STAGE_COUNT] = {
        [P] = WANT_INPUTS, [R] = WANT_WATCH, [C] = WANT_CLEAN,
        [U] = WANT_UPLOAD, [F] = WANT_TELL,  [X] = WANT_REMOVE_DIR | WANT_FORGET,
        [S] = WANT_TELL,
    };

    (void)state;
    for (int stage = 0; stage < RUN_STAGE_COUNT; stage++)
        for (int twice = 0; twice < 2; twice++) {
            AUTO(run) struct run *r = run_in((enum run_stage)stage);
            struct run_event ev = event(EV_ENTER);
            for (int i = 0; i <= twice; i++)
                assert_int_equal(run_stage_step(r, &ev, false) & asks[stage], asks[stage]);
        }
}

/* One step of a story. */
static unsigned step(struct run *r, struct run_event ev)
{
    ev.now = NOW;
    return run_stage_step(r, &ev, false);
}
#define STEP(r, ...) step(r, (struct run_event){.kind = __VA_ARGS__})

static void a_good_run_goes_all_the_way(void **state)
{
    (void)state;
    AUTO(run) struct run *r = run_in(RUN_PREPARING);

    assert_string_equal(r->status, ""); /* B060 */
    assert_true(STEP(r, EV_ENTER) & WANT_INPUTS);
    STEP(r, EV_STATUS, .text = "Downloading dependency a: 1k done (archived size)");
    assert_true(STEP(r, EV_INPUTS_READY) & WANT_PLACE);
    assert_true(STEP(r, EV_PLACED) & WANT_CREATE);
    unsigned wants = STEP(r, EV_CREATED, .text = "python@sha256:1");
    assert_true(wants & WANT_START);
    assert_false(wants & WANT_WATCH);
    assert_string_equal(r->status, "Running job in container.");
    assert_string_equal(r->docker_image, "python@sha256:1");
    assert_false(r->has_contents); /* not before it was started */
    assert_true(STEP(r, EV_STARTED, .number = 5) & WANT_WATCH);
    assert_true(r->has_contents);
    assert_true(STEP(r, EV_EXITED, .record = &good_exit, .text = "") & WANT_CLEAN);
    assert_string_equal(r->status, "Uploading results.");
    assert_true(STEP(r, EV_CLEANED, .number = 4711) & WANT_UPLOAD);
    assert_int_equal(r->disk_utilization, 4711);
    STEP(r, EV_UPLOADED);
    assert_int_equal(r->stage, RUN_FINALIZING);
    assert_string_equal(r->status, "Finalizing bundle.");
    assert_true(r->has_exitcode && r->exitcode == 0);
    AUTO_FREE char *text = run_failure_text(r);
    assert_null(text);
    assert_true(r->time_total == 2.5 && r->time_user == 1.5 && r->time_system == 0.25);
    wants = STEP(r, EV_MARK_FINALIZED);
    assert_true(wants & WANT_REMOVE_DIR);
    assert_true(wants & WANT_FORGET);
    for (int i = 0; i < STAGE_COUNT; i++)
        assert_true(r->times[i].start > 0 && r->times[i].end >= r->times[i].start);
}

#define EXIT(st, oom, out)                                                                       \
    {                                                                                            \
        .kind = EV_EXITED,                                                                       \
        .record = &(const struct exit_record){.started = true, .status = st, .oom_killed = oom}, \
        .text = out                                                                              \
    }
#define FULL(st)                                                                                 \
    {                                                                                            \
        .kind = EV_EXITED, .record = &(const struct exit_record){.started = true, .status = st}, \
        .text = "own words", .limits = LIMIT_FULL                                                \
    }
#define KILL(msg)                    \
    {                                \
        .kind = EV_KILL, .text = msg \
    }
#define LIMITS(l)                      \
    {                                  \
        .kind = EV_LIMITS, .limits = l \
    }
#define CLEANED                         \
    {                                   \
        .kind = EV_CLEANED, .number = 1 \
    }
#define UPLOADED            \
    {                       \
        .kind = EV_UPLOADED \
    }
#define UPLOADED_5XX                      \
    {                                     \
        .kind = EV_UPLOADED, .flag = true \
    }
#define UPLOAD_FAILED(msg)                    \
    {                                         \
        .kind = EV_UPLOAD_FAILED, .text = msg \
    }

/* What is finally reported: code -1 is null, text NULL is null. */
static const struct {
    const char *row;
    enum run_stage from;
    struct run_event events[6];
    int code;
    const char *text;
} ends[] = {
    {"B095", R, {EXIT(0, 0, ""), CLEANED, UPLOADED}, 0, NULL},
    {"B096", R, {EXIT(3, 0, NULL), CLEANED, UPLOADED}, 3, NULL},
    {"B097",
     R,
     {EXIT(2, 0, "/bin/bash: syntax error\n"), CLEANED, UPLOADED},
     2,
     "/bin/bash: syntax error"},
    {"D78: a warning does not fail a good run",
     R,
     {EXIT(0, 0, "warning: locale\n"), CLEANED, UPLOADED},
     0,
     NULL},
    {"B099", R, {KILL("Kill requested"), CLEANED, UPLOADED}, -1, "Kill requested"},
    {"B100", P, {KILL("Kill requested"), CLEANED}, -1, "Kill requested"},
    {"B101",
     R,
     {KILL("Kill requested: User time quota exceeded. To apply"), CLEANED, UPLOADED},
     -1,
     "Kill requested: User time quota exceeded. To apply"},
    {"B102",
     R,
     {LIMITS(LIMIT_TIME), CLEANED, UPLOADED},
     -1,
     "Time limit exceeded. (Container uptime 1m40s > time limit 1m0s)"},
    {"B103", R, {EXIT(137, 1, NULL), CLEANED, UPLOADED}, 137, "Memory limit 2g exceeded."},
    {"B103 with bash's text",
     R,
     {EXIT(137, 1, "bash: line 1: 17 Killed\n"), CLEANED, UPLOADED},
     137,
     "bash: line 1: 17 Killed. Memory limit 2g exceeded."},
    {"shared memory was too small",
     R,
     {EXIT(135, 0, NULL), CLEANED, UPLOADED},
     135,
     "Bus error: most often /dev/shm was too small, whose size this worker was started with "
     "(--shared-memory-size-gb)."},
    {"the worker's disk is full",
     R,
     {FULL(1), CLEANED, UPLOADED},
     1,
     "own words. The disk of this worker is full: writes fail with \"No space left on device\"."},
    {"the worker's disk is full, and it went well", R, {FULL(0), CLEANED, UPLOADED}, 0, NULL},
    {"B104", R, {EXIT(137, 0, NULL), CLEANED, UPLOADED}, 137, NULL},
    {"D24: a killed child the program survived", R, {EXIT(0, 1, NULL), CLEANED, UPLOADED}, 0, NULL},
    {"D24: and did not",
     R,
     {EXIT(1, 1, NULL), CLEANED, UPLOADED},
     1,
     "Memory limit 2g exceeded. (a process of the run was killed)"},
    {"B105", R, {LIMITS(LIMIT_DISK), CLEANED, UPLOADED}, -1, "Disk limit 2mb exceeded."},
    {"B106",
     R,
     {LIMITS(LIMIT_TIME | LIMIT_DISK), CLEANED, UPLOADED},
     -1,
     "Time limit exceeded. (Container uptime 1m40s > time limit 1m0s) Disk limit 2mb exceeded."},
    {"B107",
     R,
     {LIMITS(LIMIT_DISK), KILL("Kill requested"), CLEANED, UPLOADED},
     -1,
     "Disk limit 2mb exceeded. Kill requested"},
    {"a later kill replaces the message",
     R,
     {KILL("Kill requested"), KILL("Kill requested: quota"), CLEANED, UPLOADED},
     -1,
     "Kill requested: quota"},
    {"B108",
     R,
     {EXIT(2, 0, "syntax"), CLEANED, UPLOAD_FAILED("Bad Request - full"), {.kind = EV_ENTER}},
     2,
     "syntax. Error while uploading: Bad Request - full"},
    {"B108 all three",
     R,
     {EXIT(2, 0, "syntax"), KILL("Kill requested"), CLEANED, UPLOAD_FAILED("x")},
     2,
     "syntax. Error while uploading: x. Kill requested"},
    {"B110", R, {{.kind = EV_VANISHED}, CLEANED, UPLOADED}, -1, "Docker container not found"},
    {"B121 clears the server's text", R, {EXIT(0, 0, ""), CLEANED, UPLOADED_5XX}, 0, ""},
    {"B121 with a code of its own", R, {EXIT(3, 0, ""), CLEANED, UPLOADED_5XX}, 3, "Exit code 3"},
    {"5.7 image failed",
     P,
     {{.kind = EV_INPUT_FAILED, .text = "Failed to download Docker image: no"}, CLEANED},
     -1,
     "Failed to download Docker image: no"},
    {"B123 kill during upload",
     U,
     {KILL("Kill requested"), {.kind = EV_UPLOAD_STOPPED}},
     -1,
     "Kill requested"},
    {"kill in finalizing has no effect", F, {KILL("Kill requested")}, -1, NULL},
};

static void ends_are_reported_as_the_protocol_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        AUTO(run) struct run *r = run_in(ends[i].from);

        for (size_t k = 0; k < 6 && ends[i].events[k].kind != EV_ENTER; k++)
            step(r, ends[i].events[k]);
        AUTO_FREE char *text = run_failure_text(r);
        if (r->stage != RUN_FINALIZING)
            fail_msg("%s: ends in %s", ends[i].row, run_stage_name(r->stage));
        if (!str_eq(text, ends[i].text))
            fail_msg("%s: \"%s\", not \"%s\"", ends[i].row, text ? text : "null",
                     ends[i].text ? ends[i].text : "null");
        if ((r->has_exitcode ? r->exitcode : -1) != ends[i].code)
            fail_msg("%s: exit code %d", ends[i].row, r->has_exitcode ? r->exitcode : -1);
    }
}

static void what_never_ran_has_no_contents(void **state)
{
    (void)state;
    static const struct exit_record not_started = {
        .started = false, .status = -1, .start_error = "no /bin/bash"};
    AUTO(run) struct run *r = run_in(RUN_RUNNING);

    r->started = r->has_contents = false;
    STEP(r, EV_EXITED, .record = &not_started);
    assert_false(STEP(r, EV_CLEANED) & WANT_UPLOAD);
    assert_int_equal(r->stage, RUN_FINALIZING);
    assert_string_equal(r->failure_message,
                        "Cannot start Docker container: no /bin/bash"); /* B098 */
}

static void restaged_runs_keep_their_directory(void **state)
{
    (void)state;
    AUTO(run) struct run *r = run_in(RUN_RUNNING);

    assert_true(STEP(r, EV_RESTAGE) & WANT_CLEAN);
    unsigned wants = STEP(r, EV_CLEANED);
    assert_int_equal(r->stage, RUN_RESTAGED);
    assert_false(wants & (WANT_UPLOAD | WANT_REMOVE_DIR | WANT_FORGET));
    assert_string_equal(run_stage_state(r->stage), "staged");

    AUTO(run) struct run *u = run_in(RUN_UPLOADING_RESULTS);
    assert_true(STEP(u, EV_RESTAGE) & WANT_STOP_UPLOAD);
    STEP(u, EV_UPLOADED); /* it was quicker: all the same */
    assert_int_equal(u->stage, RUN_RESTAGED);
}

static void shared_file_systems_need_no_upload(void **state)
{
    (void)state;
    AUTO(run) struct run *r = run_in(RUN_CLEANING_UP);
    struct run_event ev = event(EV_CLEANED);

    run_stage_step(r, &ev, true);
    assert_int_equal(r->stage, RUN_FINALIZING);
    ev = event(EV_MARK_FINALIZED);
    assert_false(run_stage_step(r, &ev, true) & WANT_REMOVE_DIR);
}

static void times_never_fall(void **state)
{
    (void)state;
    AUTO(run) struct run *r = run_in(RUN_RUNNING);

    r->time_total = 99;
    r->time_user = 98;
    STEP(r, EV_EXITED, .record = &good_exit);
    assert_true(r->time_total == 99 && r->time_user == 98); /* B038 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_stage_meets_every_event),
        cmocka_unit_test(every_stage_can_be_entered_again),
        cmocka_unit_test(a_good_run_goes_all_the_way),
        cmocka_unit_test(ends_are_reported_as_the_protocol_says),
        cmocka_unit_test(what_never_ran_has_no_contents),
        cmocka_unit_test(restaged_runs_keep_their_directory),
        cmocka_unit_test(shared_file_systems_need_no_upload),
        cmocka_unit_test(times_never_fall),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
