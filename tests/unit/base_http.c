/* base/http against servers good, odd and hostile. Rows: B011 B014 B018 B019 B120 D07 S15 S16 S18 S19. */
/* timeout: 300 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/http.h"
#include "base/http_transfer.h"
#include "base/jobs.h"
#include "base/mem.h"
#include "tests/unit/http_server.h"

static struct server good, other;
static struct http_client *client;

static bool is_path(const struct exchange *x, const char *path)
{
    return strcmp(x->path, path) == 0;
}

static bool redirects(struct exchange *x)
{
    char h[256];

    if (is_path(x, "/away")) {
        snprintf(h, sizeof(h), "Location: %s/hello\r\n", other.url);
        server_answer(x, "303 See Other", h, "moved", 5);
    } else if (is_path(x, "/here")) {
        server_answer(x, "302 Found", "Location: hello?x=1\r\n", "", 0);
    } else if (is_path(x, "/loop")) {
        server_answer(x, "307 Temporary Redirect", "Location: /loop\r\n", "", 0);
    } else if (is_path(x, "/file")) {
        server_answer(x, "302 Found", "Location: file:///etc/passwd\r\n", "", 0);
    } else {
        return false;
    }
    return true;
}

static bool broken(struct exchange *x)
{
    if (is_path(x, "/short"))
        server_printf(x, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
    else if (is_path(x, "/two-lengths"))
        server_printf(x, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde");
    else if (is_path(x, "/both"))
        server_printf(
            x,
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    else if (is_path(x, "/bad-chunk"))
        server_printf(
            x, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n");
    else if (is_path(x, "/garbage"))
        server_printf(x, "\x16\x03\x01 not http at all\r\n\r\n");
    else if (is_path(x, "/headers"))
        for (int i = 0; i < 2000; i++)
            server_printf(x, "%sX-%d: 0123456789012345678901234567890123456789\r\n",
                          i ? "" : "HTTP/1.1 200 OK\r\n", i);
    else
        return false;
    return true;
}

static bool serve(struct exchange *x, void *arg)
{
    char big[70000];

    (void)arg;
    if (redirects(x))
        return true;
    if (broken(x))
        return false;
    if (is_path(x, "/silent")) {
        char c;
        while (recv(x->fd, &c, 1, 0) > 0)
            ;
        return false;
    }
    if (is_path(x, "/early")) {
        server_printf(
            x,
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 10\r\nConnection: close\r\n\r\nquota full");
        return false; /* with unread bytes: a reset follows */
    }
    if (is_path(x, "/noreason")) {
        server_printf(x, "HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n");
        return true;
    }
    if (is_path(x, "/error")) {
        memset(big, 'e', sizeof(big));
        server_answer(x, "500 Oh No", "", big, sizeof(big));
        return true;
    }
    if (is_path(x, "/endless")) {
        server_printf(x, "HTTP/1.1 500 Oh\r\n\r\n");
        memset(big, 'e', sizeof(big));
        while (send(x->fd, big, sizeof(big), MSG_NOSIGNAL) > 0)
            ;
        return false;
    }
    if (is_path(x, "/echo")) {
        if (!server_read_body(x))
            return false;
        server_answer(x, "200 OK", "X-A: 1\r\nx-b:2  \r\n", x->body, x->body_n);
        return true;
    }
    server_answer(x, "200 OK", "Content-Type: text/plain\r\n", "hello", 5);
    return true;
}

static int setup(void **state)
{
    struct err e;

    (void)state;
    server_start(&good, serve, NULL);
    server_start(&other, serve, NULL);
    return http_client_new("test", &client, &e);
}

static int teardown(void **state)
{
    (void)state;
    http_client_free(client);
    server_stop(&good);
    server_stop(&other);
    return 0;
}

static int get(const char *path, struct http_request *r, struct http_response *ret, struct err *e)
{
    AUTO_FREE char *url = mem_printf("%s%s", good.url, path);

    r->url = url;
    if (!r->method)
        r->method = "GET";
    if (!r->max_body)
        r->max_body = 1000;
    r->proxy = "";
    return http_perform(client, r, ret, e);
}

