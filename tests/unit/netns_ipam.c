/* Pools, slots and names (B080-B082): tables of input and expected. */
#include <sys/socket.h>

#include "netns/ipam.h"
#include "netns/names.h"
#include "test.h"

static void networks_are_parsed(void **state)
{
    static const struct {
        const char *text, *want; /* NULL: refused */
    } cases[] = {
        {"10.0.0.0/8", "10.0.0.0/8"},
        {"10.1.2.3", "10.1.2.3/32"},
        {"fd00::/8", "fd00::/8"},
        {"fd00::1", "fd00::1/128"},
        {"0.0.0.0/0", "0.0.0.0/0"},
        {"::/0", "::/0"},
        {"10.0.0.1/8", NULL},
        {"fd00::1/64", NULL},
        {"10.0.0.0/33", NULL},
        {"fd00::/129", NULL},
        {"10.0.0.0/", NULL},
        {"10.0.0.0/-1", NULL},
        {"10.0.0.0/8 ", NULL},
        {"010.0.0.0/8", NULL},
        {"10.0.0/8", NULL},
        {"", NULL},
        {"/8", NULL},
        {"10.0.0.0/8/8", NULL},
        {"fe80::1%eth0", NULL},
        {"10.0.0.0/0x8", NULL},
        {"1:2:3:4:5:6:7:8:9", NULL},
        {"0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000/8", NULL},
        {"10.128.0.0/9", "10.128.0.0/9"},
        {"192.168.1.128/25", "192.168.1.128/25"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char text[NET_ADDR_TEXT_MAX];
        struct err e = ERR_INIT;
        struct net_cidr c;
        int rc = net_ipam_parse_cidr(cases[i].text, &c, &e);

        if ((rc == 0) != (cases[i].want != NULL))
            fail_msg("\"%s\": %d %s", cases[i].text, rc, e.msg);
        if (rc < 0) {
            assert_int_equal(e.kind, ERR_USER);
            continue;
        }
        net_ipam_cidr_text(&c, text);
        assert_string_equal(text, cases[i].want);
    }
}

static void lists_are_parsed(void **state)
{
    struct net_cidrs l = {0};
    struct err e = ERR_INIT;

    (void)state;
    assert_ok(net_ipam_parse_list("10.0.0.0/8, fd00::/8  192.168.0.0/16,", &l, &e), &e);
    assert_int_equal(l.n, 3);
    assert_ok(net_ipam_parse_list(NULL, &l, &e), &e);
    assert_ok(net_ipam_parse_list("", &l, &e), &e);
    assert_int_equal(l.n, 3);
    assert_int_equal(net_ipam_parse_list("10.0.0.0/8;fd00::/8", &l, &e), -1);
    free(l.items);
}

static struct net_cidr cidr(const char *text)
{
    struct net_cidr c = {0};
    struct err e = ERR_INIT;

    if (text[0])
        assert_ok(net_ipam_parse_cidr(text, &c, &e), &e);
    return c;
}

static void overlaps_are_seen(void **state)
{
    static const struct {
        const char *a, *b;
        bool want;
    } cases[] = {
        {"10.0.0.0/8", "10.1.0.0/16", true},        {"10.1.0.0/16", "10.0.0.0/8", true},
        {"10.0.0.0/9", "10.128.0.0/9", false},      {"10.0.0.0/8", "fd00::/8", false},
        {"10.216.0.0/18", "10.216.64.0/18", false}, {"10.216.0.0/18", "10.216.63.255", true},
        {"fd00::/48", "fd00:0:0:1::/64", true},     {"fd00::/48", "fd00:0:1::/48", false},
        {"0.0.0.0/0", "10.0.0.0/8", true},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct net_cidr a = cidr(cases[i].a), b = cidr(cases[i].b);

        if (net_ipam_overlap(&a, &b) != cases[i].want)
            fail_msg("%s and %s", cases[i].a, cases[i].b);
    }
}

static void pools_are_cut(void **state)
{
    static const struct {
        const char *pool4, *pool6;
        unsigned slots; /* 0: refused */
        const char *net4[NET_NETS], *last4[NET_NETS], *net6[NET_NETS];
    } cases[] = {
        {"10.88.0.0/16",
         "fd12:3456:789a::/48",
         1020,
         {"10.88.0.0/18", "10.88.64.0/18", "10.88.128.0/18"},
         {"10.88.5.171", "10.88.69.171", "10.88.133.171"},
         {"fd12:3456:789a::/64", "fd12:3456:789a:1::/64", "fd12:3456:789a:2::/64"}},
        {"192.168.7.0/26",
         "",
         13,
         {"192.168.7.0/28", "192.168.7.16/28", "192.168.7.32/28"},
         {"192.168.7.14", "192.168.7.30", "192.168.7.46"},
         {NULL}},
        {"10.0.0.0/24",
         "fd00:0:0:4::/62",
         61,
         {"10.0.0.0/26", "10.0.0.64/26", "10.0.0.128/26"},
         {"10.0.0.62", "10.0.0.126", "10.0.0.190"},
         {"fd00:0:0:4::/64", "fd00:0:0:5::/64", "fd00:0:0:6::/64"}},
        {"10.0.0.0/20",
         "",
         680,
         {"10.0.0.0/22", "10.0.4.0/22", "10.0.8.0/22"},
         {"10.0.3.171", "10.0.7.171", "10.0.11.171"},
         {NULL}},
        {"10.0.0.0/27", "", 0, {NULL}, {NULL}, {NULL}},
        {"0.0.0.0/0", "", 0, {NULL}, {NULL}, {NULL}},
        {"fd00::/48", "", 0, {NULL}, {NULL}, {NULL}},
        {"10.0.0.0/24", "fd00::/64", 0, {NULL}, {NULL}, {NULL}},
        {"10.0.0.0/24", "10.1.0.0/24", 0, {NULL}, {NULL}, {NULL}},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct net_cidr pool4 = cidr(cases[i].pool4), pool6 = cidr(cases[i].pool6), net;
        char text[NET_ADDR_TEXT_MAX];
        struct err e = ERR_INIT;
        struct net_plan p;
        struct net_addr a;

        if (net_ipam_plan(&pool4, &pool6, &p, &e) < 0) {
            assert_int_equal(cases[i].slots, 0);
            continue;
        }
        assert_int_equal(p.slots, cases[i].slots);
        for (int w = 0; w < NET_NETS; w++) {
            net_ipam_network(&p, (enum net_which)w, AF_INET, &net);
            net_ipam_cidr_text(&net, text);
            assert_string_equal(text, cases[i].net4[w]);
            net_ipam_address(&p, (enum net_which)w, AF_INET, p.slots - 1, &a);
            net_ipam_text(&a, text);
            assert_string_equal(text, cases[i].last4[w]);
            assert_true(net_ipam_contains(&net, &a));
            net_ipam_address(&p, (enum net_which)w, AF_INET6, 0, &a);
            assert_int_equal(a.family, cases[i].net6[0] ? AF_INET6 : 0);
            if (!cases[i].net6[0])
                continue;
            net_ipam_network(&p, (enum net_which)w, AF_INET6, &net);
            net_ipam_cidr_text(&net, text);
            assert_string_equal(text, cases[i].net6[w]);
        }
    }
}

static void default_pools_differ(void **state)
{
    struct net_names n;
    struct net_cidr seen[4096], c;
    unsigned i;

    (void)state;
    net_names_make("codalab_worker_network", "/run/a", &n);
    for (i = 0; net_ipam_default4(&n, i, &c); i++) {
        assert_true(i < ARRAY_SIZE(seen));
        for (unsigned j = 0; j < i; j++)
            assert_false(net_ipam_overlap(&seen[j], &c));
        seen[i] = c;
    }
    assert_int_equal(i, 32 + 32 + 16 + 4);
    net_ipam_default6(&n, &c);
    assert_int_equal(c.addr.b[0], 0xfd);
    assert_int_equal(c.len, 48);
}

static void slots_go_round(void **state)
{
    struct net_slots s = {.n = 100};
    struct err e = ERR_INIT;
    unsigned slot;

    (void)state;
    for (unsigned i = 0; i < 100; i++) {
        assert_ok(net_ipam_take(&s, &slot, &e), &e);
        assert_int_equal(slot, i);
    }
    assert_int_equal(net_ipam_take(&s, &slot, &e), -1);
    assert_int_equal(e.kind, ERR_LIMIT);
    net_ipam_give(&s, 7);
    net_ipam_give(&s, 99);
    assert_ok(net_ipam_take(&s, &slot, &e), &e);
    assert_int_equal(slot, 7);
    assert_false(net_ipam_mark(&s, 7));
    assert_false(net_ipam_mark(&s, 100));
    assert_true(net_ipam_mark(&s, 99));

    /* shards are filled one after the other */
    s = (struct net_slots){.n = NET_SLOTS_MAX};
    for (unsigned i = 0; i < NET_SLOTS_MAX; i++) {
        assert_ok(net_ipam_take(&s, &slot, &e), &e);
        assert_int_equal(slot, i);
    }
    assert_int_equal(net_ipam_take(&s, &slot, &e), -1);
    net_ipam_give(&s, NET_SLOTS_MAX - 1);
    net_ipam_give(&s, 3);
    assert_ok(net_ipam_take(&s, &slot, &e), &e);
    assert_int_equal(slot, 3);

    /* a freed one rests while there are others */
    s = (struct net_slots){.n = 100};
    for (unsigned i = 0; i < 250; i++) {
        assert_ok(net_ipam_take(&s, &slot, &e), &e);
        assert_int_equal(slot, i % 100);
        net_ipam_give(&s, slot);
    }
}

static void names_fit_and_differ(void **state)
{
    static const char *const prefixes[] = {
        "codalab_worker_network",
        "codalab_worker_network2",
        "a",
        "",
        "an-endless-prefix-an-endless-prefix-an-endless-prefix-an-endless-prefix-an-endless-prefix-an-endless-prefix-"
        "an-endless-prefix-an-endless-prefix-an-endless-prefix-1",
        "an-endless-prefix-an-endless-prefix-an-endless-prefix-an-endless-prefix-an-endless-prefix-an-endless-prefix-"
        "an-endless-prefix-an-endless-prefix-an-endless-prefix-2"};
    struct net_names n[ARRAY_SIZE(prefixes)], other;
    char port[NET_LINK_NAME];
    unsigned slot;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
        net_names_make(prefixes[i], "/run/x", &n[i]);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(n[i].tag, n[j].tag);
        assert_int_equal(strlen(n[i].tag), 10);
        for (int w = 0; w < NET_NETS; w++) {
            assert_true(strlen(n[i].bridge[NET_SHARDS - 1][w]) < NET_LINK_NAME);
            assert_false(net_names_is_port(&n[i], n[i].bridge[NET_SHARDS - 1][w], &slot));
            net_names_port(&n[i], (enum net_which)w, NET_SLOTS_MAX - 1, port);
            assert_true(strlen(port) < NET_LINK_NAME);
            assert_true(net_names_is_port(&n[i], port, &slot));
            assert_int_equal(slot, NET_SLOTS_MAX - 1);
        }
    }
    net_names_make(prefixes[0], "/run/x", &other);
    assert_string_equal(other.tag, n[0].tag);
    net_names_make(prefixes[0], "/run/y", &other);
    assert_string_not_equal(other.tag, n[0].tag);
    assert_string_equal(n[0].alt[NET_GENERAL_NET], "codalab_worker_network_general");
    assert_string_equal(n[0].alt[NET_EXTERNAL_NET], "codalab_worker_network_ext");
    assert_string_equal(n[0].alt[NET_INTERNAL_NET], "codalab_worker_network_int");
    assert_string_equal(n[4].alt[NET_GENERAL_NET], "");
}

