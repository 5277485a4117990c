#include "worker/run_stage.h"

#include <signal.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/units.h"

#define STATUS_RUNNING    "Running job in container."
#define STATUS_UPLOADING  "Uploading results."
#define STATUS_FINALIZING "Finalizing bundle."
/* Programs that share memory by files there (PyTorch) die of it without a word. */
#define BUS_TEXT                                                                             \
    "Bus error: most often /dev/shm was too small, whose size this worker was started with " \
    "(--shared-memory-size-gb)."
#define FULL_TEXT "The disk of this worker is full: writes fail with \"No space left on device\"."

struct step {
    struct run *r;
    const struct run_event *ev;
    bool shared_fs;
};

static unsigned enter(const struct step *s, enum run_stage stage);

static void set_status(struct run *r, const char *text)
{
    if (!str_eq(r->status, text))
        mem_replace(&r->status, text);
}

/* Final user and system time and length, as the kernel told them; none of them ever falls (B038). */
static void take_times(struct run *r, const struct exit_record *rec)
{
    double total = rec->end_ns > rec->start_ns ? (double)(rec->end_ns - rec->start_ns) / 1e9 : 0;
    double user = (double)rec->user_us / 1e6, system = (double)rec->system_us / 1e6;

    r->container_start = rec->start_epoch > 0 ? rec->start_epoch : r->container_start;
    r->container_end = rec->end_epoch;
    r->time_total = total > r->time_total ? total : r->time_total;
    r->time_user = user > r->time_user ? user : r->time_user;
    r->time_system = system > r->time_system ? system : r->time_system;
}

static unsigned fail(const struct step *s, const char *text)
{
    mem_replace(&s->r->failure_message, text);
    return enter(s, RUN_CLEANING_UP);
}

/* A later kill replaces a user's or the quota's; a limit's text is kept in front of it (D85, B107). */
static void mark_killed(struct run *r, const char *text)
{
    if (r->killed && r->kill_message && !strstr(r->kill_message, "Kill requested"))
        r->kill_message = run_join_texts(r->kill_message, text);
    else
        mem_replace(&r->kill_message, text);
    r->killed = true;
}

static unsigned end_early(const struct step *s)
{
    if (s->ev->kind == EV_RESTAGE)
        s->r->restaged = true;
    else
        mark_killed(s->r, s->ev->kind == EV_KILL ? s->ev->text : "Bundle no longer exists.");
    return enter(s, RUN_CLEANING_UP);
}

/* ---- PREPARING (6.1) ---- */

static unsigned created(const struct step *s)
{
    mem_replace(&s->r->docker_image, s->ev->text);
    set_status(s->r, STATUS_RUNNING);
    enter(s, RUN_RUNNING);
    return WANT_SAVE | WANT_START | WANT_TELL;
}

static unsigned in_preparing(const struct step *s)
{
    switch (s->ev->kind) {
    case EV_ENTER:
        if (s->r->killed || s->r->restaged)
            return enter(s, RUN_CLEANING_UP);
        return WANT_SAVE | WANT_INPUTS;
    case EV_STATUS: set_status(s->r, s->ev->text); return 0;
    case EV_INPUTS_READY: return WANT_PLACE;
    case EV_PLACED: return WANT_SAVE | WANT_CREATE;
    case EV_CREATED: return created(s);
    case EV_INPUT_FAILED:
    case EV_START_FAILED: return fail(s, s->ev->text);
    case EV_KILL:
    case EV_RESTAGE:
    case EV_BUNDLE_GONE: return end_early(s);
    default: return 0;
    }
}

/* ---- RUNNING (6.2, 5.6) ---- */

static char *disk_text(const struct run *r)
{
    char size[UNITS_TEXT_MAX];
    const char *text = units_size_str(size, (double)r->bundle.disk, false);

    return mem_printf("Disk limit %sb exceeded.", text ? text : "");
}

static unsigned passed_limits(const struct step *s)
{
    struct run *r = s->r;
    char d1[UNITS_TEXT_MAX], d2[UNITS_TEXT_MAX];
    AUTO_FREE char *time = NULL;
    AUTO_FREE char *disk = NULL;

    if (s->ev->limits & LIMIT_TIME)
        time = mem_printf("Time limit exceeded. (Container uptime %s > time limit %s)",
                          units_duration_str(d1, s->ev->now - r->container_start),
                          units_duration_str(d2, (double)r->bundle.time_s));
    if (s->ev->limits & LIMIT_DISK)
        disk = disk_text(r);
    if (!time && !disk)
        return 0;
    AUTO_FREE char *all =
        mem_printf("%s%s%s", time ? time : "", time && disk ? " " : "", disk ? disk : "");
    mark_killed(r, all);
    return enter(s, RUN_CLEANING_UP);
}

