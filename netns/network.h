#pragma once
/*
 * network.h - the worker's bridges and the runs on them. Door of netns/.
 *
 * Order of calls: net_open (makes or adopts bridges and the nft table), then for each created container
 * net_attach before it is started, net_detach when it ended; net_reconcile once after a restart with the live
 * leases; net_close. DESIGN §7, protocol 5.4 (B080-B082), S51.
 * Threads: any, calls are serialised inside, but for net_lease_get and net_traffic_get, which wait for nobody;
 * attach takes a few ms. Ownership: net_open/net_close; leases are
 * plain data, freed with net_lease_free.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct err;
struct net;

struct net_config {
    const char *
        prefix; /* --network-prefix; link names are derived (at most 15 characters) and unique to it */
    const char *
        pool4; /* "10.88.0.0/16"-like CIDR the three networks are cut from; NULL: first free default */
    const char *pool6;       /* ULA /48, NULL: derived from the prefix; "" : no IPv6 */
    const char *state_dir;   /* 0700, for leases (tmpfs) */
    const char *resolv_conf; /* host's, NULL: /etc/resolv.conf (a stub resolver is seen through) */
    /*
     * For external runs, lists, NULL for none. deny: networks ("10.0.0.0/8, fd00::/8"); the host's addresses,
     * link-local, metadata and other runs are denied anyway. allow: destinations as in grant.h ("10.0.0.5:5432,
     * host:8080, metadata"); wins over all of these. only: when given, the only destinations besides, but for resolvers.
     */
    const char *deny, *allow, *only;
    /* Bytes a second that an external run may send and receive; 0: no limit. */
    uint64_t out_rate, in_rate;
};

enum net_class { NET_INTERNAL, NET_EXTERNAL };

#define NET_ADDR_TEXT 64
struct net_lease {
    char run_id[80];
    enum net_class net_class;
    char general4[NET_ADDR_TEXT],
        general6[NET_ADDR_TEXT]; /* addresses on the general network: netcat goes there */
    char addr4[NET_ADDR_TEXT], addr6[NET_ADDR_TEXT]; /* on the external or internal network */
    char host_if_general[16], host_if[16];           /* host ends of the veth pairs */
    char *resolv_conf, *hosts;                       /* file contents for the container's /etc */
};

int net_open(const struct net_config *c, struct net **ret, struct err *e) MUST_CHECK;
/* Both interfaces, addresses, routes and lo are up inside `netns_fd` when this returns (eth0 general, eth1 other).
 * run_id: the caller's name for it, [A-Za-z0-9_.-]{1,64}. */
int net_attach(struct net *n, const char *run_id, enum net_class c, int netns_fd,
               const char *hostname, struct net_lease **ret, struct err *e) MUST_CHECK;
/* Idempotent. Frees addresses; set elements and links go. */
int net_detach(struct net *n, const char *run_id, struct err *e) MUST_CHECK;
/* The lease as last attached (from state after a restart). ERR_ABSENT. */
int net_lease_get(struct net *n, const char *run_id, struct net_lease **ret, struct err *e)
    MUST_CHECK;
/* What its links have carried. ERR_ABSENT. */
struct net_traffic {
    uint64_t sent, received; /* bytes, as the run sees it, both networks together */
};
int net_traffic_get(struct net *n, const char *run_id, struct net_traffic *ret, struct err *e)
    MUST_CHECK;
/* Everything that belongs to no id in the list goes; what the listed need is re-made if missing. */
int net_reconcile(struct net *n, const char *const *live_ids, size_t n_live, struct err *e)
    MUST_CHECK;
/* remove: take bridges, table and leases away (refused, with ERR_LIMIT, while leases exist). NULL is fine. */
int net_close(struct net *n, bool remove, struct err *e) MUST_CHECK;
void net_lease_free(struct net_lease *l);
DEFINE_AUTO(net_lease, net_lease_free)
