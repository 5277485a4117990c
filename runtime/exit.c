#include "runtime/exit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/json.h"
#include "base/statefile.h"
#include "base/str.h"

static const char file_name[] = EXIT_FILE;

enum { RECORD_MAX = 16 << 10 };

/* What a record is made of besides the start error, which is text in place. */
struct wire {
    int64_t status, signal, start_error_kind;
    char *start_error;
    struct exit_record r;
};

static const struct json_field fields[] = {
    JSON_FIELD(struct wire, r.started, "started", JSON_BOOL, JSON_REQUIRED, 0),
    JSON_FIELD(struct wire, status, "status", JSON_I64, JSON_REQUIRED, 0),
    JSON_FIELD(struct wire, signal, "signal", JSON_I64, JSON_REQUIRED, 0),
    JSON_FIELD(struct wire, r.oom_killed, "oom_killed", JSON_BOOL, JSON_REQUIRED, 0),
    JSON_FIELD(struct wire, r.oom_kills, "oom_kills", JSON_U64, JSON_REQUIRED, 0),
    JSON_FIELD(struct wire, r.start_ns, "start_ns", JSON_U64, JSON_REQUIRED, 0),
    JSON_FIELD(struct wire, r.end_ns, "end_ns", JSON_U64, JSON_REQUIRED, 0),
    JSON_FIELD(struct wire, r.start_epoch, "start_epoch", JSON_DOUBLE, JSON_REQUIRED, 0),
    JSON_FIELD(struct wire, r.end_epoch, "end_epoch", JSON_DOUBLE, JSON_REQUIRED, 0),
    JSON_FIELD(struct wire, r.user_us, "user_us", JSON_U64, JSON_REQUIRED, 0),
    JSON_FIELD(struct wire, r.system_us, "system_us", JSON_U64, JSON_REQUIRED, 0),
    JSON_FIELD(struct wire, r.memory_peak, "memory_peak", JSON_U64, JSON_REQUIRED, 0),
    JSON_FIELD(struct wire, r.max_rss_kib, "max_rss_kib", JSON_U64, JSON_REQUIRED, 0),
    JSON_FIELD(struct wire, start_error, "start_error", JSON_STR, 0,
               sizeof(((struct exit_record *)0)->start_error) - 1),
    JSON_FIELD(struct wire, start_error_kind, "start_error_kind", JSON_I64, JSON_REQUIRED, 0),
    {.name = NULL},
};

static int check(const struct wire *w, struct err *e)
{
    if (w->status < -1 || w->status > 255 || w->signal < 0 || w->signal > 127 ||
        w->start_error_kind < ERR_NONE || w->start_error_kind > ERR_BUG)
        return err_set(e, ERR_HOST, "%s: a value is out of range", file_name);
    return 0;
}

static int parse(const struct str *text, struct wire *w, struct err *e)
{
    AUTO(cJSON) cJSON *v = NULL;

    if (json_parse(str_text(text), text->len, &v, e) < 0 || json_read_fields(v, fields, w, e) < 0)
        return err_wrap(e, "%s", file_name);
    return check(w, e);
}

int ctr_exit_read(int dirfd, struct exit_record *ret, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(RECORD_MAX);
    struct wire w = {0};

    if (statefile_read(dirfd, file_name, &text, e) < 0)
        return -1;
    if (parse(&text, &w, e) < 0) {
        e->kind = ERR_HOST; /* ours to write, so no mistake of a user's */
        json_free_fields(fields, &w);
        return -1;
    }
    w.r.status = (int)w.status;
    w.r.signal = (int)w.signal;
    w.r.start_error_kind = (int)w.start_error_kind;
    snprintf(w.r.start_error, sizeof(w.r.start_error), "%s", w.start_error ? w.start_error : "");
    json_free_fields(fields, &w);
    *ret = w.r;
    return 0;
}
