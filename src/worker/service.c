/*
 * The core of the service client: the token and what is the same for every call. The calls themselves are
 * in service_calls.c and service_contents.c.
 */
#include "worker/service.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/codec.h"
#include "base/err.h"
#include "base/jobs.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/units.h"
#include "worker/service_call.h"

#define TOKEN_MARGIN    (300 * NS_PER_S) /* B006 */
#define DEFAULT_TIMEOUT (300 * NS_PER_S)
#define SHORT_TIMEOUT   (45 * NS_PER_S)
#define CLIENT_ID       "codalab_worker_client" /* with an empty secret (B003) */

struct service {
    char *server, *username, *password, *wid;
    struct http_client *http;
    struct http_tls tls;
    bool has_tls;
    uint64_t timeout_ns;
    pthread_mutex_t lock; /* guards what follows; not held while a token is fetched */
    pthread_cond_t changed;
    bool fetching;
    char *token;
    uint64_t expires_ns;
    unsigned long serial; /* of the token */
    unsigned stream_401s; /* refusals of streamed bodies in a row */
};

static void free_secret(char *s)
{
    if (s)
        explicit_bzero(s, strlen(s));
    free(s);
}

static void auto_free_secret(char **s)
{
    free_secret(*s);
}
#define AUTO_SECRET __attribute__((cleanup(auto_free_secret)))

static uint64_t default_timeout(void)
{
    const char *text = getenv("CODALAB_URLOPEN_TIMEOUT_SECONDS");
    struct err e = ERR_INIT;
    uint64_t s;

    if (text && units_u64(text, 24 * 3600, &s, &e) == 0 && s)
        return s * NS_PER_S;
    return DEFAULT_TIMEOUT;
}

static void copy_tls(struct service *s, const struct http_tls *tls)
{
    if (!tls)
        return;
    s->has_tls = true;
    s->tls = (struct http_tls){
        .ca_file = mem_strdup(tls->ca_file),
        .ca_dir = mem_strdup(tls->ca_dir),
        .cert_file = mem_strdup(tls->cert_file),
        .key_file = mem_strdup(tls->key_file),
        .insecure = tls->insecure,
    };
}

int service_new(const struct service_opts *o, struct service **ret, struct err *e)
{
    struct http_client *http;
    size_t n = strlen(o->server);

    if (!str_starts(o->server, "http://") && !str_starts(o->server, "https://"))
        return err_set(e, ERR_USER, "the server must be an http or https URL");
    if (http_client_new(o->user_agent, &http, e) < 0)
        return -1;

    struct service *s = mem_new(struct service);

    while (n && o->server[n - 1] == '/')
        n--;
    s->server = mem_strndup(o->server, n);
    s->username = mem_strdup(o->username);
    s->password = mem_strdup(o->password);
    s->wid = http_escape(o->worker_id, "");
    s->http = http;
    s->timeout_ns = o->timeout_ns ? o->timeout_ns : default_timeout();
    copy_tls(s, o->tls);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    *ret = s;
    return 0;
}

