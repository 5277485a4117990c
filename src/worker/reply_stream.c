/*
 * The four streaming reads (protocol 9.3-9.5): always gzip'ed. Producer and transfer run beside each other, a tube between.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/archive.h"
#include "base/bounds.h"
#include "base/codec.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/tube.h"
#include "worker/reply_read.h"
#include "worker/service.h"

enum { TUBE_BYTES = 128 * 1024, BLOCK = 64 * 1024 };

struct producer {
    const struct reply_request *q;
    int fd;
    bool top;
    uint64_t offset, length; /* of a file */
    struct tube *tube;
    int (*produce)(const struct producer *p, struct codec *gzip, struct err *e);
};

static int to_tube(void *arg, const void *data, size_t n, struct err *e)
{
    return tube_write(arg, data, n, e);
}

static long from_tube(void *arg, void *buf, size_t n, struct err *e)
{
    return tube_read(arg, buf, n, e);
}

static int to_codec(void *arg, const void *data, size_t n, struct err *e)
{
    return codec_feed(arg, data, n, e);
}

static void *run_producer(void *arg)
{
    struct producer *p = arg;
    AUTO(codec) struct codec *gzip = codec_gzip_encoder(1, to_tube, p->tube);
    struct err e = ERR_INIT;
    int rc = p->produce(p, gzip, &e);

    if (rc == 0)
        rc = codec_finish(gzip, &e);
    tube_close(p->tube, rc < 0 ? &e : NULL);
    return NULL;
}

static int send_once(struct producer *p, struct err *e)
{
    AUTO(tube) struct tube *tube = tube_new(TUBE_BYTES);
    pthread_t thread;
    int rc;

    p->tube = tube;
    rc = pthread_create(&thread, NULL, run_producer, p);
    if (rc)
        return err_sysno(e, rc, "start a thread");
    *p->q->began = true;
    rc = service_reply_stream(p->q->service, p->q->socket_id, from_tube, tube, p->q->cancel, e);
    tube_break(tube, NULL);
    pthread_join(thread, NULL);
    return rc;
}

static int send_stream(struct producer *p, struct err *e)
{
    int rc = send_once(p, e);

    /* A token that the service dropped: nobody got anything yet, so it may be sent again (B007). */
    if (rc < 0 && service_http_status(e) == 401) {
        err_clear(e);
        rc = send_once(p, e);
    }
    return rc;
}

static int produce_directory(const struct producer *p, struct codec *gzip, struct err *e)
{
    AUTO(str_list) struct str_list hidden = {0};
    const struct archive_pack o = {.exclude = &hidden,
                                   .skip_top = p->top ? &p->q->dependencies : NULL};

    str_list_add(&hidden, ".git");
    str_list_add(&hidden, "._*");
    str_list_add(&hidden, "__MACOSX");
    return archive_pack_tar(p->fd, &o, to_codec, gzip, p->q->cancel, e);
}

