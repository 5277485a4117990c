#include "runtime/spec_json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/units.h"
#include "runtime/caps.h"
#include "runtime/hooks.h"
#include "runtime/names.h"
#include "runtime/spec.h"
#include "runtime/spec_json_own.h"

int spec_copy_str(const cJSON *o, const char *key, char **ret, struct err *e)
{
    const char *text = NULL;

    if (json_opt_str(o, key, SPEC_TEXT, &text, e) < 0)
        return -1;
    if (text)
        mem_replace(ret, text);
    return 0;
}

int spec_read_key_values(const cJSON *o, const char *key, struct ctr_key_value **ret, size_t *n,
                         struct err *e)
{
    const cJSON *map = NULL, *item;

    if (json_opt_object(o, key, &map, e) < 0)
        return -1;
    cJSON_ArrayForEach(item, map) {
        if (!cJSON_IsString(item) || *n >= SPEC_LIST)
            return err_set(e, ERR_USER, "%s: values are texts", key);
        *ret = mem_realloc(*ret, *n + 1, sizeof(**ret));
        (*ret)[(*n)++] =
            (struct ctr_key_value){mem_strdup(item->string), mem_strdup(item->valuestring)};
    }
    return 0;
}

/* --- process ------------------------------------------------------------------------------------------------------ */

static int read_u32(const cJSON *o, const char *key, uint32_t *ret, struct err *e)
{
    int64_t v = *ret;

    if (json_opt_i64(o, key, 0, UINT32_MAX - 1, &v, e) < 0)
        return -1;
    *ret = (uint32_t)v;
    return 0;
}

static int read_user(const cJSON *o, struct ctr_process *p, struct err *e)
{
    const cJSON *user = NULL, *gids = NULL, *item;

    if (json_opt_object(o, "user", &user, e) < 0)
        return -1;
    if (!user)
        return 0;
    if (spec_refuse(user, "user", "username", "this is a runtime for Linux", e) < 0)
        return -1;
    if (read_u32(user, "uid", &p->uid, e) < 0 || read_u32(user, "gid", &p->gid, e) < 0 ||
        json_opt_array(user, "additionalGids", SPEC_LIST, &gids, e) < 0)
        return err_wrap(e, "user");
    if (cJSON_GetObjectItemCaseSensitive(user, "umask")) {
        if (read_u32(user, "umask", &p->umask, e) < 0 || p->umask > 0777)
            return err_set(e, ERR_USER, "user.umask: 0 to 511");
        p->has_umask = true;
    }
    cJSON_ArrayForEach(item, gids) {
        if (!cJSON_IsNumber(item) || item->valuedouble < 0 || item->valuedouble >= UINT32_MAX ||
            item->valuedouble != (double)(uint32_t)item->valuedouble)
            return err_set(e, ERR_USER, "user.additionalGids: group ids");
        p->additional_gids =
            mem_realloc(p->additional_gids, p->n_additional_gids + 1, sizeof(*p->additional_gids));
        p->additional_gids[p->n_additional_gids++] = (uint32_t)item->valuedouble;
    }
    return 0;
}

static int read_caps(const cJSON *o, struct ctr_process *p, struct err *e)
{
    const cJSON *caps = NULL;
    const struct {
        const char *key;
        uint64_t *set;
    } sets[] = {{"bounding", &p->caps.bounding},
                {"effective", &p->caps.effective},
                {"inheritable", &p->caps.inheritable},
                {"permitted", &p->caps.permitted},
                {"ambient", &p->caps.ambient}};

    if (json_opt_object(o, "capabilities", &caps, e) < 0)
        return -1;
    if (!caps)
        return 0;
    p->has_caps = true;
    for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
        AUTO(str_list) struct str_list names = {0};

        if (json_opt_str_list(caps, sets[i].key, 256, 64, &names, e) < 0 ||
            ctr_caps_parse(&names, sets[i].set, e) < 0)
            return err_wrap(e, "capabilities.%s", sets[i].key);
    }
    return 0;
}

