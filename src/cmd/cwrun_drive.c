#include "cmd/cwrun_drive.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/tree.h"
#include "oci/image.h"
#include "runtime/shim.h"
#include "runtime/tty_session.h"
#include "worker/container.h"
#include "worker/run.h"
#include "worker/run_stage.h"

struct state {
    struct drive *d;
    struct ctr_shim *shim;
    struct err error;          /* text behind an event */
    struct exit_record record; /* likewise */
    uint64_t measure_ns;       /* when to measure the disk again */
    pid_t beside;
    int beside_fd; /* its pidfd */
    bool left;     /* it has ended, and the program it was to be with has not */
};

static void create(struct state *s, struct run_event *ev)
{
    struct container_made made = {0};
    struct run *r = s->d->run;
    int rc = container_create(s->d->env, r, s->d->image, s->d->paths, NULL, &made, &s->error);

    str_list_free(&r->links);
    r->links = made.links;
    s->shim = rc < 0 ? NULL : made.shim;
    ev->kind = rc < 0 ? EV_START_FAILED : EV_CREATED;
    ev->text = rc < 0 ? s->error.msg : s->d->image->repo_digest;
}

/*
 * What comes beside the command comes after it: the command's shell has made its two streams by
 * then, and truncates none that the other one wrote. One that never makes them is not waited for.
 */
static void wait_streams(const struct state *s)
{
    const struct timespec pause = {.tv_nsec = 2 * (long)NS_PER_MS};
    uint64_t deadline = clock_in_ns(10 * NS_PER_S);
    AUTO_FREE char *last = mem_printf("%s/stderr", s->d->run->dir);
    struct stat st;

    while (lstat(last, &st) < 0 && !clock_passed(deadline)) {
        struct pollfd ended = {.fd = ctr_shim_fd(s->shim), .events = POLLIN};

        if (poll(&ended, 1, 0) > 0)
            return;
        nanosleep(&pause, NULL);
    }
}

/* Signals are ours to block, not its. */
static int begin_beside(struct state *s)
{
    posix_spawnattr_t attr;
    sigset_t none, all;
    int rc;

    if (!s->d->beside)
        return 0;
    wait_streams(s);
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    rc = posix_spawn(&s->beside, "/proc/self/exe", NULL, &attr, s->d->beside, environ);
    posix_spawnattr_destroy(&attr);
    if (rc)
        return err_sysno(&s->error, rc, "start %s", s->d->beside[0]);
    s->beside_fd = (int)syscall(SYS_pidfd_open, s->beside, 0);
    return s->beside_fd < 0 ? err_sys(&s->error, "hold %s", s->d->beside[0]) : 0;
}

/* Is there a program in the run whose terminal can be come back to (cwrun attach)? */
static bool has_terminal(const struct state *s)
{
    AUTO_FREE char *path = mem_printf("%s/%s", s->d->env->runtime_dir, s->d->run->bundle.uuid);
    AUTO_CLOSE int dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    pid_t program;

    return dir >= 0 && tty_sessions(dir, &program, 1) > 0;
}

/* The person has left the terminal, and the program there goes on: then the run ends with that. */
static bool is_left(struct state *s)
{
    if (!has_terminal(s))
        return false;
    waitpid(s->beside, NULL, 0);
    s->beside = 0;
    close_fd(&s->beside_fd);
    s->left = true;
    s->d->beside_status = 0; /* how it ends is told to whoever is there */
    return true;
}

/* It has ended, or has nothing left to be in. */
static void end_beside(struct state *s)
{
    int status = 0;

    if (s->beside <= 0)
        return;
    if (waitpid(s->beside, &status, 0) == s->beside)
        s->d->beside_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    s->beside = 0;
    close_fd(&s->beside_fd);
}

static void start(struct state *s, struct run_event *ev)
{
    ev->kind = EV_STARTED;
    ev->number = (int64_t)clock_now_ns();
    if (ctr_shim_start(s->shim, &s->error) == 0 && begin_beside(s) == 0)
        return;
    err_wrap(&s->error, "Cannot start Docker container");
    ev->kind = EV_START_FAILED;
    ev->text = s->error.msg;
}

/* ---- the living container ---- */

static unsigned passed_limits(const struct run *r)
{
    const struct bundle *b = &r->bundle;
    bool late =
        b->time_s != 0 && (b->time_s < 0 || clock_epoch() - r->container_start > (double)b->time_s);
    bool full = b->disk < 0 || (b->disk > 0 && r->disk_utilization > (uint64_t)b->disk);

    return (late ? LIMIT_TIME : 0) | (full ? LIMIT_DISK : 0);
}

