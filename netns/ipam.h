#pragma once
/*
 * ipam.h - address pools cut into the three networks, and slots.
 *
 * A pool is one IPv4 block and (optionally) one IPv6 block, each cut in four: general, external, internal,
 * one spare. A run holds one slot, a small number; its addresses on every network follow from it, so
 * addresses are never stored and can be re-derived after a restart. Slots are taken in turn (next fit), so a
 * freed address rests as long as possible. A network of more than 256 addresses is used in blocks of 256, a bridge (a
 * shard) each; slots of the second are taken when the first has none. Pure; threads: the caller's lock.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "netns/names.h"

struct err;

struct net_addr {
    int family; /* AF_INET, AF_INET6, or 0: none */
    uint8_t b[16];
};

struct net_cidr {
    struct net_addr addr; /* host bits are zero */
    unsigned len;
};

struct net_cidrs {
    struct net_cidr *items; /* freed with free() */
    size_t n;
};

#define NET_SHARD_SLOTS 170
#define NET_SLOTS_MAX   (NET_SHARDS * NET_SHARD_SLOTS)

struct net_plan {
    struct net_cidr pool4, pool6; /* pool6.addr.family 0: no IPv6 */
    unsigned slots;               /* how many runs fit, at most NET_SLOTS_MAX */
};

struct net_slots {
    uint64_t used[(NET_SLOTS_MAX + 63) / 64];
    unsigned n;                /* how many there are */
    unsigned next[NET_SHARDS]; /* where to look first, within each shard */
};

#define NET_ADDR_TEXT_MAX 64

/* Numeric address; ERR_USER. */
int net_ipam_parse_addr(const char *text, struct net_addr *ret, struct err *e) MUST_CHECK;
/* "10.1.0.0/16", "fd00::/8", or a bare address; host bits must be zero. ERR_USER. */
int net_ipam_parse_cidr(const char *text, struct net_cidr *ret, struct err *e) MUST_CHECK;
/* A comma or blank separated list appended to ret; NULL or "" is fine. */
int net_ipam_parse_list(const char *text, struct net_cidrs *ret, struct err *e) MUST_CHECK;
void net_ipam_add(struct net_cidrs *l, const struct net_cidr *c);
void net_ipam_text(const struct net_addr *a, char ret[NET_ADDR_TEXT_MAX]);
void net_ipam_cidr_text(const struct net_cidr *c, char ret[NET_ADDR_TEXT_MAX]);
bool net_ipam_overlap(const struct net_cidr *a, const struct net_cidr *b);
bool net_ipam_contains(const struct net_cidr *c, const struct net_addr *a);
bool net_ipam_is_loopback(const struct net_addr *a);
bool net_ipam_is_link_local(const struct net_addr *a);

/* Check the pools (IPv4 /8 to /26; IPv6 /32 to /62, family 0 for none) and size the plan. ERR_USER. */
int net_ipam_plan(const struct net_cidr *pool4, const struct net_cidr *pool6, struct net_plan *ret,
                  struct err *e) MUST_CHECK;
/* The i-th default IPv4 pool to try for this worker, in an order of its own; false when there is none left. */
bool net_ipam_default4(const struct net_names *n, unsigned i, struct net_cidr *ret);
/* A ULA /48 (RFC 4193) from the worker's hash. */
void net_ipam_default6(const struct net_names *n, struct net_cidr *ret);
/* First of `busy` that overlaps, or NULL. */
const struct net_cidr *net_ipam_conflict(const struct net_cidr *pool, const struct net_cidrs *busy);

/* family AF_INET or AF_INET6; IPv6 networks are /64. */
void net_ipam_network(const struct net_plan *p, enum net_which w, int family, struct net_cidr *ret);
/* Of a shard's bridge. The first one's network is the whole, so that the host has a route to all of it. */
void net_ipam_gateway(const struct net_plan *p, enum net_which w, int family, unsigned shard,
                      struct net_addr *ret);
unsigned net_ipam_bridge_len(const struct net_plan *p, int family, unsigned shard);
static inline unsigned net_ipam_shard(unsigned slot)
{
    return slot / NET_SHARD_SLOTS;
}
void net_ipam_address(const struct net_plan *p, enum net_which w, int family, unsigned slot,
                      struct net_addr *ret);

/* A free slot, or ERR_LIMIT. */
int net_ipam_take(struct net_slots *s, unsigned *ret, struct err *e) MUST_CHECK;
/* Mark as used (a lease found); false when it was already, or out of range. */
bool net_ipam_mark(struct net_slots *s, unsigned slot) MUST_CHECK;
void net_ipam_give(struct net_slots *s, unsigned slot);
