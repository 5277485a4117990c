/* spec → config.json. */
#include <inttypes.h>

#include "base/json.h"
#include "base/mem.h"
#include "runtime/caps.h"
#include "runtime/names.h"
#include "runtime/rdt.h"
#include "runtime/spec.h"
#include "runtime/spec_json.h"
#include "runtime/spec_json_own.h"

static void add_text(cJSON *o, const char *key, const char *value)
{
    if (value)
        json_add_str(o, key, value);
}

static void add_list(cJSON *o, const char *key, const struct str_list *l)
{
    if (l->n)
        json_add_str_list(o, key, l);
}

static cJSON *add_item(cJSON *list)
{
    cJSON *item = cJSON_CreateObject();

    cJSON_AddItemToArray(list, item);
    return item;
}

static void write_caps(cJSON *o, const struct ctr_process *p)
{
    const struct {
        const char *key;
        uint64_t mask;
    } sets[] = {{"bounding", p->caps.bounding},
                {"effective", p->caps.effective},
                {"inheritable", p->caps.inheritable},
                {"permitted", p->caps.permitted},
                {"ambient", p->caps.ambient}};
    cJSON *caps = json_add_object(o, "capabilities");

    for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
        AUTO(str_list) struct str_list names = {0};

        ctr_caps_names(sets[i].mask, &names);
        add_list(caps, sets[i].key, &names);
    }
}

static void write_user(cJSON *o, const struct ctr_process *p)
{
    cJSON *user = json_add_object(o, "user");

    json_add_int(user, "uid", p->uid);
    json_add_int(user, "gid", p->gid);
    if (p->has_umask)
        json_add_int(user, "umask", p->umask);
    if (p->n_additional_gids) {
        cJSON *gids = json_add_array(user, "additionalGids");

        for (size_t i = 0; i < p->n_additional_gids; i++)
            cJSON_AddItemToArray(gids, cJSON_CreateNumber(p->additional_gids[i]));
    }
}

static void write_scheduling(cJSON *o, const struct ctr_process *p)
{
    if (p->has_scheduler) {
        cJSON *sc = json_add_object(o, "scheduler");
        AUTO(str_list) struct str_list flags = {0};

        for (const struct name_value *f = ctr_names_sched_flags; f->name; f++)
            if (p->scheduler.flags & f->value)
                str_list_add(&flags, f->name);
        json_add_str(sc, "policy", name_of(ctr_names_schedulers, p->scheduler.policy));
        json_add_int(sc, "nice", p->scheduler.nice);
        json_add_int(sc, "priority", p->scheduler.priority);
        json_add_int(sc, "runtime", (int64_t)p->scheduler.runtime);
        json_add_int(sc, "deadline", (int64_t)p->scheduler.deadline);
        json_add_int(sc, "period", (int64_t)p->scheduler.period);
        add_list(sc, "flags", &flags);
    }
    if (p->io_priority) {
        cJSON *io = json_add_object(o, "ioPriority");

        json_add_str(io, "class", name_of(ctr_names_io_classes, p->io_priority >> 13));
        json_add_int(io, "priority", p->io_priority & 0x1fff);
    }
    if (p->cpu_affinity_initial || p->cpu_affinity_final) {
        cJSON *a = json_add_object(o, "execCPUAffinity");

        add_text(a, "initial", p->cpu_affinity_initial);
        add_text(a, "final", p->cpu_affinity_final);
    }
}

static void write_process(cJSON *top, const struct ctr_process *p)
{
    cJSON *o = json_add_object(top, "process");

    add_list(o, "args", &p->args);
    add_list(o, "env", &p->env);
    add_text(o, "cwd", p->cwd);
    write_user(o, p);
    json_add_bool(o, "terminal", p->terminal);
    if (p->console_rows || p->console_columns) {
        cJSON *size = json_add_object(o, "consoleSize");

        json_add_int(size, "height", p->console_rows);
        json_add_int(size, "width", p->console_columns);
    }
    json_add_bool(o, "noNewPrivileges", p->no_new_privileges);
    if (p->has_caps)
        write_caps(o, p);
    if (p->n_rlimits) {
        cJSON *list = json_add_array(o, "rlimits");

        for (size_t i = 0; i < p->n_rlimits; i++) {
            cJSON *item = add_item(list);

            json_add_str(item, "type", p->rlimits[i].type);
            /* A whole number above 2^63 (RLIM_INFINITY) has no place in a double. */
            AUTO_FREE char *soft = mem_printf("%" PRIu64, p->rlimits[i].soft);
            AUTO_FREE char *hard = mem_printf("%" PRIu64, p->rlimits[i].hard);

            cJSON_AddRawToObject(item, "soft", soft);
            cJSON_AddRawToObject(item, "hard", hard);
        }
    }
    if (p->has_oom_score_adj)
        json_add_int(o, "oomScoreAdj", p->oom_score_adj);
    add_text(o, "apparmorProfile", p->apparmor_profile);
    add_text(o, "selinuxLabel", p->selinux_label);
    write_scheduling(o, p);
}