void service_free(struct service *s)
{
    if (!s)
        return;
    http_client_free(s->http);
    free(s->server);
    free(s->username);
    free_secret(s->password);
    free_secret(s->token);
    free(s->wid);
    free((char *)s->tls.ca_file);
    free((char *)s->tls.ca_dir);
    free((char *)s->tls.cert_file);
    free((char *)s->tls.key_file);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

struct http_client *service_http(struct service *s)
{
    return s->http;
}

const char *service_server(const struct service *s)
{
    return s->server;
}

uint64_t service_timeout_ns(const struct service *s)
{
    return s->timeout_ns;
}

uint64_t service_short_ns(const struct service *s)
{
    return s->timeout_ns < SHORT_TIMEOUT ? s->timeout_ns : SHORT_TIMEOUT;
}

const char *service_wid(const struct service *s)
{
    return s->wid;
}

bool service_is_transient(const struct err *e)
{
    return e->kind == ERR_REMOTE;
}

int service_http_status(const struct err *e)
{
    return e->sys < 0 ? -e->sys : 0;
}

/* Text of an error answer, fit to be shown: un-gzipped where it was, escaped, without blanks at the ends. */
static int append(void *arg, const void *data, size_t n, struct err *e)
{
    if (str_append(arg, data, n) < 0)
        return err_set(e, ERR_LIMIT, "error text too long");
    return 0;
}

static void show_body(const struct http_response *a, char *buf, size_t size)
{
    AUTO(str) struct str plain = STR_INIT(BOUND_HTTP_ERROR_BODY);
    const char *data = str_text(&a->body);
    size_t n = a->body.len;
    struct err ignored = ERR_INIT;

    if (str_eq(http_header(a, "content-encoding"), "gzip") && n > 2 &&
        memcmp(data, "\x1f\x8b", 2) == 0) {
        AUTO(codec)
        struct codec *c = codec_decoder(CODEC_GZIP, BOUND_HTTP_ERROR_BODY, append, &plain);

        /* Half a text is better than none: what failed is said already. */
        if (codec_feed(c, data, n, &ignored) == 0 && codec_finish(c, &ignored) < 0)
            err_clear(&ignored);
        data = str_text(&plain);
        n = plain.len;
    }
    while (n && strchr(" \t\r\n", data[n - 1]))
        n--;
    while (n && strchr(" \t\r\n", *data)) {
        data++;
        n--;
    }
    str_escape(buf, size, data, n);
}

/* 4xx is ours to put right, the rest may pass (B014, B015). */
static int status_error(const char *op, const struct http_response *a, struct err *e)
{
    char body[400];
    enum err_kind kind = a->status == 404                      ? ERR_ABSENT
                         : a->status >= 400 && a->status < 500 ? ERR_USER
                                                               : ERR_REMOTE;

    show_body(a, body, sizeof(body));
    err_set(e, kind, "%s: %s - %s", op, a->reason, body);
    e->sys = -a->status;
    return -1;
}

int service_json(const char *op, const struct http_response *a, cJSON **ret, struct err *e)
{
    char body[300];

    if (json_parse(str_text(&a->body), a->body.len, ret, e) == 0)
        return 0;
    show_body(a, body, sizeof(body));
    return err_set(e, ERR_REMOTE, "%s: Invalid JSON: %s", op, body);
}

/* What every request has in common. */
static void prepare(struct service *s, const struct service_call *c, struct cancel *cancel,
                    struct http_request *r, struct str_list *headers)
{
    uint64_t timeout = s->timeout_ns * (c->timeout_factor ? c->timeout_factor : 1);

    *r = c->http;
    str_list_add(headers, "X-Requested-With: XMLHttpRequest"); /* B002 */
    if (c->content_type)
        str_list_take(headers, mem_printf("Content-Type: %s", c->content_type));
    if (c->accept_encoding)
        str_list_take(headers, mem_printf("Accept-Encoding: %s", c->accept_encoding));
    else
        r->accept_gzip_json = true;
    if (c->more_header)
        str_list_add(headers, c->more_header);
    r->method = c->method;
    r->headers = headers;
    r->tls = s->has_tls ? &s->tls : NULL;
    r->cancel = cancel;
    if (!r->stall_timeout_ns)
        r->stall_timeout_ns = timeout;
    if (!r->max_body)
        r->max_body = BOUND_SERVICE_JSON;
    if (!r->sink && !r->source && !r->total_timeout_ns)
        r->total_timeout_ns = 3 * timeout; /* a trickle does not hold a slot for ever (S59) */
}

static int read_token(struct service *s, const cJSON *doc, char **ret, uint64_t *ret_life_ns,
                      struct err *e)
{
    const char *type = NULL, *token = NULL;
    char shown[STR_SHOW_MAX];
    double life = 3600;

    (void)s;
    if (json_get_str(doc, "access_token", BOUND_TOKEN, &token, e) < 0 ||
        json_get_str(doc, "token_type", 256, &type, e) < 0 ||
        json_opt_double(doc, "expires_in", &life, e) < 0) {
        e->kind = ERR_REMOTE;
        return -1;
    }
    if (strcmp(type, "Bearer") != 0)
        return err_set(e, ERR_USER, "Unknown authorization token type: %s",
                       str_show(shown, type)); /* B010 */
    if (!(life > 0))
        life = 0;
    if (life > 365 * 86400.0)
        life = 365 * 86400.0;
    *ret = mem_strdup(token);
    *ret_life_ns = (uint64_t)(life * (double)NS_PER_S);
    return 0;
}

static int fetch_token(struct service *s, struct cancel *cancel, char **ret, uint64_t *ret_life_ns,
                       struct err *e)
{
    const char *pairs[] = {"grant_type", "password",  "username", s->username,
                           "password",   s->password, NULL};
    AUTO_SECRET char *form = http_form(pairs);
    AUTO_FREE char *url = mem_printf("%s/rest/oauth2/token", s->server);
    AUTO(str_list) struct str_list headers = {0};
    AUTO(http_response) struct http_response a = {0};
    AUTO(cJSON) cJSON *doc = NULL;
    struct http_request r;
    struct service_call c = {.method = "POST", .content_type = "application/x-www-form-urlencoded"};

    prepare(s, &c, cancel, &r, &headers);
    r.url = url;
    r.body = form;
    r.body_n = strlen(form);
    r.basic_user = CLIENT_ID;
    r.basic_password = "";
    r.source_size = -1;
    r.stall_timeout_ns = service_short_ns(s); /* the check-in that needs it waits */
    if (http_perform(s->http, &r, &a, e) < 0)
        return err_wrap(e, "%s", OP_TOKEN);
    if (a.status != 200)
        return status_error(OP_TOKEN, &a, e);
    if (service_json(OP_TOKEN, &a, &doc, e) < 0)
        return -1;
    if (read_token(s, doc, ret, ret_life_ns, e) < 0)
        return err_wrap(e, "%s", OP_TOKEN);
    return 0;
}

/* Wait for another thread's fetch; a little at a time, because the token of a cancel has no condition. */
static void wait_changed(struct service *s)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += 200000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_nsec -= 1000000000;
        t.tv_sec++;
    }
    pthread_cond_timedwait(&s->changed, &s->lock, &t);
}

