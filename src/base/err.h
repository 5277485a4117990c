#pragma once
/*
 * err.h - error values.
 *
 * An error is a value: passed by the caller, filled where the cause is known, wrapped outwards,
 * shown once. No heap, nothing to release; it crosses threads and pipes by assignment. Fallible
 * functions return 0 (or an fd, or a count) and -1; the detail is in `e`.
 * Threads: any. Ownership: whoever holds the value.
 */
#include <stdarg.h>
#include <stdbool.h>

#include "base/cleanup.h"

/* Who can put it right; decides retry, exit status and channel. */
enum err_kind {
    ERR_NONE,
    ERR_USER,      /* the input: bad reference, bad JSON, bad flag, bad image */
    ERR_ABSENT,    /* the named thing does not exist (image, file, container) */
    ERR_HOST,      /* this machine: kernel, disk, missing feature */
    ERR_REMOTE,    /* a server or the way to it; trying again may help */
    ERR_LIMIT,     /* a maximum of ours or of the operator was reached */
    ERR_CANCELLED, /* stopped on request */
    ERR_BUG,       /* an invariant of ours broke */
};

struct err {
    enum err_kind kind;
    int sys;       /* errno, or 0 */
    char msg[504]; /* outermost context first: "image a/b:1: layer sha256:…: No space left…" */
};

#define ERR_INIT ((struct err){.kind = ERR_NONE})

/* Our own judgement. Returns -1. */
void err_set_text(struct err *e, enum err_kind kind, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* A failed system call: takes errno at the call, appends ": strerror". Kind ERR_HOST, ENOENT is
 * ERR_ABSENT, ENOSPC/EDQUOT/EMFILE/ENFILE are ERR_LIMIT. Returns -1. */
void err_sys_text(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* The same with an errno value the caller holds (positive). Returns -1. */
void err_sysno_text(struct err *e, int sys, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Put context in front of what `e` holds: "context: old". Long texts are cut in the middle of the
 * old text, never in the context. Returns -1. */
void err_wrap_text(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);

/*
 * What is called: each is -1 where the compiler and the analysers can see it, so that they know that a function which ends
 * with `return err_set(…)` has failed, and that what it would have filled is then not used.
 */
static inline int err_failed(void)
{
    return -1;
}
#define err_set(e, kind, ...)  (err_set_text((e), (kind), __VA_ARGS__), err_failed())
#define err_sys(e, ...)        (err_sys_text((e), __VA_ARGS__), err_failed())
#define err_sysno(e, sys, ...) (err_sysno_text((e), (sys), __VA_ARGS__), err_failed())
#define err_wrap(e, ...)       (err_wrap_text((e), __VA_ARGS__), err_failed())

/* Forget. */
void err_clear(struct err *e);

/* "user", "absent", "host", "remote", "limit", "cancelled", "bug", "none". */
const char *err_kind_name(enum err_kind kind);

/* A broken invariant: print and abort; the daemon is restarted and re-adopts its runs. */
#define BUG_ON(cond)                            \
    do {                                        \
        if (__builtin_expect(!!(cond), 0))      \
            err_bug(__FILE__, __LINE__, #cond); \
    } while (0)
_Noreturn void err_bug(const char *file, int line, const char *what);