static int read_rlimits(const cJSON *o, struct ctr_process *p, struct err *e)
{
    const cJSON *list = NULL, *item;

    if (json_opt_array(o, "rlimits", 64, &list, e) < 0)
        return -1;
    cJSON_ArrayForEach(item, list) {
        const char *type;
        struct ctr_rlimit r = {0};

        if (json_get_str(item, "type", 64, &type, e) < 0 ||
            json_get_u64(item, "soft", UINT64_MAX, &r.soft, e) < 0 ||
            json_get_u64(item, "hard", UINT64_MAX, &r.hard, e) < 0)
            return err_wrap(e, "rlimits");
        r.type = mem_strdup(type);
        p->rlimits = mem_realloc(p->rlimits, p->n_rlimits + 1, sizeof(r));
        p->rlimits[p->n_rlimits++] = r;
    }
    return 0;
}

static int read_scheduler(const cJSON *o, struct ctr_process *p, struct err *e)
{
    const cJSON *sc = NULL;
    const char *policy = NULL;
    AUTO(str_list) struct str_list flags = {0};
    int64_t nice = 0, priority = 0, runtime = 0, deadline = 0, period = 0;
    uint64_t value = 0;

    if (json_opt_object(o, "scheduler", &sc, e) < 0)
        return -1;
    if (!sc)
        return 0;
    if (json_get_str(sc, "policy", 64, &policy, e) < 0 ||
        json_opt_i64(sc, "nice", -20, 19, &nice, e) < 0 ||
        json_opt_i64(sc, "priority", 0, 99, &priority, e) < 0 ||
        json_opt_i64(sc, "runtime", 0, INT64_MAX, &runtime, e) < 0 ||
        json_opt_i64(sc, "deadline", 0, INT64_MAX, &deadline, e) < 0 ||
        json_opt_i64(sc, "period", 0, INT64_MAX, &period, e) < 0 ||
        json_opt_str_list(sc, "flags", 16, 64, &flags, e) < 0)
        return err_wrap(e, "scheduler");
    if (name_lookup(ctr_names_schedulers, policy, &value) < 0)
        return err_set(e, ERR_USER, "scheduler.policy: unknown");
    p->scheduler =
        (struct ctr_scheduler){(uint32_t)value,   (int32_t)nice,      (uint32_t)priority, 0,
                               (uint64_t)runtime, (uint64_t)deadline, (uint64_t)period};
    for (size_t i = 0; i < flags.n; i++) {
        if (name_lookup(ctr_names_sched_flags, flags.items[i], &value) < 0)
            return err_set(e, ERR_USER, "scheduler.flags[%zu]: unknown", i);
        p->scheduler.flags |= value;
    }
    p->has_scheduler = true;
    return 0;
}

static int read_io_priority(const cJSON *o, struct ctr_process *p, struct err *e)
{
    const cJSON *io = NULL;
    const char *class = NULL;
    int64_t level = 0;
    uint64_t value = 0;

    if (json_opt_object(o, "ioPriority", &io, e) < 0)
        return -1;
    if (!io)
        return 0;
    if (json_get_str(io, "class", 64, &class, e) < 0 ||
        json_opt_i64(io, "priority", 0, 7, &level, e) < 0)
        return err_wrap(e, "ioPriority");
    if (name_lookup(ctr_names_io_classes, class, &value) < 0)
        return err_set(e, ERR_USER, "ioPriority.class: unknown");
    p->io_priority = (uint16_t)(value << 13 | (uint64_t)level);
    return 0;
}

static int read_affinity(const cJSON *o, struct ctr_process *p, struct err *e)
{
    const cJSON *a = NULL;
    struct cpu_set ignored;

    if (json_opt_object(o, "execCPUAffinity", &a, e) < 0)
        return -1;
    if (a && (spec_copy_str(a, "initial", &p->cpu_affinity_initial, e) < 0 ||
              spec_copy_str(a, "final", &p->cpu_affinity_final, e) < 0))
        return err_wrap(e, "execCPUAffinity");
    if (p->cpu_affinity_initial && cpu_set_parse(p->cpu_affinity_initial, &ignored, e) < 0)
        return err_wrap(e, "execCPUAffinity.initial");
    if (p->cpu_affinity_final && cpu_set_parse(p->cpu_affinity_final, &ignored, e) < 0)
        return err_wrap(e, "execCPUAffinity.final");
    return 0;
}

