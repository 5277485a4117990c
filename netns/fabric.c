#include "netns/fabric.h"

#include <errno.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/if.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "netns/bridge.h"
#include "netns/nl.h"

/*
 * What no external run reaches unless the operator allows it: this network, link-local (169.254.169.254 and
 * its like: metadata of AWS, GCP, Azure, OpenStack), metadata services elsewhere (Alibaba, Azure's wire
 * server, Oracle), multicast and reserved; the same for IPv6, with AWS's and GCP's metadata addresses, and
 * IPv4 link-local in IPv6 forms.
 */
static const char denied_always[] =
    "0.0.0.0/8 127.0.0.0/8 169.254.0.0/16 100.100.100.200 168.63.129.16 192.0.0.192 224.0.0.0/4 240.0.0.0/4 "
    "::1 fe80::/10 fd00:ec2::/32 fd20:ce::/32 ff00::/8 ::ffff:0:0/96 64:ff9b::a9fe:0/112 2002:a9fe::/32";

int net_fabric_open(struct net_fabric *f, struct err *e)
{
    return net_nl_open(&f->nl, e) < 0 || net_nft_open(&f->names, &f->nft, e) < 0 ? -1 : 0;
}

void net_fabric_close(struct net_fabric *f)
{
    net_nl_close(take_ptr(&f->nl));
    net_nft_close(take_ptr(&f->nft));
    net_ways_free(&f->ways);
    net_resolv_free(&f->resolv);
    free(take_ptr(&f->deny.items));
    free(take_ptr(&f->allow.items));
    free(take_ptr(&f->only.items));
}

static void fill_rules(const struct net_fabric *f, struct net_nft_rules *r)
{
    struct err never = ERR_INIT;

    *r = (struct net_nft_rules){
        .plan = &f->plan, .allow = f->allow, .only = f->only, .out_rate = f->rates.out};
    BUG_ON(net_ipam_parse_list(denied_always, &r->deny, &never) < 0);
    net_ipam_add(&r->deny, &f->plan.pool4);
    if (f->plan.pool6.addr.family)
        net_ipam_add(&r->deny, &f->plan.pool6);
    for (size_t i = 0; i < f->deny.n; i++)
        net_ipam_add(&r->deny, &f->deny.items[i]);
    for (size_t i = 0; i < f->resolv.n; i++) {
        struct net_cidr c = {.addr = f->resolv.servers[i], .len = 128};

        net_ipam_add(&r->dns, &c);
    }
    memcpy(r->uplink, f->ways.uplink, sizeof(r->uplink));
    memcpy(r->opened, f->opened, sizeof(r->opened));
}

static int make_rules(struct net_fabric *f, const struct net_port *ports, size_t n_ports,
                      struct err *e)
{
    struct net_nft_rules r;
    int rc;

    fill_rules(f, &r);
    rc = net_nft_rebuild(f->nft, &r, ports, n_ports, e);
    free(r.deny.items);
    free(r.dns.items);
    return rc;
}

/* Host ends that are there. */
struct found {
    const struct net_names *names;
    struct net_link *links;
    size_t n;
};

static int visit_port(void *arg, const struct nlmsghdr *h, struct err *e)
{
    struct found *f = arg;
    struct net_link link;
    unsigned slot;

    (void)e;
    if (net_nl_parse_link(h, &link) < 0 || !net_names_is_port(f->names, link.name, &slot))
        return 0;
    if (f->n % 64 == 0)
        f->links = mem_realloc(f->links, f->n + 64, sizeof(*f->links));
    f->links[f->n++] = link;
    return 0;
}

static const struct net_port *port_named(const struct net_port *ports, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(ports[i].name, name))
            return &ports[i];
    return NULL;
}

/* Each link that is there becomes the port it should be, or goes when no lease has it. */
static int repair_ports(struct net_fabric *f, const struct net_port *ports, size_t n_ports,
                        struct err *e)
{
    struct ifinfomsg ifi = {.ifi_family = AF_UNSPEC};
    struct found found = {.names = &f->names};
    int rc = net_nl_ask(f->nl, net_nl_msg(RTM_GETLINK, NLM_F_DUMP, &ifi, sizeof(ifi)), visit_port,
                        &found, "list links", e);

