#include "oci/registry.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/http.h"
#include "base/jobs.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"
#include "oci/auth.h"
#include "oci/manifest.h"
#include "oci/ref.h"
#include "oci/registries.h"

enum {
    ATTEMPTS = 6, /* of one request at one place */
    CONNECT_ATTEMPTS =
        2, /* of them, when nothing answers at all: that is rarely a matter of seconds */
    IDLE_ATTEMPTS = 5, /* of a blob, in a row without a single byte */
    CHALLENGES = 2,
};
#define RETRY_FIRST_NS      (500 * NS_PER_MS)
#define RETRY_CAP_NS        (20 * NS_PER_S)
#define RETRY_AFTER_CAP_S   60
#define MIN_RATE            1024 /* bytes a second over a minute (S18) */
#define DOCUMENT_TIMEOUT_NS (120 * NS_PER_S)

struct oci_session {
    const struct oci_ref *ref;
    const struct oci_registries *registries;
    struct http_client *http;
    struct cancel *cancel;
    struct oci_auth *auth;
    struct str_list bases; /* "https://host"; mirrors first */
    pthread_mutex_t lock;  /* guards preferred */
    size_t preferred;      /* the place that answered last */
};

struct oci_session *oci_session_new(const struct oci_ref *ref, const struct oci_registries *r,
                                    struct http_client *http, struct cancel *c)
{
    struct oci_session *s = mem_new(struct oci_session);

