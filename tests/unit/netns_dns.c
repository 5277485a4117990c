/* resolv.conf and hosts files (B080, S51): what the host has, what a run gets. */
#include <fcntl.h>

#include "base/str.h"
#include "netns/dns.h"
#include "test.h"

static void resolver_files_become_the_runs(void **state)
{
    static const struct {
        const char *host, *ipv4_only, *dual;
    } cases[] = {
        {"nameserver 10.0.0.1\n", "nameserver 10.0.0.1\n", "nameserver 10.0.0.1\n"},
        {"nameserver 10.0.0.1\nnameserver 2001:db8::1\n", "nameserver 10.0.0.1\n",
         "nameserver 10.0.0.1\nnameserver 2001:db8::1\n"},
        {"# c\n; c\n\n  nameserver\t10.0.0.1  \nsearch a.example b.example\noptions ndots:5 timeout:1\n",
         "nameserver 10.0.0.1\nsearch a.example b.example\noptions ndots:5 timeout:1\n",
         "nameserver 10.0.0.1\nsearch a.example b.example\noptions ndots:5 timeout:1\n"},
        {"domain one.example\nsearch two.example\nnameserver 10.0.0.1",
         "nameserver 10.0.0.1\nsearch two.example\n", "nameserver 10.0.0.1\nsearch two.example\n"},
        {"nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n",
         "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n",
         "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n"},
        {"nameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver ::1\n", "nameserver 10.0.0.1\n",
         "nameserver 10.0.0.1\n"},
        {"nameserver fe80::1%eth0\nnameserver fe80::1\nnameserver 10.0.0.1\n",
         "nameserver 10.0.0.1\n", "nameserver 10.0.0.1\n"},
        {"nameserver 10.0.0.1\r\nsearch a.example\r\n", "nameserver 10.0.0.1\nsearch a.example\n",
         "nameserver 10.0.0.1\nsearch a.example\n"},
        {"nameserver ten\nnameserver 10.0.0.300\nnameserver 10.0.0.1 10.0.0.2\n",
         "nameserver 10.0.0.1\n", "nameserver 10.0.0.1\n"},
        {"search ok.example bad\"domain $(x) also.ok\nnameserver 10.0.0.1\n",
         "nameserver 10.0.0.1\nsearch ok.example also.ok\n",
         "nameserver 10.0.0.1\nsearch ok.example also.ok\n"},
        {"sortlist 1.2.3.4\nlookup file bind\nnameserver 10.0.0.1\n", "nameserver 10.0.0.1\n",
         "nameserver 10.0.0.1\n"},
        {"", "", ""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        AUTO(net_resolv) struct net_resolv r;

        net_dns_parse(cases[i].host, strlen(cases[i].host), &r);
        AUTO_FREE char *four = net_dns_resolv_conf(&r, true, false);
        AUTO_FREE char *dual = net_dns_resolv_conf(&r, true, true);
        AUTO_FREE char *internal = net_dns_resolv_conf(&r, false, true);
        assert_string_equal(four, cases[i].ipv4_only);
        assert_string_equal(dual, cases[i].dual);
        assert_null(strstr(internal, "nameserver"));
    }
}

static void stubs_are_known(void **state)
{
    AUTO(net_resolv) struct net_resolv r;
    const char *stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch corp.example\n";

    (void)state;
    net_dns_parse(stub, strlen(stub), &r);
    assert_true(r.stub);
    assert_int_equal(r.n, 0);
    assert_int_equal(r.search.n, 1);
}

/* Whatever the host says, an external run has a server to ask. */
static void there_is_always_a_server(void **state)
{
    static const char *const texts[] = {"nameserver 127.0.0.1\n", "", "garbage"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        char path[] = "/tmp/netns-dns-XXXXXX";
        AUTO(net_resolv) struct net_resolv r;
        AUTO_CLOSE int fd = mkostemp(path, O_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, texts[i], strlen(texts[i])), strlen(texts[i]));
        net_dns_host(path, &r);
        unlink(path);
        assert_true(r.n > 0);
        for (size_t j = 0; j < r.n; j++)
            assert_false(net_ipam_is_loopback(&r.servers[j]));
    }
    AUTO(net_resolv) struct net_resolv r;
    net_dns_host("/nonexistent/resolv.conf", &r);
    assert_true(r.n > 0);
}

static void lists_are_bounded(void **state)
{
    AUTO(str) struct str s = STR_INIT(65536);
    AUTO(net_resolv) struct net_resolv r;

    (void)state;
    assert_int_equal(str_append_text(&s, "search"), 0);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(str_appendf(&s, " d%d.example", i), 0);
    net_dns_parse(str_text(&s), s.len, &r);
    assert_int_equal(r.search.n, 32);
}

static void host_names_are_checked(void **state)
{
    static const struct {
        const char *name;
        bool ok;
    } cases[] = {{"a", true},   {"abcdef012345", true}, {"node-1.example.org", true},
                 {"", false},   {"a b", false},         {"a\n", false},
                 {"-a", false}, {".a", false},          {"a/b", false},
                 {"a_b", false}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        if (net_dns_hostname_ok(cases[i].name) != cases[i].ok)
            fail_msg("%s", cases[i].name);
}

static void hosts_name_the_run(void **state)
{
    AUTO_FREE char *both = net_dns_hosts("abc", "10.0.0.2", "fd00::2");
    AUTO_FREE char *four = net_dns_hosts("abc", "10.0.0.2", "");

    (void)state;
    assert_has(both, "127.0.0.1\tlocalhost\n");
    assert_has(both, "::1\tlocalhost ");
    assert_has(both, "10.0.0.2\tabc\n");
    assert_has(both, "fd00::2\tabc\n");
    assert_has(four, "10.0.0.2\tabc\n");
    assert_null(strstr(four, "fd00"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resolver_files_become_the_runs), cmocka_unit_test(stubs_are_known),
        cmocka_unit_test(there_is_always_a_server),       cmocka_unit_test(lists_are_bounded),
        cmocka_unit_test(host_names_are_checked),         cmocka_unit_test(hosts_name_the_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
