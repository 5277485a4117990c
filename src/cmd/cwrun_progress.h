#pragma once
/*
 * cwrun_progress.h - how a pull is shown: bars on a terminal, lines elsewhere, JSON events when asked for.
 *
 * Events, one JSON object a line on stdout:
 *   {"event":"progress","phase":…,"bytes":n,"total":n,"layersDone":n,"layers":n}
 *   {"event":"layer","digest":…,"state":"started"|"done","bytes":n,"total":n}
 * Threads: progress_show any, one pull at a time; the others the main thread.
 */
#include <stdbool.h>

struct oci_progress;

enum progress_form { PROGRESS_NONE, PROGRESS_BARS, PROGRESS_LINES, PROGRESS_JSON };
struct progress;

struct progress *progress_new(enum progress_form form);
/* As struct oci_pull_opts.progress wants it. */
void progress_show(void *arg, const struct oci_progress *p);
/* What is drawn stays, or goes with its bars; then nothing more is shown. */
void progress_free(struct progress *m);