/* The cause is read from the kernel's record; 137 alone says nothing (B104, D23). */
static void judge_memory(struct run *r, const struct exit_record *rec)
{
    char size[UNITS_TEXT_MAX];
    const char *limit = units_size_str(size, (double)r->bundle.memory, false);

    if (!rec->oom_killed || rec->status == 0)
        return; /* a child was killed and the program went on: its own verdict counts (D24) */
    AUTO_FREE char *text = mem_printf("Memory limit %s exceeded.", limit ? limit : "");
    if (rec->status == 137) {
        mark_killed(r, text);
        return;
    }
    AUTO_FREE char *old = take_ptr(&r->failure_message);
    r->failure_message = old ? mem_printf("%s. %s (a process of the run was killed)", old, text)
                             : mem_printf("%s (a process of the run was killed)", text);
}

/* What bash wrote on its own stderr, if the run failed (D78: a warning does not fail a good run). */
static void take_own_output(struct run *r, const char *text, int status)
{
    if (!text || status == 0)
        return;
    AUTO_FREE char *ascii = mem_strdup(text);
    size_t n = strlen(ascii);
    while (n && (ascii[n - 1] == '\n' || ascii[n - 1] == ' '))
        ascii[--n] = '\0';
    if (n)
        mem_replace(&r->failure_message, ascii);
}

static unsigned exited(const struct step *s)
{
    struct run *r = s->r;
    const struct exit_record *rec = s->ev->record;

    if (!rec->started) {
        AUTO_FREE char *text = mem_printf("Cannot start Docker container: %s", rec->start_error);
        return fail(s, text);
    }
    r->started = r->has_contents = true;
    take_times(r, rec);
    r->has_exitcode = rec->status >= 0;
    r->exitcode = rec->status >= 0 ? rec->status : 0;
    take_own_output(r, s->ev->text, rec->status);
    judge_memory(r, rec);
    if ((s->ev->limits & LIMIT_DISK) && rec->status != 0) {
        AUTO_FREE char *text = disk_text(r);
        mark_killed(r, text);
    }
    if (rec->status == 128 + SIGBUS)
        r->failure_message = run_join_texts(take_ptr(&r->failure_message), BUS_TEXT);
    if ((s->ev->limits & LIMIT_FULL) && rec->status != 0)
        r->failure_message = run_join_texts(take_ptr(&r->failure_message), FULL_TEXT);
    set_status(r, STATUS_UPLOADING);
    return enter(s, RUN_CLEANING_UP);
}

static unsigned started(const struct step *s)
{
    struct run *r = s->r;

    if (r->started)
        return 0;
    r->started = r->has_contents = true;
    r->container_start = s->ev->now;
    r->container_start_ns = (uint64_t)s->ev->number;
    return WANT_SAVE | WANT_WATCH;
}

static unsigned in_running(const struct step *s)
{
    switch (s->ev->kind) {
    case EV_ENTER: return WANT_WATCH;
    case EV_STARTED: return started(s);
    case EV_START_FAILED: return fail(s, s->ev->text);
    case EV_EXITED: return exited(s);
    case EV_VANISHED: s->r->has_contents = true; return fail(s, "Docker container not found");
    case EV_LIMITS: return passed_limits(s);
    case EV_MEASURED: s->r->disk_utilization = (uint64_t)s->ev->number; return 0;
    case EV_KILL:
    case EV_RESTAGE:
    case EV_BUNDLE_GONE: return end_early(s);
    default: return 0;
    }
}

/* ---- CLEANING_UP (6.3) ---- */

static unsigned cleaned(const struct step *s)
{
    struct run *r = s->r;

    if (s->ev->number >= 0)
        r->disk_utilization = (uint64_t)s->ev->number;
    if (s->ev->record && s->ev->record->started)
        take_times(r, s->ev->record);
    str_list_free(&r->links);
    str_list_free(&r->gpus);
    mem_replace(&r->cpus, NULL);
    mem_replace(&r->mems, NULL);
    r->userns_first_id = 0;
    if (r->restaged)
        return enter(s, RUN_RESTAGED);
    if (r->has_contents && !s->shared_fs)
        return enter(s, RUN_UPLOADING_RESULTS);
    return enter(s, RUN_FINALIZING);
}

