#include "worker/options.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/path.h"

#define PASSWORD_FILE_MAX 4096

static const char *const runtimes[] = {"docker", "kubernetes", NULL};
static const char *const cgroups[] = {"full", "partial", NULL};
static const char *const usernses[] = {"auto", "none", NULL};

#define ROW(member, name, type, arg, def, help) \
    OPT_ROW(struct options, member, name, 0, type, arg, def, help)
#define FLAG(member, name, help) ROW(member, name, OPT_FLAG, NULL, NULL, help)
#define CHOICE(mem, nm, list, df, hl)                                                             \
    {                                                                                             \
        .name = nm, .type = OPT_CHOICE, .offset = offsetof(struct options, mem), .choices = list, \
        .def = df, .help = hl                                                                     \
    }

const struct opt options_table[] = {
    ROW(server, "server", OPT_STR, "URL", "https://worksheets.codalab.org", "bundle service"),
    ROW(ws_server, "ws-server", OPT_STR, "URL", NULL,
        "websocket server (default: made from --server)"),
    ROW(work_dir, "work-dir", OPT_STR, "DIR", "codalab-worker-scratch",
        "where bundles, dependencies and state are kept"),
    ROW(network_prefix, "network-prefix", OPT_STR, "NAME", "codalab_worker_network",
        "prefix of the networks' names"),
    ROW(tag, "tag", OPT_STR, "TAG", NULL, "run bundles with this tag"),
    FLAG(tag_exclusive, "tag-exclusive", "run only bundles with the tag"),
    ROW(group, "group", OPT_STR, "NAME", NULL, "run bundles of this group"),
    ROW(cpuset, "cpuset", OPT_STR, "CPUSET_STR", "ALL", "CPU numbers with commas, or ALL"),
    ROW(gpuset, "gpuset", OPT_STR, "GPUSET_STR", "ALL",
        "GPU indices or UUIDs with commas, ALL, or NONE"),
    ROW(max_work_dir_size, "max-work-dir-size", OPT_SIZE, "SIZE", "10g",
        "bound of the dependency cache"),
    ROW(max_image_cache_size, "max-image-cache-size", OPT_SIZE, "SIZE", NULL,
        "bound of the image cache"),
    ROW(max_image_size, "max-image-size", OPT_SIZE, "SIZE", NULL,
        "refuse images larger than this (compressed)"),
    ROW(max_memory, "max-memory", OPT_SIZE, "SIZE", NULL, "memory offered to bundles"),
    ROW(password_file, "password-file", OPT_STR, "PATH", NULL,
        "user and password, a line each; mode 0600"),
    FLAG(verbose, "verbose", "log more"),
    FLAG(exit_when_idle, "exit-when-idle", "end when there are no runs"),
    ROW(idle_seconds, "idle-seconds", OPT_INT, "N", "0",
        "how long to be idle before --exit-when-idle ends"),
    ROW(checkin_frequency_seconds, "checkin-frequency-seconds", OPT_INT, "N", "5",
        "pause between check-ins"),
    ROW(id, "id", OPT_STR, "ID", NULL, "worker id; a service needs a stable one"),
    FLAG(shared_file_system, "shared-file-system",
         "bundles lie on a file system shared with the server"),
    FLAG(pass_down_termination, "pass-down-termination",
         "on a signal hand all runs back to the server"),
    FLAG(delete_work_dir_on_exit, "delete-work-dir-on-exit",
         "remove what this worker made in its work directory"),
    ROW(exit_after_num_runs, "exit-after-num-runs", OPT_INT, "N", "999999999",
        "end after this many runs"),
    FLAG(exit_on_exception, "exit-on-exception",
         "accepted; errors are confined to the run they belong to"),
    ROW(max_retries, "download-dependencies-max-retries", OPT_INT, "N", "3",
        "attempts to download a dependency"),
    ROW(shm_gb, "shared-memory-size-gb", OPT_INT, "N", "1", "size of /dev/shm in GiB"),
    FLAG(preemptible, "preemptible", "tell the server that this worker may vanish"),
    CHOICE(bundle_runtime, "bundle-runtime", runtimes, "docker", "docker: run bundles here"),
    ROW(kubernetes_cluster_host, "kubernetes-cluster-host", OPT_STR, "HOST", NULL,
        "accepted and ignored"),
    ROW(kubernetes_auth_token, "kubernetes-auth-token", OPT_STR, "TOKEN", NULL,
        "accepted and ignored"),
    ROW(kubernetes_cert_path, "kubernetes-cert-path", OPT_STR, "PATH", NULL,
        "accepted and ignored"),
    ROW(kubernetes_cert, "kubernetes-cert", OPT_STR, "CERT", NULL, "accepted and ignored"),
    {.name = "config",
     .type = OPT_STR,
     .offset = offsetof(struct options, config),
     .arg = "FILE",
     .help = "read flags from here first (\"flag = value\" a line)",
     .group = "flags of cworkerd's own"},
    ROW(image_store, "image-store", OPT_STR, "DIR", NULL,
        "image layers, on a local disk (default: WORK_DIR/images)"),
    ROW(min_free_space, "min-free-space", OPT_SIZE, "SIZE", NULL,
        "what images leave free of their disk: unused ones go, a pull that would not fit is refused"),
    ROW(prepull_images, "prepull-image", OPT_LIST, "IMAGE", NULL,
        "image to fetch at the start, before a run asks for it; repeatable"),
    ROW(scratch_dir, "scratch-dir", OPT_STR, "DIR", NULL,
        "writable layers of running containers, on a local disk (default: WORK_DIR/containers)"),
    ROW(runtime_dir, "runtime-dir", OPT_STR, "DIR", "/run/cworker",
        "sockets and exit records, on a tmpfs"),
    ROW(insecure_registries, "insecure-registry", OPT_LIST, "HOST[:PORT]", NULL,
        "registry to be spoken to without verified TLS; repeatable"),
    ROW(registry_mirrors, "registry-mirror", OPT_LIST, "[REGISTRY=]URL", NULL,
        "mirror, tried first; repeatable"),
    ROW(docker_config, "docker-config", OPT_STR, "FILE", NULL,
        "registry credentials (default: ~/.docker/config.json)"),
    ROW(certs_dir, "certs-dir", OPT_STR, "DIR", "/etc/docker/certs.d",
        "CAs and client certificates by registry"),
    ROW(trust_policy, "trust-policy", OPT_STR, "FILE", NULL,
        "which images may be used: registries, digests, signatures"),
    ROW(registry_timeout, "registry-timeout", OPT_INT, "SECONDS", "60",
        "a registry that is silent or slower than 1 KiB/s for so long is given up; 0: 60"),
    ROW(ca_file, "ca-file", OPT_STR, "FILE", NULL,
        "certificates to verify the bundle service with"),
    CHOICE(cgroup, "cgroup", cgroups, "full",
           "partial: go on with what a hybrid host has, without limits"),
    ROW(cgroup_parent, "cgroup-parent", OPT_STR, "PATH", NULL,
        "cgroup to work below (default: the worker's own)"),
    CHOICE(userns, "userns", usernses, "auto",
           "auto: ids of its own for each run where possible; none: the host's"),
    ROW(ipv4_pool, "ipv4-pool", OPT_STR, "CIDR", NULL, "addresses of the runs' networks"),
    ROW(ipv6_pool, "ipv6-pool", OPT_STR, "CIDR", NULL, "likewise; \"\": no IPv6"),
    ROW(network_allow, "network-allow", OPT_STR, "LIST", NULL,
        "what external runs may reach though it is denied: networks, host, metadata, each also with :PORT"),
    ROW(network_deny, "network-deny", OPT_STR, "LIST", NULL,
        "networks that external runs may not reach"),
    ROW(network_only, "network-only", OPT_STR, "LIST", NULL,
        "the only networks that external runs may reach, each also with :PORT"),
    ROW(network_egress, "network-egress", OPT_SIZE, "SIZE", NULL,
        "bytes a second that an external run may send"),
    ROW(network_ingress, "network-ingress", OPT_SIZE, "SIZE", NULL,
        "bytes a second that an external run may receive"),
    ROW(pids_limit, "pids-limit", OPT_INT, "N", "32768", "most processes of a run; 0: no limit"),
    ROW(pulls, "parallel-pulls", OPT_INT, "N", "3", "images pulled at once"),
    ROW(downloads, "parallel-downloads", OPT_INT, "N", "4", "dependencies downloaded at once"),
    ROW(shared_dir_seconds, "shared-dir-seconds", OPT_INT, "N", "120",
        "how long a bundle directory on a shared file system is waited for"),
    ROW(bundle_check_seconds, "bundle-check-seconds", OPT_INT, "N", "300",
        "how often to ask the server whether the bundles of its runs still exist"),
    ROW(shim, "shim", OPT_STR, "PATH", NULL,
        "cwshim (default: beside this program, or in libexec)"),
    {0},
};

