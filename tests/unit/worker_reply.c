/* The local parts of replies: the table of summarize_file, netcat's conversation, where an HTTP answer ends.
 * Rows: B168 B175 B176 B178 D62 D66. */
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jobs.h"
#include "base/mem.h"
#include "test.h"
#include "worker/reply_netcat.h"
#include "worker/reply_read.h"

/* ---- summarize_file (protocol 9.5) ---- */

static void summary_is(const char *file, size_t n, const struct summary_args *a, uint64_t size,
                       const char *wanted, size_t n_wanted)
{
    struct err e = ERR_INIT;
    AUTO_CLOSE int fd = fd_memfd("file", file, n, &e);

    assert_true(fd >= 0);
    AUTO(str) struct str text = STR_INIT(4096);

    assert_ok(reply_summary_text(fd, size, a, &text, &e), &e);
    assert_string_equal(str_text(&text), wanted);
    assert_int_equal(text.len, n_wanted);
}

static void summaries(void **state)
{
    static const struct {
        const char *file;
        uint64_t head, tail, line_max;
        const char *wanted; /* "|" is the truncation text */
    } cases[] = {
        {"aaa\nbbb\n", 1, 0, 4, "aaa\n"},
        {"aaa\nbbb\n", 0, 1, 4, "bbb\n"},
        {"aaa\nbbb\n", 1, 1, 4, "aaa\nbbb\n"},
        {"aaa\nbbb\n", 1, 0, 3, ""},
        {"aaa\nbbb\n", 1, 1, 3, "|"},
        {"1\n2\n3\n4\n5\n", 1, 1, 128, "1\n|5\n"},
        {"1\n2\n3\n4\n5\n", 2, 0, 128, "1\n2\n"},
        {"1\n2\n3\n4\n5\n", 0, 2, 128, "4\n5\n"},
        {"1\n2\n3\n4\n5\n", 2, 3, 128, "1\n2\n3\n4\n5\n"},
        {"", 1, 1, 4, ""},
        {"abc", 1, 0, 128, "abc\n"},
        {"aaaa\nbbbb\ncccc\nddd", 0, 1, 5, "ddd\n"}, /* D62: no character is lost at the end */
        {"a\r\nb\rc\n", 9, 0, 99, "a\nb\nc\n"},
        {"a\vb\fc\x1c"
         "d\x1d"
         "e\x1e"
         "f\xc2\x85"
         "g\xe2\x80\xa8h\xe2\x80\xa9i",
         2, 2, 99, "a\vb\f|h\xe2\x80\xa9i\n"},
        {"x\xff\n", 9, 9, 99, "<binary>"},
        {"\xc3\xa4\xc3\xb6\n\xc3\xbc\xc3\x9f\n", 1, 0, 3,
         "\xc3\xa4\xc3\xb6\n"}, /* characters, not bytes */
        {"aaaaaaa\xc3\xa4\n12\n", 0, 1, 4,
         "12\n"}, /* the window begins inside a character: skipped (D62) */
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 1, 1, 4, "|"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct summary_args a = {cases[i].head, cases[i].tail, cases[i].line_max, "|"};

        summary_is(cases[i].file, strlen(cases[i].file), &a, strlen(cases[i].file), cases[i].wanted,
                   strlen(cases[i].wanted));
    }
}

/* The size was asked before the file was read: it has grown, or shrunk, since. */
static void summary_of_a_changing_file(void **state)
{
    const struct summary_args a = {9, 9, 99, "|"};

    (void)state;
    summary_is("12345678", 8, &a, 7, "1234567\n", 8);
    summary_is("1234567", 7, &a, 7, "1234567\n", 8);
    summary_is("123", 3, &a, 7, "123\n", 4);
    summary_is("", 0, &a, 7, "", 0);
    summary_is("a\0b\n", 4, &a, 4, "a\0b\n", 4);
}

/* ---- netcat ---- */

struct peer {
    int fd;
    const char *answer;
    size_t answer_n;
    bool reads, closes;
    size_t heard;
    pthread_t thread;
};

static void *be_peer(void *arg)
{
    struct peer *p = arg;
    char buf[65536];

    if (fd_write_all(p->fd, p->answer, p->answer_n) < 0)
        return NULL;
    for (ssize_t n; p->reads && (n = read(p->fd, buf, sizeof(buf))) > 0;)
        p->heard += (size_t)n;
    if (p->closes)
        close_fd(&p->fd);
    return NULL;
}

static int converse(struct peer *p, const char *message, uint64_t total_ms, uint64_t silence_ms,
                    struct cancel *cancel, struct str *answer, struct err *e)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    p->fd = pair[1];
    assert_int_equal(pthread_create(&p->thread, NULL, be_peer, p), 0);
    int rc = netcat_converse(pair[0], message, total_ms * NS_PER_MS, silence_ms * NS_PER_MS, cancel,
                             answer, e);

    close(pair[0]);
    pthread_join(p->thread, NULL);
    close_fd(&p->fd);
    return rc;
}

