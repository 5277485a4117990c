/*
 * The rules, as `nft list` shows them (T is the tag, "cwk…"; every link and table of ours begins with it).
 *
 *   table bridge T {
 *     set port4 { typeof iifname . ether saddr . ip saddr }      # filled per run
 *     set port6 { typeof iifname . ether saddr . ip6 saddr }
 *     set out { type ifname; limit rate over … }               # only where runs have an egress limit
 *     chain guard { type filter hook prerouting priority -300
 *       iifname != "T*" accept
 *       iifname @out drop                                       # what goes beyond the limit
 *       ether type ip  iifname . ether saddr . ip saddr @port4 accept
 *       ether type ip6 icmpv6 type 133-137 drop                  # neighbour discovery: nobody needs it here
 *       ether type ip6 iifname . ether saddr . ip6 saddr @port6 accept
 *       drop } }                                                 # ARP, VLAN tags, anything else
 *
 * The external network's bridges are known by how their names begin ("Text", "Text1"…).
 * "inet T" decides in prerouting, behind connection tracking (-200) and before anybody's DNAT (-100), so that a
 * port published by another container engine is no way around. input and forward are second locks, and
 * keep the outside from opening connections to runs.
 */
#include "netns/nft.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/common.h>
#include <netinet/in.h> /* before linux/netfilter.h, which would define the same */
#include <string.h>
#include <sys/socket.h>
#include <linux/if_ether.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter_bridge.h>
#include <linux/rtnetlink.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "netns/nft_batch.h"
#include "netns/rate.h"

/* nft's own numbers for data types, six bits each: only `nft list` reads them. */
enum { TYPE_IPADDR = 7, TYPE_IP6ADDR = 8, TYPE_ETHERADDR = 9, TYPE_IFNAME = 41 };
#define TYPE3(a, b, c) (((uint32_t)(a) << 12) | ((uint32_t)(b) << 6) | (uint32_t)(c))

/* Priorities: see the top. A little before others' filters (0), so that the refusal is the clear one. */
#define DNS_PORT 53
enum { PRIO_GUARD = -300, PRIO_DECIDE = -150, PRIO_FILTER = -10, PRIO_NAT = 100 };

#define STATE_GOING_ON (NF_CT_STATE_BIT(IP_CT_ESTABLISHED) | NF_CT_STATE_BIT(IP_CT_RELATED))

/* What was put: elements by family, and limits. */
struct put {
    size_t elements[2], limited;
};

struct net_nft {
    const struct net_names *names;
    struct mnl_socket *sk;
    uint32_t seq,
        generation;  /* of the host's rules, when ours were last known good; 0: not known */
    size_t rules[2]; /* bridge, inet */
    struct put put;
    size_t dns[2];
    bool limits; /* is there a set of limits */
};

static const char *const port_set[2] = {"port4", "port6"};
static const char *const dns_set[2] = {"dns4", "dns6"};
static const char limit_set[] = "out";
static const int families[2] = {AF_INET, AF_INET6};

int net_nft_open(const struct net_names *names, struct net_nft **ret, struct err *e)
{
    AUTO(net_nft) struct net_nft *n = mem_new(struct net_nft);

    n->names = names;
    n->sk = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
    if (!n->sk || mnl_socket_bind(n->sk, 0, MNL_SOCKET_AUTOPID) < 0)
        return err_sys(e, "netfilter socket");
    *ret = take_ptr(&n);
    return 0;
}

void net_nft_close(struct net_nft *n)
{
    if (!n)
        return;
    if (n->sk)
        mnl_socket_close(n->sk);
    free(n);
}

/* A key as the rules compose it: link name (16), MAC address (6 of 8), IP address (4 or 16). */
#define PORT_KEY_MAX 40
static size_t port_key(const struct net_port *p, int i, uint8_t ret[PORT_KEY_MAX])
{
    size_t n = i == 0 ? 4 : 16;

    memset(ret, 0, PORT_KEY_MAX);
    memcpy(ret, p->name, strnlen(p->name, NET_LINK_NAME - 1));
    memcpy(ret + 16, p->mac, NET_MAC);
    memcpy(ret + 24, p->addr[i].b, n);
    return 24 + n;
}

