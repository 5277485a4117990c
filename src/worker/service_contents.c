/*
 * Calls that move bundle contents: upload (protocol 2.6), info and blob (2.7).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/codec.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "worker/service.h"
#include "worker/service_call.h"

#define BLOB_REDIRECTS 5
#define BLOB_MIN_RATE  128 /* bytes/s: slower is not a download but a held slot (S18) */
#define LOOK_NS        (10 * NS_PER_S)
#define UPLOAD_STALL   (60 * NS_PER_S)
#define UPLOAD_ANSWER \
    (3600 * NS_PER_S) /* the server unpacks before it answers (D07: at least 1200 s) */

int service_upload(struct service *s, const char *uuid, const char *store,
                   long (*source)(void *arg, void *buf, size_t n, struct err *e), void *arg,
                   struct cancel *cancel, struct err *e)
{
    AUTO_FREE char *id = http_escape(uuid, "");
    AUTO_FREE char *to = http_escape(store ? store : "", "");
    AUTO_FREE char *path = mem_printf(
        "/bundles/%s/contents/blob/?filename=bundle.tar.gz&finalize_on_success=0&store=%s", id,
        to); /* B113 */
    AUTO(http_response) struct http_response a = {0};
    struct service_call c = {
        .op = OP_UPLOAD,
        .method = "PUT",
        .path = path,
        .accept_encoding = "identity",
        .http = {.source = source,
                 .source_arg = arg,
                 .source_size = -1,
                 .stall_timeout_ns = UPLOAD_STALL,
                 .answer_timeout_ns = UPLOAD_ANSWER,
                 .keepalive_idle = true},
    };

    if (service_perform(s, &c, cancel, &a, e) < 0)
        return -1;
    if (a.status != 200) /* exactly (2.6) */
        return err_set(e, ERR_REMOTE, "%s: unexpected status %d", OP_UPLOAD, a.status);
    return 0;
}

/* "/bundles/{uuid}/contents/{what}/{path}", each segment encoded (B020). */
static char *contents_path(const char *uuid, const char *what, const char *path, const char *query,
                           struct err *e)
{
    AUTO_FREE char *id = http_escape(uuid, "");
    AUTO_FREE char *rest = http_escape(path, "/");
    AUTO_FREE char *slashes = mem_printf("/%s/", path);

    /* A server or proxy would fold these away and serve something else (S57). */
    if (strstr(slashes, "/../") || strstr(slashes, "/./")) {
        err_set(e, ERR_USER, "path '%.200s' of a dependency holds '.' or '..'", path);
        return NULL;
    }
    return mem_printf("/bundles/%s/contents/%s/%s%s", id, what, rest, query);
}

static int read_info(const cJSON *doc, struct service_info *ret, struct err *e)
{
    const cJSON *data;
    const char *type;
    int64_t size = -1;
    struct err ignored = ERR_INIT;

    if (json_get_object(doc, "data", &data, e) < 0 ||
        json_get_str(data, "type", 100, &type, e) < 0) {
        e->kind = ERR_REMOTE;
        return -1;
    }
    if (json_opt_i64(data, "size", 0, INT64_MAX, &size, &ignored) < 0)
        size = -1; /* a hint: the type is the only thing relied upon (2.7) */
    ret->size = size;
    if (strcmp(type, "directory") == 0)
        ret->type = SERVICE_DIRECTORY;
    else if (strcmp(type, "link") == 0)
        ret->type = SERVICE_LINK;
    else
        ret->type = SERVICE_FILE;
    return 0;
}

int service_contents_info(struct service *s, const char *uuid, const char *path,
                          struct cancel *cancel, struct service_info *ret, struct err *e)
{
    AUTO_FREE char *rest = contents_path(uuid, "info", path, "", e);
    AUTO(http_response) struct http_response a = {0};
    AUTO(cJSON) cJSON *doc = NULL;
    struct service_call c = {
        .op = OP_INFO,
        .method = "GET",
        .path = rest,
        .timeout_factor = 2,
        .http = {.max_redirects = BLOB_REDIRECTS},
    };

