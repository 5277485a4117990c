#pragma once
/*
 * fabric.h - bridges, rules and ports as one thing that can be looked at and put right.
 *
 * net_fabric_make is both the making and the healing: bridges (down), rules, bridges up, forwarding, and
 * every port that is not in its place. In that order nothing is reachable before its rules stand (S51).
 * net_fabric_intact and net_fabric_shard are the cheap look before each attach: a handful of short questions to the kernel.
 * Threads: the caller's lock.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "netns/dns.h"
#include "netns/grant.h"
#include "netns/ipam.h"
#include "netns/names.h"
#include "netns/nft.h"
#include "netns/rate.h"
#include "netns/veth.h"
#include "netns/ways.h"

struct err;
struct net_nl;

struct net_fabric {
    struct net_names names;
    struct net_plan plan;
    struct net_cidrs deny; /* these three are the operator's, for external runs */
    struct net_grants allow, only;
    struct net_rates rates;
    struct net_nl *nl;
    struct net_nft *nft;
    struct net_ways ways;
    net_link_list opened[2];
    int bridge[NET_SHARDS][NET_NETS]; /* indices */
    unsigned shards;                  /* a bit for each that is made; the first always is */
    struct net_resolv resolv;
};

/* Sockets; names are set by the caller before. */
int net_fabric_open(struct net_fabric *f, struct err *e) MUST_CHECK;
void net_fabric_close(struct net_fabric *f);

/* ports: of every lease. opened may have changed afterwards. */
int net_fabric_make(struct net_fabric *f, const struct net_port *ports, size_t n_ports,
                    struct err *e) MUST_CHECK;
/* The host's ways out and forwarding, and the rules: what all shards stand on. */
int net_fabric_intact(struct net_fabric *f, bool *ret, struct err *e) MUST_CHECK;
/* Before a port is added to a shard: made if it never was. *ret false: someone harmed it, and all is to be made anew. */
int net_fabric_shard(struct net_fabric *f, unsigned shard, bool *ret, struct err *e) MUST_CHECK;
/* Links, rules and switches go; opened is empty then. */
int net_fabric_remove(struct net_fabric *f, struct err *e) MUST_CHECK;
