/*
 * linux.resources ⇄ struct ctr_resources. What has no field of its own becomes the cgroup v2 file it means, in
 * `unified`; several lines for one file (io.max of several disks) are several entries, in JSON one text with newlines.
 */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "runtime/cgroup.h"
#include "runtime/spec.h"
#include "runtime/spec_json_own.h"

int spec_refuse(const cJSON *o, const char *where, const char *key, const char *why, struct err *e)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    bool nothing = !v || cJSON_IsNull(v) || cJSON_IsFalse(v) ||
                   (cJSON_IsNumber(v) && v->valuedouble == 0) ||
                   (cJSON_IsString(v) && !*v->valuestring) ||
                   ((cJSON_IsArray(v) || cJSON_IsObject(v)) && cJSON_GetArraySize(v) == 0);

    return nothing ? 0 : err_set(e, ERR_USER, "%s.%s: %s", where, key, why);
}

static void add_unified(struct ctr_resources *r, const char *file, const char *value)
{
    r->unified = mem_realloc(r->unified, r->n_unified + 1, sizeof(*r->unified));
    r->unified[r->n_unified++] = (struct ctr_key_value){mem_strdup(file), mem_strdup(value)};
}

static int read_memory(const cJSON *o, struct ctr_resources *r, struct err *e)
{
    static const char v1[] = "cgroup v2 has no such limit";
    int64_t swap = 0;
    bool hierarchy = true;

    if (!o)
        return 0;
    if (json_opt_i64(o, "limit", -1, INT64_MAX, &r->memory_limit, e) < 0 ||
        json_opt_i64(o, "reservation", -1, INT64_MAX, &r->memory_reservation, e) < 0 ||
        json_opt_i64(o, "swap", -1, INT64_MAX, &swap, e) < 0 ||
        spec_refuse(o, "memory", "kernel", v1, e) < 0 ||
        spec_refuse(o, "memory", "kernelTCP", v1, e) < 0 ||
        spec_refuse(o, "memory", "swappiness", v1, e) < 0 ||
        json_opt_bool(o, "useHierarchy", &hierarchy, e) < 0 ||
        json_opt_bool(o, "checkBeforeUpdate", &r->check_before_update, e) < 0 ||
        spec_refuse(o, "memory", "disableOOMKiller", "cgroup v2 cannot do without the OOM killer",
                    e) < 0)
        return -1;
    if (!hierarchy)
        return err_set(e, ERR_USER, "memory.useHierarchy: cgroup v2 knows nothing else");
    /* config.json counts memory and swap together. */
    if (swap > 0 && (r->memory_limit <= 0 || swap < r->memory_limit))
        return err_set(
            e, ERR_USER,
            "memory.swap: counts memory and swap together, so it needs a memory limit below it");
    if (swap)
        r->memory_swap_limit = swap < 0 ? -1 : swap - r->memory_limit;
    return 0;
}

static int read_cpu(const cJSON *o, struct ctr_resources *r, struct err *e)
{
    int64_t shares = 0, period = 0;

    if (!o)
        return 0;
    if (json_opt_i64(o, "shares", 0, INT64_MAX, &shares, e) < 0 ||
        json_opt_i64(o, "period", 0, INT64_MAX, &period, e) < 0 ||
        json_opt_i64(o, "quota", -1, INT64_MAX, &r->cpu_quota, e) < 0 ||
        json_opt_i64(o, "burst", 0, INT64_MAX, &r->cpu_burst, e) < 0 ||
        json_opt_i64(o, "idle", 0, 1, &r->cpu_idle, e) < 0 ||
        spec_copy_str(o, "cpus", &r->cpuset_cpus, e) < 0 ||
        spec_copy_str(o, "mems", &r->cpuset_mems, e) < 0 ||
        spec_refuse(o, "cpu", "realtimeRuntime", "cgroup v2 has no real-time groups", e) < 0 ||
        spec_refuse(o, "cpu", "realtimePeriod", "cgroup v2 has no real-time groups", e) < 0)
        return -1;
    r->cpu_shares = (uint64_t)shares;
    r->cpu_period = (uint64_t)period;
    return 0;
}