static void foreign_links_are_no_ports(void **state)
{
    static const char *const ends[] = {"",   "g",      "x",   "g-1", "g+1", "g1a",
                                       "y1", "g10000", "g 1", "gen", "g0x1"};
    struct net_names n;
    unsigned slot;

    (void)state;
    net_names_make("p", "/run/x", &n);
    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        char link[32];

        snprintf(link, sizeof(link), "%s%s", n.tag, ends[i]);
        if (net_names_is_port(&n, link, &slot))
            fail_msg("%s", link);
    }
    assert_false(net_names_is_port(&n, "eth0", &slot));
    assert_false(net_names_is_port(&n, "cwkaaaaaaag1", &slot));
}

static void mac_addresses_are_local_and_differ(void **state)
{
    uint8_t mac[NET_NETS * 2 + 1][NET_MAC];
    struct net_names n;

    (void)state;
    net_names_make("p", "/run/x", &n);
    for (int w = 0; w < NET_NETS; w++) {
        net_names_bridge_mac(&n, 0, (enum net_which)w, mac[w]);
        net_names_port_mac(&n, (enum net_which)w, 0, mac[NET_NETS + w]);
    }
    net_names_port_mac(&n, NET_GENERAL_NET, 256, mac[NET_NETS * 2]);
    for (size_t i = 0; i < ARRAY_SIZE(mac); i++) {
        assert_int_equal(mac[i][0] & 3, 2);
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(mac[i], mac[j], NET_MAC);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(networks_are_parsed),
        cmocka_unit_test(lists_are_parsed),
        cmocka_unit_test(overlaps_are_seen),
        cmocka_unit_test(pools_are_cut),
        cmocka_unit_test(default_pools_differ),
        cmocka_unit_test(slots_go_round),
        cmocka_unit_test(names_fit_and_differ),
        cmocka_unit_test(foreign_links_are_no_ports),
        cmocka_unit_test(mac_addresses_are_local_and_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
