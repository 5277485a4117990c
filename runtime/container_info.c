/* container_info.c - the object itself: made empty, opened by its state directory, described, freed. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/mem.h"
#include "runtime/cgroup.h"
#include "runtime/container_own.h"
#include "runtime/spec.h"
#include "runtime/state.h"

const char *ctr_status_name(enum ctr_status s)
{
    static const char *const names[] = {"creating", "created", "running", "paused", "stopped"};

    return names[s];
}

static void free_info(struct ctr_info *i)
{
    char *strings[] = {i->id, i->bundle, i->cgroup, i->created, i->oci_version, i->rootfs};

    for (size_t k = 0; k < ARRAY_SIZE(strings); k++)
        free(strings[k]);
    ctr_spec_free(i->spec);
    *i = (struct ctr_info){0};
}

void ctr_free(struct ctr *c)
{
    if (!c)
        return;
    close_fd(&c->launch.pidfd);
    close_fd(&c->launch.channel);
    close_fd(&c->state_dir);
    ctr_cgroup_free(c->cgroup);
    free_info(&c->info);
    free(c->id);
    free(c->state_root);
    free(c->note);
    free(c);
}

struct ctr *ctr_new(const char *id, const char *state_root)
{
    struct ctr *c = mem_new(struct ctr);

    c->id = mem_strdup(id);
    c->state_root = mem_strdup(state_root);
    c->launch = (struct launch){-1, -1, -1};
    c->state_dir = -1;
    return c;
}

void ctr_keep_spec(struct ctr *c, struct ctr_spec *spec)
{
    ctr_spec_free(c->info.spec);
    c->info.spec = spec;
}

int ctr_pidfd(const struct ctr *c)
{
    return c->launch.pidfd;
}

pid_t ctr_pid(const struct ctr *c)
{
    return c->launch.pid;
}

int ctr_channel(const struct ctr *c)
{
    return c->launch.channel;
}

int ctr_cgroup_dir(const struct ctr *c)
{
    return c->cgroup ? ctr_cgroup_fd(c->cgroup) : -1;
}

struct ctr_cgroup *ctr_cgroup_of(struct ctr *c)
{
    return c->cgroup;
}

const char *ctr_note(const struct ctr *c)
{
    return c->note;
}

static void open_process(struct ctr *c)
{
    int fd = fd_pidfd_open(c->launch.pid);

    /* Only if the number still means the process that we started. */
    if (fd >= 0 && c->start_time && state_start_time(c->launch.pid) == c->start_time)
        c->launch.pidfd = fd;
    else if (fd >= 0)
        close(fd);
}

static int open_cgroup(struct ctr *c, struct err *e)
{
    if (!c->info.cgroup || ctr_cgroup_open(c->info.cgroup, &c->cgroup, e) == 0)
        return 0;
    if (e->kind != ERR_ABSENT)
        return -1;
    err_clear(e);
    return 0;
}

int ctr_open(const char *state_root, const char *id, struct ctr **ret, struct err *e)
{
    AUTO(ctr) struct ctr *c = ctr_new(id, state_root);
    AUTO(ctr_state) struct ctr_state st = {0};

    if (!ctr_is_id(id))
        return err_set(e, ERR_USER, "invalid container id");
    if ((c->state_dir = state_open_dir(state_root, id, e)) < 0)
        return -1;
    if (state_read(c->state_dir, &st, &c->info.spec, e) < 0)
        return e->kind == ERR_ABSENT ? err_set(e, ERR_USER, "container %s is being created", id)
                                     : err_wrap(e, "container %s", id);
    c->launch.pid = st.pid;
    c->start_time = st.start_time;
    c->info.id = take_ptr(&st.id);
    c->info.bundle = take_ptr(&st.bundle);
    c->info.cgroup = take_ptr(&st.cgroup);
    c->info.created = take_ptr(&st.created);
    c->info.rootfs = take_ptr(&st.rootfs);
    c->info.oci_version = mem_strdup(c->info.spec->oci_version);
    open_process(c);
    if (open_cgroup(c, e) < 0)
        return -1;
    *ret = take_ptr(&c);
    return 0;
}

int ctr_info(struct ctr *c, const struct ctr_info **ret, struct err *e)
{
    bool frozen = false, alive = c->launch.pidfd >= 0 && fd_wait(c->launch.pidfd, POLLIN, 0) == 0;

    if (alive && c->cgroup && ctr_cgroup_is_frozen(c->cgroup, &frozen, e) < 0)
        return -1;
    c->info.pid = alive ? c->launch.pid : 0;
    c->info.status = !alive                                                  ? CTR_STOPPED
                     : frozen                                                ? CTR_PAUSED
                     : c->state_dir >= 0 && state_is_startable(c->state_dir) ? CTR_CREATED
                                                                             : CTR_RUNNING;
    *ret = &c->info;
    return 0;
}

int ctr_list(const char *state_root, struct str_list *ret, struct err *e)
{
    DIR *d = opendir(state_root);

    if (!d)
        return errno == ENOENT ? 0 : err_sys(e, "state directory %s", state_root);
    for (struct dirent *entry; (entry = readdir(d));)
        if (ctr_is_id(entry->d_name))
            str_list_add(ret, entry->d_name);
    closedir(d);
    return 0;
}

char *ctr_state_text(const struct ctr_info *i, const struct ctr_spec *s)
{
    AUTO(cJSON) cJSON *o = cJSON_CreateObject();

    json_add_str(o, "ociVersion", i->oci_version);
    json_add_str(o, "id", i->id);
    json_add_str(o, "status", ctr_status_name(i->status));
    if (i->status != CTR_STOPPED)
        json_add_int(o, "pid", i->pid);
    json_add_str(o, "bundle", i->bundle);
    if (s && s->n_annotations) {
        cJSON *a = json_add_object(o, "annotations");

        for (size_t k = 0; k < s->n_annotations; k++)
            json_add_str(a, s->annotations[k].key, s->annotations[k].value);
    }
    return json_text(o);
}

char *ctr_state_json(const struct ctr_info *i)
{
    return ctr_state_text(i, i->spec);
}
