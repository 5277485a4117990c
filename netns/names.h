#pragma once
/*
 * names.h - what the links, tables and addresses of one worker are called.
 *
 * --network-prefix may be of any length (B082) while a link name has at most 15 characters, so names are
 * made of a tag: 35 bits of a hash over the prefix and the state directory, so that two workers with the
 * same (default) prefix on one host do not share anything. The seed's names "{prefix}_general", "_ext" and
 * "_int" are given to the bridges as alternative names and aliases, where they fit and are free.
 * Pure; threads: any.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

enum net_which { NET_GENERAL_NET, NET_EXTERNAL_NET, NET_INTERNAL_NET };
#define NET_NETS 3
/* A bridge's cost for one more port grows with the ports it has; so each network has up to so many, of which the second
 * is made when the first is full. */
#define NET_SHARDS 6

#define NET_LINK_NAME 16  /* IFNAMSIZ */
#define NET_ALT_NAME  128 /* ALTIFNAMSIZ */
#define NET_MAC       6
/* All links of all workers begin so; those of one worker with its whole tag. */
#define NET_LINK_COMMON "cwk"

struct net_names {
    char tag[NET_LINK_NAME]; /* "cwk" and 7 of [a-z2-7] */
    /* tag "gen", "ext", "int"; of the shards behind the first with their number: "ext1" */
    char bridge[NET_SHARDS][NET_NETS][NET_LINK_NAME];
    char alt[NET_NETS][NET_ALT_NAME]; /* "" when it does not fit */
    char alias[NET_NETS][256];        /* cut to IFALIASZ */
    uint64_t hash;                    /* seeds MAC and ULA addresses */
};

void net_names_make(const char *prefix, const char *state_dir, struct net_names *ret);
/* Host end of a run's link: tag, 'g' (general) or 'x' (the other), slot in decimal. */
void net_names_port(const struct net_names *n, enum net_which w, unsigned slot,
                    char ret[NET_LINK_NAME]);
/* Is it a port's name of this worker? Sets the slot. */
bool net_names_is_port(const struct net_names *n, const char *link, unsigned *ret_slot);
/* Locally administered addresses: of the bridge, and of the container's end. */
void net_names_bridge_mac(const struct net_names *n, unsigned shard, enum net_which w,
                          uint8_t ret[NET_MAC]);
void net_names_port_mac(const struct net_names *n, enum net_which w, unsigned slot,
                        uint8_t ret[NET_MAC]);
