#include "cmd/cwrun_bundle_file.h"

#include <fcntl.h>
#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"
#include "worker/protocol.h"

/* How a resource is written by people, and what the bundle manager takes where the metadata says nothing. */
enum resource_kind { RES_COUNT, RES_SIZE, RES_DURATION, RES_BOOL, RES_TEXT };
static const struct resource {
    const char *name; /* in resources; "request_" + name in the metadata */
    enum resource_kind kind;
    const char *def;
} resources[] = {
    {"cpus", RES_COUNT, "1"},
    {"gpus", RES_COUNT, "0"},
    {"memory", RES_SIZE, "2g"},
    {"disk", RES_SIZE, "0"},
    {"time", RES_DURATION, "0"},
    {"network", RES_BOOL, "false"},
    {"docker_image", RES_TEXT, "codalab/default-cpu:latest"},
};

static int add_bool(cJSON *obj, const char *name, const char *text, struct err *e)
{
    bool yes = str_eq(text, "true") || str_eq(text, "1");

    if (!yes && !str_eq(text, "false") && !str_eq(text, "0"))
        return err_set(e, ERR_USER, "%s is true or false", name);
    json_add_bool(obj, name, yes);
    return 0;
}

/* obj[name] = the value that `text` means; what stood there goes. */
static int set_text(cJSON *obj, const struct resource *r, const char *text, struct err *e)
{
    uint64_t seconds = 0;
    int64_t number = 0;

    if (r->kind == RES_SIZE && units_size(text, &number, e) < 0)
        return err_wrap(e, "%s", r->name);
    if (r->kind == RES_COUNT && units_i64(text, 0, 65536, &number, e) < 0)
        return err_wrap(e, "%s", r->name);
    if (r->kind == RES_DURATION && units_duration(text, &seconds, e) < 0)
        return err_wrap(e, "%s", r->name);
    cJSON_DeleteItemFromObjectCaseSensitive(obj, r->name);
    if (r->kind == RES_BOOL)
        return add_bool(obj, r->name, text, e);
    if (r->kind == RES_TEXT)
        json_add_str(obj, r->name, text);
    else /* a plain number, as the parser makes: it is read again */
        json_add_double(obj, r->name, r->kind == RES_DURATION ? (double)seconds : (double)number);
    return 0;
}

/* One resource out of a bundle's metadata: texts in people's units, or numbers and booleans as they are. */
static int take_request(cJSON *obj, const cJSON *meta, const struct resource *r, struct err *e)
{
    AUTO_FREE char *key = mem_printf("request_%s", r->name);
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(meta, key);

    if (!v || cJSON_IsNull(v) || (cJSON_IsString(v) && !*v->valuestring))
        return set_text(obj, r, r->def, e);
    if (cJSON_IsString(v))
        return set_text(obj, r, v->valuestring, e) < 0 ? err_wrap(e, "metadata request_") : 0;
    json_add_item(obj, r->name, cJSON_Duplicate(v, true));
    return 0;
}

/* A bundle's own information becomes a message as the bundle manager would send it. */
static int message_of_info(const cJSON *info, cJSON **ret, struct err *e)
{
    AUTO(cJSON) cJSON *msg = cJSON_CreateObject();
    const cJSON *meta = cJSON_GetObjectItemCaseSensitive(info, "metadata");
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(info, "bundle_type");

    if (cJSON_IsString(type) && !str_eq(type->valuestring, "run"))
        return err_set(e, ERR_USER, "bundle_type is \"%.40s\": only run bundles can be run",
                       type->valuestring);
    json_add_item(msg, "bundle", cJSON_Duplicate(info, true));
    cJSON *obj = json_add_object(msg, "resources");
    for (size_t i = 0; i < ARRAY_SIZE(resources); i++)
        if (take_request(obj, meta, &resources[i], e) < 0)
            return -1;
    *ret = take_ptr(&msg);
    return 0;
}

static int message_of(const cJSON *doc, cJSON **ret, struct err *e)
{
    const cJSON *data = cJSON_GetObjectItemCaseSensitive(doc, "data");
    const cJSON *attributes = cJSON_GetObjectItemCaseSensitive(data, "attributes");

    if (!cJSON_IsObject(doc))
        return err_set(e, ERR_USER, "an object with \"bundle\" and \"resources\" is wanted");
    if (cJSON_IsObject(attributes))
        doc = attributes;
    if (!cJSON_HasObjectItem(doc, "bundle") && cJSON_HasObjectItem(doc, "uuid") &&
        cJSON_HasObjectItem(doc, "metadata"))
        return message_of_info(doc, ret, e);
    *ret = cJSON_Duplicate(doc, true);
    return 0;
}

static int override_one(cJSON *msg, const char *text, struct err *e)
{
    cJSON *bundle = cJSON_GetObjectItemCaseSensitive(msg, "bundle");
    cJSON *obj = cJSON_GetObjectItemCaseSensitive(msg, "resources");
    const char *equals = strchr(text, '=');
    const char *name = str_starts(text, "request_") ? text + strlen("request_") : text;
    AUTO_FREE char *key = mem_strndup(name, equals ? (size_t)(equals - name) : strlen(name));

    if (!equals)
        return err_set(e, ERR_USER, "--overrides %.80s: NAME=VALUE is wanted", text);
    if (str_eq(key, "command") && cJSON_IsObject(bundle)) {
        cJSON_DeleteItemFromObjectCaseSensitive(bundle, "command");
        json_add_str(bundle, "command", equals + 1);
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(resources) && cJSON_IsObject(obj); i++)
        if (str_eq(resources[i].name, key))
            return set_text(obj, &resources[i], equals + 1, e) < 0
                       ? err_wrap(e, "--overrides %.80s", text)
                       : 0;
    return err_set(
        e, ERR_USER,
        "--overrides %.80s: one of command, docker_image, cpus, gpus, memory, disk, time, network is wanted",
        text);
}

int cwrun_bundle_file_parse(const cJSON *doc, const struct str_list *overrides, struct bundle **ret,
                            struct err *e)
{
    AUTO(cJSON) cJSON *msg = NULL;

    if (message_of(doc, &msg, e) < 0)
        return -1;
    for (size_t i = 0; i < overrides->n; i++)
        if (override_one(msg, overrides->items[i], e) < 0)
            return -1;
    return protocol_read_run(msg, ret, e);
}

int cwrun_bundle_file_read(const char *path, const struct str_list *overrides, struct bundle **ret,
                           struct err *e)
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    AUTO(str) struct str text = STR_INIT(BOUND_SERVICE_JSON);
    AUTO(cJSON) cJSON *doc = NULL;

    if (fd < 0)
        return err_sys(e, "open %s", path);
    if (fd_read_all(fd, &text, e) < 0 || json_parse(str_text(&text), text.len, &doc, e) < 0 ||
        cwrun_bundle_file_parse(doc, overrides, ret, e) < 0)
        return err_wrap(e, "%s", path);
    return 0;
}