    s->ref = ref;
    s->registries = r;
    s->http = http;
    s->cancel = c;
    s->auth = oci_auth_new(r, http, c);
    oci_registries_bases(r, ref->registry, &s->bases);
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

void oci_session_free(struct oci_session *s)
{
    if (!s)
        return;
    oci_auth_free(s->auth);
    str_list_free(&s->bases);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

void oci_session_stop_with(struct oci_session *s, struct cancel *c)
{
    s->cancel = c;
    oci_auth_stop_with(s->auth, c);
}

static size_t preferred(struct oci_session *s)
{
    pthread_mutex_lock(&s->lock);
    size_t i = s->preferred;

    pthread_mutex_unlock(&s->lock);
    return i;
}

static void prefer(struct oci_session *s, size_t i)
{
    pthread_mutex_lock(&s->lock);
    s->preferred = i;
    pthread_mutex_unlock(&s->lock);
}

/* One GET of the session: what is asked, and what was answered. */
struct get {
    const char *path;   /* "/manifests/latest" */
    const char *accept; /* a whole header line, or NULL */
    uint64_t max_body;
    uint64_t offset;     /* > 0: asks for the range from here on */
    uint64_t size;       /* of the whole, for ranges */
    oci_blob_sink *sink; /* NULL: collected */
    void *sink_arg;
    uint64_t timeout_ns;
    bool answered;    /* the server said something */
    bool sink_failed; /* the error is the sink's, not the registry's */

    uint64_t discard; /* bytes at the start that were had before */
    struct http_response answer;
};

static int cancelled(struct err *e)
{
    return err_set(e, ERR_CANCELLED, "cancelled");
}

/* Wait, unless cancelled. */
static int pause_ns(struct oci_session *s, uint64_t ns, struct err *e)
{
    struct pollfd p = {.fd = cancel_fd(s->cancel), .events = POLLIN};
    uint64_t deadline = clock_in_ns(ns);

    while (!clock_passed(deadline) && !cancel_fired(s->cancel))
        poll(&p, 1, clock_left_ms(deadline));
    return cancel_fired(s->cancel) ? cancelled(e) : 0;
}

/* ---- one answer ---- */

/* "bytes 100-199/200" is exactly from `offset` to the end of `size`. */
static bool is_range(const char *text, uint64_t offset, uint64_t size)
{
    char want[80];

    snprintf(want, sizeof(want), "bytes %llu-%llu/%llu", (unsigned long long)offset,
             (unsigned long long)(size - 1), (unsigned long long)size);
    return str_eq(text, want);
}

static int on_head(void *arg, const struct http_response *head, struct err *e)
{
    struct get *g = arg;
    const char *encoding = http_header(head, "content-encoding");

    g->answered = true;
    if (head->status / 100 != 2)
        return 0;
    if (g->sink && encoding && !str_eq(encoding, "identity"))
        return err_set(e, ERR_REMOTE, "the server encodes the blob on its own account");
    if (head->status == 206) {
        if (!g->offset || !is_range(http_header(head, "content-range"), g->offset, g->size))
            return err_set(e, ERR_REMOTE,
                           "the server answers with another range than was asked for");
        g->discard = 0;
        return 0;
    }
    if (head->status != 200)
        return err_set(e, ERR_REMOTE, "unexpected status %d", head->status);
    g->discard =
        g->offset; /* ranges are not known there: from the start again, what we have is skipped */
    return 0;
}

static int on_body(void *arg, const void *data, size_t n, struct err *e)
{
    struct get *g = arg;
    const char *p = data;

    if (g->discard) {
        size_t skip = n < g->discard ? n : (size_t)g->discard;

        g->discard -= skip;
        p += skip;
        n -= skip;
    }
    if (!n)
        return 0;
    int rc = g->sink(g->sink_arg, p, n, e);

    g->sink_failed = rc < 0;
    return rc;
}

static int one_request(struct oci_session *s, struct get *g, const char *url,
                       const struct oci_login *login, struct err *e)
{
    AUTO_FREE char *authority = oci_url_authority(url);
    AUTO(oci_host_policy) struct oci_host_policy policy = {0};
    AUTO(str_list) struct str_list headers = {0};

    oci_host_policy_get(s->registries, authority, &policy);
    if (g->accept)
        str_list_add(&headers, g->accept);
    if (g->offset)
        str_list_take(&headers, mem_printf("Range: bytes=%llu-", (unsigned long long)g->offset));
    struct http_request r = {.method = "GET",
                             .url = url,
                             .headers = &headers,
                             .bearer = login->bearer,
                             .basic_user = login->user,
                             .basic_password = login->password,
                             .max_body = g->max_body,
                             .on_head = on_head,
                             .sink_arg = g,
                             .sink = g->sink ? on_body : NULL,
                             .cancel = s->cancel,
                             .tls = &policy.tls,
                             .forbid_special_addresses = !policy.named,
                             .min_rate = MIN_RATE,
                             .total_timeout_ns = g->timeout_ns};

    http_response_free(&g->answer);
    return http_perform(s->http, &r, &g->answer, e);
}

static bool is_redirect(int status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

static char *next_url(struct oci_session *s, struct get *g, const char *url, struct err *e)
{
    const char *location = http_header(&g->answer, "location");
    AUTO_FREE char *next = location ? http_resolve(url, location) : NULL;

    if (!next || strlen(next) > BOUND_URL) {
        err_set(e, ERR_REMOTE, "redirect without a usable location");
        return NULL;
    }
    if (!oci_url_allowed(s->registries, next)) {
        AUTO_FREE char *authority = oci_url_authority(next);
        char shown[STR_SHOW_MAX];

        err_set(e, ERR_REMOTE, "redirect to %s refused: not https", str_show(shown, authority));
        return NULL;
    }
    return take_ptr(&next);
}

/* At one place: challenges answered, redirects followed. 0 with whatever status came in the end. */
static int ask(struct oci_session *s, const char *base, struct get *g, struct err *e)
{
    AUTO_FREE char *authority = oci_url_authority(base);
    AUTO_FREE char *first = mem_printf("%s/v2/%s%s", base, s->ref->repository, g->path);
    AUTO_FREE char *url = mem_strdup(first);
    AUTO(oci_login) struct oci_login login = {0};
    int challenges = 0, hops = 0;

    oci_auth_known(s->auth, authority, s->ref->repository, &login);
    for (;;) {
        static const struct oci_login nobody;
        bool home = http_same_origin(url, first);

        if (one_request(s, g, url, home ? &login : &nobody, e) < 0)
            return -1;
        if (is_redirect(g->answer.status)) {
            char *next =
                hops++ < BOUND_HTTP_REDIRECTS
                    ? next_url(s, g, url, e)
                    : (err_set(e, ERR_REMOTE, "more than %d redirects", BOUND_HTTP_REDIRECTS),
                       NULL);

            if (!next)
                return -1;
            free(url);
            url = next;
            continue;
        }
        if (g->answer.status != 401 || !home || challenges++ == CHALLENGES)
            return 0;
        AUTO(oci_login) struct oci_login again = {0};

        if (oci_auth_answer(s->auth, authority, s->ref->repository, &g->answer.headers, &login,
                            &again, e) < 0)
            return -1;
        oci_login_free(&login);
        login = again;
        again = (struct oci_login){0};
    }
}

/* ---- patience ---- */

/* Seconds of a Retry-After, 0 when there is none (dates are not worth a parser here). */
static uint64_t retry_after_s(const struct http_response *r)
{
    const char *text = http_header(r, "retry-after");
    struct err ignored = ERR_INIT;
    uint64_t s = 0;

    if (!text || units_u64(text, UINT64_MAX, &s, &ignored) < 0)
        return 0;
    return s < RETRY_AFTER_CAP_S ? s : RETRY_AFTER_CAP_S;
}

static bool is_busy(int status)
{
    return status == 408 || status == 429 || status == 500 || status == 502 || status == 503 ||
           status == 504;
}

/* {"errors":[{"code","message"}]}: what the registry has to say, escaped, or "". */
static char *said(const struct http_response *r)
{
    char shown[STR_SHOW_MAX];
    const char *p = r->body.len ? strstr(str_text(&r->body), "\"message\":\"") : NULL;

    if (!p)
        return mem_strdup("");
    p += strlen("\"message\":\"");
    str_escape(shown, sizeof(shown), p, strcspn(p, "\""));
    return mem_printf(" (%s)", shown);
}

static int status_error(const struct http_response *r, struct err *e)
{
    AUTO_FREE char *text = said(r);

    switch (r->status) {
    case 404: return err_set(e, ERR_ABSENT, "not found%s", text);
    case 401:
    case 403: return err_set(e, ERR_USER, "access denied%s", text);
    case 429: return err_set(e, ERR_REMOTE, "too many requests%s", text);
    default: return err_set(e, ERR_REMOTE, "%d %s%s", r->status, r->reason, text);
    }
}

/* Repeated while it helps. A request with a sink is repeated by oci_session_blob, which knows where to go
 * on; here only what failed before its first byte. */
static int ask_patiently(struct oci_session *s, const char *base, int connects, struct get *g,
                         struct err *e)
{
    struct backoff wait = BACKOFF_INIT(RETRY_FIRST_NS, RETRY_CAP_NS);

    for (int i = 1;; i++) {
        uint64_t pause = backoff_next(&wait);

        err_clear(e);
        g->answered = false;
        int rc = ask(s, base, g, e);

        if (cancel_fired(s->cancel))
            return cancelled(e);
        if (rc == 0 && g->answer.status / 100 == 2)
            return 0;
        if (rc == 0) {
            status_error(&g->answer, e);
            if (!is_busy(g->answer.status) || i == ATTEMPTS)
                return -1;
            uint64_t asked = retry_after_s(&g->answer) * NS_PER_S;

            pause = asked > pause ? asked : pause;
        } else if (e->kind != ERR_REMOTE || g->answered || i >= connects) {
            return -1;
        }
        if (pause_ns(s, pause, e) < 0)
            return -1;
    }
}

/* The kind that says most when every place failed: that an image is not there is worth more than that a
 * mirror could not be reached; the last place, the registry itself, speaks for ERR_REMOTE. */
static int ask_everywhere(struct oci_session *s, struct get *g, struct err *e)
{
    size_t start = preferred(s), n = s->bases.n;

    for (size_t k = 0; k < n; k++) {
        size_t i = (start + k) % n;
        AUTO_FREE char *authority = oci_url_authority(s->bases.items[i]);
        /* The next place is the same host by http. */
        bool same_host = i + 1 < n && str_starts(s->bases.items[i], "https://") &&
                         str_eq(s->bases.items[i] + 8, s->bases.items[i + 1] + 7);

        if (ask_patiently(s, s->bases.items[i], same_host ? 1 : CONNECT_ATTEMPTS, g, e) == 0) {
            prefer(s, i);
            return 0;
        }
        if (e->kind == ERR_CANCELLED || g->sink_failed)
            return -1;
        err_wrap(e, "registry %s", authority);
        if (g->answered && same_host)
            return -1; /* it does speak https */
    }
    return -1;
}

/* ---- doors ---- */

int oci_session_manifest(struct oci_session *s, const char *reference, struct str *ret,
                         char **ret_type, char ret_digest[DIGEST_TEXT_MAX], struct err *e)
{
    AUTO_FREE char *path = mem_printf("/manifests/%s", reference);
    struct get g = {.path = path,
                    .accept = oci_manifest_accept,
                    .max_body = BOUND_MANIFEST,
                    .timeout_ns = DOCUMENT_TIMEOUT_NS};
    int rc = ask_everywhere(s, &g, e);

    if (rc == 0) {
        AUTO(digest)
        struct digest *d = digest_new(digest_is_valid(reference) ? reference : "sha256");

        digest_update(d, str_text(&g.answer.body), g.answer.body.len);
        digest_text(d, ret_digest);
        if (digest_is_valid(reference) && !str_eq(reference, ret_digest))
            rc = err_set(e, ERR_REMOTE, "manifest %s: what came has digest %s", reference,
                         ret_digest);
    }
    if (rc == 0) {
        *ret_type = mem_strdup(http_header(&g.answer, "content-type"));
        str_free(ret);
        *ret = g.answer.body;
        g.answer.body = (struct str){0};
    }
    http_response_free(&g.answer);
    return rc;
}

int oci_session_config(struct oci_session *s, const struct oci_desc *d, struct str *ret,
                       struct err *e)
{
    AUTO_FREE char *path = mem_printf("/blobs/%s", d->digest);
    AUTO(digest) struct digest *sum = digest_new(d->digest);
    char got[DIGEST_TEXT_MAX];
    struct get g = {
        .path = path, .max_body = d->size ? d->size : 1, .timeout_ns = DOCUMENT_TIMEOUT_NS};
    int rc = ask_everywhere(s, &g, e);

    if (rc == 0) {
        digest_update(sum, str_text(&g.answer.body), g.answer.body.len);
        digest_text(sum, got);
        if (g.answer.body.len != d->size || !str_eq(got, d->digest))
            rc = err_set(e, ERR_REMOTE, "what came is %zu bytes of digest %s", g.answer.body.len,
                         got);
    }
    if (rc == 0) {
        str_free(ret);
        *ret = g.answer.body;
        g.answer.body = (struct str){0};
    }
    http_response_free(&g.answer);
    return rc;
}

struct counted {
    oci_blob_sink *sink;
    void *arg;
    uint64_t taken;
};

static int count_and_pass(void *arg, const void *data, size_t n, struct err *e)
{
    struct counted *c = arg;

    if (c->sink(c->arg, data, n, e) < 0)
        return -1;
    c->taken += n;
    return 0;
}

int oci_session_blob(struct oci_session *s, const struct oci_desc *d, oci_blob_sink *sink,
                     void *arg, struct err *e)
{
    AUTO_FREE char *path = mem_printf("/blobs/%s", d->digest);
    struct backoff wait = BACKOFF_INIT(RETRY_FIRST_NS, RETRY_CAP_NS);
    struct counted c = {.sink = sink, .arg = arg};
    int rc = 0, idle = 0;

    while (c.taken < d->size) {
        uint64_t before = c.taken;
        struct get g = {.path = path,
                        .size = d->size,
                        .offset = c.taken,
                        .max_body = d->size,
                        .sink = count_and_pass,
                        .sink_arg = &c,
                        .timeout_ns = 600 * NS_PER_S + (d->size - c.taken) / MIN_RATE * NS_PER_S};

        rc = ask_everywhere(s, &g, e);
        http_response_free(&g.answer);
        if (rc == 0 && c.taken < d->size)
            rc = err_set(e, ERR_REMOTE, "ended after %llu of %llu bytes",
                         (unsigned long long)c.taken, (unsigned long long)d->size);
        if (rc == 0)
            break;
        idle = c.taken > before ? 0 : idle + 1;
        if (g.sink_failed || e->kind != ERR_REMOTE || cancel_fired(s->cancel) ||
            idle >= IDLE_ATTEMPTS || (c.taken == 0 && !g.answered))
            return rc;
        if (c.taken > before)
            backoff_reset(&wait);
        if (pause_ns(s, backoff_next(&wait), e) < 0)
            return -1;
        err_clear(e);
    }
    return rc;
}
