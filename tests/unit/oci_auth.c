/* oci/auth, oci/credentials, oci/registries: challenges, docker's config.json, who may be spoken to how. Rows: S07 S09 S15 S16 S17. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/http.h"
#include "base/mem.h"
#include "base/str.h"
#include "http_server.h"
#include "oci/auth.h"
#include "oci/registries.h"

#define NOTHING ""

static void assert_text(const char *got, const char *want)
{
    assert_string_equal(got ? got : NOTHING, want);
}

static void test_challenges(void **state)
{
    static const struct {
        const char *text;
        int rc;
        bool basic, bearer;
        const char *realm, *service, *scope;
    } t[] = {
        {"Basic realm=\"x\"", 0, true, false, "", "", ""},
        {"bearer REALM=\"https://a/t\",Service=s, scope=\"repository:a:pull,push\"", 0, false, true,
         "https://a/t", "s", "repository:a:pull,push"},
        {"Bearer realm = \"https://a\" , service = \"b \\\"c\\\" \\\\d\"", 0, false, true,
         "https://a", "b \"c\" \\d", ""},
        {"Bearer realm=https://a/t?x=1,service=s", 0, false, true, "https://a/t?x=1", "s", ""},
        {"Negotiate, Basic realm=\"a, Bearer realm=b\"", 0, true, false, "", "", ""},
        {"Negotiate YII/k+8==, Bearer realm=\"r\"", 0, false, true, "r", "", ""},
        {"NTLM abc=, Basic realm=\"r\"", 0, true, false, "", "", ""},
        {"Bearer realm=\"one\", Bearer realm=\"two\"", 0, false, true, "one", "", ""},
        {"Bearer realm=\"one\",realm=\"two\"", 0, false, true, "one", "", ""},
        {"Bearer service=\"no realm\"", 0, false, false, "", "", ""},
        {"Digest realm=\"x\"", 0, false, false, "", "", ""},
        {" , ,Basic", 0, true, false, "", "", ""},
        {"", 0, false, false, "", "", ""},
        {"Bearer realm=\"open", -1, false, false, "", "", ""},
        {"Bearer realm=\"open\\", -1, false, false, "", "", ""},
        {"Bearer realm=", 0, false, false, "", "", ""}, /* one word by the grammar */
        {"\"Bearer\"", -1, false, false, "", "", ""},
        {"Basic realm=x;y", -1, false, false, "", "", ""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        AUTO(oci_challenge) struct oci_challenge c = {0};
        struct err e = ERR_INIT;

        print_message("%s\n", t[i].text);
        assert_int_equal(oci_challenge_parse(t[i].text, &c, &e), t[i].rc);
        if (t[i].rc < 0)
            continue;
        assert_int_equal(c.basic, t[i].basic);
        assert_int_equal(c.bearer, t[i].bearer);
        assert_text(c.realm, t[i].realm);
        assert_text(c.service, t[i].service);
        assert_text(c.scope, t[i].scope);
    }
}

/* Longer than any URL: refused, not read. */
static void test_challenge_is_capped(void **state)
{
    AUTO_FREE char *text = mem_zalloc(BOUND_URL + 100);
    AUTO(oci_challenge) struct oci_challenge c = {0};
    struct err e = ERR_INIT;

    (void)state;
    memset(text, ',', BOUND_URL + 1);
    assert_int_equal(oci_challenge_parse(text, &c, &e), -1);
    text[BOUND_URL] = '\0';
    assert_int_equal(oci_challenge_parse(text, &c, &e), 0);
}

/* user:password, USER:, a:b:c, team:1, ns:2 */
#define AUTHS                                                                                  \
    "{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"dXNlcjpwYXNzd29yZA==\"},"         \
    "\"http://plain:5000/v2/\":{\"auth\":\"VVNFUjo=\"},"                                       \
    "\"quay.io\":{\"auth\":\"YTpiOmM=\"},\"quay.io/team\":{\"auth\":\"dGVhbTox\"},"            \
    "\"quay.io/team/sub\":{\"auth\":\"bnM6Mg==\"},"                                            \
    "\"fields\":{\"username\":\"u\",\"password\":\"p\"},\"token\":{\"identitytoken\":\"id\"}," \
    "\"ready\":{\"registrytoken\":\"rt\"},\"empty\":{},\"odd\":7,"                             \
    "\"broken\":{\"auth\":\"!\"},\"nocolon\":{\"auth\":\"dXNlcg==\"},"                         \
    "\"inject\":{\"registrytoken\":\"a\\r\\nX: y\"}}}"

