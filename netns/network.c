/*
 * A run is a slot: addresses, link names and MAC addresses follow from its number. The lease files are the truth;
 * what is in memory is a copy of them, read again when another process changed something. Every change is
 * made under the directory's lock, in an order that leaves, at a crash, a file for whatever else there is.
 */
#include "netns/network.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "netns/dns.h"
#include "netns/fabric.h"
#include "netns/inside.h"
#include "netns/nl.h"
#include "netns/rate.h"
#include "netns/store.h"

#define PORTS_PER_RUN 2

struct held {
    char run_id[80]; /* "": the slot is free */
    enum net_class net_class;
};

struct net {
    pthread_mutex_t mutex; /* all of this */
    struct net_fabric fabric;
    struct net_store *store;
    struct net_settings settings;
    struct net_slots slots;
    struct held held[NET_SLOTS_MAX];
    char *resolv_conf;
    bool made; /* the fabric was made by us */
    pthread_mutex_t watch_mutex;
    struct net_nl *watch;
};

static enum net_which other_net(enum net_class c)
{
    return c == NET_EXTERNAL ? NET_EXTERNAL_NET : NET_INTERNAL_NET;
}

/* Names and plan do not change behind net_open. */
static void ports_of(const struct net *n, unsigned slot, enum net_class c,
                     struct net_port ret[PORTS_PER_RUN])
{
    net_veth_port_make(&n->fabric.names, &n->fabric.plan, NET_GENERAL_NET, slot, &ret[0]);
    net_veth_port_make(&n->fabric.names, &n->fabric.plan, other_net(c), slot, &ret[1]);
}

static struct held *find(struct net *n, const char *run_id)
{
    for (unsigned i = 0; i < n->slots.n; i++)
        if (str_eq(n->held[i].run_id, run_id))
            return &n->held[i];
    return NULL;
}

/* Leases in memory := leases on disk. */

static int hold_record(void *arg, const struct net_record *r, struct err *e)
{
    struct net *n = arg;

    /* a pool made smaller, or a file copied by hand: the lease's links are orphans, and go */
    if (!net_ipam_mark(&n->slots, r->slot))
        return net_store_drop(n->store, r->run_id, e);
    snprintf(n->held[r->slot].run_id, sizeof(n->held[r->slot].run_id), "%.64s", r->run_id);
    n->held[r->slot].net_class = (enum net_class)r->net_class;
    return 0;
}

static int reload(struct net *n, struct err *e)
{
    memset(n->held, 0, sizeof(n->held));
    memset(n->slots.used, 0, sizeof(n->slots.used));
    n->slots.n = n->fabric.plan.slots;
    return net_store_each(n->store, hold_record, n, e);
}

/* Bridges, rules, ports: make or put right. */

static int make_fabric(struct net *n, struct err *e)
{
    AUTO_FREE struct net_port *ports =
        mem_array((size_t)n->slots.n * PORTS_PER_RUN + 1, sizeof(*ports));
    size_t n_ports = 0;

    for (unsigned i = 0; i < n->slots.n; i++)
        if (n->held[i].run_id[0]) {
            ports_of(n, i, n->held[i].net_class, ports + n_ports);
            n_ports += PORTS_PER_RUN;
        }
    n->made = false;
    if (net_fabric_make(&n->fabric, ports, n_ports, e) < 0)
        return -1;
    n->made = true;
    if (memcmp(n->settings.opened, n->fabric.opened, sizeof(n->settings.opened)) == 0)
        return 0;
    memcpy(n->settings.opened, n->fabric.opened, sizeof(n->settings.opened));
    return net_store_set(n->store, &n->settings, e);
}

/* The host's resolvers may have changed: then port 53 of the new ones is let through. */
static bool resolvers_changed(struct net *n)
{
    struct net_resolv now;
    bool same;

    net_dns_host(n->resolv_conf, &now);
    same = now.n == n->fabric.resolv.n &&
           memcmp(now.servers, n->fabric.resolv.servers, sizeof(now.servers)) == 0;
    net_resolv_free(&n->fabric.resolv);
    n->fabric.resolv = now;
    return !same;
}

