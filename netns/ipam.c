#include "netns/ipam.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"

/* Defaults: /18 blocks out of ranges that docker, podman, libvirt, kubernetes and clouds leave alone by
 * default; each is still held against the host's routes. */
#define DEFAULT_LEN 18
static const struct {
    uint8_t b[2];
    unsigned len;
} default_ranges[] = {{{10, 216}, 13}, {{10, 200}, 13}, {{172, 24}, 14}, {{192, 168}, 16}};

#define LIST_MAX 1000
#define BLOCK    256 /* addresses of a shard */

static unsigned family_bits(int family)
{
    return family == AF_INET ? 32 : 128;
}

static bool bits_equal(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    uint8_t mask = (uint8_t)(0xff << (8 - bits % 8));

    if (memcmp(a, b, bits / 8) != 0)
        return false;
    return bits % 8 == 0 || ((a[bits / 8] ^ b[bits / 8]) & mask) == 0;
}

int net_ipam_parse_addr(const char *text, struct net_addr *ret, struct err *e)
{
    struct net_addr a = {0};
    char shown[STR_SHOW_MAX];

    if (inet_pton(AF_INET, text, a.b) == 1)
        a.family = AF_INET;
    else if (inet_pton(AF_INET6, text, a.b) == 1)
        a.family = AF_INET6;
    else
        return err_set(e, ERR_USER, "\"%s\" is not a numeric IPv4 or IPv6 address",
                       str_show(shown, text));
    *ret = a;
    return 0;
}

static bool host_bits_zero(const struct net_cidr *c)
{
    for (unsigned i = c->len; i < family_bits(c->addr.family); i++)
        if (c->addr.b[i / 8] & (0x80 >> (i % 8)))
            return false;
    return true;
}

int net_ipam_parse_cidr(const char *text, struct net_cidr *ret, struct err *e)
{
    char host[INET6_ADDRSTRLEN], shown[STR_SHOW_MAX];
    const char *slash = strchr(text, '/');
    size_t n = slash ? (size_t)(slash - text) : strlen(text);
    struct net_cidr c;
    uint64_t len;

    if (n >= sizeof(host))
        return err_set(e, ERR_USER, "\"%s\" is not a network (address/bits)",
                       str_show(shown, text));
    memcpy(host, text, n);
    host[n] = 0;
    if (net_ipam_parse_addr(host, &c.addr, e) < 0)
        return -1;
    len = family_bits(c.addr.family);
    if (slash && units_u64(slash + 1, len, &len, e) < 0)
        return err_wrap(e, "network \"%s\"", str_show(shown, text));
    c.len = (unsigned)len;
    if (!host_bits_zero(&c))
        return err_set(e, ERR_USER, "network \"%s\" has bits set behind the first %u",
                       str_show(shown, text), c.len);
    *ret = c;
    return 0;
}

void net_ipam_add(struct net_cidrs *l, const struct net_cidr *c)
{
    if (l->n % 16 == 0)
        l->items = mem_realloc(l->items, l->n + 16, sizeof(*l->items));
    l->items[l->n++] = *c;
}

int net_ipam_parse_list(const char *text, struct net_cidrs *ret, struct err *e)
{
    AUTO_FREE char *copy = mem_strdup(text ? text : "");
    char *save = NULL;

    for (char *word = strtok_r(copy, ", \t\n", &save); word;
         word = strtok_r(NULL, ", \t\n", &save)) {
        struct net_cidr c;

        if (ret->n >= LIST_MAX)
            return err_set(e, ERR_LIMIT, "more than %d networks in a list", LIST_MAX);
        if (net_ipam_parse_cidr(word, &c, e) < 0)
            return -1;
        net_ipam_add(ret, &c);
    }
    return 0;
}

void net_ipam_text(const struct net_addr *a, char ret[NET_ADDR_TEXT_MAX])
{
    ret[0] = 0;
    if (a->family)
        inet_ntop(a->family, a->b, ret, NET_ADDR_TEXT_MAX);
}

void net_ipam_cidr_text(const struct net_cidr *c, char ret[NET_ADDR_TEXT_MAX])
{
    size_t n;

    net_ipam_text(&c->addr, ret);
    n = strlen(ret);
    if (n)
        snprintf(ret + n, NET_ADDR_TEXT_MAX - n, "/%u", c->len);
}

bool net_ipam_overlap(const struct net_cidr *a, const struct net_cidr *b)
{
    unsigned len = a->len < b->len ? a->len : b->len;

    return a->addr.family == b->addr.family && bits_equal(a->addr.b, b->addr.b, len);
}

bool net_ipam_contains(const struct net_cidr *c, const struct net_addr *a)
{
    return c->addr.family == a->family && bits_equal(c->addr.b, a->b, c->len);
}

bool net_ipam_is_loopback(const struct net_addr *a)
{
    static const uint8_t one[16] = {[15] = 1};

    return a->family == AF_INET ? a->b[0] == 127 : memcmp(a->b, one, 16) == 0;
}

bool net_ipam_is_link_local(const struct net_addr *a)
{
    if (a->family == AF_INET)
        return a->b[0] == 169 && a->b[1] == 254;
    return a->b[0] == 0xfe && (a->b[1] & 0xc0) == 0x80;
}

int net_ipam_plan(const struct net_cidr *pool4, const struct net_cidr *pool6, struct net_plan *ret,
                  struct err *e)
{
    struct net_plan p = {.pool4 = *pool4, .pool6 = *pool6};
    uint64_t hosts, shards;

