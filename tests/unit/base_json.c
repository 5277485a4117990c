#include <math.h>

#include "base/bounds.h"
#include "base/json.h"
#include "base/mem.h"
#include "test.h"

static int parse(const char *text, cJSON **ret, struct err *e)
{
    return json_parse(text, strlen(text), ret, e);
}

static void strictness(void **state UNUSED) /* S05, S14 */
{
    static const struct {
        const char *text;
        bool good;
    } rows[] = {
        {"{}", true},
        {" [1, 2] \n", true},
        {"{\"a\":1,\"a\":2}", false},
        {"{} {}", false},
        {"{\"a\":\"\\u0000\"}", false},
        {"\"\xff\"", false},
        {"", false},
        {"{\"a\":{\"b\":1,\"b\":1}}", false},
        {"{\"a\":\"x\ny\"}", false},
        {"{\"A\":1,\"a\":1}", true},
        {"[1,]", false},
        {"{\"a\":\"\\\\u0000\"}", true},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO(cJSON) cJSON *v = NULL;
        struct err e = ERR_INIT;

        if ((parse(rows[i].text, &v, &e) == 0) != rows[i].good)
            fail_msg("row %zu %s: %s", i, rows[i].text, e.msg);
    }
}

static void depth_is_bounded(void **state UNUSED) /* S05 */
{
    for (int n = BOUND_JSON_DEPTH; n <= BOUND_JSON_DEPTH + 1; n++) {
        AUTO(str) struct str s = STR_INIT(1000);
        AUTO(cJSON) cJSON *v = NULL;
        struct err e = ERR_INIT;

        for (int i = 0; i < n; i++)
            assert_int_equal(str_append(&s, "[", 1), 0);
        for (int i = 0; i < n; i++)
            assert_int_equal(str_append(&s, "]", 1), 0);
        assert_int_equal(parse(str_text(&s), &v, &e), n > BOUND_JSON_DEPTH ? -1 : 0);
    }
}

static void numbers_are_checked(void **state UNUSED) /* S06 */
{
    AUTO(cJSON) cJSON *v = NULL;
    struct err e = ERR_INIT;
    uint64_t u;
    int64_t i = 7;

    assert_ok(parse("{\"f\":1.5,\"n\":-1,\"b\":1e30,\"w\":86400.0,\"s\":\"1\",\"z\":null}", &v, &e),
              &e);
    assert_int_equal(json_get_u64(v, "f", 10, &u, &e), -1);
    assert_int_equal(json_get_u64(v, "n", 10, &u, &e), -1);
    assert_int_equal(json_get_u64(v, "b", UINT64_MAX - 1, &u, &e), -1);
    assert_int_equal(json_get_u64(v, "s", 10, &u, &e), -1);
    assert_int_equal(json_get_u64(v, "z", 10, &u, &e), -1);
    assert_int_equal(json_opt_i64(v, "z", 0, 9, &i, &e), 0);
    assert_int_equal(i, 7);
    assert_ok(json_get_i64(v, "w", 0, INT64_MAX, &i, &e), &e);
    assert_int_equal(i, 86400);
}

struct inner {
    char *name;
    int64_t n;
};
struct outer {
    char *text;
    bool yes;
    uint64_t big;
    double d;
    struct str_list list;
    struct inner *items;
    size_t n_items;
    cJSON *raw;
};
static const struct json_field inner_table[] = {
    JSON_FIELD(struct inner, name, "name", JSON_STR, JSON_REQUIRED, 5),
    JSON_FIELD(struct inner, n, "n", JSON_I64, 0, 0),
    {0},
};
static const struct json_field outer_table[] = {
    JSON_FIELD(struct outer, text, "text", JSON_STR, JSON_WRITE_NULL, 0),
    JSON_FIELD(struct outer, yes, "yes", JSON_BOOL, 0, 0),
    JSON_FIELD(struct outer, big, "big", JSON_U64, 0, 0),
    JSON_FIELD(struct outer, d, "d", JSON_DOUBLE, 0, 0),
    JSON_FIELD(struct outer, list, "list", JSON_STR_LIST, 0, 3),
    JSON_LIST(struct outer, items, n_items, "items", inner_table, struct inner, 0, 2),
    JSON_FIELD(struct outer, raw, "raw", JSON_RAW, 0, 0),
    {0},
};

