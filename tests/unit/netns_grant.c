/* What the operator grants to external runs (S51): tables of text and meaning. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "netns/grant.h"
#include "test.h"

/* One a word: "10.0.0.0/8:80", "host:80", port 0 for all. */
static void text_of(const struct net_grants *g, char *ret, size_t n)
{
    size_t at = 0;

    ret[0] = 0;
    for (size_t i = 0; i < g->n; i++) {
        char net[NET_ADDR_TEXT_MAX] = "host";

        if (!g->items[i].host)
            net_ipam_cidr_text(&g->items[i].to, net);
        at += (size_t)snprintf(ret + at, n - at, "%s%s:%u", at ? " " : "", net, g->items[i].port);
    }
}

static void grants_are_parsed(void **state)
{
    static const struct {
        const char *text, *want; /* NULL: refused */
    } cases[] = {
        {NULL, ""},
        {"", ""},
        {" , ", ""},
        {"10.0.0.0/8", "10.0.0.0/8:0"},
        {"10.0.0.5:5432", "10.0.0.5/32:5432"},
        {"10.0.0.0/8:65535", "10.0.0.0/8:65535"},
        {"[10.0.0.5]:80", "10.0.0.5/32:80"},
        {"fd00::1", "fd00::1/128:0"},
        {"fd00::/8", "fd00::/8:0"},
        {"[fd00::/8]", "fd00::/8:0"},
        {"[fd00::1]:80", "fd00::1/128:80"},
        {"host", "host:0"},
        {"host:22, host:80", "host:22 host:80"},
        {"metadata:80",
         "169.254.169.254/32:80 169.254.170.2/32:80 168.63.129.16/32:80 100.100.100.200/32:80 "
         "192.0.0.192/32:80 fd00:ec2::254/128:80 fd20:ce::254/128:80"},
        {"10.0.0.5:", NULL},
        {"10.0.0.5:0", NULL},
        {"10.0.0.5:65536", NULL},
        {"10.0.0.5:-1", NULL},
        {"10.0.0.5:http", NULL},
        {"10.0.0.1/8:80", NULL},
        {"[fd00::1", NULL},
        {"[fd00::1]80", NULL},
        {"[]:80", NULL},
        {"[", NULL},
        {":80", NULL},
        {"hosts", NULL},
        {"host:80:90", NULL},
        {"example.org", NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct net_grants g = {0};
        struct err e = ERR_INIT;
        char got[512];
        int rc = net_grant_parse(cases[i].text, &g, &e);

        if (!cases[i].want) {
            assert_int_equal(rc, -1);
            assert_int_equal(e.kind, ERR_USER);
        } else {
            assert_int_equal(rc, 0);
            text_of(&g, got, sizeof(got));
            assert_string_equal(got, cases[i].want);
        }
        free(g.items);
    }
}

static void too_many_are_refused(void **state)
{
    struct net_grants g = {0};
    struct err e = ERR_INIT;
    char text[1001 * 5 + 1] = "";

    (void)state;
    for (int i = 0; i < 1001; i++)
        memcpy(text + 5L * i, "host ", 6);
    assert_int_equal(net_grant_parse(text, &g, &e), -1);
    assert_int_equal(e.kind, ERR_LIMIT);
    assert_true(net_grant_has_host(&g));
    free(g.items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grants_are_parsed),
        cmocka_unit_test(too_many_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
