#pragma once
/*
 * json.h - JSON documents from outside (cJSON), strict; field tables: struct <-> JSON.
 *
 * json_parse refuses trailing bytes, duplicate keys, NUL in strings, invalid UTF-8, and depth above
 * BOUND_JSON_DEPTH (S05, S14). Unknown keys are not errors. A table has a row a field; reading fills
 * a struct of ours, writing makes the object again.
 * Threads: any. Ownership: json_parse's result is freed with cJSON_Delete (AUTO(cJSON)); strings in a
 * struct read by table belong to the struct, json_free_fields releases them.
 */
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"

struct err;

static inline void auto_release_cJSON(cJSON **p)
{
    cJSON_Delete(*p);
}

int json_parse(const char *text, size_t n, cJSON **ret, struct err *e) MUST_CHECK;
/* Compact text, a new string. */
char *json_text(const cJSON *v);

/* Typed look-ups in an object. Missing or null: the get_* answer ERR_USER naming the key; the opt_*
 * leave *ret alone and return 0. Integers must be whole and in range (1.0 and 1e3 are refused unless
 * the number is whole). Strings are borrowed from the document. */
int json_get_str(const cJSON *obj, const char *key, size_t max, const char **ret, struct err *e)
    MUST_CHECK;
int json_opt_str(const cJSON *obj, const char *key, size_t max, const char **ret, struct err *e)
    MUST_CHECK;
int json_get_u64(const cJSON *obj, const char *key, uint64_t max, uint64_t *ret, struct err *e)
    MUST_CHECK;
int json_get_i64(const cJSON *obj, const char *key, int64_t min, int64_t max, int64_t *ret,
                 struct err *e) MUST_CHECK;
int json_opt_i64(const cJSON *obj, const char *key, int64_t min, int64_t max, int64_t *ret,
                 struct err *e) MUST_CHECK;
int json_opt_bool(const cJSON *obj, const char *key, bool *ret, struct err *e) MUST_CHECK;
int json_opt_double(const cJSON *obj, const char *key, double *ret, struct err *e) MUST_CHECK;
/* Array or object member; NULL in *ret when missing or null (opt) or an error (get). */
int json_get_array(const cJSON *obj, const char *key, size_t max_items, const cJSON **ret,
                   struct err *e) MUST_CHECK;
int json_opt_array(const cJSON *obj, const char *key, size_t max_items, const cJSON **ret,
                   struct err *e) MUST_CHECK;
int json_get_object(const cJSON *obj, const char *key, const cJSON **ret, struct err *e) MUST_CHECK;
int json_opt_object(const cJSON *obj, const char *key, const cJSON **ret, struct err *e) MUST_CHECK;
/* Array of strings into a list (appended). Missing or null: nothing. */
int json_opt_str_list(const cJSON *obj, const char *key, size_t max_items, size_t max_bytes,
                      struct str_list *ret, struct err *e) MUST_CHECK;

/* Building: all abort when out of memory; strings are copied. NULL str becomes null. */
void json_add_str(cJSON *obj, const char *key, const char *value);
void json_add_int(cJSON *obj, const char *key, int64_t value); /* exact to 2^63, printed whole */
void json_add_double(cJSON *obj, const char *key, double value);
void json_add_bool(cJSON *obj, const char *key, bool value);
void json_add_null(cJSON *obj, const char *key);
cJSON *json_add_object(cJSON *obj, const char *key);
cJSON *json_add_array(cJSON *obj, const char *key);
void json_add_str_list(cJSON *obj, const char *key, const struct str_list *l);
void json_add_item(cJSON *obj, const char *key, cJSON *item); /* takes item */

/*
 * Text at once, without a tree: for what is written often. Each appends one value, after a comma where one is due; key
 * is plain ASCII, or NULL in an array. -1 when the string's maximum would be passed; it is then cut anywhere.
 */
int json_put_str(struct str *s, const char *key, const char *value) MUST_CHECK; /* NULL: null */
int json_put_int(struct str *s, const char *key, int64_t value) MUST_CHECK;
/* Rounded to millionths, which is what is known of a time; not finite: null. */
int json_put_micro(struct str *s, const char *key, double value) MUST_CHECK;
int json_put_bool(struct str *s, const char *key, bool value) MUST_CHECK;
int json_put_null(struct str *s, const char *key) MUST_CHECK;
/* n bytes that are JSON already. */
int json_put_text(struct str *s, const char *key, const char *text, size_t n) MUST_CHECK;
int json_put_open(struct str *s, const char *key, char bracket) MUST_CHECK; /* '{' or '[' */
int json_put_close(struct str *s, char bracket) MUST_CHECK;                 /* '}' or ']' */

/* Field tables. */
enum json_type {
    JSON_STR,      /* char *, NULL when missing or null */
    JSON_BOOL,     /* bool */
    JSON_I64,      /* int64_t */
    JSON_U64,      /* uint64_t */
    JSON_U32,      /* uint32_t */
    JSON_DOUBLE,   /* double */
    JSON_STR_LIST, /* struct str_list */
    JSON_OBJ,      /* a nested struct in place; `sub` is its table */
    JSON_OBJ_PTR,  /* pointer to a nested struct of `sub_size` bytes, NULL when missing */
    JSON_OBJ_LIST, /* pointer to an array of structs, count (size_t) at count_offset */
    JSON_RAW,      /* cJSON *: a duplicate of the value, NULL when missing */
};

enum {
    JSON_REQUIRED = 1,
    JSON_WRITE_NULL = 2 /* write null when absent, else leave the key out */
};

struct json_field {
    const char *name; /* NULL ends the table */
    enum json_type type;
    unsigned flags;
    size_t offset;
    uint64_t
        max; /* bytes of a string, value of a number, items of a list; 0: 64 KiB / type / 64 Ki */
    const struct json_field *sub;
    size_t sub_size, count_offset;
};

#define JSON_FIELD(struct_type, member, key, kind, fl, mx)                                     \
    {                                                                                          \
        .name = (key), .type = (kind), .flags = (fl), .offset = offsetof(struct_type, member), \
        .max = (mx)                                                                            \
    }
#define JSON_LIST(struct_type, member, count, key, table, elem, fl, mx)        \
    {                                                                          \
        .name = (key), .type = JSON_OBJ_LIST, .flags = (fl),                   \
        .offset = offsetof(struct_type, member), .max = (mx), .sub = (table),  \
        .sub_size = sizeof(elem), .count_offset = offsetof(struct_type, count) \
    }
#define JSON_SUB(struct_type, member, key, table, fl)                                            \
    {                                                                                            \
        .name = (key), .type = JSON_OBJ, .flags = (fl), .offset = offsetof(struct_type, member), \
        .sub = (table)                                                                           \
    }
#define JSON_SUB_PTR(struct_type, member, key, table, elem, fl)                           \
    {                                                                                     \
        .name = (key), .type = JSON_OBJ_PTR, .flags = (fl),                               \
        .offset = offsetof(struct_type, member), .sub = (table), .sub_size = sizeof(elem) \
    }

/* Fill dst (zeroed by the caller) from obj. On error dst may be half filled; free it all the same. */
int json_read_fields(const cJSON *obj, const struct json_field *table, void *dst, struct err *e)
    MUST_CHECK;
cJSON *json_write_fields(const struct json_field *table, const void *src);
void json_free_fields(const struct json_field *table, void *dst);
