#pragma once
/*
 * sources.h - opens what a plan's slots name: done by the privileged parent before clone3.
 *
 * Each source is opened once, as a detached mount with its attributes and id map set; the child only moves it.
 * Single-threaded programs only.
 */
#include <stdbool.h>

#include "base/cleanup.h"

struct err;
struct ctr_spec;
struct ctr_user;
struct launch_plan;

struct sources {
    const struct ctr_spec *spec;
    const struct ctr_user *user;
    const char *bundle; /* relative sources start here */
    int cgroup_fd;      /* -1: none */
    int userns_fd;      /* namespace with the container's maps; -1: no user namespace */
    bool unmappable;    /* out: it failed because a file system cannot map ids */
};

/* The root: a clone of root_path, or the overlay. */
int sources_root(struct sources *src, struct err *e) MUST_CHECK;
/* All other slots. Slot 0 is the root's and filled by the caller. */
int sources_open(struct sources *src, struct launch_plan *p, struct err *e) MUST_CHECK;
/* Give a detached mount the ids of a user namespace. */
int sources_idmap(int mount_fd, int userns_fd, bool recursive, bool *ret_unmappable, struct err *e)
    MUST_CHECK;
