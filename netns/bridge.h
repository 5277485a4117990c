#pragma once
/*
 * bridge.h - the worker's bridges, as static switches: nothing is learnt, nothing is flooded.
 *
 * Order: net_bridge_ensure for each of the three, then the nft table, then net_bridge_up. All are safe to
 * repeat, on a bridge that is there already too. Addresses have no duplicate detection, no link-local
 * address is made, router advertisements and redirects are ignored, routes to 127.0.0.0/8 stay impossible
 * (S51). Threads: the caller's lock.
 */
#include <stdbool.h>

#include "base/cleanup.h"
#include "netns/ipam.h"
#include "netns/names.h"

struct err;
struct net_nl;

/* Make it (down) if it is not there; its index goes to *ret_index. ERR_HOST when another kind of link has
 * the name. */
int net_bridge_ensure(struct net_nl *nl, const struct net_names *names, unsigned shard,
                      enum net_which w, unsigned mtu, int *ret_index, struct err *e) MUST_CHECK;
/* Its addresses and settings, then up. */
int net_bridge_up(struct net_nl *nl, const struct net_names *names, unsigned shard,
                  enum net_which w, const struct net_plan *plan, int index, struct err *e)
    MUST_CHECK;
/* Queue its removal; missing is fine. */
void net_bridge_remove(struct net_nl *nl, const struct net_names *names, unsigned shard,
                       enum net_which w);
