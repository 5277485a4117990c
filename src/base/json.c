/*
 * Strict reading of JSON documents. cJSON is lenient where our inputs must not be: it keeps both of two equal
 * keys, stops at NUL, takes any bytes as strings, and reads every number as double. A scan over the text first
 * refuses what cJSON would let through; then cJSON builds the tree.
 */
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/mem.h"

/* Nesting depth and forbidden bytes in one pass over the text. */
static int scan(const char *text, size_t n, struct err *e)
{
    unsigned depth = 0;
    bool in_string = false;

    for (size_t i = 0; i < n; i++) {
        char c = text[i];

        if (in_string) {
            if (c == '\\' && i + 5 < n && memcmp(text + i, "\\u0000", 6) == 0)
                return err_set(e, ERR_USER, "JSON: NUL in a string at byte %zu", i);
            if ((unsigned char)c < 0x20)
                return err_set(e, ERR_USER, "JSON: control character in a string at byte %zu", i);
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        if (c == '"')
            in_string = true;
        else if ((c == '{' || c == '[') && ++depth > BOUND_JSON_DEPTH)
            return err_set(e, ERR_LIMIT, "JSON: nested deeper than %d", BOUND_JSON_DEPTH);
        else if ((c == '}' || c == ']') && depth)
            depth--;
    }
    return 0;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int refuse_duplicate_keys(const cJSON *v, struct err *e)
{
    const cJSON *child;
    size_t n = 0, i = 0;
    char shown[STR_SHOW_MAX];

    cJSON_ArrayForEach(child, v) {
        n++;
        if (refuse_duplicate_keys(child, e) < 0)
            return -1;
    }
    if (!cJSON_IsObject(v) || n < 2)
        return 0;
    AUTO_FREE const char **keys = mem_array(n, sizeof(*keys));

    cJSON_ArrayForEach(child, v)
        keys[i++] = child->string;
    qsort(keys, n, sizeof(*keys), compare_keys);
    for (i = 1; i < n; i++)
        if (strcmp(keys[i - 1], keys[i]) == 0)
            return err_set(e, ERR_USER, "JSON: key \"%s\" occurs twice", str_show(shown, keys[i]));
    return 0;
}

int json_parse(const char *text, size_t n, cJSON **ret, struct err *e)
{
    const char *end = text;

    if (!str_is_utf8(text, n))
        return err_set(e, ERR_USER, "JSON: not UTF-8, or NUL bytes inside");
    if (scan(text, n, e) < 0)
        return -1;
    AUTO(cJSON) cJSON *v = cJSON_ParseWithLengthOpts(text, n, &end, false);

    if (!v)
        return err_set(e, ERR_USER, "JSON: syntax error at byte %zu of %zu",
                       (size_t)(end ? end - text : 0), n);
    while (end < text + n && strchr(" \t\r\n", *end) && *end)
        end++;
    if (end != text + n)
        return err_set(e, ERR_USER, "JSON: %zu bytes behind the document",
                       (size_t)(text + n - end));
    if (refuse_duplicate_keys(v, e) < 0)
        return -1;
    *ret = take_ptr(&v);
    return 0;
}

char *json_text(const cJSON *v)
{
    char *text = cJSON_PrintUnformatted(v);

    BUG_ON(!text);
    return text;
}

/* The member, or NULL when missing or null. */
static const cJSON *member(const cJSON *obj, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(obj, key);

    return v && !cJSON_IsNull(v) ? v : NULL;
}

static int missing(const char *key, struct err *e)
{
    return err_set(e, ERR_USER, "\"%s\" is missing", key);
}

static int wrong(const char *key, const char *wanted, struct err *e)
{
    return err_set(e, ERR_USER, "\"%s\" is not %s", key, wanted);
}

static int check_str(const cJSON *v, const char *key, size_t max, const char **ret, struct err *e)
{
    if (!cJSON_IsString(v))
        return wrong(key, "a string", e);
    if (strlen(v->valuestring) > max)
        return err_set(e, ERR_LIMIT, "\"%s\" is longer than %zu bytes", key, max);
    *ret = v->valuestring;
    return 0;
}

static int check_i64(const cJSON *v, const char *key, int64_t min, int64_t max, int64_t *ret,
                     struct err *e)
{
    if (!cJSON_IsNumber(v))
        return wrong(key, "a number", e);
    double d = v->valuedouble;

    if (!isfinite(d) || d != floor(d))
        return wrong(key, "a whole number", e);
    /* 2^63 as a double is just above INT64_MAX; casting it would be undefined. */
    int64_t value = d >= 9223372036854775808.0   ? INT64_MAX
                    : d < -9223372036854775808.0 ? INT64_MIN
                                                 : (int64_t)d;

    if (value < min || value > max)
        return err_set(e, ERR_USER, "\"%s\" is %.0f, not between %lld and %lld", key, d,
                       (long long)min, (long long)max);
    *ret = value;
    return 0;
}

static int check_u64(const cJSON *v, const char *key, uint64_t max, uint64_t *ret, struct err *e)
{
    if (!cJSON_IsNumber(v))
        return wrong(key, "a number", e);
    double d = v->valuedouble;

    if (!isfinite(d) || d != floor(d) || d < 0)
        return wrong(key, "a whole number of at least 0", e);
    uint64_t value = d >= 18446744073709551616.0 ? UINT64_MAX : (uint64_t)d;

    if (value > max)
        return err_set(e, ERR_USER, "\"%s\" is %.0f, larger than %llu", key, d,
                       (unsigned long long)max);
    *ret = value;
    return 0;
}

int json_opt_str(const cJSON *obj, const char *key, size_t max, const char **ret, struct err *e)
{
    const cJSON *v = member(obj, key);

    return v ? check_str(v, key, max, ret, e) : 0;
}

int json_get_str(const cJSON *obj, const char *key, size_t max, const char **ret, struct err *e)
{
    const cJSON *v = member(obj, key);

    return v ? check_str(v, key, max, ret, e) : missing(key, e);
}

int json_get_u64(const cJSON *obj, const char *key, uint64_t max, uint64_t *ret, struct err *e)
{
    const cJSON *v = member(obj, key);

    return v ? check_u64(v, key, max, ret, e) : missing(key, e);
}

int json_get_i64(const cJSON *obj, const char *key, int64_t min, int64_t max, int64_t *ret,
                 struct err *e)
{
    const cJSON *v = member(obj, key);

    return v ? check_i64(v, key, min, max, ret, e) : missing(key, e);
}

int json_opt_i64(const cJSON *obj, const char *key, int64_t min, int64_t max, int64_t *ret,
                 struct err *e)
{
    const cJSON *v = member(obj, key);

    return v ? check_i64(v, key, min, max, ret, e) : 0;
}

int json_opt_bool(const cJSON *obj, const char *key, bool *ret, struct err *e)
{
    const cJSON *v = member(obj, key);

    if (!v)
        return 0;
    if (!cJSON_IsBool(v))
        return wrong(key, "true or false", e);
    *ret = cJSON_IsTrue(v);
    return 0;
}

int json_opt_double(const cJSON *obj, const char *key, double *ret, struct err *e)
{
    const cJSON *v = member(obj, key);

    if (!v)
        return 0;
    if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble))
        return wrong(key, "a finite number", e);
    *ret = v->valuedouble;
    return 0;
}

