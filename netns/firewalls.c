/*
 * A chain on the way of forwarded packets blocks when it drops by policy, or by an unconditional rule at its end
 * (firewalld), and its table has no rule that accepts what comes from links called "cwk*". Conditions that let ours
 * through in other ways (by address) are not understood; then the warning is one too many.
 */
#include "netns/firewalls.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <netinet/in.h> /* before linux/netfilter.h, which would define the same */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include "base/err.h"
#include "base/mem.h"
#include "netns/names.h"

#define NAME_MAX_BYTES 128
#define CHAINS_MAX     256

struct chain {
    uint32_t family;
    char table[NAME_MAX_BYTES], name[NAME_MAX_BYTES];
    bool forward; /* hooked to forwarded packets */
    bool drops;
};

struct look {
    struct chain chains[CHAINS_MAX];
    size_t n;
    /* tables with a rule for our links */
    struct chain lets[CHAINS_MAX];
    size_t n_lets;
};

static const char *family_name(uint32_t family)
{
    switch (family) {
    case NFPROTO_IPV4: return "ip";
    case NFPROTO_IPV6: return "ip6";
    default: return "inet";
    }
}

static int visit_chain(const struct nlmsghdr *h, void *arg)
{
    struct nftnl_chain *c = nftnl_chain_alloc();
    struct look *l = arg;

    if (c && nftnl_chain_nlmsg_parse(h, c) == 0 && l->n < CHAINS_MAX) {
        uint32_t family = nftnl_chain_get_u32(c, NFTNL_CHAIN_FAMILY);
        struct chain *to = &l->chains[l->n];

        if (family == NFPROTO_IPV4 || family == NFPROTO_IPV6 || family == NFPROTO_INET) {
            l->n++;
            to->family = family;
            snprintf(to->table, sizeof(to->table), "%s", nftnl_chain_get_str(c, NFTNL_CHAIN_TABLE));
            snprintf(to->name, sizeof(to->name), "%s", nftnl_chain_get_str(c, NFTNL_CHAIN_NAME));
            to->forward = nftnl_chain_is_set(c, NFTNL_CHAIN_HOOKNUM) &&
                          nftnl_chain_get_u32(c, NFTNL_CHAIN_HOOKNUM) == NF_INET_FORWARD;
            to->drops = to->forward && nftnl_chain_is_set(c, NFTNL_CHAIN_POLICY) &&
                        nftnl_chain_get_u32(c, NFTNL_CHAIN_POLICY) == NF_DROP;
        }
    }
    nftnl_chain_free(c);
    return MNL_CB_OK;
}

/* A rule, as far as it matters here. */
struct gist {
    bool conditions, refuses, accepts, ours;
};

static void look_at_expression(const struct nftnl_expr *x, bool *in_iifname, struct gist *g)
{
    const char *name = nftnl_expr_get_str(x, NFTNL_EXPR_NAME);
    const char *data;
    uint32_t n;

    if (str_eq(name, "counter") || str_eq(name, "log"))
        return;
    if (str_eq(name, "reject")) {
        g->refuses = true;
    } else if (str_eq(name, "immediate") && nftnl_expr_is_set(x, NFTNL_EXPR_IMM_VERDICT)) {
        g->refuses = nftnl_expr_get_u32(x, NFTNL_EXPR_IMM_VERDICT) == NF_DROP;
        g->accepts = nftnl_expr_get_u32(x, NFTNL_EXPR_IMM_VERDICT) == NF_ACCEPT;
    } else if (str_eq(name, "cmp") && *in_iifname) {
        data = nftnl_expr_get(x, NFTNL_EXPR_CMP_DATA, &n);
        g->ours = g->ours || (data && n >= strlen(NET_LINK_COMMON) &&
                              strncmp(data, NET_LINK_COMMON, strlen(NET_LINK_COMMON)) == 0);
    } else {
        g->conditions = true;
    }
    *in_iifname =
        str_eq(name, "meta") && nftnl_expr_get_u32(x, NFTNL_EXPR_META_KEY) == NFT_META_IIFNAME;
}

static void gist_of(const struct nftnl_rule *r, struct gist *ret)
{
    struct nftnl_expr_iter *it = nftnl_expr_iter_create(r);
    bool in_iifname = false;

    *ret = (struct gist){0};
    for (struct nftnl_expr *x = it ? nftnl_expr_iter_next(it) : NULL; x;
         x = nftnl_expr_iter_next(it))
        look_at_expression(x, &in_iifname, ret);
    if (it)
        nftnl_expr_iter_destroy(it);
}

