/*
 * Where we may connect (S15), and through which proxy (B018). The proxy is chosen here rather than by
 * libcurl because the check of the dialled address must know whether that is the proxy's.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/err.h"
#include "base/http.h"
#include "base/late_curl.h"
#include "base/mem.h"
#include "base/units.h"

struct block4 {
    uint32_t net;
    unsigned bits;
};

#define NET4(a, b, c, d) \
    ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))

/* IANA special-purpose registry without private use (RFC 1918) and shared space (RFC 6598). */
static const struct block4 special4[] = {
    {NET4(0, 0, 0, 0), 8},        {NET4(127, 0, 0, 0), 8},     {NET4(169, 254, 0, 0), 16},
    {NET4(192, 0, 0, 0), 24},     {NET4(192, 0, 2, 0), 24},    {NET4(192, 88, 99, 0), 24},
    {NET4(198, 18, 0, 0), 15},    {NET4(198, 51, 100, 0), 24}, {NET4(203, 0, 113, 0), 24},
    {NET4(224, 0, 0, 0), 4},      {NET4(240, 0, 0, 0), 4},     {NET4(100, 100, 100, 200), 32},
    {NET4(168, 63, 129, 16), 32}, /* cloud metadata */
};

struct block6 {
    const char *net;
    unsigned bits;
};

static const struct block6 special6[] = {
    {"::", 128},   {"::1", 128},       {"fe80::", 10}, {"fec0::", 10},         {"ff00::", 8},
    {"100::", 64}, {"2001:db8::", 32}, {"2001::", 23}, {"fd00:ec2::254", 128},
};

static bool is_special4(uint32_t addr)
{
    for (size_t i = 0; i < ARRAY_SIZE(special4); i++) {
        if (((addr ^ special4[i].net) >> (32 - special4[i].bits)) == 0)
            return true;
    }
    return false;
}

