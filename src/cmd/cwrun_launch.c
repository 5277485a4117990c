#include "cmd/cwrun_launch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/str.h"
#include "base/tree.h"
#include "cmd/cwrun.h"
#include "netns/network.h"
#include "runtime/container.h"
#include "runtime/spec.h"

/* cwrun's ranges lie above the worker's; a range is held by a lock on a file, so a crash frees it. */
enum { ID_FIRST = 0x60000000, ID_SIZE = 65536, ID_RANGES = 1024 };

static int take_ids(struct cwrun_launch *l, struct err *e)
{
    static const char dir[] = CWRUN_RUNTIME_DIR "/ids";

    if (path_mkdirs(dir, 0700, e) < 0)
        return -1;
    for (uint32_t i = 0; i < ID_RANGES; i++) {
        AUTO_FREE char *name = mem_printf("%s/%u", dir, i);
        AUTO_CLOSE int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

        if (fd < 0)
            return err_sys(e, "open %s", name);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
            continue;
        l->id_lock = take_fd(&fd);
        l->first_id = ID_FIRST + i * ID_SIZE;
        return 0;
    }
    return err_set(e, ERR_LIMIT, "all %d user-id ranges of cwrun are in use", ID_RANGES);
}

int cwrun_launch_new(const char *store, bool own_ids, bool keep, struct cwrun_launch **ret,
                     struct err *e)
{
    AUTO(cwrun_launch) struct cwrun_launch *l = mem_new(struct cwrun_launch);
    uint32_t r = 0;

    l->id_lock = -1;
    l->keep = keep;
    if (getrandom(&r, sizeof(r), 0) != (ssize_t)sizeof(r))
        return err_sys(e, "random number");
    l->id = mem_printf("cwrun-%08x", r);
    l->dir = mem_printf("%s/../cwrun/%s", store, l->id);
    if (path_mkdirs(l->dir, 0700, e) < 0)
        return -1;
    if (own_ids && take_ids(l, e) < 0)
        return -1;
    *ret = take_ptr(&l);
    return 0;
}

void cwrun_launch_free(struct cwrun_launch *l)
{
    struct err e = ERR_INIT;

    if (l->dir && l->keep)
        fprintf(stderr, "cwrun: kept %s\n", l->dir);
    else if (l->dir && tree_remove_at(AT_FDCWD, l->dir, &e) < 0)
        fprintf(stderr, "cwrun: %s\n", e.msg);
    ctr_spec_free(l->spec);
    close_fd(&l->id_lock);
    free(l->id);
    free(l->dir);
    free(l);
}

