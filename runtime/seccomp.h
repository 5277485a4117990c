#pragma once
/*
 * seccomp.h - system call filters: from config.json's linux.seccomp, or our own default allow-list.
 *
 * Compiled with libseccomp before the container exists; the child only loads the finished instructions:
 *     struct sock_fprog p = {.len = f.n, .filter = f.insns};
 *     syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, f.flags, &p)      (last step before exec, after no_new_privs)
 * With f.listener the call returns the notification descriptor, to be sent to f.listener_path.
 * Compiling costs some ms, so filters are kept on disk by the hash of what they were made from (cache_dir).
 * Threads: any. Ownership: ctr_seccomp_free.
 * Source: runtime-spec config-linux.md "Seccomp"; seccomp(2); S39.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct err;
struct sock_filter;
struct ctr_spec;
struct ctr_caps;
typedef struct cJSON cJSON;

struct ctr_seccomp {
    struct sock_filter *insns; /* NULL: no filter is wanted */
    size_t n;                  /* at most BPF_MAXINSNS */
    unsigned flags;            /* for seccomp(2) */
    bool listener;             /* flags has NEW_LISTENER */
    char *listener_path;       /* linux.seccomp.listenerPath, or NULL */
    char *listener_metadata;   /* or NULL */
};

/*
 * The filter of a spec: linux.seccomp, else our default when default_seccomp, else none (insns NULL).
 *   cache_dir   directory of ours (0700, root's) for compiled filters; made if missing; NULL: no cache. A cache that
 *               cannot be read, written or trusted is ignored.
 * Errors: ERR_USER naming the entry (unknown action, operator, architecture, flag; an unknown call name is no
 * error, as profiles name calls of other kernels).
 */
int ctr_seccomp_for_spec(const struct ctr_spec *s, const char *cache_dir, struct ctr_seccomp *ret,
                         struct err *e) MUST_CHECK;
void ctr_seccomp_free(struct ctr_seccomp *f);
DEFINE_AUTO_VALUE(ctr_seccomp, ctr_seccomp_free)

/* Compile without cache. */
int ctr_seccomp_compile(const cJSON *seccomp, struct ctr_seccomp *ret, struct err *e) MUST_CHECK;
int ctr_seccomp_compile_default(uint64_t bounding_caps, struct ctr_seccomp *ret, struct err *e)
    MUST_CHECK;

/* What is understood, for `features`; NULL-terminated. */
extern const char *const ctr_seccomp_actions[];
extern const char *const ctr_seccomp_operators[];
extern const char *const ctr_seccomp_archs[];
extern const char *const ctr_seccomp_flags[];
