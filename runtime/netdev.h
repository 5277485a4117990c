#pragma once
/*
 * netdev.h - linux.netDevices: network devices of ours moved into a container's network namespace.
 *
 * A device keeps its permanent global addresses and is set up inside; it may get another name, "eth%d" for the next free.
 * It is never moved back: where it goes when the namespace ends is the kernel's business (runtime-spec).
 * Single-threaded programs only (setns). Source: runtime-spec config-linux.md "Network Devices"; rtnetlink(7).
 */
#include "base/cleanup.h"

struct err;
struct ctr_net_device;

/* netns: descriptor of the namespace. ERR_USER when there is no such device, or one of that name is inside already. */
int netdev_move(const struct ctr_net_device *d, int netns, struct err *e) MUST_CHECK;