#define LONG 600000 /* ms: never reached */

static void netcat_hears_all(void **state)
{
    struct err e = ERR_INIT;
    AUTO(str) struct str answer = STR_INIT(1 << 20);
    struct peer p = {.answer = "\0raw\xff", .answer_n = 5, .closes = true};

    (void)state;
    assert_ok(converse(&p, "hi", LONG, LONG, NULL, &answer, &e), &e);
    assert_int_equal(answer.len, 5);
    assert_memory_equal(answer.buf, "\0raw\xff", 5);
}

static void netcat_empty_answer_comes_at_once(void **state)
{
    struct err e = ERR_INIT;
    AUTO(str) struct str answer = STR_INIT(100);
    struct peer p = {.closes = true};

    (void)state;
    assert_ok(converse(&p, "", LONG, LONG, NULL, &answer, &e), &e);
    assert_int_equal(answer.len, 0);
}

static void netcat_does_not_wait_for_ever(void **state)
{
    struct err e = ERR_INIT;
    AUTO(str) struct str answer = STR_INIT(100);
    struct peer mute = {0}, keeps_open = {.answer = "said", .answer_n = 4};
    AUTO_FREE char *much = mem_alloc(4 << 20);

    (void)state;
    memset(much, 'x', (4 << 20) - 1);
    much[(4 << 20) - 1] = '\0';
    /* Silent, and it does not even read what we say. */
    assert_ok(converse(&mute, much, 100, LONG, NULL, &answer, &e), &e);
    assert_int_equal(answer.len, 0);
    /* It spoke, and stays. */
    assert_ok(converse(&keeps_open, "hi", LONG, 50, NULL, &answer, &e), &e);
    assert_string_equal(str_text(&answer), "said");
}

static void netcat_ends_with_the_worker(void **state)
{
    struct err e = ERR_INIT;
    AUTO(str) struct str answer = STR_INIT(100);
    AUTO(cancel) struct cancel *cancel = cancel_new();
    struct peer mute = {0};

    (void)state;
    cancel_fire(cancel);
    assert_int_equal(converse(&mute, "hi", LONG, LONG, cancel, &answer, &e), -1);
    assert_int_equal(e.kind, ERR_CANCELLED);
}

/* Both write a lot before they read. */
static void netcat_both_talk_at_once(void **state)
{
    struct err e = ERR_INIT;
    AUTO(str) struct str answer = STR_INIT(8 << 20);
    AUTO_FREE char *much = mem_alloc(4 << 20);
    struct peer p = {.answer = much, .answer_n = 4 << 20, .reads = true};

    (void)state;
    memset(much, 'x', (4 << 20) - 1);
    much[(4 << 20) - 1] = '\0';
    assert_ok(converse(&p, much, LONG, 5000, NULL, &answer, &e), &e);
    assert_int_equal(answer.len, 4 << 20);
    assert_int_equal(p.heard, (4 << 20) - 1);
}

static void netcat_answer_is_bounded(void **state)
{
    struct err e = ERR_INIT;
    AUTO(str) struct str answer = STR_INIT(3);
    struct peer p = {.answer = "1234", .answer_n = 4, .closes = true};

    (void)state;
    assert_int_equal(converse(&p, "", LONG, LONG, NULL, &answer, &e), -1);
    assert_int_equal(e.kind, ERR_LIMIT);
}

/* ---- HTTP ---- */

static void http_answers_end(void **state)
{
    static const struct {
        const char *request, *answer;
        bool whole;
    } cases[] = {
        {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", true},
        {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.0 200 OK\r\nA: b\r\ncontent-length:0\r\n\r\n", true},
        {"GET / HTTP/1.1\r\n\r\n",
         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", true},
        {"GET / HTTP/1.1\r\n\r\n",
         "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nA;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n",
         true},
        {"HEAD / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true},
        {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", true},
        {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nuntil the end", false},
        {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n\r\n",
         "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n\r\n",
         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc\r\n", false},
        {"hi", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n\r\n", "SSH-2.0-x\r\n\r\n", false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct http_shape s = {0};
        size_t n = strlen(cases[i].answer);

        for (size_t k = 0; k < n; k++) /* never before its last byte, however it arrives */
            assert_false(http_shape_is_whole(&s, cases[i].request, cases[i].answer, k));
        assert_int_equal(http_shape_is_whole(&s, cases[i].request, cases[i].answer, n),
                         cases[i].whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(summaries),
        cmocka_unit_test(summary_of_a_changing_file),
        cmocka_unit_test(netcat_hears_all),
        cmocka_unit_test(netcat_empty_answer_comes_at_once),
        cmocka_unit_test(netcat_does_not_wait_for_ever),
        cmocka_unit_test(netcat_ends_with_the_worker),
        cmocka_unit_test(netcat_both_talk_at_once),
        cmocka_unit_test(netcat_answer_is_bounded),
        cmocka_unit_test(http_answers_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