static int ready(struct net *n, bool changed, struct err *e)
{
    bool resolvers = resolvers_changed(n), intact = false;

    if (changed && reload(n, e) < 0)
        return -1;
    if (n->made && !changed && !resolvers && net_fabric_intact(&n->fabric, &intact, e) < 0)
        return -1;
    return intact ? 0 : make_fabric(n, e);
}

static int lock(struct net *n, bool *ret_changed, struct err *e)
{
    pthread_mutex_lock(&n->mutex);
    if (net_store_lock(n->store, ret_changed, e) == 0)
        return 0;
    pthread_mutex_unlock(&n->mutex);
    return -1;
}

static void unlock(struct net *n, bool changed)
{
    net_store_unlock(n->store, changed);
    pthread_mutex_unlock(&n->mutex);
}

/* Choosing pools. */

static int free_default4(struct net *n, const struct net_cidrs *busy, struct net_cidr *ret,
                         struct err *e)
{
    for (unsigned i = 0; net_ipam_default4(&n->fabric.names, i, ret); i++)
        if (!net_ipam_conflict(ret, busy))
            return 0;
    return err_set(e, ERR_HOST,
                   "no private IPv4 network is free on this host; give one with --network-pool");
}

static int check_pool(const char *given, const struct net_cidrs *busy, struct net_cidr *ret,
                      struct err *e)
{
    const struct net_cidr *taken;
    char text[NET_ADDR_TEXT_MAX];

    if (net_ipam_parse_cidr(given, ret, e) < 0)
        return -1;
    taken = net_ipam_conflict(ret, busy);
    if (!taken)
        return 0;
    net_ipam_cidr_text(taken, text);
    return err_set(e, ERR_USER,
                   "the network pool %s overlaps %s, to which this host has a route or an address; "
                   "give another pool",
                   given, text);
}

/* The resolvers count as taken too: a default route leads to them, which no list of routes shows. */
static void add_resolvers(struct net *n, struct net_cidrs *busy)
{
    for (size_t i = 0; i < n->fabric.resolv.n; i++) {
        struct net_cidr c = {.addr = n->fabric.resolv.servers[i]};

        c.len = c.addr.family == AF_INET ? 32 : 128;
        net_ipam_add(busy, &c);
    }
}

static int choose_pools(struct net *n, const struct net_config *c, struct err *e)
{
    struct net_ways *ways = &n->fabric.ways;
    struct net_cidr pool4, pool6 = {0};
    struct err ignored = ERR_INIT;
    int rc = 0;

    net_ways_free(ways);
    if (net_ways_find(n->fabric.nl, n->fabric.names.tag, ways, e) < 0)
        return -1;
    add_resolvers(n, &ways->busy);
    if (c->pool4)
        rc = check_pool(c->pool4, &ways->busy, &pool4, e);
    else if (!n->settings.pool4[0] || net_ipam_parse_cidr(n->settings.pool4, &pool4, &ignored) < 0)
        rc = free_default4(n, &ways->busy, &pool4, e);
    if (rc == 0 && c->pool6 && c->pool6[0])
        rc = check_pool(c->pool6, &ways->busy, &pool6, e);
    else if (rc == 0 && !c->pool6)
        net_ipam_default6(&n->fabric.names, &pool6);
    if (!ways->host_ipv6)
        pool6 = (struct net_cidr){0};
    if (rc < 0 || net_ipam_plan(&pool4, &pool6, &n->fabric.plan, e) < 0)
        return -1;
    net_ipam_cidr_text(&pool4, n->settings.pool4);
    net_ipam_cidr_text(&pool6, n->settings.pool6);
    return net_store_set(n->store, &n->settings, e);
}

