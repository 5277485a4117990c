#pragma once
/*
 * reply_read.h - the pieces of a read (protocol 9). Inner header of reply*.c. Threads: any; blocks on disk and network.
 */
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/str.h"

struct cancel;
struct err;
struct service;

/* An answer up to this size is made in memory and sent with its length; more is streamed. */
#define REPLY_AT_ONCE (1024 * 1024)

struct reply_request {
    struct service *service;
    struct cancel *cancel;
    char *uuid;
    int dirfd;
    struct str_list dependencies;
    int64_t socket_id;
    char *path; /* as given */
    cJSON *args;
    bool *began; /* set when an answer is being sent: no other may follow (B170) */
};

/* A refusal is a status for the server and a text for the user, in `e` with the status in e->sys as -status. */
int reply_refuse(struct err *e, int status, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Was the path refused because nothing is there, rather than because it may not be read? */
bool reply_is_missing(const struct err *e);

/*
 * Resolve the request's path beneath the bundle directory (9.1): links in the middle are followed as long as they stay inside,
 * the last one never (B163, B164, S53). Returns an O_PATH descriptor; *ret_name is the last component, "" for the bundle.
 */
int reply_resolve(const struct reply_request *q, struct stat *ret_st, char **ret_name,
                  struct err *e) MUST_CHECK;

/* get_target_info: the JSON text of the reply, a new string (9.2). */
char *reply_target_info(const struct reply_request *q, struct err *e);
/* stream_directory, stream_file, read_file_section, summarize_file: sent from here (9.3-9.5). */
int reply_stream_directory(const struct reply_request *q, struct err *e) MUST_CHECK;
int reply_stream_file(const struct reply_request *q, struct err *e) MUST_CHECK;
int reply_section(const struct reply_request *q, struct err *e) MUST_CHECK;
int reply_summary(const struct reply_request *q, struct err *e) MUST_CHECK;

struct summary_args {
    uint64_t head, tail, line_max;
    const char *truncation; /* "" when none */
};
/* Append the text of summarize_file (9.5) for an open regular file that had `size` bytes; it may hold NUL. */
int reply_summary_text(int fd, uint64_t size, const struct summary_args *a, struct str *ret,
                       struct err *e) MUST_CHECK;