static int visit_rule(const struct nlmsghdr *h, void *arg)
{
    struct nftnl_rule *r = nftnl_rule_alloc();
    struct look *l = arg;
    struct gist g;

    if (!r || nftnl_rule_nlmsg_parse(h, r) < 0) {
        nftnl_rule_free(r);
        return MNL_CB_OK;
    }
    const char *table = nftnl_rule_get_str(r, NFTNL_RULE_TABLE),
               *name = nftnl_rule_get_str(r, NFTNL_RULE_CHAIN);
    uint32_t family = nftnl_rule_get_u32(r, NFTNL_RULE_FAMILY);

    gist_of(r, &g);
    for (size_t i = 0; i < l->n; i++)
        if (l->chains[i].family == family && str_eq(l->chains[i].table, table) &&
            str_eq(l->chains[i].name, name) && l->chains[i].forward)
            l->chains[i].drops = l->chains[i].drops || (g.refuses && !g.conditions);
    if (g.ours && g.accepts && l->n_lets < CHAINS_MAX) {
        l->lets[l->n_lets].family = family;
        snprintf(l->lets[l->n_lets++].table, NAME_MAX_BYTES, "%s", table);
    }
    nftnl_rule_free(r);
    return MNL_CB_OK;
}

static bool table_lets_ours(const struct look *l, const struct chain *c)
{
    for (size_t i = 0; i < l->n_lets; i++)
        if (l->lets[i].family == c->family && str_eq(l->lets[i].table, c->table))
            return true;
    return false;
}

static bool table_has(const struct look *l, const struct chain *c, const char *name)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->chains[i].family == c->family && str_eq(l->chains[i].table, c->table) &&
            str_eq(l->chains[i].name, name))
            return true;
    return false;
}

/* What to type, in the words of the program that keeps the rules. */
static void advice(const struct look *l, const struct chain *c, char *ret, size_t n)
{
    const char *kind = family_name(c->family),
               *tables = c->family == NFPROTO_IPV6 ? "ip6tables" : "iptables",
               *chain = table_has(l, c, "DOCKER-USER") ? "DOCKER-USER" : "FORWARD";

    if (str_eq(c->table, "firewalld"))
        snprintf(
            ret, n,
            "firewall-cmd --permanent --zone=trusted --add-interface='%s+'; firewall-cmd --reload",
            NET_LINK_COMMON);
    else if (c->family != NFPROTO_INET && str_eq(c->table, "filter") && str_eq(c->name, "FORWARD"))
        snprintf(ret, n,
                 "%s -I %s -i '%s+' -j ACCEPT; %s -I %s -o '%s+' -m conntrack --ctstate "
                 "RELATED,ESTABLISHED -j ACCEPT",
                 tables, chain, NET_LINK_COMMON, tables, chain, NET_LINK_COMMON);
    else
        snprintf(
            ret, n,
            "nft insert rule %s %s %s iifname \"%s*\" accept; nft insert rule %s %s %s oifname "
            "\"%s*\" ct state established,related accept",
            kind, c->table, c->name, NET_LINK_COMMON, kind, c->table, c->name, NET_LINK_COMMON);
}

static void tell(const struct look *l, struct str_list *ret)
{
    for (size_t i = 0; i < l->n; i++) {
        const struct chain *c = &l->chains[i];
        char what[512];

        if (!c->drops || str_starts(c->table, NET_LINK_COMMON) || table_lets_ours(l, c))
            continue;
        advice(l, c, what, sizeof(what));
        AUTO_FREE char *text = mem_printf(
            "warn: the firewall chain %s %s %s drops forwarded packets by default; external runs "
            "get out only if it lets links \"%s*\" through, e.g.: %s",
            family_name(c->family), c->table, c->name, NET_LINK_COMMON, what);
        str_list_add(ret, text);
    }
}

/* 0, or the errno with which nftables answered. */
static int list(struct mnl_socket *sk, uint16_t type, mnl_cb_t visit, struct look *l)
{
    char buf[32768];
    uint32_t seq = type;
    struct nlmsghdr *h = nftnl_nlmsg_build_hdr(buf, type, NFPROTO_UNSPEC, NLM_F_DUMP, seq);
    int rc = MNL_CB_OK;

    if (mnl_socket_sendto(sk, h, h->nlmsg_len) < 0)
        return errno;
    while (rc > MNL_CB_STOP) {
        ssize_t n = mnl_socket_recvfrom(sk, buf, sizeof(buf));

        if (n < 0)
            return errno;
        rc = mnl_cb_run(buf, (size_t)n, seq, mnl_socket_get_portid(sk), visit, l);
    }
    return rc < 0 ? errno : 0;
}

void net_firewalls_nftables(struct str_list *ret)
{
    struct mnl_socket *sk = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
    AUTO_FREE struct look *l = mem_new(struct look);
    AUTO_FREE char *text = NULL;
    int sys = 0;

    if (!sk || mnl_socket_bind(sk, 0, MNL_SOCKET_AUTOPID) < 0) {
        text = mem_printf(
            "error: the kernel has no netfilter sockets (%s): it must be built with nf_tables",
            strerror(errno));
    } else {
        sys = list(sk, NFT_MSG_GETCHAIN, visit_chain, l);
        if (!sys)
            sys = list(sk, NFT_MSG_GETRULE, visit_rule, l);
        if (sys)
            text = mem_printf("error: nftables does not answer (%s): is the module nf_tables "
                              "there, and are you root?",
                              strerror(sys));
    }
    if (sk)
        mnl_socket_close(sk);
    if (text)
        str_list_add(ret, text);
    else
        tell(l, ret);
}
