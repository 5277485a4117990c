/*
 * exit_write.c - the record is written without a JSON library: the shim is linked statically, and Debian has no static
 * cJSON. Fifteen members of fixed names and one text are all there is; exit.c reads it, and the fuzz target holds the
 * two together.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/statefile.h"
#include "base/str.h"
#include "runtime/exit.h"

enum { RECORD_MAX = 16 << 10 };

/* A JSON string (RFC 8259, 7). The text is UTF-8: what was none is escaped before. */
static int add_text(struct str *out, const char *text)
{
    if (str_append(out, "\"", 1) < 0)
        return -1;
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        int rc = c == '"' || c == '\\' ? str_appendf(out, "\\%c", c)
                 : c < 0x20            ? str_appendf(out, "\\u%04x", c)
                                       : str_append(out, text, 1);

        if (rc < 0)
            return -1;
    }
    return str_append(out, "\"", 1);
}

/* JSON has no infinity. */
static double number(double d)
{
    return isfinite(d) ? d : 0;
}

static int add_numbers(struct str *out, const struct exit_record *r)
{
    return str_appendf(out,
                       "{\"started\":%s,\"status\":%d,\"signal\":%d,\"oom_killed\":%s,"
                       "\"oom_kills\":%" PRIu64 ",\"start_ns\":%" PRIu64 ",\"end_ns\":%" PRIu64
                       ",\"start_epoch\":%.6f,\"end_epoch\":%.6f,\"user_us\":%" PRIu64
                       ",\"system_us\":%" PRIu64 ",\"memory_peak\":%" PRIu64
                       ",\"max_rss_kib\":%" PRIu64 ",\"start_error_kind\":%d,\"start_error\":",
                       r->started ? "true" : "false", r->status, r->signal,
                       r->oom_killed ? "true" : "false", r->oom_kills, r->start_ns, r->end_ns,
                       number(r->start_epoch), number(r->end_epoch), r->user_us, r->system_us,
                       r->memory_peak, r->max_rss_kib, r->start_error_kind);
}

int ctr_exit_write(int dirfd, const struct exit_record *r, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(RECORD_MAX);
    char shown[sizeof(r->start_error)];
    const char *why = r->start_error;

    /* Bytes of a file name in an error may be anything. */
    if (!str_is_utf8(why, strlen(why)))
        why = str_escape(shown, sizeof(shown), why, strlen(why));
    BUG_ON(add_numbers(&text, r) < 0 || add_text(&text, why) < 0 || str_append(&text, "}", 1) < 0);
    return statefile_replace(dirfd, EXIT_FILE, str_text(&text), text.len, 0600, false, e);
}