static void test_plain(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct err e = ERR_INIT;
        AUTO(http_response) struct http_response a = {0};

        assert_int_equal(get("/hello?q=1", &(struct http_request){0}, &a, &e), 0);
        assert_int_equal(a.status, 200);
        assert_string_equal(a.reason, "OK");
        assert_string_equal(str_text(&a.body), "hello");
        assert_string_equal(http_header(&a, "content-type"), "text/plain");
        assert_null(http_header(&a, "content"));
        assert_int_equal(a.received, 5);
    }
    assert_int_equal(good.connections, 1); /* reused */
}

static long letters(void *arg, void *buf, size_t n, struct err *e)
{
    size_t *left = arg;

    (void)e;
    if (n > *left)
        n = *left;
    memset(buf, 'x', n);
    *left -= n;
    return (long)n;
}

static void test_bodies(void **state)
{
    static const int64_t sizes[] = {-1, 300000};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct err e = ERR_INIT;
        AUTO(http_response) struct http_response a = {0};
        size_t left = 300000;
        struct http_request r = {.method = "PUT",
                                 .source = letters,
                                 .source_arg = &left,
                                 .source_size = sizes[i],
                                 .max_body = 1 << 20};

        assert_int_equal(get("/echo", &r, &a, &e), 0);
        assert_int_equal(a.body.len, 300000);
        assert_true(server_saw(&good, i ? "Content-Length: 300000" : "Transfer-Encoding: chunked"));
        assert_false(server_saw(&good, "Expect:"));
        assert_false(server_saw(&good, "Content-Type:"));
        assert_string_equal(http_header(&a, "x-b"), "2");
    }
    for (size_t n = 0; n < 2; n++) {
        struct err e = ERR_INIT;
        AUTO(http_response) struct http_response a = {0};
        struct http_request r = {.method = "POST", .body = "a", .body_n = n};

        assert_int_equal(get("/echo", &r, &a, &e), 0);
        assert_int_equal(a.body.len, n);
        assert_true(server_saw(&good, n ? "Content-Length: 1" : "Content-Length: 0"));
    }
}

static int count(void *arg, const void *data, size_t n, struct err *e)
{
    (void)data, (void)e;
    *(size_t *)arg += n;
    return 0;
}

static int refuse_data(void *arg, const void *data, size_t n, struct err *e)
{
    (void)arg, (void)data, (void)n;
    return err_set(e, ERR_HOST, "disk is full");
}

static void test_sinks(void **state)
{
    struct err e = ERR_INIT;
    struct http_response a;
    size_t got = 0;

    (void)state;
    assert_int_equal(get("/hello", &(struct http_request){.sink = count, .sink_arg = &got}, &a, &e),
                     0);
    assert_int_equal(got, 5);
    http_response_free(&a);
    assert_int_equal(get("/hello", &(struct http_request){.sink = refuse_data}, &a, &e), -1);
    assert_string_equal(e.msg, "disk is full");
    assert_int_equal(e.kind, ERR_HOST);
    got = 0; /* error bodies are not for the sink */
    assert_int_equal(get("/error", &(struct http_request){.sink = count, .sink_arg = &got}, &a, &e),
                     0);
    assert_int_equal(got, 0);
    assert_int_equal(a.body.len, BOUND_HTTP_ERROR_BODY);
    assert_string_equal(a.reason, "Oh No");
    http_response_free(&a);
    assert_int_equal(get("/endless", &(struct http_request){0}, &a, &e), 0);
    assert_int_equal(a.body.len, BOUND_HTTP_ERROR_BODY);
    http_response_free(&a);
    assert_int_equal(get("/noreason", &(struct http_request){0}, &a, &e), 0);
    assert_string_equal(a.reason, "Not Found");
    http_response_free(&a);
}

