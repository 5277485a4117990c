/* Any bytes as the host's resolv.conf: what comes out for a run is a resolv.conf of whole, plain lines. */
#include <string.h>

#include "base/err.h"
#include "base/str.h"
#include "fuzz.h"
#include "netns/dns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    AUTO(net_resolv) struct net_resolv r;

    net_dns_parse((const char *)data, n, &r);
    BUG_ON(r.n > NET_DNS_SERVERS);
    AUTO_FREE char *text = net_dns_resolv_conf(&r, true, true);
    for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
        BUG_ON(!strchr(line, '\n'));
        BUG_ON(!str_starts(line, "nameserver ") && !str_starts(line, "search ") &&
               !str_starts(line, "options "));
    }
    for (const char *p = text; *p; p++)
        BUG_ON(*p != '\n' && (*p < ' ' || *p > '~'));
    return 0;
}