/* Milliseconds to the next thing that is due, at most a second. */
static int pause_ms(const struct state *s)
{
    const struct run *r = s->d->run;
    int ms = clock_left_ms(s->measure_ns);

    if (r->bundle.time_s > 0) {
        double left = (r->container_start + (double)r->bundle.time_s - clock_epoch()) * 1000 + 1;
        ms = left < ms ? (int)(left > 0 ? left : 0) : ms;
    }
    return ms;
}

/* A pause of ten times what it took, as in the worker (protocol 5.9). */
static bool measure(struct state *s, struct run_event *ev)
{
    uint64_t begin = clock_now_ns(), bytes = 0;
    struct err ignored = ERR_INIT;

    if (!clock_passed(s->measure_ns))
        return false;
    AUTO_CLOSE int dir = open(s->d->run->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool ok = dir >= 0 && tree_size(dir, NULL, &bytes, &ignored) == 0;
    uint64_t rest = (clock_now_ns() - begin) * 10;
    s->measure_ns = clock_in_ns(rest > NS_PER_S ? rest : NS_PER_S);
    ev->kind = EV_MEASURED;
    ev->number = (int64_t)bytes;
    return ok;
}

static void take_end(struct state *s, struct run_event *ev)
{
    const char *dir = s->d->env->runtime_dir, *uuid = s->d->run->bundle.uuid;

    free(s->d->own_output);
    s->d->own_output = ctr_shim_log(dir, uuid);
    ev->kind = EV_EXITED;
    ev->text = s->d->own_output;
    ev->record = &s->record;
    if (container_record(dir, uuid, &s->record, &s->error) < 0)
        *ev = (struct run_event){.kind = EV_VANISHED};
}

static void watch(struct state *s, struct run_event *ev)
{
    struct signalfd_siginfo info;

    for (;;) {
        struct pollfd p[] = {{.fd = ctr_shim_fd(s->shim), .events = POLLIN},
                             {.fd = s->d->signals, .events = POLLIN},
                             {.fd = s->beside_fd, .events = POLLIN}};

        if (poll(p, ARRAY_SIZE(p), pause_ms(s)) < 0 && errno != EINTR)
            p[0].revents = p[1].revents = p[2].revents = 0;
        if (p[0].revents) {
            take_end(s, ev);
            return;
        }
        if (read(s->d->signals, &info, sizeof(info)) == (ssize_t)sizeof(info) &&
            info.ssi_signo != SIGWINCH) {
            *ev = (struct run_event){.kind = EV_KILL, .text = "Kill requested"};
            return;
        }
        if ((p[2].revents && !is_left(s)) || (s->left && !has_terminal(s))) {
            *ev = (struct run_event){.kind = EV_KILL, .text = "The shell has ended"};
            return;
        }
        if (measure(s, ev))
            return;
        if ((ev->limits = passed_limits(s->d->run))) {
            ev->kind = EV_LIMITS;
            return;
        }
    }
}

static void clean(struct state *s, struct run_event *ev)
{
    struct container_end end = {.bytes = -1};

    if (container_remove(s->d->env, s->d->run, take_ptr(&s->shim), &end, &s->error) < 0)
        mem_replace(&s->d->note, s->error.msg);
    s->record = end.record;
    ev->kind = EV_CLEANED;
    ev->number = end.bytes;
    ev->record = end.has_record ? &s->record : NULL;
}

/* Do the one thing that will be answered by an event. False: the run is over. */
static bool act(struct state *s, unsigned wants, struct run_event *ev)
{
    *ev = (struct run_event){.kind = EV_INPUTS_READY};
    if (wants & WANT_INPUTS)
        return true; /* the caller has them */
    if (wants & WANT_PLACE)
        ev->kind = EV_PLACED;
    else if (wants & WANT_CREATE)
        create(s, ev);
    else if (wants & WANT_START)
        start(s, ev);
    else if (wants & WANT_CLEAN)
        clean(s, ev);
    else if (wants & WANT_UPLOAD)
        ev->kind = EV_UPLOADED; /* the results stay where they are */
    else if (s->d->run->stage == RUN_RUNNING)
        watch(s, ev);
    else
        return false;
    return true;
}

void cwrun_drive(struct drive *d)
{
    struct state s = {.d = d, .measure_ns = clock_in_ns(NS_PER_S / 5), .beside_fd = -1};
    struct run_event ev = {.kind = EV_ENTER};
    unsigned wants;

    d->beside_status = -1;
    do {
        ev.now = clock_epoch();
        wants = run_stage_step(d->run, &ev, false);
    } while (act(&s, wants, &ev));
    end_beside(&s);
}
