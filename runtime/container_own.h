#pragma once
/*
 * container_own.h - shared by container.c (create), container_live.c (what is done to one) and container_info.c (what is
 * known of one). Not a door.
 */
#include "base/clock.h"
#include "runtime/container.h"
#include "runtime/hooks.h"
#include "runtime/launch.h"

struct ctr {
    char *id, *state_root, *note;
    struct launch launch;
    bool created_here; /* we are its parent */
    bool start_here;   /* and nobody else can start it */
    bool deleted;
    bool hooks_ran; /* so poststop hooks run too, when creation fails later */
    struct ctr_cgroup *cgroup;
    int state_dir;
    struct ctr_info info;
    uint64_t start_time;
    uint64_t root_mount; /* the mount that its root's path was on before */
};

/* A NAME_MAX of the state directory's file system is all that an id can have. */
enum { ID_MAX = 255 };
#define KILL_WAIT_NS (10 * NS_PER_S)

/* An empty one; ctr_free. */
struct ctr *ctr_new(const char *id, const char *state_root);
/* The state as JSON, for a spec that is not in the info yet; new string. */
char *ctr_state_text(const struct ctr_info *i, const struct ctr_spec *s);
/* Where hooks of the container's own kinds run. */
struct hooks_inside ctr_inside(const struct ctr *c);
/* All poststop hooks; failures are warnings. */
void ctr_run_poststop(struct ctr *c, const struct ctr_spec *s);
/* The root's mount, where it lies in our own mount namespace. */
void ctr_take_off_root(const struct ctr *c, const struct ctr_spec *s);
