#pragma once
/*
 * user.h - who the process is: numbers as given, names looked up inside the root (S42).
 *
 * /etc/passwd and /etc/group are opened inside the root, must be regular files, and are capped in size and line
 * length. Parsing is strict and never falls back to root. Threads: any. Blocks: reads two small files.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct err;
struct ctr_process;

struct ctr_user {
    uint32_t uid, gid;
    uint32_t *groups; /* supplementary */
    size_t n_groups;
    char *home; /* from /etc/passwd; "/" when unknown */
};

void ctr_user_free(struct ctr_user *u);
DEFINE_AUTO_VALUE(ctr_user, ctr_user_free)

/* The process's user: p->user_name ("user", "user:group", "uid:gid", …) when not NULL, else p->uid and gid. */
int ctr_user_resolve(int rootfd, const struct ctr_process *p, struct ctr_user *ret, struct err *e)
    MUST_CHECK;

/* The pure part: the texts of the two files ("" when missing). `want_home`: look the uid up for its home only. */
int ctr_user_parse(const char *text, const char *passwd, const char *group, struct ctr_user *ret,
                   struct err *e) MUST_CHECK;