/* --config in argv, before everything else is parsed: last one wins, NULL when there is none. */
static const char *find_config(int argc, char **argv)
{
    const char *path = NULL;

    for (int i = 1; i < argc; i++) {
        if (str_eq(argv[i], "--config") && i + 1 < argc)
            path = argv[i + 1];
        else if (str_starts(argv[i], "--config="))
            path = argv[i] + strlen("--config=");
    }
    return path;
}

static void absolute(char **path)
{
    char *cwd;

    if (!*path || **path == '/' || !(cwd = getcwd(NULL, 0)))
        return;
    char *full = mem_printf("%s/%s", cwd, *path);
    free(cwd);
    free(*path);
    *path = full;
}

static void beneath_work_dir(struct options *o, char **slot, const char *name)
{
    if (!*slot)
        *slot = mem_printf("%s/%s", o->work_dir, name);
    absolute(slot);
}

/* Numbers that are multiplied, or threads: bounds nobody meets who means it. The others are taken as Python takes them. */
static const struct {
    const char *name;
    size_t offset;
    int64_t least, most;
} ranges[] = {
    {"checkin-frequency-seconds", offsetof(struct options, checkin_frequency_seconds), 0, 86400},
    {"shared-memory-size-gb", offsetof(struct options, shm_gb), 0, 65536},
    {"pids-limit", offsetof(struct options, pids_limit), 0, 4194304},
    {"parallel-pulls", offsetof(struct options, pulls), 1, 64},
    {"parallel-downloads", offsetof(struct options, downloads), 1, 64},
    {"shared-dir-seconds", offsetof(struct options, shared_dir_seconds), 1, 86400},
    {"bundle-check-seconds", offsetof(struct options, bundle_check_seconds), 1, 86400},
};

