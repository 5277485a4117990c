#pragma once
/*
 * protocol.h - what travels between worker and bundle service: actions in, check-ins out.
 *
 * Every field of a message is validated here, once (S57): nothing past this file sees a bad uuid, an
 * absurd number or a key that leaves the bundle. A bad message costs that message only (B048).
 * Source: protocol document, section 3. Threads: any; pure. Ownership: the caller's, *_free.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"

struct err;

/* One key of a bundle's dependencies. */
struct bundle_dep {
    char *child_path; /* as given: relative, ".", or absolute; no ".." */
    char *parent_uuid;
    char *parent_path; /* "" is the whole bundle */
    char *location;    /* shared file system only, else NULL */
};

/* The bundle and the resources it asked for: the `run` message (3.6). */
struct bundle {
    char *uuid;
    char *command;
    struct bundle_dep *deps;
    size_t n_deps;
    struct str_list exclude_patterns; /* B062: missing is empty */
    char *store;                      /* "" when none */
    char *location;                   /* shared file system only, else NULL */
    char *image;                      /* "python:3.10-slim" */
    int64_t cpus, gpus;
    int64_t time_s; /* 0: no limit; negative: exceeded at once (B061) */
    int64_t memory; /* bytes */
    int64_t disk;   /* bytes; 0: no limit; negative: exceeded at once */
    bool network;
};
extern const struct json_field bundle_fields[]; /* our own form, for the state file */
void bundle_free(struct bundle *b);             /* the contents and the struct; NULL is fine */
DEFINE_AUTO(bundle, bundle_free)

enum action_type {
    ACTION_RUN,
    ACTION_KILL,
    ACTION_MARK_FINALIZED,
    ACTION_WRITE,
    ACTION_NETCAT,
    ACTION_READ
};

struct action {
    enum action_type type;
    char *uuid;
    struct bundle *bundle; /* RUN */
    char *kill_message;    /* KILL: never NULL */
    char *path;            /* READ: path, WRITE: subpath; as given */
    char *text;            /* WRITE: string, NETCAT: message */
    int64_t socket_id;     /* READ, NETCAT */
    int64_t port;          /* NETCAT: 1..65535 */
    cJSON *read_args;      /* READ: an object; judged by reply.h */
    struct action *next;
};
void action_free(struct action *a); /* this one only; NULL is fine */
void action_list_free(struct action *a);

/*
 * Read a check-in's answer (B044-B048): an array whose elements are objects or null, or a lone object.
 *   ret_list  good actions, in order; NULL when none
 *   ret_notes a line for each element that was left out, and why (for the log; no contents)
 */
void protocol_read_actions(const cJSON *answer, struct action **ret_list,
                           struct str_list *ret_notes);

/* A `run` message by itself ("type" does not matter): for those who have it from a file. ERR_USER naming the field. */
int protocol_read_run(const cJSON *msg, struct bundle **ret, struct err *e) MUST_CHECK;

bool protocol_is_uuid(const char *s); /* 0x[0-9a-f]{32} */

/* A dependency key's shape; ERR_USER with the text for the user. Refuses "..", NUL, "", "/" and what shadows
 * ours inside the container (B087, S57). */
int protocol_check_child_path(const char *child_path, struct err *e) MUST_CHECK;

/* ---- check-in (3.1, 3.2) ---- */

#define STAGE_COUNT 5 /* PREPARING … FINALIZING */
struct stage_time {
    double start, end; /* epoch; 0: not yet */
};

struct report_text;

struct run_report {
    struct report_text *kept; /* where its text is kept between check-ins; NULL: nowhere */
    const char *uuid, *run_status, *docker_image /* or NULL */, *state, *remote;
    const char *failure_message; /* NULL: nothing to report (B033) */
    double bundle_start_time, container_time_total, container_time_user, container_time_system;
    bool has_exitcode;
    int exitcode;
    double cpu_usage, memory_usage; /* negative: null */
    uint64_t disk_utilization;
    struct stage_time times[STAGE_COUNT];
};

struct checkin_request {
    const char *tag, *group_name; /* NULL: null */
    int64_t cpus, gpus, memory_bytes, free_disk_bytes;
    const char *hostname;
    bool shared_file_system, tag_exclusive, is_terminating, preemptible;
    int64_t exit_after_num_runs;
    const char *dependencies; /* JSON: array of [uuid, path]; NULL: [] */
    const struct run_report *runs;
    size_t n_runs;
};
/*
 * The text of a report, as it was last written: a check-in tells all runs, and most of them have nothing new. Made anew
 * when any field of the report differs from what the text was made of. Zeroed at first; protocol_checkin_forget.
 */
struct report_text {
    struct run_report of; /* its strings are ours */
    char *text;           /* NULL: none yet */
    size_t n;
    unsigned made; /* how many times */
};
void protocol_checkin_forget(struct report_text *k);

/* Compact JSON, a new string; ints stay ints, strings are cut to ASCII (B052). When it would pass the
 * service's 8 MiB (B051), statuses are emptied. */
char *protocol_checkin_text(const struct checkin_request *r);
