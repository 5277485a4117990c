/*
 * A connection is one request and one answer, as a small state: reading ─► writing ─► closed. Each has its own watch,
 * timer and buffers, so that one that stalls holds up nobody and is cut off in the end.
 */
#include "worker/local_api.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/str.h"
#include "runtime/shim.h"
#include "worker/protocol.h"

#define SOCKET_NAME "control.sock"
#define CLIENT_NS   (10 * NS_PER_S) /* to send a line, and again to take the answer */

struct client {
    struct local_api *api;
    struct client *next;
    int fd;
    struct loop_watch *watch, *timer;
    struct str in;
    char *out; /* NULL while reading */
    size_t out_n, sent;
};

struct local_api {
    struct loop *loop;
    struct local_api_hooks hooks;
    int dir, fd;
    struct loop_watch *watch;
    struct client *clients;
    size_t n_clients;
};

/* A path by descriptor: short enough for sun_path whatever the directory is called. */
static struct sockaddr_un address(int dir)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/" SOCKET_NAME, dir);
    return a;
}

/* ---- requests ---- */

static int do_runs(struct local_api *a, const cJSON *request, const char *uuid, cJSON **ret,
                   struct err *e)
{
    bool stats = false;

    if (json_opt_bool(request, "stats", &stats, e) < 0)
        return -1;
    *ret = a->hooks.runs(a->hooks.arg, uuid, stats);
    return 0;
}

static int do_kill(struct local_api *a, const cJSON *request, const char *uuid, cJSON **ret,
                   struct err *e)
{
    const char *message = "Kill requested";

    if (!uuid)
        return err_set(e, ERR_USER, "\"uuid\" is missing");
    if (json_opt_str(request, "message", BOUND_STATUS_TEXT, &message, e) < 0 ||
        a->hooks.kill(a->hooks.arg, uuid, message, e) < 0)
        return -1;
    *ret = cJSON_CreateTrue();
    return 0;
}

static int do_worker(struct local_api *a, const cJSON *request, const char *uuid, cJSON **ret,
                     struct err *e)
{
    (void)request, (void)uuid, (void)e;
    *ret = a->hooks.worker(a->hooks.arg);
    return 0;
}

static const struct {
    const char *name;
    int (*run)(struct local_api *a, const cJSON *request, const char *uuid, cJSON **ret,
               struct err *e);
} methods[] = {{"runs", do_runs}, {"kill", do_kill}, {"worker", do_worker}};

static int dispatch(struct local_api *a, const char *line, size_t n, cJSON **ret, struct err *e)
{
    AUTO(cJSON) cJSON *request = NULL;
    const char *method = NULL, *uuid = NULL;

    if (json_parse(line, n, &request, e) < 0)
        return -1;
    if (!cJSON_IsObject(request))
        return err_set(e, ERR_USER, "a request is a JSON object");
    if (json_get_str(request, "method", 32, &method, e) < 0 ||
        json_opt_str(request, "uuid", 64, &uuid, e) < 0)
        return -1;
    if (uuid && !protocol_is_uuid(uuid))
        return err_set(e, ERR_USER, "uuid: 0x and 32 hexadecimal digits are wanted");
    for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
        if (str_eq(methods[i].name, method))
            return methods[i].run(a, request, uuid, ret, e);
    return err_set(e, ERR_USER, "there is no such method");
}

/* ---- connections ---- */

static void drop(struct client *c)
{
    struct client **at = &c->api->clients;

    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    c->api->n_clients--;
    loop_watch_free(c->watch);
    loop_watch_free(c->timer);
    str_free(&c->in);
    free(c->out);
    close_fd(&c->fd);
    free(c);
}

static void on_slow(void *arg)
{
    log_debug("local socket: a client is too slow");
    drop(arg);
}

static void on_writable(void *arg, int fd, int events)
{
    struct client *c = arg;
    ssize_t n = send(fd, c->out + c->sent, c->out_n - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);

    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        c->sent += (size_t)n;
    if (n < 0 || c->sent == c->out_n)
        drop(c);
}

