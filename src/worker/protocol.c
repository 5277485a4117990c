#include "worker/protocol.h"

#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/path.h"

#define CPUS_MAX    65536
#define SECONDS_MAX (1LL << 40)
#define BYTES_MAX   (1LL << 62)

/* ---- our own form of a bundle, for the state file ---- */

static const struct json_field dep_fields[] = {
    JSON_FIELD(struct bundle_dep, child_path, "child_path", JSON_STR, JSON_REQUIRED, BOUND_PATH),
    JSON_FIELD(struct bundle_dep, parent_uuid, "parent_uuid", JSON_STR, JSON_REQUIRED, 64),
    JSON_FIELD(struct bundle_dep, parent_path, "parent_path", JSON_STR, JSON_REQUIRED, BOUND_PATH),
    JSON_FIELD(struct bundle_dep, location, "location", JSON_STR, 0, BOUND_PATH),
    {0},
};

const struct json_field bundle_fields[] = {
    JSON_FIELD(struct bundle, uuid, "uuid", JSON_STR, JSON_REQUIRED, 64),
    JSON_FIELD(struct bundle, command, "command", JSON_STR, JSON_REQUIRED, BOUND_COMMAND),
    JSON_LIST(struct bundle, deps, n_deps, "dependencies", dep_fields, struct bundle_dep, 0,
              BOUND_BUNDLE_DEPENDENCIES),
    JSON_FIELD(struct bundle, exclude_patterns, "exclude_patterns", JSON_STR_LIST, 0,
               BOUND_EXCLUDE_PATTERNS),
    JSON_FIELD(struct bundle, store, "store", JSON_STR, 0, 0),
    JSON_FIELD(struct bundle, location, "location", JSON_STR, 0, BOUND_PATH),
    JSON_FIELD(struct bundle, image, "image", JSON_STR, JSON_REQUIRED, BOUND_REF),
    JSON_FIELD(struct bundle, cpus, "cpus", JSON_I64, JSON_REQUIRED, 0),
    JSON_FIELD(struct bundle, gpus, "gpus", JSON_I64, JSON_REQUIRED, 0),
    JSON_FIELD(struct bundle, time_s, "time", JSON_I64, JSON_REQUIRED, 0),
    JSON_FIELD(struct bundle, memory, "memory", JSON_I64, JSON_REQUIRED, 0),
    JSON_FIELD(struct bundle, disk, "disk", JSON_I64, JSON_REQUIRED, 0),
    JSON_FIELD(struct bundle, network, "network", JSON_BOOL, 0, 0),
    {0},
};

void bundle_free(struct bundle *b)
{
    if (!b)
        return;
    json_free_fields(bundle_fields, b);
    free(b);
}

/* ---- actions ---- */

bool protocol_is_uuid(const char *s)
{
    return s && strlen(s) == 34 && str_starts(s, "0x") && strspn(s + 2, "0123456789abcdef") == 32;
}

