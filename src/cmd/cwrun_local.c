/*
 * ps, stats, kill: the runs of this host's worker.
 */
#include "cmd/cwrun_local.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"
#include "cmd/cwrun.h"
#include "runtime/exit.h"
#include "runtime/shim.h"
#include "worker/container.h"
#include "worker/local_api.h"
#include "worker/protocol.h"

/* ---- without the worker ---- */

/* The bundle directory is what is mounted at /{uuid} (protocol 5.2); config.json is the shim's own copy. */
static void add_from_config(cJSON *o, const char *runtime_dir, const char *uuid)
{
    AUTO_FREE char *path = mem_printf("%s/%s/config.json", runtime_dir, uuid);
    AUTO(str) struct str text = STR_INIT(BOUND_CONFIG_JSON);
    AUTO(cJSON) cJSON *v = NULL;
    struct err ignored = ERR_INIT;
    const cJSON *m;

    if (fd_read_file_at(AT_FDCWD, path, &text, &ignored) < 0 ||
        json_parse(str_text(&text), text.len, &v, &ignored) < 0)
        return;
    cJSON_ArrayForEach(m, cJSON_GetObjectItemCaseSensitive(v, "mounts")) {
        const char *destination = cwrun_local_text(m, "destination");
        if (destination[0] == '/' && str_eq(destination + 1, uuid))
            json_add_str(o, "dir", cwrun_local_text(m, "source"));
    }
    const cJSON *linux_part = cJSON_GetObjectItemCaseSensitive(v, "linux");
    const cJSON *memory = cJSON_GetObjectItemCaseSensitive(
        cJSON_GetObjectItemCaseSensitive(linux_part, "resources"), "memory");
    int64_t limit = 0;
    if (cJSON_IsObject(memory) &&
        json_opt_i64(memory, "limit", 0, INT64_MAX, &limit, &ignored) == 0)
        json_add_int(o, "memory_limit", limit);
}

static void add_stats(cJSON *o, struct ctr_shim *shim)
{
    struct ctr_stats s = {0};
    struct err ignored = ERR_INIT;

    if (ctr_shim_stats(shim, &s, &ignored) == 0)
        local_api_add_figures(o, &s);
}

static cJSON *look(const char *runtime_dir, const char *uuid, bool stats)
{
    AUTO(ctr_shim) struct ctr_shim *shim = NULL;
    struct exit_record record = {0};
    struct err ignored = ERR_INIT;
    cJSON *o = cJSON_CreateObject();

    json_add_str(o, "uuid", uuid);
    add_from_config(o, runtime_dir, uuid);
    if (ctr_shim_adopt(runtime_dir, uuid, &shim, &ignored) == 0) {
        json_add_str(o, "stage", ctr_shim_is_started(shim) ? "RUNNING" : "CREATED");
        json_add_str(o, "status", "no worker answers; the container lives on");
        json_add_int(o, "pid", ctr_shim_pid(shim));
        if (stats)
            add_stats(o, shim);
    } else if (container_record(runtime_dir, uuid, &record, &ignored) == 0) {
        AUTO_FREE char *text = mem_printf("no worker answers; ended with status %d", record.status);
        json_add_str(o, "stage", "ENDED");
        json_add_str(o, "status", text);
    } else {
        json_add_str(o, "stage", "LOST");
        json_add_str(o, "status",
                     "neither container nor exit record: the worker's next start cleans it up");
    }
    return o;
}

static int runs_of_directories(const char *runtime_dir, const char *uuid, bool stats, cJSON **ret,
                               struct err *e)
{
    AUTO(str_list) struct str_list ids = {0};
    cJSON *list = cJSON_CreateArray();

    if (access(runtime_dir, F_OK) == 0 && ctr_shim_list(runtime_dir, &ids, e) < 0) {
        cJSON_Delete(list);
        return -1;
    }
    for (size_t i = 0; i < ids.n; i++)
        if (protocol_is_uuid(ids.items[i]) && (!uuid || str_eq(uuid, ids.items[i])))
            cJSON_AddItemToArray(list, look(runtime_dir, ids.items[i], stats));
    *ret = list;
    return 0;
}

/* ---- either way ---- */

const char *cwrun_local_text(const cJSON *run, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(run, key);

    return cJSON_IsString(v) ? v->valuestring : "";
}

static double number(const cJSON *run, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(run, key);

    return cJSON_IsNumber(v) ? v->valuedouble : -1;
}

int cwrun_local_runs(const char *runtime_dir, const char *uuid, bool stats, cJSON **ret,
                     struct err *e)
{
    AUTO(cJSON) cJSON *request = cJSON_CreateObject();

    json_add_str(request, "method", "runs");
    if (uuid)
        json_add_str(request, "uuid", uuid);
    json_add_bool(request, "stats", stats);
    if (local_api_call(runtime_dir, request, CWRUN_LOCAL_ANSWER_NS, ret, e) == 0)
        return 0;
    if (e->kind != ERR_ABSENT)
        return -1;
    err_clear(e);
    return runs_of_directories(runtime_dir, uuid, stats, ret, e);
}

