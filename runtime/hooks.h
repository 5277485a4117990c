#pragma once
/*
 * hooks.h - OCI hooks: programs of the runtime's caller (never of an image or bundle; S46).
 *
 * Each gets the container's state as JSON on its standard input, the environment its entry names (ours when it names
 * none, as runc and crun have it), no descriptors but 0, 1, 2, and its time-out where it has one.
 * Source: runtime-spec config.md "POSIX-platform Hooks", runtime.md "Lifecycle".
 * Single-threaded programs only (fork).
 */
#include <stdbool.h>

#include "base/cleanup.h"

struct err;
typedef struct cJSON cJSON;

bool hooks_has(const cJSON *hooks, const char *kind);
/* Where hooks of the container's own kinds run: in all its namespaces and its cgroup, as its root. */
struct hooks_inside {
    int pid, pidfd, cgroup_fd; /* cgroup_fd -1: ours */
};
/* Run the hooks of one kind in their order; the first that fails ends it. inside NULL: in our namespaces. */
int hooks_run(const cJSON *hooks, const char *kind, const char *state_json,
              const struct hooks_inside *inside, struct err *e) MUST_CHECK;
/* All of them, whatever fails; each failure is a warning on standard error (poststop). */
void hooks_run_all(const cJSON *hooks, const char *kind, const char *state_json);
/* Judge the whole object. ERR_USER naming the entry. */
int hooks_validate(const cJSON *hooks, struct err *e) MUST_CHECK;
