/*
 * Credentials as Docker keeps them: ~/.docker/config.json with "credHelpers" (a helper a registry),
 * "credsStore" (a helper for all), "auths" (base64 of user:password, or a token).
 */
#include <stdlib.h>
#include <string.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/late_crypto.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "oci/auth.h"
#include "oci/registries.h"

enum { SECRET_MAX = 64 * 1024 };
#define HELPER_NS (30 * NS_PER_S)
#define HUB_KEY   "https://index.docker.io/v1/"

static void forget(char **secret)
{
    if (*secret)
        explicit_bzero(*secret, strlen(*secret));
    free(*secret);
    *secret = NULL;
}

void oci_credentials_free(struct oci_credentials *c)
{
    forget(&c->user);
    forget(&c->password);
    forget(&c->identity_token);
    forget(&c->registry_token);
}

/* Whose credentials are wanted. */
struct owner {
    const char *authority, *repository;
    bool hub; /* all the names of Docker Hub are one */
};

static bool is_host_of(const char *host, size_t n, const struct owner *o)
{
    if (o->hub)
        return (n == 15 && !memcmp(host, "index.docker.io", n)) ||
               (n == 9 && !memcmp(host, "docker.io", n));
    return n == strlen(o->authority) && !memcmp(host, o->authority, n);
}

/*
 * Keys are "host:port", with or without a scheme and a path. How well one fits: 0 not at all; more, the longer its
 * path, which must hold the repository. "/v1/" and "/v2/" are how Docker ends the key of a host.
 */
static size_t fit_of(const char *key, const struct owner *o)
{
    const char *host = strstr(key, "://");

    host = host ? host + 3 : key;
    size_t n = strcspn(host, "/");
    const char *path = host + n + (host[n] == '/');
    size_t len = strlen(path);

    if (!is_host_of(host, n, o))
        return 0;
    while (len && path[len - 1] == '/')
        len--;
    if (!len || (len == 2 && (!memcmp(path, "v1", 2) || !memcmp(path, "v2", 2))))
        return 1;
    if (strncmp(o->repository, path, len) != 0 || (o->repository[len] != '/' && o->repository[len]))
        return 0;
    return 1 + len;
}

static int decode_auth(const char *text, struct oci_credentials *ret, struct err *e)
{
    size_t n = strlen(text);
    AUTO_FREE char *plain = mem_zalloc(n + 4);

    /* EVP_DecodeBlock gives the padding back as NULs, which end the text here. */
    if (n % 4 || EVP_DecodeBlock((unsigned char *)plain, (const unsigned char *)text, (int)n) < 0)
        return err_set(e, ERR_USER, "auth is not base64");
    char *colon = strchr(plain, ':');

    if (!colon)
        return err_set(e, ERR_USER, "auth is not user:password");
    ret->user = mem_strndup(plain, (size_t)(colon - plain));
    ret->password = mem_strdup(colon + 1);
    explicit_bzero(plain, n);
    return 0;
}

static int read_entry(const cJSON *entry, struct oci_credentials *ret, struct err *e)
{
    const char *auth = "", *user = "", *password = "", *token = "", *registry_token = "";

    if (json_opt_str(entry, "auth", SECRET_MAX, &auth, e) < 0 ||
        json_opt_str(entry, "username", SECRET_MAX, &user, e) < 0 ||
        json_opt_str(entry, "password", SECRET_MAX, &password, e) < 0 ||
        json_opt_str(entry, "identitytoken", SECRET_MAX, &token, e) < 0 ||
        json_opt_str(entry, "registrytoken", SECRET_MAX, &registry_token, e) < 0)
        return -1;
    if (strpbrk(registry_token, " \r\n\t"))
        return err_set(e, ERR_USER, "registrytoken is not valid");
    if (*auth && decode_auth(auth, ret, e) < 0)
        return -1;
    if (!*auth && *user) {
        ret->user = mem_strdup(user);
        ret->password = mem_strdup(password);
    }
    if (*token)
        ret->identity_token = mem_strdup(token);
    if (*registry_token)
        ret->registry_token = mem_strdup(registry_token);
    return 0;
}

/* What a helper may know of us: where it keeps its own files, and the way out to its service (S09). */
static void helper_environment(struct str_list *env)
{
    static const char *const passed[] = {"HOME",        "http_proxy", "https_proxy",    "no_proxy",
                                         "HTTPS_PROXY", "NO_PROXY",   "XDG_RUNTIME_DIR"};

    str_list_add(env, "PATH=" PROC_PATH);
    str_list_add(env, "LC_ALL=C");
    for (size_t i = 0; i < ARRAY_SIZE(passed); i++)
        if (getenv(passed[i]))
            str_list_setenv(env, passed[i], getenv(passed[i]));
}

