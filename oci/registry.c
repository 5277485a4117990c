#include "oci/registry.h"

#include <pthread.h>
#include <string.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/http.h"
#include "base/jobs.h"
#include "base/mem.h"
#include "base/str.h"
#include "oci/auth.h"
#include "oci/local.h"
#include "oci/manifest.h"
#include "oci/ref.h"
#include "oci/registries.h"
#include "oci/registry_get.h"
#include "oci/scheme.h"

enum {
    IDLE_ATTEMPTS = 5,       /* of a blob, in a row, that brought next to nothing */
    NEXT_TO_NOTHING = 65536, /* bytes; a registry that drips is not to hold us for ever (S18) */
};
#define RETRY_FIRST_NS      (500 * NS_PER_MS)
#define RETRY_CAP_NS        (20 * NS_PER_S)
#define DOCUMENT_TIMEOUT_NS (120 * NS_PER_S)
#define SLOWEST             1024 /* bytes a second: what the time for a blob is reckoned by (S18) */

/* Of an insecure registry that was found to speak plain http the two ways to it change places. */
static void plain_first(struct oci_session *s)
{
    size_t n = s->bases.n;

    if (n < s->mirrors + 2)
        return;
    char **https = &s->bases.items[n - 2], **http = &s->bases.items[n - 1], *first = *http;
    AUTO_FREE char *authority = oci_url_authority(first);

    if (!oci_scheme_is_plain(authority, clock_now_ns()))
        return;
    *http = *https;
    *https = first;
}

struct oci_session *oci_session_new(const struct oci_ref *ref, const struct oci_registries *r,
                                    struct http_client *http, struct cancel *c)
{
    struct oci_session *s = mem_new(struct oci_session);

