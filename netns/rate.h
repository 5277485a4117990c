#pragma once
/*
 * rate.h - how fast a run's external link may be.
 *
 * Into the run: a token bucket (tbf) on the host end. Out of the run: a token bucket inside, which makes programs
 * wait instead of losing packets, and behind it, where a run that goes around it cannot reach, a limit of the rules
 * (nft.h) that drops what is more. Needs sch_tbf; the limit of the rules Linux 5.7. Threads: the caller's lock.
 */
#include <stdint.h>

#include "base/cleanup.h"

struct err;
struct net_nl;

/* libnl takes them as int. */
#define NET_RATE_MIN 1000ULL
#define NET_RATE_MAX 2000000000ULL

/* Bytes a second; 0: no limit. */
struct net_rates {
    uint64_t out, in; /* as the run sees it: egress, ingress */
};

/* ERR_USER for a rate outside the bounds above. */
int net_rate_check(const struct net_rates *r, struct err *e) MUST_CHECK;
/* Queue the bucket for what the link `index` sends. rate 0: nothing. */
void net_rate_add(struct net_nl *nl, int index, uint64_t rate, unsigned mtu, const char *link);
/* For the limit of the rules: a little more than the bucket inside lets through, so that it bites evaders only. */
void net_rate_limit(uint64_t rate, uint64_t *ret_rate, uint32_t *ret_burst);