static void answer(struct client *c, cJSON *result, const struct err *e)
{
    AUTO(cJSON) cJSON *o = cJSON_CreateObject();

    if (result) {
        json_add_item(o, "result", result);
    } else {
        json_add_str(o, "error", e->msg);
        json_add_str(o, "kind", err_kind_name(e->kind));
    }
    AUTO_FREE char *text = json_text(o);
    c->out = mem_printf("%s\n", text);
    c->out_n = strlen(c->out);
    loop_watch_free(c->watch);
    loop_arm(c->timer, CLIENT_NS);
    c->watch = loop_add_fd(c->api->loop, c->fd, LOOP_WRITE, on_writable, c);
}

static void refuse(struct client *c, enum err_kind kind, const char *text)
{
    struct err e = ERR_INIT;

    err_set(&e, kind, "%s", text);
    answer(c, NULL, &e);
}

static void take_line(struct client *c, size_t n)
{
    struct err e = ERR_INIT;
    cJSON *result = NULL;

    if (dispatch(c->api, str_text(&c->in), n, &result, &e) < 0)
        result = NULL;
    answer(c, result, &e);
}

static void on_readable(void *arg, int fd, int events)
{
    struct client *c = arg;
    char buf[4096];
    ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        drop(c);
        return;
    }
    const char *end = memchr(buf, '\n', (size_t)n);
    if (str_append(&c->in, buf, end ? (size_t)(end - buf) : (size_t)n) < 0)
        refuse(c, ERR_LIMIT, "the request is too long");
    else if (end)
        take_line(c, c->in.len);
}

/* Root, or who the worker itself is; the mode of the socket and its directory say the same (S60). */
static bool is_allowed(int fd)
{
    struct ucred peer = {0};
    socklen_t n = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 &&
           (peer.uid == 0 || peer.uid == geteuid());
}

static void on_connection(void *arg, int fd, int events)
{
    struct local_api *a = arg;
    AUTO_CLOSE int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    if (peer < 0 || a->n_clients >= BOUND_LOCAL_CLIENTS || !is_allowed(peer))
        return;
    struct client *c = mem_new(struct client);
    c->api = a;
    c->fd = take_fd(&peer);
    c->in = STR_INIT(BOUND_LOCAL_REQUEST);
    c->next = a->clients;
    a->clients = c;
    a->n_clients++;
    c->watch = loop_add_fd(a->loop, c->fd, LOOP_READ, on_readable, c);
    c->timer = loop_add_timer(a->loop, on_slow, c);
    loop_arm(c->timer, CLIENT_NS);
}

/* ---- the socket ---- */

static int take_name(struct local_api *a, const char *dir, struct err *e)
{
    const struct sockaddr_un at = address(a->dir);
    AUTO_CLOSE int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    /* EAGAIN: somebody listens, and is only busy. */
    if (probe >= 0 &&
        (connect(probe, (const struct sockaddr *)&at, sizeof(at)) == 0 || errno == EAGAIN))
        return err_set(e, ERR_LIMIT, "another worker answers at %s/" SOCKET_NAME, dir);
    if (unlinkat(a->dir, SOCKET_NAME, 0) < 0 && errno != ENOENT)
        return err_sys(e, "remove %s/" SOCKET_NAME, dir);
    if (bind(a->fd, (const struct sockaddr *)&at, sizeof(at)) < 0 ||
        fchmodat(a->dir, SOCKET_NAME, 0600, 0) < 0 || listen(a->fd, BOUND_LOCAL_CLIENTS) < 0)
        return err_sys(e, "listen at %s/" SOCKET_NAME, dir);
    return 0;
}

int local_api_open(struct loop *l, const char *runtime_dir, const struct local_api_hooks *hooks,
                   struct local_api **ret, struct err *e)
{
    struct local_api *a = mem_new(struct local_api);