static void put_port(struct net_nft_batch *b, uint16_t type, const struct net_port *p, bool limits,
                     struct put *count)
{
    uint8_t key[PORT_KEY_MAX];

    for (int f = 0; f < 2; f++) {
        if (!p->addr[f].family)
            continue;
        net_nft_put_element(b, type, port_set[f], key, port_key(p, f, key));
        count->elements[f]++;
    }
    if (!limits || p->which != NET_EXTERNAL_NET)
        return;
    port_key(p, 0, key); /* begins with the name */
    net_nft_put_element(b, type, limit_set, key, NET_LINK_NAME);
    count->limited++;
}

static void put_ports(struct net_nft_batch *b, uint16_t type, const struct net_port *ports,
                      size_t n_ports, bool limits, struct put *count)
{
    b->family = NFPROTO_BRIDGE;
    for (size_t i = 0; i < n_ports; i++)
        put_port(b, type, &ports[i], limits, count);
}

static void rule(struct net_nft_batch *b, const char *chain)
{
    net_nft_rule_begin(b, chain);
}

static void verdict(struct net_nft_batch *b, int v)
{
    net_nft_verdict(b, v);
    net_nft_rule_end(b);
}

static void reject(struct net_nft_batch *b)
{
    net_nft_reject(b);
    net_nft_rule_end(b);
}

static void ether_type(struct net_nft_batch *b, uint16_t type)
{
    uint16_t be = htons(type);

    net_nft_payload(b, NFT_PAYLOAD_LL_HEADER, 12, 2, NFT_REG32_00);
    net_nft_cmp(b, NFT_REG32_00, NFT_CMP_EQ, &be, sizeof(be));
}

static void port_check(struct net_nft_batch *b, int f)
{
    rule(b, "guard");
    ether_type(b, f == 0 ? ETH_P_IP : ETH_P_IPV6);
    net_nft_meta(b, NFT_META_IIFNAME, NFT_REG32_00);
    net_nft_payload(b, NFT_PAYLOAD_LL_HEADER, 6, NET_MAC, NFT_REG32_04);
    net_nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, f == 0 ? 12 : 8, f == 0 ? 4 : 16, NFT_REG32_06);
    net_nft_lookup(b, NFT_REG32_00, port_set[f], false);
    verdict(b, NF_ACCEPT);
}

static void no_discovery(struct net_nft_batch *b)
{
    static const uint8_t icmpv6 = IPPROTO_ICMPV6, first = 133, last = 137;

    rule(b, "guard");
    ether_type(b, ETH_P_IPV6);
    net_nft_meta(b, NFT_META_L4PROTO, NFT_REG32_00);
    net_nft_cmp(b, NFT_REG32_00, NFT_CMP_EQ, &icmpv6, 1);
    net_nft_payload(b, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, NFT_REG32_00);
    net_nft_range(b, NFT_REG32_00, &first, &last, 1);
    verdict(b, NF_DROP);
}

static void limit_check(struct net_nft_batch *b, uint64_t out_rate)
{
    uint64_t rate;
    uint32_t burst;

    net_rate_limit(out_rate, &rate, &burst);
    net_nft_put_limit_set(b, limit_set, 5, TYPE_IFNAME, NET_LINK_NAME, rate, burst);
    rule(b, "guard");
    net_nft_meta(b, NFT_META_IIFNAME, NFT_REG32_00);
    net_nft_lookup(b, NFT_REG32_00, limit_set, false);
    verdict(b, NF_DROP);
}

