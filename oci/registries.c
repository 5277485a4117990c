#include "oci/registries.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"
#include "oci/logins.h"
#include "oci/trust.h"

#define DOCKER_IO  "docker.io"
#define DOCKER_API "registry-1.docker.io"

enum { LIST_MAX = 1000 };

int oci_config_read(const char *path, struct str *ret, struct err *e)
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0)
        return err_sys(e, "open %s", path);
    if (fd_read_all(fd, ret, e) < 0)
        return err_wrap(e, "%s", path);
    return ret->len > 0; /* an empty file, or /dev/null, says nothing */
}

int oci_registries_load(struct oci_registries *r, const char *daemon_json, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(BOUND_CONFIG_JSON);
    AUTO(cJSON) cJSON *doc = NULL;
    AUTO(str_list) struct str_list mirrors = {0};

    int there = oci_config_read(daemon_json, &text, e);

    if (there <= 0)
        return there;
    if (json_parse(str_text(&text), text.len, &doc, e) < 0 ||
        json_opt_str_list(doc, "insecure-registries", LIST_MAX, BOUND_URL, &r->insecure, e) < 0 ||
        json_opt_str_list(doc, "registry-mirrors", LIST_MAX, BOUND_URL, &mirrors, e) < 0)
        return err_wrap(e, "%s", daemon_json);
    /* Docker's mirrors are of Docker Hub only. */
    for (size_t i = 0; i < mirrors.n; i++)
        if (oci_registries_add_mirror(r, mirrors.items[i], e) < 0)
            return err_wrap(e, "%s", daemon_json);
    return 0;
}

int oci_registries_add_mirror(struct oci_registries *r, const char *text, struct err *e)
{
    const char *equals = strchr(text, '='), *scheme = strstr(text, "://");
    bool has_registry = equals && (!scheme || equals < scheme);
    const char *url = has_registry ? equals + 1 : text;
    AUTO_FREE char *whole = mem_printf("%s%s", strstr(url, "://") ? "" : "https://", url);
    AUTO_FREE char *authority = oci_url_authority(whole);
    char shown[STR_SHOW_MAX];

    if ((!str_starts(whole, "https://") && !str_starts(whole, "http://")) || !*authority ||
        strpbrk(whole, "?# ") || strchr(authority, '@') || (has_registry && equals == text))
        return err_set(e, ERR_USER, "not a mirror ([REGISTRY=]http[s]://HOST[:PORT][/PATH]): %s",
                       str_show(shown, text));
    str_list_take(&r->mirrors, has_registry
                                   ? mem_printf("%.*s=%s", (int)(equals - text), text, whole)
                                   : mem_printf(DOCKER_IO "=%s", whole));
    return 0;
}

void oci_registries_credentials(struct oci_registries *r, const char *file)
{
    const char *document = getenv("DOCKER_AUTH_CONFIG"), *podman = getenv("REGISTRY_AUTH_FILE"),
               *dir = getenv("DOCKER_CONFIG"), *home = getenv("HOME");

    r->logins = oci_logins_new();
    if (file) {
        mem_replace(&r->docker_config, file);
        return;
    }
    if (document && *document)
        mem_replace(&r->docker_auths, document);
    free(r->docker_config);
    r->docker_config = podman && *podman ? mem_strdup(podman)
                       : dir && *dir     ? mem_printf("%s/config.json", dir)
                                     : mem_printf("%s/.docker/config.json", home ? home : "/root");
}

int oci_registries_load_trust(struct oci_registries *r, const char *file, struct err *e)
{
    return file ? oci_trust_load(file, &r->trust, e) : 0;
}

int oci_registries_admit(const struct oci_registries *r, const struct oci_ref *ref, struct err *e)
{
    if (oci_trust_admits(r->trust, ref, e) < 0)
        return -1;
    if (oci_trust_wants_signature(r->trust, ref))
        return err_set(
            e, ERR_USER,
            "refused by the trust policy: its signature can be had from its registry only");
    return 0;
}

