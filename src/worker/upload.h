#pragma once
/*
 * upload.h - results of a bundle: tar | gzip | chunked PUT, repeated until it is stored (protocol 6.5).
 *
 * upload_start hands a job to the lane; `done` comes once, on the main thread, also after upload_cancel.
 * Transient errors are repeated with back-off for at least six hours (B118), permanent ones end it (B119),
 * a cancel within a second (B123). Files that change or vanish meanwhile do not fail it (B122).
 * Threads: main only. Ownership: the upload frees itself after `done`.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"

struct err;
struct loop;
struct lane;
struct service;
struct upload;

struct upload_opts {
    struct loop *loop;
    struct lane *lane;
    struct service *service;
    const char *uuid;
    const char *store;               /* bundle metadata, or NULL */
    int dirfd;                       /* the bundle directory; duplicated */
    const struct str_list *exclude;  /* exclude_patterns (6.4); copied; may be NULL */
    const struct str_list *skip_top; /* dependency links to leave out (B091); copied; may be NULL */
    uint64_t give_up_ns;             /* 0: six hours and a half */
    uint64_t backoff_ns;             /* first pause; 0: 1 s; doubling to 30 times that */
    /* Main thread, about once a second while bytes move: status text
     * "Uploading results: {size} uploaded (archived size)." (B117). */
    void (*progress)(void *arg, const char *status);
    /*
     * Main thread, once. error: NULL when stored, else its text goes behind "Error while uploading: "; kind
     * ERR_CANCELLED after upload_cancel. had_server_error: an earlier attempt got a 5xx and this one
     * succeeded, so that the server kept a stale failure_message to be cleared (D09, B121).
     */
    void (*done)(void *arg, const struct err *error, bool had_server_error);
    void *arg;
};

struct upload *upload_start(const struct upload_opts *o);
void upload_cancel(struct upload *u);
/* "Uploading results: 12.3m uploaded (archived size)."; a new string. Pure. */
char *upload_status_text(uint64_t bytes);