static unsigned in_cleaning_up(const struct step *s)
{
    switch (s->ev->kind) {
    case EV_ENTER: return WANT_CLEAN;
    case EV_CLEANED: return cleaned(s);
    case EV_KILL: mark_killed(s->r, s->ev->text); return WANT_SAVE;
    case EV_RESTAGE: s->r->restaged = true; return WANT_SAVE;
    default: return 0;
    }
}

/* ---- UPLOADING_RESULTS (6.5) ---- */

static unsigned upload_over(const struct step *s)
{
    struct run *r = s->r;

    if (s->ev->kind == EV_UPLOADED)
        r->upload_had_5xx = s->ev->flag;
    if (r->restaged)
        return enter(s, RUN_RESTAGED);
    if (s->ev->kind == EV_UPLOAD_STOPPED && !r->killed)
        return 0; /* the worker stops: the next start uploads anew */
    if (s->ev->kind == EV_UPLOAD_FAILED) {
        free(r->upload_error);
        r->upload_error = mem_printf("Error while uploading: %s", s->ev->text);
    }
    return enter(s, RUN_FINALIZING);
}

static unsigned in_uploading(const struct step *s)
{
    switch (s->ev->kind) {
    case EV_ENTER: return s->r->restaged ? enter(s, RUN_RESTAGED) : WANT_UPLOAD;
    case EV_UPLOAD_STATUS: set_status(s->r, s->ev->text); return 0;
    case EV_UPLOADED:
    case EV_UPLOAD_FAILED:
    case EV_UPLOAD_STOPPED: return upload_over(s);
    case EV_KILL: mark_killed(s->r, s->ev->text); return WANT_SAVE | WANT_STOP_UPLOAD;
    case EV_BUNDLE_GONE:
        mark_killed(s->r, "Bundle no longer exists.");
        return WANT_SAVE | WANT_STOP_UPLOAD;
    case EV_RESTAGE: s->r->restaged = true; return WANT_SAVE | WANT_STOP_UPLOAD;
    default: return 0;
    }
}

/* ---- FINALIZING and the ends (6.6, 6.7) ---- */

static unsigned in_finalizing(const struct step *s)
{
    switch (s->ev->kind) {
    case EV_ENTER:
        set_status(s->r, STATUS_FINALIZING);
        return s->r->finalized ? enter(s, RUN_FINISHED) : WANT_TELL;
    case EV_MARK_FINALIZED:
    case EV_BUNDLE_GONE: s->r->finalized = true; return enter(s, RUN_FINISHED);
    case EV_RESTAGE: s->r->restaged = true; return enter(s, RUN_RESTAGED);
    default: return 0;
    }
}

static unsigned in_finished(const struct step *s)
{
    if (s->ev->kind != EV_ENTER)
        return 0;
    return (s->shared_fs ? 0 : WANT_REMOVE_DIR) | WANT_FORGET;
}

static unsigned in_restaged(const struct step *s)
{
    return s->ev->kind == EV_ENTER ? WANT_TELL : 0;
}

static unsigned (*const stage_fns[RUN_STAGE_COUNT])(const struct step *s) = {
    [RUN_PREPARING] = in_preparing,     [RUN_RUNNING] = in_running,
    [RUN_CLEANING_UP] = in_cleaning_up, [RUN_UPLOADING_RESULTS] = in_uploading,
    [RUN_FINALIZING] = in_finalizing,   [RUN_FINISHED] = in_finished,
    [RUN_RESTAGED] = in_restaged,
};

/* Change the stage: close the old one's clock, open the new one's, and ask for what the new one needs. */
static unsigned enter(const struct step *s, enum run_stage stage)
{
    struct run *r = s->r;
    const struct run_event ev = {.kind = EV_ENTER, .now = s->ev->now};
    const struct step again = {.r = r, .ev = &ev, .shared_fs = s->shared_fs};

    if (r->stage < STAGE_COUNT)
        r->times[r->stage].end = ev.now;
    r->stage = stage;
    if (stage < STAGE_COUNT && r->times[stage].start <= 0)
        r->times[stage].start = ev.now;
    return WANT_SAVE | WANT_TELL | stage_fns[stage](&again);
}

unsigned run_stage_step(struct run *r, const struct run_event *ev, bool shared_fs)
{
    const struct step s = {.r = r, .ev = ev, .shared_fs = shared_fs};

    if (ev->kind == EV_MARK_FINALIZED)
        r->finalized =
            true; /* from now on it is not reported, whatever it still has to do (B049) */
    return stage_fns[r->stage](&s);
}
