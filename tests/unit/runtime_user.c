/*
 * Users and groups of an image, as tables. rows: S06 S42
 */
#include "runtime/user.h"
#include "tests/unit/test.h"

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
                             "alice:x:1000:1001:Alice:/home/alice:/bin/sh\n"
                             "broken:x:12monkeys:0::/:\n"
                             "wrap:x:4294967296:0::/:\n"
                             "minus:x:-1:0::/:\n"
                             "short:x\n"
                             "last:x:7:8::relative:";
static const char group[] =
    "root:x:0:\nalice:x:1001:\nstaff:x:50:bob,alice\nwheel:x:10:alice,root\nnogid:x::alice\n";

static void test_table(void **state)
{
    static const struct {
        const char *text;
        uint32_t uid, gid;
        size_t n_groups;
        const char *home; /* NULL: refused */
    } rows[] = {
        {"alice", 1000, 1001, 2, "/home/alice"},
        {"alice:staff", 1000, 50, 0, "/home/alice"},
        {"alice:77", 1000, 77, 0, "/home/alice"},
        {"1000", 1000, 1001, 2, "/home/alice"},
        {"1000:5", 1000, 5, 0, "/home/alice"},
        {"4000", 4000, 0, 0, "/"},
        {"4000:4001", 4000, 4001, 0, "/"},
        {"", 0, 0, 1, "/root"},
        {":staff", 0, 50, 0, "/root"},
        {"last", 7, 8, 0, "/"},
        {"mallory", 0, 0, 0, NULL},
        {"alice:nosuch", 0, 0, 0, NULL},
        {"broken", 0, 0, 0, NULL},
        {"wrap", 0, 0, 0, NULL},
        {"minus", 0, 0, 0, NULL},
        {"short", 0, 0, 0, NULL},
        {"4294967296", 0, 0, 0, NULL},
        {"4294967295", 0, 0, 0, NULL},
        {"-1", 0, 0, 0, NULL},
        {"0x10", 0, 0, 0, NULL},
        {" 0", 0, 0, 0, NULL},
        {"alice:root:x", 0, 0, 0, NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO(ctr_user) struct ctr_user u = {0};
        struct err e = ERR_INIT;
        int r = ctr_user_parse(rows[i].text, passwd, group, &u, &e);

        if ((r == 0) != (rows[i].home != NULL))
            fail_msg("'%s': %d %s", rows[i].text, r, e.msg);
        if (r < 0) {
            assert_int_equal(e.kind, ERR_USER);
            continue;
        }
        assert_int_equal(u.uid, rows[i].uid);
        assert_int_equal(u.gid, rows[i].gid);
        assert_int_equal(u.n_groups, rows[i].n_groups);
        assert_string_equal(u.home, rows[i].home);
    }
}

/* No root by fallback: an image without the files knows numbers only. */
static void test_empty_files(void **state)
{
    AUTO(ctr_user) struct ctr_user u = {0}, v = {0};
    struct err e = ERR_INIT;

    (void)state;
    assert_int_equal(ctr_user_parse("alice", "", "", &u, &e), -1);
    assert_ok(ctr_user_parse("12:34", "", "", &v, &e), &e);
    assert_int_equal(v.uid, 12);
    assert_int_equal(v.gid, 34);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_empty_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
