#pragma once
/*
 * grant.h - destinations as the operator writes them: what external runs may reach though it is denied to them, or
 * the only places they may reach.
 *
 * A list, by commas or blanks, of "10.0.0.0/8", "10.0.0.5:5432", "fd00::/8", "[fd00::5]:5432", "host" (any address of
 * this host), "metadata" (the addresses where clouds tell secrets), both with ":PORT" too. Pure; threads: any.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "netns/ipam.h"

struct err;

struct net_grant {
    bool host;          /* any address of this host; else `to` */
    struct net_cidr to; /* addr.family 0 with host */
    uint16_t port;      /* TCP and UDP; 0: everything */
};

struct net_grants {
    struct net_grant *items; /* freed with free() */
    size_t n;
};

/* Appended to ret; text may be NULL or "". ERR_USER naming the word. */
int net_grant_parse(const char *text, struct net_grants *ret, struct err *e) MUST_CHECK;
/* Is one of them "host"? */
bool net_grant_has_host(const struct net_grants *g);
