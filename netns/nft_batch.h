#pragma once
/*
 * nft_batch.h - one nftables transaction: libnftnl objects in, one libmnl round trip. Used by nft.c only.
 *
 * Order: net_nft_batch_begin, then tables, chains, sets, rules and elements, then net_nft_batch_commit. All of it
 * happens or none. Rules are written between rule_begin and rule_end, an expression a call, as `nft
 * --debug=netlink` prints them. Threads: the caller's lock.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "netns/ipam.h"

struct err;
struct mnl_socket;
struct nftnl_rule;
struct nftnl_set;
struct nlmsghdr;

struct net_nft_batch {
    char *buf;             /* freed by commit */
    size_t len, cap, last; /* last: where the last message begins */
    uint32_t seq;
    const char *table;
    uint32_t family; /* of what is added next: NFPROTO_INET, NFPROTO_BRIDGE */
    const char *chain;
    struct nftnl_rule *rule;
    size_t rules; /* how many were added */
};

void net_nft_batch_begin(struct net_nft_batch *b, const char *table, uint32_t seq);
int net_nft_batch_commit(struct net_nft_batch *b, struct mnl_socket *sk, struct err *e) MUST_CHECK;

void net_nft_put_table(struct net_nft_batch *b,
                       uint16_t type); /* NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE */
void net_nft_put_chain(struct net_nft_batch *b, const char *name, const char *type, uint32_t hook,
                       int32_t prio);
void net_nft_put_set(struct net_nft_batch *b, const char *name, uint32_t id, uint32_t key_type,
                     uint32_t key_len);
/* The same, of which each element is a limit of its own: `rate` bytes a second, true of what goes beyond it. */
void net_nft_put_limit_set(struct net_nft_batch *b, const char *name, uint32_t id,
                           uint32_t key_type, uint32_t key_len, uint64_t rate, uint32_t burst);
/* NFT_MSG_NEWSETELEM or NFT_MSG_DELSETELEM of one element. */
void net_nft_put_element(struct net_nft_batch *b, uint16_t type, const char *set, const void *key,
                         size_t n);

void net_nft_rule_begin(struct net_nft_batch *b, const char *chain);
void net_nft_rule_end(struct net_nft_batch *b);

/* Expressions; reg: NFT_REG32_00 and up. op: NFT_CMP_EQ, NFT_CMP_NEQ. */
void net_nft_meta(struct net_nft_batch *b, uint32_t key, uint32_t reg);
void net_nft_cmp(struct net_nft_batch *b, uint32_t reg, uint32_t op, const void *data, size_t n);
void net_nft_range(struct net_nft_batch *b, uint32_t reg, const void *from, const void *to,
                   size_t n);
void net_nft_payload(struct net_nft_batch *b, uint32_t base, uint32_t offset, uint32_t n,
                     uint32_t reg);
void net_nft_mask(struct net_nft_batch *b, uint32_t reg, const void *mask, size_t n);
void net_nft_lookup(struct net_nft_batch *b, uint32_t reg, const char *set, bool invert);
void net_nft_ct_state(struct net_nft_batch *b, uint32_t bits); /* any of the bits */
void net_nft_fib_type(struct net_nft_batch *b, uint32_t reg);  /* route type of the destination */
void net_nft_verdict(struct net_nft_batch *b, int verdict);
void net_nft_reject(
    struct net_nft_batch *b); /* ICMP "administratively prohibited": at once an error */
void net_nft_masquerade(struct net_nft_batch *b);

/* Put together from the above. */
void net_nft_link_is(struct net_nft_batch *b, uint32_t key, uint32_t op,
                     const char *name); /* whole name */
void net_nft_link_begins(struct net_nft_batch *b, uint32_t key, uint32_t op, const char *start);
void net_nft_family(struct net_nft_batch *b, int family);
/* Source (or destination) in the network. */
void net_nft_net(struct net_nft_batch *b, bool source, const struct net_cidr *c, uint32_t op);
