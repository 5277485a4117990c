#pragma once
/*
 * cwrun_local.h - the runs of this host's worker, for ps, logs, stats, kill and exec.
 *
 * Asked on the worker's socket (worker/local_api.h); where no worker answers, read from the runtime directories, whose
 * shims outlive the worker. Both ways give the same objects; what cannot be told without the worker is missing.
 * Threads: single-threaded programs only.
 */
#include <cjson/cJSON.h>
#include <stdbool.h>

#include "base/cleanup.h"

struct err;

#define CWRUN_LOCAL_ANSWER_NS (15 * 1000000000ULL)

/* New array of objects as in local_api.h; uuid NULL: all. */
int cwrun_local_runs(const char *runtime_dir, const char *uuid, bool stats, cJSON **ret,
                     struct err *e) MUST_CHECK;
/*
 * One run by its uuid or the beginning of it ("0x12ab"): a new object.
 * Errors: ERR_ABSENT; ERR_USER for a text that begins several.
 */
int cwrun_local_find(const char *runtime_dir, const char *text, bool stats, cJSON **ret,
                     struct err *e) MUST_CHECK;
/* Borrowed text of a member, "" when missing. */
const char *cwrun_local_text(const cJSON *run, const char *key);