/* What the file had when it was opened, at most: a growing file would never end. */
static int produce_file(const struct producer *p, struct codec *gzip, struct err *e)
{
    AUTO_FREE char *buf = mem_alloc(BLOCK);

    for (uint64_t done = 0; done < p->length;) {
        uint64_t left = p->length - done;
        ssize_t n = pread(p->fd, buf, left < BLOCK ? left : BLOCK, (off_t)(p->offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "read");
        if (n == 0)
            break;
        if (codec_feed(gzip, buf, (size_t)n, e) < 0)
            return -1;
        done += (uint64_t)n;
    }
    return 0;
}

/* Open for reading what a streaming read may have: a regular file or a directory as wanted, never through a link. */
static int open_target(const struct reply_request *q, bool directory, bool *ret_top,
                       struct stat *ret_st, struct err *e)
{
    AUTO_FREE char *name = NULL;
    AUTO_CLOSE int fd = reply_resolve(q, ret_st, &name, e);
    char shown[STR_SHOW_MAX];

    if (fd < 0)
        return -1;
    str_show(shown, q->path);
    if (S_ISLNK(ret_st->st_mode))
        return reply_refuse(e, 404, "%s%s%s is a symlink and following symlinks is not allowed.",
                            q->uuid, *shown ? "/" : "", shown);
    if (directory ? !S_ISDIR(ret_st->st_mode) : !S_ISREG(ret_st->st_mode))
        return reply_refuse(e, 404, "Path '%s' in bundle %s is not a %s", shown, q->uuid,
                            directory ? "directory" : "file");
    *ret_top = !*name;
    return path_reopen(fd, O_RDONLY, e);
}

int reply_stream_directory(const struct reply_request *q, struct err *e)
{
    struct producer p = {.q = q, .produce = produce_directory};
    struct stat st;
    AUTO_CLOSE int fd = open_target(q, true, &p.top, &st, e);

    p.fd = fd;
    return fd < 0 ? -1 : send_stream(&p, e);
}

int reply_stream_file(const struct reply_request *q, struct err *e)
{
    struct producer p = {.q = q, .produce = produce_file};
    struct stat st;
    AUTO_CLOSE int fd = open_target(q, false, &p.top, &st, e);

    p.fd = fd;
    p.length = (uint64_t)st.st_size;
    return fd < 0 ? -1 : send_stream(&p, e);
}

static int to_str(void *arg, const void *data, size_t n, struct err *e)
{
    return str_append(arg, data, n) < 0 ? err_set(e, ERR_LIMIT, "the answer is too large") : 0;
}

static int send_packed(const struct reply_request *q, const struct str *packed, struct err *e)
{
    *q->began = true;
    return service_reply_bytes(q->service, q->socket_id, str_text(packed), packed->len, q->cancel,
                               e);
}

static int send_bytes(const struct reply_request *q, const void *data, size_t n, struct err *e)
{
    AUTO(str) struct str packed = STR_INIT(BOUND_SUMMARY + BOUND_MIB);
    AUTO(codec) struct codec *gzip = codec_gzip_encoder(1, to_str, &packed);

    if (codec_feed(gzip, data, n, e) < 0 || codec_finish(gzip, e) < 0)
        return -1;
    return send_packed(q, &packed, e);
}

static int send_section(const struct producer *p, struct err *e)
{
    AUTO(str) struct str packed = STR_INIT(BOUND_SUMMARY + BOUND_MIB);
    AUTO(codec) struct codec *gzip = codec_gzip_encoder(1, to_str, &packed);

    if (produce_file(p, gzip, e) < 0 || codec_finish(gzip, e) < 0)
        return -1;
    return send_packed(p->q, &packed, e);
}

int reply_section(const struct reply_request *q, struct err *e)
{
    uint64_t offset = 0, length = 0;
    struct stat st;
    bool top;

    if (json_get_u64(q->args, "offset", INT64_MAX, &offset, e) < 0 ||
        json_get_u64(q->args, "length", INT64_MAX, &length, e) < 0)
        return reply_refuse(
            e, 400, "read_file_section: offset and length must be whole numbers of at least 0");
    AUTO_CLOSE int fd = open_target(q, false, &top, &st, e);

    if (fd < 0)
        return -1;
    uint64_t left = offset < (uint64_t)st.st_size ? (uint64_t)st.st_size - offset : 0;
    struct producer p = {.q = q,
                         .produce = produce_file,
                         .fd = fd,
                         .offset = offset,
                         .length = length < left ? length : left};

    /* The length is the client's choice: only a small one is held in memory (D63). */
    return p.length > REPLY_AT_ONCE ? send_stream(&p, e) : send_section(&p, e);
}

int reply_summary(const struct reply_request *q, struct err *e)
{
    struct summary_args a = {.line_max = 128, .truncation = ""};
    struct stat st;
    bool top;

    if (json_get_u64(q->args, "num_head_lines", 1 << 20, &a.head, e) < 0 ||
        json_get_u64(q->args, "num_tail_lines", 1 << 20, &a.tail, e) < 0 ||
        json_get_u64(q->args, "max_line_length", 1 << 20, &a.line_max, e) < 0 ||
        json_opt_str(q->args, "truncation_text", 65536, &a.truncation, e) < 0)
        return reply_refuse(
            e, 400,
            "summarize_file: num_head_lines, num_tail_lines and max_line_length must be whole numbers");
    if ((a.head + a.tail) * a.line_max > BOUND_SUMMARY / 4)
        return reply_refuse(e, 400, "summarize_file: more text than one summary may have");
    AUTO_CLOSE int fd = open_target(q, false, &top, &st, e);

    if (fd < 0 && reply_is_missing(e)) {
        err_clear(e);
        return send_bytes(q, "<none>", 6, e);
    }
    if (fd < 0)
        return -1;
    AUTO(str) struct str text = STR_INIT(BOUND_SUMMARY + BOUND_MIB);

    if (reply_summary_text(fd, (uint64_t)st.st_size, &a, &text, e) < 0)
        return -1;
    return send_bytes(q, str_text(&text), text.len, e);
}
