/* threads: yes */
/* The event loop: mailbox order, descriptors, pidfds, timers, signals, freeing inside callbacks. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/loop.h"
#include "base/mem.h"

static struct loop *make(void)
{
    struct loop *l = NULL;
    struct err e = ERR_INIT;

    assert_int_equal(loop_new(&l, &e), 0);
    return l;
}

struct posting {
    struct loop *loop;
    int n, seen, wrong;
};

struct letter {
    struct posting *to;
    int number;
};

static void open_letter(void *arg)
{
    struct letter *letter = arg;
    struct posting *to = letter->to;

    to->wrong += letter->number != to->seen;
    if (++to->seen == to->n)
        loop_stop(to->loop);
    free(letter);
}

static void *post_all(void *arg)
{
    struct posting *p = arg;

    for (int i = 0; i < p->n; i++) {
        struct letter *letter = mem_new(struct letter);
        *letter = (struct letter){p, i};
        loop_post(p->loop, open_letter, letter);
    }
    return NULL;
}

static void posts_arrive_in_order(void **state)
{
    (void)state;
    AUTO(loop) struct loop *l = make();
    struct posting p = {.loop = l, .n = 10000};
    pthread_t t;

    pthread_create(&t, NULL, post_all, &p);
    loop_run(l);
    pthread_join(t, NULL);
    assert_int_equal(p.seen, p.n);
    assert_int_equal(p.wrong, 0);
}

struct seen {
    struct loop *loop;
    struct loop_watch *watch;
    int calls, events;
};

static void on_fd(void *arg, int fd, int events)
{
    struct seen *s = arg;
    char c;

    s->calls++;
    s->events = events;
    if (read(fd, &c, 1) <= 0) {
        loop_watch_free(s->watch);
        loop_stop(s->loop);
    }
}

static void descriptors_keep_their_blocking_mode(void **state)
{
    (void)state;
    AUTO(loop) struct loop *l = make();
    int p[2];

    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    struct seen s = {.loop = l};
    s.watch = loop_add_fd(l, p[0], LOOP_READ, on_fd, &s);
    assert_false(fcntl(p[0], F_GETFL) & O_NONBLOCK);
    assert_int_equal(write(p[1], "x", 1), 1);
    close(p[1]);
    loop_run(l);
    assert_int_equal(s.calls, 2); /* the byte, then the hang-up */
    assert_true(s.events & LOOP_READ);
    close(p[0]);
}

static void on_exit_of_child(void *arg, int fd, int events)
{
    struct seen *s = arg;
    siginfo_t si = {0};

    (void)events;
    assert_int_equal(waitid(P_PIDFD, (id_t)fd, &si, WEXITED), 0);
    s->events = si.si_status;
    loop_watch_free(s->watch);
    loop_stop(s->loop);
}

static void a_pidfd_tells_the_end_of_a_process(void **state)
{
    (void)state;
    AUTO(loop) struct loop *l = make();
    char *argv[] = {(char *)"sh", (char *)"-c", (char *)"exit 7", NULL};
    pid_t pid;

    assert_int_equal(posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, NULL), 0);
    AUTO_CLOSE int fd = fd_pidfd_open(pid);
    struct seen s = {.loop = l};
    s.watch = loop_add_fd(l, fd, LOOP_READ, on_exit_of_child, &s);
    loop_run(l);
    assert_int_equal(s.events, 7);
}

static void on_tick(void *arg)
{
    struct seen *s = arg;

    if (++s->calls < 3) {
        loop_arm(s->watch, NS_PER_MS);
        return;
    }
    loop_watch_free(s->watch);
    loop_stop(s->loop);
}

static void fail_timer(void *arg)
{
    (void)arg;
    fail_msg("a disarmed timer fired");
}

static void timers_fire_once_and_can_be_armed_again(void **state)
{
    (void)state;
    AUTO(loop) struct loop *l = make();
    struct seen s = {.loop = l};
    struct loop_watch *never = loop_add_timer(l, fail_timer, NULL);
    uint64_t before = clock_now_ns();

    s.watch = loop_add_timer(l, on_tick, &s);
    loop_arm(never, NS_PER_MS);
    loop_disarm(never);
    loop_arm(s.watch, 5 * NS_PER_MS);
    loop_run(l);
    assert_int_equal(s.calls, 3);
    assert_true(clock_now_ns() - before >= 5 * NS_PER_MS); /* never early */
    loop_watch_free(never);
}

static void on_sig(void *arg)
{
    struct seen *s = arg;

    s->calls++;
    loop_stop(s->loop);
}

static void signals_arrive(void **state)
{
    (void)state;
    AUTO(loop) struct loop *l = make();
    struct seen s = {.loop = l};

    s.watch = loop_add_signal(l, SIGUSR1, on_sig, &s);
    raise(SIGUSR1);
    loop_run(l);
    assert_int_equal(s.calls, 1);
    loop_watch_free(s.watch);
}

static void drain_runs_what_was_posted(void **state)
{
    (void)state;
    AUTO(loop) struct loop *l = make();
    struct posting p = {.loop = l, .n = 3};

    post_all(&p);
    loop_drain(l);
    assert_int_equal(p.seen, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(posts_arrive_in_order),
        cmocka_unit_test(descriptors_keep_their_blocking_mode),
        cmocka_unit_test(a_pidfd_tells_the_end_of_a_process),
        cmocka_unit_test(timers_fire_once_and_can_be_armed_again),
        cmocka_unit_test(signals_arrive),
        cmocka_unit_test(drain_runs_what_was_posted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
