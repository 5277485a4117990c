#include "netns/nft_batch.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include "base/err.h"
#include "base/mem.h"

/* No single message comes near it. */
#define MESSAGE_ROOM            8192
#define REJECT_ADMIN_PROHIBITED 3 /* NFT_REJECT_ICMPX_ADMIN_PROHIBITED */

static char *room(struct net_nft_batch *b)
{
    if (b->cap - b->len < MESSAGE_ROOM) {
        b->cap = b->cap * 2 + 4 * MESSAGE_ROOM;
        b->buf = mem_realloc(b->buf, b->cap, 1);
    }
    return b->buf + b->len;
}

static void added(struct net_nft_batch *b, const struct nlmsghdr *h)
{
    b->last = b->len;
    b->len += MNL_ALIGN(h->nlmsg_len);
}

static struct nlmsghdr *message(struct net_nft_batch *b, uint16_t type, uint16_t flags)
{
    return nftnl_nlmsg_build_hdr(room(b), type, (uint16_t)b->family, flags, ++b->seq);
}

void net_nft_batch_begin(struct net_nft_batch *b, const char *table, uint32_t seq)
{
    *b = (struct net_nft_batch){.table = table, .seq = seq};
    added(b, nftnl_batch_begin(room(b), ++b->seq));
}

/* The kernel has answered everything by the time send(2) returns. */
static int read_answers(struct mnl_socket *sk, uint32_t last, struct err *e)
{
    char buf[8192];
    bool acked = false;
    int failed = 0;

    for (;;) {
        ssize_t n = recv(mnl_socket_get_fd(sk), buf, sizeof(buf), MSG_DONTWAIT);
        int rest = (int)n;

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0)
            return err_sys(e, "read from nftables");
        for (struct nlmsghdr *h = (struct nlmsghdr *)buf; mnl_nlmsg_ok(h, rest);
             h = mnl_nlmsg_next(h, &rest)) {
            const struct nlmsgerr *err = mnl_nlmsg_get_payload(h);

            if (h->nlmsg_type != NLMSG_ERROR)
                continue;
            if (err->error && !failed)
                failed = -err->error;
            acked = acked || (h->nlmsg_seq == last && !err->error);
        }
    }
    if (failed == EOPNOTSUPP)
        return err_sysno(
            e, failed,
            "program nftables (is the kernel built with nf_tables for inet and bridge, nat and fib?)");
    if (failed)
        return err_sysno(e, failed, "program nftables");
    return acked ? 0 : err_set(e, ERR_HOST, "nftables did not answer");
}

int net_nft_batch_commit(struct net_nft_batch *b, struct mnl_socket *sk, struct err *e)
{
    AUTO_FREE char *buf = NULL;
    int room_bytes = (int)(b->cap * 2);
    struct nlmsghdr *h = (struct nlmsghdr *)(b->buf + b->last);
    uint32_t last = h->nlmsg_seq;

    h->nlmsg_flags |= NLM_F_ACK; /* sent when all of it was done */
    added(b, nftnl_batch_end(room(b), ++b->seq));
    buf = take_ptr(&b->buf);
    setsockopt(mnl_socket_get_fd(sk), SOL_SOCKET, SO_SNDBUFFORCE, &room_bytes, sizeof(room_bytes));
    if (mnl_socket_sendto(sk, buf, b->len) < 0)
        return err_sys(e, "write to nftables");
    return read_answers(sk, last, e);
}

void net_nft_put_table(struct net_nft_batch *b, uint16_t type)
{
    struct nlmsghdr *h = message(b, type, type == NFT_MSG_NEWTABLE ? NLM_F_CREATE : 0);

    mnl_attr_put_strz(h, NFTA_TABLE_NAME, b->table);
    added(b, h);
}

void net_nft_put_chain(struct net_nft_batch *b, const char *name, const char *type, uint32_t hook,
                       int32_t prio)
{
    struct nftnl_chain *c = nftnl_chain_alloc();
    struct nlmsghdr *h = message(b, NFT_MSG_NEWCHAIN, NLM_F_CREATE);

    BUG_ON(!c);
    nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, b->table);
    nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, name);
    nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, type);
    nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, hook);
    nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, prio);
    nftnl_chain_set_u32(c, NFTNL_CHAIN_POLICY, NF_ACCEPT);
    nftnl_chain_nlmsg_build_payload(h, c);
    nftnl_chain_free(c);
    added(b, h);
}

static struct nftnl_set *new_set(const struct net_nft_batch *b, const char *name, uint32_t id,
                                 uint32_t key_type, uint32_t key_len)
{
    struct nftnl_set *s = nftnl_set_alloc();

    BUG_ON(!s);
    nftnl_set_set_str(s, NFTNL_SET_TABLE, b->table);
    nftnl_set_set_str(s, NFTNL_SET_NAME, name);
    nftnl_set_set_u32(s, NFTNL_SET_ID, id);
    nftnl_set_set_u32(s, NFTNL_SET_KEY_TYPE, key_type);
    nftnl_set_set_u32(s, NFTNL_SET_KEY_LEN, key_len);
    return s;
}