    s->ref = ref;
    s->registries = r;
    s->http = http;
    s->cancel = c;
    s->auth = oci_auth_new(r, http, c);
    s->mirrors = oci_registries_bases(r, ref->registry, &s->bases);
    plain_first(s);
    s->preferred = SIZE_MAX;
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

void oci_session_free(struct oci_session *s)
{
    if (!s)
        return;
    oci_auth_free(s->auth);
    oci_local_free(s->local);
    str_list_free(&s->bases);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

bool oci_session_has_mirrors(struct oci_session *s)
{
    pthread_mutex_lock(&s->lock);
    bool has = s->mirrors && !s->left_mirrors;

    pthread_mutex_unlock(&s->lock);
    return has;
}

void oci_session_leave_mirrors(struct oci_session *s)
{
    pthread_mutex_lock(&s->lock);
    s->left_mirrors = true;
    if (s->preferred < s->mirrors)
        s->preferred = SIZE_MAX;
    pthread_mutex_unlock(&s->lock);
}

void oci_session_stop_with(struct oci_session *s, struct cancel *c)
{
    s->cancel = c;
    oci_auth_stop_with(s->auth, c);
}

/* What a document must be. */
struct wanted {
    const char *digest; /* NULL: any */
    uint64_t size;      /* exactly, with a digest; UINT64_MAX: any */
};

static void digest_body(const char *algorithm, const struct str *body, char ret[DIGEST_TEXT_MAX])
{
    AUTO(digest) struct digest *d = digest_new(algorithm);

    digest_update(d, str_text(body), body->len);
    digest_text(d, ret);
}

/* Also against what the registry itself says it sent: a tag names no digest to hold the body against. */
static int check_document(const struct http_response *answer, const void *arg, struct err *e)
{
    const struct wanted *w = arg;
    const char *told = http_header(answer, "docker-content-digest");
    const char *want = w->digest ? w->digest : told && digest_is_valid(told) ? told : NULL;
    char got[DIGEST_TEXT_MAX];

    if (!want)
        return 0;
    digest_body(want, &answer->body, got);
    if (str_eq(got, want) && (w->size == UINT64_MAX || w->size == answer->body.len))
        return 0;
    return err_set(e, ERR_REMOTE, "what came is %zu bytes of digest %s, not %s", answer->body.len,
                   got, want);
}

static int get_document(struct oci_session *s, struct oci_get *g, struct str *ret, struct err *e)
{
    g->timeout_ns = DOCUMENT_TIMEOUT_NS;
    g->check = check_document;
    if (oci_registry_get(s, g, e) < 0)
        return -1;
    str_free(ret);
    *ret = g->answer.body;
    g->answer.body = (struct str){0};
    return 0;
}

static int manifest_of_file(struct oci_session *s, const char *reference, struct str *ret,
                            char **ret_type, char ret_digest[DIGEST_TEXT_MAX], struct err *e)
{
    if (!s->local && oci_local_open(s->ref, &s->local, e) < 0)
        return -1;
    return oci_local_manifest(s->local, reference, ret, ret_type, ret_digest, e);
}

const struct str_list *oci_session_names(const struct oci_session *s)
{
    static const struct str_list none;

    return s->local ? oci_local_names(s->local) : &none;
}

int oci_session_manifest(struct oci_session *s, const char *reference, struct str *ret,
                         char **ret_type, char ret_digest[DIGEST_TEXT_MAX], struct err *e)
{
    if (s->ref->transport != OCI_REGISTRY)
        return manifest_of_file(s, reference, ret, ret_type, ret_digest, e);
    AUTO_FREE char *path = mem_printf("/manifests/%s", reference);
    struct wanted wanted = {digest_is_valid(reference) ? reference : NULL, UINT64_MAX};
    struct oci_get g = {.path = path,
                        .accept = oci_manifest_accept,
                        .max_body = BOUND_MANIFEST,
                        .check_arg = &wanted};
    int rc = get_document(s, &g, ret, e);

    if (rc == 0) {
        digest_body(wanted.digest ? reference : "sha256", ret, ret_digest);
        *ret_type = mem_strdup(http_header(&g.answer, "content-type"));
    }
    http_response_free(&g.answer);
    return rc;
}

/* Of `Link: <URL?query>; rel="next"` the query: the next page is where this one was. A new string, or NULL. */
static char *next_page(const char *link)
{
    const char *end = link ? strchr(link, '>') : NULL;
    const char *query = end ? memchr(link, '?', (size_t)(end - link)) : NULL;

    if (!query || !strstr(end, "rel=\"next\"") || end - query > BOUND_REF)
        return NULL;
    return mem_strndup(query + 1, (size_t)(end - query - 1));
}

int oci_session_referrers(struct oci_session *s, const char *digest, const char *artifact_type,
                          char **page, struct str *ret, struct err *e)
{
    const char *filter[] = {"artifactType", artifact_type, NULL};
    AUTO_FREE char *query = *page ? mem_strdup(*page) : http_form(filter);
    AUTO_FREE char *path = mem_printf("/referrers/%s?%s", digest, query);
    struct wanted any = {NULL, UINT64_MAX};
    struct oci_get g = {
        .path = path, .accept = oci_manifest_accept, .max_body = BOUND_MANIFEST, .check_arg = &any};
    int rc = get_document(s, &g, ret, e);

    mem_replace(page, NULL);
    if (rc == 0)
        *page = next_page(http_header(&g.answer, "link"));
    http_response_free(&g.answer);
    return rc;
}

int oci_session_config(struct oci_session *s, const struct oci_desc *d, struct str *ret,
                       struct err *e)
{
    if (s->local)
        return oci_local_config(s->local, d, ret, e);
    AUTO_FREE char *path = mem_printf("/blobs/%s", d->digest);
    struct wanted wanted = {d->digest, d->size};
    struct oci_get g = {.path = path, .max_body = d->size ? d->size : 1, .check_arg = &wanted};
    int rc = get_document(s, &g, ret, e);

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

/* Is the failed attempt worth another? */
static bool may_go_on(const struct oci_session *s, const struct oci_get *g, const struct counted *c,
                      int idle, const struct err *e)
{
    return !g->sink_failed && !g->hopeless && e->kind == ERR_REMOTE && !cancel_fired(s->cancel) &&
           idle < IDLE_ATTEMPTS && (c->taken > 0 || g->answered);
}

int oci_session_blob(struct oci_session *s, const struct oci_desc *d, uint64_t offset,
                     oci_blob_sink *sink, void *arg, struct err *e)
{
    if (s->local)
        return oci_local_blob(s->local, d, offset, sink, arg, e);
    AUTO_FREE char *path = mem_printf("/blobs/%s", d->digest);
    struct backoff wait = BACKOFF_INIT(RETRY_FIRST_NS, RETRY_CAP_NS);
    struct counted c = {.sink = sink, .arg = arg, .taken = offset};
    struct oci_get g = {.path = path,
                        .size = d->size,
                        .taken = &c.taken,
                        .max_body = d->size,
                        .sink = count_and_pass,
                        .sink_arg = &c};
    uint64_t deadline = clock_in_ns(600 * NS_PER_S + d->size / SLOWEST * NS_PER_S);
    int idle = 0;

    while (c.taken < d->size) {
        uint64_t before = c.taken, now = clock_now_ns();

        if (clock_passed(deadline))
            return err_set(e, ERR_REMOTE, "too slow: %llu of %llu bytes came in time",
                           (unsigned long long)c.taken, (unsigned long long)d->size);
        g.timeout_ns = deadline - now;
        int rc = oci_registry_get(s, &g, e);

        http_response_free(&g.answer);
        if (rc == 0 && c.taken < d->size)
            rc = err_set(e, ERR_REMOTE, "ended after %llu of %llu bytes",
                         (unsigned long long)c.taken, (unsigned long long)d->size);
        if (rc == 0)
            break;
        idle = c.taken - before >= NEXT_TO_NOTHING ? 0 : idle + 1;
        if (!may_go_on(s, &g, &c, idle, e))
            return -1;
        if (!idle)
            backoff_reset(&wait);
        if (oci_registry_pause(s, backoff_next(&wait), e) < 0)
            return -1;
        err_clear(e);
    }
    return 0;
}
