#pragma once
/*
 * service.h - client of the bundle service (protocol section 2).
 *
 * service_new reads nothing from the network; service_login (or the first call) fetches the token. Every
 * call blocks its (lane) thread; the token is fetched again when less than 300 s are left, and once after
 * a 401 (B006, B007). Nothing else is repeated here: what may be repeated is the caller's knowledge.
 * Errors read as protocol 2.3 wants them ("{operation}: {reason} - {body}", B016), are cut to the size of
 * struct err, and say by their kind whether trying again may help: ask service_is_transient.
 * Threads: any. Ownership: service_new/service_free; free after the last call has returned.
 */
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/http.h"

struct err;
struct cancel;
struct service;

struct service_opts {
    const char *server; /* "https://host[:port]"; a trailing '/' makes no difference (B001) */
    const char *username, *password;
    const char *worker_id; /* percent-encoded where it goes into a path (B019) */
    const char *user_agent;
    const struct http_tls *tls; /* NULL: the system's; copied */
    uint64_t
        timeout_ns; /* silence of ordinary requests; 0: CODALAB_URLOPEN_TIMEOUT_SECONDS or 300 s (B017) */
};

int service_new(const struct service_opts *o, struct service **ret, struct err *e) MUST_CHECK;
void service_free(struct service *s);
DEFINE_AUTO(service, service_free)
/* The HTTP client under it, for other users of the same process; borrowed. */
struct http_client *service_http(struct service *s);

/* 5xx and network trouble; not 4xx, limits of ours or a cancel (B014, B015). */
bool service_is_transient(const struct err *e);
/* HTTP status behind an error of a call below, or 0 when there was no answer. Kept in e->sys as -status. */
int service_http_status(const struct err *e);

/*
 * Fetch a token now (start-up). ERR_USER: the credentials were refused (400, 401; B008); ERR_REMOTE: the
 * server could not be reached or was in trouble (B009, D02).
 */
int service_login(struct service *s, struct cancel *cancel, struct err *e) MUST_CHECK;

/*
 * One check-in. `json` is the body (at most BOUND_SERVICE_JSON bytes). *ret: the answer, an array (a lone
 * object or an empty body is made one, protocol 3.5); free with cJSON_Delete.
 */
int service_checkin(struct service *s, const char *json, size_t n, struct cancel *cancel,
                    cJSON **ret, struct err *e) MUST_CHECK;

/*
 * Ask for the bundle (2.5.3). Repeats transient errors with back-off for up to a minute, as repeating is
 * safe there; then gives up with that error. *ret_ours: the bundle is now preparing and ours.
 */
int service_start_bundle(struct service *s, const char *uuid, const char *hostname,
                         int64_t start_time, struct cancel *cancel, bool *ret_ours, struct err *e)
    MUST_CHECK;

/* JSON reply on a socket. A 403 ("Not your socket ID!") is success: nobody waits any more (B172). */
int service_reply(struct service *s, int64_t socket_id, const char *json, struct cancel *cancel,
                  struct err *e) MUST_CHECK;
/* Raw bytes with Content-Length; n may be 0 (D66). 403 as above. */
int service_reply_bytes(struct service *s, int64_t socket_id, const void *data, size_t n,
                        struct cancel *cancel, struct err *e) MUST_CHECK;
/* Raw bytes, chunked, from a source as http_request.source. 403 as above. */
int service_reply_stream(struct service *s, int64_t socket_id,
                         long (*source)(void *arg, void *buf, size_t n, struct err *e), void *arg,
                         struct cancel *cancel, struct err *e) MUST_CHECK;

/*
 * One attempt to upload results (2.6): chunked PUT of a tar.gz. `store` may be NULL. An early answer ends
 * it at once (D07, B120). Errors with status 400, 403, 404 are permanent.
 */
int service_upload(struct service *s, const char *uuid, const char *store,
                   long (*source)(void *arg, void *buf, size_t n, struct err *e), void *arg,
                   struct cancel *cancel, struct err *e) MUST_CHECK;

enum service_target { SERVICE_FILE, SERVICE_DIRECTORY, SERVICE_LINK };
struct service_info {
    enum service_target type;
    int64_t size; /* -1 when not told; a hint only */
};
/* What `path` (may be "") of a bundle is (B126). ERR_ABSENT on 404. */
int service_contents_info(struct service *s, const char *uuid, const char *path,
                          struct cancel *cancel, struct service_info *ret, struct err *e)
    MUST_CHECK;
/* Ask what a bundle is that runs here, for nothing but that the server has to ask us (nudge.h): a few seconds at most. */
int service_look_at(struct service *s, const char *uuid, struct cancel *cancel, struct err *e)
    MUST_CHECK;
struct service_blob {
    const char *uuid, *path;
    uint64_t max_bytes;
    /* Of a file, the rest from its byte `first` to its `last` (D87); last 0: all. A server may send all the same. */
    uint64_t first, last;
    int (*sink)(void *arg, const void *data, size_t n, struct err *e);
    void *arg;
};
/*
 * Fetch it: a file's bytes (transport gzip undone, B128) or a directory's tar.gz, to the sink, at most
 * max_bytes of them. Redirects to blob storage are followed without credentials (B011, B127). A body
 * that ends early is ERR_REMOTE (B130); one that is damaged too, with EBADMSG: nothing of it can be used.
 */
int service_contents_blob(struct service *s, const struct service_blob *b, struct cancel *cancel,
                          struct err *e) MUST_CHECK;

/* A bundle's own information as the server has it: uuid, command, dependencies, metadata, state. ERR_ABSENT: it is gone.
 * A new object. */
int service_bundle(struct service *s, const char *uuid, struct cancel *cancel, cJSON **ret,
                   struct err *e) MUST_CHECK;
/* State of a bundle as the server has it ("running", "staged", …), a new string, and the worker (or, before its first
 * check-in, the host) that has it, a new string or NULL. ERR_ABSENT: it is gone (D18). */
int service_bundle_state(struct service *s, const char *uuid, struct cancel *cancel, char **ret,
                         char **ret_remote, struct err *e) MUST_CHECK;
