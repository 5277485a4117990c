#pragma once
/*
 * dns.h - the container's /etc/resolv.conf and /etc/hosts, made from the host's.
 *
 * A stub on the host's loopback (systemd-resolved, NetworkManager's dnsmasq) cannot be reached from a
 * container, so it is seen through: the servers behind it are taken. Threads: any. Ownership: texts returned
 * are new strings.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "netns/ipam.h"

struct err;

#define NET_DNS_SERVERS 3 /* MAXNS of resolv.h: more are not asked */
struct net_resolv {
    struct net_addr servers[NET_DNS_SERVERS]; /* usable from a container, in order */
    size_t n;
    struct str_list search, options;
    bool stub;     /* the file named loopback servers only */
    bool fallback; /* no server was found anywhere: public ones were put in */
};

void net_resolv_free(struct net_resolv *r);
DEFINE_AUTO_VALUE(net_resolv, net_resolv_free)

/* Read a resolv.conf text (resolv.conf(5)); what is not understood, or not usable inside, is left out. Pure. */
void net_dns_parse(const char *text, size_t n, struct net_resolv *ret);
/* The host's: `path` (NULL: /etc/resolv.conf), or behind its stub. Never fails: in the end public servers. */
void net_dns_host(const char *path, struct net_resolv *ret);
/* For a run. external: else a file without servers, so that look-ups fail at once. ipv6: is there a way out. */
char *net_dns_resolv_conf(const struct net_resolv *r, bool external, bool ipv6);
/* Letters, digits, '-', '.', at most 253 bytes. */
bool net_dns_hostname_ok(const char *name);
/* addr: texts, may be "" (IPv6). */
char *net_dns_hosts(const char *hostname, const char *addr4, const char *addr6);
