#pragma once
/*
 * cwrt.h - the OCI runtime command line, shared by its files. Each command parses its own flags, prints what runc
 * prints, and returns the exit status. Single-threaded.
 */
#include <stdbool.h>

#include "base/cleanup.h"
#include "base/str.h"

struct err;
struct ctr_spec;
struct opt;

/* Flags in front of the command. */
struct cwrt_global {
    char *root; /* state directory */
    char *log, *log_format;
    char *cgroup; /* "partial": go on without controllers (hybrid host) */
    bool debug, version;
    /* Taken for runc's and crun's sake. */
    bool systemd_cgroup;
    char *rootless, *criu, *cgroup_manager;
};
extern struct cwrt_global cwrt_global;

typedef int cwrt_command(int argc, char **argv, struct err *e); /* exit status; -1 with e: 1 */
cwrt_command cwrt_create, cwrt_start, cwrt_run, cwrt_kill, cwrt_delete, cwrt_state, cwrt_list,
    cwrt_spec, cwrt_features, cwrt_exec, cwrt_ps, cwrt_pause, cwrt_resume, cwrt_update, cwrt_events,
    cwrt_shim;

/* Parse a command's flags and its words (min to max). 0 go on, 1 help was printed. */
int cwrt_flags(const struct opt *table, int argc, char **argv, void *options,
               struct str_list *words, size_t min, size_t max, const char *usage, struct err *e)
    MUST_CHECK;
/* <bundle>/<config> read and judged; *ret_bundle is its real path. */
int cwrt_load_bundle(const char *bundle, const char *config, struct ctr_spec **ret,
                     char **ret_bundle, struct err *e) MUST_CHECK;
int cwrt_write_pid_file(const char *path, int pid, struct err *e) MUST_CHECK;
/* runc's way to hand out a pidfd: one message, "standard" (a container's first process) or "setns" (exec). */
int cwrt_send_pidfd(const char *path, int pidfd, const char *kind, struct err *e) MUST_CHECK;
/* Wait for a process of ours: its status, 128 + signal when killed. Signals we get are forwarded to it. */
int cwrt_wait_forwarding(int pidfd, int tty_master, struct err *e) MUST_CHECK;
