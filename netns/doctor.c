#include "netns/doctor.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "netns/dns.h"
#include "netns/firewalls.h"
#include "netns/names.h"
#include "netns/nl.h"
#include "netns/ways.h"

static void say(struct str_list *l, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void say(struct str_list *l, const char *fmt, ...)
{
    char text[512];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    str_list_add(l, text);
}

static void look_at_ways(struct str_list *ret, struct err *e)
{
    AUTO(net_nl) struct net_nl *nl = NULL;
    struct net_ways w = {0};

    if (net_nl_open(&nl, e) < 0 || net_ways_find(nl, NET_LINK_COMMON, &w, e) < 0) {
        say(ret, "error: %s", e->msg);
        return;
    }
    if (!w.has4)
        say(ret, "warn: this host has no IPv4 default route: external runs reach nothing outside");
    if (!w.host_ipv6)
        say(ret, "note: IPv6 is off on this host: runs have IPv4 only");
    else if (w.has6 && !net_ways_host_forwards(AF_INET6) &&
             access("/proc/sys/net/ipv6/conf/lo/force_forwarding", F_OK) < 0)
        say(ret,
            "note: external runs reach IPv4 only; for IPv6: sysctl net.ipv6.conf.all.forwarding=1, and "
            "net.ipv6.conf.%s.accept_ra=2 first where the host itself uses router advertisements",
            w.uplink[0]);
    net_ways_free(&w);
}

static void look_at_resolvers(const char *path, struct str_list *ret)
{
    AUTO(net_resolv) struct net_resolv r;

    net_dns_host(path, &r);
    if (r.fallback)
        say(ret,
            "warn: %s names no resolver that a run can reach%s: runs are given public ones; put the real ones "
            "there",
            path ? path : "/etc/resolv.conf", r.stub ? " (loopback only)" : "");
}

int net_doctor(const char *resolv_conf, struct str_list *ret, struct err *e)
{
    struct err seen = ERR_INIT;

    if (access("/proc/sys/net", F_OK) < 0)
        return err_sys(e, "look at /proc/sys/net");
    if (geteuid() != 0)
        say(ret, "error: networks are made by root only");
    net_firewalls_nftables(ret);
    look_at_ways(ret, &seen);
    net_firewalls_legacy(ret);
    look_at_resolvers(resolv_conf, ret);
    return 0;
}
