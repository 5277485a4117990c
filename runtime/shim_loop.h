#pragma once
/*
 * shim_loop.h - the shim's own end: create the container, wait, answer, record, end. Door of runtime/, for cwshim.
 *
 * The shim is the parent and reaper of one container and outlives the daemon (DESIGN §5, S48, S56). Its life:
 *   lock, listen ──► HELLO ──► ctr_create ──► STATE ──► (START) ──► init ends ──► kill the rest, record, remove
 * Threads: single-threaded programs only. Memory is taken before the container starts.
 */
#include "base/cleanup.h"

/*
 * Run to the container's end. Returns the exit status for the process: 0 when a record was written.
 *   id           the container's
 *   config_fd    config.json (memfd);  dir_fd: runtime directory;  control_fd: connection to the daemon
 * All three are taken.
 */
int ctr_shim_loop(const char *id, int config_fd, int dir_fd, int control_fd) MUST_CHECK;
