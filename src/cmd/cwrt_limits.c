/* update, events: limits and figures of a container. */
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/opt.h"
#include "base/units.h"
#include "cwrt.h"
#include "runtime/cgroup.h"
#include "runtime/container.h"
#include "runtime/spec.h"
#include "runtime/spec_json.h"

struct update_options {
    char *resources, *memory, *memory_swap, *memory_reservation, *cpus, *mems, *pids, *quota,
        *period, *shares, *burst, *idle, *weight;
};

/* clang-format off */
static const struct opt update_table[] = {
    OPT_ROW(struct update_options, resources, "resources", 'r', OPT_STR, "FILE", NULL, "linux.resources as JSON; - reads standard input"),
    OPT_ROW(struct update_options, memory, "memory", 0, OPT_STR, "BYTES", NULL, "memory limit; -1: none"),
    OPT_ROW(struct update_options, memory_swap, "memory-swap", 0, OPT_STR, "BYTES", NULL, "memory and swap together; -1: none"),
    OPT_ROW(struct update_options, memory_reservation, "memory-reservation", 0, OPT_STR, "BYTES", NULL, "memory to be left alone"),
    OPT_ROW(struct update_options, cpus, "cpuset-cpus", 0, OPT_STR, "LIST", NULL, "CPUs, as 0-2,5"),
    OPT_ROW(struct update_options, mems, "cpuset-mems", 0, OPT_STR, "LIST", NULL, "memory nodes"),
    OPT_ROW(struct update_options, pids, "pids-limit", 0, OPT_STR, "N", NULL, "most processes; -1: no limit"),
    OPT_ROW(struct update_options, quota, "cpu-quota", 0, OPT_STR, "US", NULL, "CPU time a period; -1: no limit"),
    OPT_ROW(struct update_options, period, "cpu-period", 0, OPT_STR, "US", NULL, "length of a period"),
    OPT_ROW(struct update_options, shares, "cpu-share", 0, OPT_STR, "N", NULL, "weight among others, 2 to 262144"),
    OPT_ROW(struct update_options, burst, "cpu-burst", 0, OPT_STR, "US", NULL, "CPU time saved up at most"),
    OPT_ROW(struct update_options, idle, "cpu-idle", 0, OPT_STR, "0|1", NULL, "run only when nobody else wants to"),
    OPT_ROW(struct update_options, weight, "blkio-weight", 0, OPT_STR, "N", NULL, "I/O weight, 10 to 1000"),
    {0},
};
/* clang-format on */

static int add_number(cJSON *parent, const char *key, const char *text, struct err *e)
{
    int64_t value;

    if (!text)
        return 0;
    if (units_i64(text, -1, INT64_MAX, &value, e) < 0)
        return err_wrap(e, "%s", key);
    json_add_int(parent, key, value);
    return 0;
}

/* The flags as the document they stand for, so that one reader judges both. */
static char *document(const struct update_options *o, struct err *e)
{
    AUTO(cJSON) cJSON *top = cJSON_CreateObject();
    cJSON *memory = json_add_object(top, "memory"), *cpu = json_add_object(top, "cpu");

    if (add_number(memory, "limit", o->memory, e) < 0 ||
        add_number(memory, "swap", o->memory_swap, e) < 0 ||
        add_number(memory, "reservation", o->memory_reservation, e) < 0 ||
        add_number(cpu, "quota", o->quota, e) < 0 || add_number(cpu, "period", o->period, e) < 0 ||
        add_number(cpu, "shares", o->shares, e) < 0 || add_number(cpu, "burst", o->burst, e) < 0 ||
        add_number(cpu, "idle", o->idle, e) < 0)
        return NULL;
    if (o->cpus)
        json_add_str(cpu, "cpus", o->cpus);
    if (o->mems)
        json_add_str(cpu, "mems", o->mems);
    if (o->pids && add_number(json_add_object(top, "pids"), "limit", o->pids, e) < 0)
        return NULL;
    if (o->weight && add_number(json_add_object(top, "blockIO"), "weight", o->weight, e) < 0)
        return NULL;
    return json_text(top);
}

static char *read_document(const char *path, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(BOUND_CONFIG_JSON);
    AUTO_CLOSE int fd = strcmp(path, "-") == 0 ? fd_dup(0) : open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        err_sys(e, "%s", path);
    return fd < 0 || fd_read_all(fd, &text, e) < 0 ? NULL : str_take(&text);
}

