#pragma once
/*
 * store.h - what the networks remember: the pools, and a file a lease, in a directory on tmpfs.
 *
 * Several processes may use one directory (cwrun beside cwrun): each change is made between net_store_lock and
 * net_store_unlock, and a counter in the lock file tells a process that others changed something. A lease is
 * written before its links are made and removed after they are gone; so whatever a crash left has a file.
 * Threads: the caller's lock.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "netns/network.h"
#include "netns/ways.h"

struct err;
struct net_store;

/* The directory is made (0700). */
int net_store_open(const char *dir, struct net_store **ret, struct err *e) MUST_CHECK;
void net_store_close(struct net_store *s); /* NULL is fine */
DEFINE_AUTO(net_store, net_store_close)

/* Wait for the lock; *ret_changed: another process changed something since our last unlock. */
int net_store_lock(struct net_store *s, bool *ret_changed, struct err *e) MUST_CHECK;
/* changed: we did. */
void net_store_unlock(struct net_store *s, bool changed);

struct net_settings {
    char pool4[NET_ADDR_TEXT], pool6[NET_ADDR_TEXT]; /* "" not chosen yet / no IPv6 */
    net_link_list opened[2];
};
/* Missing: all empty. A damaged file is set aside. */
int net_store_settings(struct net_store *s, struct net_settings *ret, struct err *e) MUST_CHECK;
int net_store_set(struct net_store *s, const struct net_settings *v, struct err *e) MUST_CHECK;

struct net_record {
    char *run_id, *hostname, *resolv_conf, *hosts;
    uint32_t slot, net_class;
};
void net_record_free(struct net_record *r);
DEFINE_AUTO(net_record, net_record_free)

int net_store_put(struct net_store *s, const struct net_record *r, struct err *e) MUST_CHECK;
/* Missing is fine. */
int net_store_drop(struct net_store *s, const char *run_id, struct err *e) MUST_CHECK;
/* ERR_ABSENT. */
int net_store_get(struct net_store *s, const char *run_id, struct net_record **ret, struct err *e)
    MUST_CHECK;
/* Every lease; r is the visitor's to look at only. Damaged files are set aside. */
typedef int net_store_visit(void *arg, const struct net_record *r, struct err *e);
int net_store_each(struct net_store *s, net_store_visit *fn, void *arg, struct err *e) MUST_CHECK;
/* Forget the settings. */
void net_store_wipe(struct net_store *s);

/* [A-Za-z0-9_.-]{1,64}, not "." or "..". */
bool net_store_id_ok(const char *run_id);