static bool prefix_equal(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;

    if (memcmp(a, b, whole) != 0)
        return false;
    return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

static uint32_t be32(const uint8_t *p)
{
    return NET4(p[0], p[1], p[2], p[3]);
}

/* An IPv4 address carried in an IPv6 one is judged as what it is. */
static bool carries_special4(const uint8_t *a)
{
    static const uint8_t nat64[12] = {0x00, 0x64, 0xff, 0x9b};
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    static const uint8_t compat[12];

    if (memcmp(a, nat64, 12) == 0 || memcmp(a, mapped, 12) == 0 || memcmp(a, compat, 12) == 0)
        return is_special4(be32(a + 12));
    return a[0] == 0x20 && a[1] == 0x02 && is_special4(be32(a + 2));
}

static bool is_special6(const uint8_t *a)
{
    for (size_t i = 0; i < ARRAY_SIZE(special6); i++) {
        uint8_t net[16];

        BUG_ON(inet_pton(AF_INET6, special6[i].net, net) != 1);
        if (prefix_equal(a, net, special6[i].bits))
            return true;
    }
    return carries_special4(a);
}

bool http_address_is_special(const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET)
        return is_special4(ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr));
    if (sa->sa_family == AF_INET6)
        return is_special6(((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr.s6_addr);
    return true; /* neither: nothing a registry lives behind */
}

static void free_url(CURLU **u)
{
    curl_url_cleanup(*u);
}
#define AUTO_CURLU __attribute__((cleanup(free_url)))

static void free_curl_text(char **s)
{
    curl_free(*s);
}
#define AUTO_CURL_TEXT __attribute__((cleanup(free_curl_text)))

static const char *env2(const char *scheme, const char *suffix, bool upper)
{
    AUTO_FREE char *name = mem_printf("%s%s", scheme, suffix);

    for (char *p = name; upper && *p; p++)
        *p = (char)toupper((unsigned char)*p);
    return getenv(name);
}

/* "10.0.0.0/8" and "fd00::/8" entries of no_proxy. */
static bool network_has(const char *net, size_t n, const char *host)
{
    AUTO_FREE char *text = mem_strndup(net, n);
    char *slash = strchr(text, '/');
    uint8_t a[16], b[16];
    uint64_t bits;
    struct err e = ERR_INIT;

    if (!slash)
        return false;
    *slash = '\0';
    for (int family = AF_INET; family; family = family == AF_INET ? AF_INET6 : 0) {
        uint64_t most = family == AF_INET ? 32 : 128;

        if (inet_pton(family, text, a) == 1 && inet_pton(family, host, b) == 1)
            return units_u64(slash + 1, most, &bits, &e) == 0 && prefix_equal(a, b, (unsigned)bits);
    }
    return false;
}

/* One entry of no_proxy: the host itself, a domain it is in, or a network. */
static bool no_proxy_entry(const char *entry, size_t n, const char *host)
{
    size_t len = strlen(host);

    if (n == 1 && *entry == '*')
        return true;
    if (network_has(entry, n, host))
        return true;
    if (n && *entry == '.') {
        entry++;
        n--;
    }
    if (!n || n > len || strncasecmp(host + len - n, entry, n) != 0)
        return false;
    return n == len || host[len - n - 1] == '.';
}

static bool no_proxy_has(const char *list, const char *host)
{
    while (list && *list) {
        size_t n;

        list += strspn(list, ", ");
        n = strcspn(list, ", ");
        if (n && no_proxy_entry(list, n, host))
            return true;
        list += n;
    }
    return false;
}

char *http_proxy_for(const char *url)
{
    AUTO_CURLU CURLU *u = curl_url();
    AUTO_CURL_TEXT char *scheme = NULL;
    AUTO_CURL_TEXT char *host = NULL;
    const char *no = getenv("no_proxy"), *proxy;

    if (!u || curl_url_set(u, CURLUPART_URL, url, 0) != CURLUE_OK ||
        curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
        curl_url_get(u, CURLUPART_HOST, &host, 0) != CURLUE_OK)
        return mem_strdup("");
    if (host[0] == '[') { /* IPv6 literals come in brackets */
        memmove(host, host + 1, strlen(host));
        host[strcspn(host, "]%")] = '\0';
    }
    if (no_proxy_has(no ? no : getenv("NO_PROXY"), host))
        return mem_strdup("");

    proxy = env2(scheme, "_proxy", false);
    /* HTTP_PROXY in capitals is a request header in CGI programs (CVE-2016-5385): not read, as curl does. */
    if (!proxy && strcmp(scheme, "http") != 0)
        proxy = env2(scheme, "_PROXY", true);
    if (!proxy)
        proxy = getenv("all_proxy");
    if (!proxy)
        proxy = getenv("ALL_PROXY");
    return mem_strdup(proxy ? proxy : "");
}

static bool same_part(CURLU *a, CURLU *b, CURLUPart part)
{
    AUTO_CURL_TEXT char *x = NULL;
    AUTO_CURL_TEXT char *y = NULL;

    return curl_url_get(a, part, &x, CURLU_DEFAULT_PORT) == CURLUE_OK &&
           curl_url_get(b, part, &y, CURLU_DEFAULT_PORT) == CURLUE_OK && strcasecmp(x, y) == 0;
}

bool http_same_origin(const char *a, const char *b)
{
    AUTO_CURLU CURLU *x = curl_url();
    AUTO_CURLU CURLU *y = curl_url();

    return x && y && curl_url_set(x, CURLUPART_URL, a, 0) == CURLUE_OK &&
           curl_url_set(y, CURLUPART_URL, b, 0) == CURLUE_OK && same_part(x, y, CURLUPART_SCHEME) &&
           same_part(x, y, CURLUPART_HOST) && same_part(x, y, CURLUPART_PORT);
}

char *http_resolve(const char *base, const char *location)
{
    AUTO_CURLU CURLU *u = curl_url();
    AUTO_CURL_TEXT char *scheme = NULL;
    AUTO_CURL_TEXT char *text = NULL;

    if (!u || curl_url_set(u, CURLUPART_URL, base, CURLU_PATH_AS_IS) != CURLUE_OK ||
        curl_url_set(u, CURLUPART_URL, location, CURLU_PATH_AS_IS | CURLU_URLENCODE) != CURLUE_OK ||
        curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK)
        return NULL;
    if (strcasecmp(scheme, "http") != 0 && strcasecmp(scheme, "https") != 0)
        return NULL;
    curl_url_set(u, CURLUPART_USER, NULL, 0);
    curl_url_set(u, CURLUPART_PASSWORD, NULL, 0);
    curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0);
    if (curl_url_get(u, CURLUPART_URL, &text, 0) != CURLUE_OK)
        return NULL;
    return mem_strdup(text);
}
