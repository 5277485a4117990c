/*
 * Requests become jobs; each sends exactly one reply to what asked for one, or the connection broke while it was being sent.
 */
#include "worker/reply.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/jobs.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/path.h"
#include "worker/reply_netcat.h"
#include "worker/reply_read.h"
#include "worker/service.h"

struct request {
    struct job job;
    struct replies *r;
    struct request *next, **back; /* in r->list, main thread */
    struct reply_request q;
    uid_t uid;
    gid_t gid;
    char *text, *host;
    int64_t port;
    int netns, code;
    bool began;
    struct request *after; /* a write that waits for this one */
};

struct replies {
    struct replies_opts o;
    struct request *list;
    struct request *last_write; /* writes go one after the other: the last one must win */
    size_t active;
};

struct replies *replies_new(const struct replies_opts *o)
{
    struct replies *r = mem_new(struct replies);

    r->o = *o;
    return r;
}

size_t replies_active(const struct replies *r)
{
    return r->active;
}

void replies_stop(struct replies *r)
{
    for (struct request *q = r->list; q; q = q->next)
        cancel_fire(q->job.cancel);
}

void replies_free(struct replies *r)
{
    BUG_ON(r && r->active);
    free(r);
}

static void next_write(struct request *q)
{
    if (q->after)
        lane_submit(q->r->o.lane, &q->after->job);
    else if (q->r->last_write == q)
        q->r->last_write = NULL;
}

static void done(struct job *job)
{
    struct request *q = (struct request *)job;

    next_write(q);
    *q->back = q->next;
    if (q->next)
        q->next->back = q->back;
    q->r->active--;
    cancel_unref(job->cancel);
    close_fd(&q->q.dirfd);
    close_fd(&q->netns);
    free(q->q.uuid);
    free(q->q.path);
    str_list_free(&q->q.dependencies);
    cJSON_Delete(q->q.args);
    free(q->text);
    free(q->host);
    free(q);
}

static struct request *new_request(struct replies *r, const char *uuid, int64_t socket_id,
                                   void (*run)(struct job *))
{
    struct request *q = mem_new(struct request);

    q->r = r;
    q->netns = -1;
    q->job = (struct job){.run = run, .done = done, .cancel = cancel_new()};
    q->q = (struct reply_request){.service = r->o.service,
                                  .cancel = q->job.cancel,
                                  .uuid = mem_strdup(uuid),
                                  .dirfd = -1,
                                  .socket_id = socket_id,
                                  .began = &q->began};
    q->next = r->list;
    q->back = &r->list;
    if (r->list)
        r->list->back = &q->next;
    r->list = q;
    r->active++;
    return q;
}

static void submit(struct request *q)
{
    lane_submit(q->r->o.lane, &q->job);
}

static void submit_write(struct request *q)
{
    struct request *before = q->r->last_write;

    q->r->last_write = q;
    if (before)
        before->after = q;
    else
        submit(q);
}

static void set_bundle(struct request *q, const struct reply_bundle *b)
{
    q->q.dirfd = fd_dup(b->dirfd);
    q->uid = b->uid;
    q->gid = b->gid;
    if (b->dependencies)
        str_list_copy(&q->q.dependencies, b->dependencies);
}

/* --- errors ------------------------------------------------------------------------------------------------------ */

static void send_error(struct request *q, int code, const char *text)
{
    AUTO(cJSON) cJSON *v = cJSON_CreateObject();
    AUTO_FREE char *plain = str_ascii(text, BOUND_STATUS_TEXT);
    struct err e = ERR_INIT;

    json_add_int(v, "error_code", code);
    json_add_str(v, "error_message", plain);
    AUTO_FREE char *json = json_text(v);

    if (service_reply(q->q.service, q->q.socket_id, json, q->job.cancel, &e) < 0)
        log_info("run=%s reply: %s", q->q.uuid ? q->q.uuid : "?", e.msg);
}

/* A refusal of ours carries its status; what went wrong while the answer was being sent is only logged. */
static void answer_failed(struct request *q, const struct err *e)
{
    if (q->began)
        log_info("run=%s reply: %s", q->q.uuid, e->msg);
    else
        send_error(q, e->sys < -399 && e->sys > -600 ? -e->sys : 500, e->msg);
}

static void run_error(struct job *job)
{
    struct request *q = (struct request *)job;

    send_error(q, q->code, q->text);
}

void reply_error(struct replies *r, int64_t socket_id, int code, const char *text)
{
    struct request *q = new_request(r, NULL, socket_id, run_error);

    q->code = code;
    q->text = mem_strdup(text);
    submit(q);
}

/* --- read -------------------------------------------------------------------------------------------------------- */

static int read_info(const struct reply_request *q, struct err *e)
{
    AUTO_FREE char *json = reply_target_info(q, e);

    if (!json)
        return -1;
    *q->began = true;
    return service_reply(q->service, q->socket_id, json, q->cancel, e);
}

