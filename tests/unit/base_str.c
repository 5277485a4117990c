#include "base/mem.h"
#include "base/str.h"
#include "test.h"

static void bound_holds(void **state UNUSED)
{
    AUTO(str) struct str s = STR_INIT(5);

    assert_int_equal(str_append(&s, "abc", 3), 0);
    assert_int_equal(str_append(&s, "def", 3), -1); /* S05: N + 1 */
    assert_string_equal(str_text(&s), "abc");
    assert_int_equal(str_append(&s, "de", 2), 0);
    assert_int_equal(s.len, 5);
    assert_int_equal(str_append(&s, "", 0), 0);
}

/* S07: foreign bytes never reach a terminal raw. */
static void escape_table(void **state UNUSED)
{
    static const struct {
        const char *in, *out;
    } rows[] = {{"plain", "plain"},
                {"a\nb", "a\\x0ab"},
                {"\x1b[31m", "\\x1b[31m"},
                {"\xff\\", "\\xff\\x5c"},
                {"", ""}};
    char buf[64], small[8];

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_string_equal(str_show(buf, rows[i].in), rows[i].out);
    for (size_t n = 1; n < 20; n++) {
        char *text = mem_strndup("\x01\x01\x01\x01\x01zzzzzzzzzzzzzzzzz", n);

        str_show(small, text);
        assert_true(strlen(small) < sizeof(small));
        free(text);
    }
}

static void utf8_table(void **state UNUSED)
{
    static const struct {
        const char *text;
        bool good;
    } rows[] = {{"abc", true},
                {"\xc3\xa4", true},
                {"\xc3", false},
                {"\xc0\x80", false},
                {"\xed\xa0\x80", false},
                {"\xf0\x9f\x98\x80", true},
                {"\xf4\x90\x80\x80", false},
                {"\xe0\x80\x80", false}};

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_int_equal(str_is_utf8(rows[i].text, strlen(rows[i].text)), rows[i].good);
    assert_false(str_is_utf8("a\0b", 3));
}

/* B052, D83 */
static void ascii_is_cut_and_marked(void **state UNUSED)
{
    AUTO_FREE char *plain = str_ascii("gr\xc3\xbc\xc3\x9f", 100);
    AUTO_FREE char *cut = str_ascii("0123456789abcdefghij", 12);

    assert_string_equal(plain, "gr");
    assert_string_equal(cut, "012345 [cut]");
}

static void lists_grow(void **state UNUSED)
{
    AUTO(str_list) struct str_list l = {0};
    AUTO_FREE char *joined = NULL;

    for (int i = 0; i < 1000; i++)
        str_list_take(&l, mem_printf("%d", i));
    for (int i = 0; i < 1000; i++)
        assert_int_equal(strtoll(l.items[i], NULL, 10), i);
    assert_null(l.items[1000]);
    str_list_free(&l);
    str_list_split(&l, "a,,b", ',');
    assert_int_equal(l.n, 3);
    joined = str_list_join(&l, "+");
    assert_string_equal(joined, "a++b");
}

static void environment(void **state UNUSED)
{
    AUTO(str_list) struct str_list l = {0};

    str_list_add(&l, "HOMER=1");
    str_list_setenv(&l, "HOME", "/a");
    str_list_setenv(&l, "HOME", "/b");
    assert_int_equal(l.n, 2);
    assert_string_equal(str_list_getenv(&l, "HOME"), "/b");
    assert_null(str_list_getenv(&l, "HOM"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bound_holds), cmocka_unit_test(escape_table),
        cmocka_unit_test(utf8_table),  cmocka_unit_test(ascii_is_cut_and_marked),
        cmocka_unit_test(lists_grow),  cmocka_unit_test(environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
