#pragma once
/*
 * cwrun_gpus.h - the --gpus flag. Single-threaded; blocks on the driver.
 */
#include "base/cleanup.h"

struct err;
struct ctr_spec;

/*
 * Choose GPUs and put them into the spec. A stale CDI specification is noted on stderr.
 *   text     as Docker has it: "all" (those that can be used) or a number of them, "count=" in front or not; or "device="
 *            with UUIDs, numbers as nvidia-smi has them, "0:1" for an instance of MIG, with commas; or UUIDs alone
 *   scratch  the container's directory; see ctr_gpu_edit_spec()
 * Errors: ERR_USER the text; ERR_ABSENT there are not so many; ERR_HOST the driver.
 */
int cwrun_add_gpus(const char *text, struct ctr_spec *s, const char *scratch, struct err *e)
    MUST_CHECK;