static void tables_round_trip(void **state UNUSED)
{
    static const char text[] =
        "{\"text\":null,\"yes\":true,\"big\":9007199254740992,\"d\":0.5,\"list\":[\"a\",\"b\"],"
        "\"items\":[{\"name\":\"x\",\"n\":-3},{\"name\":\"y\",\"n\":0}],\"raw\":{\"k\":[1]}}";
    AUTO(cJSON) cJSON *v = NULL;
    struct outer o = {0};
    struct err e = ERR_INIT;

    assert_ok(parse(text, &v, &e), &e);
    assert_ok(json_read_fields(v, outer_table, &o, &e), &e);
    assert_int_equal(o.n_items, 2);
    assert_string_equal(o.items[1].name, "y");
    AUTO(cJSON) cJSON *back = json_write_fields(outer_table, &o);
    AUTO_FREE char *printed = json_text(back);
    assert_string_equal(printed, text);
    json_free_fields(outer_table, &o);
    assert_null(o.items);
}

static void tables_refuse(void **state UNUSED)
{
    static const struct {
        const char *text, *says;
    } rows[] = {{"{\"items\":[{}]}", "items[0]: \"name\" is missing"},
                {"{\"items\":[{\"name\":\"toolong\"}]}", "longer than 5"},
                {"{\"items\":[1]}", "\"items\"[0] is not an object"},
                {"{\"list\":[\"1\",\"2\",\"3\",\"4\"]}", "more than 3"},
                {"{\"list\":[1]}", "not a string"},
                {"{\"yes\":1}", "true or false"},
                {"[]", "not an object"}};

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO(cJSON) cJSON *v = NULL;
        struct outer o = {0};
        struct err e = ERR_INIT;

        assert_ok(parse(rows[i].text, &v, &e), &e);
        assert_int_equal(json_read_fields(v, outer_table, &o, &e), -1);
        assert_has(e.msg, rows[i].says);
        json_free_fields(outer_table, &o);
    }
}

static void integers_print_whole(void **state UNUSED) /* B031, B032 */
{
    AUTO(cJSON) cJSON *v = cJSON_CreateObject();

    json_add_int(v, "a", INT64_MAX);
    json_add_int(v, "b", 1000000000000000000);
    json_add_str(v, "c", NULL);
    AUTO_FREE char *text = json_text(v);
    assert_string_equal(text, "{\"a\":9223372036854775807,\"b\":1000000000000000000,\"c\":null}");
}

static void numbers_are_told_to_the_millionth(void **state UNUSED)
{
    static const struct {
        double value;
        const char *text;
    } rows[] = {{0, "[0]"},
                {-0.0, "[0]"},
                {1, "[1]"},
                {100, "[100]"},
                {0.5, "[0.5]"},
                {-2.25, "[-2.25]"},
                {1764177907.1234567, "[1764177907.123457]"},
                {0.9999999, "[1]"},
                {1e300, "[1.0000000000000001e+300]"},
                {INFINITY, "[null]"},
                {NAN, "[null]"}};

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO(str) struct str s = STR_INIT(100);
        assert_int_equal(json_put_open(&s, NULL, '['), 0);
        assert_int_equal(json_put_micro(&s, NULL, rows[i].value), 0);
        assert_int_equal(json_put_close(&s, ']'), 0);
        assert_string_equal(str_text(&s), rows[i].text);
    }
}

static void text_without_a_tree_is_the_same(void **state UNUSED)
{
    AUTO(str) struct str s = STR_INIT(200);
    const char *odd = "a\"b\\c\n\t\x01\x7f d/e";

    assert_int_equal(json_put_open(&s, NULL, '{'), 0);
    assert_int_equal(json_put_str(&s, "s", odd), 0);
    assert_int_equal(json_put_null(&s, "n"), 0);
    assert_int_equal(json_put_open(&s, "l", '['), 0);
    assert_int_equal(json_put_int(&s, NULL, INT64_MIN), 0);
    assert_int_equal(json_put_bool(&s, NULL, true), 0);
    assert_int_equal(json_put_str(&s, NULL, ""), 0);
    assert_int_equal(json_put_close(&s, ']'), 0);
    assert_int_equal(json_put_open(&s, "o", '{'), 0);
    assert_int_equal(json_put_close(&s, '}'), 0);
    assert_int_equal(json_put_str(&s, "none", NULL), 0);
    assert_int_equal(json_put_close(&s, '}'), 0);
    AUTO(cJSON) cJSON *v = NULL;
    struct err e = ERR_INIT;
    assert_ok(parse(str_text(&s), &v, &e), &e);
    assert_string_equal(cJSON_GetObjectItemCaseSensitive(v, "s")->valuestring, odd);
    assert_has(str_text(&s),
               "\"n\":null,\"l\":[-9223372036854775808,true,\"\"],\"o\":{},\"none\":null}");
    struct str small = STR_INIT(5);
    assert_int_equal(json_put_str(&small, NULL, "12345"), -1);
    str_free(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strictness),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(numbers_are_checked),
        cmocka_unit_test(tables_round_trip),
        cmocka_unit_test(tables_refuse),
        cmocka_unit_test(integers_print_whole),
        cmocka_unit_test(numbers_are_told_to_the_millionth),
        cmocka_unit_test(text_without_a_tree_is_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
