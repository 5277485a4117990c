#pragma once
/*
 * spec_json_own.h - shared by the files that read and write config.json. Not a door.
 */
#include <cjson/cJSON.h>

#include "base/cleanup.h"

struct err;
struct ctr_idmaps;
struct ctr_key_value;
struct ctr_resources;
struct ctr_spec;

enum { SPEC_TEXT = 65536, SPEC_LIST = 65536 };

/* linux.resources, also the document of `update`. */
int spec_read_resources(const cJSON *o, struct ctr_resources *r, struct err *e) MUST_CHECK;
void spec_write_resources(cJSON *linux_obj, const struct ctr_resources *r);

/* linux, without resources. */
int spec_read_linux(const cJSON *o, struct ctr_spec *s, struct err *e) MUST_CHECK;
/* process; also the document of `exec --process`. */
struct ctr_process;
int spec_read_process(const cJSON *o, struct ctr_process *p, struct err *e) MUST_CHECK;
int spec_read_idmaps(const cJSON *o, const char *key, struct ctr_idmaps *ret, struct err *e)
    MUST_CHECK;

/* A copy of an optional text, NULL when missing. */
int spec_copy_str(const cJSON *o, const char *key, char **ret, struct err *e) MUST_CHECK;
/* Object of texts → array. Returned array and texts belong to the caller. */
int spec_read_key_values(const cJSON *o, const char *key, struct ctr_key_value **ret, size_t *n,
                         struct err *e) MUST_CHECK;
/* Error when the key is there and says more than nothing (0, false, null, empty). */
int spec_refuse(const cJSON *o, const char *where, const char *key, const char *why, struct err *e)
    MUST_CHECK;
