/*
 * Each hop of a request is decided on anew: whether we may go there, by which TLS settings, with whose credentials
 * (S15-S17). What is worth repeating is repeated at the same place; what is not, at the next one.
 */
#include "oci/registry_get.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/jobs.h"
#include "base/mem.h"
#include "oci/auth.h"
#include "oci/ref.h"
#include "oci/registries.h"
#include "oci/scheme.h"

enum {
    ATTEMPTS = 6, /* of one request at one place */
    CONNECT_ATTEMPTS =
        2, /* of them, when nothing answers at all: that is rarely a matter of seconds */
    CHALLENGES = 2,
};
#define RETRY_FIRST_NS     (500 * NS_PER_MS)
#define RETRY_CAP_NS       (20 * NS_PER_S)
#define RETRY_AFTER_CAP_NS (60 * NS_PER_S)
#define CONNECT_NS         (30 * NS_PER_S)
#define MIN_RATE           1024 /* bytes a second (S18) */

static size_t preferred(struct oci_session *s)
{
    pthread_mutex_lock(&s->lock);
    size_t i = s->preferred;

    pthread_mutex_unlock(&s->lock);
    return i;
}

/* How an insecure registry was reached; of others there is nothing to remember, nor of mirrors, which name their scheme. */
static void note_scheme(const struct oci_session *s, size_t i)
{
    if (i < s->mirrors || s->bases.n < s->mirrors + 2)
        return;
    AUTO_FREE char *authority = oci_url_authority(s->bases.items[i]);

    oci_scheme_note(authority, str_starts(s->bases.items[i], "http://"), clock_now_ns());
}

static void prefer(struct oci_session *s, size_t i)
{
    note_scheme(s, i);
    pthread_mutex_lock(&s->lock);
    s->preferred = i;
    pthread_mutex_unlock(&s->lock);
}

static int cancelled(struct err *e)
{
    return err_set(e, ERR_CANCELLED, "cancelled");
}

int oci_registry_pause(struct oci_session *s, uint64_t ns, struct err *e)
{
    struct pollfd p = {.fd = cancel_fd(s->cancel), .events = POLLIN};
    uint64_t deadline = clock_in_ns(ns);

    while (!clock_passed(deadline) && !cancel_fired(s->cancel))
        poll(&p, 1, clock_left_ms(deadline));
    return cancel_fired(s->cancel) ? cancelled(e) : 0;
}

/* ---- one answer ---- */

bool oci_registry_is_range(const char *text, uint64_t offset, uint64_t size)
{
    char want[80];

    snprintf(want, sizeof(want), "bytes %llu-%llu/%llu", (unsigned long long)offset,
             (unsigned long long)(size - 1), (unsigned long long)size);
    return str_eq(text, want);
}

static int on_head(void *arg, const struct http_response *head, struct err *e)
{
    struct oci_get *g = arg;
    const char *encoding = http_header(head, "content-encoding");

    g->answered = true;
    if (head->status / 100 != 2)
        return 0;
    if (g->sink && encoding && !str_eq(encoding, "identity"))
        return err_set(e, ERR_REMOTE, "the server encodes the blob on its own account");
    if (head->status == 206) {
        if (!g->offset ||
            !oci_registry_is_range(http_header(head, "content-range"), g->offset, g->size)) {
            g->no_range = true; /* S19: start again */
            return err_set(e, ERR_REMOTE,
                           "the server answers with another range than was asked for");
        }
        g->discard = 0;
        return 0;
    }
    if (head->status != 200)
        return err_set(e, ERR_REMOTE, "unexpected status %d", head->status);
    /* Ranges are not known there, or not wanted: from the start again, what we have is skipped. */
    g->discard = g->taken ? *g->taken : 0;
    return 0;
}

static int on_body(void *arg, const void *data, size_t n, struct err *e)
{
    struct oci_get *g = arg;
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

static int one_request(struct oci_session *s, struct oci_get *g, const char *url,
                       const char *sender, const struct oci_login *login, struct err *e)
{
    AUTO_FREE char *authority = oci_url_authority(url);
    uint64_t patience = s->registries->patience_ns;
    AUTO(oci_host_policy) struct oci_host_policy policy = {0};
    AUTO(str_list) struct str_list headers = {0};

    oci_host_policy_get(s->registries, authority, sender, &policy);
    /* Asked anew each time: a place that broke off may have given some of it. */
    g->offset = g->taken && !g->no_range ? *g->taken : 0;
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
                             .http2 = true,
                             .connect_timeout_ns = patience < CONNECT_NS ? patience : 0,
                             .stall_timeout_ns = patience,
                             .min_rate = MIN_RATE,
                             .rate_window_ns = patience,
                             .total_timeout_ns = g->timeout_ns};

    http_response_free(&g->answer);
    return http_perform(s->http, &r, &g->answer, e);
}

