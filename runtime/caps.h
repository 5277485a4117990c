#pragma once
/*
 * caps.h - capability names and sets. Threads: any.
 */
#include <stdint.h>

#include "base/cleanup.h"

struct err;
struct str_list;

/* Names ("CAP_CHOWN", case-insensitive, with or without "CAP_"; "ALL") to a mask. ERR_USER naming an unknown one:
 * a capability that is asked for and not granted would be found out at the worst moment. */
int ctr_caps_parse(const struct str_list *names, uint64_t *ret, struct err *e) MUST_CHECK;
/* Names of a mask, appended. */
void ctr_caps_names(uint64_t mask, struct str_list *ret);
/* All that the running kernel knows. */
uint64_t ctr_caps_all(void);