static int check_ranges(const struct options *o, struct err *e)
{
    for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
        int64_t value = *(const int64_t *)(const void *)((const char *)o + ranges[i].offset);
        if (value < ranges[i].least || value > ranges[i].most)
            return err_set(e, ERR_USER, "argument --%s: %lld is not between %lld and %lld",
                           ranges[i].name, (long long)value, (long long)ranges[i].least,
                           (long long)ranges[i].most);
    }
    return 0;
}

static int check(struct options *o, struct err *e)
{
    if (o->tag &&
        strspn(o->tag, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") !=
            strlen(o->tag))
        return err_set(e, ERR_LIMIT, "Worker tag must only contain letters, numbers or hyphens.");
    if (str_eq(o->bundle_runtime, "kubernetes"))
        return err_set(
            e, ERR_USER,
            "argument --bundle-runtime: this worker runs bundles itself: only docker is offered");
    return check_ranges(o, e);
}

int options_read(int argc, char **argv, struct options *ret, enum options_result *ret_what,
                 struct err *e)
{
    AUTO(options) struct options o = {0};
    AUTO(str_list) struct str_list words = {0};
    const char *config = find_config(argc, argv);
    bool help = false;

    *ret_what = OPTIONS_RUN;
    for (int i = 1; i < argc; i++)
        if (str_eq(argv[i], "--version")) {
            *ret_what = OPTIONS_VERSION;
            return 0;
        }
    opt_defaults(options_table, &o);
    if ((config && opt_parse_file(options_table, config, &o, e) < 0) ||
        opt_parse(options_table, argc, argv, false, &o, &words, &help, e) < 0)
        return -1;
    if (help) {
        *ret_what = OPTIONS_HELP;
        return 0;
    }
    if (words.n) {
        AUTO_FREE char *all = str_list_join(&words, " ");
        return err_set(e, ERR_USER, "unrecognized arguments: %.200s", all);
    }
    if (check(&o, e) < 0)
        return -1;
    absolute(&o.work_dir);
    absolute(&o.runtime_dir);
    beneath_work_dir(&o, &o.image_store, "images");
    beneath_work_dir(&o, &o.scratch_dir, "containers");
    *ret = o;
    memset(&o, 0, sizeof(o));
    return 0;
}

static void forget(char **secret)
{
    if (*secret)
        explicit_bzero(*secret, strlen(*secret));
    free(*secret);
    *secret = NULL;
}

void options_free(struct options *o)
{
    forget(&o->password);
    forget(&o->username);
    opt_free(options_table, o);
}

/* ---- credentials (11.2) ---- */

static char *stripped(const char *text)
{
    size_t n = strlen(text);

    while (n && strchr(" \t\r\n", text[n - 1]))
        n--;
    while (n && strchr(" \t\r\n", *text))
        text++, n--;
    return mem_strndup(text, n);
}

static int from_file(struct options *o, struct err *e)
{
    AUTO_CLOSE int fd = open(o->password_file, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    AUTO(str) struct str text = STR_INIT(PASSWORD_FILE_MAX);
    AUTO(str_list) struct str_list lines = {0};
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, "open password file %s", o->password_file);
    if (st.st_mode & 077)
        return err_set(
            e, ERR_USER,
            "Permissions on password file are too lax.\nOnly the user should be allowed to access the "
            "file.\nOn Linux, run:\nchmod 600 %s",
            o->password_file);
    if (fd_read_all(fd, &text, e) < 0)
        return err_wrap(e, "password file %s", o->password_file);
    str_list_split(&lines, str_text(&text), '\n');
    o->username = stripped(lines.n > 0 ? lines.items[0] : "");
    o->password = stripped(lines.n > 1 ? lines.items[1] : "");
    explicit_bzero(text.buf, text.len);
    for (size_t i = 0; i < lines.n; i++)
        explicit_bzero(lines.items[i], strlen(lines.items[i]));
    return 0;
}

static char *ask(FILE *tty, const char *prompt, bool echo)
{
    struct termios old, quiet;
    char line[512] = "";
    bool changed = !echo && tcgetattr(fileno(tty), &old) == 0;

    /* Quiet before it asks: who types at once is neither shown nor thrown away. */
    if (changed) {
        quiet = old;
        quiet.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(fileno(tty), TCSAFLUSH, &quiet);
    }
    fputs(prompt, tty);
    fflush(tty);
    char *got = fgets(line, sizeof(line), tty);
    if (changed) {
        tcsetattr(fileno(tty), TCSAFLUSH, &old);
        fputc('\n', tty);
    }
    char *answer = got ? stripped(line) : NULL;
    explicit_bzero(line, sizeof(line));
    return answer;
}

static int from_terminal(struct options *o, struct err *e)
{
    FILE *tty = fopen("/dev/tty", "r+e");

    if (!tty)
        return err_set(
            e, ERR_USER,
            "No user name and password: give --password-file, or CODALAB_USERNAME and CODALAB_PASSWORD");
    if (!o->username)
        o->username = ask(tty, "Username: ", true);
    if (o->username && !o->password)
        o->password = ask(tty, "Password: ", false);
    fclose(tty);
    return o->username && o->password
               ? 0
               : err_set(e, ERR_USER, "No user name and password were given");
}

int options_credentials(struct options *o, struct err *e)
{
    if (o->password_file)
        return from_file(o, e);
    o->username = mem_strdup(getenv("CODALAB_USERNAME"));
    o->password = mem_strdup(getenv("CODALAB_PASSWORD"));
    return o->username && o->password ? 0 : from_terminal(o, e);
}
