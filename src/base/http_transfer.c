/*
 * One hop: an easy handle set up from the request, driven by a loop of our own. The loop exists for the
 * clocks: libcurl's low-speed option neither sees a cancel token nor tells waiting for an answer from
 * waiting for the wire.
 */
#include "base/http_transfer.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/bounds.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/jobs.h"
#include "base/mem.h"

#define DEFAULT_CONNECT (30 * NS_PER_S)
#define DEFAULT_STALL   (60 * NS_PER_S)
#define DEFAULT_DEAD_PEER \
    (45 * NS_PER_S) /* below the minute after which a bundle service gives a worker up */
#define RATE_WINDOW (60 * NS_PER_S)
#define POLL_MS     1000

static void free_slist(struct curl_slist **l)
{
    curl_slist_free_all(*l);
}
#define AUTO_SLIST __attribute__((cleanup(free_slist)))

static long from_source(struct transfer *t, char *buf, size_t n)
{
    const struct http_request *r = t->r;
    long got = r->source(r->source_arg, buf, n, t->e);

    t->progress_ns = clock_now_ns(); /* a slow source is not a silent server */
    if (got < 0)
        t->failed = true;
    return got;
}

/*
 * An answer that arrives while the source was busy must be read before more is sent: a server that has
 * refused resets the connection, and the answer would be lost (D07).
 */
static bool answer_waits(const struct transfer *t)
{
    struct pollfd p = {.fd = t->sock, .events = POLLIN};

    return t->sock != CURL_SOCKET_BAD && poll(&p, 1, 0) > 0;
}

static size_t give_held(struct transfer *t, char *buf, size_t n)
{
    size_t left = t->held_n - t->held_at;

    if (n > left)
        n = left;
    memcpy(buf, t->held + t->held_at, n);
    t->held_at += n;
    return n;
}

static size_t read_source(struct transfer *t, char *buf, size_t n)
{
    if (t->held_at < t->held_n)
        return give_held(t, buf, n);
    if (t->held_size < n) {
        t->held = mem_realloc(t->held, n, 1);
        t->held_size = n;
    }

    long got = from_source(t, t->held, n);

    if (got < 0)
        return CURL_READFUNC_ABORT;
    if (got == 0)
        t->body_sent = true;
    t->held_n = (size_t)got;
    t->held_at = 0;
    if (got && !t->checked_early && answer_waits(t)) {
        t->checked_early = true; /* once a piece: what waits may be no HTTP answer (a TLS ticket) */
        return CURL_READFUNC_PAUSE;
    }
    return give_held(t, buf, n);
}

static size_t give_body(char *buf, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    const struct http_request *r = t->r;

    n *= size;
    if (r->source)
        return read_source(t, buf, n);
    if (n > r->body_n - t->body_at)
        n = r->body_n - t->body_at;
    memcpy(buf, (const char *)r->body + t->body_at, n);
    t->body_at += n;
    t->body_sent = t->body_at == r->body_n;
    return n;
}

/* A reused connection turned out dead before anything was answered: begin again. */
static int seek_body(void *arg, curl_off_t offset, int origin)
{
    struct transfer *t = arg;

    if (t->r->source || origin != SEEK_SET || offset < 0 || (size_t)offset > t->r->body_n)
        return CURL_SEEKFUNC_FAIL;
    t->body_at = (size_t)offset;
    t->body_sent = false;
    return CURL_SEEKFUNC_OK;
}

/* A server may take minutes for its answer; a network that swallows everything is found out sooner. */
static void set_patience(int fd, uint64_t ns)
{
    unsigned ms = (unsigned)(ns / NS_PER_MS);

    /* refused for what is no TCP socket, which needs none */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

/* Checked on the address really dialled, after resolution (S15). */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
    struct transfer *t = arg;

    if (purpose != CURLSOCKTYPE_IPCXN)
        return CURL_SOCKET_BAD;
    if (t->r->forbid_special_addresses && http_address_is_special(&a->addr)) {
        AUTO_FREE char *origin = http_origin(t->url);

        err_set(t->e, ERR_REMOTE,
                "%s: its address is local or special-purpose; it is refused unless "
                "the operator names this host",
                origin);
        t->failed = true;
        return CURL_SOCKET_BAD;
    }

    int fd = socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);

    set_patience(fd, t->r->dead_peer_ns ? t->r->dead_peer_ns : DEFAULT_DEAD_PEER);
    t->opened[t->n_opened++ % ARRAY_SIZE(t->opened)] = fd;
    return fd;
}

