/* config.json's linux object, without resources. */
#include <net/if.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/units.h"
#include "runtime/names.h"
#include "runtime/rdt.h"
#include "runtime/spec.h"
#include "runtime/spec_json_own.h"

static int read_namespaces(const cJSON *o, struct ctr_spec *s, struct err *e)
{
    const cJSON *list = NULL, *item;

    if (json_opt_array(o, "namespaces", 64, &list, e) < 0)
        return -1;
    cJSON_ArrayForEach(item, list) {
        const char *type, *path = NULL;

        if (json_get_str(item, "type", 64, &type, e) < 0 ||
            json_opt_str(item, "path", SPEC_TEXT, &path, e) < 0)
            return err_wrap(e, "namespaces");
        ctr_spec_add_namespace(s, type, path && *path ? path : NULL);
    }
    return 0;
}

static int read_device(const cJSON *item, struct ctr_spec *s, struct err *e)
{
    struct ctr_device d = {.file_mode = -1};
    const char *path, *type;
    int64_t uid = 0, gid = 0;

    if (json_get_str(item, "path", SPEC_TEXT, &path, e) < 0 ||
        json_get_str(item, "type", 1, &type, e) < 0 ||
        json_opt_i64(item, "major", 0, UINT32_MAX, &d.major, e) < 0 ||
        json_opt_i64(item, "minor", 0, UINT32_MAX, &d.minor, e) < 0 ||
        json_opt_i64(item, "fileMode", 0, 07777, &d.file_mode, e) < 0 ||
        json_opt_i64(item, "uid", 0, UINT32_MAX - 1, &uid, e) < 0 ||
        json_opt_i64(item, "gid", 0, UINT32_MAX - 1, &gid, e) < 0)
        return -1;
    d.path = (char *)path;
    d.type = *type;
    d.uid = (uint32_t)uid;
    d.gid = (uint32_t)gid;
    ctr_spec_add_device(s, &d);
    return 0;
}

static int read_devices(const cJSON *o, struct ctr_spec *s, struct err *e)
{
    const cJSON *list = NULL, *item;
    size_t i = 0;

    if (json_opt_array(o, "devices", SPEC_LIST, &list, e) < 0)
        return -1;
    cJSON_ArrayForEach(item, list) {
        if (read_device(item, s, e) < 0)
            return err_wrap(e, "devices[%zu]", i);
        i++;
    }
    return 0;
}

static int read_personality(const cJSON *o, struct ctr_spec *s, struct err *e)
{
    const cJSON *p = NULL;
    const char *domain;
    uint64_t value;

    if (json_opt_object(o, "personality", &p, e) < 0)
        return -1;
    if (!p)
        return 0;
    if (json_get_str(p, "domain", 32, &domain, e) < 0)
        return err_wrap(e, "personality");
    if (name_lookup(ctr_names_personality, domain, &value) < 0)
        return err_set(e, ERR_USER, "personality.domain: LINUX or LINUX32");
    s->has_personality = true;
    s->personality = (uint32_t)value;
    return spec_refuse(p, "personality", "flags", "no flag is defined", e);
}

static int read_offset(const cJSON *o, const char *key, struct ctr_time_offset *ret, struct err *e)
{
    const cJSON *v = NULL;
    int64_t nanosecs = 0;

    if (json_opt_object(o, key, &v, e) < 0)
        return -1;
    if (!v)
        return 0;
    if (json_opt_i64(v, "secs", INT64_MIN, INT64_MAX, &ret->secs, e) < 0 ||
        json_opt_i64(v, "nanosecs", 0, 999999999, &nanosecs, e) < 0)
        return err_wrap(e, "timeOffsets.%s", key);
    ret->nanosecs = (uint32_t)nanosecs;
    ret->set = true;
    return 0;
}

static int read_time(const cJSON *o, struct ctr_spec *s, struct err *e)
{
    const cJSON *t = NULL;

    if (json_opt_object(o, "timeOffsets", &t, e) < 0)
        return -1;
    if (!t)
        return 0;
    if (ctr_spec_namespace(s, "time", NULL) != 0)
        return err_set(e, ERR_USER, "timeOffsets needs a new time namespace");
    return read_offset(t, "monotonic", &s->time_monotonic, e) < 0
               ? -1
               : read_offset(t, "boottime", &s->time_boottime, e);
}

