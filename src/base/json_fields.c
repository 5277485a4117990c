/*
 * Field tables: struct <-> JSON. See json.h; one row a field, no code per struct.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"

#define AT(base, offset, type)       ((type *)(void *)((char *)(base) + (offset)))
#define AT_CONST(base, offset, type) ((const type *)(const void *)((const char *)(base) + (offset)))

static uint64_t bound(const struct json_field *f, uint64_t otherwise)
{
    return f->max ? f->max : otherwise;
}

static int read_str(const cJSON *obj, const struct json_field *f, void *dst, struct err *e)
{
    const char *text = NULL;

    if (json_opt_str(obj, f->name, bound(f, 64 * BOUND_KIB), &text, e) < 0)
        return -1;
    mem_replace(AT(dst, f->offset, char *), text);
    return 0;
}

static int read_number(const cJSON *obj, const struct json_field *f, void *dst, struct err *e)
{
    uint64_t u = 0;
    int64_t i = 0;

    switch (f->type) {
    case JSON_I64:
        i = *AT(dst, f->offset, int64_t);
        if (json_opt_i64(obj, f->name, INT64_MIN, (int64_t)bound(f, INT64_MAX), &i, e) < 0)
            return -1;
        *AT(dst, f->offset, int64_t) = i;
        return 0;
    case JSON_U64:
        if (json_get_u64(obj, f->name, bound(f, UINT64_MAX), &u, e) < 0)
            return -1;
        *AT(dst, f->offset, uint64_t) = u;
        return 0;
    case JSON_U32:
        if (json_get_u64(obj, f->name, bound(f, UINT32_MAX), &u, e) < 0)
            return -1;
        *AT(dst, f->offset, uint32_t) = (uint32_t)u;
        return 0;
    default: return json_opt_double(obj, f->name, AT(dst, f->offset, double), e);
    }
}

static int read_sub(const cJSON *v, const struct json_field *f, void *dst, struct err *e)
{
    if (!cJSON_IsObject(v))
        return err_set(e, ERR_USER, "\"%s\" is not an object", f->name);
    if (json_read_fields(v, f->sub, dst, e) < 0)
        return err_wrap(e, "%s", f->name);
    return 0;
}

static int read_list(const cJSON *obj, const struct json_field *f, void *dst, struct err *e)
{
    const cJSON *array, *item;
    char *items;
    size_t n = 0;

    if (json_opt_array(obj, f->name, bound(f, 65536), &array, e) < 0)
        return -1;
    if (!array || !cJSON_GetArraySize(array))
        return 0;
    items = mem_array((size_t)cJSON_GetArraySize(array), f->sub_size);
    *AT(dst, f->offset, void *) = items;
    cJSON_ArrayForEach(item, array) {
        /* Counted before it is read, so that json_free_fields releases a half-read element. */
        *AT(dst, f->count_offset, size_t) = n + 1;
        if (!cJSON_IsObject(item))
            return err_set(e, ERR_USER, "\"%s\"[%zu] is not an object", f->name, n);
        if (json_read_fields(item, f->sub, items + n * f->sub_size, e) < 0)
            return err_wrap(e, "%s[%zu]", f->name, n);
        n++;
    }
    return 0;
}

static int read_field(const cJSON *obj, const struct json_field *f, void *dst, struct err *e)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(obj, f->name);

    if (!v || cJSON_IsNull(v))
        return f->flags & JSON_REQUIRED ? err_set(e, ERR_USER, "\"%s\" is missing", f->name) : 0;
    switch (f->type) {
    case JSON_STR: return read_str(obj, f, dst, e);
    case JSON_BOOL: return json_opt_bool(obj, f->name, AT(dst, f->offset, bool), e);
    case JSON_STR_LIST:
        return json_opt_str_list(obj, f->name, bound(f, 65536), 128 * BOUND_KIB,
                                 AT(dst, f->offset, struct str_list), e);
    case JSON_OBJ: return read_sub(v, f, AT(dst, f->offset, char), e);
    case JSON_OBJ_PTR:
        *AT(dst, f->offset, void *) = mem_zalloc(f->sub_size);
        return read_sub(v, f, *AT(dst, f->offset, void *), e);
    case JSON_OBJ_LIST: return read_list(obj, f, dst, e);
    case JSON_RAW:
        *AT(dst, f->offset, cJSON *) = cJSON_Duplicate(v, true);
        BUG_ON(!*AT(dst, f->offset, cJSON *));
        return 0;
    default: return read_number(obj, f, dst, e);
    }
}