static void put_set(struct net_nft_batch *b, struct nftnl_set *s)
{
    struct nlmsghdr *h = message(b, NFT_MSG_NEWSET, NLM_F_CREATE);

    nftnl_set_nlmsg_build_payload(h, s);
    nftnl_set_free(s);
    added(b, h);
}

void net_nft_put_set(struct net_nft_batch *b, const char *name, uint32_t id, uint32_t key_type,
                     uint32_t key_len)
{
    put_set(b, new_set(b, name, id, key_type, key_len));
}

void net_nft_put_limit_set(struct net_nft_batch *b, const char *name, uint32_t id,
                           uint32_t key_type, uint32_t key_len, uint64_t rate, uint32_t burst)
{
    struct nftnl_set *s = new_set(b, name, id, key_type, key_len);
    struct nftnl_expr *x = nftnl_expr_alloc("limit");
    static const uint8_t host_order[] = {NFTNL_UDATA_SET_KEYBYTEORDER, 4, 1, 0, 0, 0};

    BUG_ON(!x);
    nftnl_expr_set_u64(x, NFTNL_EXPR_LIMIT_RATE, rate);
    nftnl_expr_set_u64(x, NFTNL_EXPR_LIMIT_UNIT, 1); /* seconds */
    nftnl_expr_set_u32(x, NFTNL_EXPR_LIMIT_BURST, burst);
    nftnl_expr_set_u32(x, NFTNL_EXPR_LIMIT_TYPE, NFT_LIMIT_PKT_BYTES);
    nftnl_expr_set_u32(x, NFTNL_EXPR_LIMIT_FLAGS, NFT_LIMIT_F_INV);
    nftnl_set_add_expr(s, x);
    /* only for `nft list`: the key is in the host's byte order */
    nftnl_set_set_data(s, NFTNL_SET_USERDATA, host_order, sizeof(host_order));
    put_set(b, s);
}

void net_nft_put_element(struct net_nft_batch *b, uint16_t type, const char *set, const void *key,
                         size_t n)
{
    struct nftnl_set *s = nftnl_set_alloc();
    struct nftnl_set_elem *el = nftnl_set_elem_alloc();
    struct nlmsghdr *h = message(b, type, type == NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0);

    BUG_ON(!s || !el);
    nftnl_set_set_str(s, NFTNL_SET_TABLE, b->table);
    nftnl_set_set_str(s, NFTNL_SET_NAME, set);
    nftnl_set_elem_set(el, NFTNL_SET_ELEM_KEY, key, (uint32_t)n);
    nftnl_set_elem_add(s, el);
    nftnl_set_elems_nlmsg_build_payload(h, s);
    nftnl_set_free(s);
    added(b, h);
}

void net_nft_rule_begin(struct net_nft_batch *b, const char *chain)
{
    b->rule = nftnl_rule_alloc();
    BUG_ON(!b->rule);
    nftnl_rule_set_str(b->rule, NFTNL_RULE_TABLE, b->table);
    nftnl_rule_set_str(b->rule, NFTNL_RULE_CHAIN, chain);
    nftnl_rule_set_u32(b->rule, NFTNL_RULE_FAMILY, b->family);
}

void net_nft_rule_end(struct net_nft_batch *b)
{
    struct nlmsghdr *h = message(b, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);

    nftnl_rule_nlmsg_build_payload(h, b->rule);
    nftnl_rule_free(take_ptr(&b->rule));
    b->rules++;
    added(b, h);
}

static struct nftnl_expr *expr(struct net_nft_batch *b, const char *name)
{
    struct nftnl_expr *x = nftnl_expr_alloc(name);

    BUG_ON(!x);
    nftnl_rule_add_expr(b->rule, x);
    return x;
}

void net_nft_meta(struct net_nft_batch *b, uint32_t key, uint32_t reg)
{
    struct nftnl_expr *x = expr(b, "meta");

    nftnl_expr_set_u32(x, NFTNL_EXPR_META_KEY, key);
    nftnl_expr_set_u32(x, NFTNL_EXPR_META_DREG, reg);
}

void net_nft_cmp(struct net_nft_batch *b, uint32_t reg, uint32_t op, const void *data, size_t n)
{
    struct nftnl_expr *x = expr(b, "cmp");

    nftnl_expr_set_u32(x, NFTNL_EXPR_CMP_SREG, reg);
    nftnl_expr_set_u32(x, NFTNL_EXPR_CMP_OP, op);
    nftnl_expr_set(x, NFTNL_EXPR_CMP_DATA, data, (uint32_t)n);
}

void net_nft_range(struct net_nft_batch *b, uint32_t reg, const void *from, const void *to,
                   size_t n)
{
    struct nftnl_expr *x = expr(b, "range");

    nftnl_expr_set_u32(x, NFTNL_EXPR_RANGE_SREG, reg);
    nftnl_expr_set_u32(x, NFTNL_EXPR_RANGE_OP, NFT_RANGE_EQ);
    nftnl_expr_set(x, NFTNL_EXPR_RANGE_FROM_DATA, from, (uint32_t)n);
    nftnl_expr_set(x, NFTNL_EXPR_RANGE_TO_DATA, to, (uint32_t)n);
}