void oci_registries_free(struct oci_registries *r)
{
    str_list_free(&r->insecure);
    str_list_free(&r->mirrors);
    free(r->certs_dir);
    free(r->docker_config);
    if (r->docker_auths)
        explicit_bzero(r->docker_auths, strlen(r->docker_auths));
    free(r->docker_auths);
    oci_trust_free(r->trust);
    oci_logins_free(r->logins);
    *r = (struct oci_registries){0};
}

char *oci_url_authority(const char *url)
{
    const char *p = strstr(url, "://");

    p = p ? p + 3 : url;
    return mem_strndup(p, strcspn(p, "/?#"));
}

/* "host" of "host:5000" and "[::1]:5000"; a new string. */
static char *host_of(const char *authority)
{
    if (*authority == '[')
        return mem_strndup(authority + 1, strcspn(authority + 1, "]"));
    return mem_strndup(authority, strcspn(authority, ":"));
}

static bool is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (str_eq(host, "localhost"))
        return true;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* "10.0.0.0/8" against an address written as such: names are not resolved for this, as they may change. */
static bool in_block(const char *block, const char *host)
{
    const char *slash = strchr(block, '/');
    unsigned char net[16], addr[16];
    struct err ignored = ERR_INIT;
    uint64_t bits;

    if (!slash)
        return false;
    AUTO_FREE char *base = mem_strndup(block, (size_t)(slash - block));
    int family = strchr(base, ':') ? AF_INET6 : AF_INET;

    if (inet_pton(family, base, net) != 1 || inet_pton(family, host, addr) != 1 ||
        units_u64(slash + 1, family == AF_INET ? 32 : 128, &bits, &ignored) < 0)
        return false;
    for (uint64_t i = 0; i < bits; i++)
        if (((net[i / 8] ^ addr[i / 8]) >> (7 - i % 8)) & 1)
            return false;
    return true;
}

static bool is_listed(const struct str_list *l, const char *authority, const char *host)
{
    for (size_t i = 0; i < l->n; i++) {
        const char *item = l->items[i];

        if (str_eq(item, authority) || str_eq(item, host) || in_block(item, host))
            return true;
    }
    return false;
}

