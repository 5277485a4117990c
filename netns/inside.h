#pragma once
/*
 * inside.h - do something inside another network namespace. Door of netns/.
 */
#include <stdint.h>

#include "base/cleanup.h"

struct err;

/*
 * Run fn in a thread of its own that has entered the namespace; its answer (0, a descriptor, or -1 with e) is
 * ours. Sockets made in there stay in the namespace; /proc/sys/net is the namespace's.
 */
typedef int net_inside_fn(void *arg, struct err *e);
int net_inside_call(int netns_fd, net_inside_fn *fn, void *arg, struct err *e) MUST_CHECK;

/*
 * A TCP socket connected from inside the namespace of `netns_fd` to host (numeric address) and port: so it also
 * reaches servers that listen on the container's loopback only. The calling thread's own namespace is not changed
 * (a helper thread enters it). Close-on-exec, non-blocking off. ERR_REMOTE with sys set, e.g. ECONNREFUSED.
 */
int net_connect_inside(int netns_fd, const char *host, uint16_t port, uint64_t timeout_ns,
                       struct err *e) MUST_CHECK;
/* A new network namespace with lo up; returns its fd. */
int net_namespace_new(struct err *e) MUST_CHECK;
