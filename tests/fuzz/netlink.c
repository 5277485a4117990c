/* Any bytes as a netlink message about a link, and as an operator's list of networks. */
#include <string.h>
#include <linux/netlink.h>

#include "base/err.h"
#include "base/mem.h"
#include "fuzz.h"
#include "netns/ipam.h"
#include "netns/nl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    AUTO_FREE char *text = mem_strndup((const char *)data, n);
    struct net_cidrs list = {0};
    struct err e = ERR_INIT;
    struct net_link link;

    if (n >= sizeof(struct nlmsghdr)) {
        AUTO_FREE struct nlmsghdr *h = mem_dup(data, n);

        /* as the kernel's, which the receiving loop has checked */
        h->nlmsg_len = (uint32_t)n;
        h->nlmsg_type = 16; /* RTM_NEWLINK */
        if (net_nl_parse_link(h, &link) == 0) {
            BUG_ON(!memchr(link.name, 0, sizeof(link.name)));
            BUG_ON(!memchr(link.kind, 0, sizeof(link.kind)));
        }
    }
    if (net_ipam_parse_list(text, &list, &e) == 0)
        for (size_t i = 0; i < list.n; i++)
            BUG_ON(list.items[i].len > 128 || !list.items[i].addr.family);
    free(list.items);
    return 0;
}