/* Workers that start at the same time choose one after the other. Best effort: -1 where /run is not ours. */
static int host_lock(void)
{
    int fd = open("/run/cworker-networks.lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd >= 0)
        (void)flock(fd, LOCK_EX);
    return fd;
}

static int open_locked(struct net *n, const struct net_config *c, struct err *e)
{
    AUTO_CLOSE int one_at_a_time = host_lock();

    (void)one_at_a_time;
    if (net_store_settings(n->store, &n->settings, e) < 0)
        return -1;
    memcpy(n->fabric.opened, n->settings.opened, sizeof(n->fabric.opened));
    net_dns_host(n->resolv_conf, &n->fabric.resolv);
    if (choose_pools(n, c, e) < 0 || reload(n, e) < 0)
        return -1;
    return make_fabric(n, e);
}

static void free_net(struct net *n)
{
    net_fabric_close(&n->fabric);
    net_store_close(n->store);
    net_nl_close(n->watch);
    pthread_mutex_destroy(&n->mutex);
    pthread_mutex_destroy(&n->watch_mutex);
    free(n->resolv_conf);
    free(n);
}

static int parse_grants(struct net *n, const struct net_config *c, struct err *e)
{
    if (net_grant_parse(c->allow, &n->fabric.allow, e) < 0 ||
        net_grant_parse(c->only, &n->fabric.only, e) < 0)
        return -1;
    if (net_grant_has_host(&n->fabric.only))
        return err_set(e, ERR_USER,
                       "this host is no place outside: it is granted by --network-allow");
    return 0;
}

int net_open(const struct net_config *c, struct net **ret, struct err *e)
{
    struct net *n = mem_new(struct net);
    bool changed;
    int rc = -1;

    pthread_mutex_init(&n->mutex, NULL);
    pthread_mutex_init(&n->watch_mutex, NULL);
    n->resolv_conf = mem_strdup(c->resolv_conf);
    n->fabric.rates = (struct net_rates){.out = c->out_rate, .in = c->in_rate};
    net_names_make(c->prefix, c->state_dir, &n->fabric.names);
    if (net_ipam_parse_list(c->deny, &n->fabric.deny, e) == 0 && parse_grants(n, c, e) == 0 &&
        net_rate_check(&n->fabric.rates, e) == 0 &&
        net_store_open(c->state_dir, &n->store, e) == 0 && net_fabric_open(&n->fabric, e) == 0 &&
        net_nl_open(&n->watch, e) == 0 && lock(n, &changed, e) == 0) {
        rc = open_locked(n, c, e);
        unlock(n, true);
    }
    if (rc < 0) {
        free_net(n);
        return err_wrap(e, "networks of %.60s", c->prefix);
    }
    *ret = n;
    return 0;
}

/* Attach. */

struct attach {
    const char *run_id, *hostname;
    enum net_class net_class;
    int netns_fd;
    unsigned slot;
    struct net_port ports[PORTS_PER_RUN];
};

/* In the container's namespace. Nothing is read or written below /proc/sys in there: the kernel keeps such names of
 * all namespaces in one list, and each look-up would cost more than the last. */
static int open_inside(void *arg, struct err *e)
{
    return net_nl_open(arg, e);
}

static int make_links(struct net *n, const struct attach *a, struct err *e)
{
    static const char *const inside[PORTS_PER_RUN] = {"eth0", "eth1"};
    struct net_fabric *f = &n->fabric;
    uint32_t group = net_veth_group(f->bridge[a->ports[0].shard][NET_GENERAL_NET], a->slot);
    struct net_link link[PORTS_PER_RUN];

    for (int i = 0; i < PORTS_PER_RUN; i++)
        net_veth_add(f->nl, &a->ports[i], f->bridge[a->ports[i].shard][a->ports[i].which], group,
                     inside[i], a->netns_fd, f->ways.mtu);
    if (net_nl_send(f->nl, e) < 0)
        return -1;
    for (int i = 0; i < PORTS_PER_RUN; i++) {
        if (net_nl_link(f->nl, a->ports[i].name, &link[i], e) < 0)
            return -1;
        if (!link[i].index)
            return err_set(e, ERR_ABSENT, "link %s went away", a->ports[i].name);
    }
    for (int i = 0; i < PORTS_PER_RUN; i++) {
        net_veth_port(f->nl, &a->ports[i], f->bridge[a->ports[i].shard][a->ports[i].which],
                      link[i].index, 0);
        if (a->ports[i].which == NET_EXTERNAL_NET)
            net_rate_add(f->nl, link[i].index, f->rates.in, f->ways.mtu, a->ports[i].name);
    }
    return net_nl_send(f->nl, e);
}

static int remove_links(struct net *n, const struct net_port *ports, struct err *e)
{
    struct net_fabric *f = &n->fabric;

    net_veth_remove_group(
        f->nl, net_veth_group(f->bridge[ports[0].shard][NET_GENERAL_NET], ports[0].slot));
    for (int i = 0; i < PORTS_PER_RUN; i++) {
        net_veth_remove(f->nl, ports[i].name);
        net_veth_forget(f->nl, &ports[i], f->bridge[ports[i].shard][ports[i].which]);
    }
    return net_nl_send(f->nl, e);
}

static int set_up_inside(struct net *n, const struct attach *a, struct err *e)
{
    unsigned flags[PORTS_PER_RUN] = {NET_VETH_GATEWAY, 0};
    AUTO(net_nl) struct net_nl *inside = NULL;

    if (a->net_class == NET_EXTERNAL)
        flags[1] = NET_VETH_GATEWAY | NET_VETH_DEFAULT4 |
                   (n->fabric.ways.forward6 ? NET_VETH_DEFAULT6 : 0);
    if (net_inside_call(a->netns_fd, open_inside, &inside, e) < 0)
        return -1;
    return net_veth_inside(inside, a->ports, flags, PORTS_PER_RUN,
                           a->net_class == NET_EXTERNAL ? n->fabric.rates.out : 0,
                           n->fabric.ways.mtu, e);
}

/* First the ports, whose state makes the bridges'. The ends inside were set up last and run at once. */
static int await_running(struct net *n, const struct attach *a, struct err *e)
{
    struct net_fabric *f = &n->fabric;

    for (int i = 0; i < PORTS_PER_RUN; i++)
        if (net_nl_await_running(f->nl, a->ports[i].name, e) < 0 ||
            net_nl_await_running(f->nl, f->names.bridge[a->ports[i].shard][a->ports[i].which], e) <
                0)
            return -1;
    return 0;
}

static int connect_run(struct net *n, const struct attach *a, struct err *e)
{
    struct err first = ERR_INIT;

    if (net_nft_add(n->fabric.nft, a->ports, PORTS_PER_RUN, e) < 0)
        return -1;
    if (make_links(n, a, &first) < 0) {
        if (first.sys != EEXIST) {
            *e = first;
            return -1;
        }
        /* left by a run whose namespace the kernel is still taking down */
        if (remove_links(n, a->ports, e) < 0 || make_links(n, a, e) < 0)
            return -1;
    }
    return set_up_inside(n, a, e) < 0 ? -1 : await_running(n, a, e);
}

static void fill_lease(const struct attach *a, const struct net_record *r, struct net_lease *l)
{
    snprintf(l->run_id, sizeof(l->run_id), "%s", a->run_id);
    l->net_class = a->net_class;
    net_ipam_text(&a->ports[0].addr[0], l->general4);
    net_ipam_text(&a->ports[0].addr[1], l->general6);
    net_ipam_text(&a->ports[1].addr[0], l->addr4);
    net_ipam_text(&a->ports[1].addr[1], l->addr6);
    snprintf(l->host_if_general, sizeof(l->host_if_general), "%s", a->ports[0].name);
    snprintf(l->host_if, sizeof(l->host_if), "%s", a->ports[1].name);
    mem_replace(&l->resolv_conf, r->resolv_conf);
    mem_replace(&l->hosts, r->hosts);
}

static struct net_record *new_record(const struct net *n, const struct attach *a)
{
    bool external = a->net_class == NET_EXTERNAL;
    char addr4[NET_ADDR_TEXT_MAX], addr6[NET_ADDR_TEXT_MAX];
    struct net_record *r = mem_new(struct net_record);

    net_ipam_text(&a->ports[0].addr[0], addr4);
    net_ipam_text(&a->ports[0].addr[1], addr6);
    r->run_id = mem_strdup(a->run_id);
    r->hostname = mem_strdup(a->hostname);
    r->slot = a->slot;
    r->net_class = a->net_class;
    r->resolv_conf = net_dns_resolv_conf(&n->fabric.resolv, external, n->fabric.ways.forward6);
    r->hosts = net_dns_hosts(a->hostname, addr4, addr6);
    return r;
}

/* Links first, then what let their packets in, then the address, then the file that told of it all. */
static int release(struct net *n, unsigned slot, struct err *e)
{
    struct held *h = &n->held[slot];
    struct net_port ports[PORTS_PER_RUN];

    ports_of(n, slot, h->net_class, ports);
    if (remove_links(n, ports, e) < 0 || net_nft_del(n->fabric.nft, ports, PORTS_PER_RUN, e) < 0 ||
        net_store_drop(n->store, h->run_id, e) < 0)
        return -1;
    *h = (struct held){0};
    net_ipam_give(&n->slots, slot);
    return 0;
}

/* The slot's own bridges. */
static int ready_shard(struct net *n, unsigned shard, struct err *e)
{
    bool good;

    if (net_fabric_shard(&n->fabric, shard, &good, e) < 0)
        return -1;
    return good ? 0 : make_fabric(n, e);
}

static int attach_locked(struct net *n, bool changed, struct attach *a, struct net_lease **ret,
                         struct err *e)
{
    AUTO(net_record) struct net_record *r = NULL;
    AUTO(net_lease) struct net_lease *l = mem_new(struct net_lease);
    struct err ignored = ERR_INIT;
    struct held *old;

    if (ready(n, changed, e) < 0)
        return -1;
    old = find(n, a->run_id);
    if (old && release(n, (unsigned)(old - n->held), e) < 0)
        return -1;
    if (net_ipam_take(&n->slots, &a->slot, e) < 0)
        return -1;
    ports_of(n, a->slot, a->net_class, a->ports);
    r = new_record(n, a);
    if (net_store_put(n->store, r, e) < 0) {
        net_ipam_give(&n->slots, a->slot);
        return -1;
    }
    snprintf(n->held[a->slot].run_id, sizeof(n->held[a->slot].run_id), "%s", a->run_id);
    n->held[a->slot].net_class = a->net_class;
    if (ready_shard(n, a->ports[0].shard, e) < 0 || connect_run(n, a, e) < 0) {
        if (release(n, a->slot, &ignored) < 0)
            log_debug("run=%s its network could not be undone: %s", a->run_id, ignored.msg);
        return -1;
    }
    fill_lease(a, r, l);
    *ret = take_ptr(&l);
    return 0;
}

static int check_id(const char *run_id, struct err *e)
{
    char shown[STR_SHOW_MAX];

    if (!net_store_id_ok(run_id))
        return err_set(e, ERR_USER, "\"%s\" is no name for a run's network",
                       str_show(shown, run_id));
    return 0;
}

int net_attach(struct net *n, const char *run_id, enum net_class c, int netns_fd,
               const char *hostname, struct net_lease **ret, struct err *e)
{
    struct attach a = {
        .run_id = run_id, .hostname = hostname, .net_class = c, .netns_fd = netns_fd};
    char shown[STR_SHOW_MAX];
    bool changed;
    int rc;

    if (check_id(run_id, e) < 0)
        return -1;
    if (!net_dns_hostname_ok(hostname))
        return err_set(e, ERR_USER, "\"%s\" is no host name", str_show(shown, hostname));
    if (lock(n, &changed, e) < 0)
        return -1;
    rc = attach_locked(n, changed, &a, ret, e);
    unlock(n, true);
    return rc < 0 ? err_wrap(e, "network of %s", run_id) : 0;
}

int net_detach(struct net *n, const char *run_id, struct err *e)
{
    struct held *h;
    bool changed;
    int rc;

    if (check_id(run_id, e) < 0 || lock(n, &changed, e) < 0)
        return -1;
    rc = changed ? reload(n, e) : 0;
    h = rc == 0 ? find(n, run_id) : NULL;
    if (h)
        rc = release(n, (unsigned)(h - n->held), e);
    if (changed)
        n->made =
            false; /* counts of set elements are another process's: look again before the next attach */
    unlock(n, h != NULL);
    return rc < 0 ? err_wrap(e, "network of %s", run_id) : 0;
}

int net_lease_get(struct net *n, const char *run_id, struct net_lease **ret, struct err *e)
{
    AUTO(net_record) struct net_record *r = NULL;
    struct net_lease *l;
    struct attach a = {.run_id = run_id};

    if (check_id(run_id, e) < 0 || net_store_get(n->store, run_id, &r, e) < 0)
        return -1;
    if (r->slot >= n->fabric.plan.slots)
        return err_set(e, ERR_ABSENT, "network lease of %s is of another pool", run_id);
    a.net_class = (enum net_class)r->net_class;
    ports_of(n, r->slot, a.net_class, a.ports);
    l = mem_new(struct net_lease);
    fill_lease(&a, r, l);
    *ret = l;
    return 0;
}

/* With a socket of its own: whoever asks does not wait for a link that is being removed. */
static int ask_traffic(struct net *n, const struct net_port *ports, struct net_traffic *ret,
                       struct err *e)
{
    struct net_traffic sum = {0};
    int rc = 0;

    pthread_mutex_lock(&n->watch_mutex);
    for (int i = 0; i < PORTS_PER_RUN && rc == 0; i++) {
        struct net_link link;

        rc = net_nl_link(n->watch, ports[i].name, &link, e);
        if (rc == 0) { /* the host end receives what the run sends */
            sum.sent += link.rx_bytes;
            sum.received += link.tx_bytes;
        }
    }
    pthread_mutex_unlock(&n->watch_mutex);
    if (rc == 0)
        *ret = sum;
    return rc;
}

int net_traffic_get(struct net *n, const char *run_id, struct net_traffic *ret, struct err *e)
{
    AUTO(net_record) struct net_record *r = NULL;
    struct net_port ports[PORTS_PER_RUN];

    if (check_id(run_id, e) < 0 || net_store_get(n->store, run_id, &r, e) < 0)
        return -1;
    if (r->slot >= n->fabric.plan.slots)
        return err_set(e, ERR_ABSENT, "network lease of %s is of another pool", run_id);
    ports_of(n, r->slot, (enum net_class)r->net_class, ports);
    return ask_traffic(n, ports, ret, e);
}

static bool is_listed(const char *id, const char *const *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(id, ids[i]))
            return true;
    return false;
}

