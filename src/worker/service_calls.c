/*
 * Calls with small bodies: check-in, start_bundle, replies, bundle info (protocol 2.5).
 */
#include <inttypes.h>
#include <poll.h>
#include <string.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/jobs.h"
#include "base/json.h"
#include "base/mem.h"
#include "worker/service.h"
#include "worker/service_call.h"

#define JSON_TYPE "application/json; charset=utf-8" /* B012 */

/* timeout_ns: silence that is borne; 0: the usual. */
static int post_json(struct service *s, const char *op, const char *path, const char *json,
                     size_t n, uint64_t timeout_ns, struct cancel *cancel,
                     struct http_response *ret, struct err *e)
{
    struct service_call c = {
        .op = op,
        .method = "POST",
        .path = path,
        .content_type = JSON_TYPE,
        .http = {.body = json,
                 .body_n = n,
                 .keepalive_idle = true,
                 .stall_timeout_ns = timeout_ns,
                 .total_timeout_ns = 3 * timeout_ns},
    };

    if (n > BOUND_SERVICE_JSON)
        return err_set(e, ERR_LIMIT, "%s: body of more than 8 MiB", op);
    return service_perform(s, &c, cancel, ret, e);
}

int service_checkin(struct service *s, const char *json, size_t n, struct cancel *cancel,
                    cJSON **ret, struct err *e)
{
    AUTO_FREE char *path = mem_printf("/workers/%s/checkin", service_wid(s));
    AUTO(http_response) struct http_response a = {0};
    AUTO(cJSON) cJSON *doc = NULL;

    if (post_json(s, OP_CHECKIN, path, json, n, service_short_ns(s), cancel, &a, e) < 0)
        return -1;
    if (a.body.len && service_json(OP_CHECKIN, &a, &doc, e) < 0)
        return -1;
    if (cJSON_IsArray(doc)) {
        *ret = take_ptr(&doc);
        return 0;
    }

    cJSON *list =
        cJSON_CreateArray(); /* older servers answer with a lone object, or nothing (3.5) */

    BUG_ON(!list);
    if (doc && !cJSON_IsNull(doc))
        cJSON_AddItemToArray(list, take_ptr(&doc));
    *ret = list;
    return 0;
}

static int start_once(struct service *s, const char *path, const char *body, struct cancel *cancel,
                      bool *ret_ours, struct err *e)
{
    AUTO(http_response) struct http_response a = {0};
    AUTO(cJSON) cJSON *doc = NULL;

    if (post_json(s, OP_START, path, body, strlen(body), 0, cancel, &a, e) < 0 ||
        service_json(OP_START, &a, &doc, e) < 0)
        return -1;
    if (!cJSON_IsBool(doc))
        return err_set(e, ERR_REMOTE, "%s: the answer is neither true nor false", OP_START);
    *ret_ours = cJSON_IsTrue(doc);
    return 0;
}

int service_start_bundle(struct service *s, const char *uuid, const char *hostname,
                         int64_t start_time, struct cancel *cancel, bool *ret_ours, struct err *e)
{
    AUTO_FREE char *id = http_escape(uuid, "");
    AUTO_FREE char *path = mem_printf("/workers/%s/start_bundle/%s", service_wid(s), id);
    AUTO(cJSON) cJSON *doc = cJSON_CreateObject();
    struct backoff pause = BACKOFF_INIT(NS_PER_S, 10 * NS_PER_S);
    uint64_t deadline = clock_in_ns(60 * NS_PER_S);

    json_add_str(doc, "hostname", hostname);
    json_add_int(doc, "start_time", start_time); /* a float is refused (2.5.3) */

    AUTO_FREE char *body = json_text(doc);

    for (;;) {
        if (start_once(s, path, body, cancel, ret_ours, e) == 0)
            return 0;

        uint64_t next = clock_in_ns(backoff_next(&pause));

        if (!service_is_transient(e) || next > deadline)
            return -1;
        while (!clock_passed(next) && !cancel_fired(cancel))
            fd_wait(cancel_fd(cancel), POLLIN, next);
        if (cancel_fired(cancel))
            return err_set(e, ERR_CANCELLED, "cancelled");
    }
}