/* N passes, N+1 does not (S05), told by length or not. */
static void test_caps(void **state)
{
    struct err e = ERR_INIT;
    struct http_response a;

    (void)state;
    assert_int_equal(get("/hello", &(struct http_request){.max_body = 5}, &a, &e), 0);
    http_response_free(&a);
    assert_int_equal(get("/hello", &(struct http_request){.max_body = 4}, &a, &e), -1);
    assert_int_equal(e.kind, ERR_LIMIT);
    assert_int_equal(get("/headers", &(struct http_request){0}, &a, &e), -1);
    assert_int_equal(e.kind, ERR_LIMIT);
}

static void test_broken_answers(void **state)
{
    static const char *const paths[] = {"/short", "/two-lengths", "/both", "/bad-chunk",
                                        "/garbage"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        struct err e = ERR_INIT;
        struct http_response a;

        if (get(paths[i], &(struct http_request){0}, &a, &e) == 0)
            fail_msg("%s was taken for an answer", paths[i]);
        assert_int_equal(e.kind, ERR_REMOTE);
        assert_non_null(strstr(e.msg, "http://127.0.0.1:"));
    }
}

static bool never(void *arg, const char *url)
{
    (void)arg, (void)url;
    return false;
}

static void test_redirects(void **state)
{
    AUTO(str_list) struct str_list headers = {0};
    struct err e = ERR_INIT;
    struct http_response a;

    (void)state;
    str_list_add(&headers, "X-Mine: 1");
    str_list_add(&headers, "Cookie: secret");

    struct http_request r = {.bearer = "tok", .headers = &headers, .max_redirects = 2};

    assert_int_equal(get("/here", &r, &a, &e), 0);
    assert_int_equal(a.status, 200);
    assert_true(str_ends(a.final_url, "/hello?x=1"));
    assert_true(server_saw(&good, "Authorization: Bearer tok"));
    http_response_free(&a);
    assert_int_equal(get("/away", &r, &a, &e), 0); /* other port: other origin (B011, S16) */
    assert_int_equal(a.status, 200);
    assert_false(server_saw(&other, "Authorization"));
    assert_false(server_saw(&other, "Cookie"));
    assert_true(server_saw(&other, "X-Mine: 1"));
    http_response_free(&a);
    assert_int_equal(get("/loop", &r, &a, &e), -1);
    assert_string_equal(e.msg, "more than 2 redirects");
    assert_int_equal(get("/file", &r, &a, &e), -1);
    assert_non_null(strstr(e.msg, "no usable http"));
    r.allow_redirect = never;
    assert_int_equal(get("/away", &r, &a, &e), -1);
    assert_non_null(strstr(e.msg, "refused"));

    struct http_request post = {.method = "POST", .body = "", .max_redirects = 2};

    assert_int_equal(get("/away", &post, &a, &e), 0); /* GET only (2.1) */
    assert_int_equal(a.status, 303);
    http_response_free(&a);
}

static void test_early_answer(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        struct err e = ERR_INIT;
        AUTO(http_response) struct http_response a = {0};
        size_t left = 200 << 20;
        struct http_request r = {
            .method = "PUT", .source = letters, .source_arg = &left, .source_size = -1};

        if (get("/early", &r, &a, &e) < 0)
            fail_msg("%s", e.msg);
        assert_int_equal(a.status, 400);
        assert_true(a.answered_early);
        assert_string_equal(str_text(&a.body), "quota full");
        assert_true(left > 0);
    }
}

struct salvage_case {
    const char *answer;
    int status; /* 0: nothing to be had */
    const char *body;
};

static const struct salvage_case salvage_cases[] = {
    {"HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nno room", 403, "no room"},
    {"HTTP/1.1 403 Forbidden\r\nContent-Length: 70\r\n\r\nno room", 403, "no room"},
    {"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno room", 403, "no"},
    {"HTTP/1.0 413 Too Large\r\n\r\nuntil the end", 413, "until the end"},
    {"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n", 500,
     "abcde"},
    {"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\nabc", 500, "abc"},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 Bad\r\nContent-Length: 1\r\n\r\nx", 400, "x"},
    {"HTTP/1.1 400 Bad\r\nContent-Encoding: gzip\r\n\r\n\037\213", 400, ""},
    {"HTTP/1.1 400 Bad\r\nContent-Le", 0, ""},
    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, ""}, /* success without our body: no */
    {"HTTP/1.1 4\r\n\r\n", 0, ""},
    {"SSH-2.0-x\r\n\r\n", 0, ""},
    {"", 0, ""},
};