int net_reconcile(struct net *n, const char *const *live_ids, size_t n_live, struct err *e)
{
    bool changed;
    int rc;

    if (lock(n, &changed, e) < 0)
        return -1;
    rc = reload(n, e);
    for (unsigned i = 0; rc == 0 && i < n->slots.n; i++)
        if (n->held[i].run_id[0] && !is_listed(n->held[i].run_id, live_ids, n_live))
            rc = release(n, i, e);
    if (rc == 0)
        rc = make_fabric(n, e);
    unlock(n, true);
    return rc < 0 ? err_wrap(e, "put the networks in order") : 0;
}

static int remove_all(struct net *n, struct err *e)
{
    unsigned left = 0;

    if (reload(n, e) < 0)
        return -1;
    for (unsigned i = 0; i < n->slots.n; i++)
        left += n->held[i].run_id[0] != 0;
    if (left)
        return err_set(e, ERR_LIMIT, "the networks stay: %u runs are on them", left);
    if (net_fabric_remove(&n->fabric, e) < 0)
        return -1;
    net_store_wipe(n->store);
    return 0;
}

int net_close(struct net *n, bool remove, struct err *e)
{
    bool changed;
    int rc = 0;

    if (!n)
        return 0;
    if (remove) {
        rc = lock(n, &changed, e);
        if (rc == 0) {
            rc = remove_all(n, e);
            unlock(n, true);
        }
    }
    free_net(n);
    return rc;
}

void net_lease_free(struct net_lease *l)
{
    if (!l)
        return;
    free(l->resolv_conf);
    free(l->hosts);
    free(l);
}
