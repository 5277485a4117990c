#include "oci/auth.h"

#include <pthread.h>
#include <string.h>
#include <strings.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/http.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "oci/registries.h"

enum { GRANTS_MAX = 64 };
#define TOKEN_DEFAULT_S 60 /* the token specification's, when expires_in is missing */
#define TOKEN_MARGIN_S  10

/* ---- challenges ---- */

#define TOKEN_CHARS "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

#define TOKEN68_CHARS "-._~+/0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

void oci_challenge_free(struct oci_challenge *c)
{
    free(c->realm);
    free(c->service);
    free(c->scope);
    *c = (struct oci_challenge){0};
}

static const char *skip_blanks(const char *p)
{
    return p + strspn(p, " \t");
}

/* A token or a quoted string; a new string in *ret. Returns where it ends, or NULL. */
static const char *read_value(const char *p, char **ret)
{
    size_t n = strspn(p, TOKEN_CHARS "/:=?@");

    if (*p != '"') {
        *ret = mem_strndup(p, n);
        return n ? p + n : NULL;
    }
    char *out = mem_alloc(strlen(p)), *o = out;

    for (p++; *p && *p != '"'; p++) {
        if (*p == '\\' && !*++p)
            break;
        *o++ = *p;
    }
    *o = '\0';
    *ret = out;
    return *p == '"' ? p + 1 : NULL;
}

static void take_parameter(struct oci_challenge *c, const char *name, size_t n, char *value)
{
    char **slot = n == 5 && !strncasecmp(name, "realm", 5)     ? &c->realm
                  : n == 7 && !strncasecmp(name, "service", 7) ? &c->service
                  : n == 5 && !strncasecmp(name, "scope", 5)   ? &c->scope
                                                               : NULL;

    if (slot && !*slot)
        *slot = value;
    else
        free(value);
}

static int malformed(struct err *e)
{
    return err_set(e, ERR_REMOTE, "WWW-Authenticate header is malformed");
}

/* "Negotiate YIIK/+8=": what follows some schemes is no list of parameters, but one word (token68). */
static const char *skip_token68(const char *p)
{
    const char *word = skip_blanks(p);
    size_t n = strspn(word, TOKEN68_CHARS);
    const char *end = word + n + strspn(word + n, "=");

    return n && word > p && (!*skip_blanks(end) || *skip_blanks(end) == ',') ? end : p;
}

/* Parameters of one challenge; a word that is no parameter begins the next one. */
static const char *read_parameters(const char *p, struct oci_challenge *c)
{
    p = skip_token68(p);
    for (;;) {
        p = p + strspn(p, " \t,");
        size_t n = strspn(p, TOKEN_CHARS);
        const char *equals = skip_blanks(p + n);
        char *value = NULL;

        if (!n || *equals != '=')
            return p;
        const char *end = read_value(skip_blanks(equals + 1), &value);

        take_parameter(c, p, n, value);
        if (!end)
            return NULL;
        p = end;
    }
}

int oci_challenge_parse(const char *text, struct oci_challenge *ret, struct err *e)
{
    const char *p = text + strspn(text, " \t,");

    if (strlen(text) > BOUND_URL)
        return malformed(e);
    while (*p) {
        AUTO(oci_challenge) struct oci_challenge c = {0};
        size_t n = strspn(p, TOKEN_CHARS);
        bool bearer = n == 6 && !strncasecmp(p, "Bearer", 6);
        bool basic = n == 5 && !strncasecmp(p, "Basic", 5);

        if (!n || !(p = read_parameters(p + n, &c)))
            return malformed(e);
        ret->basic |= basic;
        if (!bearer || ret->bearer || !c.realm)
            continue;
        ret->bearer = true;
        ret->realm = take_ptr(&c.realm);
        ret->service = take_ptr(&c.service);
        ret->scope = take_ptr(&c.scope);
    }
    return 0;
}

/* ---- tokens ---- */

/* Changed under lock only; a grant is replaced, not edited. */
struct grant {
    char *authority, *repository;
    struct oci_login login;
    uint64_t until_ns;
};

struct oci_auth {
    const struct oci_registries *registries;
    struct http_client *http;
    struct cancel *cancel;
    pthread_mutex_t lock; /* guards grants */
    struct grant grants[GRANTS_MAX];
    size_t n;
};

static void forget(char **secret)
{
    if (*secret)
        explicit_bzero(*secret, strlen(*secret));
    free(*secret);
    *secret = NULL;
}

