#include "runtime/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/statefile.h"
#include "runtime/spec.h"
#include "runtime/spec_json.h"

void ctr_state_free(struct ctr_state *s)
{
    char *strings[] = {s->id, s->bundle, s->cgroup, s->created, s->rootfs};

    for (size_t i = 0; i < ARRAY_SIZE(strings); i++)
        free(strings[i]);
    *s = (struct ctr_state){0};
}

static int open_root(const char *root, struct err *e)
{
    int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT) {
        if (path_mkdirs(root, 0711, e) < 0)
            return -1;
        fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    return fd < 0 ? err_sys(e, "state directory %s", root) : fd;
}

int state_open_dir(const char *root, const char *id, struct err *e)
{
    AUTO_CLOSE int top = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = top < 0 ? -1 : openat(top, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT)
        return err_set(e, ERR_ABSENT, "container \"%s\" does not exist", id);
    return fd < 0 ? err_sys(e, "state of container %s", id) : fd;
}

int state_make_dir(const char *root, const char *id, struct err *e)
{
    AUTO_CLOSE int top = open_root(root, e);

    if (top < 0)
        return -1;
    if (mkdirat(top, id, 0700) < 0)
        return errno == EEXIST ? err_set(e, ERR_USER, "container with id exists: %s", id)
                               : err_sys(e, "state of container %s", id);
    int fd = openat(top, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? err_sys(e, "state of container %s", id) : fd;
}

int state_remove(const char *root, const char *id, struct err *e)
{
    static const char *const names[] = {"state.json", "config.json", "start.sock"};
    AUTO_CLOSE int top = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTO_CLOSE int dir =
        top < 0 ? -1 : openat(top, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (dir < 0)
        return errno == ENOENT ? 0 : err_sys(e, "state of container %s", id);
    statefile_sweep(dir);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (unlinkat(dir, names[i], 0) < 0 && errno != ENOENT)
            return err_sys(e, "remove %s of container %s", names[i], id);
    return unlinkat(top, id, AT_REMOVEDIR) < 0 ? err_sys(e, "remove the state of container %s", id)
                                               : 0;
}

int state_write_spec(int dir, const struct ctr_spec *spec, struct err *e)
{
    AUTO_FREE char *config = ctr_spec_to_json(spec);

    return statefile_replace(dir, "config.json", config, strlen(config), 0600, false, e);
}

int state_write(int dir, const struct ctr_state *s, struct err *e)
{
    AUTO(cJSON) cJSON *o = cJSON_CreateObject();

    json_add_str(o, "id", s->id);
    json_add_int(o, "pid", s->pid);
    json_add_int(o, "startTime", (int64_t)s->start_time);
    json_add_str(o, "bundle", s->bundle);
    json_add_str(o, "rootfs", s->rootfs);
    json_add_str(o, "cgroup", s->cgroup);
    json_add_str(o, "created", s->created);
    AUTO_FREE char *text = json_text(o);

    return statefile_replace(dir, "state.json", text, strlen(text), 0600, false, e);
}

static int read_spec(int dir, struct ctr_spec **ret, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(BOUND_CONFIG_JSON);

    if (statefile_read(dir, "config.json", &text, e) < 0)
        return -1;
    return ctr_spec_from_json(str_text(&text), text.len, ret, e);
}

static int copy_str(const cJSON *o, const char *key, char **ret, struct err *e)
{
    const char *value = NULL;

    if (json_opt_str(o, key, BOUND_PATH, &value, e) < 0)
        return -1;
    *ret = mem_strdup(value);
    return 0;
}

int state_read(int dir, struct ctr_state *ret, struct ctr_spec **ret_spec, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(BOUND_CONFIG_JSON);
    AUTO(cJSON) cJSON *o = NULL;
    uint64_t pid = 0;

    if (statefile_read(dir, "state.json", &text, e) < 0 ||
        json_parse(str_text(&text), text.len, &o, e) < 0 ||
        json_get_u64(o, "pid", INT32_MAX, &pid, e) < 0 ||
        json_get_u64(o, "startTime", UINT64_MAX, &ret->start_time, e) < 0 ||
        copy_str(o, "id", &ret->id, e) < 0 || copy_str(o, "bundle", &ret->bundle, e) < 0 ||
        copy_str(o, "rootfs", &ret->rootfs, e) < 0 || copy_str(o, "cgroup", &ret->cgroup, e) < 0 ||
        copy_str(o, "created", &ret->created, e) < 0)
        return -1;
    ret->pid = (pid_t)pid;
    return ret_spec ? read_spec(dir, ret_spec, e) : 0;
}

/* Through our own descriptor, as a socket's path may have 107 bytes only. */
static struct sockaddr_un start_address(int dir)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/start.sock", dir);
    return a;
}

int state_listen(int dir, struct err *e)
{
    struct sockaddr_un a = start_address(dir);
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 1) < 0)
        return err_sys(e, "make the start socket");
    return take_fd(&fd);
}

int state_connect(int dir, struct err *e)
{
    struct sockaddr_un a = start_address(dir);
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
        return err_sys(e, "cannot start a container that is not in the created state");
    return take_fd(&fd);
}

bool state_is_startable(int dir)
{
    return faccessat(dir, "start.sock", F_OK, 0) == 0;
}

void state_forget_start(int dir)
{
    unlinkat(dir, "start.sock", 0);
}

/* The name in the second field may hold anything, so fields are counted from the last ')'. */
uint64_t state_start_time(pid_t pid)
{
    char path[64], buf[1024];

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : fd_read_full(fd, buf, sizeof(buf) - 1);

    if (n <= 0)
        return 0;
    buf[n] = '\0';
    char *p = strrchr(buf, ')'), state = 0;
    unsigned long long start = 0;

    if (!p ||
        sscanf(p + 1,
               " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
               &state, &start) != 2)
        return 0;
    return state == 'Z' || state == 'X' ? 0 : start;
}

char *state_now(void)
{
    struct timespec ts;
    struct tm tm;

    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    return mem_printf("%04d-%02d-%02dT%02d:%02d:%02d.%09ldZ", tm.tm_year + 1900, tm.tm_mon + 1,
                      tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ts.tv_nsec);
}
