/*
 * The text of a check-in (3.1, 3.2). It tells every run each time, also those of which there is no news, so a run's part is
 * kept until the run has something else to say: what a check-in costs must not be what all runs cost.
 */
#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/mem.h"
#include "worker/protocol.h"

static int put_text(struct str *s, const char *key, const char *text)
{
    AUTO_FREE char *ascii = text ? str_ascii(text, BOUND_STATUS_TEXT) : NULL;

    return json_put_str(s, key, ascii);
}

static int put_or_null(struct str *s, const char *key, bool there, double value)
{
    return there ? json_put_micro(s, key, value) : json_put_null(s, key);
}

static int put_times(struct str *s, const struct stage_time *times)
{
    static const char *const names[STAGE_COUNT] = {
        "RUN_STAGE.PREPARING",         "RUN_STAGE.RUNNING",    "RUN_STAGE.CLEANING_UP",
        "RUN_STAGE.UPLOADING_RESULTS", "RUN_STAGE.FINALIZING",
    };

    if (json_put_open(s, "bundle_profile_stats", '{') < 0)
        return -1;
    for (int i = 0; i < STAGE_COUNT; i++) {
        const struct stage_time *t = &times[i];
        double elapsed = t->end > t->start ? t->end - t->start : 0;

        if (json_put_open(s, names[i], '{') < 0 ||
            put_or_null(s, "start", t->start > 0, t->start) < 0 ||
            put_or_null(s, "end", t->end > 0, t->end) < 0 ||
            put_or_null(s, "elapsed", t->end > 0, elapsed) < 0 || json_put_close(s, '}') < 0)
            return -1;
    }
    return json_put_close(s, '}');
}

static int put_figures(struct str *s, const struct run_report *r)
{
    return json_put_micro(s, "bundle_start_time", r->bundle_start_time) < 0 ||
                   json_put_micro(s, "container_time_total", r->container_time_total) < 0 ||
                   json_put_micro(s, "container_time_user", r->container_time_user) < 0 ||
                   json_put_micro(s, "container_time_system", r->container_time_system) < 0 ||
                   put_or_null(s, "cpu_usage", r->cpu_usage >= 0, r->cpu_usage) < 0 ||
                   put_or_null(s, "memory_usage", r->memory_usage >= 0, r->memory_usage) < 0 ||
                   json_put_int(s, "disk_utilization", (int64_t)r->disk_utilization) < 0 ||
                   put_times(s, r->times) < 0
               ? -1
               : 0;
}

static int put_report(struct str *s, const struct run_report *r, const char *status)
{
    if (json_put_open(s, NULL, '{') < 0 || json_put_str(s, "uuid", r->uuid) < 0 ||
        put_text(s, "run_status", status) < 0 || put_text(s, "docker_image", r->docker_image) < 0 ||
        json_put_str(s, "state", r->state) < 0 || put_text(s, "remote", r->remote) < 0 ||
        put_text(s, "failure_message", r->failure_message) < 0)
        return -1;
    int rc =
        r->has_exitcode ? json_put_int(s, "exitcode", r->exitcode) : json_put_null(s, "exitcode");

    return rc < 0 || put_figures(s, r) < 0 ? -1 : json_put_close(s, '}');
}

/* ---- kept texts ---- */

_Static_assert(sizeof(struct run_report) ==
                   7 * sizeof(char *) + 64 + sizeof(struct stage_time[STAGE_COUNT]),
               "whatever a report tells is compared here");

static bool is_same_times(const struct stage_time *a, const struct stage_time *b)
{
    for (int i = 0; i < STAGE_COUNT; i++)
        if (a[i].start != b[i].start || a[i].end != b[i].end)
            return false;
    return true;
}

static bool is_same(const struct run_report *a, const struct run_report *b)
{
    return str_eq(a->uuid, b->uuid) && str_eq(a->run_status, b->run_status) &&
           str_eq(a->docker_image, b->docker_image) && str_eq(a->state, b->state) &&
           str_eq(a->remote, b->remote) && str_eq(a->failure_message, b->failure_message) &&
           a->bundle_start_time == b->bundle_start_time &&
           a->container_time_total == b->container_time_total &&
           a->container_time_user == b->container_time_user &&
           a->container_time_system == b->container_time_system &&
           a->has_exitcode == b->has_exitcode && a->exitcode == b->exitcode &&
           a->cpu_usage == b->cpu_usage && a->memory_usage == b->memory_usage &&
           a->disk_utilization == b->disk_utilization && is_same_times(a->times, b->times);
}

