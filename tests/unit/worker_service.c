/*
 * The client of the bundle service against a server that answers what each case wants: tokens, what is repeated and what is
 * not, error texts, clocks, encodings.
 * Rows: B006 B007 B010 B013 B014 B015 B016 B017 B018 B128 B130 D01 D03 D04 D05 D08 D11 S59.
 */
#include <stdatomic.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/codec.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "test.h"
#include "tests/unit/http_server.h"
#include "worker/service.h"
#include "worker/service_call.h"

#define UUID "0x00000000000000000000000000000001"

/* What the server does with whatever is no token call. */
struct script {
    const char *status, *headers, *body;
    size_t body_n;    /* 0: strlen */
    const char *then; /* status from the second call on; NULL: as before */
    bool silent, cut, endless, trickle;
    const char *token_status, *token_body;
};
static struct script script;
static atomic_int n_tokens, n_calls;
static struct server server, proxy;
static atomic_int n_proxied;
static char proxied[5000];

#define TOKEN(life) \
    "{\"access_token\": \"t\", \"token_type\": \"Bearer\", \"expires_in\": " life "}"

static void pour(struct exchange *x, bool slowly)
{
    char piece[65536];

    memset(piece, ' ', sizeof(piece));
    server_printf(x, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n");
    while (send(x->fd, piece, slowly ? 1 : sizeof(piece), MSG_NOSIGNAL) > 0)
        if (slowly)
            usleep(100000);
}

static bool misbehave(struct exchange *x)
{
    char c;

    if (script.silent)
        while (recv(x->fd, &c, 1, 0) > 0)
            ;
    else if (script.endless || script.trickle)
        pour(x, script.trickle);
    else if (script.cut)
        server_printf(x, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[nul");
    else
        return false;
    return true;
}

static bool serve(struct exchange *x, void *arg UNUSED)
{
    if (!server_read_body(x))
        return false;
    if (strcmp(x->path, "/rest/oauth2/token") == 0) {
        const char *body = script.token_body ? script.token_body : TOKEN("3600");

        n_tokens++;
        server_answer(x, script.token_status ? script.token_status : "200 OK", "", body,
                      strlen(body));
        return true;
    }
    int call = ++n_calls;

    if (misbehave(x))
        return false;
    server_answer(x, call > 1 && script.then ? script.then : script.status,
                  script.headers ? script.headers : "Content-Type: application/json\r\n",
                  script.body, script.body_n ? script.body_n : strlen(script.body));
    return true;
}

static bool serve_proxy(struct exchange *x, void *arg UNUSED)
{
    if (!server_read_body(x))
        return false;
    n_proxied++;
    snprintf(proxied, sizeof(proxied), "%s %s", x->method, x->path);
    if (strstr(x->path, "/oauth2/token"))
        server_answer(x, "200 OK", "", TOKEN("3600"), strlen(TOKEN("3600")));
    else
        server_answer(x, "200 OK", "", "true", 4);
    return true;
}

static struct service *client(const struct script *s, uint64_t timeout_ns)
{
    AUTO_FREE char *url = mem_printf("%s/", server.url);
    const struct service_opts o = {.server = url,
                                   .username = "u",
                                   .password = "p",
                                   .worker_id = "w(1)",
                                   .timeout_ns = timeout_ns};
    struct service *ret;
    struct err e = ERR_INIT;

    script = *s;
    n_tokens = n_calls = 0;
    assert_ok(service_new(&o, &ret, &e), &e);
    return ret;
}

static int check_in(struct service *s, struct err *e)
{
    AUTO(cJSON) cJSON *answer = NULL;

    err_clear(e);
    return service_checkin(s, "{}", 2, NULL, &answer, e);
}

/* ---- tokens ---- */

static void token_is_kept_and_renewed(void **state)
{
    struct err e = ERR_INIT;

    (void)state;
    AUTO(service) struct service *s = client(&(struct script){.status = "200 OK", .body = "[]"}, 0);
    for (int i = 0; i < 3; i++)
        assert_ok(check_in(s, &e), &e);
    assert_int_equal(n_tokens, 1);
    /* Less than 300 s left of each: one for every call (B006). */
    AUTO(service)
    struct service *brief =
        client(&(struct script){.status = "200 OK", .body = "[]", .token_body = TOKEN("299")}, 0);
    for (int i = 0; i < 3; i++)
        assert_ok(check_in(brief, &e), &e);
    assert_int_equal(n_tokens, 3);
}

static void refused_token_is_renewed_once(void **state)
{
    struct err e = ERR_INIT;

    (void)state;
    AUTO(service)
    struct service *s =
        client(&(struct script){.status = "401 Unauthorized", .body = "[]", .then = "200 OK"}, 0);
    assert_ok(check_in(s, &e), &e);
    assert_int_equal(n_tokens, 2);
    assert_int_equal(n_calls, 2);
    AUTO(service)
    struct service *never = client(
        &(struct script){.status = "401 Unauthorized", .body = "User is not authenticated."}, 0);
    assert_int_equal(check_in(never, &e), -1);
    assert_string_equal(
        e.msg, "Unable to check in with bundle service: Unauthorized - User is not authenticated.");
    assert_false(service_is_transient(&e));
    assert_int_equal(service_http_status(&e), 401);
    assert_int_equal(n_tokens, 2);
    assert_int_equal(n_calls, 2);
}

static void token_answers(void **state)
{
    static const struct {
        const char *status, *body, *text;
        bool transient;
    } cases[] = {
        {"200 OK", "{\"access_token\": \"t\", \"token_type\": \"MAC\", \"expires_in\": 3600}",
         "Unable to authorize with bundle service: Unknown authorization token type: MAC", false},
        {"200 OK", "<html>", "Unable to authorize with bundle service: Invalid JSON: <html>", true},
        {"200 OK", "{}", "Unable to authorize with bundle service: ", true},
        {"401 Unauthorized", "{\"error\": \"invalid_grant\"}",
         "Unable to authorize with bundle service: Unauthorized - {\"error\": \"invalid_grant\"}",
         false},
        {"400 Bad Request", "no", "Unable to authorize with bundle service: Bad Request - no",
         false},
        {"503 Service Unavailable", "later",
         "Unable to authorize with bundle service: Service Unavailable - later", true},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct script how = {.token_status = cases[i].status,
                                   .token_body = cases[i].body,
                                   .status = "200 OK",
                                   .body = "[]"};
        AUTO(service) struct service *s = client(&how, 0);
        struct err e = ERR_INIT;

        assert_int_equal(service_login(s, NULL, &e), -1);
        assert_true(str_starts(e.msg, cases[i].text));
        assert_int_equal(service_is_transient(&e), cases[i].transient);
        /* Inside another call the texts nest (2.3). */
        assert_int_equal(check_in(s, &e), -1);
        assert_true(
            str_starts(e.msg, "Unable to check in with bundle service: Unable to authorize with "));
        assert_has(e.msg, cases[i].text);
        assert_int_equal(n_calls, 0);
    }
}

/* ---- errors ---- */

static long no_body(void *arg UNUSED, void *buf UNUSED, size_t n UNUSED, struct err *e UNUSED)
{
    return 0;
}

static int swallow(void *arg UNUSED, const void *data UNUSED, size_t n UNUSED, struct err *e UNUSED)
{
    return 0;
}

static int call_checkin(struct service *s, struct err *e)
{
    return check_in(s, e);
}
static int call_start(struct service *s, struct err *e)
{
    bool ours;

    return service_start_bundle(s, UUID, "h", 1, NULL, &ours, e);
}
static int call_reply(struct service *s, struct err *e)
{
    return service_reply(s, 1, "{}", NULL, e);
}
static int call_reply_bytes(struct service *s, struct err *e)
{
    return service_reply_bytes(s, 1, "x", 1, NULL, e);
}
static int call_reply_stream(struct service *s, struct err *e)
{
    return service_reply_stream(s, 1, no_body, NULL, NULL, e);
}
static int call_upload(struct service *s, struct err *e)
{
    return service_upload(s, UUID, NULL, no_body, NULL, NULL, e);
}
static int call_info(struct service *s, struct err *e)
{
    struct service_info info;

    return service_contents_info(s, UUID, "a b", NULL, &info, e);
}
static int call_blob(struct service *s, struct err *e)
{
    const struct service_blob b = {.uuid = UUID, .path = "", .max_bytes = 1 << 20, .sink = swallow};

    return service_contents_blob(s, &b, NULL, e);
}

static const struct {
    int (*call)(struct service *s, struct err *e);
    const char *op;
} calls[] = {
    {call_checkin, "Unable to check in with bundle service"},
    {call_start, "Unable to start bundle in bundle service"},
    {call_reply, "Unable to reply to message from bundle service"},
    {call_reply_bytes, "Unable to reply to message from bundle service"},
    {call_reply_stream, "Unable to reply to message from bundle service"},
    {call_upload, "Unable to update bundle contents in bundle service"},
    {call_info, "Unable to get bundle info from bundle service"},
    {call_blob, "Unable to get bundle contents from bundle service"},
};

/* Every call says what it was, what the server said, and whether it may help to try again; and is made once. */
static void error_texts(void **state)
{
    static const struct {
        const char *status, *body, *text;
        bool transient;
    } cases[] = {
        {"404 Not Found", "Path 'x%s' in bundle not found",
         "Not Found - Path 'x%s' in bundle not found", false},
        {"400 Bad Request", "  Invalid JSON\n", "Bad Request - Invalid JSON", false},
        {"413 Request Entity Too Large", "", "Request Entity Too Large - ", false},
        {"500 Internal Server Error", "oops", "Internal Server Error - oops", true},
        {"520 Web Server Returned an Unknown Error", "cf",
         "Web Server Returned an Unknown Error - cf", true},
        {"599 Network Connect Timeout", "x", "Network Connect Timeout - x", true},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        for (size_t k = 0; k < ARRAY_SIZE(calls); k++) {
            if (calls[k].call == call_start && cases[i].transient)
                continue; /* that one is repeated */
            AUTO(service)
            struct service *s =
                client(&(struct script){.status = cases[i].status, .body = cases[i].body}, 0);
            struct err e = ERR_INIT;
            AUTO_FREE char *wanted = mem_printf("%s: %s", calls[k].op, cases[i].text);

            assert_int_equal(calls[k].call(s, &e), -1);
            assert_string_equal(e.msg, wanted);
            assert_int_equal(service_is_transient(&e), cases[i].transient);
            assert_int_equal(n_calls, 1); /* D04 */
        }
    }
}

static void start_bundle_is_repeated(void **state)
{
    struct err e = ERR_INIT;
    bool ours = false;

    (void)state;
    AUTO(service)
    struct service *s = client(
        &(struct script){.status = "530 Origin DNS Error", .body = "true", .then = "200 OK"}, 0);
    assert_ok(service_start_bundle(s, UUID, "h", 1, NULL, &ours, &e), &e);
    assert_true(ours);
    assert_int_equal(n_calls, 2);
}

/* ---- clocks and caps ---- */

static void time_outs(void **state)
{
    struct err e = ERR_INIT;

    (void)state;
    unsetenv("CODALAB_URLOPEN_TIMEOUT_SECONDS");
    AUTO(service)
    struct service *usual = client(&(struct script){.status = "200 OK", .body = ""}, 0);
    assert_int_equal(service_timeout_ns(usual), 300 * NS_PER_S);
    assert_int_equal(service_short_ns(usual), 45 * NS_PER_S); /* a check-in */
    setenv("CODALAB_URLOPEN_TIMEOUT_SECONDS", "1", 1);
    AUTO(service) struct service *s = client(&(struct script){.silent = true}, 0);
    assert_int_equal(service_short_ns(s), NS_PER_S);
    assert_int_equal(call_checkin(s, &e), -1);
    assert_has(e.msg, "silent for 1 s");
    assert_true(service_is_transient(&e));
    err_clear(&e);
    assert_int_equal(call_info(s, &e), -1); /* twice as long */
    assert_has(e.msg, "silent for 2 s");
    setenv("CODALAB_URLOPEN_TIMEOUT_SECONDS", "4", 1); /* longer than a busy machine may pause */
    /* A trickle does not hold a call for ever. */
    AUTO(service) struct service *slow = client(&(struct script){.trickle = true}, 0);
    assert_int_equal(call_checkin(slow, &e), -1);
    assert_has(e.msg, "not done within 12 s");
    unsetenv("CODALAB_URLOPEN_TIMEOUT_SECONDS");
}

static void answers_are_bounded(void **state)
{
    struct err e = ERR_INIT;

    (void)state;
    AUTO(service) struct service *endless = client(&(struct script){.endless = true}, 0);
    assert_int_equal(call_checkin(endless, &e), -1);
    assert_int_equal(e.kind, ERR_LIMIT);
    AUTO(service) struct service *cut = client(&(struct script){.cut = true}, 0);
    err_clear(&e);
    assert_int_equal(call_checkin(cut, &e), -1);
    assert_true(service_is_transient(&e));
}

static void proxies_carry_everything(void **state)
{
    (void)state;
    setenv("http_proxy", proxy.url, 1);
    for (size_t k = 0; k < ARRAY_SIZE(calls); k++) {
        AUTO(service)
        struct service *s = client(&(struct script){.status = "200 OK", .body = "[]"}, 0);
        struct err e = ERR_INIT;
        int rc UNUSED = calls[k].call(s, &e);
        AUTO_FREE char *absolute = mem_printf(" %s/rest/", server.url);

        assert_has(proxied, absolute);
        assert_int_equal(n_calls + n_tokens, 0);
    }
    assert_int_equal(n_proxied, 2 * ARRAY_SIZE(calls));
    unsetenv("http_proxy");
}

/* ---- encodings ---- */

static int collect(void *arg, const void *data, size_t n, struct err *e UNUSED)
{
    return str_append(arg, data, n);
}

/* One gzip member appended. */
static void gzip_to(struct str *to, const char *data, size_t n)
{
    AUTO(codec) struct codec *c = codec_gzip_encoder(1, collect, to);
    struct err e = ERR_INIT;

    assert_ok(codec_feed(c, data, n, &e), &e);
    assert_ok(codec_finish(c, &e), &e);
}

static void json_in_any_dress(void **state)
{
    AUTO(str) struct str packed = STR_INIT(4096);
    struct err e = ERR_INIT;
    const char *types[] = {"Content-Type: application/json\r\n",
                           "Content-Type: application/json; charset=UTF-8\r\n",
                           "Content-Type: text/plain\r\n", "A: b\r\n"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        AUTO(service)
        struct service *s = client(&(struct script){.status = "200 OK",
                                                    .headers = types[i],
                                                    .body = "[{\"type\": \"x\"}]"},
                                   0);
        AUTO(cJSON) cJSON *answer = NULL;

        assert_ok(service_checkin(s, "{}", 2, NULL, &answer, &e), &e);
        assert_int_equal(cJSON_GetArraySize(answer), 1);
    }
    gzip_to(&packed, "[1, 2]", 6);
    AUTO(service)
    struct service *s = client(
        &(struct script){.status = "200 OK",
                         .headers = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
                         .body = packed.buf,
                         .body_n = packed.len},
        0);
    AUTO(cJSON) cJSON *answer = NULL;

    assert_ok(service_checkin(s, "{}", 2, NULL, &answer, &e), &e);
    assert_int_equal(cJSON_GetArraySize(answer), 2);
}

static int ask_blob(const char *headers, const struct str *body, size_t n, struct str *got,
                    struct err *e)
{
    AUTO(service)
    struct service *s = client(
        &(struct script){.status = "200 OK", .headers = headers, .body = body->buf, .body_n = n},
        0);

    str_clear(got);
    err_clear(e);
    const struct service_blob b = {
        .uuid = UUID, .path = "f", .max_bytes = 1 << 20, .sink = collect, .arg = got};

    return service_contents_blob(s, &b, NULL, e);
}

/* Who refuses what comes is done before the server is, which still has our body in hand. */
static int blob(const char *headers, const struct str *body, size_t n, struct str *got,
                struct err *e)
{
    int rc = ask_blob(headers, body, n, got, e);

    server_wait_idle(&server);
    return rc;
}

static void blobs_are_decoded_once(void **state)
{
    AUTO(str) struct str once = STR_INIT(4096), twice = STR_INIT(4096), got = STR_INIT(4096);
    struct err e = ERR_INIT;

    (void)state;
    gzip_to(&once, "hello", 5);
    assert_ok(blob("Content-Encoding: identity\r\n", &once, once.len, &got, &e), &e);
    assert_int_equal(got.len, once.len);
    gzip_to(&twice, once.buf, once.len); /* a .gz file in transport */
    assert_ok(blob("Content-Encoding: gzip\r\n", &twice, twice.len, &got, &e), &e);
    assert_int_equal(got.len, once.len);
    assert_memory_equal(got.buf, once.buf, once.len);
    gzip_to(&once, " world", 6); /* two members (D11) */
    assert_ok(blob("Content-Encoding: gzip\r\n", &once, once.len, &got, &e), &e);
    assert_string_equal(got.buf, "hello world");
    /* Framed well, but not all of it (B130). */
    for (size_t n = 1; n < once.len; n += 3) {
        if (n == twice.len)
            continue;
        int rc = blob("Content-Encoding: gzip\r\n", &once, n, &got, &e);

        if (rc == 0) /* exactly behind the first member */
            assert_string_equal(got.buf, "hello");
        else
            assert_true(service_is_transient(&e));
    }
    assert_int_equal(blob("Content-Encoding: br\r\n", &once, once.len, &got, &e), -1);
    assert_has(e.msg, "Unsupported Content-Encoding: br");
}

static int start(void **state UNUSED)
{
    unsetenv("http_proxy");
    server_start(&server, serve, NULL);
    server_start(&proxy, serve_proxy, NULL);
    return 0;
}

static int stop(void **state UNUSED)
{
    server_stop(&server);
    server_stop(&proxy);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(token_is_kept_and_renewed),
        cmocka_unit_test(refused_token_is_renewed_once),
        cmocka_unit_test(token_answers),
        cmocka_unit_test(error_texts),
        cmocka_unit_test(start_bundle_is_repeated),
        cmocka_unit_test(time_outs),
        cmocka_unit_test(answers_are_bounded),
        cmocka_unit_test(proxies_carry_everything),
        cmocka_unit_test(json_in_any_dress),
        cmocka_unit_test(blobs_are_decoded_once),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
