#include "base/str.h"
#include "base/units.h"
#include "test.h"

/* B202: appendix A.1 */
static void sizes(void **state UNUSED)
{
    static const struct {
        const char *text;
        bool good;
        int64_t value;
    } rows[] = {
        {"3", true, 3},
        {"-5", true, -5},
        {"0.5", false, 0},
        {"1.5g", true, 1610612736},
        {"1e3k", true, 1024000},
        {"2G", true, 2147483648},
        {"4 k", false, 0},
        {"4kb", false, 0},
        {"", false, 0},
        {"k", false, 0},
        {"infk", false, 0},
        {"0x10k", false, 0},
        {"-1m", true, -1048576},
        {"1..5k", false, 0},
        {"99999999999999999999", false, 0},
        {"1e99t", false, 0},
        {".5m", true, 524288},
        {"1ek", false, 0},
    };
    struct err e = ERR_INIT;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        int64_t v = 0;
        int rc = units_size(rows[i].text, &v, &e);

        if ((rc == 0) != rows[i].good || v != rows[i].value)
            fail_msg("\"%s\" gives %d, %lld", rows[i].text, rc, (long long)v);
        if (rc < 0)
            assert_has(e.msg, "expected <number>[<k|m|g|t>]");
    }
}

/* B212: appendix A.1 */
static void size_texts(void **state UNUSED)
{
    static const struct {
        double n;
        const char *text;
    } rows[] = {{0, "0"},
                {1023, "1023"},
                {1024, "1k"},
                {1025, "1.0k"},
                {1536, "1.5k"},
                {3500, "3.4k"},
                {400000, "390k"},
                {102451, "100k"},
                {1048575, "1023k"},
                {10485760, "10m"},
                {2147483648.0, "2g"},
                {2684354560.0, "2.5g"},
                {350000000000.0, "325g"},
                {1099511627776.0, "1t"}};
    char buf[UNITS_TEXT_MAX];

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_string_equal(units_size_str(buf, rows[i].n, false), rows[i].text);
    assert_string_equal(units_size_str(buf, 0, true), "0 bytes");
    assert_string_equal(units_size_str(buf, 2048, true), "2k");
    assert_null(units_size_str(buf, 1024.0 * 1099511627776.0, false));
}

/* B212: appendix A.2 */
static void durations(void **state UNUSED)
{
    static const struct {
        double s;
        const char *text;
    } rows[] = {{0, "0.0s"},     {0.96, "1.0s"},    {59.96, "60.0s"}, {60, "1m0s"},
                {100, "1m40s"},  {3600, "1h0m"},    {10000, "2h46m"}, {86400, "1d0h"},
                {90061, "1d1h"}, {31536000, "1y0d"}};
    char buf[UNITS_TEXT_MAX];
    struct err e = ERR_INIT;
    uint64_t v;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_string_equal(units_duration_str(buf, rows[i].s), rows[i].text);
    assert_ok(units_duration("2h", &v, &e), &e);
    assert_int_equal(v, 7200);
    assert_int_equal(units_duration("2w", &v, &e), -1);
}

static void numbers_take_the_whole_text(void **state UNUSED) /* S06 */
{
    static const char *const bad[] = {"",  " 1", "1 ", "+1", "0x1", "1.0", "18446744073709551616",
                                      "-1"};
    struct err e = ERR_INIT;
    uint64_t v;
    int64_t i;

    for (size_t n = 0; n < ARRAY_SIZE(bad); n++)
        assert_int_equal(units_u64(bad[n], UINT64_MAX, &v, &e), -1);
    assert_ok(units_u64("18446744073709551615", UINT64_MAX, &v, &e), &e);
    assert_true(v == UINT64_MAX);
    assert_int_equal(units_u64("256", 255, &v, &e), -1);
    assert_ok(units_i64("-9", -9, 0, &i, &e), &e);
    assert_int_equal(units_i64("-10", -9, 0, &i, &e), -1);
}

static void cpu_lists(void **state UNUSED)
{
    static const struct {
        const char *in, *out;
    } rows[] = {{"0-3,8", "0-3,8"}, {"3,2,1", "1-3"}, {"", ""}, {"4095", "4095"}};
    static const char *const bad[] = {"4096", "3-1", "a", "1,", "-1", "1--2"};
    struct cpu_set s;
    struct err e = ERR_INIT;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_ok(cpu_set_parse(rows[i].in, &s, &e), &e);
        AUTO_FREE char *text = cpu_set_text(&s);
        assert_string_equal(text, rows[i].out);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(cpu_set_parse(bad[i], &s, &e), -1);
}

static void cpu_sets_are_walked_and_joined(void **state UNUSED)
{
    static const unsigned members[] = {0, 63, 64, 200, 4095};
    struct cpu_set a = {0}, b = {0};
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_SIZE(members); i++)
        cpu_set_add(i % 2 ? &a : &b, members[i]);
    cpu_set_or(&a, &b);
    for (int cpu = cpu_set_next(&a, 0); cpu >= 0; cpu = cpu_set_next(&a, (unsigned)cpu + 1))
        assert_int_equal(cpu, members[n++]);
    assert_int_equal(n, ARRAY_SIZE(members));
    assert_int_equal(cpu_set_next(&a, 65), 200);
    assert_int_equal(cpu_set_next(&a, 4095), 4095);
    assert_int_equal(cpu_set_next(&a, 4096), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),     cmocka_unit_test(size_texts),
        cmocka_unit_test(durations), cmocka_unit_test(numbers_take_the_whole_text),
        cmocka_unit_test(cpu_lists), cmocka_unit_test(cpu_sets_are_walked_and_joined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