/* A connection that was reset by the peer after it had answered. */
static int reset_connection(const char *answer)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int ours = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &n), 0);
    assert_int_equal(connect(ours, (struct sockaddr *)&a, sizeof(a)), 0);

    int theirs = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

    assert_true(theirs >= 0);
    assert_int_equal(send(ours, "unread", 6, 0), 6);
    assert_int_equal(recv(theirs, &(char){0}, 1, MSG_PEEK), 1);
    assert_int_equal(send(theirs, answer, strlen(answer), 0), strlen(answer));
    close(theirs);
    close(listener);
    while (send(ours, "more", 4, MSG_NOSIGNAL) > 0)
        usleep(1000);
    return ours;
}

static void test_salvage(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(salvage_cases); i++) {
        const struct salvage_case *c = &salvage_cases[i];
        struct err e = ERR_INIT;
        AUTO(http_response) struct http_response a = {0};
        struct http_request r = {.method = "PUT", .max_body = 100};
        struct transfer t = {.r = &r, .ret = &a, .e = &e, .url = "http://127.0.0.1/", .sock = -1};

        t.kept = reset_connection(c->answer);
        assert_int_equal(http_salvage_answer(&t), c->status != 0);
        close(t.kept);
        if (c->status) {
            assert_int_equal(a.status, c->status);
            assert_true(a.answered_early);
            assert_string_equal(str_text(&a.body), c->body);
        }
    }
}