/* Names as the kernel takes them (dev_valid_name), so that one too long is not cut to another's. */
static bool is_device_name(const char *name)
{
    return *name && strlen(name) < IFNAMSIZ && !strpbrk(name, "/: \t\n") &&
           strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static int read_net_devices(const cJSON *o, struct ctr_spec *s, struct err *e)
{
    const cJSON *map = NULL, *item;

    if (json_opt_object(o, "netDevices", &map, e) < 0)
        return -1;
    cJSON_ArrayForEach(item, map) {
        const char *name = NULL;

        if (json_opt_str(item, "name", 64, &name, e) < 0)
            return err_wrap(e, "netDevices");
        if (!is_device_name(item->string) || (name && !is_device_name(name)))
            return err_set(e, ERR_USER, "netDevices: names of network devices have 1 to %d bytes",
                           IFNAMSIZ - 1);
        s->net_devices = mem_realloc(s->net_devices, s->n_net_devices + 1, sizeof(*s->net_devices));
        s->net_devices[s->n_net_devices++] =
            (struct ctr_net_device){mem_strdup(item->string), mem_strdup(name)};
    }
    return 0;
}

static int read_mem_policy(const cJSON *o, struct ctr_mem_policy *ret, struct err *e)
{
    AUTO(str_list) struct str_list flags = {0};
    const cJSON *p = NULL;
    const char *mode;
    uint64_t value = 0;
    struct cpu_set ignored;

    if (json_opt_object(o, "memoryPolicy", &p, e) < 0)
        return -1;
    if (!p)
        return 0;
    if (json_get_str(p, "mode", 64, &mode, e) < 0 ||
        spec_copy_str(p, "nodes", &ret->nodes, e) < 0 ||
        json_opt_str_list(p, "flags", 16, 64, &flags, e) < 0)
        return err_wrap(e, "memoryPolicy");
    if (name_lookup(ctr_names_mem_policies, mode, &value) < 0)
        return err_set(e, ERR_USER, "memoryPolicy.mode: unknown");
    ret->mode = (uint32_t)value;
    for (size_t i = 0; i < flags.n; i++) {
        if (name_lookup(ctr_names_mem_policy_flags, flags.items[i], &value) < 0)
            return err_set(e, ERR_USER, "memoryPolicy.flags[%zu]: unknown", i);
        ret->mode |= (uint32_t)value;
    }
    if (ret->nodes && cpu_set_parse(ret->nodes, &ignored, e) < 0)
        return err_wrap(e, "memoryPolicy.nodes");
    ret->set = true;
    return 0;
}

int spec_read_linux(const cJSON *o, struct ctr_spec *s, struct err *e)
{
    const cJSON *resources = NULL, *seccomp = NULL, *rdt = NULL;

    if (read_namespaces(o, s, e) < 0 || spec_read_idmaps(o, "uidMappings", &s->uid_maps, e) < 0 ||
        spec_read_idmaps(o, "gidMappings", &s->gid_maps, e) < 0 || read_devices(o, s, e) < 0 ||
        spec_read_key_values(o, "sysctl", &s->sysctl, &s->n_sysctl, e) < 0 ||
        json_opt_str_list(o, "maskedPaths", SPEC_LIST, 4095, &s->masked_paths, e) < 0 ||
        json_opt_str_list(o, "readonlyPaths", SPEC_LIST, 4095, &s->readonly_paths, e) < 0 ||
        spec_copy_str(o, "rootfsPropagation", &s->rootfs_propagation, e) < 0 ||
        spec_copy_str(o, "mountLabel", &s->mount_label, e) < 0 ||
        spec_copy_str(o, "cgroupsPath", &s->cgroups_path, e) < 0 ||
        json_opt_object(o, "resources", &resources, e) < 0 ||
        json_opt_object(o, "seccomp", &seccomp, e) < 0 || read_personality(o, s, e) < 0 ||
        read_time(o, s, e) < 0 || json_opt_object(o, "intelRdt", &rdt, e) < 0 ||
        (rdt && rdt_read(rdt, &s->rdt, e) < 0) || read_net_devices(o, s, e) < 0 ||
        read_mem_policy(o, &s->mem_policy, e) < 0)
        return err_wrap(e, "linux");
    if (s->rootfs_propagation && !*s->rootfs_propagation)
        mem_replace(&s->rootfs_propagation, NULL);
    if (s->mount_label && !*s->mount_label)
        mem_replace(&s->mount_label, NULL);
    s->seccomp = seccomp ? cJSON_Duplicate(seccomp, true) : NULL;
    return resources ? spec_read_resources(resources, &s->resources, e) : 0;
}