/* Forward what a person or a supervisor sends us; blocked here, read from a descriptor. */
int cwrun_open_signals(struct err *e)
{
    static const int forwarded[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_SIZE(forwarded); i++)
        sigaddset(&set, forwarded[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);

    return fd < 0 ? err_sys(e, "signalfd") : fd;
}

static int reap(struct ctr *c, int *ret_status, struct err *e)
{
    siginfo_t info = {0};

    if (waitid(P_PIDFD, (id_t)ctr_pidfd(c), &info, WEXITED) < 0)
        return err_sys(e, "wait for the container");
    *ret_status = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
    return 0;
}

/* A container's init has no default handlers, so a second SIGINT or SIGTERM from a person is final. */
static int wait_for(struct ctr *c, int signals, int *ret_status, struct err *e)
{
    struct signalfd_siginfo info;
    struct err ignored = ERR_INIT;
    unsigned asked = 0;

    for (;;) {
        struct pollfd p[] = {{.fd = ctr_pidfd(c), .events = POLLIN},
                             {.fd = signals, .events = POLLIN}};

        if (poll(p, 2, -1) < 0 && errno != EINTR)
            return err_sys(e, "wait for the container");
        while (read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
            int signal_number = (int)info.ssi_signo;

            if ((signal_number == SIGINT || signal_number == SIGTERM) && ++asked > 1)
                signal_number = SIGKILL;
            if (ctr_kill(c, signal_number, signal_number == SIGKILL, &ignored) < 0)
                fprintf(stderr, "cwrun: %s\n", ignored.msg);
        }
        if (p[0].revents & POLLIN)
            return reap(c, ret_status, e);
    }
}

/* The files that follow from the network: mounted empty, filled when the addresses are known, before the start. */
static const char *const net_files[] = {"resolv.conf", "hosts"};

static bool has_mount(const struct ctr_spec *s, const char *destination)
{
    for (size_t i = 0; i < s->n_mounts; i++)
        if (str_eq(s->mounts[i].destination, destination))
            return true;
    return false;
}

/* What the user mounts there is the user's. */
static int mount_net_files(struct cwrun_launch *l, struct err *e)
{
    for (size_t i = 0; i < ARRAY_SIZE(net_files); i++) {
        AUTO_FREE char *source = mem_printf("%s/net-%s", l->dir, net_files[i]);
        AUTO_FREE char *target = mem_printf("/etc/%s", net_files[i]);

        if (has_mount(l->spec, target))
            continue;
        AUTO_CLOSE int fd = open(source, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

        if (fd < 0 || fchmod(fd, 0644) < 0)
            return err_sys(e, "make %s", source);
        ctr_spec_add_mount(l->spec, target, "bind", source, "bind,ro,nosuid,nodev");
    }
    return 0;
}

/* Not there: the user has mounted something of his own. */
static int fill_net_file(const struct cwrun_launch *l, const char *name, const char *text,
                         struct err *e)
{
    AUTO_FREE char *path = mem_printf("%s/net-%s", l->dir, name);
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0 || fd_write_all(fd, text, strlen(text)) < 0)
        return err_sys(e, "write %s", path);
    return 0;
}

static bool makes_network(const char *network)
{
    return !str_eq(network, "none") && !str_eq(network, "host");
}

static int attach(struct cwrun_launch *l, struct ctr *c, const char *network, struct net **ret,
                  struct err *e)
{
    AUTO(net_lease) struct net_lease *lease = NULL;
    const struct net_config config = {.prefix = "cwrun",
                                      .state_dir = CWRUN_RUNTIME_DIR "/cwrun-net"};

    if (!makes_network(network))
        return 0;
    AUTO_CLOSE int ns = ctr_netns(c, e);

    if (ns < 0 || net_open(&config, ret, e) < 0)
        return -1;
    if (net_attach(*ret, l->id, str_eq(network, "external") ? NET_EXTERNAL : NET_INTERNAL, ns,
                   l->spec->hostname, &lease, e) < 0 ||
        fill_net_file(l, "resolv.conf", lease->resolv_conf, e) < 0)
        return -1;
    return fill_net_file(l, "hosts", lease->hosts, e);
}

static void detach(struct cwrun_launch *l, struct net *n)
{
    struct err e = ERR_INIT;

    if (n && net_detach(n, l->id, &e) < 0)
        fprintf(stderr, "cwrun: %s\n", e.msg);
    /* The last one out takes the bridges along; while others are there it is refused, which is right. */
    if (n && net_close(n, true, &e) < 0 && e.kind != ERR_LIMIT)
        fprintf(stderr, "cwrun: %s\n", e.msg);
}

static void drop_network_namespace(struct ctr_spec *s)
{
    for (size_t i = 0; i < s->n_namespaces; i++) {
        if (!str_eq(s->namespaces[i].type, "network"))
            continue;
        free(s->namespaces[i].type);
        free(s->namespaces[i].path);
        s->namespaces[i] = s->namespaces[--s->n_namespaces];
    }
}

int cwrun_launch_run(struct cwrun_launch *l, const char *network, int *ret_status, struct err *e)
{
    AUTO(ctr) struct ctr *c = NULL;
    AUTO_CLOSE int signals = cwrun_open_signals(e);
    struct net *net = NULL;
    struct err after = ERR_INIT;
    const struct ctr_create_opts opts = {
        .id = l->id, .stdio = {0, 1, 2}, .console_socket = -1, .partial_cgroup = l->partial_cgroup};

    if (signals < 0)
        return -1;
    if (str_eq(network, "host"))
        drop_network_namespace(l->spec);
    if ((makes_network(network) && mount_net_files(l, e) < 0) ||
        ctr_create(l->spec, &opts, &c, e) < 0)
        return -1;
    int rc = attach(l, c, network, &net, e);

    if (rc == 0)
        rc = ctr_start(c, e);
    if (rc == 0)
        rc = wait_for(c, signals, ret_status, e);
    if (ctr_delete(c, true, &after) < 0)
        fprintf(stderr, "cwrun: %s\n", after.msg);
    detach(l, net);
    return rc;
}

int cwrun_launch_failed(const struct err *e)
{
    int status = cwrun_fail(e);

    /* The shell's convention, by what exec(2) answered. */
    if (e->kind == ERR_USER && e->sys == ENOENT)
        return EXIT_NOT_FOUND;
    if (e->kind == ERR_USER && (e->sys == EACCES || e->sys == ENOEXEC))
        return EXIT_NOT_EXECUTABLE;
    return status;
}
