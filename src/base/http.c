/*
 * http_perform: hop after hop. Redirects are followed here, not by libcurl, so that each target is asked
 * about, and credentials and TLS exceptions stay with their origin (S15-S17, B011).
 */
#include "base/http.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/http_transfer.h"
#include "base/late_curl.h"
#include "base/mem.h"
#include "base/units.h"

void http_response_free(struct http_response *r)
{
    str_list_free(&r->headers);
    str_free(&r->body);
    free(r->final_url);
    *r = (struct http_response){0};
}

const char *http_header(const struct http_response *r, const char *name)
{
    size_t n = strlen(name);

    for (size_t i = 0; i < r->headers.n; i++) {
        const char *h = r->headers.items[i];

        if (strncmp(h, name, n) == 0 && h[n] == ':')
            return h + n + 2;
    }
    return NULL;
}

uint64_t http_retry_after_ns(const struct http_response *r, uint64_t max_ns)
{
    const char *text = http_header(r, "retry-after"), *date = http_header(r, "date");
    struct err ignored = ERR_INIT;
    uint64_t seconds = 0;

    if (!text)
        return 0;
    if (units_u64(text, UINT64_MAX, &seconds, &ignored) < 0) {
        time_t until = curl_getdate(text, NULL), now = date ? curl_getdate(date, NULL) : -1;

        if (now < 0)
            now = time(NULL);
        seconds = until > now ? (uint64_t)(until - now) : 0;
    }
    return seconds < max_ns / NS_PER_S ? seconds * NS_PER_S : max_ns;
}

char *http_origin(const char *url)
{
    char shown[STR_SHOW_MAX];
    const char *host = strstr(url, "://");
    size_t n = host ? (size_t)(host - url) + 3 : 0;
    size_t end = n + strcspn(url + n, "/?#");
    const char *at = memchr(url + n, '@', end - n); /* user:password@ is nobody's business */

    if (at)
        return mem_printf("%.*s%s", (int)n, url,
                          str_escape(shown, sizeof(shown), at + 1, end - (size_t)(at + 1 - url)));
    return mem_strdup(str_escape(shown, sizeof(shown), url, end));
}

/* Where the redirect leads, if we may go there. A new string, or NULL with e. */
static char *next_url(const struct http_request *r, const char *url,
                      const struct http_response *head, struct err *e)
{
    AUTO_FREE char *origin = http_origin(url);
    AUTO_FREE char *next = http_resolve(url, http_header(head, "location"));

    if (!next || strlen(next) > BOUND_URL) {
        err_set(e, ERR_REMOTE, "%s: redirect to a location that is no usable http or https URL",
                origin);
        return NULL;
    }

    AUTO_FREE char *target = http_origin(next);
    bool falls = strncmp(url, "https:", 6) == 0 && strncmp(next, "https:", 6) != 0;

    if (r->allow_redirect ? !r->allow_redirect(r->allow_arg, next) : falls) {
        err_set(e, ERR_REMOTE, "%s: redirect to %s refused", origin, target);
        return NULL;
    }
    return take_ptr(&next);
}

/* Slots are apart by origin and by whether dialled addresses are checked (http_transfer.h). */
static char *slot_key(const struct http_request *r, const char *url)
{
    AUTO_FREE char *origin = http_origin(url);

    return mem_printf("%s|%d", origin, r->forbid_special_addresses);
}

static int one_hop(struct http_client *c, struct transfer *t)
{
    AUTO_FREE char *key = slot_key(t->r, t->url);
    int rc;

    t->slot = http_slot_take(c, key);
    rc = http_transfer_run(t);
    if (rc < 0)
        http_slot_drop(t->slot); /* HTTP/2 would ask again over the connection that failed */
    else
        http_slot_put(c, t->slot);
    return rc;
}

static bool repeats_safely(const struct http_request *r)
{
    return strcmp(r->method, "GET") == 0 || strcmp(r->method, "HEAD") == 0;
}

static int follow(struct http_client *c, const struct http_request *r, struct http_response *ret,
                  struct err *e)
{
    AUTO_FREE char *url = mem_strdup(r->url);
    const struct http_tls *tls = r->tls;
    bool with_credentials = true;

    for (unsigned hop = 0;; hop++) {
        struct transfer t = {
            .r = r,
            .ret = ret,
            .e = e,
            .url = url,
            .tls = tls,
            .agent = http_client_agent(c),
            .with_credentials = with_credentials,
            .may_follow = r->max_redirects && repeats_safely(r),
        };

        if (one_hop(c, &t) < 0)
            return -1;
        if (!t.follow) {
            ret->final_url = take_ptr(&url);
            return 0;
        }
        if (hop >= r->max_redirects)
            return err_set(e, ERR_REMOTE, "more than %u redirects", r->max_redirects);

        char *next = next_url(r, url, ret, e);

        if (!next)
            return -1;
        if (!http_same_origin(r->url, next)) {
            with_credentials = false;
            tls = r->redirect_tls ? r->redirect_tls(r->allow_arg, next) : NULL;
        }
        free(url);
        url = next;
        http_response_free(ret);
    }
}

int http_perform(struct http_client *c, const struct http_request *r, struct http_response *ret,
                 struct err *e)
{
    BUG_ON(!r->method || !r->url || !r->max_body);
    *ret = (struct http_response){0};
    if (follow(c, r, ret, e) == 0)
        return 0;
    http_response_free(ret);
    return -1;
}