int cwrun_local_find(const char *runtime_dir, const char *text, bool stats, cJSON **ret,
                     struct err *e)
{
    AUTO(cJSON) cJSON *list = NULL;
    const cJSON *found = NULL, *v;
    char shown[STR_SHOW_MAX];

    if (cwrun_local_runs(runtime_dir, protocol_is_uuid(text) ? text : NULL, stats, &list, e) < 0)
        return -1;
    cJSON_ArrayForEach(v, list) {
        if (!str_starts(cwrun_local_text(v, "uuid"), text))
            continue;
        if (found)
            return err_set(e, ERR_USER, "several runs begin with %s", str_show(shown, text));
        found = v;
    }
    if (!found || !*text)
        return err_set(e, ERR_ABSENT, "no run %s on this host (cwrun ps lists them)",
                       str_show(shown, text));
    *ret = cJSON_Duplicate(found, true);
    return 0;
}

/* ---- the verbs ---- */

struct local_options {
    char *runtime_dir, *message;
    bool json;
};
#define RUNTIME_ROW                                                              \
    OPT_ROW(struct local_options, runtime_dir, "runtime-dir", 0, OPT_STR, "DIR", \
            CWRUN_RUNTIME_DIR, "the worker's --runtime-dir")
static const struct opt list_table[] = {
    RUNTIME_ROW,
    OPT_ROW(struct local_options, json, "json", 0, OPT_FLAG, NULL, NULL,
            "as JSON, with all that is known"),
    {0},
};
static const struct opt kill_table[] = {
    RUNTIME_ROW,
    OPT_ROW(struct local_options, message, "message", 'm', OPT_STR, "TEXT", "Kill requested",
            "the failure message its owner will see"),
    {0},
};

static void print_json(const cJSON *v)
{
    AUTO_FREE char *text = json_text(v);

    puts(text);
}

static const char *size_text(const cJSON *run, const char *key, char buf[UNITS_TEXT_MAX])
{
    double n = number(run, key);
    char *text = n >= 0 ? units_size_str(buf, n, true) : NULL;

    return text ? text : "-";
}

static void print_run(const cJSON *run)
{
    char age[UNITS_TEXT_MAX] = "-", shown[STR_SHOW_MAX], status[STR_SHOW_MAX];
    double start = number(run, "start");

    if (start > 0)
        units_duration_str(age, clock_epoch() - start);
    printf("%-34s  %-17s %-9s %8.0f  %-30s %s\n", cwrun_local_text(run, "uuid"),
           cwrun_local_text(run, "stage"), age, number(run, "pid") > 0 ? number(run, "pid") : 0,
           str_show(shown, cwrun_local_text(run, "image")),
           str_show(status, cwrun_local_text(run, "status")));
}

int cwrun_ps(int argc, char **argv)
{
    AUTO(cJSON) cJSON *list = NULL;
    struct local_options o = {0};
    struct err e = ERR_INIT;
    const cJSON *v;
    int rc = cwrun_parse(
        list_table, "cwrun ps [flags]",
        "List the runs of this host's worker; its containers also while no worker runs.", argc,
        argv, true, &o, NULL, NULL);

    if (rc == 0 && cwrun_local_runs(o.runtime_dir, NULL, false, &list, &e) < 0)
        rc = cwrun_fail(&e);
    if (rc == 0 && o.json) {
        print_json(list);
    } else if (rc == 0) {
        printf("%-34s  %-17s %-9s %8s  %-30s %s\n", "UUID", "STAGE", "AGE", "PID", "IMAGE",
               "STATUS");
        cJSON_ArrayForEach(v, list) {
            print_run(v);
        }
    }
    opt_free(list_table, &o);
    return rc < 0 ? EXIT_USAGE : rc == 1 ? 0 : rc;
}

/* How much of the time between two looks this counter of seconds has counted; "-" when one of them has none. */
static const char *share_text(const cJSON *before, const cJSON *run, const char *key,
                              double seconds, char buf[static UNITS_TEXT_MAX])
{
    double now = number(run, key), old = number(before, key);

    snprintf(buf, UNITS_TEXT_MAX, "-");
    if (now >= 0 && old >= 0)
        snprintf(buf, UNITS_TEXT_MAX, "%.0f%%", (now - old) / seconds * 100);
    return buf;
}

#define STATS_SHARES "%6s %9s %8s %8s %8s"

static void print_shares(const cJSON *before, const cJSON *run, double seconds)
{
    char b[5][UNITS_TEXT_MAX];

    printf(STATS_SHARES, share_text(before, run, "cpu_seconds", seconds, b[0]),
           share_text(before, run, "throttled_seconds", seconds, b[1]),
           share_text(before, run, "cpu_stall", seconds, b[2]),
           share_text(before, run, "memory_stall", seconds, b[3]),
           share_text(before, run, "io_stall", seconds, b[4]));
}