static void free_copy(struct run_report *r)
{
    const char *strings[] = {r->uuid,  r->run_status, r->docker_image,
                             r->state, r->remote,     r->failure_message};

    for (size_t i = 0; i < ARRAY_SIZE(strings); i++)
        free((char *)strings[i]);
    *r = (struct run_report){0};
}

static void copy_report(struct run_report *to, const struct run_report *from)
{
    free_copy(to);
    *to = *from;
    to->kept = NULL;
    to->uuid = mem_strdup(from->uuid);
    to->run_status = mem_strdup(from->run_status);
    to->docker_image = mem_strdup(from->docker_image);
    to->state = mem_strdup(from->state);
    to->remote = mem_strdup(from->remote);
    to->failure_message = mem_strdup(from->failure_message);
}

void protocol_checkin_forget(struct report_text *k)
{
    free_copy(&k->of);
    free(k->text);
    k->text = NULL;
}

static void keep(struct report_text *k, const struct run_report *r)
{
    struct str s = STR_INIT(BOUND_SERVICE_JSON);

    if (k->text && is_same(&k->of, r))
        return;
    BUG_ON(put_report(&s, r, r->run_status) < 0);
    copy_report(&k->of, r);
    free(k->text);
    k->n = s.len;
    k->text = str_take(&s);
    k->made++;
}

/* ---- all of it ---- */

static int put_run(struct str *s, const struct run_report *r, bool with_status)
{
    if (!with_status || !r->kept)
        return put_report(s, r, with_status ? r->run_status : "");
    keep(r->kept, r);
    return json_put_text(s, NULL, r->kept->text, r->kept->n);
}

static int put_runs(struct str *s, const struct checkin_request *r, bool with_status)
{
    if (json_put_open(s, "runs", '[') < 0)
        return -1;
    for (size_t i = 0; i < r->n_runs; i++)
        if (put_run(s, &r->runs[i], with_status) < 0)
            return -1;
    return json_put_close(s, ']');
}

static int put_worker(struct str *s, const struct checkin_request *r)
{
    const char *keys = r->dependencies ? r->dependencies : "[]";

    return json_put_str(s, "tag", r->tag) < 0 || json_put_str(s, "group_name", r->group_name) < 0 ||
                   json_put_int(s, "cpus", r->cpus) < 0 || json_put_int(s, "gpus", r->gpus) < 0 ||
                   json_put_int(s, "memory_bytes", r->memory_bytes) < 0 ||
                   json_put_int(s, "free_disk_bytes", r->free_disk_bytes) < 0 ||
                   json_put_text(s, "dependencies", keys, strlen(keys)) < 0 ||
                   json_put_str(s, "hostname", r->hostname) < 0 ||
                   json_put_bool(s, "shared_file_system", r->shared_file_system) < 0 ||
                   json_put_bool(s, "tag_exclusive", r->tag_exclusive) < 0 ||
                   json_put_int(s, "exit_after_num_runs", r->exit_after_num_runs) < 0 ||
                   json_put_bool(s, "is_terminating", r->is_terminating) < 0 ||
                   json_put_bool(s, "preemptible", r->preemptible) < 0
               ? -1
               : 0;
}

static int put_checkin(struct str *s, const struct checkin_request *r, bool with_status)
{
    return json_put_open(s, NULL, '{') < 0 || put_worker(s, r) < 0 ||
                   put_runs(s, r, with_status) < 0 || json_put_close(s, '}') < 0
               ? -1
               : 0;
}

char *protocol_checkin_text(const struct checkin_request *r)
{
    AUTO(str) struct str s = STR_INIT(BOUND_SERVICE_JSON - 1);
    struct str short_one = STR_INIT(SIZE_MAX / 2);

    if (put_checkin(&s, r, true) == 0)
        return str_take(&s);
    BUG_ON(put_checkin(&short_one, r, false) < 0);
    return str_take(&short_one);
}
