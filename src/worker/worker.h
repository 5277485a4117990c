#pragma once
/*
 * worker.h - wires the managers to the loop; start, work, drain, stop (protocol 10).
 *
 * Threads: the main thread of cworkerd. Ownership: nothing is kept after worker_run.
 */
#include "base/cleanup.h"

struct err;
struct options;

/*
 * Run until there is a reason to end (10.3): a signal, idle, run count. Returns 0; -1 with the reason when it
 * could not start (login refused, no network, no controllers), which is the program's exit status 1.
 *   argv0  this program, to find cwshim beside it
 */
int worker_run(struct options *o, struct err *e) MUST_CHECK;
