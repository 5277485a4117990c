#pragma once
/*
 * spec_json.h - config.json <-> spec by field tables. Door of runtime/.
 * Source: runtime-spec 1.0 to 1.3. A Linux field we do not honour is refused by name, never ignored.
 */
#include <stddef.h>

#include "base/cleanup.h"

struct err;
struct ctr_spec;

int ctr_spec_from_json(const char *text, size_t n, struct ctr_spec **ret, struct err *e) MUST_CHECK;
/* Compact text that ctr_spec_from_json reads back to the same spec; new string. */
char *ctr_spec_to_json(const struct ctr_spec *s);
