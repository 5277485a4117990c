#include "netns/doctor.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <netinet/in.h> /* before linux/netfilter.h, which would define the same */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include "base/err.h"
#include "base/mem.h"
#include "netns/dns.h"
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

static const char *family_name(uint32_t family)
{
    switch (family) {
    case NFPROTO_IPV4: return "ip";
    case NFPROTO_IPV6: return "ip6";
    case NFPROTO_INET: return "inet";
    default: return "bridge";
    }
}

/*
 * A base chain in the way of forwarded packets whose policy is to drop: what it does not name is lost. Whether it
 * has a rule that lets ours through cannot be told from outside, so this is a warning with the way to find out.
 */
static void look_at_chain(const struct nftnl_chain *c, struct str_list *ret)
{
    const char *table = nftnl_chain_get_str(c, NFTNL_CHAIN_TABLE),
               *name = nftnl_chain_get_str(c, NFTNL_CHAIN_NAME);
    uint32_t family = nftnl_chain_get_u32(c, NFTNL_CHAIN_FAMILY);
    const char *kind = family_name(family);

    if (!nftnl_chain_is_set(c, NFTNL_CHAIN_HOOKNUM) || !nftnl_chain_is_set(c, NFTNL_CHAIN_POLICY) ||
        nftnl_chain_get_u32(c, NFTNL_CHAIN_POLICY) != NF_DROP ||
        str_starts(table, NET_LINK_COMMON) ||
        nftnl_chain_get_u32(c, NFTNL_CHAIN_HOOKNUM) != NF_INET_FORWARD ||
        (family != NFPROTO_IPV4 && family != NFPROTO_IPV6 && family != NFPROTO_INET))
        return;
    say(ret,
        "warn: the firewall chain %s %s %s drops forwarded packets by default; external runs get out only if it "
        "lets links \"%s*\" through, e.g.: nft insert rule %s %s %s iifname \"%s*\" accept; nft insert rule %s %s %s "
        "oifname \"%s*\" ct state established,related accept",
        kind, table, name, NET_LINK_COMMON, kind, table, name, NET_LINK_COMMON, kind, table, name,
        NET_LINK_COMMON);
}

static int visit_chain(const struct nlmsghdr *h, void *arg)
{
    struct nftnl_chain *c = nftnl_chain_alloc();

    if (c && nftnl_chain_nlmsg_parse(h, c) == 0)
        look_at_chain(c, arg);
    nftnl_chain_free(c);
    return MNL_CB_OK;
}

/* 0, or the errno with which nftables answered. */
static int list_chains(struct mnl_socket *sk, struct str_list *ret)
{
    char buf[32768];
    struct nlmsghdr *h =
        nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETCHAIN, NFPROTO_UNSPEC, NLM_F_DUMP, 1);
    int rc = MNL_CB_OK;

    if (mnl_socket_sendto(sk, h, h->nlmsg_len) < 0)
        return errno;
    while (rc > MNL_CB_STOP) {
        ssize_t n = mnl_socket_recvfrom(sk, buf, sizeof(buf));

        if (n < 0)
            return errno;
        rc = mnl_cb_run(buf, (size_t)n, 1, mnl_socket_get_portid(sk), visit_chain, ret);
    }
    return rc < 0 ? errno : 0;
}

static void look_at_nftables(struct str_list *ret)
{
    struct mnl_socket *sk = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
    int sys;

    if (!sk || mnl_socket_bind(sk, 0, MNL_SOCKET_AUTOPID) < 0) {
        say(ret, "error: the kernel has no netfilter sockets (%s): it must be built with nf_tables",
            strerror(errno));
        if (sk)
            mnl_socket_close(sk);
        return;
    }
    sys = list_chains(sk, ret);
    if (sys)
        say(ret,
            "error: nftables does not answer (%s): is the module nf_tables there, and are you root?",
            strerror(sys));
    mnl_socket_close(sk);
}

/* Its rules cannot be read through nftables. */
static void look_at_legacy(struct str_list *ret)
{
    if (access("/proc/net/ip_tables_names", F_OK) == 0) {
        FILE *f = fopen("/proc/net/ip_tables_names", "re");
        char line[64];

        while (f && fgets(line, sizeof(line), f))
            if (str_starts(line, "filter"))
                say(ret,
                    "note: legacy iptables has rules here; if its FORWARD chain drops, external runs do not get "
                    "out: iptables-legacy -I FORWARD -i '%s+' -j ACCEPT; iptables-legacy -I FORWARD -o '%s+' -j ACCEPT",
                    NET_LINK_COMMON, NET_LINK_COMMON);
        if (f)
            fclose(f);
    }
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
    look_at_nftables(ret);
    look_at_ways(ret, &seen);
    look_at_legacy(ret);
    look_at_resolvers(resolv_conf, ret);
    return 0;
}
