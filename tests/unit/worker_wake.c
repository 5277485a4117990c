/* threads: yes */
/*
 * The websocket that wakes the worker, against a server that behaves, breaks off, refuses, and talks nonsense.
 * Rows: B180 B181 B183 D75 D76.
 */

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/late_crypto.h"
#include "base/loop.h"
#include "base/mem.h"
#include "test.h"
#include "tests/unit/http_server.h"
#include "worker/wake.h"

enum { TEXT = 1, CLOSE = 8, PING = 9, PONG = 10, DEADLINE_S = 60 };
#define SUFFIX "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

struct frame {
    int opcode;
    bool masked;
    unsigned char data[126];
    size_t n;
};

/* What each connection does once it is open, one after the other; the last one for all that follow. */
typedef bool behaviour(struct exchange *x);
static behaviour *const *script;
static atomic_int connections, heard_a, heard_pong;

static bool read_frame(struct exchange *x, struct frame *f)
{
    unsigned char head[2], mask[4] = {0};

    if (!server_exact(x, (char *)head, 2))
        return false;
    f->opcode = head[0] & 15;
    f->masked = head[1] & 0x80;
    f->n = head[1] & 0x7f;
    if (f->n > 125 || (f->masked && !server_exact(x, (char *)mask, 4)) ||
        !server_exact(x, (char *)f->data, f->n))
        return false;
    for (size_t i = 0; i < f->n; i++)
        f->data[i] ^= mask[i % 4];
    return true;
}

static void send_frame(struct exchange *x, int opcode, const char *text)
{
    size_t n = strlen(text);
    unsigned char head[2] = {(unsigned char)(0x80 | opcode), (unsigned char)n};

    server_send(x, head, 2);
    server_send(x, text, n);
}

/* Frames until the client goes; each is masked (RFC 6455 5.1). */
static void listen_to(struct exchange *x)
{
    struct frame f;

    while (read_frame(x, &f)) {
        assert_true(f.masked);
        if (f.opcode == TEXT && f.n == 1 && f.data[0] == 'a')
            heard_a++;
        if (f.opcode == PONG && f.n == 4 && memcmp(f.data, "ping", 4) == 0)
            heard_pong++;
        if (f.opcode == CLOSE)
            return;
    }
}

static bool accept_websocket(struct exchange *x)
{
    char key[128], accept[64];
    unsigned char digest[SHA_DIGEST_LENGTH];

    assert_non_null(server_header(x, "Sec-WebSocket-Key", key, sizeof(key)));
    AUTO_FREE char *text = mem_printf("%s" SUFFIX, key);

    SHA1((unsigned char *)text, strlen(text), digest);
    EVP_EncodeBlock((unsigned char *)accept, digest, sizeof(digest));
    server_printf(
        x,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: %s\r\n\r\n",
        accept);
    return true;
}

static bool serve(struct exchange *x, void *arg UNUSED)
{
    behaviour *b = script[0];

    if (strcmp(x->path, "/ws/worker/host(1)") != 0) /* raw, not escaped */
        return false;
    for (int i = 0; i < connections && script[i + 1]; i++)
        b = script[i + 1];
    connections++;
    return b(x);
}

static bool wakes(struct exchange *x)
{
    struct frame f;

    accept_websocket(x);
    assert_true(read_frame(x, &f) && f.opcode == TEXT && f.n == 1 &&
                f.data[0] == 'a'); /* at once */
    send_frame(x, PING, "ping");
    send_frame(x, TEXT, "host(1)");
    listen_to(x);
    return false;
}

static bool closes(struct exchange *x)
{
    accept_websocket(x);
    send_frame(x, CLOSE, "\x03\xe8");
    listen_to(x);
    return false;
}

static bool breaks_off(struct exchange *x)
{
    accept_websocket(x);
    return false;
}

static bool refuses(struct exchange *x)
{
    server_answer(x, "502 Bad Gateway", "", "later", 5);
    return false;
}

static bool is_no_websocket(struct exchange *x)
{
    server_printf(x, "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: wrong\r\n\r\n");
    return false;
}

