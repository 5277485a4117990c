#pragma once
/*
 * doctor.h - what on this host stands in the way of the runs' networks, in words. Door of netns/.
 *
 * Nothing is changed. Works before and while a worker runs. Threads: any; blocks for milliseconds.
 */
#include "base/cleanup.h"
#include "base/str.h"

struct err;

/*
 * Append a sentence a finding, each with what to do about it, most urgent first:
 *   "error: …"  runs cannot have networks (no nf_tables, no bridges, not root)
 *   "warn: …"   something will not work (another firewall drops forwarded packets; resolvers only on loopback)
 *   "note: …"   good to know (external runs have no IPv6, and why)
 * resolv_conf as in struct net_config. ERR_HOST when the host cannot be asked at all.
 */
int net_doctor(const char *resolv_conf, struct str_list *ret, struct err *e) MUST_CHECK;