/* True when `path` is `top` or below it. */
static bool is_below(const char *path, const char *top)
{
    size_t n = strlen(top);

    return strncmp(path, top, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

int protocol_check_child_path(const char *child_path, struct err *e)
{
    /* Mounting over these would take the container's own walls down. */
    static const char *const ours[] = {"proc", "sys", "dev"};
    char shown[STR_SHOW_MAX];

    str_show(shown, child_path);
    for (const char *p = child_path; *p; p = *p ? p + 1 : p) {
        size_t n = strcspn(p, "/");
        if (n == 2 && p[0] == '.' && p[1] == '.')
            return err_set(e, ERR_USER, "Dependency key %s: \"..\" is not allowed", shown);
        p += n;
        if (!*p)
            break;
    }
    AUTO_FREE char *plain = path_normalize(child_path);
    if (!plain || strlen(child_path) >= BOUND_PATH)
        return err_set(e, ERR_USER, "Dependency key %s is not a usable path", shown);
    if (!*plain && !str_eq(child_path, ".") && !str_eq(child_path, "./"))
        return err_set(e, ERR_USER, "Dependency key \"%s\" names nothing", shown);
    if (child_path[0] != '/')
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
        if (is_below(plain, ours[i]))
            return err_set(e, ERR_USER, "Dependency key %s: /%s is the container's own", shown,
                           ours[i]);
    if (str_starts(plain, "0x") && protocol_is_uuid(plain))
        return err_set(e, ERR_USER, "Dependency key %s is the bundle directory itself", shown);
    return 0;
}

void action_free(struct action *a)
{
    if (!a)
        return;
    free(a->uuid);
    bundle_free(a->bundle);
    free(a->kill_message);
    free(a->path);
    free(a->text);
    cJSON_Delete(a->read_args);
    free(a);
}

void action_list_free(struct action *a)
{
    while (a) {
        struct action *next = a->next;

        action_free(a);
        a = next;
    }
}

static int copy_str(const cJSON *obj, const char *key, size_t max, bool required, char **ret,
                    struct err *e)
{
    const char *s = NULL;
    int rc = required ? json_get_str(obj, key, max, &s, e) : json_opt_str(obj, key, max, &s, e);

    if (rc == 0)
        *ret = mem_strdup(s);
    return rc;
}

static int read_dep(const cJSON *v, struct bundle_dep *d, struct err *e)
{
    if (copy_str(v, "child_path", BOUND_PATH, true, &d->child_path, e) < 0 ||
        copy_str(v, "parent_uuid", 64, true, &d->parent_uuid, e) < 0 ||
        copy_str(v, "parent_path", BOUND_PATH, false, &d->parent_path, e) < 0 ||
        copy_str(v, "location", BOUND_PATH, false, &d->location, e) < 0)
        return -1;
    if (!d->parent_path)
        d->parent_path = mem_strdup("");
    if (!protocol_is_uuid(d->parent_uuid))
        return err_set(e, ERR_USER, "parent_uuid is no bundle uuid");
    return 0;
}

static int read_deps(const cJSON *bundle, struct bundle *b, struct err *e)
{
    const cJSON *list = NULL, *v;

    if (json_opt_array(bundle, "dependencies", BOUND_BUNDLE_DEPENDENCIES, &list, e) < 0)
        return -1;
    b->deps = mem_array((size_t)cJSON_GetArraySize(list) + 1, sizeof(*b->deps));
    cJSON_ArrayForEach(v, list) {
        b->n_deps++; /* before reading: bundle_free must release a half-read one */
        if (!cJSON_IsObject(v))
            return err_set(e, ERR_USER, "dependencies: an entry is no object");
        if (read_dep(v, &b->deps[b->n_deps - 1], e) < 0)
            return err_wrap(e, "dependencies");
    }
    return 0;
}

/* `time` may be a float (3.6): truncated (B061). */
static int read_seconds(const cJSON *obj, int64_t *ret, struct err *e)
{
    double d = 0;

    if (json_opt_double(obj, "time", &d, e) < 0)
        return -1;
    if (!(d > -(double)SECONDS_MAX && d < (double)SECONDS_MAX))
        return err_set(e, ERR_USER, "time is out of range");
    *ret = (int64_t)d;
    return 0;
}

static int read_resources(const cJSON *r, struct bundle *b, struct err *e)
{
    b->cpus = 1;
    if (json_opt_i64(r, "cpus", 0, CPUS_MAX, &b->cpus, e) < 0 ||
        json_opt_i64(r, "gpus", 0, CPUS_MAX, &b->gpus, e) < 0 ||
        json_get_i64(r, "memory", 1, BYTES_MAX, &b->memory, e) < 0 ||
        json_opt_i64(r, "disk", -BYTES_MAX, BYTES_MAX, &b->disk, e) < 0 ||
        read_seconds(r, &b->time_s, e) < 0 || json_opt_bool(r, "network", &b->network, e) < 0 ||
        copy_str(r, "docker_image", BOUND_REF, true, &b->image, e) < 0)
        return err_wrap(e, "resources");
    return 0;
}

static int read_bundle(const cJSON *msg, struct bundle *b, struct err *e)
{
    const cJSON *bundle = NULL, *resources = NULL, *meta = NULL;

    if (json_get_object(msg, "bundle", &bundle, e) < 0 ||
        json_get_object(msg, "resources", &resources, e) < 0 ||
        copy_str(bundle, "uuid", 64, true, &b->uuid, e) < 0)
        return -1;
    if (!protocol_is_uuid(b->uuid))
        return err_set(e, ERR_USER, "uuid is no bundle uuid");
    if (copy_str(bundle, "command", BOUND_COMMAND, true, &b->command, e) < 0 ||
        copy_str(bundle, "location", BOUND_PATH, false, &b->location, e) < 0 ||
        read_deps(bundle, b, e) < 0 || json_opt_object(bundle, "metadata", &meta, e) < 0)
        return -1;
    if (meta && (json_opt_str_list(meta, "exclude_patterns", BOUND_EXCLUDE_PATTERNS, BOUND_PATH,
                                   &b->exclude_patterns, e) < 0 ||
                 copy_str(meta, "store", BOUND_PATH, false, &b->store, e) < 0))
        return err_wrap(e, "metadata");
    if (!b->store)
        b->store = mem_strdup("");
    return read_resources(resources, b, e);
}

int protocol_read_run(const cJSON *msg, struct bundle **ret, struct err *e)
{
    AUTO(bundle) struct bundle *b = mem_new(struct bundle);

    if (read_bundle(msg, b, e) < 0)
        return -1;
    *ret = take_ptr(&b);
    return 0;
}

static int read_run(const cJSON *msg, struct action *a, struct err *e)
{
    a->bundle = mem_new(struct bundle);
    if (read_bundle(msg, a->bundle, e) < 0)
        return -1;
    a->uuid = mem_strdup(a->bundle->uuid);
    return 0;
}

static int read_kill(const cJSON *msg, struct action *a, struct err *e)
{
    if (copy_str(msg, "kill_message", BOUND_STATUS_TEXT, false, &a->kill_message, e) < 0)
        return -1;
    if (!a->kill_message)
        a->kill_message = mem_strdup("Kill requested");
    return 0;
}

static int read_nothing(const cJSON *msg, struct action *a, struct err *e)
{
    (void)msg, (void)a, (void)e;
    return 0;
}

static int read_write(const cJSON *msg, struct action *a, struct err *e)
{
    return copy_str(msg, "subpath", BOUND_PATH, true, &a->path, e) < 0 ||
                   copy_str(msg, "string", BOUND_SERVICE_JSON, true, &a->text, e) < 0
               ? -1
               : 0;
}

static int read_netcat(const cJSON *msg, struct action *a, struct err *e)
{
    if (json_get_i64(msg, "socket_id", 0, INT64_MAX, &a->socket_id, e) < 0 ||
        json_get_i64(msg, "port", INT64_MIN, INT64_MAX, &a->port, e) < 0 ||
        copy_str(msg, "message", BOUND_SERVICE_JSON, true, &a->text, e) < 0)
        return -1;
    return 0;
}

static int read_read(const cJSON *msg, struct action *a, struct err *e)
{
    const cJSON *args = NULL;

    if (json_get_i64(msg, "socket_id", 0, INT64_MAX, &a->socket_id, e) < 0 ||
        copy_str(msg, "path", BOUND_SERVICE_JSON, true, &a->path, e) < 0 ||
        json_get_object(msg, "read_args", &args, e) < 0)
        return -1;
    a->read_args = cJSON_Duplicate(args, true);
    return 0;
}

static const struct {
    const char *name;
    enum action_type type;
    int (*read)(const cJSON *msg, struct action *a, struct err *e);
} kinds[] = {
    {"run", ACTION_RUN, read_run},
    {"kill", ACTION_KILL, read_kill},
    {"mark_finalized", ACTION_MARK_FINALIZED, read_nothing},
    {"write", ACTION_WRITE, read_write},
    {"netcat", ACTION_NETCAT, read_netcat},
    {"read", ACTION_READ, read_read},
};

static int read_uuid(const cJSON *msg, struct action *a, struct err *e)
{
    if (copy_str(msg, "uuid", 64, true, &a->uuid, e) < 0)
        return -1;
    return protocol_is_uuid(a->uuid) ? 0 : err_set(e, ERR_USER, "uuid is no bundle uuid");
}

/* The action of one element, or NULL with a note (no note for a null element). */
static struct action *read_element(const cJSON *v, struct str_list *notes)
{
    const char *type = NULL;
    char shown[STR_SHOW_MAX];
    struct err e = ERR_INIT;

    if (cJSON_IsNull(v))
        return NULL;
    if (!cJSON_IsObject(v) || json_get_str(v, "type", 64, &type, &e) < 0) {
        str_list_add(notes, "Unrecognized message from server: no object with a type");
        return NULL;
    }
    str_show(shown, type);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (!str_eq(kinds[i].name, type))
            continue;
        struct action *a = mem_new(struct action);
        a->type = kinds[i].type;
        if ((a->type == ACTION_RUN || read_uuid(v, a, &e) == 0) && kinds[i].read(v, a, &e) == 0)
            return a;
        str_list_take(notes, mem_printf("Ignoring bad %s message from server: %s", shown, e.msg));
        action_free(a);
        return NULL;
    }
    str_list_take(notes, mem_printf("Unrecognized action type from server: %s", shown));
    return NULL;
}

void protocol_read_actions(const cJSON *answer, struct action **ret_list,
                           struct str_list *ret_notes)
{
    struct action **last = ret_list;
    const cJSON *v;

    *ret_list = NULL;
    if (cJSON_IsObject(answer)) {
        *last = read_element(answer, ret_notes);
        return;
    }
    cJSON_ArrayForEach(v, answer) {
        *last = read_element(v, ret_notes);
        if (*last)
            last = &(*last)->next;
    }
}