void oci_login_free(struct oci_login *l)
{
    forget(&l->bearer);
    forget(&l->user);
    forget(&l->password);
}

static struct oci_login login_copy(const struct oci_login *l)
{
    return (struct oci_login){mem_strdup(l->bearer), mem_strdup(l->user), mem_strdup(l->password)};
}

struct oci_auth *oci_auth_new(const struct oci_registries *r, struct http_client *http,
                              struct cancel *c)
{
    struct oci_auth *a = mem_new(struct oci_auth);

    a->registries = r;
    a->http = http;
    a->cancel = c;
    pthread_mutex_init(&a->lock, NULL);
    return a;
}

void oci_auth_free(struct oci_auth *a)
{
    if (!a)
        return;
    for (size_t i = 0; i < a->n; i++) {
        free(a->grants[i].authority);
        free(a->grants[i].repository);
        oci_login_free(&a->grants[i].login);
    }
    pthread_mutex_destroy(&a->lock);
    free(a);
}

void oci_auth_stop_with(struct oci_auth *a, struct cancel *c)
{
    a->cancel = c;
}

static struct grant *find_grant(struct oci_auth *a, const char *authority, const char *repository)
{
    for (size_t i = 0; i < a->n; i++)
        if (str_eq(a->grants[i].authority, authority) &&
            str_eq(a->grants[i].repository, repository))
            return &a->grants[i];
    return NULL;
}

void oci_auth_known(struct oci_auth *a, const char *authority, const char *repository,
                    struct oci_login *ret)
{
    pthread_mutex_lock(&a->lock);
    struct grant *g = find_grant(a, authority, repository);

    if (g && !clock_passed(g->until_ns))
        *ret = login_copy(&g->login);
    pthread_mutex_unlock(&a->lock);
}

static void remember(struct oci_auth *a, const char *authority, const char *repository,
                     const struct oci_login *l, uint64_t seconds)
{
    pthread_mutex_lock(&a->lock);
    struct grant *g = find_grant(a, authority, repository);

    if (!g && a->n < GRANTS_MAX) {
        g = &a->grants[a->n++];
        g->authority = mem_strdup(authority);
        g->repository = mem_strdup(repository);
    }
    if (g) {
        oci_login_free(&g->login);
        g->login = login_copy(l);
        g->until_ns = clock_in_ns(
            (seconds > 2 * TOKEN_MARGIN_S ? seconds - TOKEN_MARGIN_S : seconds) * NS_PER_S);
    }
    pthread_mutex_unlock(&a->lock);
}

/* The service answered: {"token" or "access_token": …, "expires_in": seconds} */
static int read_token(const struct http_response *answer, struct oci_login *ret, uint64_t *seconds,
                      struct err *e)
{
    AUTO(cJSON) cJSON *doc = NULL;
    const char *token = NULL;
    int64_t expires = TOKEN_DEFAULT_S;

    if (json_parse(str_text(&answer->body), answer->body.len, &doc, e) < 0 ||
        json_opt_str(doc, "token", BOUND_TOKEN, &token, e) < 0 ||
        ((!token || !*token) && json_get_str(doc, "access_token", BOUND_TOKEN, &token, e) < 0) ||
        json_opt_i64(doc, "expires_in", INT64_MIN, INT64_MAX, &expires, e) < 0)
        return -1;
    if (!*token || strpbrk(token, " \r\n\t"))
        return err_set(e, ERR_REMOTE, "its token is not valid");
    ret->bearer = mem_strdup(token);
    *seconds = expires < 1 ? 1 : expires > 86400 ? 86400 : (uint64_t)expires;
    return 0;
}

static char *scope_of(const struct oci_challenge *c, const char *repository)
{
    return c->scope && *c->scope ? mem_strdup(c->scope)
                                 : mem_printf("repository:%s:pull", repository);
}

/* GET with the credentials as Basic; or POST of a refresh token. */
static int ask_service(struct oci_auth *a, const struct oci_challenge *c, const char *sender,
                       const char *scope, const struct oci_credentials *creds,
                       struct http_response *answer, struct err *e)
{
    AUTO_FREE char *authority = oci_url_authority(c->realm);
    AUTO(oci_host_policy) struct oci_host_policy policy = {0};
    const char *service = c->service ? c->service : "";
    const char *query[] = {"service", service, "scope", scope, NULL};
    const char *grant[] = {
        "grant_type", "refresh_token", "service", service,         "client_id",
        "cworker",    "scope",         scope,     "refresh_token", creds->identity_token,
        NULL};
    AUTO_FREE char *form = http_form(creds->identity_token ? grant : query);
    AUTO_FREE char *url =
        creds->identity_token
            ? mem_strdup(c->realm)
            : mem_printf("%s%c%s", c->realm, strchr(c->realm, '?') ? '&' : '?', form);
    AUTO(str_list) struct str_list headers = {0};