static void run_read(struct job *job)
{
    static const struct {
        const char *type;
        int (*read)(const struct reply_request *q, struct err *e);
    } types[] = {
        {"get_target_info", read_info},     {"stream_directory", reply_stream_directory},
        {"stream_file", reply_stream_file}, {"read_file_section", reply_section},
        {"summarize_file", reply_summary},
    };
    struct request *q = (struct request *)job;
    const char *type = "";
    struct err e = ERR_INIT;
    char shown[STR_SHOW_MAX];

    if (json_opt_str(q->q.args, "type", 256, &type, &e) < 0)
        type = "";
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        if (!str_eq(types[i].type, type))
            continue;
        err_clear(&e);
        if (types[i].read(&q->q, &e) < 0)
            answer_failed(q, &e);
        return;
    }
    reply_refuse(&e, 400, "Unsupported read_type for read: %s", str_show(shown, type));
    answer_failed(q, &e);
}

/* As long as the user's download: these wait for each other at most, never anything else for them (B171). */
static bool may_be_long(const struct request *q)
{
    const char *type = "";
    uint64_t length = 0;
    struct err ignored = ERR_INIT;

    if (json_opt_str(q->q.args, "type", 256, &type, &ignored) < 0)
        return false;
    if (str_eq(type, "read_file_section"))
        return json_get_u64(q->q.args, "length", INT64_MAX, &length, &ignored) == 0 &&
               length > REPLY_AT_ONCE;
    return str_eq(type, "stream_file") || str_eq(type, "stream_directory");
}

void reply_read(struct replies *r, const struct reply_bundle *b, int64_t socket_id,
                const char *path, const cJSON *read_args)
{
    struct request *q = new_request(r, b->uuid, socket_id, run_read);

    set_bundle(q, b);
    q->q.path = mem_strdup(path);
    q->q.args = cJSON_IsObject(read_args) ? cJSON_Duplicate(read_args, true) : cJSON_CreateObject();
    lane_submit(may_be_long(q) ? r->o.stream_lane : r->o.lane, &q->job);
}

/* --- write ------------------------------------------------------------------------------------------------------- */

static int write_text(const struct request *q, struct err *e)
{
    AUTO_FREE char *name = NULL;
    AUTO_FREE char *path = path_normalize(q->q.path);
    struct stat st;

    if (!path || !*path)
        return err_set(e, ERR_USER, "not a path of a file in the bundle");
    for (size_t i = 0; i < q->q.dependencies.n; i++)
        if (str_eq(q->q.dependencies.items[i], path))
            return err_set(e, ERR_USER, "%s is a dependency", path);
    char *slash = strrchr(path, '/');
    AUTO_FREE char *above = slash ? mem_strndup(path, (size_t)(slash - path)) : mem_strdup(".");
    AUTO_CLOSE int dir = path_open_beneath_links(q->q.dirfd, above, O_PATH | O_DIRECTORY, 0, e);

    if (dir < 0)
        return -1;
    name = mem_strdup(slash ? slash + 1 : path);
    AUTO_CLOSE int fd = openat(
        dir, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0644);

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, "open");
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_USER, "not a regular file");
    if (ftruncate(fd, 0) < 0 || fchown(fd, q->uid, q->gid) < 0 ||
        fd_write_all(fd, q->text, strlen(q->text)) < 0)
        return err_sys(e, "write");
    return 0;
}

static void run_write(struct job *job)
{
    struct request *q = (struct request *)job;
    struct err e = ERR_INIT;
    char shown[STR_SHOW_MAX];

    if (write_text(q, &e) < 0)
        log_info("run=%s write to %s: %s", q->q.uuid, str_show(shown, q->q.path), e.msg);
}

void reply_write(struct replies *r, const struct reply_bundle *b, const char *subpath,
                 const char *text)
{
    struct request *q = new_request(r, b->uuid, -1, run_write);

    set_bundle(q, b);
    q->q.path = mem_strdup(subpath);
    q->text = mem_strdup(text);
    submit_write(q);
}

/* --- netcat ------------------------------------------------------------------------------------------------------ */

static void run_netcat(struct job *job)
{
    struct request *q = (struct request *)job;
    AUTO(str) struct str answer = STR_INIT(BOUND_NETCAT_REPLY);
    const struct netcat n = {q->netns, q->host, q->text, (uint16_t)q->port, job->cancel};
    struct err e = ERR_INIT;
    char text[160], name[64];

    if (netcat_ask(&n, &answer, &e) < 0) {
        /* As Python words it (B177). */
        snprintf(text, sizeof(text), "[Errno %d] %s", e.sys,
                 e.sys > 0 ? strerror_r(e.sys, name, sizeof(name)) : "");
        send_error(q, 500, e.sys > 0 ? text : e.msg);
        return;
    }
    if (service_reply_bytes(q->q.service, q->q.socket_id, str_text(&answer), answer.len,
                            job->cancel, &e) < 0)
        log_info("run=%s netcat: %s", q->q.uuid, e.msg);
}

void reply_netcat(struct replies *r, const char *uuid, int64_t socket_id, int netns_fd,
                  const char *host, int64_t port, const char *message)
{
    struct request *q = new_request(r, uuid, socket_id, run_netcat);

    q->netns = netns_fd >= 0 ? fd_dup(netns_fd) : -1;
    q->host = mem_strdup(host);
    q->port = port;
    q->text = mem_strdup(message);
    if (port < 1 || port > 65535) {
        q->job.run = run_error;
        q->code = 500;
        mem_replace(&q->text, "the port must be between 1 and 65535");
    }
    submit(q);
}
