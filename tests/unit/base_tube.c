/* threads: yes */
/* A tube between two threads: all bytes in their order whatever the pieces, and both ways of ending early. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/tube.h"
#include "test.h"

enum { BYTES = 1 << 20 };

struct pusher {
    struct tube *tube;
    unsigned seed;
    size_t most; /* bytes a piece */
    int rc;
    struct err error;
};

static unsigned char byte_at(size_t i)
{
    return (unsigned char)(i * 31 + i / 251);
}

static void *push(void *arg)
{
    struct pusher *p = arg;
    AUTO_FREE unsigned char *piece = mem_alloc(p->most);

    for (size_t at = 0; at < BYTES && p->rc == 0;) {
        size_t n = 1 + (size_t)rand_r(&p->seed) % p->most;

        n = n < BYTES - at ? n : BYTES - at;
        for (size_t i = 0; i < n; i++)
            piece[i] = byte_at(at + i);
        p->rc = tube_write(p->tube, piece, n, &p->error);
        at += n;
    }
    tube_close(p->tube, NULL);
    return NULL;
}

/* Sizes of tube, pieces in and pieces out. */
static void in_order(void **state)
{
    static const size_t rows[][3] = {{1, 3, 2},        {7, 64, 5},        {4096, 1, 4096},
                                     {4096, 4096, 1},  {4096, 9000, 700}, {65536, 100000, 65536},
                                     {4097, 512, 4096}};

    (void)state;
    for (size_t r = 0; r < ARRAY_SIZE(rows); r++) {
        AUTO(tube) struct tube *tube = tube_new(rows[r][0]);
        AUTO_FREE unsigned char *got = mem_alloc(rows[r][2]);
        struct pusher p = {.tube = tube, .seed = (unsigned)r, .most = rows[r][1]};
        struct err e = ERR_INIT;
        pthread_t thread;
        size_t at = 0;
        long n;

        assert_int_equal(pthread_create(&thread, NULL, push, &p), 0);
        while ((n = tube_read(tube, got, rows[r][2], &e)) > 0)
            for (long i = 0; i < n; i++, at++)
                if (got[i] != byte_at(at))
                    fail_msg("row %zu: byte %zu", r, at);
        pthread_join(thread, NULL);
        assert_int_equal(n, 0);
        assert_int_equal(p.rc, 0);
        assert_int_equal(at, BYTES);
    }
}

static void the_reader_has_enough(void **state)
{
    AUTO(tube) struct tube *tube = tube_new(4096);
    struct pusher p = {.tube = tube, .seed = 1, .most = 1000};
    struct err why = ERR_INIT, e = ERR_INIT;
    pthread_t thread;
    char some[100];

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, push, &p), 0);
    assert_true(tube_read(tube, some, sizeof(some), &e) > 0);
    (void)err_set(&why, ERR_LIMIT, "that is enough");
    tube_break(tube, &why);
    pthread_join(thread, NULL);
    assert_int_equal(p.rc, -1);
    assert_int_equal(p.error.kind, ERR_LIMIT);
    assert_string_equal(p.error.msg, "that is enough");
}

static void the_writer_fails(void **state)
{
    AUTO(tube) struct tube *tube = tube_new(4096);
    struct err why = ERR_INIT, e = ERR_INIT;
    char some[100];

    (void)state;
    assert_int_equal(tube_write(tube, "abc", 3, &e), 0);
    (void)err_set(&why, ERR_REMOTE, "cut off");
    tube_close(tube, &why);
    assert_int_equal(tube_read(tube, some, sizeof(some), &e), 3); /* what came before */
    assert_int_equal(tube_read(tube, some, sizeof(some), &e), -1);
    assert_string_equal(e.msg, "cut off");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order),
        cmocka_unit_test(the_reader_has_enough),
        cmocka_unit_test(the_writer_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