    a->loop = l;
    a->hooks = *hooks;
    a->dir = open(runtime_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    a->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc =
        a->dir < 0 || a->fd < 0 ? err_sys(e, "open %s", runtime_dir) : take_name(a, runtime_dir, e);
    if (rc < 0) {
        close_fd(&a->fd);
        close_fd(&a->dir);
        free(a);
        return -1;
    }
    a->watch = loop_add_fd(l, a->fd, LOOP_READ, on_connection, a);
    *ret = a;
    return 0;
}

void local_api_close(struct local_api *a)
{
    if (!a)
        return;
    while (a->clients)
        drop(a->clients);
    loop_watch_free(a->watch);
    unlinkat(a->dir, SOCKET_NAME, 0);
    close_fd(&a->fd);
    close_fd(&a->dir);
    free(a);
}

/* ---- the other end ---- */

static int exchange(int fd, const char *line, uint64_t deadline, struct str *ret, struct err *e)
{
    char buf[16384];

    if (fd_write_all(fd, line, strlen(line)) < 0) {
        if (errno == EPIPE || errno == ECONNRESET)
            return err_set(e, ERR_HOST, "the worker closed the connection");
        return err_sys(e, "ask the worker");
    }
    for (;;) {
        if (fd_wait(fd, POLLIN, deadline) != 1)
            return err_set(e, ERR_HOST, "the worker does not answer");
        ssize_t n = recv(fd, buf, sizeof(buf), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set(e, ERR_HOST,
                           "the worker closed the connection: not root, or too many clients");
        if (str_append(ret, buf, (size_t)n) < 0)
            return err_set(e, ERR_LIMIT, "the worker's answer is too long");
        if (buf[n - 1] == '\n')
            return 0;
    }
}

static enum err_kind kind_of(const char *name)
{
    for (enum err_kind k = ERR_NONE; k <= ERR_BUG; k++)
        if (str_eq(err_kind_name(k), name))
            return k;
    return ERR_BUG;
}

static int take_answer(const cJSON *v, cJSON **ret, struct err *e)
{
    const char *text = NULL, *kind = "bug";
    cJSON *result = cJSON_GetObjectItemCaseSensitive(v, "result");

    if (result) {
        *ret = cJSON_Duplicate(result, true);
        return 0;
    }
    if (json_get_str(v, "error", BOUND_KIB, &text, e) < 0 ||
        json_opt_str(v, "kind", 32, &kind, e) < 0)
        return -1;
    return err_set(e, kind_of(kind), "%s", text);
}

int local_api_call(const char *runtime_dir, const cJSON *request, uint64_t timeout_ns, cJSON **ret,
                   struct err *e)
{
    AUTO_CLOSE int dir = open(runtime_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    AUTO(str) struct str text = STR_INIT(BOUND_LOCAL_ANSWER);
    AUTO_FREE char *body = json_text(request);
    AUTO_FREE char *line = mem_printf("%s\n", body);
    AUTO(cJSON) cJSON *v = NULL;

    if (dir < 0 || fd < 0)
        return err_sys(e, "no worker runs: open %s", runtime_dir);
    const struct sockaddr_un at = address(dir);
    if (connect(fd, (const struct sockaddr *)&at, sizeof(at)) < 0) {
        err_sys(e, "no worker answers at %s/" SOCKET_NAME, runtime_dir);
        e->kind = e->sys == ENOENT || e->sys == ECONNREFUSED ? ERR_ABSENT : e->kind;
        return -1;
    }
    if (exchange(fd, line, clock_in_ns(timeout_ns), &text, e) < 0 ||
        json_parse(str_text(&text), text.len, &v, e) < 0)
        return -1;
    return take_answer(v, ret, e);
}

void local_api_add_figures(cJSON *o, const struct ctr_stats *s)
{
    json_add_int(o, "memory", (int64_t)s->memory_current);
    json_add_int(o, "memory_peak", (int64_t)s->memory_peak);
    json_add_int(o, "pids", (int64_t)s->pids_current);
    json_add_int(o, "oom_kills", (int64_t)s->oom_kills);
    json_add_int(o, "io_read", (int64_t)s->io_read_bytes);
    json_add_int(o, "io_written", (int64_t)s->io_write_bytes);
    json_add_double(o, "cpu_seconds", (double)s->cpu_usage_us / 1e6);
    json_add_double(o, "throttled_seconds", (double)s->cpu_throttled_us / 1e6);
    json_add_double(o, "cpu_stall", (double)s->cpu_stall_us / 1e6);
    json_add_double(o, "memory_stall", (double)s->memory_stall_us / 1e6);
    json_add_double(o, "io_stall", (double)s->io_stall_us / 1e6);
}