static void write_idmaps(cJSON *o, const char *key, const struct ctr_idmaps *m)
{
    cJSON *list = m->n ? json_add_array(o, key) : NULL;

    for (size_t i = 0; i < m->n; i++) {
        cJSON *item = add_item(list);

        json_add_int(item, "containerID", m->items[i].container_id);
        json_add_int(item, "hostID", m->items[i].host_id);
        json_add_int(item, "size", m->items[i].size);
    }
}

static void write_mounts(cJSON *top, const struct ctr_spec *s)
{
    cJSON *list = json_add_array(top, "mounts");

    for (size_t i = 0; i < s->n_mounts; i++) {
        const struct ctr_mount *m = &s->mounts[i];
        cJSON *item = add_item(list);

        json_add_str(item, "destination", m->destination);
        add_text(item, "type", m->type);
        add_text(item, "source", m->source);
        add_list(item, "options", &m->options);
        write_idmaps(item, "uidMappings", &m->uid_maps);
        write_idmaps(item, "gidMappings", &m->gid_maps);
    }
}

static void write_key_values(cJSON *o, const char *key, const struct ctr_key_value *kv, size_t n)
{
    cJSON *map = n ? json_add_object(o, key) : NULL;

    for (size_t i = 0; i < n; i++)
        json_add_str(map, kv[i].key, kv[i].value);
}

static void write_devices(cJSON *o, const struct ctr_spec *s)
{
    cJSON *list = s->n_devices ? json_add_array(o, "devices") : NULL;

    for (size_t i = 0; i < s->n_devices; i++) {
        const struct ctr_device *d = &s->devices[i];
        cJSON *item = add_item(list);
        char type[2] = {d->type, 0};

        json_add_str(item, "path", d->path);
        json_add_str(item, "type", type);
        json_add_int(item, "major", d->major);
        json_add_int(item, "minor", d->minor);
        if (d->file_mode >= 0)
            json_add_int(item, "fileMode", d->file_mode);
        json_add_int(item, "uid", d->uid);
        json_add_int(item, "gid", d->gid);
    }
}

static void write_net_devices(cJSON *o, const struct ctr_spec *s)
{
    cJSON *map = s->n_net_devices ? json_add_object(o, "netDevices") : NULL;

    for (size_t i = 0; i < s->n_net_devices; i++)
        add_text(json_add_object(map, s->net_devices[i].host), "name", s->net_devices[i].name);
}

static void write_offset(cJSON *o, const char *key, const struct ctr_time_offset *t)
{
    if (!t->set)
        return;
    cJSON *v = json_add_object(o, key);

    json_add_int(v, "secs", t->secs);
    json_add_int(v, "nanosecs", t->nanosecs);
}

static void write_mem_policy(cJSON *o, const struct ctr_mem_policy *m)
{
    cJSON *p = json_add_object(o, "memoryPolicy");
    AUTO(str_list) struct str_list flags = {0};
    uint32_t mode = m->mode;

    for (const struct name_value *f = ctr_names_mem_policy_flags; f->name; f++) {
        if (!(mode & f->value))
            continue;
        str_list_add(&flags, f->name);
        mode &= ~(uint32_t)f->value;
    }
    json_add_str(p, "mode", name_of(ctr_names_mem_policies, mode));
    add_text(p, "nodes", m->nodes);
    add_list(p, "flags", &flags);
}

