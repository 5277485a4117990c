#include <errno.h>

#include "test.h"

static void errno_decides_the_kind(void **state UNUSED)
{
    static const struct {
        int sys;
        enum err_kind kind;
    } rows[] = {
        {ENOENT, ERR_ABSENT}, {ENOSPC, ERR_LIMIT}, {EPERM, ERR_HOST}, {ECANCELED, ERR_CANCELLED}};
    struct err e = ERR_INIT;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        errno = rows[i].sys;
        assert_int_equal(err_sys(&e, "open %s", "x"), -1);
        assert_int_equal(e.kind, rows[i].kind);
        assert_int_equal(e.sys, rows[i].sys);
        assert_has(e.msg, "open x: ");
    }
}

static void context_comes_first_and_the_cause_survives(void **state UNUSED)
{
    struct err e = ERR_INIT;

    err_set(&e, ERR_USER, "%0400d is the cause", 7);
    for (int i = 0; i < 20; i++)
        err_wrap(&e, "context number %d", i);
    assert_true(strncmp(e.msg, "context number 19: ", 19) == 0);
    assert_has(e.msg, "is the cause");
    assert_true(strlen(e.msg) < sizeof(e.msg));
    assert_int_equal(e.kind, ERR_USER);
}

static void wrapping_may_quote_the_old_text(void **state UNUSED)
{
    struct err e = ERR_INIT;

    err_set(&e, ERR_REMOTE, "old");
    err_wrap(&e, "new (%s)", e.msg);
    assert_string_equal(e.msg, "new (old): old");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errno_decides_the_kind),
        cmocka_unit_test(context_comes_first_and_the_cause_survives),
        cmocka_unit_test(wrapping_may_quote_the_old_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
