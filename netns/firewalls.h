#pragma once
/*
 * firewalls.h - other firewalls of this host, looked at: do they let forwarded packets of our runs through?
 *
 * Theirs is the last word: our rules only take away. So what is found is told (doctor.h), with the command that
 * changes it. Nothing is changed here. Threads: any; blocks for milliseconds.
 */
#include "base/str.h"

/* nftables, with what iptables-nft, firewalld, docker and others keep there: a "warn: …" a chain in the way, or an
 * "error: …" when nftables does not answer. */
void net_firewalls_nftables(struct str_list *ret);
/* The tables of the older iptables and ip6tables, which nftables does not show. */
void net_firewalls_legacy(struct str_list *ret);