int json_opt_array(const cJSON *obj, const char *key, size_t max_items, const cJSON **ret,
                   struct err *e)
{
    const cJSON *v = member(obj, key);

    *ret = NULL;
    if (!v)
        return 0;
    if (!cJSON_IsArray(v))
        return wrong(key, "an array", e);
    if ((size_t)cJSON_GetArraySize(v) > max_items)
        return err_set(e, ERR_LIMIT, "\"%s\" has more than %zu items", key, max_items);
    *ret = v;
    return 0;
}

int json_get_array(const cJSON *obj, const char *key, size_t max_items, const cJSON **ret,
                   struct err *e)
{
    if (json_opt_array(obj, key, max_items, ret, e) < 0)
        return -1;
    return *ret ? 0 : missing(key, e);
}

int json_opt_object(const cJSON *obj, const char *key, const cJSON **ret, struct err *e)
{
    const cJSON *v = member(obj, key);

    *ret = NULL;
    if (v && !cJSON_IsObject(v))
        return wrong(key, "an object", e);
    *ret = v;
    return 0;
}

int json_get_object(const cJSON *obj, const char *key, const cJSON **ret, struct err *e)
{
    if (json_opt_object(obj, key, ret, e) < 0)
        return -1;
    return *ret ? 0 : missing(key, e);
}

int json_opt_str_list(const cJSON *obj, const char *key, size_t max_items, size_t max_bytes,
                      struct str_list *ret, struct err *e)
{
    const cJSON *array, *item;
    const char *text = NULL;

    if (json_opt_array(obj, key, max_items, &array, e) < 0)
        return -1;
    cJSON_ArrayForEach(item, array) {
        if (check_str(item, key, max_bytes, &text, e) < 0)
            return -1;
        str_list_add(ret, text);
    }
    return 0;
}

void json_add_item(cJSON *obj, const char *key, cJSON *item)
{
    BUG_ON(!item);
    bool added = key ? cJSON_AddItemToObject(obj, key, item) : cJSON_AddItemToArray(obj, item);

    BUG_ON(!added);
}

void json_add_str(cJSON *obj, const char *key, const char *value)
{
    json_add_item(obj, key, value ? cJSON_CreateString(value) : cJSON_CreateNull());
}

void json_add_int(cJSON *obj, const char *key, int64_t value)
{
    /* cJSON prints doubles with up to 17 digits, in exponent form from 1e15 or so: a raw number is exact. */
    char text[24];

    snprintf(text, sizeof(text), "%lld", (long long)value);
    json_add_item(obj, key, cJSON_CreateRaw(text));
}

void json_add_double(cJSON *obj, const char *key, double value)
{
    json_add_item(obj, key, isfinite(value) ? cJSON_CreateNumber(value) : cJSON_CreateNull());
}

void json_add_bool(cJSON *obj, const char *key, bool value)
{
    json_add_item(obj, key, cJSON_CreateBool(value));
}

void json_add_null(cJSON *obj, const char *key)
{
    json_add_item(obj, key, cJSON_CreateNull());
}

cJSON *json_add_object(cJSON *obj, const char *key)
{
    cJSON *v = cJSON_CreateObject();

    json_add_item(obj, key, v);
    return v;
}

cJSON *json_add_array(cJSON *obj, const char *key)
{
    cJSON *v = cJSON_CreateArray();

    json_add_item(obj, key, v);
    return v;
}

void json_add_str_list(cJSON *obj, const char *key, const struct str_list *l)
{
    cJSON *array = json_add_array(obj, key);

    for (size_t i = 0; i < l->n; i++)
        json_add_str(array, NULL, l->items[i]);
}
