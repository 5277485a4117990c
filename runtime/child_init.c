/*
 * Process 1 of a container that asked for one: the same program image as its creator, without exec (S32), so it
 * gives everything away first: descriptors, capabilities but CAP_KILL, the right to gain any.
 */
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <linux/capability.h>

#include "runtime/child.h"
#include "runtime/plan.h"

static void drop_everything(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {.effective = 1U << CAP_KILL, .permitted = 1U << CAP_KILL}};

    SYS(close_range, 0, ~0U, 0);
    SYS(setsid);
    SYS(prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); /* in a shared pid namespace */
    SYS(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    SYS(capset, &header, data);
    SYS(prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* Reap what there is; true with *status when the main process was among it. */
static bool reap(int main_pid, int *ret_status)
{
    bool ended = false;
    int status;
    long pid;

    while ((pid = SYS(wait4, -1, &status, WNOHANG, 0)) > 0) {
        if (pid == main_pid) {
            *ret_status = status;
            ended = true;
        }
    }
    return ended;
}

/* /proc/1/cmdline is readable by all: our caller's paths and names are none of the container's business (S50). */
static void wipe_command_line(const struct launch_plan *p)
{
    static const char name[] = "init";

    for (char *c = (char *)(unsigned long)p->arg_start; (unsigned long)c < p->arg_end; c++)
        *(volatile char *)c = 0;
    for (unsigned i = 0; i < sizeof(name) && p->arg_start + i < p->arg_end; i++)
        ((volatile char *)(unsigned long)p->arg_start)[i] = name[i];
    SYS(prctl, PR_SET_NAME, name, 0, 0, 0);
}

_Noreturn void child_init_loop(const struct launch_plan *p, int main_pid)
{
    unsigned long long all = ~0ULL;
    int status = 0;

    wipe_command_line(p);
    drop_everything();
    for (;;) {
        siginfo_t info;
        long sig;

        if (reap(main_pid, &status))
            break;
        sig = SYS(rt_sigtimedwait, &all, &info, 0, sizeof(all));
        if (sig > 0 && sig != SIGCHLD && sig != SIGTTIN && sig != SIGTTOU)
            SYS(kill, main_pid, sig);
    }
    /* The end of process 1 ends the whole pid namespace. */
    SYS(exit_group, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    __builtin_unreachable();
}
