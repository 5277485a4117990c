/*
 * Credentials as Docker keeps them: ~/.docker/config.json with "credHelpers" (a helper a registry),
 * "credsStore" (a helper for all), "auths" (base64 of user:password, or a token).
 */
#include <openssl/evp.h>
#include <string.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "oci/auth.h"
#include "oci/registries.h"

enum { SECRET_MAX = 64 * 1024, HELPER_SECONDS = 30 };
#define HUB_KEY "https://index.docker.io/v1/"

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
}

/* All the names of Docker Hub are one key; others are keyed by "host:port", with or without a scheme. */
static bool is_key_of(const char *key, const char *authority)
{
    const char *host = strstr(key, "://");
    bool hub = str_eq(authority, "registry-1.docker.io") || str_eq(authority, "docker.io");

    host = host ? host + 3 : key;
    size_t n = strcspn(host, "/");

    if (hub)
        return (n == 15 && !memcmp(host, "index.docker.io", n)) ||
               (n == 9 && !memcmp(host, "docker.io", n));
    return n == strlen(authority) && !memcmp(host, authority, n);
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
    const char *auth = "", *user = "", *password = "", *token = "";

    if (json_opt_str(entry, "auth", SECRET_MAX, &auth, e) < 0 ||
        json_opt_str(entry, "username", SECRET_MAX, &user, e) < 0 ||
        json_opt_str(entry, "password", SECRET_MAX, &password, e) < 0 ||
        json_opt_str(entry, "identitytoken", SECRET_MAX, &token, e) < 0)
        return -1;
    if (*auth && decode_auth(auth, ret, e) < 0)
        return -1;
    if (!*auth && *user) {
        ret->user = mem_strdup(user);
        ret->password = mem_strdup(password);
    }
    if (*token)
        ret->identity_token = mem_strdup(token);
    return 0;
}

/* docker-credential-NAME get: the server on stdin, {"Username", "Secret"} on stdout (S09). */
static int ask_helper(const char *name, const char *server, struct oci_credentials *ret,
                      struct err *e)
{
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
    if (proc_run(argv, NULL, server, strlen(server), &out, NULL, HELPER_SECONDS * NS_PER_S, &result,
                 e) < 0)
        return err_wrap(e, "%s", program);
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

static const cJSON *find_key(const cJSON *object, const char *authority)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, object) {
        if (is_key_of(item->string, authority))
            return item;
    }
    return NULL;
}

static int find(const cJSON *doc, const char *authority, struct oci_credentials *ret, struct err *e)
{
    const cJSON *helpers = NULL, *auths = NULL, *item;
    const char *store = NULL;
    const char *server = is_key_of("docker.io", authority) ? HUB_KEY : authority;

    if (json_opt_object(doc, "credHelpers", &helpers, e) < 0 ||
        json_opt_object(doc, "auths", &auths, e) < 0 ||
        json_opt_str(doc, "credsStore", 256, &store, e) < 0)
        return -1;
    if (helpers && (item = find_key(helpers, authority)))
        return ask_helper(cJSON_IsString(item) ? item->valuestring : "", server, ret, e);
    item = auths ? find_key(auths, authority) : NULL;
    if (store && *store)
        return ask_helper(store, item ? item->string : server, ret, e);
    return item && cJSON_IsObject(item) ? read_entry(item, ret, e) : 0;
}

int oci_credentials_find(const char *config, const char *registry, struct oci_credentials *ret,
                         struct err *e)
{
    AUTO(str) struct str text = STR_INIT(BOUND_CONFIG_JSON);
    AUTO(cJSON) cJSON *doc = NULL;

    if (!config)
        return 0;
    int there = oci_config_read(config, &text, e);

    if (there <= 0)
        return there;
    if (!text.len) /* an empty file, or /dev/null: nobody's credentials */
        return 0;
    int rc = json_parse(str_text(&text), text.len, &doc, e) < 0 || find(doc, registry, ret, e) < 0
                 ? -1
                 : 0;

    explicit_bzero(text.buf, text.len);
    return rc < 0 ? err_wrap(e, "%s", config) : 0;
}
