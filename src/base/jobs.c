/*
 * A lane is a queue and up to n detached threads. A thread that finds nothing for 30 s ends, so an idle
 * worker has none. Every job ends in the loop's mailbox; the lane forgets it before it is posted.
 */
#include "base/jobs.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/loop.h"
#include "base/mem.h"

#define IDLE_S 30

struct lane {
    struct loop *loop;
    char *name;
    unsigned max_threads;
    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t work;  /* a job was queued, or stop */
    pthread_cond_t ended; /* a job or a thread ended */
    struct job *first, **last;
    size_t queued, running;
    unsigned threads, idle;
    struct job **slots; /* what each thread runs, for lane_stop */
    bool *slot_used;
    bool stop;
};

struct lane *lane_new(struct loop *l, const char *name, unsigned threads)
{
    struct lane *lane = mem_new(struct lane);
    pthread_condattr_t attr;

    BUG_ON(threads == 0);
    lane->loop = l;
    lane->name = mem_strdup(name);
    lane->max_threads = threads;
    lane->last = &lane->first;
    lane->slots = mem_array(threads, sizeof(*lane->slots));
    lane->slot_used = mem_array(threads, sizeof(*lane->slot_used));
    pthread_mutex_init(&lane->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&lane->work, &attr);
    pthread_cond_init(&lane->ended, &attr);
    pthread_condattr_destroy(&attr);
    return lane;
}

static struct timespec in_ns(unsigned long long delta)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    unsigned long long ns = (unsigned long long)ts.tv_nsec + delta % NS_PER_S;
    ts.tv_sec += (time_t)(delta / NS_PER_S + ns / NS_PER_S);
    ts.tv_nsec = (long)(ns % NS_PER_S);
    return ts;
}

static void job_finished(void *arg)
{
    struct job *job = arg;

    /* done may free the job; its token is let go first, by a copy. */
    struct cancel *c = job->cancel;

    job->done(job);
    cancel_unref(c);
}

static struct job *queue_pop(struct lane *lane)
{
    struct job *job = lane->first;

    if (!job)
        return NULL;
    lane->first = job->next;
    if (!lane->first)
        lane->last = &lane->first;
    job->next = NULL;
    lane->queued--;
    return job;
}

/* Next job, or NULL when this thread shall end. Called and left with the lock held. */
static struct job *wait_for_job(struct lane *lane)
{
    struct timespec until = in_ns(IDLE_S * NS_PER_S);

    for (;;) {
        struct job *job = queue_pop(lane);
        if (job || lane->stop)
            return job;
        lane->idle++;
        int rc = pthread_cond_timedwait(&lane->work, &lane->lock, &until);
        lane->idle--;
        if (rc == ETIMEDOUT && !lane->first)
            return NULL;
    }
}

struct thread_arg {
    struct lane *lane;
    unsigned slot;
};

static void *lane_thread(void *arg)
{
    struct thread_arg ta = *(struct thread_arg *)arg;
    struct lane *lane = ta.lane;
    struct job *job;

    free(arg);
    pthread_mutex_lock(&lane->lock);
    while ((job = wait_for_job(lane))) {
        lane->slots[ta.slot] = job;
        lane->running++;
        pthread_mutex_unlock(&lane->lock);
        job->ran = !cancel_fired(job->cancel);
        if (job->ran)
            job->run(job);
        pthread_mutex_lock(&lane->lock);
        lane->slots[ta.slot] = NULL;
        lane->running--;
        /* Posted under the lock: whoever saw the lane empty finds the job in the mailbox. */
        loop_post(lane->loop, job_finished, job);
        pthread_cond_broadcast(&lane->ended);
    }
    lane->slot_used[ta.slot] = false;
    lane->threads--;
    pthread_cond_broadcast(&lane->ended);
    pthread_mutex_unlock(&lane->lock);
    return NULL;
}

static void start_thread(struct lane *lane)
{
    struct thread_arg *arg = mem_new(struct thread_arg);
    sigset_t all, old;
    pthread_attr_t attr;
    pthread_t tid;

    while (lane->slot_used[arg->slot])
        arg->slot++;
    arg->lane = lane;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    /* Signals are the main thread's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    lane->slot_used[arg->slot] = true;
    int rc = pthread_create(&tid, &attr, lane_thread, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (rc == 0) {
        char name[16];

        snprintf(name, sizeof(name), "%.15s", lane->name);
        pthread_setname_np(tid, name);
        lane->threads++;
        return;
    }
    lane->slot_used[arg->slot] = false;
    free(arg);
    /* With another thread alive the job only waits longer; with none nothing would ever run it. */
    BUG_ON(lane->threads == 0);
}

void lane_submit(struct lane *lane, struct job *job)
{
    loop_assert_main(lane->loop);
    cancel_ref(job->cancel);
    job->next = NULL;
    job->ran = false;
    pthread_mutex_lock(&lane->lock);
    BUG_ON(lane->stop);
    *lane->last = job;
    lane->last = &job->next;
    lane->queued++;
    if (lane->queued > lane->idle && lane->threads < lane->max_threads)
        start_thread(lane);
    pthread_cond_signal(&lane->work);
    pthread_mutex_unlock(&lane->lock);
}

size_t lane_pending(const struct lane *lane)
{
    struct lane *l = (struct lane *)lane;

    pthread_mutex_lock(&l->lock);
    size_t n = l->queued + l->running;
    pthread_mutex_unlock(&l->lock);
    return n;
}

bool lane_stop(struct lane *lane, unsigned long long timeout_ns)
{
    struct timespec until = in_ns(timeout_ns);
    struct job *job;
    int rc = 0;

    pthread_mutex_lock(&lane->lock);
    lane->stop = true;
    while ((job = queue_pop(lane))) {
        cancel_fire(job->cancel);
        loop_post(lane->loop, job_finished, job);
    }
    for (unsigned i = 0; i < lane->max_threads; i++)
        if (lane->slots[i])
            cancel_fire(lane->slots[i]->cancel);
    pthread_cond_broadcast(&lane->work);
    while (lane->threads > 0 && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&lane->ended, &lane->lock, &until);
    bool ended = lane->threads == 0;
    pthread_mutex_unlock(&lane->lock);
    return ended;
}

void lane_free(struct lane *lane)
{
    if (!lane)
        return;
    BUG_ON(lane->threads > 0 || lane->first);
    pthread_mutex_destroy(&lane->lock);
    pthread_cond_destroy(&lane->work);
    pthread_cond_destroy(&lane->ended);
    free(lane->slots);
    free(lane->slot_used);
    free(lane->name);
    free(lane);
}
