#pragma once
/*
 * hooks.h - OCI hooks: programs of the runtime's caller (never of an image or bundle; S46).
 *
 * Each gets the container's state as JSON on its standard input, the environment its entry names and nothing else,
 * no descriptors but 0, 1, 2, and its time-out (else a minute). Source: runtime-spec config.md "POSIX-platform Hooks".
 * Single-threaded programs only (fork).
 */
#include <stdbool.h>

#include "base/cleanup.h"

struct err;
typedef struct cJSON cJSON;

bool hooks_has(const cJSON *hooks, const char *kind);
/*
 * Run the hooks of one kind in their order; the first that fails ends it.
 *   inside_pidfd  -1: in our namespaces; else in the namespaces of that process (createContainer, startContainer)
 */
int hooks_run(const cJSON *hooks, const char *kind, const char *state_json, int inside_pidfd,
              struct err *e) MUST_CHECK;
/* Judge the whole object. ERR_USER naming the entry. */
int hooks_validate(const cJSON *hooks, struct err *e) MUST_CHECK;