/* Which of the sockets opened (IPv6 and IPv4 race each other) has become the connection. */
static curl_socket_t winner(const struct transfer *t, int local_port)
{
    for (size_t i = 0; i < ARRAY_SIZE(t->opened) && i < t->n_opened; i++) {
        struct sockaddr_storage a = {0};
        socklen_t n = sizeof(a);

        if (getsockname(t->opened[i], (struct sockaddr *)&a, &n) < 0)
            continue;
        if (a.ss_family == AF_INET && ntohs(((struct sockaddr_in *)&a)->sin_port) == local_port)
            return t->opened[i];
        if (a.ss_family == AF_INET6 && ntohs(((struct sockaddr_in6 *)&a)->sin6_port) == local_port)
            return t->opened[i];
    }
    return CURL_SOCKET_BAD;
}

/* The connection, its TLS included, is there, and the request about to be sent. */
static int connection_made(void *arg, char *primary_ip, char *local_ip, int primary_port,
                           int local_port)
{
    struct transfer *t = arg;

    (void)primary_ip, (void)local_ip, (void)primary_port;
    t->connected = true;
    t->sock = winner(t, local_port);
    http_salvage_keep(t);
    t->progress_ns = clock_now_ns();
    return CURL_PREREQFUNC_OK;
}

#define SET(option, value) BUG_ON(curl_easy_setopt(t->slot->easy, option, value) != CURLE_OK)

static int set_url(struct transfer *t)
{
    CURL *easy = t->slot->easy;

    if (strlen(t->url) > BOUND_URL)
        return err_set(t->e, ERR_LIMIT, "URL of more than %d bytes", (int)BOUND_URL);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_PATH_AS_IS, 1L); /* ".." in a path is the caller's affair, not to be folded away */
    if (curl_easy_setopt(easy, CURLOPT_URL, t->url) != CURLE_OK)
        return err_set(t->e, ERR_USER, "URL cannot be used");
    return 0;
}

static void set_clocks(struct transfer *t)
{
    uint64_t connect = t->r->connect_timeout_ns ? t->r->connect_timeout_ns : DEFAULT_CONNECT;

    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_QUICK_EXIT, 1L); /* a cancel does not wait for a resolver thread */
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)(connect / NS_PER_MS ? connect / NS_PER_MS : 1));
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_TCP_KEEPIDLE, t->r->keepalive_idle ? 15L : 60L);
    SET(CURLOPT_TCP_KEEPINTVL, 15L);
    SET(CURLOPT_HTTP_VERSION,
        t->r->http2 ? (long)CURL_HTTP_VERSION_2TLS : (long)CURL_HTTP_VERSION_1_1);
    /* Refused while a transfer that failed before it was connected (a name nobody knows) has left its buffer: that one
     * is as large already. */
    curl_easy_setopt(t->slot->easy, CURLOPT_BUFFERSIZE, 131072L);
    SET(CURLOPT_UPLOAD_BUFFERSIZE, 131072L);
}

