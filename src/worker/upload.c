/*
 * One thread does it all in lockstep: curl asks for bytes, so the packer must run beside it. The packer runs on a thread of
 * its own for the length of an attempt and hands gzip'ed blocks over through a tube.
 */
#include "worker/upload.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/archive.h"
#include "base/clock.h"
#include "base/codec.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/jobs.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/tube.h"
#include "base/units.h"
#include "worker/service.h"

enum { TUBE_BYTES = 256 * 1024 };
#define GIVE_UP_NS (6 * 3600 * NS_PER_S + 1800 * NS_PER_S)
#define CAP        30 /* of the pause, in first pauses */

struct upload {
    struct job job;
    struct upload_opts o; /* strings and lists are ours */
    char *uuid, *store;
    struct str_list exclude, skip_top;
    int dirfd;
    struct err error; /* of the last attempt; ERR_NONE: stored */
    bool had_server_error;
    struct loop_watch *timer; /* main thread: progress */
    atomic_uint_fast64_t sent;
    uint64_t shown;
};

struct attempt {
    struct upload *u;
    struct tube *tube;
};

static int to_tube(void *arg, const void *data, size_t n, struct err *e)
{
    return tube_write(arg, data, n, e);
}

static long from_tube(void *arg, void *buf, size_t n, struct err *e)
{
    struct attempt *a = arg;
    long got = tube_read(a->tube, buf, n, e);

    if (got > 0)
        atomic_fetch_add(&a->u->sent, (uint64_t)got);
    return got;
}

static int feed_codec(void *arg, const void *data, size_t n, struct err *e)
{
    return codec_feed(arg, data, n, e);
}

static void *pack(void *arg)
{
    struct attempt *a = arg;
    AUTO(codec) struct codec *gzip = codec_gzip_encoder(1, to_tube, a->tube);
    const struct archive_pack o = {.exclude = &a->u->exclude, .skip_top = &a->u->skip_top};
    struct err e = ERR_INIT;

    int rc = archive_pack_tar(a->u->dirfd, &o, feed_codec, gzip, a->u->job.cancel, &e);

    if (rc == 0)
        rc = codec_finish(gzip, &e);
    tube_close(a->tube, rc < 0 ? &e : NULL);
    return NULL;
}

static int attempt(struct upload *u, struct err *e)
{
    AUTO(tube) struct tube *tube = tube_new(TUBE_BYTES);
    struct attempt a = {u, tube};
    pthread_t packer;
    int rc = pthread_create(&packer, NULL, pack, &a);

    if (rc)
        return err_sysno(e, rc, "start a thread");
    atomic_store(&u->sent, 0);
    rc = service_upload(u->o.service, u->uuid, u->store, from_tube, &a, u->job.cancel, e);
    tube_break(tube, NULL);
    pthread_join(packer, NULL);
    return rc;
}

/* A pause that a cancel ends. False: cancelled. */
static bool pause_for(struct upload *u, uint64_t ns)
{
    return fd_wait(cancel_fd(u->job.cancel), POLLIN, clock_in_ns(ns)) == 0;
}

static void run(struct job *job)
{
    struct upload *u = (struct upload *)job;
    uint64_t first = u->o.backoff_ns ? u->o.backoff_ns : NS_PER_S;
    struct backoff b = BACKOFF_INIT(first, CAP * first);
    uint64_t deadline = clock_in_ns(u->o.give_up_ns ? u->o.give_up_ns : GIVE_UP_NS);
    const struct cancel *cancel = job->cancel;

    for (;;) {
        struct err e = ERR_INIT;

        if (attempt(u, &e) == 0) {
            u->error.kind = ERR_NONE;
            return;
        }
        u->error = e;
        if (service_http_status(&e) >= 500)
            u->had_server_error = true;
        bool again = service_is_transient(&e) && !clock_passed(deadline) && !cancel_fired(cancel);

        if (again && pause_for(u, backoff_next(&b)))
            continue;
        if (cancel_fired(cancel)) /* also in the pause: nothing is wrong with the results */
            err_set(&u->error, ERR_CANCELLED, "cancelled");
        return;
    }
}

static void done(struct job *job)
{
    struct upload *u = (struct upload *)job;

    if (!job->ran)
        err_set(&u->error, ERR_CANCELLED, "cancelled");
    loop_watch_free(u->timer);
    u->o.done(u->o.arg, u->error.kind == ERR_NONE ? NULL : &u->error, u->had_server_error);
    cancel_unref(job->cancel);
    close_fd(&u->dirfd);
    str_list_free(&u->exclude);
    str_list_free(&u->skip_top);
    free(u->uuid);
    free(u->store);
    free(u);
}

char *upload_status_text(uint64_t bytes)
{
    char size[UNITS_TEXT_MAX];

    return mem_printf("Uploading results: %s uploaded (archived size).",
                      units_size_str(size, (double)bytes, true));
}

static void show_progress(void *arg)
{
    struct upload *u = arg;
    uint64_t sent = atomic_load(&u->sent);

    if (sent != u->shown && u->o.progress) {
        AUTO_FREE char *text = upload_status_text(sent);

        u->shown = sent;
        u->o.progress(u->o.arg, text);
    }
    loop_arm(u->timer, NS_PER_S);
}

struct upload *upload_start(const struct upload_opts *o)
{
    struct upload *u = mem_new(struct upload);

    u->o = *o;
    u->uuid = mem_strdup(o->uuid);
    u->store = mem_strdup(o->store);
    if (o->exclude)
        str_list_copy(&u->exclude, o->exclude);
    if (o->skip_top)
        str_list_copy(&u->skip_top, o->skip_top);
    u->dirfd = fd_dup(o->dirfd);
    u->job = (struct job){.run = run, .done = done, .cancel = cancel_new()};
    u->timer = loop_add_timer(o->loop, show_progress, u);
    loop_arm(u->timer, NS_PER_S);
    lane_submit(o->lane, &u->job);
    return u;
}

void upload_cancel(struct upload *u)
{
    cancel_fire(u->job.cancel);
}