/* libcurl had the head, and some of the text or none. */
static void test_salvaged_text(void **state)
{
    static const struct {
        const char *length, *had, *rest, *wanted;
    } rows[] = {
        {"20", "", "Upload failed: quota", "Upload failed: quota"},
        {"20", "Upload", " failed: quota", "Upload failed: quota"},
        {"20", "", "Upload", "Upload"},
        {"6", "", "Upload failed", "Upload"},
        {"6", "Upload", "more", "Upload"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct err e = ERR_INIT;
        AUTO(http_response) struct http_response a = {.status = 400};
        struct http_request r = {.method = "PUT", .max_body = 100};
        struct transfer t = {.r = &r, .ret = &a, .e = &e, .url = "http://127.0.0.1/", .sock = -1};

        t.head_done = t.has_length = true;
        snprintf(t.length, sizeof(t.length), "%s", rows[i].length);
        (void)http_answer_body((char *)rows[i].had, 1, strlen(rows[i].had), &t);
        t.kept = reset_connection(rows[i].rest);
        http_salvage_text(&t);
        close(t.kept);
        assert_string_equal(str_text(&a.body), rows[i].wanted);
    }
}

static void *fire_later(void *arg)
{
    usleep(100000);
    cancel_fire(arg);
    return NULL;
}

static void test_clocks(void **state)
{
    struct err e = ERR_INIT;
    struct http_response a;
    AUTO(cancel) struct cancel *c = cancel_new();
    pthread_t thread;

    (void)state;
    assert_int_equal(
        get("/silent", &(struct http_request){.stall_timeout_ns = NS_PER_S / 5}, &a, &e), -1);
    assert_int_equal(e.kind, ERR_REMOTE);
    assert_non_null(strstr(e.msg, "silent"));
    assert_int_equal(
        get("/silent", &(struct http_request){.total_timeout_ns = NS_PER_S / 5}, &a, &e), -1);
    assert_non_null(strstr(e.msg, "not done within"));
    assert_int_equal(
        get("/silent", &(struct http_request){.answer_timeout_ns = NS_PER_S / 5}, &a, &e), -1);
    pthread_create(&thread, NULL, fire_later, c);
    assert_int_equal(get("/silent", &(struct http_request){.cancel = c}, &a, &e), -1);
    pthread_join(thread, NULL);
    assert_int_equal(e.kind, ERR_CANCELLED);
}

static void test_refused(void **state)
{
    AUTO(str_list) struct str_list headers = {0};
    struct err e = ERR_INIT;
    struct http_response a;
    struct http_request r = {.forbid_special_addresses = true};

    (void)state;
    assert_int_equal(get("/hello", &r, &a, &e), -1); /* although a connection to it is open */
    assert_non_null(strstr(e.msg, "special-purpose"));
    str_list_add(&headers, "X: a\r\nAuthorization: b");
    assert_int_equal(get("/hello", &(struct http_request){.headers = &headers}, &a, &e), -1);
    assert_int_equal(e.kind, ERR_USER);
    r = (struct http_request){.method = "GET", .url = "file:///etc/passwd", .max_body = 10};
    assert_int_equal(http_perform(client, &r, &a, &e), -1);
    r.url = "http://user:pw@127.0.0.1:1/x?sig=secret";
    r.proxy = "";
    assert_int_equal(http_perform(client, &r, &a, &e), -1);
    assert_null(strstr(e.msg, "pw"));
    assert_null(strstr(e.msg, "secret"));
    assert_non_null(strstr(e.msg, "http://127.0.0.1:1: "));
}

/* A name nobody can know, again and again over one slot: a label may have 63 letters, so no resolver of the host's is asked. */
static void test_unknown_name(void **state)
{
    char label[65], url[128];

    (void)state;
    memset(label, 'n', sizeof(label) - 1);
    label[sizeof(label) - 1] = '\0';
    snprintf(url, sizeof(url), "http://%s.invalid/", label);
    for (int i = 0; i < 3; i++) {
        struct err e = ERR_INIT;
        AUTO(http_response) struct http_response a = {0};
        struct http_request r = {.method = "GET", .url = url, .max_body = 100, .proxy = ""};

        assert_int_equal(http_perform(client, &r, &a, &e), -1);
        assert_int_equal(e.kind, ERR_REMOTE);
        assert_non_null(strstr(e.msg, label));
        assert_non_null(strstr(e.msg, "resolve host"));
    }
}

static void test_proxy(void **state)
{
    static const struct {
        const char *http, *https, *no, *url, *expect;
    } rows[] = {
        {"http://p:1", NULL, NULL, "http://a.b/", "http://p:1"},
        {"http://p:1", NULL, NULL, "https://a.b/", ""},
        {NULL, "http://s:1", "b", "https://a.b/", ""},
        {NULL, "http://s:1", "xb", "https://a.b/", "http://s:1"},
        {NULL, "http://s:1", "a", "https://b.a.c/", "http://s:1"},
        {"http://p:1", NULL, "10.0.0.0/8, .x", "http://10.1.2.3/", ""},
        {"http://p:1", NULL, "10.0.0.0/8", "http://11.1.2.3/", "http://p:1"},
        {"http://p:1", NULL, "fd00::/8", "http://[fd00::1]/", ""},
        {"http://p:1", NULL, "*", "http://a/", ""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        rows[i].http ? setenv("http_proxy", rows[i].http, 1) : unsetenv("http_proxy");
        rows[i].https ? setenv("https_proxy", rows[i].https, 1) : unsetenv("https_proxy");
        rows[i].no ? setenv("no_proxy", rows[i].no, 1) : unsetenv("no_proxy");

        AUTO_FREE char *got = http_proxy_for(rows[i].url);

        if (strcmp(got, rows[i].expect) != 0)
            fail_msg("row %zu: %s", i, got);
    }
    unsetenv("https_proxy");
    unsetenv("no_proxy");
    setenv("http_proxy", other.url, 1); /* B018; and S15 does not judge the proxy's own address */

    struct http_response a;
    struct err e = ERR_INIT;
    struct http_request r = {.method = "GET",
                             .url = "http://nowhere.invalid/hello",
                             .max_body = 10,
                             .forbid_special_addresses = true};

    assert_int_equal(http_perform(client, &r, &a, &e), 0);
    assert_true(server_saw(&other, "GET http://nowhere.invalid/hello"));
    http_response_free(&a);
    unsetenv("http_proxy");
}

static void test_addresses(void **state)
{
    static const struct {
        const char *text;
        bool special;
    } rows[] = {
        {"127.0.0.1", true},
        {"126.255.255.255", false},
        {"128.0.0.1", false},
        {"169.254.169.254", true},
        {"169.253.1.1", false},
        {"0.0.0.0", true},
        {"10.0.0.1", false},
        {"192.168.1.1", false},
        {"224.0.0.1", true},
        {"255.255.255.255", true},
        {"198.19.1.1", true},
        {"198.20.1.1", false},
        {"8.8.8.8", false},
        {"::1", true},
        {"::", true},
        {"fe80::1", true},
        {"febf::1", true},
        {"ff02::1", true},
        {"2606:4700::1", false},
        {"::ffff:127.0.0.1", true},
        {"::ffff:8.8.8.8", false},
        {"64:ff9b::169.254.169.254", true},
        {"2002:7f00:1::1", true},
        {"2002:808:808::1", false},
        {"fd00:ec2::254", true},
        {"fd00::1", false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct sockaddr_in6 a6 = {.sin6_family = AF_INET6};
        struct sockaddr_in a4 = {.sin_family = AF_INET};
        bool is6 = strchr(rows[i].text, ':');

        assert_int_equal(inet_pton(is6 ? AF_INET6 : AF_INET, rows[i].text,
                                   is6 ? (void *)&a6.sin6_addr : &a4.sin_addr),
                         1);
        if (http_address_is_special(is6 ? (struct sockaddr *)&a6 : (struct sockaddr *)&a4) !=
            rows[i].special)
            fail_msg("%s", rows[i].text);
    }
}

static void test_texts(void **state)
{
    static const struct {
        const char *in, *keep, *out;
    } rows[] = {
        {"host(123)", "", "host%28123%29"},
        {"a b/ü", "/", "a%20b/%C3%BC"},
        {"a/b", "", "a%2Fb"},
        {"Az09_.-~", "", "Az09_.-~"},
        {"%", "", "%25"},
        {"", "", ""},
    };
    const char *const pairs[] = {"grant_type", "password", "username", "a b&c",
                                 "password",   "+%=ä",     NULL};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO_FREE char *got = http_escape(rows[i].in, rows[i].keep);

        assert_string_equal(got, rows[i].out);
    }
    AUTO_FREE char *form = http_form(pairs);

    assert_string_equal(form, "grant_type=password&username=a+b%26c&password=%2B%25%3D%C3%A4");
    assert_true(http_same_origin("https://a/x", "https://A:443/y"));
    assert_false(http_same_origin("https://a/x", "http://a/x"));
    assert_false(http_same_origin("https://a/x", "https://a:444/x"));
    assert_false(http_same_origin("https://a/x", "https://b/x"));
    AUTO_FREE char *resolved = http_resolve("https://h/a/b?c", "../x y");
    AUTO_FREE char *stripped = http_resolve("https://h/", "//user:pw@g/z#f");

    assert_string_equal(resolved, "https://h/x%20y");
    assert_string_equal(stripped, "https://g/z");
    assert_null(http_resolve("https://h/", "ftp://x/"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),          cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_sinks),          cmocka_unit_test(test_caps),
        cmocka_unit_test(test_broken_answers), cmocka_unit_test(test_redirects),
        cmocka_unit_test(test_early_answer),   cmocka_unit_test(test_salvage),
        cmocka_unit_test(test_salvaged_text),  cmocka_unit_test(test_clocks),
        cmocka_unit_test(test_refused),        cmocka_unit_test(test_proxy),
        cmocka_unit_test(test_unknown_name),   cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_texts),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
