#include "netns/dns.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"

#define RESOLV_BYTES (64 * BOUND_KIB)
#define LIST_WORDS   32 /* search domains, options: glibc 2.26 and later take any number */

/* Where the programs behind a stub write the real servers. */
static const char *const behind_stub[] = {
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
    "/run/resolvconf/resolv.conf",
};
static const char *const public_servers[] = {"8.8.8.8", "1.1.1.1"};

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

void net_resolv_free(struct net_resolv *r)
{
    str_list_free(&r->search);
    str_list_free(&r->options);
    *r = (struct net_resolv){0};
}

/* Only letters, digits and the given marks. */
static bool made_of(const char *word, const char *marks, size_t max)
{
    size_t n = strlen(word);

    for (const char *p = word; *p; p++)
        if (!strchr(letters, *p) && !strchr(marks, *p))
            return false;
    return n > 0 && n <= max;
}

bool net_dns_hostname_ok(const char *name)
{
    return made_of(name, "-.", 253) && name[0] != '-' && name[0] != '.';
}

static void add_server(struct net_resolv *r, const char *word)
{
    struct err ignored = ERR_INIT;
    struct net_addr a;

    /* "fe80::1%eth0": the zone is the host's, there is none such inside */
    if (net_ipam_parse_addr(word, &a, &ignored) < 0 ||
        (a.family == AF_INET6 && net_ipam_is_link_local(&a)))
        return;
    if (net_ipam_is_loopback(&a)) {
        r->stub = true;
        return;
    }
    if (r->n < NET_DNS_SERVERS)
        r->servers[r->n++] = a;
}

static void take_words(struct str_list *l, char *save, const char *marks)
{
    str_list_free(l); /* the last line of a kind counts (resolv.conf(5)) */
    *l = (struct str_list){0};
    for (char *word = strtok_r(NULL, " \t\r", &save); word && l->n < LIST_WORDS;
         word = strtok_r(NULL, " \t\r", &save))
        if (made_of(word, marks, 253))
            str_list_add(l, word);
}

static void parse_line(char *line, struct net_resolv *r)
{
    char *save = NULL, *key = strtok_r(line, " \t\r", &save);

    if (!key || key[0] == '#' || key[0] == ';')
        return;
    if (str_eq(key, "nameserver")) {
        char *word = strtok_r(NULL, " \t\r", &save);

        if (word)
            add_server(r, word);
    } else if (str_eq(key, "search") || str_eq(key, "domain")) {
        take_words(&r->search, save, "-._");
    } else if (str_eq(key, "options")) {
        take_words(&r->options, save, "-:_");
    }
}

void net_dns_parse(const char *text, size_t n, struct net_resolv *ret)
{
    AUTO_FREE char *copy = mem_strndup(text, n);
    char *save = NULL;

    *ret = (struct net_resolv){0};
    for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        parse_line(line, ret);
}

/* May be a link (systemd-resolved's is); root's file, not an outsider's. */
static void parse_file(const char *path, struct net_resolv *ret)
{
    AUTO(str) struct str s = STR_INIT(RESOLV_BYTES);
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct err ignored = ERR_INIT;

    *ret = (struct net_resolv){0};
    if (fd >= 0 && fd_read_all(fd, &s, &ignored) == 0)
        net_dns_parse(str_text(&s), s.len, ret);
}

void net_dns_host(const char *path, struct net_resolv *ret)
{
    parse_file(path ? path : "/etc/resolv.conf", ret);
    for (size_t i = 0; i < ARRAY_SIZE(behind_stub) && !ret->n; i++) {
        AUTO(net_resolv) struct net_resolv real;

        parse_file(behind_stub[i], &real);
        memcpy(ret->servers, real.servers, sizeof(ret->servers));
        ret->n = real.n;
    }
    for (size_t i = 0;
         i < ARRAY_SIZE(public_servers) && ret->n < i + 1 && (!ret->n || ret->fallback); i++) {
        add_server(ret, public_servers[i]);
        ret->fallback = true;
    }
}

static void append_words(struct str *s, const char *key, const struct str_list *l)
{
    AUTO_FREE char *words = l->n ? str_list_join(l, " ") : NULL;

    if (words)
        BUG_ON(str_appendf(s, "%s %s\n", key, words) < 0);
}

char *net_dns_resolv_conf(const struct net_resolv *r, bool external, bool ipv6)
{
    AUTO(str) struct str s = STR_INIT(RESOLV_BYTES);
    char text[NET_ADDR_TEXT_MAX];

    if (!external) {
        BUG_ON(str_append_text(&s, "# This run has no network access: there is no resolver.\n") <
               0);
        return str_take(&s);
    }
    for (size_t i = 0; i < r->n; i++) {
        if (r->servers[i].family == AF_INET6 && !ipv6)
            continue;
        net_ipam_text(&r->servers[i], text);
        BUG_ON(str_appendf(&s, "nameserver %s\n", text) < 0);
    }
    append_words(&s, "search", &r->search);
    append_words(&s, "options", &r->options);
    return str_take(&s);
}

char *net_dns_hosts(const char *hostname, const char *addr4, const char *addr6)
{
    AUTO(str) struct str s = STR_INIT(RESOLV_BYTES);

    BUG_ON(str_append_text(&s, "127.0.0.1\tlocalhost\n"
                               "::1\tlocalhost ip6-localhost ip6-loopback\n"
                               "fe00::\tip6-localnet\n"
                               "ff00::\tip6-mcastprefix\n"
                               "ff02::1\tip6-allnodes\n"
                               "ff02::2\tip6-allrouters\n") < 0);
    if (addr4[0])
        BUG_ON(str_appendf(&s, "%s\t%s\n", addr4, hostname) < 0);
    if (addr6[0])
        BUG_ON(str_appendf(&s, "%s\t%s\n", addr6, hostname) < 0);
    return str_take(&s);
}