    if (!oci_url_allowed(a->registries, c->realm, sender))
        return err_set(e, ERR_REMOTE, "the token service is not at an https address");
    oci_host_policy_get(a->registries, authority, sender, &policy);
    struct http_request r = {.method = "GET",
                             .url = url,
                             .max_body = 4 * BOUND_TOKEN,
                             .cancel = a->cancel,
                             .tls = &policy.tls,
                             .headers = &headers,
                             .forbid_special_addresses = !policy.named,
                             .http2 = true,
                             .stall_timeout_ns = a->registries->patience_ns,
                             .total_timeout_ns = 60 * NS_PER_S};

    if (creds->identity_token) {
        str_list_add(&headers, "Content-Type: application/x-www-form-urlencoded");
        r.method = "POST";
        r.body = form;
        r.body_n = strlen(form);
    } else if (creds->user) {
        r.basic_user = creds->user;
        r.basic_password = creds->password;
    }
    return http_perform(a->http, &r, answer, e);
}

static int fetch_token(struct oci_auth *a, const struct oci_challenge *c, const char *sender,
                       const char *repository, const struct oci_credentials *creds,
                       struct oci_login *ret, uint64_t *seconds, struct err *e)
{
    AUTO(http_response) struct http_response answer = {0};
    AUTO_FREE char *scope = scope_of(c, repository);
    AUTO_FREE char *authority = oci_url_authority(c->realm);
    char shown[STR_SHOW_MAX];

    str_show(shown, authority);
    if (ask_service(a, c, sender, scope, creds, &answer, e) < 0)
        return err_wrap(e, "token service %s", shown);
    if (answer.status == 401 || answer.status == 403)
        return err_set(
            e, ERR_USER, "token service %s refuses the credentials%s", shown,
            creds->user || creds->identity_token ? "" : " (there are none for this registry)");
    if (answer.status / 100 != 2)
        return err_set(e, ERR_REMOTE, "token service %s: %d %s", shown, answer.status,
                       answer.reason);
    return read_token(&answer, ret, seconds, e) < 0 ? err_wrap(e, "token service %s", shown) : 0;
}

/* Somebody else's answer to the same challenge: not refused yet, so as good as one of our own. */
static bool is_news(const struct oci_login *known, const struct oci_login *refused)
{
    return known->bearer && !str_eq(known->bearer, refused->bearer);
}

static int denied(const struct oci_credentials *creds, struct err *e)
{
    return err_set(e, ERR_USER, "access denied%s",
                   creds->user || creds->identity_token
                       ? " with the credentials configured for it"
                       : "; there are no credentials for it in the Docker configuration");
}

int oci_auth_answer(struct oci_auth *a, const char *authority, const char *repository,
                    const struct str_list *headers, const struct oci_login *refused,
                    struct oci_login *ret, struct err *e)
{
    AUTO(oci_challenge) struct oci_challenge c = {0};
    AUTO(oci_credentials) struct oci_credentials creds = {0};
    AUTO(oci_login) struct oci_login login = {0};
    uint64_t seconds = 3600;

    oci_auth_known(a, authority, repository, &login);
    if (is_news(&login, refused)) {
        *ret = login_copy(&login);
        return 0;
    }
    oci_login_free(&login);
    for (size_t i = 0; i < headers->n; i++)
        if (str_starts(headers->items[i], "www-authenticate:") &&
            oci_challenge_parse(headers->items[i] + strlen("www-authenticate:"), &c, e) < 0)
            return -1;
    if (oci_credentials_find(a->registries, authority, repository, &creds, e) < 0)
        return -1;
    if (c.bearer && creds.registry_token && !str_eq(creds.registry_token, refused->bearer)) {
        login.bearer = mem_strdup(creds.registry_token);
    } else if (c.bearer) {
        if (fetch_token(a, &c, authority, repository, &creds, &login, &seconds, e) < 0)
            return -1;
    } else if (c.basic && creds.user && !refused->user) {
        login.user = mem_strdup(creds.user);
        login.password = mem_strdup(creds.password);
    } else {
        return denied(&creds, e);
    }
    remember(a, authority, repository, &login, seconds);
    *ret = login_copy(&login);
    return 0;
}
