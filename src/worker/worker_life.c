/*
 * What the worker does from its start to its end: check-ins, the actions they bring, and the reasons to stop.
 *
 *   WORKING ─► (signal, --pass-down-termination) RESTAGING ─► LAST_WORD ─► DRAINING ─► the loop stops
 *       └────────────── (signal, idle, run count) ──────────────►┘
 *
 * Every phase is bounded. While terminating, answers are not acted on (protocol 3.5).
 */
#include <signal.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/jobs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "runtime/gpu.h"
#include "worker/checkin.h"
#include "worker/deps.h"
#include "worker/images.h"
#include "worker/nudge.h"
#include "worker/options.h"
#include "worker/protocol.h"
#include "worker/reply.h"
#include "worker/run.h"
#include "worker/run_manager.h"
#include "worker/run_store.h"
#include "worker/service.h"
#include "worker/usage.h"
#include "worker/wake.h"
#include "worker/worker_parts.h"

#define OUTAGE_NS     (60 * NS_PER_S)
#define FIRST_NS      (3 * NS_PER_S)
#define CROWD_NS      (300 * NS_PER_MS)
#define RUN_STARTS_NS (150 * NS_PER_MS) /* from its message, when nothing is missing */
#define RESTAGE_NS    (120 * NS_PER_S)
#define LAST_WORD_NS  (12 * NS_PER_S)
#define DRAIN_NS      (30 * NS_PER_S)
#define DRAIN_LOOK_NS (50 * NS_PER_MS)

static void enter_phase(struct worker *w, enum phase phase);

/* ---- check-in ---- */

static int64_t runs_left(const struct worker *w)
{
    int64_t left = w->o->exit_after_num_runs - w->runs_started;

    /* The server's column is 32 bits wide. */
    return left < 0 ? 0 : left > INT32_MAX ? INT32_MAX : left;
}

static void forget_told(struct worker *w)
{
    str_list_free(&w->told_staged);
    mem_replace(&w->told_running, NULL);
}

static void note_told(struct worker *w, const struct run_report *runs, size_t n)
{
    const char *staged = run_stage_state(RUN_RESTAGED), *running = run_stage_state(RUN_RUNNING);

    forget_told(w);
    for (size_t i = 0; i < n; i++) {
        if (str_eq(runs[i].state, staged))
            str_list_add(&w->told_staged, runs[i].uuid);
        else if (!w->told_running && str_eq(runs[i].state, running))
            w->told_running = mem_strdup(runs[i].uuid);
    }
}

static void collect_reports(struct worker *w, const struct run_report **ret, size_t *ret_n)
{
    uint64_t last = checkin_last_success_ns(w->checkin);

    /* Long enough for the server to have given our runs away, or for their owner to have killed them (D80). */
    if (last && clock_now_ns() - last > OUTAGE_NS)
        w->ask_owner = true;
    if (!w->ask_owner && !run_manager_is_asking(w->runs))
        run_manager_reports(w->runs, ret, ret_n);
    note_told(w, *ret, *ret_n);
}

/* Those that were withdrawn are not offered any more. */
static int64_t offered_gpus(const struct worker *w)
{
    int64_t n = 0;

    for (size_t i = 0; i < w->n_gpus; i++)
        n += !ctr_gpu_is_withdrawn(w->gpus[i].uuid);
    return n;
}

static char *checkin_body(void *arg)
{
    struct worker *w = arg;
    const struct options *o = w->o;
    const struct run_report *runs = NULL;
    size_t n_runs = 0;

    collect_reports(w, &runs, &n_runs);
    w->told_terminating = w->phase != PHASE_WORKING;
    const struct checkin_request r = {
        .tag = o->tag,
        .group_name = o->group,
        .cpus = cpu_set_count(&w->cpus),
        .gpus = offered_gpus(w),
        .memory_bytes = w->memory,
        .free_disk_bytes = usage_free_disk(o->work_dir),
        .dependencies = w->deps ? deps_keys(w->deps) : NULL,
        .hostname = w->hostname,
        .runs = runs,
        .n_runs = n_runs,
        .shared_file_system = o->shared_file_system,
        .tag_exclusive = o->tag_exclusive && o->tag && *o->tag,
        .exit_after_num_runs = runs_left(w),
        .is_terminating = w->told_terminating,
        .preemptible = o->preemptible,
    };
    return protocol_checkin_text(&r);
}

/* ---- the reasons to end (10.3) ---- */

static bool is_idle(const struct worker *w)
{
    return run_manager_count(w->runs) == 0 && w->starting == 0;
}

