#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const kind_names[] = {
    [ERR_NONE] = "none",           [ERR_USER] = "user",     [ERR_ABSENT] = "absent",
    [ERR_HOST] = "host",           [ERR_REMOTE] = "remote", [ERR_LIMIT] = "limit",
    [ERR_CANCELLED] = "cancelled", [ERR_BUG] = "bug",
};

const char *err_kind_name(enum err_kind kind)
{
    return kind < ARRAY_SIZE(kind_names) ? kind_names[kind] : "?";
}

static enum err_kind kind_of_errno(int sys)
{
    switch (sys) {
    case ENOENT:
    case ESRCH: return ERR_ABSENT;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case EFBIG: return ERR_LIMIT;
    case ECANCELED: return ERR_CANCELLED;
    default: return ERR_HOST;
    }
}

PRINTF_LIKE(3, 0)
static void format(char *buf, size_t size, const char *fmt, va_list ap)
{
    if (vsnprintf(buf, size, fmt, ap) < 0)
        buf[0] = '\0';
}

void err_set_text(struct err *e, enum err_kind kind, const char *fmt, ...)
{
    char buf[sizeof(e->msg)];
    va_list ap;

    va_start(ap, fmt);
    format(buf, sizeof(buf), fmt, ap);
    va_end(ap);
    e->kind = kind;
    e->sys = 0;
    memcpy(e->msg, buf, sizeof(buf));
}

PRINTF_LIKE(3, 0)
static void set_sys(struct err *e, int sys, const char *fmt, va_list ap)
{
    char what[sizeof(e->msg)];
    char text[128];

    format(what, sizeof(what), fmt, ap);
    e->kind = kind_of_errno(sys);
    e->sys = sys;
    /* GNU strerror_r: thread safe, returns the text. */
    snprintf(e->msg, sizeof(e->msg), "%.360s: %s", what, strerror_r(sys, text, sizeof(text)));
}

void err_sys_text(struct err *e, const char *fmt, ...)
{
    int sys = errno;
    va_list ap;

    va_start(ap, fmt);
    set_sys(e, sys, fmt, ap);
    va_end(ap);
}

void err_sysno_text(struct err *e, int sys, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    set_sys(e, sys, fmt, ap);
    va_end(ap);
}

/* The end of a message names the cause and the start names the input, so the middle goes. */
static void cut_middle(char *text, size_t max)
{
    size_t len = strlen(text);
    static const char mark[] = "[...]";

    if (len <= max || max < sizeof(mark) + 8)
        return;
    size_t head = (max - sizeof(mark)) / 3;
    size_t tail = max - (sizeof(mark) - 1) - head;

    memcpy(text + head, mark, sizeof(mark) - 1);
    memmove(text + head + sizeof(mark) - 1, text + len - tail, tail + 1);
}

void err_wrap_text(struct err *e, const char *fmt, ...)
{
    char old[sizeof(e->msg)];
    char context[sizeof(e->msg)];
    va_list ap;

    /* The context may be made from parts of the old message, so it is formatted first. */
    va_start(ap, fmt);
    format(context, sizeof(context) / 2, fmt, ap);
    va_end(ap);
    memcpy(old, e->msg, sizeof(old));
    cut_middle(old, sizeof(e->msg) - strlen(context) - 3);
    snprintf(e->msg, sizeof(e->msg), "%.251s: %.*s", context,
             (int)(sizeof(e->msg) - strlen(context) - 3), old);
    if (e->kind == ERR_NONE)
        e->kind = ERR_BUG;
}

void err_clear(struct err *e)
{
    e->kind = ERR_NONE;
    e->sys = 0;
    e->msg[0] = '\0';
}

_Noreturn void err_bug(const char *file, int line, const char *what)
{
    fprintf(stderr, "cworker: bug: %s:%d: %s\n", file, line, what);
    abort();
}