static int read_console(const cJSON *o, struct ctr_process *p, struct err *e)
{
    const cJSON *size = NULL;
    int64_t rows = 0, columns = 0;

    if (json_opt_object(o, "consoleSize", &size, e) < 0 ||
        (size && (json_opt_i64(size, "height", 0, UINT16_MAX, &rows, e) < 0 ||
                  json_opt_i64(size, "width", 0, UINT16_MAX, &columns, e) < 0)))
        return -1;
    p->console_rows = (uint16_t)rows;
    p->console_columns = (uint16_t)columns;
    return 0;
}

int spec_read_process(const cJSON *o, struct ctr_process *p, struct err *e)
{
    int64_t oom = 0;

    if (json_opt_str_list(o, "args", SPEC_LIST, 128 * 1024, &p->args, e) < 0 ||
        json_opt_str_list(o, "env", SPEC_LIST, 128 * 1024, &p->env, e) < 0 ||
        spec_refuse(o, "process", "commandLine", "this is a runtime for Linux", e) < 0 ||
        spec_copy_str(o, "cwd", &p->cwd, e) < 0 || read_user(o, p, e) < 0 ||
        json_opt_bool(o, "terminal", &p->terminal, e) < 0 || read_console(o, p, e) < 0 ||
        json_opt_bool(o, "noNewPrivileges", &p->no_new_privileges, e) < 0 ||
        read_caps(o, p, e) < 0 || read_rlimits(o, p, e) < 0 ||
        json_opt_i64(o, "oomScoreAdj", -1000, 1000, &oom, e) < 0 ||
        spec_copy_str(o, "apparmorProfile", &p->apparmor_profile, e) < 0 ||
        spec_copy_str(o, "selinuxLabel", &p->selinux_label, e) < 0 || read_scheduler(o, p, e) < 0 ||
        read_io_priority(o, p, e) < 0 || read_affinity(o, p, e) < 0)
        return err_wrap(e, "process");
    const cJSON *given = cJSON_GetObjectItemCaseSensitive(o, "oomScoreAdj");

    p->has_oom_score_adj = given && !cJSON_IsNull(given);
    p->oom_score_adj = (int)oom;
    return 0;
}

/* --- the whole -------------------------------------------------------------------------------------------------- */

int spec_read_idmaps(const cJSON *o, const char *key, struct ctr_idmaps *ret, struct err *e)
{
    const cJSON *list = NULL, *item;

    if (json_opt_array(o, key, 340, &list, e) < 0)
        return -1;
    cJSON_ArrayForEach(item, list) {
        uint64_t inside, host, size;

        if (json_get_u64(item, "containerID", UINT32_MAX, &inside, e) < 0 ||
            json_get_u64(item, "hostID", UINT32_MAX, &host, e) < 0 ||
            json_get_u64(item, "size", UINT32_MAX, &size, e) < 0)
            return err_wrap(e, "%s", key);
        ctr_spec_add_idmap(ret, (uint32_t)inside, (uint32_t)host, (uint32_t)size);
    }
    return 0;
}

/* "0-1000-10#10-2000-5": ids inside, ids on the host, how many. */
static int read_ranges(const char *text, struct ctr_idmaps *ret, struct err *e)
{
    AUTO(str_list) struct str_list ranges = {0};

    str_list_split(&ranges, text, '#');
    for (size_t i = 0; i < ranges.n; i++) {
        AUTO(str_list) struct str_list numbers = {0};
        uint64_t v[3] = {0};

        str_list_split(&numbers, ranges.items[i], '-');
        if (numbers.n != ARRAY_SIZE(v))
            return err_set(e, ERR_USER, "a range is INSIDE-HOST-SIZE");
        for (size_t k = 0; k < ARRAY_SIZE(v); k++)
            if (units_u64(numbers.items[k], UINT32_MAX, &v[k], e) < 0)
                return -1;
        ctr_spec_add_idmap(ret, (uint32_t)v[0], (uint32_t)v[1], (uint32_t)v[2]);
    }
    return 0;
}

