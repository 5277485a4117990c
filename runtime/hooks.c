#include "runtime/hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/sched.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"
#include "runtime/names.h"

enum { HOOKS_MAX = 256, DEFAULT_TIMEOUT_S = 60, TIMEOUT_MAX_S = 86400 };

bool hooks_has(const cJSON *hooks, const char *kind)
{
    return hooks && cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(hooks, kind)) > 0;
}

/* One entry, read. */
struct hook {
    const char *path;
    struct str_list args, env;
    int64_t timeout_s;
};

static void free_hook(struct hook *h)
{
    str_list_free(&h->args);
    str_list_free(&h->env);
}
DEFINE_AUTO_VALUE(hook, free_hook)

static int read_hook(const cJSON *item, struct hook *ret, struct err *e)
{
    *ret = (struct hook){.timeout_s = DEFAULT_TIMEOUT_S};
    if (!cJSON_IsObject(item))
        return err_set(e, ERR_USER, "not an object");
    if (json_get_str(item, "path", 4095, &ret->path, e) < 0 ||
        json_opt_str_list(item, "args", 4096, 131072, &ret->args, e) < 0 ||
        json_opt_str_list(item, "env", 4096, 131072, &ret->env, e) < 0 ||
        json_opt_i64(item, "timeout", 1, TIMEOUT_MAX_S, &ret->timeout_s, e) < 0)
        return -1;
    if (ret->path[0] != '/')
        return err_set(e, ERR_USER, "path is not absolute");
    if (!ret->args.n)
        str_list_add(&ret->args, ret->path);
    return 0;
}

int hooks_validate(const cJSON *hooks, struct err *e)
{
    for (size_t k = 0; hooks && ctr_names_hooks[k]; k++) {
        const cJSON *list = NULL, *item;
        size_t i = 0;

        if (json_opt_array(hooks, ctr_names_hooks[k], HOOKS_MAX, &list, e) < 0)
            return err_wrap(e, "hooks");
        cJSON_ArrayForEach(item, list) {
            AUTO(hook) struct hook h = {0};

            if (read_hook(item, &h, e) < 0)
                return err_wrap(e, "hooks.%s[%zu]", ctr_names_hooks[k], i);
            i++;
        }
    }
    return 0;
}

/* In the forked child: raw and short, until the hook's own program takes over. */
static _Noreturn void execute(const struct hook *h, int input, int inside_pidfd)
{
    static char *const nothing[] = {NULL};
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(input, 0) < 0)
        _exit(126);
    if (inside_pidfd >= 0 &&
        (setns(inside_pidfd, CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET) < 0 ||
         chdir("/") < 0))
        _exit(126);
    if (syscall(SYS_close_range, 3, ~0U, 0) == 0)
        execve(h->path, h->args.items, h->env.items ? h->env.items : nothing);
    _exit(errno == ENOENT ? 127 : 126);
}

/* A process without exec in between, so that it can enter the container's namespaces first. */
static pid_t fork_raw(int *ret_pidfd)
{
    struct clone_args args = {
        .flags = CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)ret_pidfd, .exit_signal = SIGCHLD};

    return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

static int await(int pidfd, const struct hook *h, struct err *e)
{
    siginfo_t info = {0};
    bool late = fd_wait(pidfd, POLLIN, clock_in_ns((uint64_t)h->timeout_s * NS_PER_S)) == 0;

    if (late)
        syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0 && errno == EINTR)
        ;
    if (late)
        return err_set(e, ERR_LIMIT, "hook %s: no end after %lld s, killed", h->path,
                       (long long)h->timeout_s);
    if (info.si_code != CLD_EXITED)
        return err_set(e, ERR_USER, "hook %s: killed by signal %d", h->path, info.si_status);
    if (info.si_status)
        return err_set(e, ERR_USER, "hook %s: exit status %d", h->path, info.si_status);
    return 0;
}

static int run_one(const struct hook *h, const char *state, int inside_pidfd, struct err *e)
{
    AUTO_CLOSE int input = fd_memfd("state", state, strlen(state), e);
    AUTO_CLOSE int pidfd = -1;

    if (input < 0)
        return -1;
    if (lseek(input, 0, SEEK_SET) < 0)
        return err_sys(e, "hook %s", h->path);
    pid_t pid = fork_raw(&pidfd);

    if (pid == 0)
        execute(h, input, inside_pidfd);
    return pid < 0 ? err_sys(e, "start hook %s", h->path) : await(pidfd, h, e);
}

int hooks_run(const cJSON *hooks, const char *kind, const char *state_json, int inside_pidfd,
              struct err *e)
{
    const cJSON *list = hooks ? cJSON_GetObjectItemCaseSensitive(hooks, kind) : NULL, *item;

    cJSON_ArrayForEach(item, list) {
        AUTO(hook) struct hook h = {0};

        if (read_hook(item, &h, e) < 0 || run_one(&h, state_json, inside_pidfd, e) < 0)
            return err_wrap(e, "%s", kind);
    }
    return 0;
}
