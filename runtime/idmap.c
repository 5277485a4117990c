#include "runtime/idmap.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "runtime/spec.h"

enum { MAP_TEXT_MAX = 16384, HOLDER_STACK = 16384 };

static int write_map(pid_t pid, const char *name, const struct ctr_idmaps *m, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(MAP_TEXT_MAX);
    char path[64];

    for (size_t i = 0; i < m->n; i++)
        if (str_appendf(&text, "%u %u %u\n", m->items[i].container_id, m->items[i].host_id,
                        m->items[i].size) < 0)
            return err_set(e, ERR_USER, "too many id ranges");
    snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, str_text(&text), text.len) < 0)
        return err_sys(e, "write %s", name);
    return 0;
}

int idmap_write(pid_t pid, const struct ctr_idmaps *uids, const struct ctr_idmaps *gids,
                struct err *e)
{
    return write_map(pid, "uid_map", uids, e) < 0 ? -1 : write_map(pid, "gid_map", gids, e);
}

/* Shares our memory and waits to be killed: all that counts is the namespace it is in. */
static _Noreturn int holder_loop(void)
{
    for (;;)
        pause();
}

static int holder(void *unused)
{
    (void)unused;
    holder_loop();
}

int idmap_userns(const struct ctr_idmaps *uids, const struct ctr_idmaps *gids, struct err *e)
{
    AUTO_FREE char *stack = mem_alloc(HOLDER_STACK);
    char path[64];
    /* No exit signal: nobody who waits for children sees it (__WCLONE does). */
    pid_t pid = clone(holder, stack + HOLDER_STACK, CLONE_NEWUSER | CLONE_VM | CLONE_FILES, NULL);

    if (pid < 0)
        return err_sys(e, "make a user namespace");
    int fd = -1;

    if (idmap_write(pid, uids, gids, e) == 0) {
        snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            err_sys(e, "open a new user namespace");
    }
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, __WCLONE) < 0 && errno == EINTR)
        ;
    return fd;
}

static void add(struct ctr_idmaps *m, uint64_t disk, uint64_t host, uint64_t size)
{
    if (size)
        ctr_spec_add_idmap(m, (uint32_t)disk, (uint32_t)host, (uint32_t)size);
}

void idmap_exchange(const struct ctr_idmaps *container, uint32_t owner, uint32_t user,
                    struct ctr_idmaps *ret)
{
    uint32_t cut[2] = {owner < user ? owner : user, owner < user ? user : owner};

    *ret = (struct ctr_idmaps){0};
    for (size_t i = 0; i < container->n; i++) {
        const struct ctr_idmap *m = &container->items[i];
        uint64_t at = m->container_id, end = at + m->size;

        for (int c = 0; c < 2 && owner != user; c++) {
            if (cut[c] < at || cut[c] >= end)
                continue;
            add(ret, at, m->host_id + (at - m->container_id), cut[c] - at);
            add(ret, cut[c] == user ? owner : user, m->host_id + (cut[c] - m->container_id), 1);
            at = (uint64_t)cut[c] + 1;
        }
        add(ret, at, m->host_id + (at - m->container_id), end - at);
    }
}

int64_t idmap_host_id(const struct ctr_idmaps *m, uint32_t container_id)
{
    for (size_t i = 0; i < m->n; i++)
        if (container_id >= m->items[i].container_id &&
            container_id - m->items[i].container_id < m->items[i].size)
            return (int64_t)m->items[i].host_id + (container_id - m->items[i].container_id);
    return -1;
}
