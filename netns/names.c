#include "netns/names.h"

#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/units.h"

#define TAG_LETTERS 7
#define SLOT_MAX    9999

/* FNV-1a, then mixed so that similar prefixes differ in all bits. */
static uint64_t hash_text(uint64_t h, const char *text)
{
    for (const char *p = text; *p; p++)
        h = (h ^ (uint8_t)*p) * 0x100000001b3ULL;
    return (h ^ 0xff) * 0x100000001b3ULL;
}

static uint64_t mix(uint64_t h)
{
    h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdULL;
    h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53ULL;
    return h ^ (h >> 33);
}

void net_names_make(const char *prefix, const char *state_dir, struct net_names *ret)
{
    static const char *const seed_suffix[NET_NETS] = {"_general", "_ext", "_int"};
    static const char *const suffix[NET_NETS] = {"gen", "ext", "int"};
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567";
    size_t at = strlen(NET_LINK_COMMON);

    memset(ret, 0, sizeof(*ret));
    ret->hash = mix(hash_text(hash_text(0xcbf29ce484222325ULL, prefix), state_dir));
    memcpy(ret->tag, NET_LINK_COMMON, at);
    for (unsigned i = 0; i < TAG_LETTERS; i++)
        ret->tag[at + i] = letters[(ret->hash >> (5 * i)) & 31];
    for (int w = 0; w < NET_NETS; w++) {
        snprintf(ret->bridge[0][w], NET_LINK_NAME, "%.10s%s", ret->tag, suffix[w]);
        for (unsigned s = 1; s < NET_SHARDS; s++)
            snprintf(ret->bridge[s][w], NET_LINK_NAME, "%.10s%s%u", ret->tag, suffix[w], s % 10);
        snprintf(ret->alias[w], sizeof(ret->alias[w]), "%.200s%s", prefix, seed_suffix[w]);
        if (strlen(prefix) + strlen(seed_suffix[w]) < NET_ALT_NAME)
            memcpy(ret->alt[w], ret->alias[w], strlen(ret->alias[w]) + 1);
    }
}

void net_names_port(const struct net_names *n, enum net_which w, unsigned slot,
                    char ret[NET_LINK_NAME])
{
    BUG_ON(slot > SLOT_MAX);
    snprintf(ret, NET_LINK_NAME, "%.10s%c%u", n->tag, w == NET_GENERAL_NET ? 'g' : 'x',
             slot % 10000);
}

bool net_names_is_port(const struct net_names *n, const char *link, unsigned *ret_slot)
{
    size_t at = strlen(n->tag);
    struct err e = ERR_INIT;
    uint64_t slot;

    if (strncmp(link, n->tag, at) != 0 || (link[at] != 'g' && link[at] != 'x') ||
        link[at + 1] < '0' || link[at + 1] > '9' ||
        units_u64(link + at + 1, SLOT_MAX, &slot, &e) < 0)
        return false;
    *ret_slot = (unsigned)slot;
    return true;
}

/* 02 (locally administered, unicast), two bytes of the hash, the network, two bytes of slot. */
static void make_mac(const struct net_names *n, uint8_t kind, unsigned slot, uint8_t ret[NET_MAC])
{
    ret[0] = 0x02;
    ret[1] = (uint8_t)(n->hash >> 40);
    ret[2] = (uint8_t)(n->hash >> 48);
    ret[3] = kind;
    ret[4] = (uint8_t)(slot >> 8);
    ret[5] = (uint8_t)slot;
}

void net_names_bridge_mac(const struct net_names *n, unsigned shard, enum net_which w,
                          uint8_t ret[NET_MAC])
{
    make_mac(n, (uint8_t)w, shard, ret);
}

void net_names_port_mac(const struct net_names *n, enum net_which w, unsigned slot,
                        uint8_t ret[NET_MAC])
{
    make_mac(n, (uint8_t)(0x10 + w), slot, ret);
}
