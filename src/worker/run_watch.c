/*
 * The living container: its end, its limits, its figures. Nothing is polled: the shim's descriptor tells the end,
 * a timer the time limit; the disk is measured by a job that rests ten times as long as it worked (protocol 5.9).
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crash.h"
#include "base/err.h"
#include "base/jobs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/quota.h"
#include "base/tree.h"
#include "runtime/shim.h"
#include "worker/container.h"
#include "worker/run_live.h"
#include "worker/run_store.h"

void live_unwatch(struct live *l)
{
    loop_watch_free(l->shim_watch);
    loop_watch_free(l->time_timer);
    loop_watch_free(l->disk_timer);
    loop_watch_free(l->dir_timer);
    l->shim_watch = l->time_timer = l->disk_timer = l->dir_timer = NULL;
}

/* ---- the end ---- */

/* Did writes fail for want of what the run asked for? Looked at when it ends: it may have died of that. */
static bool met_quota(const struct live *l)
{
    const struct run *r = l->run;

    if (r->bundle.disk <= 0)
        return false;
    AUTO_CLOSE int dir = open(r->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    AUTO_CLOSE int layer = container_open_layer(l->m->o.env, r->bundle.uuid);
    return (dir >= 0 && usage_is_full(dir)) || (layer >= 0 && usage_is_full(layer));
}

/* No room is left for anybody. A shared file system is not asked: it may not answer, and this is the main thread. */
static bool met_full_disk(const struct live *l)
{
    const struct container_env *env = l->m->o.env;

    return !env->shared_fs &&
           (usage_is_disk_full(l->m->o.runs_dir) || usage_is_disk_full(env->scratch_dir));
}

/* What a program that failed may have died of without saying so. */
static unsigned met_limits(const struct live *l, const struct exit_record *record)
{
    if (met_quota(l))
        return LIMIT_DISK;
    return record->status != 0 && met_full_disk(l) ? LIMIT_FULL : 0;
}

/* The shim has ended, or there was none: the record says what happened, or nobody knows. */
static void take_end(struct live *l)
{
    const char *uuid = l->run->bundle.uuid, *dir = l->m->o.env->runtime_dir;
    struct exit_record record = {0};
    struct err e = ERR_INIT;

    if (container_record(dir, uuid, &record, &e) < 0) {
        log_warn("run=%s no exit record: %s", uuid, e.msg);
        live_feed_text(l, EV_VANISHED, NULL);
        return;
    }
    AUTO_FREE char *own_output = ctr_shim_log(dir, uuid);
    const struct run_event ev = {.kind = EV_EXITED,
                                 .now = clock_epoch(),
                                 .record = &record,
                                 .text = own_output,
                                 .limits = met_limits(l, &record)};
    log_info("run=%s container ended: status=%d signal=%d oom_kills=%llu", uuid, record.status,
             record.signal, (unsigned long long)record.oom_kills);
    live_feed(l, &ev);
}

static void on_shim_fd(void *arg, int fd, int events)
{
    struct live *l = arg;

    (void)fd, (void)events;
    live_ref(l);
    live_unwatch(l);
    take_end(l);
    live_unref(l);
}

/* ---- limits ---- */

/* Milliseconds left of the time limit; -1: no limit. */
static int64_t time_left_ms(const struct run *r)
{
    if (r->bundle.time_s == 0 || !r->container_start_ns)
        return -1;
    int64_t limit = r->bundle.time_s > INT64_MAX / 1000 ? INT64_MAX : r->bundle.time_s * 1000;
    int64_t ran = (int64_t)((clock_now_ns() - r->container_start_ns) / NS_PER_MS);
    return limit > ran ? limit - ran : 0;
}

static bool is_over_disk(const struct live *l)
{
    const struct run *r = l->run;

    return r->bundle.disk < 0 || l->full ||
           (r->bundle.disk > 0 && r->disk_utilization > (uint64_t)r->bundle.disk);
}

static void judge_limits(struct live *l)
{
    struct run_event ev = {.kind = EV_LIMITS, .now = clock_epoch()};

    ev.limits = (time_left_ms(l->run) == 0 ? LIMIT_TIME : 0) | (is_over_disk(l) ? LIMIT_DISK : 0);
    if (ev.limits)
        live_feed(l, &ev);
}

static void arm_time(struct live *l)
{
    /* libuv takes at most some 292 million years; a long limit is cut into days. */
    int64_t left = time_left_ms(l->run), day = 24 * 3600 * 1000;

    if (left >= 0)
        loop_arm(l->time_timer, (uint64_t)(left < day ? left : day) * NS_PER_MS);
}

static void on_time(void *arg)
{
    struct live *l = arg;

    if (time_left_ms(l->run) > 0)
        arm_time(l);
    else
        judge_limits(l);
}

#define QUIET_NS         (32 * NS_PER_S)
#define QUIET_LIMITED_NS (3 * NS_PER_S)

struct measure_job {
    struct job job; /* first */
    struct live *live;
    int dir, layer;
    int64_t disk; /* the limit */
    bool ok, full;
    uint64_t bytes, took_ns;
};

/* Over its limit by the kernel's account; a writable layer nobody holds an account of is counted. */
static bool is_full(const struct measure_job *j)
{
    struct err ignored = ERR_INIT;
    uint64_t used = 0, limit = 0;

    if (j->disk <= 0)
        return false;
    if (usage_is_full(j->dir) || (j->layer >= 0 && usage_is_full(j->layer)))
        return true;
    return j->layer >= 0 && quota_usage(j->layer, &used, &limit, &ignored) < 0 &&
           tree_disk_usage(j->layer, NULL, &used, &ignored) == 0 &&
           used > usage_disk_bound(j->disk);
}

static void measure(struct job *job)
{
    struct measure_job *j = (struct measure_job *)job;
    struct err ignored = ERR_INIT;
    uint64_t start = clock_now_ns();

    j->ok = tree_size(j->dir, NULL, &j->bytes, &ignored) == 0;
    j->full = is_full(j);
    j->took_ns = clock_now_ns() - start;
}

/*
 * Ten times as long as it took, and a second at least. What does not grow is looked at ever less often, so that a
 * thousand sleeping runs cost nothing; with a limit to keep it is not left alone for long.
 */
static uint64_t pause_of(struct live *l, const struct measure_job *j)
{
    uint64_t least = j->took_ns * 10 > NS_PER_S ? j->took_ns * 10 : NS_PER_S,
             most = j->disk > 0 ? QUIET_LIMITED_NS : QUIET_NS;

    l->disk_pause_ns = j->bytes == l->measured ? 2 * l->disk_pause_ns : 0;
    l->measured = j->bytes;
    l->disk_pause_ns = l->disk_pause_ns > most ? most : l->disk_pause_ns;
    if (l->disk_pause_ns < least)
        l->disk_pause_ns = least;
    return l->disk_pause_ns;
}

static void measured(struct job *job)
{
    struct measure_job *j = (struct measure_job *)job;
    struct live *l = j->live;

    l->measuring = false;
    if (j->ok && l->run->stage == RUN_RUNNING) {
        live_feed_number(l, EV_MEASURED, (int64_t)j->bytes);
        l->full = j->full;
        judge_limits(l);
    }
    if (l->disk_timer)
        loop_arm(l->disk_timer, pause_of(l, j));
    close_fd(&j->dir);
    close_fd(&j->layer);
    free(j);
    live_finish(l);
}

static void on_disk(void *arg)
{
    struct live *l = arg;

    if (l->measuring || l->m->stopped)
        return;
    struct measure_job *j = mem_new(struct measure_job);
    j->job.run = measure;
    j->job.done = measured;
    j->live = l;
    j->dir = open(l->run->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    j->layer = container_open_layer(l->m->o.env, l->run->bundle.uuid);
    j->disk = l->run->bundle.disk;
    l->measuring = true;
    live_begin(l);
    lane_submit(l->m->o.disk_lane, &j->job);
}

/* ---- start and watch ---- */

static void watch_shim(struct live *l)
{
    struct loop *loop = l->m->o.loop;

    if (l->shim_watch)
        return;
    l->shim_watch = loop_add_fd(loop, ctr_shim_fd(l->shim), LOOP_READ, on_shim_fd, l);
    l->time_timer = loop_add_timer(loop, on_time, l);
    l->disk_timer = loop_add_timer(loop, on_disk, l);
    l->meter = USAGE_METER_INIT;
    arm_time(l);
    loop_arm(l->disk_timer, NS_PER_S / 5);
}

static void let_go(struct live *l)
{
    struct err e = ERR_INIT;

    crash_point("run: saved, not started");
    if (!ctr_shim_is_started(l->shim) && ctr_shim_start(l->shim, &e) < 0) {
        AUTO_FREE char *text = mem_printf("Cannot start Docker container: %s", e.msg);
        live_feed_text(l, EV_START_FAILED, text);
        return;
    }
    crash_point("run: started");
    live_feed_number(l, EV_STARTED, (int64_t)clock_now_ns());
}

static void saved_before_start(void *arg, const struct err *error)
{
    struct live *l = arg;

    l->in_start = false;
    if (l->run->stage == RUN_RUNNING && !l->run->started && l->shim && !l->m->stopped) {
        if (error) {
            AUTO_FREE char *text =
                mem_printf("Cannot start Docker container: cannot save its state: %s", error->msg);
            live_feed_text(l, EV_START_FAILED, text);
        } else {
            let_go(l);
        }
    }
    live_finish(l);
}

/* Only what is on disk may run: after a crash the container must be known (B191). */
void live_start(struct live *l)
{
    l->in_start = true;
    live_begin(l);
    run_store_save(l->m->o.store, l->run, saved_before_start, l);
}

void live_watch(struct live *l)
{
    const char *uuid = l->run->bundle.uuid;
    struct err e = ERR_INIT;

    if (l->in_start)
        return; /* EV_STARTED will come */
    if (!l->shim && ctr_shim_adopt(l->m->o.env->runtime_dir, uuid, &l->shim, &e) < 0) {
        log_info("run=%s no living container: %s", uuid, e.msg);
        take_end(l);
        return;
    }
    if (!l->run->started) {
        let_go(l);
        return;
    }
    watch_shim(l);
}

/* ---- figures ---- */

void live_refresh(struct live *l)
{
    struct run *r = l->run;
    struct ctr_stats s = {0};
    struct err ignored = ERR_INIT;

    if (r->stage != RUN_RUNNING || !r->started || !l->shim)
        return;
    l->looked_ns = clock_now_ns();
    double total = (double)(clock_now_ns() - r->container_start_ns) / 1e9;
    r->time_total = total > r->time_total ? total : r->time_total;
    if (ctr_shim_stats(l->shim, &s, &ignored) < 0)
        return;
    usage_meter_add(&l->meter, clock_now_ns(), &s, r->bundle.memory);
    double user = (double)s.user_us / 1e6, system = (double)s.system_us / 1e6;
    r->time_user = user > r->time_user ? user : r->time_user;
    r->time_system = system > r->time_system ? system : r->time_system;
}

/*
 * Check-ins come as often as anything happens, and each tells all runs: to ask for all of them each time would make an event
 * dearer the more runs there are. So there is an age up to which figures will do, such that some thirty looks a second are
 * the most: next to none for a few runs, half a minute for a thousand.
 */
#define LOOK_NS (32 * NS_PER_MS)

void live_refresh_old(struct live *l)
{
    if (clock_now_ns() - l->looked_ns >= l->m->n * LOOK_NS)
        live_refresh(l);
}
