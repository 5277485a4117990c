#include "runtime/hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"
#include "runtime/birth.h"
#include "runtime/names.h"

enum { HOOKS_MAX = 256, TIMEOUT_MAX_S = 86400 };

bool hooks_has(const cJSON *hooks, const char *kind)
{
    return hooks && cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(hooks, kind)) > 0;
}

/* One entry, read. */
struct hook {
    const char *path;
    struct str_list args, env;
    int64_t timeout_s; /* 0: none */
    bool has_env;
};

static void free_hook(struct hook *h)
{
    str_list_free(&h->args);
    str_list_free(&h->env);
}
DEFINE_AUTO_VALUE(hook, free_hook)

static int read_hook(const cJSON *item, struct hook *ret, struct err *e)
{
    *ret = (struct hook){.timeout_s = 0};
    if (!cJSON_IsObject(item))
        return err_set(e, ERR_USER, "not an object");
    if (json_get_str(item, "path", 4095, &ret->path, e) < 0 ||
        json_opt_str_list(item, "args", 4096, 131072, &ret->args, e) < 0 ||
        json_opt_str_list(item, "env", 4096, 131072, &ret->env, e) < 0 ||
        json_opt_i64(item, "timeout", 1, TIMEOUT_MAX_S, &ret->timeout_s, e) < 0)
        return -1;
    ret->has_env = cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(item, "env"));
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
static _Noreturn void execute(const struct hook *h, int input)
{
    static char *const nothing[] = {NULL};
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(input, 0) < 0)
        _exit(126);
    if (syscall(SYS_close_range, 3, ~0U, 0) == 0)
        execve(h->path, h->args.items,
               !h->has_env    ? environ
               : h->env.items ? h->env.items
                              : nothing);
    _exit(errno == ENOENT ? 127 : 126);
}

/* Namespaces that are not ours too: entering a user namespace that one is in already is an error. */
static int foreign_namespaces(int pid)
{
    static const struct {
        const char *name;
        int flag;
    } all[] = {{"user", CLONE_NEWUSER},     {"mnt", CLONE_NEWNS},   {"pid", CLONE_NEWPID},
               {"net", CLONE_NEWNET},       {"ipc", CLONE_NEWIPC},  {"uts", CLONE_NEWUTS},
               {"cgroup", CLONE_NEWCGROUP}, {"time", CLONE_NEWTIME}};
    int flags = 0;

    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        char theirs[64], ours[64];
        struct stat a, b;

        snprintf(theirs, sizeof(theirs), "/proc/%d/ns/%s", pid, all[i].name);
        snprintf(ours, sizeof(ours), "/proc/self/ns/%s", all[i].name);
        if (stat(theirs, &a) == 0 && stat(ours, &b) == 0 && a.st_ino != b.st_ino)
            flags |= all[i].flag;
    }
    return flags;
}

static int await(int pidfd, const struct hook *h, struct err *e)
{
    siginfo_t info = {0};
    bool late =
        h->timeout_s && fd_wait(pidfd, POLLIN, clock_in_ns((uint64_t)h->timeout_s * NS_PER_S)) == 0;

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

struct entering {
    const struct hook *hook;
    const struct hooks_inside *inside; /* NULL: stay */
    int input, flags;
};

static int enter(void *arg)
{
    const struct entering *in = arg;

    return in->inside ? setns(in->inside->pidfd, in->flags) : 0;
}

static void run_hook(void *arg)
{
    const struct entering *in = arg;

    if ((in->flags & CLONE_NEWUSER && (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)) ||
        (in->inside && chdir("/") < 0))
        _exit(126);
    execute(in->hook, in->input);
}

static int run_one(const struct hook *h, const char *state, const struct hooks_inside *inside,
                   struct err *e)
{
    AUTO_CLOSE int input = fd_memfd("state", state, strlen(state), e);
    AUTO_CLOSE int pidfd = -1;
    struct entering in = {h, inside, input, inside ? foreign_namespaces(inside->pid) : 0};
    struct birth b = {.cgroup_fd = inside ? inside->cgroup_fd : -1,
                      .enter = enter,
                      .child = run_hook,
                      .arg = &in};
    pid_t pid;

    if (input < 0)
        return -1;
    if (lseek(input, 0, SEEK_SET) < 0)
        return err_sys(e, "hook %s", h->path);
    if (birth_give(&b, &pid, &pidfd, e) < 0)
        return err_wrap(e, "start hook %s", h->path);
    return await(pidfd, h, e);
}

int hooks_run(const cJSON *hooks, const char *kind, const char *state_json,
              const struct hooks_inside *inside, struct err *e)
{
    const cJSON *list = hooks ? cJSON_GetObjectItemCaseSensitive(hooks, kind) : NULL, *item;

    cJSON_ArrayForEach(item, list) {
        AUTO(hook) struct hook h = {0};

        if (read_hook(item, &h, e) < 0 || run_one(&h, state_json, inside, e) < 0)
            return err_wrap(e, "%s", kind);
    }
    return 0;
}

void hooks_run_all(const cJSON *hooks, const char *kind, const char *state_json)
{
    const cJSON *list = hooks ? cJSON_GetObjectItemCaseSensitive(hooks, kind) : NULL, *item;

    cJSON_ArrayForEach(item, list) {
        AUTO(hook) struct hook h = {0};
        struct err why = ERR_INIT;

        if (read_hook(item, &h, &why) < 0 || run_one(&h, state_json, NULL, &why) < 0)
            fprintf(stderr, "warning: %s: %s\n", kind, why.msg);
    }
}
