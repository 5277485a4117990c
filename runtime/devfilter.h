#pragma once
/*
 * devfilter.h - the device filter of a group: an eBPF program of type cgroup-device, default deny (S40).
 *
 * Rules as in config.json's linux.resources.devices: the last rule that matches an access decides. Behind the last
 * "deny everything" (or in front of all rules when there is none) stand the OCI default nodes (null, zero, full,
 * random, urandom, tty, ptmx, pts nodes; mknod of any node is allowed, as a node that cannot be opened is harmless),
 * unless `bare`. What no rule allows is denied.
 * Attached by us to our own group, so `systemctl daemon-reload` cannot undo it. All programs on the way to the root
 * must allow an access; ours can only narrow.
 * Threads: any. Needs CAP_BPF and CAP_NET_ADMIN or root; no libbpf.
 * Source: runtime-spec config-linux.md "Allowed Device list", "Default Devices"; Linux bpf/cgroup.c.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct err;
struct bpf_insn;
struct ctr_device_rule;

/* The default rules as a table, in order; static. */
const struct ctr_device_rule *ctr_devfilter_defaults(size_t *ret_n);

/*
 * Compile. Pure. The program answers 1 (allow) or 0 (deny: EPERM).
 *   ret     instructions; free()
 * Errors: ERR_LIMIT when there are more than BPF_MAXINSNS instructions; ERR_USER for an impossible rule.
 */
int ctr_devfilter_compile(const struct ctr_device_rule *rules, size_t n, bool bare,
                          struct bpf_insn **ret, size_t *ret_n, struct err *e) MUST_CHECK;

/* Compile, load and attach to the group, in place of the filters attached to this very group before. */
int ctr_devfilter_attach(int cgroup_fd, const struct ctr_device_rule *rules, size_t n, bool bare,
                         struct err *e) MUST_CHECK;
/* Number of device programs attached to this very group; -1 with e. */
int ctr_devfilter_count(int cgroup_fd, struct err *e) MUST_CHECK;
