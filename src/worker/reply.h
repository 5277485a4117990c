#pragma once
/*
 * reply.h - reads, write and netcat on a live bundle (protocol section 9).
 *
 * Each request becomes a job on a lane of its own, so that replies never wait for downloads or check-ins
 * (B171). Exactly one reply is sent for each read and netcat, and it begins within 60 s (B170, D59); errors
 * of replies are logged and go no further. Every path is resolved beneath the bundle directory (S53).
 * Threads: main only. Ownership: a request copies what it is given.
 */
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/str.h"

struct err;
struct loop;
struct lane;
struct service;
struct replies;

struct replies_opts {
    struct loop *loop;
    struct lane *lane; /* answers that are soon over */
    struct lane
        *stream_lane; /* whole files and directories, as long as the user takes to fetch them */
    struct service *service;
};

struct replies *replies_new(const struct replies_opts *o);
size_t replies_active(const struct replies *r);
/* Cancel all; the loop must run until replies_active is 0 before replies_free. */
void replies_stop(struct replies *r);
void replies_free(struct replies *r);
DEFINE_AUTO(replies, replies_free)

/* The bundle a request is about. All borrowed for the call; dirfd is duplicated. */
struct reply_bundle {
    const char *uuid;
    int dirfd; /* the bundle directory */
    const struct str_list
        *dependencies; /* child paths, and for "." the names of its entries; may be NULL */
    uid_t uid;         /* owner of files written (9.7) */
    gid_t gid;
};

/* `read`: read_args as the message has it (borrowed); a bad or unknown one is answered here (B169). */
void reply_read(struct replies *r, const struct reply_bundle *b, int64_t socket_id,
                const char *path, const cJSON *read_args);
/* `write`: no reply ever. Done in the order of the calls. */
void reply_write(struct replies *r, const struct reply_bundle *b, const char *subpath,
                 const char *text);
/* `netcat`: connect to host:port from inside netns_fd (duplicated; -1: from here). */
void reply_netcat(struct replies *r, const char *uuid, int64_t socket_id, int netns_fd,
                  const char *host, int64_t port, const char *message);
/* {"error_code": code, "error_message": text}, for example 500 "Bundle no longer running". */
void reply_error(struct replies *r, int64_t socket_id, int code, const char *text);