static void set_credentials(struct transfer *t)
{
    const struct http_request *r = t->r;

    if (!t->with_credentials)
        return;
    if (r->bearer) {
        SET(CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        SET(CURLOPT_XOAUTH2_BEARER, r->bearer);
    } else if (r->basic_user) {
        SET(CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
        SET(CURLOPT_USERNAME, r->basic_user);
        SET(CURLOPT_PASSWORD, r->basic_password ? r->basic_password : "");
    }
}

static void set_body(struct transfer *t)
{
    const struct http_request *r = t->r;
    bool has_body = r->source || r->body || strcmp(r->method, "PUT") == 0 ||
                    strcmp(r->method, "POST") == 0 || strcmp(r->method, "PATCH") == 0;

    if (strcmp(r->method, "HEAD") == 0) {
        SET(CURLOPT_NOBODY, 1L);
    } else if (has_body) {
        SET(CURLOPT_UPLOAD, 1L);
        SET(CURLOPT_CUSTOMREQUEST, r->method);
        SET(CURLOPT_READFUNCTION, give_body);
        SET(CURLOPT_READDATA, t);
        SET(CURLOPT_SEEKFUNCTION, seek_body);
        SET(CURLOPT_SEEKDATA, t);
        SET(CURLOPT_INFILESIZE_LARGE,
            (curl_off_t)(r->source ? r->source_size : (int64_t)r->body_n));
        if (r->source)
            SET(CURLOPT_FRESH_CONNECT, 1L); /* a source cannot begin again */
        t->body_sent = !r->source && r->body_n == 0;
    } else {
        SET(CURLOPT_CUSTOMREQUEST, r->method);
        t->body_sent = true;
    }
}

static void set_callbacks(struct transfer *t)
{
    SET(CURLOPT_ERRORBUFFER, t->errbuf);
    SET(CURLOPT_HEADERFUNCTION, http_answer_header);
    SET(CURLOPT_HEADERDATA, t);
    SET(CURLOPT_WRITEFUNCTION, http_answer_body);
    SET(CURLOPT_WRITEDATA, t);
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
    SET(CURLOPT_OPENSOCKETDATA, t);
    SET(CURLOPT_PREREQFUNCTION, connection_made);
    SET(CURLOPT_PREREQDATA, t);
    SET(CURLOPT_USERAGENT, t->agent);
    SET(CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE); /* nothing of ours to a proxy's CONNECT */
    if (t->r->accept_gzip_json)
        SET(CURLOPT_ACCEPT_ENCODING, "gzip");
}

/* Headers that are credentials by another name go the same way as these (S16). */
static bool is_secret_header(const char *h)
{
    return strncasecmp(h, "authorization:", 14) == 0 || strncasecmp(h, "cookie:", 7) == 0 ||
           strncasecmp(h, "proxy-authorization:", 20) == 0;
}

static int set_headers(struct transfer *t, struct curl_slist **list)
{
    const struct http_request *r = t->r;

    *list = curl_slist_append(NULL, "Expect:"); /* no 100-continue (2.6) */
    BUG_ON(!*list);
    for (size_t i = 0; r->headers && i < r->headers->n; i++) {
        const char *h = r->headers->items[i];

        if (strpbrk(h, "\r\n")) /* S16: values from outside cannot inject lines */
            return err_set(t->e, ERR_USER, "line break in an HTTP header");
        if (is_secret_header(h) && !t->with_credentials)
            continue;
        BUG_ON(!curl_slist_append(*list, h));
    }
    if (r->bearer && strpbrk(r->bearer, "\r\n"))
        return err_set(t->e, ERR_USER, "line break in a bearer token");
    SET(CURLOPT_HTTPHEADER, *list);
    return 0;
}

/* Errors: what libcurl says is partly the server's words, so it is escaped (S07). */
static int curl_failed(struct transfer *t, CURLcode rc)
{
    char text[sizeof(t->e->msg) / 2];
    const char *why = t->errbuf[0] ? t->errbuf : curl_easy_strerror(rc);
    AUTO_FREE char *origin = http_origin(t->url);

    if (rc == CURLE_WRITE_ERROR)
        return err_set(t->e, ERR_LIMIT, "%s: the answer is larger than allowed", origin);
    return err_set(t->e, ERR_REMOTE, "%s: %s", origin,
                   str_escape(text, sizeof(text), why, strlen(why)));
}

static int check_rate(struct transfer *t, uint64_t now, const char *origin)
{
    uint64_t window = t->r->rate_window_ns ? t->r->rate_window_ns : RATE_WINDOW;

    if (!t->r->min_rate || now - t->window_ns < window)
        return 0;

    uint64_t rate = (t->moved - t->window_moved) * NS_PER_S / (now - t->window_ns);

    t->window_ns = now;
    t->window_moved = t->moved;
    if (rate >= t->r->min_rate)
        return 0;
    return err_set(t->e, ERR_REMOTE, "%s: too slow: %llu bytes a second over %llu s", origin,
                   (unsigned long long)rate, (unsigned long long)(window / NS_PER_S));
}

static void note_progress(struct transfer *t, uint64_t now)
{
    curl_off_t up = 0, down = 0;

    curl_easy_getinfo(t->slot->easy, CURLINFO_SIZE_UPLOAD_T, &up);
    curl_easy_getinfo(t->slot->easy, CURLINFO_SIZE_DOWNLOAD_T, &down);

    uint64_t moved = (uint64_t)up + (uint64_t)down;

    if (moved + t->head_bytes > t->moved) {
        t->moved = moved + t->head_bytes;
        t->progress_ns = now;
    }
}

/* Silence allowed now; 0 while connecting, which has a clock of its own. */
static uint64_t silence_allowed(const struct transfer *t)
{
    const struct http_request *r = t->r;

    if (!t->connected)
        return 0;
    if (t->body_sent && !t->head_bytes && r->answer_timeout_ns)
        return r->answer_timeout_ns;
    return r->stall_timeout_ns ? r->stall_timeout_ns : DEFAULT_STALL;
}

static int check_clocks(struct transfer *t, uint64_t deadline, int *wait_ms)
{
    uint64_t now = clock_now_ns();
    uint64_t allowed = silence_allowed(t);
    AUTO_FREE char *origin = http_origin(t->url);

    note_progress(t, now);
    if (cancel_fired(t->r->cancel))
        return err_set(t->e, ERR_CANCELLED, "cancelled");
    if (deadline && clock_passed(deadline))
        return err_set(t->e, ERR_REMOTE, "%s: not done within %llu s", origin,
                       (unsigned long long)(t->r->total_timeout_ns / NS_PER_S));
    if (allowed && now - t->progress_ns >= allowed)
        return err_set(t->e, ERR_REMOTE, "%s: timed out: silent for %llu s", origin,
                       (unsigned long long)(allowed / NS_PER_S));

    *wait_ms = POLL_MS;
    if (allowed && clock_left_ms(t->progress_ns + allowed) < *wait_ms)
        *wait_ms = clock_left_ms(t->progress_ns + allowed);
    if (deadline && clock_left_ms(deadline) < *wait_ms)
        *wait_ms = clock_left_ms(deadline);
    return check_rate(t, now, origin);
}

/* Result of the transfer once it is done: 1, and *rc. */
static int is_done(struct transfer *t, CURLcode *rc)
{
    CURLMsg *m;
    int left;

    while ((m = curl_multi_info_read(t->slot->multi, &left))) {
        if (m->msg == CURLMSG_DONE) {
            *rc = m->data.result;
            return 1;
        }
    }
    return 0;
}

/* What follows is not wanted, or was cut off by a server that refused early: the answer itself is here. */
static bool is_whole_enough(const struct transfer *t)
{
    return t->head_done && (t->enough || (t->ret->answered_early && t->ret->status >= 400));
}

static int drive(struct transfer *t, uint64_t deadline)
{
    CURLM *multi = t->slot->multi;
    struct curl_waitfd extra = {.fd = cancel_fd(t->r->cancel), .events = CURL_WAIT_POLLIN};
    CURLcode rc = CURLE_OK;
    int running, wait_ms = POLL_MS;

    for (;;) {
        CURLMcode m = curl_multi_perform(multi, &running);

        if (m != CURLM_OK)
            return err_set(t->e, ERR_HOST, "libcurl: %s", curl_multi_strerror(m));
        if (is_done(t, &rc))
            break;
        if (t->checked_early) { /* the answer, if it was one, has been read */
            t->checked_early = false;
            curl_easy_pause(t->slot->easy, CURLPAUSE_CONT);
            continue;
        }
        if (check_clocks(t, deadline, &wait_ms) < 0)
            return -1;
        curl_multi_poll(multi, &extra, extra.fd >= 0 ? 1 : 0, wait_ms, NULL);
    }
    if (t->failed)
        return -1;
    if (rc == CURLE_SEND_ERROR && is_whole_enough(t))
        http_salvage_text(t);
    if (rc == CURLE_OK || is_whole_enough(t))
        return 0;
    if (rc == CURLE_SEND_ERROR && http_salvage_answer(t))
        return 0;
    return t->failed ? -1 : curl_failed(t, rc);
}

int http_transfer_run(struct transfer *t)
{
    AUTO_SLIST struct curl_slist *headers = NULL;
    AUTO_FREE char *proxy = t->r->proxy ? mem_strdup(t->r->proxy) : http_proxy_for(t->url);
    uint64_t total = t->r->total_timeout_ns;
    uint64_t deadline = total ? clock_in_ns(total) : 0;
    int rc;

    t->sock = CURL_SOCKET_BAD;
    t->kept = -1;
    t->progress_ns = t->window_ns = clock_now_ns();
    if (proxy[0] && t->r->forbid_special_addresses) {
        /* The address dialled is the proxy's, which the operator chose. */
        t->own = *t->r;
        t->own.forbid_special_addresses = false;
        t->r = &t->own;
    }
    if (cancel_fired(t->r->cancel))
        return err_set(t->e, ERR_CANCELLED, "cancelled");
    if (set_url(t) < 0 || http_tls_apply(t) < 0 || set_headers(t, &headers) < 0)
        return -1;
    SET(CURLOPT_PROXY, proxy);
    SET(CURLOPT_NOPROXY, "");
    set_clocks(t);
    set_credentials(t);
    set_body(t);
    set_callbacks(t);

    BUG_ON(curl_multi_add_handle(t->slot->multi, t->slot->easy) != CURLM_OK);
    rc = drive(t, deadline);
    curl_multi_remove_handle(t->slot->multi, t->slot->easy);
    curl_easy_reset(t->slot->easy); /* before the header list it points to is freed */
    free(t->held);
    t->held = NULL;
    close_fd(&t->kept);
    return rc;
}
