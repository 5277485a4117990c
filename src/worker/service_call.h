#pragma once
/*
 * service_call.h - one call of the bundle service: token, headers, error texts. Internal to service*.c.
 * Threads: any.
 */
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/http.h"

struct err;
struct cancel;
struct service;

/* Operation texts of protocol 2.3. */
#define OP_TOKEN   "Unable to authorize with bundle service"
#define OP_CHECKIN "Unable to check in with bundle service"
#define OP_REPLY   "Unable to reply to message from bundle service"
#define OP_START   "Unable to start bundle in bundle service"
#define OP_UPLOAD  "Unable to update bundle contents in bundle service"
#define OP_INFO    "Unable to get bundle info from bundle service"
#define OP_BLOB    "Unable to get bundle contents from bundle service"

struct service_call {
    const char *op;
    const char *method;
    const char *path;            /* behind {server}/rest, with its query */
    const char *content_type;    /* NULL: none */
    const char *accept_encoding; /* NULL: gzip, undone by http */
    const char *more_header;     /* "Name: value"; NULL: none */
    uint64_t timeout_factor;     /* of the ordinary time-out; 0: 1 */
    /* Everything else of the request; url, method, headers, credentials and clocks that are 0 are filled in. */
    struct http_request http;
};

/* "{server}" without a trailing '/'. */
const char *service_server(const struct service *s);
/* Silence allowed in an ordinary request (B017). */
uint64_t service_timeout_ns(const struct service *s);
/* Silence allowed where the next call must not be late: at most 45 s, as a worker silent for a minute is taken for dead. */
uint64_t service_short_ns(const struct service *s);
/* Percent-encoded worker id. */
const char *service_wid(const struct service *s);
/*
 * Perform with a fresh enough token; 401 is answered by a new token and one repeat (a body from a source
 * cannot be repeated: the first 401 is then a transient error). 2xx is success, anything else an error
 * with its text. *ret is the caller's to free on success.
 */
int service_perform(struct service *s, const struct service_call *c, struct cancel *cancel,
                    struct http_response *ret, struct err *e) MUST_CHECK;
/* A 2xx body that is JSON: parsed, or "{op}: Invalid JSON: {body}", transient. */
int service_json(const char *op, const struct http_response *a, cJSON **ret, struct err *e)
    MUST_CHECK;
