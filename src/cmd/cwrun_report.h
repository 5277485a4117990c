#pragma once
/*
 * cwrun_report.h - what the worker would have told the service about a run, for people, on standard output.
 *
 * Foreign text (the run's output, its name) is shown with control characters escaped (S07).
 * Threads: any.
 */
#include <stddef.h>

struct image;
struct run;

/* own_output: of the wrapping bash, may be NULL; tail: most lines of stdout and stderr. Returns the exit status. */
int cwrun_report(const struct run *r, const struct image *image, const char *own_output,
                 size_t tail);
/* The final state (protocol 1.5): "ready", "failed" or "killed". Pure. */
const char *cwrun_report_state(const struct run *r);