static void look_for_end(struct worker *w)
{
    if (w->phase != PHASE_WORKING)
        return;
    if (!is_idle(w)) {
        w->idle_since_ns = clock_now_ns();
        return;
    }
    if (w->runs_started >= w->o->exit_after_num_runs) {
        log_info("Worker has run %lld jobs. Exiting...", (long long)w->runs_started);
        enter_phase(w, PHASE_LAST_WORD);
        return;
    }
    double idle = (double)(clock_now_ns() - w->idle_since_ns) / 1e9;
    if (w->o->exit_when_idle && checkin_has_succeeded(w->checkin) &&
        idle > (double)w->o->idle_seconds) {
        log_info("Worker was idle for %lld seconds. Exiting...", (long long)w->o->idle_seconds);
        enter_phase(w, PHASE_LAST_WORD);
    }
}

void worker_life_changed(void *worker)
{
    struct worker *w = worker;

    if (!w->checkin)
        return; /* still recovering */
    if (w->waits_for_owner && !run_manager_is_asking(w->runs)) {
        w->waits_for_owner = false;
        checkin_wake(w->checkin);
    }
    if (w->phase == PHASE_RESTAGING) {
        if (run_manager_count(w->runs) == 0)
            enter_phase(w, PHASE_LAST_WORD);
        else
            checkin_wake(w->checkin);
        return;
    }
    look_for_end(w);
}

void worker_life_news(void *worker, bool over)
{
    struct worker *w = worker;

    if (!w->checkin || w->phase != PHASE_WORKING || w->waits_for_owner)
        return;
    checkin_tell(w->checkin);
    if (over && checkin_is_waited_for(w->checkin))
        nudge_soon(w->nudge);
}

/* A run that the check-in in flight has told to be running: whoever looks at it makes the server ask us. */
static const char *whom_to_nudge(void *arg)
{
    struct worker *w = arg;

    return w->phase == PHASE_WORKING && checkin_is_waited_for(w->checkin) ? w->told_running : NULL;
}

/* ---- answers ---- */

/* How many actions; *ret_runs: of them, runs. */
static size_t act_on(struct worker *w, const cJSON *answer, size_t *ret_runs)
{
    AUTO(str_list) struct str_list notes = {0};
    struct action *list = NULL;
    size_t n = 0;

    protocol_read_actions(answer, &list, &notes);
    for (size_t i = 0; i < notes.n; i++)
        log_warn("%s", notes.items[i]);
    for (struct action *a = list; a; a = a->next, n++) {
        *ret_runs += a->type == ACTION_RUN;
        /* While ending nothing is begun (3.5); but what the server takes for over may not be reported again (B049). */
        if (w->phase != PHASE_WORKING && a->type != ACTION_MARK_FINALIZED)
            continue;
        if (a->type == ACTION_KILL)
            worker_start_kill(w, a);
        if (a->type == ACTION_RUN)
            worker_start_bundle(w, a);
        else
            run_manager_act(w->runs, a);
    }
    action_list_free(list);
    return n;
}

/*
 * What was brought may not be all there is, as a check-in carries one message (1.8): the next one begins at once. But
 * behind a single run it gives it the moment that it may need to start: begun before, it would be held open without that
 * news. Where runs come in a crowd each of them brings the next check-in to an end.
 */
static void call_again(struct worker *w, bool behind_run)
{
    uint64_t now = clock_now_ns();
    bool crowd = now - w->last_run_ns < CROWD_NS;

    if (behind_run)
        w->last_run_ns = now;
    if (behind_run && !crowd)
        checkin_next_in(w->checkin, RUN_STARTS_NS);
    else
        checkin_wake(w->checkin);
}

static void ask_owner(struct worker *w)
{
    w->ask_owner = false;
    w->waits_for_owner = true;
    run_manager_ask_after_outage(w->runs);
}

static void accepted(void *arg, const cJSON *answer)
{
    struct worker *w = arg;
    size_t runs = 0;

    for (size_t i = 0; i < w->told_staged.n; i++)
        run_manager_handed_back(w->runs, w->told_staged.items[i]);
    forget_told(w);
    if (w->ask_owner)
        ask_owner(w);
    size_t actions = act_on(w, answer, &runs);
    if (w->phase == PHASE_WORKING) {
        look_for_end(w);
        if (actions && w->phase == PHASE_WORKING)
            call_again(w, runs == actions);
    } else if (w->phase == PHASE_LAST_WORD && w->told_terminating) {
        enter_phase(w, PHASE_DRAINING);
    }
}

static void failed(void *arg)
{
    forget_told(arg);
}