/* "idmap=uids=…;gids=…", as crun has it and podman writes it, is "idmap" with uidMappings and gidMappings. */
static int read_idmap_option(struct ctr_mount *m, size_t at, struct err *e)
{
    const char *option = m->options.items[at];
    const char *maps = strchr(option, '=') + 1;
    AUTO(str_list) struct str_list parts = {0};

    str_list_split(&parts, maps, ';');
    for (size_t i = 0; i < parts.n; i++) {
        const char *part = parts.items[i];
        bool uids = str_starts(part, "uids=");

        if (!uids && !str_starts(part, "gids="))
            return err_set(e, ERR_USER, "option %s: it is idmap=uids=…;gids=…", option);
        if (read_ranges(part + strlen("uids="), uids ? &m->uid_maps : &m->gid_maps, e) < 0)
            return err_wrap(e, "option %s", option);
    }
    mem_replace(&m->options.items[at], *option == 'r' ? "ridmap" : "idmap");
    return 0;
}

static int read_idmap_options(struct ctr_mount *m, struct err *e)
{
    for (size_t i = 0; i < m->options.n; i++)
        if ((str_starts(m->options.items[i], "idmap=") ||
             str_starts(m->options.items[i], "ridmap=")) &&
            read_idmap_option(m, i, e) < 0)
            return -1;
    return 0;
}

static int read_mounts(const cJSON *o, struct ctr_spec *s, struct err *e)
{
    const cJSON *list = NULL, *item;
    size_t i = 0;

    if (json_opt_array(o, "mounts", SPEC_LIST, &list, e) < 0)
        return -1;
    cJSON_ArrayForEach(item, list) {
        const char *destination, *type = NULL, *source = NULL;

        if (json_get_str(item, "destination", SPEC_TEXT, &destination, e) < 0 ||
            json_opt_str(item, "type", 64, &type, e) < 0 ||
            json_opt_str(item, "source", SPEC_TEXT, &source, e) < 0)
            return err_wrap(e, "mounts[%zu]", i);
        struct ctr_mount *m = ctr_spec_add_mount(s, destination, type, source, NULL);

        /* Version 1.0 wanted an absolute path and runtimes took relative ones to start at "/". */
        if (destination[0] != '/') {
            AUTO_FREE char *absolute = mem_printf("/%s", destination);

            mem_replace(&m->destination, absolute);
        }
        if (json_opt_str_list(item, "options", 256, SPEC_TEXT, &m->options, e) < 0 ||
            spec_read_idmaps(item, "uidMappings", &m->uid_maps, e) < 0 ||
            spec_read_idmaps(item, "gidMappings", &m->gid_maps, e) < 0 ||
            read_idmap_options(m, e) < 0)
            return err_wrap(e, "mounts[%zu]", i);
        if (!m->type && (str_list_has(&m->options, "bind") || str_list_has(&m->options, "rbind")))
            m->type = mem_strdup("bind");
        i++;
    }
    return 0;
}

static int read_version(const cJSON *o, struct ctr_spec *s, struct err *e)
{
    AUTO(str_list) struct str_list parts = {0};
    uint64_t major = 0, minor = 0;
    const char *version = NULL;
    char shown[STR_SHOW_MAX];

    if (json_get_str(o, "ociVersion", 64, &version, e) < 0)
        return -1;
    str_list_split(&parts, version, '.');
    /* What may stand behind the third number ("-rc.1", "+dev") does not matter. */
    if (parts.n < 3 || units_u64(parts.items[0], UINT32_MAX, &major, e) < 0 ||
        units_u64(parts.items[1], UINT32_MAX, &minor, e) < 0 || major != 1 || minor > 3)
        return err_set(e, ERR_USER, "ociVersion %s: 1.0.0 to 1.3.x are understood",
                       str_show(shown, version));
    mem_replace(&s->oci_version, version);
    return 0;
}

static int read_root(const cJSON *o, struct ctr_spec *s, struct err *e)
{
    const cJSON *root = NULL;

    if (json_opt_object(o, "root", &root, e) < 0)
        return -1;
    if (root && (spec_copy_str(root, "path", &s->root_path, e) < 0 ||
                 json_opt_bool(root, "readonly", &s->root_readonly, e) < 0))
        return err_wrap(e, "root");
    return 0;
}

