#pragma once
/*
 * seccomp_own.h - what seccomp*.c share. Not for others.
 */
#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct err;
struct sock_filter;
struct ctr_seccomp;

static inline void auto_release_scmp(scmp_filter_ctx *ctx)
{
    if (*ctx)
        seccomp_release(*ctx);
}

/* Instructions that run before libseccomp's, for what it cannot say: tests of 32 bits of an argument, and answers that
 * depend on the number alone. All jumps are forward and short. */
enum { SECCOMP_PROLOGUE_MAX = 256 };
struct seccomp_prologue {
    struct sock_filter *insns; /* room for SECCOMP_PROLOGUE_MAX */
    size_t n;
};

/* "if arch == token: …body… ": begin returns the place that end patches. */
size_t ctr_seccomp_prologue_begin(struct seccomp_prologue *p, uint32_t arch);
void ctr_seccomp_prologue_end(struct seccomp_prologue *p, size_t begin);
/* Append one instruction. */
void ctr_seccomp_prologue_add(struct seccomp_prologue *p, uint16_t code, uint8_t jt, uint8_t jf,
                              uint32_t k);

/* Let libseccomp write its program; ret gets prologue and program in one array. */
int ctr_seccomp_export(scmp_filter_ctx ctx, const struct seccomp_prologue *p,
                       struct ctr_seccomp *ret, struct err *e) MUST_CHECK;