    for (size_t i = 0; rc == 0 && i < found.n; i++) {
        const struct net_port *p = port_named(ports, n_ports, found.links[i].name);

        if (p)
            net_veth_port(f->nl, p, f->bridge[p->shard][p->which], found.links[i].index, ENODEV);
        else
            net_veth_remove(f->nl, found.links[i].name);
    }
    free(found.links);
    return rc < 0 ? -1 : net_nl_send(f->nl, e);
}

/* Neighbours on our bridges that belong to no port: what a crash left. */
struct strangers {
    const struct net_fabric *f;
    const struct net_port *ports;
    size_t n_ports, n;
    struct net_addr *addr;
    int *index;
};

static bool is_known(const struct strangers *s, const struct net_addr *a)
{
    for (size_t i = 0; i < s->n_ports; i++)
        for (int f = 0; f < 2; f++)
            if (memcmp(&s->ports[i].addr[f], a, sizeof(*a)) == 0)
                return true;
    return false;
}

static int visit_neighbour(void *arg, const struct nlmsghdr *h, struct err *e)
{
    const struct ndmsg *nd = nlmsg_data(h);
    struct nlattr *tb[NDA_MAX + 1];
    struct strangers *s = arg;
    struct net_addr a = {.family = nd->ndm_family};
    bool ours = false;

    (void)e;
    for (unsigned i = 0; i < NET_SHARDS * NET_NETS; i++)
        ours = ours || s->f->bridge[i / NET_NETS][i % NET_NETS] == nd->ndm_ifindex;
    if (!ours || !(nd->ndm_state & NUD_PERMANENT) ||
        nlmsg_parse((struct nlmsghdr *)h, sizeof(*nd), tb, NDA_MAX, NULL) < 0 || !tb[NDA_DST] ||
        nla_len(tb[NDA_DST]) > (int)sizeof(a.b))
        return 0;
    memcpy(a.b, nla_data(tb[NDA_DST]), (size_t)nla_len(tb[NDA_DST]));
    if (is_known(s, &a))
        return 0;
    s->addr = mem_realloc(s->addr, s->n + 1, sizeof(*s->addr));
    s->index = mem_realloc(s->index, s->n + 1, sizeof(*s->index));
    s->addr[s->n] = a;
    s->index[s->n++] = nd->ndm_ifindex;
    return 0;
}

static int forget_strangers(struct net_fabric *f, const struct net_port *ports, size_t n_ports,
                            struct err *e)
{
    static const int families[] = {AF_INET, AF_INET6};
    struct strangers s = {.f = f, .ports = ports, .n_ports = n_ports};
    int rc = 0;

    for (size_t i = 0; i < ARRAY_SIZE(families) && rc == 0; i++) {
        struct ndmsg nd = {.ndm_family = (uint8_t)families[i]};

        rc = net_nl_ask(f->nl, net_nl_msg(RTM_GETNEIGH, NLM_F_DUMP, &nd, sizeof(nd)),
                        visit_neighbour, &s, "list neighbours", e);
    }
    for (size_t i = 0; i < s.n && rc == 0; i++)
        net_nl_del_neighbour(f->nl, s.index[i], &s.addr[i]);
    free(s.addr);
    free(s.index);
    return rc < 0 ? -1 : net_nl_send(f->nl, e);
}

static bool has_shard(const struct net_fabric *f, unsigned shard)
{
    return f->shards & (1U << shard);
}

static int ensure_shard(struct net_fabric *f, unsigned shard, struct err *e)
{
    for (int w = 0; w < NET_NETS; w++)
        if (net_bridge_ensure(f->nl, &f->names, shard, (enum net_which)w, f->ways.mtu,
                              &f->bridge[shard][w], e) < 0)
            return -1;
    return 0;
}