/* Text lists in annotations are JSON arrays, as layer paths may hold any byte. */
static int read_list_annotation(const struct ctr_spec *s, const char *key, struct str_list *ret,
                                struct err *e)
{
    const char *text = ctr_spec_annotation(s, key);
    AUTO(cJSON) cJSON *doc = NULL;
    AUTO_FREE char *wrapped = text ? mem_printf("{\"l\":%s}", text) : NULL;

    if (!text)
        return 0;
    if (json_parse(wrapped, strlen(wrapped), &doc, e) < 0 ||
        json_opt_str_list(doc, "l", BOUND_LAYERS, BOUND_PATH, ret, e) < 0)
        return err_wrap(e, "annotation %s", key);
    return 0;
}

static bool is_true(const struct ctr_spec *s, const char *key)
{
    return str_eq(ctr_spec_annotation(s, key), "true");
}

static int read_annotations(const cJSON *o, struct ctr_spec *s, struct err *e)
{
    if (spec_read_key_values(o, "annotations", &s->annotations, &s->n_annotations, e) < 0 ||
        read_list_annotation(s, CTR_ANNOTATION "overlay.lower", &s->overlay_lower, e) < 0)
        return -1;
    mem_replace(&s->overlay_dir, ctr_spec_annotation(s, CTR_ANNOTATION "overlay.dir"));
    mem_replace(&s->process.user_name, ctr_spec_annotation(s, CTR_ANNOTATION "user"));
    s->default_seccomp = is_true(s, CTR_ANNOTATION "seccomp.default");
    s->init = is_true(s, CTR_ANNOTATION "init");
    s->userns_optional = is_true(s, CTR_ANNOTATION "userns.optional");
    s->sealed_env = is_true(s, CTR_ANNOTATION "env.sealed");
    return 0;
}

static int read_hooks(const cJSON *o, struct ctr_spec *s, struct err *e)
{
    const cJSON *hooks = NULL;

    if (json_opt_object(o, "hooks", &hooks, e) < 0 || hooks_validate(hooks, e) < 0)
        return -1;
    s->hooks = hooks ? cJSON_Duplicate(hooks, true) : NULL;
    return 0;
}

static int read_all(const cJSON *o, struct ctr_spec *s, struct err *e)
{
    static const char *const others[] = {"windows", "solaris", "vm", "zos", "freebsd"};
    const cJSON *process = NULL, *linux_obj = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(others); i++)
        if (spec_refuse(o, "config.json", others[i], "this is a runtime for Linux", e) < 0)
            return -1;
    if (read_version(o, s, e) < 0 || read_root(o, s, e) < 0 ||
        json_opt_object(o, "process", &process, e) < 0 ||
        json_opt_object(o, "linux", &linux_obj, e) < 0 ||
        spec_copy_str(o, "hostname", &s->hostname, e) < 0 ||
        spec_copy_str(o, "domainname", &s->domainname, e) < 0 || read_mounts(o, s, e) < 0 ||
        read_annotations(o, s, e) < 0 || read_hooks(o, s, e) < 0)
        return -1;
    if (s->hostname && !*s->hostname)
        mem_replace(&s->hostname, NULL);
    if (s->domainname && !*s->domainname)
        mem_replace(&s->domainname, NULL);
    s->has_process = process != NULL;
    if (process && spec_read_process(process, &s->process, e) < 0)
        return -1;
    return linux_obj ? spec_read_linux(linux_obj, s, e) : 0;
}

int ctr_spec_from_json(const char *text, size_t n, struct ctr_spec **ret, struct err *e)
{
    AUTO(ctr_spec) struct ctr_spec *s = ctr_spec_new();
    AUTO(cJSON) cJSON *doc = NULL;

    if (n > BOUND_CONFIG_JSON)
        return err_set(e, ERR_LIMIT, "config.json is larger than %llu bytes", BOUND_CONFIG_JSON);
    if (json_parse(text, n, &doc, e) < 0)
        return err_wrap(e, "config.json");
    if (!cJSON_IsObject(doc))
        return err_set(e, ERR_USER, "config.json is not an object");
    if (read_all(doc, s, e) < 0)
        return err_wrap(e, "config.json");
    *ret = take_ptr(&s);
    return 0;
}