/* "Not your socket ID!": nobody waits any more, and that is nobody's fault (B172). */
static int ignore_403(const struct err *e)
{
    return service_http_status(e) == 403 ? 0 : -1;
}

int service_reply(struct service *s, int64_t socket_id, const char *json, struct cancel *cancel,
                  struct err *e)
{
    AUTO_FREE char *path = mem_printf("/workers/%s/reply/%" PRId64, service_wid(s), socket_id);
    AUTO(http_response) struct http_response a = {0};

    if (post_json(s, OP_REPLY, path, json, strlen(json), 0, cancel, &a, e) < 0)
        return ignore_403(e);
    return 0;
}

static int reply_data(struct service *s, int64_t socket_id, const struct http_request *body,
                      struct cancel *cancel, struct err *e)
{
    AUTO_FREE char *path = mem_printf("/workers/%s/reply_data/%" PRId64 "?header_message=%%7B%%7D",
                                      service_wid(s), socket_id); /* {} (B165) */
    AUTO(http_response) struct http_response a = {0};
    struct service_call c = {
        .op = OP_REPLY,
        .method = "POST",
        .path = path,
        .accept_encoding = "identity",
        .http = *body,
    };

    if (service_perform(s, &c, cancel, &a, e) < 0)
        return ignore_403(e);
    return 0;
}

int service_reply_bytes(struct service *s, int64_t socket_id, const void *data, size_t n,
                        struct cancel *cancel, struct err *e)
{
    return reply_data(s, socket_id, &(struct http_request){.body = n ? data : "", .body_n = n},
                      cancel, e);
}

int service_reply_stream(struct service *s, int64_t socket_id,
                         long (*source)(void *arg, void *buf, size_t n, struct err *e), void *arg,
                         struct cancel *cancel, struct err *e)
{
    struct http_request body = {
        .source = source, .source_arg = arg, .source_size = -1, .keepalive_idle = true};

    return reply_data(s, socket_id, &body, cancel, e);
}

int service_bundle(struct service *s, const char *uuid, struct cancel *cancel, cJSON **ret,
                   struct err *e)
{
    AUTO_FREE char *id = http_escape(uuid, "");
    AUTO_FREE char *path = mem_printf("/bundles/%s", id);
    AUTO(http_response) struct http_response a = {0};
    AUTO(cJSON) cJSON *doc = NULL;
    const cJSON *data, *attributes;
    struct service_call c = {
        .op = OP_INFO, .method = "GET", .path = path, .http = {.max_redirects = 3}};

    if (service_perform(s, &c, cancel, &a, e) < 0 || service_json(OP_INFO, &a, &doc, e) < 0)
        return -1;
    if (json_get_object(doc, "data", &data, e) < 0 ||
        json_get_object(data, "attributes", &attributes, e) < 0) {
        e->kind = ERR_REMOTE; /* a wrong answer, not a wrong question */
        return err_wrap(e, "%s", OP_INFO);
    }
    *ret = cJSON_Duplicate(attributes, true);
    return 0;
}

int service_bundle_state(struct service *s, const char *uuid, struct cancel *cancel, char **ret,
                         char **ret_remote, struct err *e)
{
    AUTO(cJSON) cJSON *bundle = NULL;
    const cJSON *metadata = NULL;
    const char *state, *remote = NULL;

    if (service_bundle(s, uuid, cancel, &bundle, e) < 0)
        return -1;
    if (json_get_str(bundle, "state", 100, &state, e) < 0 ||
        json_opt_object(bundle, "metadata", &metadata, e) < 0 ||
        (metadata && json_opt_str(metadata, "remote", BOUND_STATUS_TEXT, &remote, e) < 0)) {
        e->kind = ERR_REMOTE;
        return err_wrap(e, "%s", OP_INFO);
    }
    *ret = mem_strdup(state);
    *ret_remote = mem_strdup(remote);
    return 0;
}