static bool is_mirror(const struct oci_registries *r, const char *authority)
{
    for (size_t i = 0; i < r->mirrors.n; i++) {
        const char *equals = strchr(r->mirrors.items[i], '=');
        AUTO_FREE char *mirror = oci_url_authority(equals ? equals + 1 : r->mirrors.items[i]);

        if (str_eq(mirror, authority))
            return true;
    }
    return false;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What is in the directory of a host, in order of names; nothing when there is none. */
static void list_certs(const char *dir, struct str_list *ret)
{
    DIR *d = opendir(dir);

    for (struct dirent *entry; d && (entry = readdir(d));)
        if (str_ends(entry->d_name, ".crt") || str_ends(entry->d_name, ".cert"))
            str_list_take(ret, mem_printf("%s/%s", dir, entry->d_name));
    if (d)
        closedir(d);
    if (ret->n)
        qsort(ret->items, ret->n, sizeof(*ret->items), by_text);
}

/* As Docker has it: every *.crt is an authority, every NAME.cert with NAME.key a certificate of ours. */
static void read_certs(const char *certs_dir, const char *authority, struct oci_host_policy *p)
{
    AUTO_FREE char *dir = mem_printf("%s/%s", certs_dir, authority);
    AUTO(str_list) struct str_list files = {0};
    AUTO(str) struct str all = STR_INIT(BOUND_CERTIFICATES);

    list_certs(dir, &files);
    for (size_t i = 0; i < files.n; i++) {
        const char *path = files.items[i];
        AUTO(str) struct str text = STR_INIT(BOUND_CERTIFICATES);
        struct err e = ERR_INIT;

        if (str_ends(path, ".cert")) {
            str_list_add(&p->identities, path);
            str_list_take(&p->identities,
                          mem_printf("%.*s.key", (int)(strlen(path) - strlen(".cert")), path));
        } else if (oci_config_read(path, &text, &e) < 0 ||
                   str_append(&all, text.buf, text.len) < 0 || str_append(&all, "\n", 1) < 0) {
            log_warn("certificate %s is left out: %s", path, e.kind ? e.msg : "too much");
        }
    }
    if (all.len)
        p->ca_pem = mem_strdup(str_text(&all));
}

void oci_host_policy_get(const struct oci_registries *r, const char *authority, const char *sender,
                         struct oci_host_policy *ret)
{
    struct oci_host_policy p = {0};
    AUTO_FREE char *host = host_of(authority);
    AUTO_FREE char *from = host_of(sender ? sender : authority);

    if (r->certs_dir && !strchr(authority, '/') && !str_eq(authority, "..") &&
        !str_eq(authority, "."))
        read_certs(r->certs_dir, str_eq(authority, DOCKER_API) ? DOCKER_IO : authority, &p);
    /* A CA of its own says that loopback is to be trusted by it, not by being near. */
    p.insecure = is_listed(&r->insecure, authority, host) ||
                 (is_loopback(host) && is_loopback(from) && !p.ca_pem);
    p.named = p.insecure || p.ca_pem || p.identities.n || is_mirror(r, authority);
    *ret = p;
    ret->tls = (struct http_tls){
        .ca_pem = ret->ca_pem, .identities = &ret->identities, .insecure = ret->insecure};
}

void oci_host_policy_free(struct oci_host_policy *p)
{
    free(p->ca_pem);
    str_list_free(&p->identities);
    *p = (struct oci_host_policy){0};
}

size_t oci_registries_bases(const struct oci_registries *r, const char *registry,
                            struct str_list *ret)
{
    const char *authority = str_eq(registry, DOCKER_IO) ? DOCKER_API : registry;
    AUTO(oci_host_policy) struct oci_host_policy p = {0};
    size_t n = strlen(registry);

    for (size_t i = 0; i < r->mirrors.n; i++) {
        const char *m = r->mirrors.items[i];

        if (!str_starts(m, registry) || m[n] != '=')
            continue;
        const char *url = m + n + 1;
        size_t len = strlen(url);

        while (len && url[len - 1] == '/')
            len--;
        str_list_take(ret,
                      mem_printf("%s%.*s", strstr(url, "://") ? "" : "https://", (int)len, url));
    }
    size_t mirrors = ret->n;

    oci_host_policy_get(r, authority, NULL, &p);
    str_list_take(ret, mem_printf("https://%s", authority));
    if (p.insecure)
        str_list_take(ret, mem_printf("http://%s", authority));
    return mirrors;
}

char *oci_registries_url(const char *base, const char *repository, const char *path)
{
    const char *host = strstr(base, "://");
    const char *below = strchr(host ? host + 3 : base, '/');
    bool whole = below && (str_eq(below, "/v2") || str_starts(below, "/v2/"));

    return mem_printf("%s%s/%s%s", base, whole ? "" : "/v2", repository, path);
}

bool oci_url_allowed(const struct oci_registries *r, const char *url, const char *sender)
{
    AUTO_FREE char *authority = oci_url_authority(url);
    AUTO(oci_host_policy) struct oci_host_policy p = {0};

    if (str_starts(url, "https://"))
        return true;
    if (!str_starts(url, "http://"))
        return false;
    for (size_t i = 0; i < r->mirrors.n; i++) {
        const char *mirror = strstr(r->mirrors.items[i], "=http://");
        AUTO_FREE char *named = mirror ? oci_url_authority(mirror + 1) : NULL;

        if (str_eq(named, authority))
            return true;
    }
    oci_host_policy_get(r, authority, sender, &p);
    return p.insecure;
}
