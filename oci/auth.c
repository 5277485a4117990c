#include "oci/auth.h"

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

#define TOKEN_DEFAULT_S 60 /* the token specification's, when expires_in is missing */

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

struct oci_auth {
    const struct oci_registries *registries;
    struct http_client *http;
    struct cancel *cancel;
    struct oci_logins *logins, *own; /* own: where the registries have none for all pulls */
};

struct oci_auth *oci_auth_new(const struct oci_registries *r, struct http_client *http,
                              struct cancel *c)
{
    struct oci_auth *a = mem_new(struct oci_auth);

    a->registries = r;
    a->http = http;
    a->cancel = c;
    a->own = r->logins ? NULL : oci_logins_new();
    a->logins = r->logins ? r->logins : a->own;
    return a;
}

void oci_auth_free(struct oci_auth *a)
{
    if (!a)
        return;
    oci_logins_free(a->own);
    free(a);
}

void oci_auth_stop_with(struct oci_auth *a, struct cancel *c)
{
    a->cancel = c;
}

void oci_auth_known(struct oci_auth *a, const char *authority, const char *repository,
                    struct oci_login *ret)
{
    oci_logins_known(a->logins, authority, repository, ret);
}

/* What a token service granted. */
struct token {
    struct oci_login login;
    char *refresh; /* for next time; NULL: as before */
    uint64_t seconds;
};

static void token_free(struct token *t)
{
    oci_login_free(&t->login);
    if (t->refresh)
        explicit_bzero(t->refresh, strlen(t->refresh));
    free(t->refresh);
}
DEFINE_AUTO_VALUE(token, token_free)

/* The service answered: {"token" or "access_token": …, "expires_in": seconds, "refresh_token": …} */
static int read_token(const struct http_response *answer, struct token *ret, struct err *e)
{
    AUTO(cJSON) cJSON *doc = NULL;
    const char *token = NULL, *refresh = NULL;
    int64_t expires = TOKEN_DEFAULT_S;

    if (json_parse(str_text(&answer->body), answer->body.len, &doc, e) < 0 ||
        json_opt_str(doc, "token", BOUND_TOKEN, &token, e) < 0 ||
        ((!token || !*token) && json_get_str(doc, "access_token", BOUND_TOKEN, &token, e) < 0) ||
        json_opt_i64(doc, "expires_in", INT64_MIN, INT64_MAX, &expires, e) < 0 ||
        json_opt_str(doc, "refresh_token", BOUND_TOKEN, &refresh, e) < 0)
        return -1;
    if (!*token || strpbrk(token, " \r\n\t"))
        return err_set(e, ERR_REMOTE, "its token is not valid");
    ret->login.bearer = mem_strdup(token);
    ret->refresh = refresh && *refresh ? mem_strdup(refresh) : NULL;
    ret->seconds = expires < 1 ? 1 : expires > 86400 ? 86400 : (uint64_t)expires;
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
                       struct token *ret, struct err *e)
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
    return read_token(&answer, ret, e) < 0 ? err_wrap(e, "token service %s", shown) : 0;
}

/* By the newest refresh token there is; when that is refused, by the one that is configured. */
static int fetch_any_token(struct oci_auth *a, const struct oci_challenge *c, const char *authority,
                           const char *repository, const struct oci_credentials *creds,
                           struct token *ret, struct err *e)
{
    const char *configured = creds->identity_token;
    AUTO(oci_credentials)
    struct oci_credentials newest = {
        .identity_token = configured ? oci_logins_renewed(a->logins, authority, configured) : NULL};
    int rc =
        fetch_token(a, c, authority, repository, newest.identity_token ? &newest : creds, ret, e);

    if (rc < 0 && newest.identity_token && e->kind == ERR_USER) {
        oci_logins_renew(a->logins, authority, configured, NULL);
        err_clear(e);
        rc = fetch_token(a, c, authority, repository, creds, ret, e);
    }
    if (rc == 0 && configured && ret->refresh)
        oci_logins_renew(a->logins, authority, configured, ret->refresh);
    return rc;
}

/* Somebody else's answer to the same challenge: not refused yet, so as good as one of our own. */
static bool is_news(const struct oci_login *known, const struct oci_login *refused)
{
    return known->bearer && !str_eq(known->bearer, refused->bearer);
}

/* What was sent may be of an earlier pull, and the credentials others by now. */
static bool is_refused(const struct oci_credentials *creds, const struct oci_login *refused)
{
    return str_eq(creds->user, refused->user) && str_eq(creds->password, refused->password);
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
    AUTO(oci_login) struct oci_login known = {0};
    AUTO(token) struct token t = {.seconds = 3600};

    oci_auth_known(a, authority, repository, &known);
    if (is_news(&known, refused)) {
        *ret = oci_login_copy(&known);
        return 0;
    }
    for (size_t i = 0; i < headers->n; i++)
        if (str_starts(headers->items[i], "www-authenticate:") &&
            oci_challenge_parse(headers->items[i] + strlen("www-authenticate:"), &c, e) < 0)
            return -1;
    if (oci_credentials_find(a->registries, authority, repository, &creds, e) < 0)
        return -1;
    if (c.bearer && creds.registry_token && !str_eq(creds.registry_token, refused->bearer)) {
        t.login.bearer = mem_strdup(creds.registry_token);
    } else if (c.bearer) {
        if (fetch_any_token(a, &c, authority, repository, &creds, &t, e) < 0)
            return -1;
    } else if (c.basic && creds.user && !is_refused(&creds, refused)) {
        t.login.user = mem_strdup(creds.user);
        t.login.password = mem_strdup(creds.password);
    } else {
        return denied(&creds, e);
    }
    oci_logins_remember(a->logins, authority, repository, &t.login, t.seconds);
    *ret = oci_login_copy(&t.login);
    return 0;
}
