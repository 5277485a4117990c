#pragma once
/*
 * child.h - carries out a launch plan between clone3 and exec.
 *
 * Async-signal-safe throughout: no allocation, stdio, locks, log, struct err; raw system calls only, so that libc's
 * wrappers cannot do more than they say. It reports {operation, errno, text} on the plan's channel when one fails.
 * tests/lint/child_symbols.sh holds the undefined symbols of these files against a short list.
 */
#include "base/cleanup.h"

struct launch_plan;

_Noreturn void child_run(struct launch_plan *p);

/* child_init.c: process 1 of a container with an init: reaps, forwards signals, ends as `main_pid` does. */
_Noreturn void child_init_loop(const struct launch_plan *p, int main_pid);

/* child_path.c: everything below is resolved inside the root `rootfd`; -1 with errno. */
enum { CHILD_NO_LINKS = 1 };
/* O_PATH descriptor of path. */
int child_open(int rootfd, const char *path, int flags);
/* The same, made when missing: a directory, or an empty file when `as_dir` is false. */
int child_open_or_make(int rootfd, const char *path, int flags, int as_dir);
/* Directory that holds the last component, made when missing; *ret_name points into path. */
int child_open_parent(int rootfd, const char *path, int flags, const char **ret_name);

/* child_fs.c: the operations on files and mounts; 0 or -1 with errno. */
struct launch_op;
int child_new_fs(struct launch_plan *p, const struct launch_op *op);
int child_enter_root(struct launch_plan *p, const struct launch_op *op, int *ret_root);
int child_chroot(struct launch_plan *p, const struct launch_op *op, int *ret_root);
int child_attach(struct launch_plan *p, const struct launch_op *op, int root);
int child_mknod(struct launch_plan *p, const struct launch_op *op, int root);
int child_symlink(struct launch_plan *p, const struct launch_op *op, int root);
int child_write_proc(struct launch_plan *p, const struct launch_op *op, const char *dir,
                     const char *file, const char *text);
int child_mask(struct launch_plan *p, const struct launch_op *op, int root);
int child_readonly(struct launch_plan *p, const struct launch_op *op, int root);
int child_setattr(const char *path, int root, unsigned long long set,
                  unsigned long long propagation);
int child_remount(struct launch_plan *p, const struct launch_op *op, int root);
int child_copy_up(struct launch_plan *p, const struct launch_op *op, int root);
int child_make_dir(const char *path, int root);
int child_chdir(const char *path, int root);
int child_open_devpts(struct launch_plan *p, const struct launch_op *op, int root);
int child_console(struct launch_plan *p, const struct launch_op *op, int root);

/* Raw system calls and text, for these files alone. */
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>
#define SYS(name, ...) syscall(SYS_##name, ##__VA_ARGS__)

static inline unsigned long child_strlen(const char *s)
{
    unsigned long n = 0;

    while (s[n])
        n++;
    return n;
}
