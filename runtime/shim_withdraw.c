#include "runtime/shim_withdraw.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/capability.h>

#include "base/err.h"
#include "base/fd.h"

/*
 * Signals to processes with other ids than ours are all that a capability is needed for from now on: the group, the
 * record and the socket are root's own files. What we cannot have back cannot be taken from us by a bug (S48).
 */
static void drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct sets[2] = {
        {.effective = 1U << CAP_KILL, .permitted = 1U << CAP_KILL}};

    for (int cap = 0; cap < 64 && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    BUG_ON(syscall(SYS_capset, &header, sets) < 0);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

void shim_withdraw(void)
{
    struct err ignored = ERR_INIT;
    sigset_t all;

    /* systemd's stop of a service, a terminal's hang-up: none of them ends a run. SIGKILL does, and is handled. */
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    prctl(PR_SET_DUMPABLE, 0);
    if (fd_write_file_at(AT_FDCWD, "/proc/self/oom_score_adj", "-999", &ignored) < 0)
        err_clear(&ignored);
    drop_capabilities();
}