static int read_throttle(const cJSON *o, const char *key, const char *word, struct ctr_resources *r,
                         struct err *e)
{
    const cJSON *list = NULL, *item;

    if (json_opt_array(o, key, SPEC_LIST, &list, e) < 0)
        return -1;
    cJSON_ArrayForEach(item, list) {
        uint64_t major, minor, rate;
        char line[96];

        if (json_get_u64(item, "major", UINT32_MAX, &major, e) < 0 ||
            json_get_u64(item, "minor", UINT32_MAX, &minor, e) < 0 ||
            json_get_u64(item, "rate", UINT64_MAX, &rate, e) < 0)
            return err_wrap(e, "%s", key);
        snprintf(line, sizeof(line), "%" PRIu64 ":%" PRIu64 " %s=%" PRIu64, major, minor, word,
                 rate);
        add_unified(r, "io.max", line);
    }
    return 0;
}

static int read_weights(const cJSON *o, struct ctr_resources *r, struct err *e)
{
    const cJSON *list = NULL, *item;
    int64_t weight = 0;
    char line[96];

    if (json_opt_i64(o, "weight", 0, 1000, &weight, e) < 0 ||
        json_opt_array(o, "weightDevice", SPEC_LIST, &list, e) < 0)
        return -1;
    if (weight) {
        snprintf(line, sizeof(line), "%" PRIu64, ctr_cgroup_io_weight_of_blkio((uint64_t)weight));
        add_unified(r, "io.weight", line);
    }
    cJSON_ArrayForEach(item, list) {
        uint64_t major, minor, w;

        if (json_get_u64(item, "major", UINT32_MAX, &major, e) < 0 ||
            json_get_u64(item, "minor", UINT32_MAX, &minor, e) < 0 ||
            json_get_u64(item, "weight", 1000, &w, e) < 0 ||
            spec_refuse(item, "weightDevice", "leafWeight", "cgroup v2 has no leaf weights", e) < 0)
            return err_wrap(e, "weightDevice");
        snprintf(line, sizeof(line), "%" PRIu64 ":%" PRIu64 " %" PRIu64, major, minor,
                 ctr_cgroup_io_weight_of_blkio(w));
        add_unified(r, "io.weight", line);
    }
    return 0;
}

static int read_block_io(const cJSON *o, struct ctr_resources *r, struct err *e)
{
    if (!o)
        return 0;
    if (spec_refuse(o, "blockIO", "leafWeight", "cgroup v2 has no leaf weights", e) < 0 ||
        read_weights(o, r, e) < 0 || read_throttle(o, "throttleReadBpsDevice", "rbps", r, e) < 0 ||
        read_throttle(o, "throttleWriteBpsDevice", "wbps", r, e) < 0 ||
        read_throttle(o, "throttleReadIOPSDevice", "riops", r, e) < 0 ||
        read_throttle(o, "throttleWriteIOPSDevice", "wiops", r, e) < 0)
        return err_wrap(e, "blockIO");
    return 0;
}

static int read_hugepages(const cJSON *o, struct ctr_resources *r, struct err *e)
{
    const cJSON *list = NULL, *item;

    if (json_opt_array(o, "hugepageLimits", 64, &list, e) < 0)
        return -1;
    cJSON_ArrayForEach(item, list) {
        const char *size;
        char file[64], value[32];
        uint64_t limit;

        if (json_get_str(item, "pageSize", 16, &size, e) < 0 ||
            json_get_u64(item, "limit", UINT64_MAX, &limit, e) < 0)
            return err_wrap(e, "hugepageLimits");
        if (strspn(size, "0123456789KMGB") != strlen(size))
            return err_set(e, ERR_USER, "hugepageLimits: pageSize is like 2MB");
        snprintf(file, sizeof(file), "hugetlb.%s.max", size);
        snprintf(value, sizeof(value), "%" PRIu64, limit);
        add_unified(r, file, value);
        /* What is reserved counts too, or a mapping could pass the limit on paper and die of it. */
        snprintf(file, sizeof(file), "hugetlb.%s.rsvd.max", size);
        add_unified(r, file, value);
    }
    return 0;
}

