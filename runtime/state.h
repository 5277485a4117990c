#pragma once
/*
 * state.h - what is remembered between commands: one directory a container.
 *
 *   <state root>/<id>/config.json   the spec as it was created
 *                     state.json    pid and its start time, bundle, cgroup, time of creation
 *                     start.sock    a created container listens there; gone once it was started
 * The directory is 0700 and opened by descriptor (S46). A number is never trusted alone: a process is ours when its
 * start time is the one written. Threads: any.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct err;
struct ctr_spec;
struct str_list;

struct ctr_state {
    char *id, *bundle, *cgroup, *created, *rootfs;
    pid_t pid;
    uint64_t start_time; /* field 22 of /proc/<pid>/stat */
};
void ctr_state_free(struct ctr_state *s);
DEFINE_AUTO_VALUE(ctr_state, ctr_state_free)

/* Make the container's directory: ERR_USER when the id is taken. Returns its descriptor. */
int state_make_dir(const char *root, const char *id, struct err *e) MUST_CHECK;
int state_open_dir(const char *root, const char *id, struct err *e) MUST_CHECK;
/* The spec first: a container without state.json is one that is being created. */
int state_write_spec(int dir, const struct ctr_spec *spec, struct err *e) MUST_CHECK;
int state_write(int dir, const struct ctr_state *s, struct err *e) MUST_CHECK;
int state_read(int dir, struct ctr_state *ret, struct ctr_spec **ret_spec, struct err *e)
    MUST_CHECK;
int state_remove(const char *root, const char *id, struct err *e) MUST_CHECK;

/* The socket by which a created container is started. */
int state_listen(int dir, struct err *e) MUST_CHECK;
int state_connect(int dir, struct err *e) MUST_CHECK;
bool state_is_startable(int dir);
void state_forget_start(int dir);

/* Start time of a living (not zombie) process, or 0. */
uint64_t state_start_time(pid_t pid);
/* "2026-11-24T05:00:00.123456789Z"; new string. */
char *state_now(void);
