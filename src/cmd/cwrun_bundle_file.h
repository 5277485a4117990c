#pragma once
/*
 * cwrun_bundle_file.h - a bundle description for `cwrun bundle`, from a file or as the service has it.
 *
 * Understood: a `run` message (an object with "bundle" and "resources", protocol 3.6), a bundle's own information with
 * metadata request_…, and the service's answer to GET /bundles/{uuid} around that.
 * Threads: any; pure but for the file. Ownership: the caller's.
 */
#include <cjson/cJSON.h>

#include "base/cleanup.h"

struct bundle;
struct err;
struct str_list;

/* Read a file; errors name the file, the field and the rule. */
int cwrun_bundle_file_read(const char *path, const struct str_list *overrides, struct bundle **ret,
                           struct err *e) MUST_CHECK;
/*
 * The same from a document.
 *   overrides  "name=value", names as the resources or with "request_" in front: command, docker_image, cpus, gpus,
 *              memory, disk (sizes as 4g), time (as 2h), network (true, false)
 */
int cwrun_bundle_file_parse(const cJSON *doc, const struct str_list *overrides, struct bundle **ret,
                            struct err *e) MUST_CHECK;
