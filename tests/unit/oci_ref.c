/* oci/ref: names as Docker writes them, and as it does not. Rows: B146 S07 S13 S58. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "oci/ref.h"

#define HEX  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DIG  "sha256:" HEX
#define DIG2 "sha512:" HEX HEX

static void test_names(void **state)
{
    static const struct {
        const char *text, *canonical, *familiar;
    } t[] = {
        {"ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"},
        {"ubuntu:22.04", "docker.io/library/ubuntu:22.04", "ubuntu:22.04"},
        {"codalab/default-cpu", "docker.io/codalab/default-cpu:latest",
         "codalab/default-cpu:latest"},
        {"library/ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"},
        {"docker.io/ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"},
        {"index.docker.io/a/b:1", "docker.io/a/b:1", "a/b:1"},
        {"registry-1.docker.io/a/b:1", "docker.io/a/b:1", "a/b:1"},
        {"docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"},
        {"docker.io/a.b", "docker.io/library/a.b:latest", "a.b:latest"},
        {"docker.io/localhost/c", "docker.io/localhost/c:latest", "docker.io/localhost/c:latest"},
        {"localhost/x", "localhost/x:latest", "localhost/x:latest"},
        {"host:5000/a/b/c:T_a.g-1", "host:5000/a/b/c:T_a.g-1", "host:5000/a/b/c:T_a.g-1"},
        {"Host/x", "Host/x:latest", "Host/x:latest"},
        {"1.2.3.4:80/x", "1.2.3.4:80/x:latest", "1.2.3.4:80/x:latest"},
        {"[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"},
        {"a-b--c/d_e__f.g/h", "docker.io/a-b--c/d_e__f.g/h:latest", "a-b--c/d_e__f.g/h:latest"},
        {"x@" DIG, "docker.io/library/x@" DIG, "x@" DIG},
        {"x@" DIG2, "docker.io/library/x@" DIG2, "x@" DIG2},
        {"q.io/x:tag@" DIG, "q.io/x@" DIG, "q.io/x@" DIG},
        /* of these, that look like files, each is a registry's or nothing */
        {"oci:latest", "docker.io/library/oci:latest", "oci:latest"},
        {"docker-archive:x", "docker.io/library/docker-archive:x", "docker-archive:x"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        AUTO(oci_ref) struct oci_ref *r = NULL;
        struct err e = ERR_INIT;

        print_message("%s\n", t[i].text);
        assert_int_equal(oci_ref_parse(t[i].text, &r, &e), 0);
        AUTO_FREE char *canonical = oci_ref_text(r), *familiar = oci_ref_familiar(r);

        assert_string_equal(canonical, t[i].canonical);
        assert_string_equal(familiar, t[i].familiar);
        assert_int_equal(r->transport, OCI_REGISTRY);
        AUTO(oci_ref) struct oci_ref *again = NULL; /* whichever form is kept, it means the same */

        assert_int_equal(oci_ref_parse(familiar, &again, &e), 0);
        AUTO_FREE char *same = oci_ref_text(again);

        assert_string_equal(same, canonical);
    }
}