static int update(const char *id, const struct update_options *o, struct err *e)
{
    AUTO(ctr) struct ctr *c = NULL;
    AUTO(ctr_spec) struct ctr_spec *s = NULL;
    AUTO_FREE char *resources = o->resources ? read_document(o->resources, e) : document(o, e);

    if (!resources)
        return -1;
    AUTO_FREE char *whole =
        mem_printf("{\"ociVersion\":\"1.0.0\",\"linux\":{\"resources\":%s}}", resources);

    if (ctr_spec_from_json(whole, strlen(whole), &s, e) < 0 ||
        ctr_open(cwrt_global.root, id, &c, e) < 0)
        return -1;
    if (!ctr_cgroup_of(c))
        return err_set(e, ERR_USER, "container %s has no cgroup any more", id);
    return ctr_cgroup_update(ctr_cgroup_of(c), &s->resources, e);
}

int cwrt_update(int argc, char **argv, struct err *e)
{
    struct update_options o = {0};
    AUTO(str_list) struct str_list words = {0};
    int r = cwrt_flags(update_table, argc, argv, &o, &words, 1, 1, "cwrt update [flags] ID", e);

    if (r == 0)
        r = update(words.items[0], &o, e);
    opt_free(update_table, &o);
    return r < 0 ? -1 : 0;
}

struct events_options {
    char *interval;
    bool stats;
};

static void print_event(const char *id, const char *type, cJSON *data)
{
    AUTO(cJSON) cJSON *o = cJSON_CreateObject();

    json_add_str(o, "type", type);
    json_add_str(o, "id", id);
    if (data)
        json_add_item(o, "data", data);
    AUTO_FREE char *text = json_text(o);

    printf("%s\n", text);
    fflush(stdout);
}

/* The part of runc's document that cgroup v2 has figures for. */
static cJSON *stats_json(const struct ctr_cgroup_stats *st)
{
    cJSON *top = cJSON_CreateObject(), *cpu = json_add_object(top, "cpu"),
          *usage = json_add_object(cpu, "usage"), *throttling = json_add_object(cpu, "throttling"),
          *memory = json_add_object(top, "memory"), *used = json_add_object(memory, "usage"),
          *pids = json_add_object(top, "pids");

    json_add_int(usage, "total", (int64_t)(st->cpu_usage_us * 1000));
    json_add_int(usage, "kernel", (int64_t)(st->cpu_system_us * 1000));
    json_add_int(usage, "user", (int64_t)(st->cpu_user_us * 1000));
    json_add_int(throttling, "periods", (int64_t)st->cpu_periods);
    json_add_int(throttling, "throttledPeriods", (int64_t)st->cpu_throttled);
    json_add_int(throttling, "throttledTime", (int64_t)(st->cpu_throttled_us * 1000));
    json_add_int(used, "usage", (int64_t)st->memory_current);
    json_add_int(used, "max", (int64_t)st->memory_peak);
    json_add_int(used, "failcnt", (int64_t)st->memory_max_hits);
    json_add_int(pids, "current", (int64_t)st->pids_current);
    return top;
}

/* One line each interval, and one when the kernel has killed for memory, until the container ends. */
static int watch(struct ctr *c, const char *id, uint64_t interval_s, bool once, struct err *e)
{
    uint64_t kills = 0;
    bool first = true;

    for (;;) {
        struct ctr_cgroup_stats st;

        if (!ctr_cgroup_of(c))
            return err_set(e, ERR_USER, "container not running");
        if (ctr_cgroup_stats(ctr_cgroup_of(c), &st, e) < 0)
            return -1;
        if (!first && st.oom_kills > kills)
            print_event(id, "oom", NULL);
        kills = st.oom_kills;
        first = false;
        print_event(id, "stats", stats_json(&st));
        if (once || fd_wait(ctr_pidfd(c), POLLIN, clock_in_ns(interval_s * NS_PER_S)) != 0)
            return 0;
    }
}

int cwrt_events(int argc, char **argv, struct err *e)
{
    static const struct opt table[] = {OPT_ROW(struct events_options, interval, "interval", 0,
                                               OPT_STR, "TIME", "5s",
                                               "between two lines of figures"),
                                       OPT_ROW(struct events_options, stats, "stats", 0, OPT_FLAG,
                                               NULL, NULL, "one line of figures, then end"),
                                       {0}};
    struct events_options o = {0};
    AUTO(str_list) struct str_list words = {0};
    AUTO(ctr) struct ctr *c = NULL;
    uint64_t interval = 0;
    int r = cwrt_flags(table, argc, argv, &o, &words, 1, 1, "cwrt events [flags] ID", e);

    if (r == 0 && (units_duration(o.interval, &interval, e) < 0 ||
                   ctr_open(cwrt_global.root, words.items[0], &c, e) < 0))
        r = -1;
    if (r == 0 && !interval)
        r = err_set(e, ERR_USER, "--interval: must be longer than 0");
    if (r == 0)
        r = ctr_pidfd(c) < 0 ? err_set(e, ERR_USER, "container not running")
                             : watch(c, words.items[0], interval, o.stats, e);
    opt_free(table, &o);
    return r < 0 ? -1 : 0;
}
