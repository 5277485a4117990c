#pragma once
/*
 * cdi_yaml.h - the subset of YAML that CDI files use, as JSON: mappings, sequences, plain and quoted scalars. Anchors,
 * tags and several documents are refused. Threads: any.
 */
#include <cjson/cJSON.h>
#include <stddef.h>

#include "base/cleanup.h"

struct err;
int cdi_yaml_parse(const char *text, size_t n, cJSON **ret, struct err *e) MUST_CHECK;