static void bridge_table(struct net_nft_batch *b, const char *tag, uint64_t out_rate)
{
    b->family = NFPROTO_BRIDGE;
    net_nft_put_table(b, NFT_MSG_NEWTABLE);
    net_nft_put_table(b, NFT_MSG_DELTABLE);
    net_nft_put_table(b, NFT_MSG_NEWTABLE);
    net_nft_put_set(b, port_set[0], 1, TYPE3(TYPE_IFNAME, TYPE_ETHERADDR, TYPE_IPADDR), 28);
    net_nft_put_set(b, port_set[1], 2, TYPE3(TYPE_IFNAME, TYPE_ETHERADDR, TYPE_IP6ADDR), 40);
    net_nft_put_chain(b, "guard", "filter", NF_BR_PRE_ROUTING, PRIO_GUARD);

    rule(b, "guard");
    net_nft_link_begins(b, NFT_META_IIFNAME, NFT_CMP_NEQ, tag);
    verdict(b, NF_ACCEPT);
    if (out_rate)
        limit_check(b, out_rate);
    port_check(b, 0);
    no_discovery(b);
    port_check(b, 1);
    rule(b, "guard");
    verdict(b, NF_DROP);
}

/* What is not of our links is not our business. */
static void others_pass(struct net_nft_batch *b, const char *chain, uint32_t key, const char *tag)
{
    rule(b, chain);
    net_nft_link_begins(b, key, NFT_CMP_NEQ, tag);
    verdict(b, NF_ACCEPT);
}

static void going_on_passes(struct net_nft_batch *b, const char *chain)
{
    rule(b, chain);
    net_nft_ct_state(b, STATE_GOING_ON);
    verdict(b, NF_ACCEPT);
}

/* Destination port, of TCP or UDP. */
static void port_is(struct net_nft_batch *b, uint8_t protocol, uint16_t port)
{
    uint16_t be = htons(port);

    net_nft_meta(b, NFT_META_L4PROTO, NFT_REG32_00);
    net_nft_cmp(b, NFT_REG32_00, NFT_CMP_EQ, &protocol, 1);
    net_nft_payload(b, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, NFT_REG32_00);
    net_nft_cmp(b, NFT_REG32_00, NFT_CMP_EQ, &be, sizeof(be));
}

/* The resolvers that runs are told of, on port 53 only: they may be on the host, or link-local in a cloud. */
static void dns_passes(struct net_nft_batch *b, const char *chain, const char *external)
{
    static const uint8_t protocols[2] = {IPPROTO_UDP, IPPROTO_TCP};

    for (int f = 0; f < 2; f++)
        for (int p = 0; p < 2; p++) {
            rule(b, chain);
            net_nft_link_begins(b, NFT_META_IIFNAME, NFT_CMP_EQ, external);
            net_nft_family(b, families[f]);
            net_nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, f == 0 ? 16 : 24, f == 0 ? 4 : 16,
                            NFT_REG32_00);
            net_nft_lookup(b, NFT_REG32_00, dns_set[f], false);
            port_is(b, protocols[p], DNS_PORT);
            verdict(b, NF_ACCEPT);
        }
}

static void granted_passes(struct net_nft_batch *b, const char *chain, const char *external,
                           const struct net_grant *g, uint8_t protocol)
{
    uint32_t local = RTN_LOCAL;

    rule(b, chain);
    net_nft_link_begins(b, NFT_META_IIFNAME, NFT_CMP_EQ, external);
    if (g->host) {
        net_nft_fib_type(b, NFT_REG32_00);
        net_nft_cmp(b, NFT_REG32_00, NFT_CMP_EQ, &local, sizeof(local));
    } else {
        net_nft_net(b, false, &g->to, NFT_CMP_EQ);
    }
    if (g->port)
        port_is(b, protocol, g->port);
    verdict(b, NF_ACCEPT);
}

