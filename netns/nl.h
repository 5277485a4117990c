#pragma once
/*
 * nl.h - route netlink: many requests in one system call, every answer read, the kernel's own words in errors.
 *
 * Built on libnl's sockets and messages. The kernel handles a batch message by message, in order, and goes
 * on behind one that failed; so a batch is for requests of which each is wanted whatever became of the others.
 * Order: net_nl_open, then (net_nl_add..., net_nl_send) or net_nl_dump as often as wanted, net_nl_close.
 * A socket stays in the network namespace it was opened in. Threads: one at a time a socket.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "netns/ipam.h"

struct err;
struct nl_msg;
struct nlmsghdr;
struct net_nl;

/* In the calling thread's network namespace. */
int net_nl_open(struct net_nl **ret, struct err *e) MUST_CHECK;
void net_nl_close(struct net_nl *nl); /* NULL is fine */
DEFINE_AUTO(net_nl, net_nl_close)

/* An empty request with its family header appended (`n` bytes), to which the caller adds attributes. */
struct nl_msg *net_nl_msg(uint16_t type, uint16_t flags, const void *header, size_t n);

/*
 * Put a request (taken) at the end of the batch. `fine`: an errno that is no failure here (EEXIST…), or 0;
 * `fmt`: what is being done, for messages ("add address 10.0.0.2 to eth0").
 */
void net_nl_add(struct net_nl *nl, struct nl_msg *m, int fine, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
/* Send what was added and read every answer. The first failure is reported; the batch is empty afterwards. */
int net_nl_send(struct net_nl *nl, struct err *e) MUST_CHECK;

/* Called with each object of an answer; return 0, or -1 to stop with e. */
typedef int net_nl_visit(void *arg, const struct nlmsghdr *h, struct err *e);
/* Send one request (taken; NLM_F_DUMP or a single look-up) and visit the answers. ERR_ABSENT for ENODEV and
 * ENOENT with sys set. */
int net_nl_ask(struct net_nl *nl, struct nl_msg *m, net_nl_visit *fn, void *arg, const char *what,
               struct err *e) MUST_CHECK;

/* What is needed to know of a link. */
struct net_link {
    int index; /* 0: there is none */
    unsigned flags, mtu;
    bool running; /* operational state "up": the kernel sends packets */
    int master;
    uint64_t rx_bytes, tx_bytes;
    char name[NET_LINK_NAME], kind[16];
};
/* A link by name; ret->index is 0 when there is none. */
int net_nl_link(struct net_nl *nl, const char *name, struct net_link *ret, struct err *e)
    MUST_CHECK;
/*
 * Wait (shortly) until the link is running. The kernel notices a carrier in a work queue of its own, and drops
 * packets until then: a connection's first, which costs it a second. From Linux 6.8 on asking is enough.
 */
int net_nl_await_running(struct net_nl *nl, const char *name, struct err *e) MUST_CHECK;
int net_nl_parse_link(const struct nlmsghdr *h, struct net_link *ret);

/* Requests used in more than one place. */
void net_nl_add_address(struct net_nl *nl, int index, const struct net_addr *a, unsigned len,
                        int fine);
/* dst NULL: the default route. via NULL: on the link itself. */
void net_nl_add_route(struct net_nl *nl, int index, const struct net_cidr *dst,
                      const struct net_addr *via, int family, int fine);
void net_nl_add_neighbour(struct net_nl *nl, int index, const struct net_addr *a,
                          const uint8_t mac[NET_MAC]);
/* One that is gone is fine. */
void net_nl_del_neighbour(struct net_nl *nl, int index, const struct net_addr *a);
void net_nl_link_up(struct net_nl *nl, int index);
/* No fe80:: address on the link: they would bring multicast traffic and duplicate detection, for nothing. */
void net_nl_no_link_local(struct net_nl *nl, int index, int fine);
