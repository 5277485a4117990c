/*
 * container_stop.c - the polite half of a kill: SIGTERM to the programs of a run, and the time to act on it.
 *
 * It goes to all of the run's processes, as systemd does it, but for two: process 1, which is ours, and the shell that wraps the
 * bundle's command, which would end at once and take everybody with it, in the middle of a checkpoint.
 */
#include "worker/container_stop.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"
#include "runtime/cgroup.h"
#include "runtime/shim.h"

/* A run with more processes than that does not get a descriptor for each: those beyond are not asked, only killed. */
#define ASKED_MAX 1024

struct process {
    int pid, parent, pidfd;
};

/* Field 4 of /proc/PID/stat; the name in front of it may hold anything. 0: it has ended. */
static int parent_of(int pid)
{
    AUTO_FREE char *path = mem_printf("/proc/%d/stat", pid);
    AUTO(str) struct str text = STR_INIT(4 * BOUND_KIB);
    struct err ignored = ERR_INIT;
    int parent = 0;

    if (fd_read_file_at(AT_FDCWD, path, &text, &ignored) < 0)
        return 0;
    const char *close_paren = strrchr(str_text(&text), ')');

    return close_paren && sscanf(close_paren + 1, " %*c %d", &parent) == 1 ? parent : 0;
}

static struct process *hold_all(struct ctr_cgroup *cg, size_t *ret_n)
{
    AUTO_FREE int *pids = NULL;
    struct err ignored = ERR_INIT;
    size_t n = 0;

    *ret_n = 0;
    if (ctr_cgroup_pids(cg, &pids, &n, &ignored) < 0)
        return NULL;
    if (n > ASKED_MAX)
        n = ASKED_MAX;
    struct process *p = mem_array(n + 1, sizeof(*p));

    for (size_t i = 0; i < n; i++)
        p[i] = (struct process){pids[i], parent_of(pids[i]), fd_pidfd_open(pids[i])};
    *ret_n = n;
    return p;
}

static bool is_in(const int *pids, size_t n, int pid)
{
    for (size_t i = 0; i < n; i++)
        if (pids[i] == pid)
            return true;
    return false;
}

static bool has_child(const struct process *p, size_t n, int pid)
{
    for (size_t i = 0; i < n; i++)
        if (p[i].parent == pid)
            return true;
    return false;
}

static void signal_programs(struct ctr_cgroup *cg, int init, const struct process *p, size_t n)
{
    AUTO_FREE int *still = NULL;
    struct err ignored = ERR_INIT;
    size_t n_still = 0;

    if (ctr_cgroup_pids(cg, &still, &n_still, &ignored) < 0)
        return;
    for (size_t i = 0; i < n; i++) {
        bool wraps = p[i].parent == init && has_child(p, n, p[i].pid);

        /* A number that is in the group after it was opened has not come to mean a process of somebody else's. */
        if (p[i].pidfd >= 0 && p[i].pid != init && !wraps && is_in(still, n_still, p[i].pid))
            syscall(SYS_pidfd_send_signal, p[i].pidfd, SIGTERM, NULL, 0);
    }
}

bool container_stop(const struct ctr_shim *s, uint64_t deadline)
{
    int dir = ctr_shim_is_started(s) ? fd_dup(ctr_shim_cgroup(s)) : -1;
    size_t n = 0;

    if (dir < 0)
        return false;
    AUTO(ctr_cgroup) struct ctr_cgroup *cg = ctr_cgroup_from_fd(dir, "/of the run");
    AUTO_FREE struct process *p = hold_all(cg, &n);

    signal_programs(cg, ctr_shim_pid(s), p, n);
    for (size_t i = 0; i < n; i++)
        close_fd(&p[i].pidfd);
    return fd_wait(ctr_shim_fd(s), POLLIN, deadline) == 1;
}
