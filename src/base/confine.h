#pragma once
/*
 * confine.h - leave the calling thread little more than one directory, for ever (S31).
 *
 * For threads that take foreign bytes apart. Afterwards the thread has file descriptors 0 to 2 and the directory's
 * and no others, the directory as its root, the capabilities that writing a tree of any owner needs, and the
 * system calls for files, memory and waiting: no sockets, programs, processes, mounts, no executable memory.
 * Where the kernel has Landlock (ABI 2), that says so once more. Other threads of the process keep what they have.
 * What it opens is in a table of its own: no descriptor can be handed to or taken from another thread.
 * Threads: any, but never one that is to do other work later.
 */

enum {
    CONFINE_FILES = 1,    /* descriptors */
    CONFINE_ROOT = 2,     /* root directory */
    CONFINE_CAPS = 4,     /* capabilities */
    CONFINE_CALLS = 8,    /* seccomp */
    CONFINE_LANDLOCK = 16 /* only where the kernel has it */
};
#define CONFINE_USUAL (CONFINE_FILES | CONFINE_ROOT | CONFINE_CAPS | CONFINE_CALLS)

/* other: one more descriptor that it may use, or -1.
 * Returns the walls that stand. What cannot be had (no root, an old kernel) is left out: `doctor` tells. */
unsigned confine_thread(int dirfd, int other);
/* Try it on a thread of its own with directory `dirfd`: the walls that a confined thread gets here. */
unsigned confine_try(int dirfd);
