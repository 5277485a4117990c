#pragma once
/*
 * nft.h - the worker's nftables: what a run may reach, and that it is who it says.
 *
 * Two tables of one name (the worker's tag), kept as one: family "bridge" lets a frame in only when port, MAC
 * address and IP address belong together; family "inet" says where packets of each network may go, and
 * masquerades. Rules stand once; a run is a few set elements. Everything not granted is refused, also for a
 * link of ours the rules do not know. Other tables are never touched; our chains only ever take away, so
 * what another firewall drops stays dropped.
 *
 * Order: net_nft_open; net_nft_rebuild (one transaction: the old rules hold until the new ones do); then add
 * and del as runs come and go. Threads: the caller's lock.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "netns/grant.h"
#include "netns/ipam.h"
#include "netns/names.h"
#include "netns/veth.h"
#include "netns/ways.h"

struct err;
struct net_nft;

struct net_nft_rules {
    const struct net_plan *plan;
    struct net_cidrs deny;   /* for external runs */
    struct net_grants allow; /* wins over deny, and over what is denied to all */
    struct net_grants only;  /* when not empty: the only places besides */
    uint64_t out_rate;       /* bytes a second a run may send; 0: as many as it likes */
    struct net_cidrs dns;    /* single addresses: port 53 may be asked, wherever they are */
    net_link_list uplink;    /* ways out */
    net_link_list
        opened[2]; /* links whose forwarding (IPv4, IPv6) we switched on: for our runs only */
};

int net_nft_open(const struct net_names *names, struct net_nft **ret, struct err *e) MUST_CHECK;
void net_nft_close(struct net_nft *n); /* the tables stay; NULL is fine */
DEFINE_AUTO(net_nft, net_nft_close)

/* Make both tables anew, with the ports given, in one transaction. */
int net_nft_rebuild(struct net_nft *n, const struct net_nft_rules *r, const struct net_port *ports,
                    size_t n_ports, struct err *e) MUST_CHECK;
int net_nft_add(struct net_nft *n, const struct net_port *ports, size_t n_ports, struct err *e)
    MUST_CHECK;
/* Missing elements are fine. */
int net_nft_del(struct net_nft *n, const struct net_port *ports, size_t n_ports, struct err *e)
    MUST_CHECK;
/*
 * Are rules and elements as many as we made? One short question while nobody changed any ruleset of the host;
 * else they are counted.
 */
int net_nft_intact(struct net_nft *n, bool *ret, struct err *e) MUST_CHECK;
/* Take both tables away; missing is fine. */
int net_nft_remove(struct net_nft *n, struct err *e) MUST_CHECK;
