#pragma once
/*
 * gpuset.h - --gpuset: which of the host's GPUs a worker offers. Pure.
 *
 * Source: protocol 11.1 (B204, C20). Threads: any.
 */
#include <stdbool.h>
#include <stddef.h>

struct ctr_gpu;
struct err;

/* "NONE" or "": GPUs need not even be looked for. */
bool gpuset_is_empty(const char *text);

/*
 * Choose out of all GPUs found.
 *   text      "ALL", or indices and UUIDs with commas
 *   ret, ret_n  those offered; the array is freed by the caller. Ones that do not open are left out, and said by
 *               `skipped`, whether they were named or not: a bundle would fail on them.
 * Errors: ERR_USER "GPUSET_STR invalid: GPUs out of range" when one is named that is not there, or is named twice.
 */
int gpuset_choose(const char *text, const struct ctr_gpu *all, size_t n, struct ctr_gpu **ret,
                  size_t *ret_n, void (*skipped)(const struct ctr_gpu *gpu), struct err *e);
