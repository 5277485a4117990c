#include "netns/rate.h"

#include <netlink/msg.h>
#include <netlink/route/qdisc.h>
#include <netlink/route/qdisc/tbf.h>
#include <netlink/route/tc.h>
#include <stdio.h>
#include <linux/pkt_sched.h>

#include "base/err.h"
#include "netns/nl.h"

/* How long a packet may wait for its turn before it is dropped. */
#define WAIT_US 400000
/* What may go at once: a twentieth of a second's worth, but some packets at least. */
#define BURST_PART    20
#define BURST_PACKETS 16

int net_rate_check(const struct net_rates *r, struct err *e)
{
    const uint64_t rates[2] = {r->out, r->in};

    for (int i = 0; i < 2; i++)
        if (rates[i] && (rates[i] < NET_RATE_MIN || rates[i] > NET_RATE_MAX))
            return err_set(e, ERR_USER, "a rate of %llu bytes a second: %llu to %llu are possible",
                           (unsigned long long)rates[i], NET_RATE_MIN, NET_RATE_MAX);
    return 0;
}

static int burst_of(uint64_t rate, unsigned mtu)
{
    uint64_t part = rate / BURST_PART, least = (uint64_t)mtu * BURST_PACKETS;

    return (int)(part > least ? part : least);
}

void net_rate_add(struct net_nl *nl, int index, uint64_t rate, unsigned mtu, const char *link)
{
    struct rtnl_qdisc *q;
    struct nl_msg *m = NULL;

    if (!rate)
        return;
    q = rtnl_qdisc_alloc();
    BUG_ON(!q || rtnl_tc_set_kind(TC_CAST(q), "tbf") < 0);
    rtnl_tc_set_ifindex(TC_CAST(q), index);
    rtnl_tc_set_parent(TC_CAST(q), TC_H_ROOT);
    rtnl_qdisc_tbf_set_rate(q, (int)(uint32_t)rate, burst_of(rate, mtu), 0);
    BUG_ON(rtnl_qdisc_tbf_set_limit_by_latency(q, WAIT_US) < 0);
    BUG_ON(rtnl_qdisc_build_add_request(q, NLM_F_CREATE | NLM_F_REPLACE, &m) < 0);
    net_nl_add(nl, m, 0, "limit link %s (is the module sch_tbf there?)", link);
    rtnl_qdisc_put(q);
}

/* The kernel's bucket holds a second's worth and the burst: which need only be as large as the largest packet. */
void net_rate_limit(uint64_t rate, uint64_t *ret_rate, uint32_t *ret_burst)
{
    *ret_rate = rate + rate / 16;
    *ret_burst = 65536;
}
