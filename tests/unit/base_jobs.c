/* threads: yes */
/* Lanes: every job is done exactly once on the loop's thread, bounded threads, cancel, stop. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/jobs.h"
#include "base/loop.h"
#include "base/mem.h"

struct test {
    struct loop *loop;
    pthread_t main;
    atomic_int at_once, most_at_once;
    int want, done, ran, elsewhere;
};

struct work {
    struct job job; /* first */
    struct test *t;
    int result;
};

static void finished(struct job *job)
{
    struct work *w = (struct work *)job;
    struct test *t = w->t;

    t->elsewhere += !pthread_equal(t->main, pthread_self());
    t->ran += job->ran && w->result == 42;
    if (++t->done == t->want)
        loop_stop(t->loop);
    cancel_unref(job->cancel);
    free(w);
}

static void count(struct job *job)
{
    struct work *w = (struct work *)job;
    int now = atomic_fetch_add(&w->t->at_once, 1) + 1;
    int most = atomic_load(&w->t->most_at_once);

    while (now > most && !atomic_compare_exchange_weak(&w->t->most_at_once, &most, now))
        ;
    poll(NULL, 0, 1);
    w->result = 42;
    atomic_fetch_sub(&w->t->at_once, 1);
}

static void until_cancelled(struct job *job)
{
    struct work *w = (struct work *)job;

    fd_wait(cancel_fd(job->cancel), POLLIN, clock_in_ns(60 * NS_PER_S));
    w->result = cancel_fired(job->cancel) ? 42 : 0;
}

static struct job *work_new(struct test *t, void (*run)(struct job *))
{
    struct work *w = mem_new(struct work);

    w->job.run = run;
    w->job.done = finished;
    w->job.cancel = cancel_new();
    w->t = t;
    return &w->job;
}

static struct loop *make(void)
{
    struct loop *l = NULL;
    struct err e = ERR_INIT;

    assert_int_equal(loop_new(&l, &e), 0);
    return l;
}

static void all_jobs_are_done_with_bounded_threads(void **state)
{
    (void)state;
    AUTO(loop) struct loop *l = make();
    struct test t = {.loop = l, .main = pthread_self(), .want = 60};
    struct lane *lane = lane_new(l, "test", 3);

    for (int i = 0; i < t.want; i++)
        lane_submit(lane, work_new(&t, count));
    loop_run(l);
    assert_int_equal(t.done, 60);
    assert_int_equal(t.ran, 60);
    assert_int_equal(t.elsewhere, 0);
    assert_in_range(t.most_at_once, 1, 3);
    assert_int_equal(lane_pending(lane), 0);
    assert_true(lane_stop(lane, 30 * NS_PER_S));
    lane_free(lane);
}

static void a_cancelled_job_is_not_run_but_done(void **state)
{
    (void)state;
    AUTO(loop) struct loop *l = make();
    struct test t = {.loop = l, .main = pthread_self(), .want = 2};
    struct lane *lane = lane_new(l, "test", 1);
    struct job *first = work_new(&t, until_cancelled), *second = work_new(&t, count);

    lane_submit(lane, first);
    lane_submit(lane, second);
    cancel_fire(second->cancel);
    cancel_fire(first->cancel);
    loop_run(l);
    assert_int_equal(t.done, 2);
    assert_in_range(t.ran, 0, 1); /* the first may have started before its token fired */
    assert_true(lane_stop(lane, 30 * NS_PER_S));
    lane_free(lane);
}

static void stop_cancels_running_and_queued(void **state)
{
    (void)state;
    AUTO(loop) struct loop *l = make();
    struct test t = {.loop = l, .main = pthread_self(), .want = 5};
    struct lane *lane = lane_new(l, "test", 2);

    for (int i = 0; i < t.want; i++)
        lane_submit(lane, work_new(&t, until_cancelled));
    assert_int_equal(lane_pending(lane), 5);
    assert_true(lane_stop(lane, 30 * NS_PER_S));
    loop_drain(l);
    assert_int_equal(t.done, 5);
    assert_in_range(t.ran, 0, 2);
    lane_free(lane);
}

static int gate[2], started[2];

static void until_gate_opens(struct job *job)
{
    char c;

    assert_int_equal(write(started[1], "s", 1), 1);
    ((struct work *)job)->result = read(gate[0], &c, 1) == 1 ? 42 : 0;
}

static void stop_reports_a_thread_that_does_not_end(void **state)
{
    (void)state;
    AUTO(loop) struct loop *l = make();
    struct test t = {.loop = l, .main = pthread_self(), .want = 1};
    struct lane *lane = lane_new(l, "test", 1);
    char c;

    assert_int_equal(pipe2(gate, O_CLOEXEC), 0);
    assert_int_equal(pipe2(started, O_CLOEXEC), 0);
    lane_submit(lane, work_new(&t, until_gate_opens));
    assert_int_equal(read(started[0], &c, 1), 1);
    assert_false(lane_stop(lane, NS_PER_MS));
    assert_int_equal(write(gate[1], "x", 1), 1);
    assert_true(lane_stop(lane, 30 * NS_PER_S));
    loop_drain(l);
    assert_int_equal(t.ran, 1);
    lane_free(lane);
    close(gate[0]);
    close(gate[1]);
    close(started[0]);
    close(started[1]);
}

static void tokens_are_flag_and_descriptor(void **state)
{
    (void)state;
    AUTO(cancel) struct cancel *c = cancel_new();

    assert_false(cancel_fired(c));
    assert_int_equal(fd_wait(cancel_fd(c), POLLIN, clock_now_ns()), 0);
    cancel_fire(c);
    cancel_fire(c);
    assert_true(cancel_fired(c));
    assert_int_equal(fd_wait(cancel_fd(c), POLLIN, clock_now_ns()), 1);
    assert_false(cancel_fired(NULL));
    assert_int_equal(cancel_fd(NULL), -1);
    assert_null(cancel_ref(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_jobs_are_done_with_bounded_threads),
        cmocka_unit_test(a_cancelled_job_is_not_run_but_done),
        cmocka_unit_test(stop_cancels_running_and_queued),
        cmocka_unit_test(stop_reports_a_thread_that_does_not_end),
        cmocka_unit_test(tokens_are_flag_and_descriptor),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