static void write_linux(cJSON *top, const struct ctr_spec *s)
{
    cJSON *o = json_add_object(top, "linux");
    cJSON *list = json_add_array(o, "namespaces");

    for (size_t i = 0; i < s->n_namespaces; i++) {
        cJSON *item = add_item(list);

        json_add_str(item, "type", s->namespaces[i].type);
        add_text(item, "path", s->namespaces[i].path);
    }
    write_idmaps(o, "uidMappings", &s->uid_maps);
    write_idmaps(o, "gidMappings", &s->gid_maps);
    write_devices(o, s);
    write_net_devices(o, s);
    write_key_values(o, "sysctl", s->sysctl, s->n_sysctl);
    add_list(o, "maskedPaths", &s->masked_paths);
    add_list(o, "readonlyPaths", &s->readonly_paths);
    add_text(o, "rootfsPropagation", s->rootfs_propagation);
    add_text(o, "mountLabel", s->mount_label);
    add_text(o, "cgroupsPath", s->cgroups_path);
    spec_write_resources(o, &s->resources);
    if (s->seccomp)
        json_add_item(o, "seccomp", cJSON_Duplicate(s->seccomp, true));
    if (s->has_personality)
        json_add_str(json_add_object(o, "personality"), "domain",
                     name_of(ctr_names_personality, s->personality));
    if (s->rdt.set)
        json_add_item(o, "intelRdt", rdt_write(&s->rdt));
    if (s->mem_policy.set)
        write_mem_policy(o, &s->mem_policy);
    if (s->time_monotonic.set || s->time_boottime.set) {
        cJSON *t = json_add_object(o, "timeOffsets");

        write_offset(t, "monotonic", &s->time_monotonic);
        write_offset(t, "boottime", &s->time_boottime);
    }
}

static void write_flag(cJSON *map, const char *key, bool value)
{
    cJSON_DeleteItemFromObjectCaseSensitive(map, key);
    if (value)
        json_add_str(map, key, "true");
}

static void write_annotations(cJSON *top, const struct ctr_spec *s)
{
    cJSON *map = json_add_object(top, "annotations");

    for (size_t i = 0; i < s->n_annotations; i++)
        json_add_str(map, s->annotations[i].key, s->annotations[i].value);
    cJSON_DeleteItemFromObjectCaseSensitive(map, CTR_ANNOTATION "overlay.lower");
    cJSON_DeleteItemFromObjectCaseSensitive(map, CTR_ANNOTATION "overlay.dir");
    cJSON_DeleteItemFromObjectCaseSensitive(map, CTR_ANNOTATION "user");
    if (s->overlay_lower.n) {
        AUTO(cJSON) cJSON *wrapped = cJSON_CreateObject();

        json_add_str_list(wrapped, "l", &s->overlay_lower);
        AUTO_FREE char *text = json_text(cJSON_GetObjectItemCaseSensitive(wrapped, "l"));

        json_add_str(map, CTR_ANNOTATION "overlay.lower", text);
    }
    add_text(map, CTR_ANNOTATION "overlay.dir", s->overlay_dir);
    add_text(map, CTR_ANNOTATION "user", s->process.user_name);
    write_flag(map, CTR_ANNOTATION "seccomp.default", s->default_seccomp);
    write_flag(map, CTR_ANNOTATION "init", s->init);
    write_flag(map, CTR_ANNOTATION "userns.optional", s->userns_optional);
    write_flag(map, CTR_ANNOTATION "env.sealed", s->sealed_env);
}

char *ctr_spec_to_json(const struct ctr_spec *s)
{
    AUTO(cJSON) cJSON *top = cJSON_CreateObject();

    json_add_str(top, "ociVersion", s->oci_version);
    if (s->has_process)
        write_process(top, &s->process);
    if (s->root_path) {
        cJSON *root = json_add_object(top, "root");

        json_add_str(root, "path", s->root_path);
        json_add_bool(root, "readonly", s->root_readonly);
    } else if (s->root_readonly) {
        json_add_bool(json_add_object(top, "root"), "readonly", true);
    }
    add_text(top, "hostname", s->hostname);
    add_text(top, "domainname", s->domainname);
    write_mounts(top, s);
    write_linux(top, s);
    if (s->hooks)
        json_add_item(top, "hooks", cJSON_Duplicate(s->hooks, true));
    write_annotations(top, s);
    return json_text(top);
}