static int read_rdma(const cJSON *o, struct ctr_resources *r, struct err *e)
{
    const cJSON *rdma = NULL, *item;

    if (json_opt_object(o, "rdma", &rdma, e) < 0)
        return -1;
    cJSON_ArrayForEach(item, rdma) {
        int64_t handles = -1, objects = -1;
        char line[256], h[24], b[24];

        if (json_opt_i64(item, "hcaHandles", 0, UINT32_MAX, &handles, e) < 0 ||
            json_opt_i64(item, "hcaObjects", 0, UINT32_MAX, &objects, e) < 0)
            return err_wrap(e, "rdma.%.64s", item->string);
        snprintf(h, sizeof(h), handles < 0 ? "max" : "%" PRId64, handles);
        snprintf(b, sizeof(b), objects < 0 ? "max" : "%" PRId64, objects);
        snprintf(line, sizeof(line), "%.128s hca_handle=%s hca_object=%s", item->string, h, b);
        add_unified(r, "rdma.max", line);
    }
    return 0;
}

static int read_rule(const cJSON *item, struct ctr_resources *r, struct err *e)
{
    const char *type = "a", *access = "rwm";
    struct ctr_device_rule rule = {.major = -1, .minor = -1};

    if (json_opt_bool(item, "allow", &rule.allow, e) < 0 ||
        json_opt_str(item, "type", 1, &type, e) < 0 ||
        json_opt_str(item, "access", 3, &access, e) < 0 ||
        json_opt_i64(item, "major", -1, UINT32_MAX, &rule.major, e) < 0 ||
        json_opt_i64(item, "minor", -1, UINT32_MAX, &rule.minor, e) < 0)
        return -1;
    if (!*type)
        type = "a";
    if (!strchr("acb", *type) || strspn(access, "rwm") != strlen(access))
        return err_set(e, ERR_USER, "type is one of a, c, b; access a subset of rwm");
    rule.type = *type;
    snprintf(rule.access, sizeof(rule.access), "%s", *access ? access : "rwm");
    r->devices = mem_realloc(r->devices, r->n_devices + 1, sizeof(rule));
    r->devices[r->n_devices++] = rule;
    return 0;
}

static int read_rules(const cJSON *o, struct ctr_resources *r, struct err *e)
{
    const cJSON *list = NULL, *item;
    size_t i = 0;

    if (json_opt_array(o, "devices", SPEC_LIST, &list, e) < 0)
        return -1;
    cJSON_ArrayForEach(item, list) {
        if (read_rule(item, r, e) < 0)
            return err_wrap(e, "devices[%zu]", i);
        i++;
    }
    return 0;
}

static int read_unified(const cJSON *o, struct ctr_resources *r, struct err *e)
{
    const cJSON *map = NULL, *item;

    if (json_opt_object(o, "unified", &map, e) < 0)
        return -1;
    cJSON_ArrayForEach(item, map) {
        AUTO(str_list) struct str_list lines = {0};

        if (!cJSON_IsString(item))
            return err_set(e, ERR_USER, "unified: values are texts");
        str_list_split(&lines, item->valuestring, '\n');
        for (size_t i = 0; i < lines.n; i++)
            if (*lines.items[i])
                add_unified(r, item->string, lines.items[i]);
    }
    return 0;
}

static int read_network(const cJSON *o, struct err *e)
{
    if (!o)
        return 0;
    return spec_refuse(o, "network", "classID", "cgroup v2 has no network classes", e) < 0
               ? -1
               : spec_refuse(o, "network", "priorities", "cgroup v2 has no network priorities", e);
}