int json_read_fields(const cJSON *obj, const struct json_field *table, void *dst, struct err *e)
{
    if (!cJSON_IsObject(obj))
        return err_set(e, ERR_USER, "not an object");
    for (const struct json_field *f = table; f->name; f++)
        if (read_field(obj, f, dst, e) < 0)
            return -1;
    return 0;
}

static void write_absent(cJSON *obj, const struct json_field *f)
{
    if (f->flags & JSON_WRITE_NULL)
        json_add_null(obj, f->name);
}

static void write_list(cJSON *obj, const struct json_field *f, const void *src)
{
    size_t n = *AT_CONST(src, f->count_offset, size_t);
    const char *items = *AT_CONST(src, f->offset, char *);

    if (!n && !(f->flags & JSON_REQUIRED))
        return;
    cJSON *array = json_add_array(obj, f->name);

    for (size_t i = 0; i < n; i++)
        json_add_item(array, NULL, json_write_fields(f->sub, items + i * f->sub_size));
}

static void write_u64(cJSON *obj, const char *name, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    json_add_item(obj, name, cJSON_CreateRaw(text));
}

static void write_pointer(cJSON *obj, const struct json_field *f, const void *src)
{
    const void *p = *AT_CONST(src, f->offset, void *);

    if (!p)
        write_absent(obj, f);
    else if (f->type == JSON_STR)
        json_add_str(obj, f->name, p);
    else if (f->type == JSON_RAW)
        json_add_item(obj, f->name, cJSON_Duplicate(p, true));
    else
        json_add_item(obj, f->name, json_write_fields(f->sub, p));
}

static void write_field(cJSON *obj, const struct json_field *f, const void *src)
{
    switch (f->type) {
    case JSON_STR:
    case JSON_RAW:
    case JSON_OBJ_PTR: write_pointer(obj, f, src); return;
    case JSON_BOOL: json_add_bool(obj, f->name, *AT_CONST(src, f->offset, bool)); return;
    case JSON_I64: json_add_int(obj, f->name, *AT_CONST(src, f->offset, int64_t)); return;
    case JSON_U64: write_u64(obj, f->name, *AT_CONST(src, f->offset, uint64_t)); return;
    case JSON_U32: write_u64(obj, f->name, *AT_CONST(src, f->offset, uint32_t)); return;
    case JSON_DOUBLE: json_add_double(obj, f->name, *AT_CONST(src, f->offset, double)); return;
    case JSON_STR_LIST:
        if (AT_CONST(src, f->offset, struct str_list)->n || f->flags & JSON_REQUIRED)
            json_add_str_list(obj, f->name, AT_CONST(src, f->offset, struct str_list));
        return;
    case JSON_OBJ:
        json_add_item(obj, f->name, json_write_fields(f->sub, AT_CONST(src, f->offset, char)));
        return;
    case JSON_OBJ_LIST: write_list(obj, f, src); return;
    }
}

cJSON *json_write_fields(const struct json_field *table, const void *src)
{
    cJSON *obj = cJSON_CreateObject();

    BUG_ON(!obj);
    for (const struct json_field *f = table; f->name; f++)
        write_field(obj, f, src);
    return obj;
}

static void free_list(const struct json_field *f, void *dst)
{
    char *items = *AT(dst, f->offset, char *);

    for (size_t i = 0; i < *AT(dst, f->count_offset, size_t); i++)
        json_free_fields(f->sub, items + i * f->sub_size);
    free(items);
    *AT(dst, f->offset, char *) = NULL;
    *AT(dst, f->count_offset, size_t) = 0;
}

static void free_field(const struct json_field *f, void *dst)
{
    switch (f->type) {
    case JSON_STR: mem_replace(AT(dst, f->offset, char *), NULL); break;
    case JSON_RAW:
        cJSON_Delete(*AT(dst, f->offset, cJSON *));
        *AT(dst, f->offset, cJSON *) = NULL;
        break;
    case JSON_STR_LIST: str_list_free(AT(dst, f->offset, struct str_list)); break;
    case JSON_OBJ: json_free_fields(f->sub, AT(dst, f->offset, char)); break;
    case JSON_OBJ_PTR:
        if (*AT(dst, f->offset, void *))
            json_free_fields(f->sub, *AT(dst, f->offset, void *));
        free(*AT(dst, f->offset, void *));
        *AT(dst, f->offset, void *) = NULL;
        break;
    case JSON_OBJ_LIST: free_list(f, dst); break;
    default: break;
    }
}

void json_free_fields(const struct json_field *table, void *dst)
{
    for (const struct json_field *f = table; f->name; f++)
        free_field(f, dst);
}
