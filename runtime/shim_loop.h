#pragma once
/*
 * shim_loop.h - the shim's own end: wait, answer, record, end. Door of runtime/, for cwshim.
 *
 * The shim is the parent and reaper of one container and outlives the daemon (DESIGN §5, S48, S56). Its life:
 *   (cwrt shim: lock, listen, HELLO, create) ──► STATE ──► (START) ──► init ends ──► kill the rest, record, remove
 * It is linked statically, and so is everything it calls: nothing here may need a library besides the C library, nor
 * look up users or hosts, for which that loads others.
 * Threads: single-threaded programs only.
 */
#include "base/cleanup.h"

/*
 * Run to the container's end, with what shim_hand.h says was left to us. Returns the exit status for the process: 0 when
 * a record was written.
 */
int ctr_shim_loop(const char *id) MUST_CHECK;