void net_nft_payload(struct net_nft_batch *b, uint32_t base, uint32_t offset, uint32_t n,
                     uint32_t reg)
{
    struct nftnl_expr *x = expr(b, "payload");

    nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_BASE, base);
    nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
    nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_LEN, n);
    nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_DREG, reg);
}

void net_nft_mask(struct net_nft_batch *b, uint32_t reg, const void *mask, size_t n)
{
    static const uint8_t zero[16];
    struct nftnl_expr *x = expr(b, "bitwise");

    nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_SREG, reg);
    nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_DREG, reg);
    nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_LEN, (uint32_t)n);
    nftnl_expr_set(x, NFTNL_EXPR_BITWISE_MASK, mask, (uint32_t)n);
    nftnl_expr_set(x, NFTNL_EXPR_BITWISE_XOR, zero, (uint32_t)n);
}

void net_nft_lookup(struct net_nft_batch *b, uint32_t reg, const char *set, bool invert)
{
    struct nftnl_expr *x = expr(b, "lookup");

    nftnl_expr_set_u32(x, NFTNL_EXPR_LOOKUP_SREG, reg);
    nftnl_expr_set_str(x, NFTNL_EXPR_LOOKUP_SET, set);
    if (invert)
        nftnl_expr_set_u32(x, NFTNL_EXPR_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
}

void net_nft_ct_state(struct net_nft_batch *b, uint32_t bits)
{
    static const uint32_t none;
    struct nftnl_expr *x = expr(b, "ct");

    nftnl_expr_set_u32(x, NFTNL_EXPR_CT_KEY, NFT_CT_STATE);
    nftnl_expr_set_u32(x, NFTNL_EXPR_CT_DREG, NFT_REG32_00);
    net_nft_mask(b, NFT_REG32_00, &bits, sizeof(bits));
    net_nft_cmp(b, NFT_REG32_00, NFT_CMP_NEQ, &none, sizeof(none));
}

void net_nft_fib_type(struct net_nft_batch *b, uint32_t reg)
{
    struct nftnl_expr *x = expr(b, "fib");

    nftnl_expr_set_u32(x, NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
    nftnl_expr_set_u32(x, NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_DADDR);
    nftnl_expr_set_u32(x, NFTNL_EXPR_FIB_DREG, reg);
}

void net_nft_verdict(struct net_nft_batch *b, int verdict)
{
    struct nftnl_expr *x = expr(b, "immediate");

    nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
    nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_VERDICT, (uint32_t)verdict);
}

void net_nft_reject(struct net_nft_batch *b)
{
    struct nftnl_expr *x = expr(b, "reject");

    nftnl_expr_set_u32(x, NFTNL_EXPR_REJECT_TYPE, NFT_REJECT_ICMPX_UNREACH);
    nftnl_expr_set_u8(x, NFTNL_EXPR_REJECT_CODE, REJECT_ADMIN_PROHIBITED);
}

void net_nft_masquerade(struct net_nft_batch *b)
{
    expr(b, "masq");
}

void net_nft_link_is(struct net_nft_batch *b, uint32_t key, uint32_t op, const char *name)
{
    char padded[NET_LINK_NAME] = {0};

    memcpy(padded, name, strnlen(name, sizeof(padded) - 1));
    net_nft_meta(b, key, NFT_REG32_00);
    net_nft_cmp(b, NFT_REG32_00, op, padded, sizeof(padded));
}

void net_nft_link_begins(struct net_nft_batch *b, uint32_t key, uint32_t op, const char *start)
{
    net_nft_meta(b, key, NFT_REG32_00);
    net_nft_cmp(b, NFT_REG32_00, op, start, strlen(start));
}

void net_nft_family(struct net_nft_batch *b, int family)
{
    uint8_t proto = family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6;

    net_nft_meta(b, NFT_META_NFPROTO, NFT_REG32_00);
    net_nft_cmp(b, NFT_REG32_00, NFT_CMP_EQ, &proto, 1);
}

void net_nft_net(struct net_nft_batch *b, bool source, const struct net_cidr *c, uint32_t op)
{
    bool v4 = c->addr.family == AF_INET;
    uint32_t n = v4 ? 4 : 16, offset = v4 ? (source ? 12 : 16) : (source ? 8 : 24);
    uint8_t mask[16] = {0};

    for (unsigned i = 0; i < c->len; i++)
        mask[i / 8] |= (uint8_t)(0x80 >> (i % 8));
    net_nft_family(b, c->addr.family);
    net_nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, offset, n, NFT_REG32_00);
    net_nft_mask(b, NFT_REG32_00, mask, n);
    net_nft_cmp(b, NFT_REG32_00, op, c->addr.b, n);
}
