#pragma once
/*
 * birth.h - a child of ours that is born in other namespaces than ours.
 *
 *   we ──clone3 into a cgroup──► helper: undumpable, enters what there is to enter
 *                                helper ──clone3, CLONE_PARENT──► the child, ours to reap; the helper ends
 * A helper, because a user namespace cannot be left again, and a pid namespace is entered by children only.
 * Single-threaded programs only.
 */
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct err;

struct birth {
    int cgroup_fd;            /* -1: ours */
    uint64_t new_namespaces;  /* CLONE_NEW* for the child */
    int (*enter)(void *arg);  /* in the helper; -1 with errno */
    void (*child)(void *arg); /* in the child; does not return */
    void *arg;
};
/* *ret_pidfd is the child's, to be reaped by the caller. */
int birth_give(const struct birth *b, pid_t *ret_pid, int *ret_pidfd, struct err *e) MUST_CHECK;