int spec_read_resources(const cJSON *o, struct ctr_resources *r, struct err *e)
{
    const cJSON *memory = NULL, *cpu = NULL, *pids = NULL, *block = NULL, *net = NULL;

    if (json_opt_object(o, "memory", &memory, e) < 0 || json_opt_object(o, "cpu", &cpu, e) < 0 ||
        json_opt_object(o, "pids", &pids, e) < 0 || json_opt_object(o, "blockIO", &block, e) < 0 ||
        json_opt_object(o, "network", &net, e) < 0 || read_memory(memory, r, e) < 0 ||
        read_cpu(cpu, r, e) < 0 ||
        (pids && json_opt_i64(pids, "limit", -1, INT64_MAX, &r->pids_limit, e) < 0) ||
        read_block_io(block, r, e) < 0 || read_hugepages(o, r, e) < 0 || read_rdma(o, r, e) < 0 ||
        read_network(net, e) < 0 || read_rules(o, r, e) < 0 || read_unified(o, r, e) < 0)
        return err_wrap(e, "linux.resources");
    return 0;
}

/* --- writing ----------------------------------------------------------------------------------------------------- */

static void write_nonzero(cJSON *o, const char *key, int64_t value)
{
    if (value)
        json_add_int(o, key, value);
}

static void write_rules(cJSON *o, const struct ctr_resources *r)
{
    cJSON *list = r->n_devices ? json_add_array(o, "devices") : NULL;

    for (size_t i = 0; i < r->n_devices; i++) {
        const struct ctr_device_rule *rule = &r->devices[i];
        cJSON *item = cJSON_CreateObject();
        char type[2] = {rule->type, 0};

        json_add_bool(item, "allow", rule->allow);
        json_add_str(item, "type", type);
        if (rule->major >= 0)
            json_add_int(item, "major", rule->major);
        if (rule->minor >= 0)
            json_add_int(item, "minor", rule->minor);
        json_add_str(item, "access", rule->access);
        cJSON_AddItemToArray(list, item);
    }
}

static void write_unified(cJSON *o, const struct ctr_resources *r)
{
    cJSON *map = r->n_unified ? json_add_object(o, "unified") : NULL;

    for (size_t i = 0; i < r->n_unified; i++) {
        cJSON *old = cJSON_DetachItemFromObjectCaseSensitive(map, r->unified[i].key);
        AUTO_FREE char *text = old ? mem_printf("%s\n%s", old->valuestring, r->unified[i].value)
                                   : mem_strdup(r->unified[i].value);

        cJSON_Delete(old);
        json_add_str(map, r->unified[i].key, text);
    }
}

void spec_write_resources(cJSON *linux_obj, const struct ctr_resources *r)
{
    cJSON *o = json_add_object(linux_obj, "resources");
    cJSON *memory = json_add_object(o, "memory"), *cpu = json_add_object(o, "cpu");

    write_nonzero(memory, "limit", r->memory_limit);
    write_nonzero(memory, "reservation", r->memory_reservation);
    if (r->check_before_update)
        json_add_bool(memory, "checkBeforeUpdate", true);
    if (r->memory_swap_limit != INT64_MIN)
        json_add_int(memory, "swap",
                     r->memory_swap_limit < 0 ? -1 : r->memory_swap_limit + r->memory_limit);
    write_nonzero(cpu, "shares", (int64_t)r->cpu_shares);
    write_nonzero(cpu, "period", (int64_t)r->cpu_period);
    write_nonzero(cpu, "quota", r->cpu_quota);
    write_nonzero(cpu, "burst", r->cpu_burst);
    write_nonzero(cpu, "idle", r->cpu_idle);
    if (r->cpuset_cpus)
        json_add_str(cpu, "cpus", r->cpuset_cpus);
    if (r->cpuset_mems)
        json_add_str(cpu, "mems", r->cpuset_mems);
    if (r->pids_limit)
        json_add_int(json_add_object(o, "pids"), "limit", r->pids_limit);
    write_rules(o, r);
    write_unified(o, r);
}