static void test_no_names(void **state)
{
    static const char *const bad[] = {
        "",
        ":",
        "@",
        "x:",
        "x@",
        "x:a b",
        "x:-a",
        "x:.a",
        "x y",
        "UPPER",
        "a/Upper",
        "-x",
        "x-",
        "x_",
        "x..y",
        "x___y",
        "a//b",
        "/a",
        "a/",
        "./a",
        "../a",
        "a/../b",
        "a/./b",
        "~/a",
        "host:0/x",
        "host:65536/x",
        "host:x/y",
        "host:/x",
        "-h.org/x",
        "h..org/x",
        "[::1/x",
        "[]:1/x",
        "[x]:1/x",
        "http://h/x",
        "https://h.org/x:1",
        "file:///etc/passwd",
        "x:1:2",
        "h.org/x:1/y",
        "x\ny",
        "x\033[2J",
        "x%2e",
        "x?y",
        "x#y",
        "caf\xc3\xa9",
        "oci:/etc/x",
        "oci:./x",
        "docker-archive:/x.tar",
        "oci-archive:/x.tar:tag",
        "dir:/etc",
        "containers-storage:/x",
        /* S13: digests */
        "x@sha256",
        "x@sha256:",
        "x@sha256:abc",
        ("x@" DIG "0"),
        "x@sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef",
        "x@sha256:../../../../etc/passwd/../../../../../../../../../../../../../x",
        "x@sha1:0123456789abcdef0123456789abcdef01234567",
        ("x@md5:" HEX),
        ("x@" DIG "@" DIG),
        ("x@sha512:" HEX),
        ("x@" DIG "\n"),
        ("x@SHA256:" HEX),
        ("x@sha256-" HEX),
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        AUTO(oci_ref) struct oci_ref *r = NULL;
        struct err e = ERR_INIT;

        if (oci_ref_parse(bad[i], &r, &e) == 0)
            fail_msg("taken: %s", bad[i]);
        assert_int_equal(e.kind, ERR_USER);
        for (const char *p = e.msg; *p; p++) /* S07: nothing of it reaches a terminal as it is */
            assert_true(*p >= ' ' && *p <= '~');
    }
}

static void test_lengths(void **state)
{
    AUTO_FREE char *text = mem_zalloc(BOUND_REF + 10);
    AUTO(oci_ref) struct oci_ref *r = NULL;
    struct err e = ERR_INIT;

    (void)state;
    memset(text, 'a', 255);
    assert_int_equal(oci_ref_parse(text, &r, &e), 0);
    oci_ref_free(r);
    r = NULL;
    text[255] = 'a';
    assert_int_equal(oci_ref_parse(text, &r, &e), -1);
    memset(text, 'a', BOUND_REF + 1);
    assert_int_equal(oci_ref_parse(text, &r, &e), -1);
    memset(text, 't', 130);
    memcpy(text, "x:", 2);
    text[130] = '\0';
    assert_int_equal(oci_ref_parse(text, &r, &e), 0);
    oci_ref_free(r);
    r = NULL;
    memcpy(text + 130, "t", 2);
    assert_int_equal(oci_ref_parse(text, &r, &e), -1);
}

/* Files: only for who asks for them, and as whole paths. */
static void test_files(void **state)
{
    static const struct {
        const char *text;
        int rc;
        enum oci_transport transport;
        const char *path, *tag, *canonical;
    } t[] = {
        {"oci:/tmp", 0, OCI_LAYOUT, "/tmp", NULL, "oci:/tmp"},
        {"oci:/tmp/:v1", 0, OCI_LAYOUT, "/tmp", "v1", "oci:/tmp:v1"},
        {"oci:/tmp/../tmp:v1", 0, OCI_LAYOUT, "/tmp", "v1", "oci:/tmp:v1"},
        {"oci-archive:/gone/x.tar:v1", 0, OCI_ARCHIVE, "/gone/x.tar", "v1",
         "oci-archive:/gone/x.tar:v1"},
        {"docker-archive:/gone/x.tar:a/b:c", 0, OCI_DOCKER_ARCHIVE, "/gone/x.tar", "a/b:c",
         "docker-archive:/gone/x.tar:a/b:c"},
        {"oci:./gone", -1, OCI_LAYOUT, NULL, NULL, NULL},
        {"oci:/tmp:", -1, OCI_LAYOUT, NULL, NULL, NULL},
        {"oci:gone-for-sure", 0, OCI_REGISTRY, NULL, "gone-for-sure",
         "docker.io/library/oci:gone-for-sure"},
        {"dir:/tmp", -1, OCI_REGISTRY, NULL, NULL, NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        AUTO(oci_ref) struct oci_ref *r = NULL;
        struct err e = ERR_INIT;

        print_message("%s\n", t[i].text);
        assert_int_equal(oci_ref_parse_local(t[i].text, &r, &e), t[i].rc);
        if (t[i].rc < 0)
            continue;
        AUTO_FREE char *canonical = oci_ref_text(r);

        assert_int_equal(r->transport, t[i].transport);
        assert_true(str_eq(r->path, t[i].path));
        assert_true(str_eq(r->tag, t[i].tag));
        assert_string_equal(canonical, t[i].canonical);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_no_names),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