static void grants_pass(struct net_nft_batch *b, const char *chain, const char *external,
                        const struct net_grants *l)
{
    for (size_t i = 0; i < l->n; i++) {
        granted_passes(b, chain, external, &l->items[i], IPPROTO_TCP);
        if (l->items[i].port)
            granted_passes(b, chain, external, &l->items[i], IPPROTO_UDP);
    }
}

/* The bridge table has checked the address; this holds should it be gone. */
static void source_in_network(struct net_nft_batch *b, const struct net_plan *plan, int family)
{
    struct net_cidr net;

    net_ipam_network(plan, NET_EXTERNAL_NET, family, &net);
    rule(b, "decide");
    net_nft_net(b, true, &net, NFT_CMP_NEQ);
    verdict(b, NF_DROP);
}

static void decide_chain(struct net_nft_batch *b, const struct net_names *names,
                         const struct net_nft_rules *r)
{
    const char *external = names->bridge[0][NET_EXTERNAL_NET];
    uint32_t unicast = RTN_UNICAST;

    net_nft_put_chain(b, "decide", "filter", NF_INET_PRE_ROUTING, PRIO_DECIDE);
    others_pass(b, "decide", NFT_META_IIFNAME, names->tag);
    going_on_passes(b, "decide");
    rule(b, "decide");
    net_nft_link_begins(b, NFT_META_IIFNAME, NFT_CMP_NEQ, external);
    reject(b);
    source_in_network(b, r->plan, AF_INET);
    if (r->plan->pool6.addr.family)
        source_in_network(b, r->plan, AF_INET6);
    dns_passes(b, "decide", external);
    grants_pass(b, "decide", external, &r->allow);
    rule(b, "decide"); /* addresses of this host, broadcast, multicast */
    net_nft_fib_type(b, NFT_REG32_00);
    net_nft_cmp(b, NFT_REG32_00, NFT_CMP_NEQ, &unicast, sizeof(unicast));
    reject(b);
    for (size_t i = 0; i < r->deny.n; i++) {
        rule(b, "decide");
        net_nft_net(b, false, &r->deny.items[i], NFT_CMP_EQ);
        reject(b);
    }
    if (!r->only.n)
        return;
    grants_pass(b, "decide", external, &r->only);
    rule(b, "decide");
    reject(b);
}

static void input_chain(struct net_nft_batch *b, const struct net_names *names,
                        const struct net_nft_rules *r)
{
    const char *external = names->bridge[0][NET_EXTERNAL_NET];

    net_nft_put_chain(b, "input", "filter", NF_INET_LOCAL_IN, PRIO_FILTER);
    others_pass(b, "input", NFT_META_IIFNAME, names->tag);
    going_on_passes(b, "input");
    dns_passes(b, "input", external);
    grants_pass(b, "input", external, &r->allow);
    rule(b, "input");
    verdict(b, NF_DROP);
}

/* A link we made forward for our runs' sake forwards for nobody else. */
static void opened_links(struct net_nft_batch *b, const net_link_list opened, int family)
{
    for (size_t i = 0; i < NET_WAYS_LINKS && opened[i][0]; i++) {
        rule(b, "forward");
        net_nft_family(b, family);
        net_nft_link_is(b, NFT_META_IIFNAME, NFT_CMP_EQ, opened[i]);
        net_nft_link_begins(b, NFT_META_OIFNAME, NFT_CMP_NEQ, NET_LINK_COMMON);
        verdict(b, NF_DROP);
    }
}

/* Other bridges of this host are other networks (docker0, virbr0…), but for one that is the way out. */
static void other_bridges(struct net_nft_batch *b, const struct net_nft_rules *r)
{
    static const char kind[NET_LINK_NAME] = "bridge";

    rule(b, "forward");
    net_nft_meta(b, NFT_META_OIFKIND, NFT_REG32_00);
    net_nft_cmp(b, NFT_REG32_00, NFT_CMP_EQ, kind, sizeof(kind));
    for (size_t i = 0; i < NET_WAYS_LINKS && r->uplink[i][0]; i++)
        net_nft_link_is(b, NFT_META_OIFNAME, NFT_CMP_NEQ, r->uplink[i]);
    reject(b);
}