static void store_token(struct service *s, char *token, uint64_t life_ns)
{
    free_secret(s->token);
    s->token = token;
    s->expires_ns = clock_in_ns(life_ns);
    s->serial++;
}

/*
 * A copy of a token that is good for now. `stale`: serial of one that was refused, 0 for none. One thread
 * fetches, the others wait for it.
 */
static int get_token(struct service *s, unsigned long stale, struct cancel *cancel, char **ret,
                     unsigned long *ret_serial, struct err *e)
{
    int rc = 0;

    pthread_mutex_lock(&s->lock);
    while (s->fetching && !cancel_fired(cancel))
        wait_changed(s);
    if (cancel_fired(cancel)) {
        rc = err_set(e, ERR_CANCELLED, "cancelled");
    } else if (!s->token || s->serial == stale || clock_passed(s->expires_ns - TOKEN_MARGIN) ||
               s->expires_ns < TOKEN_MARGIN) {
        char *token = NULL;
        uint64_t life = 0;

        s->fetching = true;
        pthread_mutex_unlock(&s->lock);
        rc = fetch_token(s, cancel, &token, &life, e);
        pthread_mutex_lock(&s->lock);
        s->fetching = false;
        if (rc == 0)
            store_token(s, token, life);
        pthread_cond_broadcast(&s->changed);
    }
    if (rc == 0) {
        *ret = mem_strdup(s->token);
        *ret_serial = s->serial;
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int service_login(struct service *s, struct cancel *cancel, struct err *e)
{
    AUTO_SECRET char *token = NULL;
    unsigned long serial;

    return get_token(s, 0, cancel, &token, &serial, e);
}

static int attempt(struct service *s, const struct service_call *c, unsigned long stale,
                   struct cancel *cancel, unsigned long *ret_serial, struct http_response *ret,
                   struct err *e)
{
    AUTO(str_list) struct str_list headers = {0};
    AUTO_FREE char *url = mem_printf("%s/rest%s", s->server, c->path);
    AUTO_SECRET char *token = NULL;
    struct http_request r;

    if (get_token(s, stale, cancel, &token, ret_serial, e) < 0)
        return err_wrap(e, "%s", c->op);
    prepare(s, c, cancel, &r, &headers);
    r.url = url;
    r.bearer = token; /* dropped at a redirect to another origin (B011) */
    if (http_perform(s->http, &r, ret, e) < 0)
        return err_wrap(e, "%s", c->op);
    return 0;
}

/*
 * A refused streamed body cannot be sent again from here. The first refusal is transient, so that the
 * caller's own repeat comes with a new token; two in a row are what they say.
 */
static int refused_stream(struct service *s, const struct service_call *c, unsigned long serial,
                          const struct http_response *a, struct err *e)
{
    unsigned n;

    status_error(c->op, a, e);
    pthread_mutex_lock(&s->lock);
    n = ++s->stream_401s;
    if (s->serial == serial)
        s->expires_ns = 0;
    pthread_mutex_unlock(&s->lock);
    if (n == 1)
        e->kind = ERR_REMOTE;
    return -1;
}

static void accepted(struct service *s)
{
    pthread_mutex_lock(&s->lock);
    s->stream_401s = 0;
    pthread_mutex_unlock(&s->lock);
}

int service_perform(struct service *s, const struct service_call *c, struct cancel *cancel,
                    struct http_response *ret, struct err *e)
{
    AUTO(http_response) struct http_response a = {0};
    unsigned long serial = 0;

    if (attempt(s, c, 0, cancel, &serial, &a, e) < 0)
        return -1;
    if (a.status == 401 && c->http.source)
        return refused_stream(s, c, serial, &a, e);
    if (a.status == 401) { /* B007, D03 */
        http_response_free(&a);
        if (attempt(s, c, serial, cancel, &serial, &a, e) < 0)
            return -1;
    }
    if (c->http.source && a.status != 401)
        accepted(s);
    if (a.status < 200 || a.status > 299)
        return status_error(c->op, &a, e);
    *ret = a;
    a = (struct http_response){0};
    return 0;
}