/* A masked frame is not allowed from a server; the connection stays open. */
static bool talks_nonsense(struct exchange *x)
{
    accept_websocket(x);
    server_send(x,
                "\x81\x81"
                "abcdx",
                7);
    listen_to(x);
    return false;
}

static bool sends_too_much(struct exchange *x)
{
    accept_websocket(x);
    server_send(x,
                "\x82\x7f\x00\x00\x00\x00\x7f\xff\xff\xff"
                "data",
                14);
    listen_to(x);
    return false;
}

/* ---- the client ---- */

struct counter {
    struct loop *loop;
    pthread_t main;
    int calls, wanted, wanted_connections;
};

static void woken(void *arg)
{
    struct counter *c = arg;

    assert_true(pthread_equal(pthread_self(), c->main)); /* one owner of the state (D76) */
    c->calls++;
    if (c->calls >= c->wanted && connections >= c->wanted_connections)
        loop_stop(c->loop);
}

static void too_late(void *arg UNUSED)
{
    fail_msg("not woken within %d s", DEADLINE_S);
}

static void run(behaviour *const *how, int calls, int wanted_connections)
{
    AUTO(loop) struct loop *loop = NULL;
    struct server s;
    struct err e = ERR_INIT;

    script = how;
    connections = heard_a = heard_pong = 0;
    server_start(&s, serve, NULL);
    assert_ok(loop_new(&loop, &e), &e);
    AUTO_FREE char *server_url = mem_printf("%s", s.url);
    AUTO_FREE char *url = wake_url(server_url, NULL, "host(1)");
    struct counter c = {loop, pthread_self(), 0, calls, wanted_connections};
    struct loop_watch *timer = loop_add_timer(loop, too_late, NULL);

    loop_arm(timer, DEADLINE_S * NS_PER_S);
    struct wake *w =
        wake_start(&(struct wake_opts){.loop = loop, .url = url, .woken = woken, .arg = &c});

    loop_run(loop);
    for (int i = 0; i < 6000 && how[0] == wakes && (!heard_pong || !heard_a); i++)
        usleep(10000);
    wake_stop(w);
    loop_watch_free(timer);
    server_stop(&s);
}

/* Once for the connection, once for the message; pings are answered. */
static void a_message_wakes(void **state)
{
    static behaviour *const how[] = {wakes, NULL};

    (void)state;
    run(how, 2, 1);
    assert_int_equal(heard_pong, 1);
    assert_true(heard_a >= 1); /* again after a message */
}

static void comes_back_after_any_end(void **state)
{
    static behaviour *const how[] = {closes, breaks_off, wakes, NULL};

    (void)state;
    run(how, 3, 3);
}

static void comes_back_after_a_refusal(void **state)
{
    static behaviour *const how[] = {refuses, is_no_websocket, wakes, NULL};

    (void)state;
    run(how, 1, 3);
}

static void nonsense_ends_the_connection(void **state)
{
    static behaviour *const how[] = {talks_nonsense, sends_too_much, wakes, NULL};

    (void)state;
    run(how, 3, 3);
}

static void urls(void **state)
{
    static const struct {
        const char *server, *ws, *id, *wanted;
    } cases[] = {
        {"http://host:80", NULL, "host(1)", "ws://host:80/ws/worker/host(1)"},
        {"https://host/", "", "a b", "wss://host/ws/worker/a b"},
        {"https://host", "ws://ws-server:2901", "w", "ws://ws-server:2901/worker/w"},
        {"https://host", "ws://ws-server:2901/", "w", "ws://ws-server:2901/worker/w"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        AUTO_FREE char *url = wake_url(cases[i].server, cases[i].ws, cases[i].id);

        assert_string_equal(url, cases[i].wanted);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls),
        cmocka_unit_test(a_message_wakes),
        cmocka_unit_test(comes_back_after_any_end),
        cmocka_unit_test(comes_back_after_a_refusal),
        cmocka_unit_test(nonsense_ends_the_connection),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