static void forward_chain(struct net_nft_batch *b, const struct net_names *names,
                          const struct net_nft_rules *r)
{
    net_nft_put_chain(b, "forward", "filter", NF_INET_FORWARD, PRIO_FILTER);
    rule(b, "forward");
    net_nft_link_begins(b, NFT_META_OIFNAME, NFT_CMP_EQ, names->tag);
    net_nft_ct_state(b, STATE_GOING_ON);
    verdict(b, NF_ACCEPT);
    rule(b, "forward");
    net_nft_link_begins(b, NFT_META_OIFNAME, NFT_CMP_EQ, names->tag);
    verdict(b, NF_DROP);
    for (int f = 0; f < 2; f++)
        opened_links(b, r->opened[f], families[f]);
    others_pass(b, "forward", NFT_META_IIFNAME, names->tag);
    rule(b, "forward");
    net_nft_link_begins(b, NFT_META_IIFNAME, NFT_CMP_NEQ, names->bridge[0][NET_EXTERNAL_NET]);
    verdict(b, NF_DROP);
    going_on_passes(b, "forward");
    grants_pass(b, "forward", names->bridge[0][NET_EXTERNAL_NET], &r->allow);
    other_bridges(b, r);
}

static void nat_chain(struct net_nft_batch *b, const struct net_names *names,
                      const struct net_plan *plan)
{
    net_nft_put_chain(b, "nat", "nat", NF_INET_POST_ROUTING, PRIO_NAT);
    for (int f = 0; f < 2; f++) {
        struct net_cidr net;

        if (f == 1 && !plan->pool6.addr.family)
            continue;
        net_ipam_network(plan, NET_EXTERNAL_NET, families[f], &net);
        rule(b, "nat");
        net_nft_net(b, true, &net, NFT_CMP_EQ);
        net_nft_link_begins(b, NFT_META_OIFNAME, NFT_CMP_NEQ, names->tag);
        net_nft_masquerade(b);
        net_nft_rule_end(b);
    }
}

static void put_dns(struct net_nft_batch *b, const struct net_cidrs *dns, size_t count[2])
{
    for (size_t i = 0; i < dns->n; i++) {
        int f = dns->items[i].addr.family == AF_INET ? 0 : 1;

        net_nft_put_element(b, NFT_MSG_NEWSETELEM, dns_set[f], dns->items[i].addr.b,
                            f == 0 ? 4 : 16);
        count[f]++;
    }
}

static void inet_table(struct net_nft_batch *b, const struct net_names *names,
                       const struct net_nft_rules *r, size_t dns[2])
{
    b->family = NFPROTO_INET;
    net_nft_put_table(b, NFT_MSG_NEWTABLE);
    net_nft_put_table(b, NFT_MSG_DELTABLE);
    net_nft_put_table(b, NFT_MSG_NEWTABLE);
    net_nft_put_set(b, dns_set[0], 3, TYPE_IPADDR, 4);
    net_nft_put_set(b, dns_set[1], 4, TYPE_IP6ADDR, 16);
    put_dns(b, &r->dns, dns);
    decide_chain(b, names, r);
    input_chain(b, names, r);
    forward_chain(b, names, r);
    nat_chain(b, names, r->plan);
}

static uint64_t next_seq(struct net_nft *n)
{
    n->seq += 100000; /* more than a transaction has messages */
    return n->seq;
}

typedef void on_message(void *arg, const struct nlmsghdr *h);

