#pragma once
/*
 * enter.h - exec: another program in a running container.
 *
 *   we ──clone3 into its cgroup──► helper: undumpable, setns by pidfd into all its namespaces
 *                                  helper ──clone (our child, in its pid namespace)──► walks a plan of the process part
 * Nothing inside is trusted: the container is held by pidfd, no path of its tree is used but resolved inside it, our
 * own proc is used for labels, and the same walls are put up before the first user instruction (S47).
 * Single-threaded programs only.
 */
#include <sys/types.h>

#include "base/cleanup.h"

struct err;
struct ctr_spec;
struct ctr_exec_opts;

struct enter_target {
    pid_t pid;
    int pidfd, cgroup_fd; /* cgroup_fd -1: none */
    const struct ctr_spec *spec;
    const char *id;    /* of the container; NULL: it has no group of linux.intelRdt */
    const char *state; /* as JSON, for a seccomp listener; may be NULL */
};
int enter_exec(const struct enter_target *t, const struct ctr_exec_opts *o, pid_t *ret_pid,
               int *ret_pidfd, struct err *e) MUST_CHECK;