static int shard_up(struct net_fabric *f, unsigned shard, struct err *e)
{
    for (int w = 0; w < NET_NETS; w++)
        if (net_bridge_up(f->nl, &f->names, shard, (enum net_which)w, &f->plan, f->bridge[shard][w],
                          e) < 0)
            return -1;
    return net_ways_open(&f->ways, f->names.bridge[shard][NET_EXTERNAL_NET], e);
}

/* The shards that ports need are made, the others go. */
static int ensure_shards(struct net_fabric *f, const struct net_port *ports, size_t n_ports,
                         struct err *e)
{
    f->shards = 1;
    for (size_t i = 0; i < n_ports; i++)
        f->shards |= 1U << ports[i].shard;
    for (unsigned s = 0; s < NET_SHARDS; s++) {
        if (has_shard(f, s) && ensure_shard(f, s, e) < 0)
            return -1;
        for (int w = 0; w < NET_NETS && !has_shard(f, s); w++) {
            net_bridge_remove(f->nl, &f->names, s, (enum net_which)w);
            f->bridge[s][w] = 0;
        }
    }
    return net_nl_send(f->nl, e);
}

int net_fabric_make(struct net_fabric *f, const struct net_port *ports, size_t n_ports,
                    struct err *e)
{
    net_ways_free(&f->ways);
    if (net_ways_find(f->nl, f->names.tag, &f->ways, e) < 0 ||
        ensure_shards(f, ports, n_ports, e) < 0)
        return -1;
    net_ways_plan(&f->ways, f->names.bridge[0][NET_EXTERNAL_NET], f->opened);
    if (make_rules(f, ports, n_ports, e) < 0)
        return -1;
    for (unsigned s = 0; s < NET_SHARDS; s++)
        if (has_shard(f, s) && shard_up(f, s, e) < 0)
            return -1;
    return repair_ports(f, ports, n_ports, e) < 0 ? -1 : forget_strangers(f, ports, n_ports, e);
}

static int shard_intact(struct net_fabric *f, unsigned shard, bool *ret, struct err *e)
{
    *ret = false;
    for (int w = 0; w < NET_NETS; w++) {
        const char *name = f->names.bridge[shard][w];
        struct net_link link;

        if (net_nl_link(f->nl, name, &link, e) < 0)
            return -1;
        if (link.index != f->bridge[shard][w] || !(link.flags & IFF_UP)) {
            log_debug("bridge=%s is gone or down: making the networks anew", name);
            return 0;
        }
    }
    *ret = net_ways_are_open(&f->ways, f->names.bridge[shard][NET_EXTERNAL_NET]);
    return 0;
}

int net_fabric_shard(struct net_fabric *f, unsigned shard, bool *ret, struct err *e)
{
    *ret = true;
    if (has_shard(f, shard))
        return shard_intact(f, shard, ret, e);
    if (ensure_shard(f, shard, e) < 0 || shard_up(f, shard, e) < 0)
        return -1;
    f->shards |= 1U << shard;
    return 0;
}

int net_fabric_intact(struct net_fabric *f, bool *ret, struct err *e)
{
    *ret = false;
    if (f->opened[0][0][0] && net_ways_host_forwards(AF_INET))
        return 0;
    if (net_ways_same(&f->ways, f->nl, ret, e) < 0)
        return -1;
    if (!*ret)
        return 0;
    return net_nft_intact(f->nft, ret, e);
}

int net_fabric_remove(struct net_fabric *f, struct err *e)
{
    struct net_ways now;

    for (unsigned i = 0; i < NET_SHARDS * NET_NETS; i++)
        net_bridge_remove(f->nl, &f->names, i / NET_NETS, (enum net_which)(i % NET_NETS));
    if (net_nl_send(f->nl, e) < 0)
        return -1;
    if (net_ways_find(f->nl, f->names.tag, &now, e) < 0)
        return -1;
    if (!now.others)
        net_ways_restore(f->opened);
    memset(f->opened, 0, sizeof(f->opened));
    net_ways_free(&now);
    return net_nft_remove(f->nft, e);
}