    if (pool4->addr.family != AF_INET || pool4->len < 8 || pool4->len > 26)
        return err_set(e, ERR_USER, "the IPv4 pool must be a network between /8 and /26");
    if (pool6->addr.family &&
        (pool6->addr.family != AF_INET6 || pool6->len < 32 || pool6->len > 62))
        return err_set(e, ERR_USER, "the IPv6 pool must be a network between /32 and /62");
    hosts = 1ULL << (32 - (pool4->len + 2));
    shards = hosts / BLOCK < NET_SHARDS ? hosts / BLOCK : NET_SHARDS;
    /* network, gateway and broadcast are nobody's */
    p.slots =
        hosts - 3 <= NET_SHARD_SLOTS ? (unsigned)hosts - 3 : (unsigned)shards * NET_SHARD_SLOTS;
    *ret = p;
    return 0;
}

bool net_ipam_default4(const struct net_names *n, unsigned i, struct net_cidr *ret)
{
    for (size_t r = 0; r < ARRAY_SIZE(default_ranges); r++) {
        unsigned blocks = 1U << (DEFAULT_LEN - default_ranges[r].len);
        unsigned block = (unsigned)((n->hash >> 8) + i) % blocks;

        if (i < blocks) {
            *ret = (struct net_cidr){.addr = {.family = AF_INET}, .len = DEFAULT_LEN};
            memcpy(ret->addr.b, default_ranges[r].b, 2);
            ret->addr.b[1] = (uint8_t)(ret->addr.b[1] + (block >> 2));
            ret->addr.b[2] = (uint8_t)(block << 6);
            return true;
        }
        i -= blocks;
    }
    return false;
}

void net_ipam_default6(const struct net_names *n, struct net_cidr *ret)
{
    *ret = (struct net_cidr){.addr = {.family = AF_INET6, .b = {0xfd}}, .len = 48};
    for (int i = 0; i < 5; i++)
        ret->addr.b[1 + i] = (uint8_t)(n->hash >> (8 * i + 3));
}

const struct net_cidr *net_ipam_conflict(const struct net_cidr *pool, const struct net_cidrs *busy)
{
    for (size_t i = 0; i < busy->n; i++)
        if (net_ipam_overlap(pool, &busy->items[i]))
            return &busy->items[i];
    return NULL;
}

void net_ipam_network(const struct net_plan *p, enum net_which w, int family, struct net_cidr *ret)
{
    const struct net_cidr *pool = family == AF_INET ? &p->pool4 : &p->pool6;
    unsigned len = family == AF_INET ? pool->len + 2 : 64;

    *ret = *pool;
    ret->len = len;
    /* the network's number goes into the last two bits of the prefix */
    ret->addr.b[(len - 1) / 8] |= (uint8_t)(((unsigned)w & 1) << (7 - (len - 1) % 8));
    ret->addr.b[(len - 2) / 8] |= (uint8_t)(((unsigned)w >> 1) << (7 - (len - 2) % 8));
}

static void numbered(const struct net_plan *p, enum net_which w, int family, unsigned number,
                     struct net_addr *ret)
{
    struct net_cidr net;
    size_t last = family == AF_INET ? 3 : 15;

    if (family == AF_INET6 && !p->pool6.addr.family) {
        *ret = (struct net_addr){0};
        return;
    }
    net_ipam_network(p, w, family, &net);
    *ret = net.addr;
    ret->b[last] = (uint8_t)(ret->b[last] | (number & 0xff));
    ret->b[last - 1] = (uint8_t)(ret->b[last - 1] | (number >> 8));
}

void net_ipam_gateway(const struct net_plan *p, enum net_which w, int family, unsigned shard,
                      struct net_addr *ret)
{
    numbered(p, w, family, shard * BLOCK + 1, ret);
}

unsigned net_ipam_bridge_len(const struct net_plan *p, int family, unsigned shard)
{
    if (shard)
        return family == AF_INET ? 24 : 120;
    return family == AF_INET ? p->pool4.len + 2 : 64;
}

void net_ipam_address(const struct net_plan *p, enum net_which w, int family, unsigned slot,
                      struct net_addr *ret)
{
    BUG_ON(slot >= p->slots);
    numbered(p, w, family, net_ipam_shard(slot) * BLOCK + slot % NET_SHARD_SLOTS + 2, ret);
}

/* Slots of a shard; the last one's may be fewer. */
static unsigned shard_slots(const struct net_slots *s, unsigned shard)
{
    unsigned first = shard * NET_SHARD_SLOTS;

    return first >= s->n ? 0 : s->n - first < NET_SHARD_SLOTS ? s->n - first : NET_SHARD_SLOTS;
}

int net_ipam_take(struct net_slots *s, unsigned *ret, struct err *e)
{
    for (unsigned shard = 0; shard < NET_SHARDS; shard++) {
        unsigned n = shard_slots(s, shard);

        for (unsigned i = 0; i < n; i++) {
            unsigned at = (s->next[shard] + i) % n, slot = shard * NET_SHARD_SLOTS + at;

            if (net_ipam_mark(s, slot)) {
                s->next[shard] = (at + 1) % n;
                *ret = slot;
                return 0;
            }
        }
    }
    return err_set(e, ERR_LIMIT, "all %u addresses of the worker's networks are in use", s->n);
}

bool net_ipam_mark(struct net_slots *s, unsigned slot)
{
    uint64_t bit = 1ULL << (slot % 64);

    if (slot >= s->n || (s->used[slot / 64] & bit))
        return false;
    s->used[slot / 64] |= bit;
    return true;
}

void net_ipam_give(struct net_slots *s, unsigned slot)
{
    if (slot < s->n)
        s->used[slot / 64] &= ~(1ULL << (slot % 64));
}