/* ---- phases ---- */

static bool is_drained(const struct worker *w)
{
    size_t busy = run_manager_busy(w->runs) + w->starting + (w->deps ? deps_active(w->deps) : 0) +
                  images_active(w->images) + replies_active(w->replies) +
                  checkin_is_in_flight(w->checkin) + nudge_is_active(w->nudge) +
                  lane_pending(w->lanes[LANE_STATE]);

    return busy == 0;
}

static void begin_drain(struct worker *w)
{
    checkin_stop(w->checkin);
    nudge_stop(w->nudge);
    run_manager_stop(w->runs);
    images_stop(w->images);
    replies_stop(w->replies);
    if (w->deps)
        deps_stop(w->deps);
}

static void on_phase_timer(void *arg)
{
    struct worker *w = arg;

    if (w->phase == PHASE_WORKING) {
        checkin_wake(w->checkin); /* the service takes its time to say whose the runs are */
    } else if (w->phase == PHASE_RESTAGING) {
        log_warn("not every run could be handed back in time: %zu left",
                 run_manager_count(w->runs));
        enter_phase(w, PHASE_LAST_WORD);
    } else if (w->phase == PHASE_LAST_WORD) {
        enter_phase(w, PHASE_DRAINING);
    } else if (is_drained(w) || clock_passed(w->drain_until_ns)) {
        loop_stop(w->loop);
    } else {
        loop_arm(w->phase_timer, DRAIN_LOOK_NS);
    }
}

static void enter_phase(struct worker *w, enum phase phase)
{
    if (phase <= w->phase)
        return;
    w->phase = phase;
    wake_stop(w->wake);
    w->wake = NULL;
    switch (phase) {
    case PHASE_RESTAGING:
        loop_arm(w->phase_timer, RESTAGE_NS);
        run_manager_restage(w->runs);
        worker_life_changed(w);
        break;
    case PHASE_LAST_WORD:
        loop_arm(w->phase_timer, LAST_WORD_NS);
        checkin_wake(
            w->checkin); /* the one in flight may be bringing a message: it is waited for */
        break;
    default:
        begin_drain(w);
        w->drain_until_ns = clock_in_ns(DRAIN_NS);
        loop_arm(w->phase_timer, 0);
        break;
    }
}

static void on_signal(void *arg)
{
    struct worker *w = arg;

    if (w->phase != PHASE_WORKING)
        return; /* a repeated signal changes nothing (10.2) */
    log_info("Received a signal to end");
    enter_phase(w, w->o->pass_down_termination ? PHASE_RESTAGING : PHASE_LAST_WORD);
}

static void woken(void *arg)
{
    struct worker *w = arg;

    checkin_wake(w->checkin);
}

void worker_life_begin(struct worker *w)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    const struct checkin_opts o = {
        .loop = w->loop,
        .lane = w->lanes[LANE_CHECKIN],
        .service = w->service,
        .pause_ns = (uint64_t)w->o->checkin_frequency_seconds * NS_PER_S,
        .body = checkin_body,
        .accepted = accepted,
        .failed = failed,
        .arg = w,
    };
    AUTO_FREE char *url = wake_url(w->o->server, w->o->ws_server, run_store_id(w->store));
    const struct nudge_opts no = {.loop = w->loop,
                                  .lane = w->lanes[LANE_NUDGE],
                                  .service = w->service,
                                  .whom = whom_to_nudge,
                                  .arg = w};
    const struct http_tls tls = {.ca_file = w->o->ca_file};
    const struct wake_opts wo = {
        .loop = w->loop, .url = url, .tls = w->o->ca_file ? &tls : NULL, .woken = woken, .arg = w};

    w->idle_since_ns = clock_now_ns();
    w->phase_timer = loop_add_timer(w->loop, on_phase_timer, w);
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        w->signals[i] = loop_add_signal(w->loop, numbers[i], on_signal, w);
    w->checkin = checkin_new(&o);
    w->nudge = nudge_new(&no);
    w->wake = wake_start(&wo);
    worker_start_again(w);
    /* How long nobody was here is not known: whose the runs are comes before the first report of them (D80). */
    if (run_manager_count(w->runs) > 0) {
        ask_owner(w);
        loop_arm(w->phase_timer, FIRST_NS);
    } else {
        checkin_wake(w->checkin);
    }
}

void worker_life_end(struct worker *w)
{
    wake_stop(w->wake);
    w->wake = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(w->signals); i++)
        loop_watch_free(w->signals[i]);
    loop_watch_free(w->phase_timer);
    forget_told(w);
}