/* Ask and look at the answers: 0, or -1 with errno (EINTR: a dump that was disturbed). */
static int ask(struct net_nft *n, uint16_t type, uint16_t family, uint16_t flags,
               const char *table_attr, uint16_t table_type, const char *set, uint16_t set_type,
               on_message *fn, void *arg)
{
    char buf[32768];
    uint32_t seq = (uint32_t)next_seq(n);
    struct nlmsghdr *h = nftnl_nlmsg_build_hdr(buf, type, family, flags, seq);

    if (table_attr)
        mnl_attr_put_strz(h, table_type, table_attr);
    if (set)
        mnl_attr_put_strz(h, set_type, set);
    if (mnl_socket_sendto(n->sk, h, h->nlmsg_len) < 0)
        return -1;
    for (bool done = false; !done;) {
        ssize_t got = mnl_socket_recvfrom(n->sk, buf, sizeof(buf));
        int rest = (int)got;

        if (got < 0)
            return -1;
        for (h = (struct nlmsghdr *)buf; mnl_nlmsg_ok(h, rest); h = mnl_nlmsg_next(h, &rest)) {
            const struct nlmsgerr *err = mnl_nlmsg_get_payload(h);

            if (h->nlmsg_seq != seq)
                continue;
            done = h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR ||
                   !(flags & NLM_F_DUMP);
            if (h->nlmsg_type == NLMSG_ERROR && err->error) {
                errno = -err->error;
                return -1;
            }
            if (h->nlmsg_type >= NLMSG_MIN_TYPE)
                fn(arg, h);
        }
    }
    return 0;
}

static void read_generation(void *arg, const struct nlmsghdr *h)
{
    const struct nlattr *a;

    mnl_attr_for_each(a, h, sizeof(struct nfgenmsg)) if (mnl_attr_get_type(a) == NFTA_GEN_ID) *
        (uint32_t *)arg = ntohl(mnl_attr_get_u32(a));
}

static uint32_t generation(struct net_nft *n)
{
    uint32_t id = 0;

    return ask(n, NFT_MSG_GETGEN, NFPROTO_UNSPEC, 0, NULL, 0, NULL, 0, read_generation, &id) < 0
               ? 0
               : id;
}

struct counting {
    const char *table;
    size_t n;
};

static void count_rule(void *arg, const struct nlmsghdr *h)
{
    struct counting *c = arg;
    const struct nlattr *a;

    /* older kernels do not filter by table */
    mnl_attr_for_each(a, h, sizeof(struct nfgenmsg)) if (mnl_attr_get_type(a) == NFTA_RULE_TABLE &&
                                                         str_eq(mnl_attr_get_str(a), c->table))
        c->n++;
}

static void count_elements(void *arg, const struct nlmsghdr *h)
{
    struct counting *c = arg;
    const struct nlattr *a, *el;

    mnl_attr_for_each(a, h, sizeof(struct nfgenmsg)) if (mnl_attr_get_type(a) ==
                                                         NFTA_SET_ELEM_LIST_ELEMENTS)
        mnl_attr_for_each_nested(el, a) c->n++;
}

static bool rules_are(struct net_nft *n, uint16_t family, size_t want)
{
    struct counting c = {.table = n->names->tag};

    return ask(n, NFT_MSG_GETRULE, family, NLM_F_DUMP, c.table, NFTA_RULE_TABLE, NULL, 0,
               count_rule, &c) == 0 &&
           c.n == want;
}

static bool elements_are(struct net_nft *n, uint16_t family, const char *set, size_t want)
{
    struct counting c = {.table = n->names->tag};

    return ask(n, NFT_MSG_GETSETELEM, family, NLM_F_DUMP, c.table, NFTA_SET_ELEM_LIST_TABLE, set,
               NFTA_SET_ELEM_LIST_SET, count_elements, &c) == 0 &&
           c.n == want;
}

/*
 * Commit, and know the generation: if it is the one behind that before, nobody else changed anything
 * meanwhile, and what was good before is good now.
 */
static int commit(struct net_nft *n, struct net_nft_batch *b, bool anew, struct err *e)
{
    uint32_t before = generation(n), after;
    bool good = anew || (n->generation && n->generation == before);

    n->generation = 0;
    if (net_nft_batch_commit(b, n->sk, e) < 0)
        return -1;
    after = generation(n);
    if (good && before && after == before + 1)
        n->generation = after;
    return 0;
}