static void print_stats(const cJSON *before, const cJSON *run, double seconds)
{
    static const char *const sizes[] = {"memory",  "memory_limit", "memory_peak", "disk",
                                        "io_read", "io_written",   "net_sent",    "net_received"};
    char buf[UNITS_TEXT_MAX];

    printf("%-34s  ", cwrun_local_text(run, "uuid"));
    print_shares(before, run, seconds);
    printf(" %6.0f", number(run, "pids") > 0 ? number(run, "pids") : 0);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
        printf(" %10s", size_text(run, sizes[i], buf));
    puts("");
}

static void print_stats_head(void)
{
    static const char *const sizes[] = {"MEMORY", "LIMIT",   "PEAK", "DISK",
                                        "READ",   "WRITTEN", "SENT", "RECEIVED"};

    printf("%-34s  " STATS_SHARES " %6s", "UUID", "CPU", "THROTTLED", "CPU-WAIT", "MEM-WAIT",
           "IO-WAIT", "PIDS");
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
        printf(" %10s", sizes[i]);
    puts("");
}

static const cJSON *same_run(const cJSON *list, const cJSON *run)
{
    const cJSON *v;

    cJSON_ArrayForEach(v, list) {
        if (str_eq(cwrun_local_text(v, "uuid"), cwrun_local_text(run, "uuid")))
            return v;
    }
    return NULL;
}

/* Two looks half a second apart: the use of CPUs is what lies between them. */
static int show_stats(const struct local_options *o, const char *text, struct err *e)
{
    AUTO(cJSON) cJSON *first = NULL;
    AUTO(cJSON) cJSON *list = NULL;
    uint64_t begin = clock_now_ns();
    const cJSON *v;

    if (cwrun_local_runs(o->runtime_dir, NULL, true, &first, e) < 0)
        return -1;
    poll(NULL, 0, 500);
    if (cwrun_local_runs(o->runtime_dir, NULL, true, &list, e) < 0)
        return -1;
    double seconds = (double)(clock_now_ns() - begin) / 1e9;
    if (o->json) {
        print_json(list);
        return 0;
    }
    print_stats_head();
    cJSON_ArrayForEach(v, list) {
        if (!text || str_starts(cwrun_local_text(v, "uuid"), text))
            print_stats(same_run(first, v), v, seconds);
    }
    return 0;
}

int cwrun_stats(int argc, char **argv)
{
    AUTO(str_list) struct str_list words = {0};
    struct local_options o = {0};
    struct err e = ERR_INIT;
    int rc = cwrun_parse(
        list_table, "cwrun stats [flags] [UUID]",
        "Show what runs use: CPU, memory, processes, disk, network, and what they wait for.", argc,
        argv, false, &o, &words, NULL);

    if (rc == 0 && show_stats(&o, words.n ? words.items[0] : NULL, &e) < 0)
        rc = cwrun_fail(&e);
    opt_free(list_table, &o);
    return rc < 0 ? EXIT_USAGE : rc == 1 ? 0 : rc;
}

/* Without a worker the container gets SIGKILL by its shim; the worker's next start reports how it ended. */
static int kill_one(const struct local_options *o, const char *text, struct err *e)
{
    AUTO(ctr_shim) struct ctr_shim *shim = NULL;
    AUTO(cJSON) cJSON *request = cJSON_CreateObject();
    AUTO(cJSON) cJSON *run = NULL;
    AUTO(cJSON) cJSON *done = NULL;

    if (cwrun_local_find(o->runtime_dir, text, false, &run, e) < 0)
        return -1;
    const char *uuid = cwrun_local_text(run, "uuid");
    json_add_str(request, "method", "kill");
    json_add_str(request, "uuid", uuid);
    json_add_str(request, "message", o->message);
    if (local_api_call(o->runtime_dir, request, CWRUN_LOCAL_ANSWER_NS, &done, e) == 0)
        return 0;
    if (e->kind != ERR_ABSENT || !e->sys)
        return -1;
    if (ctr_shim_adopt(o->runtime_dir, uuid, &shim, e) < 0 || ctr_shim_kill(shim, SIGKILL, e) < 0)
        return err_wrap(e, "kill %s", uuid);
    return 0;
}

int cwrun_kill(int argc, char **argv)
{
    AUTO(str_list) struct str_list words = {0};
    struct local_options o = {0};
    struct err e = ERR_INIT;
    int rc = cwrun_parse(
        kill_table, "cwrun kill [flags] UUID...",
        "End runs as `cl kill` does: what they have written is uploaded. The beginning of a uuid will do.",
        argc, argv, false, &o, &words, NULL);

    if (rc == 0 && !words.n) {
        fputs("cwrun kill: error: which run?\n", stderr);
        rc = -1;
    }
    for (size_t i = 0; i < words.n && rc >= 0 && rc != 1; i++)
        if (kill_one(&o, words.items[i], &e) < 0)
            rc = cwrun_fail(&e);
    opt_free(kill_table, &o);
    return rc < 0 ? EXIT_USAGE : rc == 1 ? 0 : rc;
}
