#pragma once
/*
 * container.h - create, start, kill, delete, state, exec, pause, update. Door of runtime/.
 *
 * Used by cwshim (which owns the container it creates) and by cwrt and cwrun. create leaves the container's init
 * stopped before exec, with all namespaces, mounts and limits in place; start lets it go on.
 * Single-threaded programs only for create (it forks by clone3); the others: any thread.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct err;
struct ctr_spec;
struct ctr;

enum ctr_status { CTR_CREATING, CTR_CREATED, CTR_RUNNING, CTR_PAUSED, CTR_STOPPED };

struct ctr_create_opts {
    const char *id;         /* [A-Za-z0-9_.+-]{1,255}, not starting with '-' or '.' (S46) */
    const char *state_root; /* e.g. /run/cwrt: state.json per container; NULL: none kept (cwshim) */
    const char *bundle;     /* directory relative paths are resolved against; NULL: "/" */
    int stdio[3];           /* descriptors for 0, 1, 2; -1: /dev/null */
    int console_socket;     /* -1: none; the pty master is sent there when process.terminal */
    unsigned preserve_fds;  /* descriptors 3.. kept */
    bool start_here;        /* the caller starts it by this object: no other process can */
    bool partial_cgroup;    /* hybrid host: run with what there is (--cgroup=partial) */
};

/* seccomp filters compiled before, by content; ours alone (seccomp.h). */
#define CTR_SECCOMP_CACHE "/run/cworker-seccomp"

/* On failure nothing is left: no cgroup, mount, process, directory (S08). */
int ctr_create(const struct ctr_spec *spec, const struct ctr_create_opts *o, struct ctr **ret,
               struct err *e) MUST_CHECK;
/* Take over the spec that c was just created with: start and delete then need not read its state. */
void ctr_keep_spec(struct ctr *c, struct ctr_spec *spec);
int ctr_start(struct ctr *c, struct err *e) MUST_CHECK;
int ctr_pidfd(const struct ctr *c); /* borrowed */
pid_t ctr_pid(const struct ctr *c);
int ctr_cgroup_dir(const struct ctr *c); /* borrowed directory of its cgroup; -1: none */
int ctr_channel(
    const struct ctr *c); /* borrowed: to a created container, for its start (launch.h) */
/* Network namespace of the created container; new fd. */
int ctr_netns(const struct ctr *c, struct err *e) MUST_CHECK;
int ctr_kill(struct ctr *c, int signal, bool all, struct err *e) MUST_CHECK;
/* Remove cgroup and state; kills what is left when force. */
int ctr_delete(struct ctr *c, bool force, struct err *e) MUST_CHECK;
/* What could not be had and was done without ("no user namespace: …"), or NULL; borrowed. */
const char *ctr_note(const struct ctr *c);
int ctr_pause(struct ctr *c, bool paused, struct err *e) MUST_CHECK;
/* Host process ids in the container; *ret: free(). */
int ctr_pids(const struct ctr *c, int **ret, size_t *ret_n, struct err *e) MUST_CHECK;

/* Run another program in a running container, with all its walls (S47). The caller reaps *ret_pidfd. */
struct ctr_process;
struct ctr_exec_opts {
    const struct ctr_process *process;
    int stdio[3];       /* -1: /dev/null */
    int console_socket; /* -1 */
    const char *cgroup; /* sub-group of the container's, as "a/b" or "/a/b"; NULL: its own */
    unsigned preserve_fds;
};
/* spec: what the container was created with. */
int ctr_exec(struct ctr *c, const struct ctr_spec *spec, const struct ctr_exec_opts *o,
             pid_t *ret_pid, int *ret_pidfd, struct err *e) MUST_CHECK;

/* The same in a container that somebody else (a shim) is the parent of: by its init, held, and its cgroup (-1: none). */
int ctr_exec_at(pid_t pid, int pidfd, int cgroup_fd, const struct ctr_spec *spec,
                const struct ctr_exec_opts *o, pid_t *ret_pid, int *ret_pidfd, struct err *e)
    MUST_CHECK;

/* --- containers of other processes, by their state directory ---------------------------------------------------- */

struct ctr_info {
    enum ctr_status status;
    pid_t pid; /* 0 when stopped */
    char *id, *bundle, *cgroup;
    char *created; /* RFC 3339 */
    char *oci_version, *rootfs;
    struct ctr_spec *spec; /* as it was created */
};
/* ERR_ABSENT when there is none. */
int ctr_open(const char *state_root, const char *id, struct ctr **ret, struct err *e) MUST_CHECK;
/* As it is now; borrowed until ctr_free. */
int ctr_info(struct ctr *c, const struct ctr_info **ret, struct err *e) MUST_CHECK;
const char *ctr_status_name(
    enum ctr_status s); /* "creating" "created" "running" "paused" "stopped" */
struct str_list;
int ctr_list(const char *state_root, struct str_list *ret, struct err *e) MUST_CHECK;
/* The state as hooks and `state` get it: runtime-spec runtime.md "State"; compact JSON, new string. */
char *ctr_state_json(const struct ctr_info *i);
bool ctr_is_id(const char *id);
struct ctr_cgroup *ctr_cgroup_of(struct ctr *c); /* borrowed; NULL: none */
void ctr_free(struct ctr *c);
DEFINE_AUTO(ctr, ctr_free)
