/*
 * How an insecure registry is spoken to is found out once, not at each look at an image; and never of a secure one.
 * rows: S17
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/http.h"
#include "base/mem.h"
#include "base/tree.h"
#include "oci/pull.h"
#include "oci/ref.h"
#include "oci/registry.h"
#include "oci/scheme.h"
#include "test.h"
#include "tests/unit/http_server.h"

#define INDEX \
    "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"manifests\":[]}"

static struct server server;
static struct http_client *client;
static atomic_bool refuses;

/* A connection for each request, so that connections count attempts. TLS ends with the server's. */
static bool serve(struct exchange *x, void *arg UNUSED)
{
    if (!server_read_body(x))
        return false;
    if (refuses)
        server_answer(x, "400 Bad Request", "Connection: close\r\n", "TLS only", 8);
    else
        server_answer(x, "200 OK",
                      "Connection: close\r\n"
                      "Content-Type: application/vnd.oci.image.index.v1+json\r\n",
                      INDEX, strlen(INDEX));
    return false;
}

/* One look at an image: connections it took; *ok: it was told. */
static int look(const struct oci_registries *r, bool *ok)
{
    AUTO(oci_ref) struct oci_ref *ref = NULL;
    AUTO(str) struct str text = STR_INIT(65536);
    AUTO_FREE char *name = mem_printf("127.0.0.1:%d/a/b:1", server.port);
    AUTO_FREE char *type = NULL;
    char digest[DIGEST_TEXT_MAX];
    struct err e = ERR_INIT;
    int before = server.connections;

    assert_ok(oci_ref_parse(name, &ref, &e), &e);
    AUTO(oci_session) struct oci_session *s = oci_session_new(ref, r, client, NULL);
    *ok = oci_session_manifest(s, "1", &text, &type, digest, &e) == 0;
    return server.connections - before;
}

static void what_was_found_is_remembered(void **state UNUSED)
{
    struct oci_registries r = {0};
    bool ok = false;

    assert_int_equal(look(&r, &ok), 2); /* TLS, then without */
    assert_true(ok);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(look(&r, &ok), 1);
        assert_true(ok);
    }
    /* It wants TLS now: that is tried, too (in vain: this server has none). */
    refuses = true;
    assert_int_equal(look(&r, &ok), 2);
    assert_false(ok);
    refuses = false;
    assert_int_equal(look(&r, &ok), 1);
}

/* With a CA of its own the same host is no insecure registry any more: nothing is sent to it in the clear. */
static void a_secure_registry_is_never_spoken_to_in_the_clear(void **state UNUSED)
{
    char top[] = "/tmp/oci_scheme.XXXXXX";
    struct oci_registries r = {0};
    struct err e = ERR_INIT;
    bool ok = true;

    assert_non_null(mkdtemp(top));
    AUTO_FREE char *host = mem_printf("127.0.0.1:%d", server.port);
    AUTO_FREE char *dir = mem_printf("%s/%s", top, host), *file = mem_printf("%s/ca.crt", dir);
    oci_scheme_note(host, true, clock_now_ns());
    assert_int_equal(mkdir(dir, 0755), 0);
    AUTO_CLOSE int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_int_equal(write(fd, "no CA\n", 6), 6);
    r.certs_dir = top;
    int before = server.requests;

    (void)look(&r, &ok);
    assert_false(ok);
    assert_int_equal(server.requests, before);
    assert_ok(tree_remove_at(AT_FDCWD, top, &e), &e);
}

static void it_is_forgotten(void **state UNUSED)
{
    char name[16];

    assert_false(oci_scheme_is_plain("h:1", 5));
    oci_scheme_note("h:1", true, 5);
    assert_true(oci_scheme_is_plain("h:1", 6));
    oci_scheme_note("h:1", true, 1000); /* used meanwhile: no reason to keep it longer */
    assert_true(oci_scheme_is_plain("h:1", 4 + OCI_SCHEME_KEEP_NS));
    assert_false(oci_scheme_is_plain("h:1", 5 + OCI_SCHEME_KEEP_NS));
    oci_scheme_note("h:2", true, 5);
    oci_scheme_note("h:2", false, 6);
    assert_false(oci_scheme_is_plain("h:2", 7));
    /* The table does not grow: the oldest goes. */
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "many:%d", i);
        oci_scheme_note(name, true, 100 + (uint64_t)i);
    }
    assert_false(oci_scheme_is_plain("many:0", 300));
    assert_true(oci_scheme_is_plain("many:99", 300));
}

static int start(void **state UNUSED)
{
    struct err e = ERR_INIT;

    server_start(&server, serve, NULL);
    return http_client_new("test", &client, &e);
}

static int stop(void **state UNUSED)
{
    http_client_free(client);
    server_stop(&server);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_found_is_remembered),
        cmocka_unit_test(a_secure_registry_is_never_spoken_to_in_the_clear),
        cmocka_unit_test(it_is_forgotten),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