static bool is_redirect(int status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

static char *next_url(struct oci_session *s, struct oci_get *g, const char *url, const char *sender,
                      struct err *e)
{
    const char *location = http_header(&g->answer, "location");
    AUTO_FREE char *next = location ? http_resolve(url, location) : NULL;

    if (!next || strlen(next) > BOUND_URL) {
        err_set(e, ERR_REMOTE, "redirect without a usable location");
        return NULL;
    }
    if (!oci_url_allowed(s->registries, next, sender)) {
        AUTO_FREE char *authority = oci_url_authority(next);
        char shown[STR_SHOW_MAX];

        err_set(e, ERR_REMOTE, "redirect to %s refused: not https", str_show(shown, authority));
        return NULL;
    }
    return take_ptr(&next);
}

/* At one place: challenges answered, redirects followed. 0 with whatever status came in the end. */
static int ask(struct oci_session *s, const char *base, struct oci_get *g, struct err *e)
{
    AUTO_FREE char *authority = oci_url_authority(base);
    AUTO_FREE char *first = oci_registries_url(base, s->ref->repository, g->path);
    AUTO_FREE char *url = mem_strdup(first);
    AUTO(oci_login) struct oci_login login = {0};
    int challenges = 0, hops = 0;

    oci_auth_known(s->auth, authority, s->ref->repository, &login);
    for (;;) {
        static const struct oci_login nobody;
        bool home = http_same_origin(url, first);

        if (one_request(s, g, url, hops ? authority : NULL, home ? &login : &nobody, e) < 0)
            return -1;
        if (is_redirect(g->answer.status)) {
            char *next =
                hops++ < BOUND_HTTP_REDIRECTS
                    ? next_url(s, g, url, authority, e)
                    : (err_set(e, ERR_REMOTE, "more than %d redirects", BOUND_HTTP_REDIRECTS),
                       NULL);

            if (!next) {
                g->hopeless = true;
                return -1;
            }
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
 * on; here only when it failed before its first byte. A document that breaks off is asked for once more. */
static int ask_patiently(struct oci_session *s, const char *base, int connects, struct oci_get *g,
                         struct err *e)
{
    struct backoff wait = BACKOFF_INIT(RETRY_FIRST_NS, RETRY_CAP_NS);

    for (int i = 1;; i++) {
        uint64_t pause = backoff_next(&wait);

        err_clear(e);
        g->answered = g->hopeless = false;
        int rc = ask(s, base, g, e);

        if (cancel_fired(s->cancel))
            return cancelled(e);
        if (rc == 0 && g->answer.status / 100 == 2)
            return g->check ? g->check(&g->answer, g->check_arg, e) : 0;
        if (rc == 0) {
            status_error(&g->answer, e);
            g->no_range |= g->answer.status == 416;
            if (!is_busy(g->answer.status) || i == ATTEMPTS) {
                g->hopeless = g->answer.status != 416;
                return -1;
            }
            uint64_t asked = http_retry_after_ns(&g->answer, RETRY_AFTER_CAP_NS);

            if (asked) /* and a little more, so that not all of us come back at once */
                pause = asked + pause / 4;
        } else if (e->kind != ERR_REMOTE || g->hopeless || (g->answered && g->sink) ||
                   i >= connects) {
            return -1;
        }
        if (oci_registry_pause(s, pause, e) < 0)
            return -1;
    }
}

/* The same host by http where this place is by https. */
static bool is_http_twin(const struct oci_session *s, size_t https, size_t http)
{
    const char *a = s->bases.items[https], *b = s->bases.items[http];

    return str_starts(a, "https://") && str_starts(b, "http://") && str_eq(a + 8, b + 7);
}

/* Of several failures the one of a place that answered says more than that of one which did not; else the last, as
 * that is the registry itself. */
static void keep_better(struct err *best, bool *answered, const struct err *e, bool now)
{
    if (best->kind == ERR_NONE || now >= *answered) {
        *best = *e;
        *answered = now;
    }
}

int oci_registry_get(struct oci_session *s, struct oci_get *g, struct err *e)
{
    size_t known = preferred(s), n = s->bases.n, start = known < n ? known : 0;
    struct err best = ERR_INIT;
    bool answered = false;

    for (size_t k = 0; k < n; k++) {
        size_t i = (start + k) % n;

        if (i < s->mirrors && !oci_session_has_mirrors(s))
            continue;
        bool last_resort = i + 1 < n && is_http_twin(s, i, i + 1);
        bool second = i > 0 && is_http_twin(s, i, i - 1); /* it spoke plain http a while ago */
        AUTO_FREE char *authority = oci_url_authority(s->bases.items[i]);

        if (known < n && (is_http_twin(s, i, known) || is_http_twin(s, known, i)))
            continue; /* how that host is spoken to is known by now */
        if (ask_patiently(s, s->bases.items[i], last_resort || second ? 1 : CONNECT_ATTEMPTS, g,
                          e) == 0) {
            prefer(s, i);
            return 0;
        }
        if (g->answered && known >= n && last_resort)
            known = i; /* it does speak https */
        if (e->kind == ERR_CANCELLED || g->sink_failed)
            return -1;
        err_wrap(e, "registry %s", authority);
        keep_better(&best, &answered, e, g->answered);
    }
    *e = best;
    return -1;
}
