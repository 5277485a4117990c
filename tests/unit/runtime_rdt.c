/*
 * linux.intelRdt on a directory that stands in for resctrl: which group, what is written where, what is compared, what is
 * taken away. (A directory makes no files by itself, so those of a group that is there already are put beforehand.)
 */
#include <cjson/cJSON.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/str.h"
#include "base/tree.h"
#include "runtime/rdt.h"
#include "runtime/spec.h"
#include "tests/unit/test.h"

static char top[64];

static void put(const char *path, const char *text)
{
    AUTO_FREE char *whole = mem_printf("%s/%s", top, path);
    AUTO_FREE char *dir = mem_strndup(whole, (size_t)(strrchr(whole, '/') - whole));
    struct err e = ERR_INIT;

    assert_ok(path_mkdirs(dir, 0755, &e), &e);
    AUTO_CLOSE int fd = open(whole, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_int_equal(fd_write_all(fd, text, strlen(text)), 0);
}

/* A new string; NULL when it is not there. */
static char *get(const char *path)
{
    AUTO_FREE char *whole = mem_printf("%s/%s", top, path);
    AUTO(str) struct str text = STR_INIT(4096);
    struct err e = ERR_INIT;

    return fd_read_file_at(AT_FDCWD, whole, &text, &e) < 0 ? NULL : str_take(&text);
}

static void expect(const char *path, const char *text)
{
    AUTO_FREE char *is = get(path);

    if (!is)
        fail_msg("%s is not there", path);
    assert_string_equal(is, text);
}

static bool exists(const char *path)
{
    AUTO_FREE char *whole = mem_printf("%s/%s", top, path);

    return access(whole, F_OK) == 0;
}

static int set_up(void **state UNUSED)
{
    snprintf(top, sizeof(top), "/tmp/cw-rdt-XXXXXX");
    return mkdtemp(top) ? 0 : -1;
}

static int tear_down(void **state UNUSED)
{
    struct err e = ERR_INIT;

    return tree_remove_at(AT_FDCWD, top, &e);
}

static int place(const char *json, struct err *e)
{
    AUTO(cJSON) cJSON *o = cJSON_Parse(json);
    struct ctr_rdt r = {0};

    assert_non_null(o);
    assert_ok(rdt_read(o, &r, e), e);
    int rc = rdt_place(top, &r, "c1", 4711, e);

    if (rc == 0) {
        assert_ok(rdt_join(top, &r, "c1", 4712, e), e);
        rdt_remove(top, &r, "c1");
    }
    rdt_free(&r);
    return rc;
}

/* closID alone: a group that somebody prepared, into which the processes go, and nothing else happens. */
static void a_prepared_group(void **state UNUSED)
{
    struct err e = ERR_INIT;

    assert_int_equal(place("{\"closID\":\"gold\"}", &e), -1);
    assert_int_equal(e.kind, ERR_ABSENT);
    assert_has(e.msg, "gold");
    assert_false(exists("gold"));
    put("gold/tasks", "");
    put("gold/schemata", "L3:0=fff\n");
    assert_ok(place("{\"closID\":\"gold\"}", &e), &e);
    expect("gold/tasks", "4712"); /* the last one to be put in */
    expect("gold/schemata", "L3:0=fff\n");
}

/* With schemata that are in force already, however they are written; others are an error. */
static void a_group_that_is_there_is_compared(void **state UNUSED)
{
    static const struct {
        const char *json;
        bool fits;
    } rows[] = {
        {"{\"closID\":\"gold\",\"l3CacheSchema\":\"L3:0=7f0;1=1f\"}", true},
        {"{\"closID\":\"gold\",\"l3CacheSchema\":\"L3:1=01F\"}", true},
        {"{\"closID\":\"gold\",\"l3CacheSchema\":\"L3:0=7f1\"}", false},
        {"{\"closID\":\"gold\",\"l3CacheSchema\":\"L3:2=7f0\"}", false},
        {"{\"closID\":\"gold\",\"l3CacheSchema\":\"L2:0=7f0\"}", false},
        {"{\"closID\":\"gold\",\"memBwSchema\":\"MB:0=20\"}", true},
        {"{\"closID\":\"gold\",\"memBwSchema\":\"MB:0=30\"}", false},
        /* of both, the line of memBwSchema counts */
        {"{\"closID\":\"gold\",\"l3CacheSchema\":\"L3:0=7f0\\nMB:0=99\",\"memBwSchema\":\"MB:0=20\"}",
         true},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct err e = ERR_INIT;

        put("gold/tasks", "");
        put("gold/schemata", "    L3:0=7f0;1=1f\n    MB:0= 20;1= 70\n");
        int rc = place(rows[i].json, &e);

        if (rc != (rows[i].fits ? 0 : -1))
            fail_msg("%s: %s", rows[i].json, e.msg);
        if (!rows[i].fits) {
            assert_int_equal(e.kind, ERR_USER);
            expect("gold/tasks", "");
        }
        assert_true(exists("gold"));
    }
}

/* The order of what is written: the older fields, then schemata. (In the stand-in each write begins at the start.) */
static void schemata_are_written_last(void **state UNUSED)
{
    struct err e = ERR_INIT;

    put("c1/tasks", "");
    put("c1/schemata", "");
    put("c1/mon_groups/c1/tasks", "");
    assert_ok(
        place("{\"l3CacheSchema\":\"L3:0=f\",\"schemata\":[\"L3:0=7\"],\"enableMonitoring\":true}",
              &e),
        &e);
    expect("c1/schemata", "L3:0=7\n");
    expect("c1/mon_groups/c1/tasks", "4712");
}

/* Our own group: made, and on a failure (here: a directory makes no files) taken away again. */
static void our_own_group(void **state UNUSED)
{
    struct err e = ERR_INIT;

    assert_int_equal(place("{}", &e), -1);
    assert_has(e.msg, "tasks");
    assert_false(exists("c1"));
    assert_int_equal(place("{\"closID\":\"new\",\"schemata\":[\"L3:0=7\"]}", &e), -1);
    assert_has(e.msg, "L3:0=7");
    assert_false(exists("new"));
}

static void a_host_without_it(void **state UNUSED)
{
    struct ctr_rdt r = {.set = true}, none = {0};
    struct err e = ERR_INIT;

    assert_int_equal(rdt_place("/no/such/resctrl", &r, "c1", 1, &e), -1);
    assert_has(e.msg, "intelRdt");
    assert_ok(rdt_place("/no/such/resctrl", &none, "c1", 1, &e), &e); /* not asked for */
    rdt_remove("/no/such/resctrl", &r, "c1");
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_prepared_group),          T(a_group_that_is_there_is_compared),
        T(schemata_are_written_last), T(our_own_group),
        T(a_host_without_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