static void test_credentials(void **state)
{
    static const struct {
        const char *authority, *repository;
        int rc;
        const char *user, *password, *identity, *ready;
    } t[] = {
        {"registry-1.docker.io", "library/x", 0, "user", "password", "", ""},
        {"docker.io", "library/x", 0, "user", "password", "", ""},
        {"index.docker.io", "library/x", 0, "user", "password", "", ""},
        {"plain:5000", "x", 0, "USER", "", "", ""},
        {"plain:5001", "x", 0, "", "", "", ""},
        {"plain", "x", 0, "", "", "", ""},
        {"quay.io", "other/x", 0, "a", "b:c", "", ""},
        {"quay.io", "team", 0, "team", "1", "", ""},
        {"quay.io", "team/x", 0, "team", "1", "", ""},
        {"quay.io", "teammate/x", 0, "a", "b:c", "", ""},
        {"quay.io", "team/sub/x", 0, "ns", "2", "", ""},
        {"quay.io.evil.org", "team/x", 0, "", "", "", ""},
        {"io", "team/x", 0, "", "", "", ""},
        {"fields", "x", 0, "u", "p", "", ""},
        {"token", "x", 0, "", "", "id", ""},
        {"ready", "x", 0, "", "", "", "rt"},
        {"empty", "x", 0, "", "", "", ""},
        {"odd", "x", 0, "", "", "", ""},
        {"broken", "x", -1, "", "", "", ""},
        {"nocolon", "x", -1, "", "", "", ""},
        {"inject", "x", -1, "", "", "", ""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        AUTO(oci_credentials) struct oci_credentials c = {0};
        struct err e = ERR_INIT;

        print_message("%s/%s\n", t[i].authority, t[i].repository);
        assert_int_equal(
            oci_credentials_read(AUTHS, strlen(AUTHS), t[i].authority, t[i].repository, 0, &c, &e),
            t[i].rc);
        if (t[i].rc < 0) {
            assert_null(strstr(e.msg, "dXNlcg"));
            continue;
        }
        assert_text(c.user, t[i].user);
        assert_text(c.password, t[i].password);
        assert_text(c.identity_token, t[i].identity);
        assert_text(c.registry_token, t[i].ready);
    }
}

/* A helper's name is never a path, nor anything a shell would read. */
static void test_helper_names(void **state)
{
    static const char *const bad[] = {"../sh", "a b", "a/b", "$(x)", "", "x;y"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        AUTO_FREE char *text = mem_printf("{\"credHelpers\":{\"host\":\"%s\"}}", bad[i]);
        AUTO(oci_credentials) struct oci_credentials c = {0};
        struct err e = ERR_INIT;

        assert_int_equal(oci_credentials_read(text, strlen(text), "host", "x", NS_PER_S, &c, &e),
                         -1);
        assert_non_null(strstr(e.msg, "name is not valid"));
    }
    static const char missing[] = "{\"credsStore\":\"not-installed-anywhere\"}";
    AUTO(oci_credentials) struct oci_credentials c = {0};
    struct err e = ERR_INIT;

    assert_int_equal(oci_credentials_read(missing, strlen(missing), "host", "x", NS_PER_S, &c, &e),
                     -1);
    assert_int_equal(e.kind, ERR_HOST); /* not "no such image" */
    assert_non_null(strstr(e.msg, "docker-credential-not-installed-anywhere"));
}

static void test_mirrors(void **state)
{
    static const struct {
        const char *text, *kept; /* NULL: refused */
    } t[] = {
        {"https://m", "docker.io=https://m"},
        {"m:5000", "docker.io=https://m:5000"},
        {"quay.io=http://m/", "quay.io=http://m/"},
        {"https://m/v2/hub", "docker.io=https://m/v2/hub"},
        {"ftp://m", NULL},
        {"https://", NULL},
        {"", NULL},
        {"=https://m", NULL},
        {"https://user@m", NULL},
        {"https://m/?x=y", NULL},
        {"https://m/ x", NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        struct oci_registries r = {0};
        struct err e = ERR_INIT;

        print_message("%s\n", t[i].text);
        assert_int_equal(oci_registries_add_mirror(&r, t[i].text, &e), t[i].kept ? 0 : -1);
        if (t[i].kept)
            assert_string_equal(r.mirrors.items[0], t[i].kept);
        oci_registries_free(&r);
    }
}

static void test_places(void **state)
{
    AUTO(str_list) struct str_list bases = {0};
    struct oci_registries r = {0};
    struct err e = ERR_INIT;

    (void)state;
    assert_int_equal(oci_registries_add_mirror(&r, "http://one:5000/", &e), 0);
    assert_int_equal(oci_registries_add_mirror(&r, "quay.io=https://other", &e), 0);
    assert_int_equal(oci_registries_add_mirror(&r, "docker.io=https://two/v2/hub", &e), 0);
    oci_registries_bases(&r, "docker.io", &bases);
    AUTO_FREE char *all = str_list_join(&bases, " ");

    assert_string_equal(all, "http://one:5000 https://two/v2/hub https://registry-1.docker.io");
    AUTO_FREE char *plain = oci_registries_url("http://one:5000", "library/x", "/manifests/1");
    AUTO_FREE char *below = oci_registries_url("https://two/v2/hub", "library/x", "/manifests/1");

    assert_string_equal(plain, "http://one:5000/v2/library/x/manifests/1");
    assert_string_equal(below, "https://two/v2/hub/library/x/manifests/1");
    oci_registries_free(&r);
}

/* Where we may go, and whose certificates are not looked at: by who sends us (S15). */
static void test_policies(void **state)
{
    static const struct {
        const char *url, *sender;
        bool allowed, named;
    } t[] = {
        {"https://any.org/x", NULL, true, false},
        {"https://any.org/x", "lab:5000", true, false},
        {"http://any.org/x", NULL, false, false},
        {"http://lab:5000/x", NULL, true, true},
        {"http://lab:5001/x", NULL, false, false},
        {"http://10.1.2.3:80/x", NULL, true, true},
        {"http://10.2.2.3:80/x", NULL, false, false},
        {"http://[fd00:1::5]:80/x", NULL, true, true},
        {"http://mirror.org/x", NULL, true, true},
        {"http://mirror.or/x", NULL, false, false}, /* not by its beginning */
        {"http://localhost:5000/x", NULL, true, true},
        {"http://127.0.0.9/x", NULL, true, true},
        {"http://[::1]:1/x", NULL, true, true},
        {"http://localhost:5000/x", "127.0.0.1:5000", true, true},
        {"http://localhost:5000/x", "quay.io", false, false},
        {"https://127.0.0.1/x", "lab:5000", true, false},
        {"http://[::1]:1/x", "10.1.2.3", false, false},
        {"ftp://lab:5000/x", NULL, false, true},
    };
    struct oci_registries r = {0};
    struct err e = ERR_INIT;

    (void)state;
    str_list_add(&r.insecure, "lab:5000");
    str_list_add(&r.insecure, "10.1.0.0/16");
    str_list_add(&r.insecure, "fd00:1::/32");
    assert_int_equal(oci_registries_add_mirror(&r, "http://mirror.org", &e), 0);
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        AUTO(oci_host_policy) struct oci_host_policy p = {0};
        AUTO_FREE char *authority = oci_url_authority(t[i].url);

        print_message("%s from %s\n", t[i].url, t[i].sender ? t[i].sender : "us");
        assert_int_equal(oci_url_allowed(&r, t[i].url, t[i].sender), t[i].allowed);
        oci_host_policy_get(&r, authority, t[i].sender, &p);
        assert_int_equal(p.named, t[i].named);
    }
    oci_registries_free(&r);
}

static void test_retry_after(void **state)
{
    static const struct {
        const char *value, *date;
        uint64_t seconds;
    } t[] = {
        {"7", NULL, 7},
        {"0", NULL, 0},
        {"99999999999999999999999", NULL, 0},
        {"3600", NULL, 60},
        {"-5", NULL, 0},
        {"soon", NULL, 0},
        {"Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:27 GMT", 10},
        {"Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:57 GMT", 0},
        {"Sun, 06 Nov 1994 08:49:37 GMT", NULL, 0},
        {"Fri, 01 Jan 2100 00:00:00 GMT", NULL, 60},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        AUTO(http_response) struct http_response a = {0};

        str_list_take(&a.headers, mem_printf("retry-after: %s", t[i].value));
        if (t[i].date)
            str_list_take(&a.headers, mem_printf("date: %s", t[i].date));
        print_message("%s\n", t[i].value);
        assert_int_equal(http_retry_after_ns(&a, 60 * NS_PER_S), t[i].seconds * NS_PER_S);
    }
}

/* ---- tokens of a process ---- */

/* A token service that takes each refresh token once: "r0" is configured. */
static struct {
    struct server server;
    char wants[16]; /* the only one it takes */
    int given;
} tokens;

static bool give_token(struct exchange *x, void *arg)
{
    AUTO_FREE char *wanted = mem_printf("refresh_token=%s", tokens.wants);

    (void)arg;
    if (!server_read_body(x) || !strstr(x->body, wanted)) {
        server_printf(x, "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n");
        return true;
    }
    AUTO_FREE char *answer =
        mem_printf("{\"token\":\"t%d\",\"refresh_token\":\"r%d\"}", tokens.given, tokens.given + 1);

    snprintf(tokens.wants, sizeof(tokens.wants), "r%d", ++tokens.given);
    server_printf(x, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(answer), answer);
    return true;
}

/* A pull of that repository is challenged; the token it goes on with. */
static void challenged(struct oci_registries *r, struct http_client *http, const char *repository,
                       const char *refused, const char *want)
{
    AUTO(oci_auth) struct oci_auth *a = oci_auth_new(r, http, NULL);
    AUTO(str_list) struct str_list headers = {0};
    AUTO_FREE char *authority = oci_url_authority(tokens.server.url);
    AUTO(oci_login) struct oci_login before = {.bearer = mem_strdup(refused)}, after = {0};
    struct err e = ERR_INIT;

    str_list_take(&headers, mem_printf("www-authenticate: Bearer realm=\"%s/token\",service=\"s\"",
                                       tokens.server.url));
    if (oci_auth_answer(a, authority, repository, &headers, &before, &after, &e) < 0)
        fail_msg("%s", e.msg);
    assert_text(after.bearer, want);
}

static void test_tokens_of_a_process(void **state)
{
    struct oci_registries r = {0};
    struct http_client *http = NULL;
    struct err e = ERR_INIT;

    (void)state;
    server_start(&tokens.server, give_token, NULL);
    AUTO_FREE char *authority = oci_url_authority(tokens.server.url);

    assert_int_equal(http_client_new(NULL, &http, &e), 0);
    oci_registries_credentials(&r, "/dev/null");
    mem_replace(&r.docker_auths, NULL);
    r.docker_auths = mem_printf("{\"auths\":{\"%s\":{\"identitytoken\":\"r0\"}}}", authority);
    snprintf(tokens.wants, sizeof(tokens.wants), "r0");

    challenged(&r, http, "team/a", NULL, "t0");
    challenged(&r, http, "team/a", NULL, "t0"); /* known from the pull before */
    assert_int_equal(tokens.given, 1);
    challenged(&r, http, "team/b", NULL, "t1"); /* by r1 */
    challenged(&r, http, "team/a", "t0", "t2"); /* by r2: what is refused is not used again */
    snprintf(tokens.wants, sizeof(tokens.wants), "r0");
    challenged(&r, http, "team/c", NULL, "t3"); /* r3 is refused: by what is configured */
    challenged(&r, http, "team/d", NULL, "t4"); /* and what came of that */
    http_client_free(http);
    oci_registries_free(&r);
    server_stop(&tokens.server);
}

static void test_many_grants(void **state)
{
    struct oci_logins *l = oci_logins_new();
    struct oci_login given = {.bearer = (char *)"first"};

    (void)state;
    oci_logins_remember(l, "a", "short", &given, 1);
    for (int i = 0; i < 200; i++) {
        AUTO_FREE char *repository = mem_printf("r%d", i);
        AUTO(oci_login) struct oci_login known = {0};

        given.bearer = repository;
        oci_logins_remember(l, "a", repository, &given, 300);
        oci_logins_known(l, "a", repository, &known);
        assert_text(known.bearer, repository);
        AUTO_FREE char *token = mem_printf("t%d", i);

        oci_logins_renew(l, "a", repository, token);
        AUTO_FREE char *newest = oci_logins_renewed(l, "a", repository);
        AUTO_FREE char *elsewhere = oci_logins_renewed(l, "b", repository);
        assert_text(newest, token);
        assert_null(elsewhere);
    }
    AUTO(oci_login) struct oci_login gone = {0};
    AUTO_FREE char *oldest = oci_logins_renewed(l, "a", "r0");

    oci_logins_known(l, "a", "short", &gone); /* the first to end made room */
    assert_null(gone.bearer);
    assert_null(oldest);
    oci_logins_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_challenges),  cmocka_unit_test(test_challenge_is_capped),
        cmocka_unit_test(test_credentials), cmocka_unit_test(test_helper_names),
        cmocka_unit_test(test_mirrors),     cmocka_unit_test(test_places),
        cmocka_unit_test(test_policies),    cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_many_grants), cmocka_unit_test(test_tokens_of_a_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
