#include <unistd.h>

#include "base/opt.h"
#include "base/str.h"
#include "test.h"

struct options {
    bool flag, other;
    char *name, *kind;
    int64_t n, size;
    struct str_list list;
};
static const char *const kinds[] = {"docker", "kubernetes", NULL};
static const struct opt table[] = {
    OPT_ROW(struct options, flag, "exit-when-idle", 'e', OPT_FLAG, NULL, NULL, "x"),
    OPT_ROW(struct options, other, "exit-on-exception", 0, OPT_FLAG, NULL, NULL, "x"),
    OPT_ROW(struct options, name, "name", 'n', OPT_STR, "NAME", "deflt", "x"),
    OPT_ROW(struct options, n, "idle-seconds", 0, OPT_INT, "N", "0", "x"),
    OPT_ROW(struct options, size, "max-work-dir-size", 0, OPT_SIZE, "SIZE", "10g", "x"),
    {.name = "bundle-runtime",
     .type = OPT_CHOICE,
     .offset = offsetof(struct options, kind),
     .choices = kinds,
     .def = "docker"},
    OPT_ROW(struct options, list, "insecure", 0, OPT_LIST, "HOST", NULL, "x"),
    {0},
};

static int parse(struct options *o, struct str_list *words, const char *line, bool *help,
                 struct err *e)
{
    AUTO(str_list) struct str_list argv = {0};

    str_list_split(&argv, line, ' ');
    memset(o, 0, sizeof(*o));
    opt_defaults(table, o);
    return opt_parse(table, (int)argv.n, argv.items, false, o, words, help, e);
}

static void argparse_syntax(void **state UNUSED) /* B199 */
{
    struct options o;
    AUTO(str_list) struct str_list words = {0};
    struct err e = ERR_INIT;
    bool help = false;

    assert_ok(
        parse(
            &o, &words,
            "p --name=a --name b w1 --exit-when -n c --idle-seconds -5 --insecure x --insecure y -- --w2",
            &help, &e),
        &e);
    assert_true(o.flag);
    assert_false(o.other);
    assert_string_equal(o.name, "c");
    assert_int_equal(o.n, -5);
    assert_true(o.size == 10737418240LL);
    assert_string_equal(o.kind, "docker");
    assert_int_equal(o.list.n, 2);
    assert_int_equal(words.n, 2);
    assert_string_equal(words.items[1], "--w2");
    opt_free(table, &o);
}

static void argparse_errors(void **state UNUSED) /* B200 */
{
    static const struct {
        const char *line, *says;
    } rows[] = {
        {"p --exit", "ambiguous option: --exit could match --exit-when-idle, --exit-on-exception"},
        {"p --nosuch", "unrecognized arguments: --nosuch"},
        {"p --idle-seconds x", "argument --idle-seconds: invalid int value: 'x'"},
        {"p --max-work-dir-size 5q",
         "argument --max-work-dir-size: invalid parse_size value: '5q'"},
        {"p --bundle-runtime v",
         "argument --bundle-runtime: invalid choice: 'v' (choose from 'docker', 'kubernetes')"},
        {"p --name", "argument --name: expected one argument"},
        {"p --name --exit-when-idle", "argument --name: expected one argument"},
        {"p --exit-when-idle=1", "ignored explicit argument '1'"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct options o;
        AUTO(str_list) struct str_list words = {0};
        struct err e = ERR_INIT;
        bool help = false;

        assert_int_equal(parse(&o, &words, rows[i].line, &help, &e), -1);
        assert_has(e.msg, rows[i].says);
        opt_free(table, &o);
    }
}

static void config_file(void **state UNUSED)
{
    char path[] = "/tmp/cw-opt-XXXXXX";
    int fd = mkstemp(path);
    struct options o = {0};
    struct err e = ERR_INIT;
    static const char good[] =
        "# c\n\nname = a b \nexit-when-idle\nexit-on-exception = false\nidle-seconds=4\n";
    static const char bad[] = "name = a\nnosuch = 1\n";

    assert_true(fd >= 0);
    assert_int_equal(write(fd, good, strlen(good)), (long)strlen(good));
    assert_ok(opt_parse_file(table, path, &o, &e), &e);
    assert_string_equal(o.name, "a b");
    assert_true(o.flag);
    assert_false(o.other);
    assert_int_equal(o.n, 4);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(pwrite(fd, bad, strlen(bad), 0), (long)strlen(bad));
    assert_int_equal(opt_parse_file(table, path, &o, &e), -1);
    assert_has(e.msg, "line 2: unknown setting \"nosuch\"");
    close(fd);
    unlink(path);
    opt_free(table, &o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(argparse_syntax),
        cmocka_unit_test(argparse_errors),
        cmocka_unit_test(config_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