/* docker-credential-NAME get: the server on stdin, {"Username", "Secret"} on stdout (S09). */
static int ask_helper(const char *name, const char *server, uint64_t patience_ns,
                      struct oci_credentials *ret, struct err *e)
{
    AUTO(str_list) struct str_list env = {0};
    AUTO(str) struct str out = STR_INIT(SECRET_MAX);
    AUTO(cJSON) cJSON *doc = NULL;
    AUTO_FREE char *program = mem_printf("docker-credential-%s", name);
    char *argv[] = {program, "get", NULL};
    struct proc_result result;
    const char *user, *secret;
    char shown[STR_SHOW_MAX];

    if (!*name ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") !=
            strlen(name))
        return err_set(e, ERR_USER, "credential helper's name is not valid: %s",
                       str_show(shown, name));
    if (!patience_ns)
        return 0;
    helper_environment(&env);
    if (proc_run(argv, env.items, server, strlen(server), &out, NULL, patience_ns, &result, e) <
        0) {
        if (e->kind == ERR_ABSENT)
            e->kind = ERR_HOST; /* it is not the image that is not there */
        return err_wrap(e, "credential helper");
    }
    if (result.status != 0)
        return 0; /* "credentials not found in native keychain" */
    if (json_parse(str_text(&out), out.len, &doc, e) < 0 ||
        json_get_str(doc, "Username", SECRET_MAX, &user, e) < 0 ||
        json_get_str(doc, "Secret", SECRET_MAX, &secret, e) < 0)
        return err_wrap(e, "%s", program);
    if (str_eq(user, "<token>")) {
        ret->identity_token = mem_strdup(secret);
    } else {
        ret->user = mem_strdup(user);
        ret->password = mem_strdup(secret);
    }
    explicit_bzero(out.buf, out.len);
    return 0;
}

static const cJSON *find_key(const cJSON *object, const struct owner *o)
{
    const cJSON *item, *best = NULL;
    size_t most = 0;

    cJSON_ArrayForEach(item, object) {
        size_t fit = fit_of(item->string, o);

        if (fit > most) {
            best = item;
            most = fit;
        }
    }
    return best;
}

static int find(const cJSON *doc, const struct owner *o, uint64_t patience_ns,
                struct oci_credentials *ret, struct err *e)
{
    const cJSON *helpers = NULL, *auths = NULL, *item;
    const char *store = NULL;
    const char *server = o->hub ? HUB_KEY : o->authority;

    if (json_opt_object(doc, "credHelpers", &helpers, e) < 0 ||
        json_opt_object(doc, "auths", &auths, e) < 0 ||
        json_opt_str(doc, "credsStore", 256, &store, e) < 0)
        return -1;
    if (helpers && (item = find_key(helpers, o)))
        return ask_helper(cJSON_IsString(item) ? item->valuestring : "", server, patience_ns, ret,
                          e);
    item = auths ? find_key(auths, o) : NULL;
    if (store && *store)
        return ask_helper(store, item ? item->string : server, patience_ns, ret, e);
    return item && cJSON_IsObject(item) ? read_entry(item, ret, e) : 0;
}

int oci_credentials_read(const char *text, size_t n, const char *authority, const char *repository,
                         uint64_t patience_ns, struct oci_credentials *ret, struct err *e)
{
    AUTO(cJSON) cJSON *doc = NULL;
    struct owner o = {authority, repository,
                      str_eq(authority, "registry-1.docker.io") || str_eq(authority, "docker.io")};

    if (json_parse(text, n, &doc, e) < 0)
        return -1;
    if (!cJSON_IsObject(doc))
        return err_set(e, ERR_USER, "is not a JSON object");
    return find(doc, &o, patience_ns, ret, e);
}

static bool is_empty(const struct oci_credentials *c)
{
    return !c->user && !c->identity_token && !c->registry_token;
}

int oci_credentials_find(const struct oci_registries *r, const char *authority,
                         const char *repository, struct oci_credentials *ret, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(BOUND_CONFIG_JSON);
    uint64_t patience = r->patience_ns && r->patience_ns < HELPER_NS ? r->patience_ns : HELPER_NS;

    if (r->docker_auths && oci_credentials_read(r->docker_auths, strlen(r->docker_auths), authority,
                                                repository, patience, ret, e) < 0)
        return err_wrap(e, "DOCKER_AUTH_CONFIG");
    if (!is_empty(ret) || !r->docker_config)
        return 0;
    int there = oci_config_read(r->docker_config, &text, e);

    if (there <= 0)
        return there;
    int rc =
        oci_credentials_read(str_text(&text), text.len, authority, repository, patience, ret, e);

    explicit_bzero(text.buf, text.len);
    return rc < 0 ? err_wrap(e, "%s", r->docker_config) : 0;
}