    if (!rest)
        return err_wrap(e, "%s", OP_INFO);
    if (service_perform(s, &c, cancel, &a, e) < 0 || service_json(OP_INFO, &a, &doc, e) < 0)
        return -1;
    if (read_info(doc, ret, e) < 0)
        return err_wrap(e, "%s", OP_INFO);
    return 0;
}

int service_look_at(struct service *s, const char *uuid, struct cancel *cancel, struct err *e)
{
    AUTO_FREE char *path = contents_path(uuid, "info", "", "", e);
    AUTO(http_response) struct http_response a = {0};
    struct service_call c = {
        .op = OP_INFO,
        .method = "GET",
        .path = path,
        .http = {.total_timeout_ns = LOOK_NS},
    };

    return path ? service_perform(s, &c, cancel, &a, e) : -1;
}

/* The way from the wire to the caller's sink, through gzip where the transport encoded. */
struct blob {
    const struct service_blob *o;
    struct codec *codec; /* NULL: identity */
    bool sink_failed;
};

static int blob_out(void *arg, const void *data, size_t n, struct err *e)
{
    struct blob *b = arg;

    if (b->o->sink(b->o->arg, data, n, e) == 0)
        return 0;
    b->sink_failed = true;
    return -1;
}

static int blob_head(void *arg, const struct http_response *head, struct err *e)
{
    struct blob *b = arg;
    const char *encoding = http_header(head, "content-encoding");
    char shown[STR_SHOW_MAX];

    if (head->status < 200 || head->status > 299 || !encoding || !*encoding ||
        strcmp(encoding, "identity") == 0)
        return 0;
    if (strcmp(encoding, "gzip") != 0)
        return err_set(e, ERR_USER, "Unsupported Content-Encoding: %s", str_show(shown, encoding));
    codec_free(b->codec);
    b->codec = codec_decoder(CODEC_GZIP, b->o->max_bytes, blob_out, b);
    return 0;
}

/* Bad gzip is the wire's fault, so that it is tried again; what the sink said is not. */
static int blame(struct blob *b, int rc, int sys, struct err *e)
{
    if (rc < 0 && !b->sink_failed && e->kind != ERR_LIMIT) {
        e->kind = ERR_REMOTE;
        e->sys = sys;
    }
    return rc;
}

static int blob_in(void *arg, const void *data, size_t n, struct err *e)
{
    struct blob *b = arg;

    return b->codec ? blame(b, codec_feed(b->codec, data, n, e), EBADMSG, e)
                    : blob_out(b, data, n, e);
}

static int fetch_blob(struct service *s, const char *path, struct blob *b, struct cancel *cancel,
                      struct err *e)
{
    AUTO(http_response) struct http_response a = {0};
    AUTO_FREE char *range =
        b->o->last ? mem_printf("Range: bytes=%" PRIu64 "-%" PRIu64, b->o->first, b->o->last)
                   : NULL;
    struct service_call c = {
        .op = OP_BLOB,
        .method = "GET",
        .path = path,
        .accept_encoding = "gzip",
        .more_header = range,
        .timeout_factor = 2,
        .http = {.max_redirects = BLOB_REDIRECTS,
                 .sink = blob_in,
                 .sink_arg = b,
                 .on_head = blob_head,
                 .max_body = b->o->max_bytes,
                 .min_rate = BLOB_MIN_RATE},
    };

    return service_perform(s, &c, cancel, &a, e);
}

int service_contents_blob(struct service *s, const struct service_blob *o, struct cancel *cancel,
                          struct err *e)
{
    AUTO_FREE char *path = contents_path(o->uuid, "blob", o->path, "?support_redirect=1", e);
    struct blob b = {.o = o};
    int rc;

    if (!path)
        return err_wrap(e, "%s", OP_BLOB);
    rc = fetch_blob(s, path, &b, cancel, e);
    if (rc == 0 && b.codec && blame(&b, codec_finish(b.codec, e), 0, e) < 0)
        rc = err_wrap(e, "%s", OP_BLOB);
    codec_free(b.codec);
    return rc;
}
