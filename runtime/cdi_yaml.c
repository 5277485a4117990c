#include "runtime/cdi_yaml.h"

#include <string.h>
#include <yaml.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/json.h"
#include "base/str.h"
#include "base/units.h"

/* YAML 1.2 core schema for plain scalars, as far as CDI needs it: null, booleans, integers; the rest are strings. */
static cJSON *scalar(const yaml_event_t *event)
{
    const char *text = (const char *)event->data.scalar.value;
    struct err ignored = ERR_INIT;
    int64_t number;

    if (event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return cJSON_CreateString(text);
    if (!*text || str_eq(text, "null") || str_eq(text, "~"))
        return cJSON_CreateNull();
    if (str_eq(text, "true") || str_eq(text, "false"))
        return cJSON_CreateBool(str_eq(text, "true"));
    if (units_i64(text, -(1LL << 53), 1LL << 53, &number, &ignored) == 0)
        return cJSON_CreateNumber((double)number);
    return cJSON_CreateString(text);
}

static int refuse(const yaml_event_t *event, const char *what, struct err *e)
{
    return err_set(e, ERR_USER, "YAML line %zu: %s", event->start_mark.line + 1, what);
}

static int next(yaml_parser_t *p, yaml_event_t *event, struct err *e)
{
    if (!yaml_parser_parse(p, event))
        return err_set(e, ERR_USER, "YAML line %zu: %s", p->problem_mark.line + 1,
                       p->problem ? p->problem : "syntax error");
    return 0;
}

static int value(yaml_parser_t *p, yaml_event_t *event, unsigned depth, cJSON **ret, struct err *e);

static int sequence(yaml_parser_t *p, unsigned depth, cJSON *array, struct err *e)
{
    for (;;) {
        yaml_event_t event;
        cJSON *item = NULL;

        if (next(p, &event, e) < 0)
            return -1;
        bool end = event.type == YAML_SEQUENCE_END_EVENT;
        int rc = end ? 0 : value(p, &event, depth, &item, e);

        yaml_event_delete(&event);
        if (end || rc < 0)
            return rc;
        json_add_item(array, NULL, item);
    }
}

static int mapping(yaml_parser_t *p, unsigned depth, cJSON *object, struct err *e)
{
    for (;;) {
        yaml_event_t key, event;
        cJSON *item = NULL;
        int rc;

        if (next(p, &key, e) < 0)
            return -1;
        bool end = key.type == YAML_MAPPING_END_EVENT;

        if (end)
            rc = 0;
        else if (key.type != YAML_SCALAR_EVENT ||
                 cJSON_HasObjectItem(object, (const char *)key.data.scalar.value))
            rc = refuse(&key, "a key must be a plain word and occur once", e);
        else if ((rc = next(p, &event, e)) == 0) {
            rc = value(p, &event, depth, &item, e);
            yaml_event_delete(&event);
            if (rc == 0)
                json_add_item(object, (const char *)key.data.scalar.value, item);
        }
        yaml_event_delete(&key);
        if (end || rc < 0)
            return rc;
    }
}

static int value(yaml_parser_t *p, yaml_event_t *event, unsigned depth, cJSON **ret, struct err *e)
{
    AUTO(cJSON) cJSON *v = NULL;

    if (depth > BOUND_JSON_DEPTH)
        return refuse(event, "nested too deep", e);
    switch (event->type) {
    case YAML_SCALAR_EVENT: v = scalar(event); break;
    case YAML_SEQUENCE_START_EVENT:
        v = cJSON_CreateArray();
        if (sequence(p, depth + 1, v, e) < 0)
            return -1;
        break;
    case YAML_MAPPING_START_EVENT:
        v = cJSON_CreateObject();
        if (mapping(p, depth + 1, v, e) < 0)
            return -1;
        break;
    default: return refuse(event, "anchors and aliases are not taken", e);
    }
    *ret = take_ptr(&v);
    return 0;
}

static int document(yaml_parser_t *p, cJSON **ret, struct err *e)
{
    for (;;) {
        yaml_event_t event;

        if (next(p, &event, e) < 0)
            return -1;
        bool content = event.type == YAML_MAPPING_START_EVENT;
        bool prologue =
            event.type == YAML_STREAM_START_EVENT || event.type == YAML_DOCUMENT_START_EVENT;
        int rc = content    ? value(p, &event, 0, ret, e)
                 : prologue ? 0
                            : refuse(&event, "a mapping is expected", e);

        yaml_event_delete(&event);
        if (content || rc < 0)
            return rc;
    }
}

int cdi_yaml_parse(const char *text, size_t n, cJSON **ret, struct err *e)
{
    yaml_parser_t parser;

    if (!yaml_parser_initialize(&parser))
        return err_set(e, ERR_HOST, "YAML: out of memory");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
    int rc = document(&parser, ret, e);

    yaml_parser_delete(&parser);
    return rc;
}