int net_nft_rebuild(struct net_nft *n, const struct net_nft_rules *r, const struct net_port *ports,
                    size_t n_ports, struct err *e)
{
    size_t dns[2] = {0}, bridge_rules;
    struct put put = {0};
    struct net_nft_batch b;

    net_nft_batch_begin(&b, n->names->tag, (uint32_t)next_seq(n));
    bridge_table(&b, n->names->tag, r->out_rate);
    bridge_rules = b.rules;
    n->limits = r->out_rate != 0;
    put_ports(&b, NFT_MSG_NEWSETELEM, ports, n_ports, n->limits, &put);
    inet_table(&b, n->names, r, dns);
    n->rules[0] = bridge_rules;
    n->rules[1] = b.rules - bridge_rules;
    n->put = put;
    memcpy(n->dns, dns, sizeof(dns));
    return commit(n, &b, true, e);
}

int net_nft_add(struct net_nft *n, const struct net_port *ports, size_t n_ports, struct err *e)
{
    struct put put = {0};
    struct net_nft_batch b;

    net_nft_batch_begin(&b, n->names->tag, (uint32_t)next_seq(n));
    put_ports(&b, NFT_MSG_NEWSETELEM, ports, n_ports, n->limits, &put);
    if (commit(n, &b, false, e) < 0)
        return -1;
    n->put.elements[0] += put.elements[0];
    n->put.elements[1] += put.elements[1];
    n->put.limited += put.limited;
    return 0;
}

int net_nft_del(struct net_nft *n, const struct net_port *ports, size_t n_ports, struct err *e)
{
    struct put put = {0};
    struct net_nft_batch b;
    struct err mine = ERR_INIT;

    net_nft_batch_begin(&b, n->names->tag, (uint32_t)next_seq(n));
    put_ports(&b, NFT_MSG_DELSETELEM, ports, n_ports, n->limits, &put);
    if (commit(n, &b, false, &mine) < 0 && mine.sys != ENOENT) {
        *e = mine;
        return -1;
    }
    if (mine.kind == ERR_NONE) {
        n->put.elements[0] -= put.elements[0];
        n->put.elements[1] -= put.elements[1];
        n->put.limited -= put.limited;
    }
    return 0;
}

int net_nft_intact(struct net_nft *n, bool *ret, struct err *e)
{
    uint32_t now = generation(n);

    *ret = true;
    if (!now)
        return err_sys(e, "ask nftables for its generation");
    if (n->generation == now)
        return 0;
    *ret = rules_are(n, NFPROTO_BRIDGE, n->rules[0]) && rules_are(n, NFPROTO_INET, n->rules[1]) &&
           elements_are(n, NFPROTO_BRIDGE, port_set[0], n->put.elements[0]) &&
           elements_are(n, NFPROTO_BRIDGE, port_set[1], n->put.elements[1]) &&
           (!n->limits || elements_are(n, NFPROTO_BRIDGE, limit_set, n->put.limited)) &&
           elements_are(n, NFPROTO_INET, dns_set[0], n->dns[0]) &&
           elements_are(n, NFPROTO_INET, dns_set[1], n->dns[1]);
    n->generation = *ret ? now : 0;
    return 0;
}

int net_nft_remove(struct net_nft *n, struct err *e)
{
    struct net_nft_batch b;

    net_nft_batch_begin(&b, n->names->tag, (uint32_t)next_seq(n));
    for (b.family = NFPROTO_INET;; b.family = NFPROTO_BRIDGE) {
        net_nft_put_table(&b, NFT_MSG_NEWTABLE);
        net_nft_put_table(&b, NFT_MSG_DELTABLE);
        if (b.family == NFPROTO_BRIDGE)
            break;
    }
    return commit(n, &b, false, e);
}
