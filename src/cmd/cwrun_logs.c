/*
 * logs: what a run has written to its stdout and stderr, so far or as it comes.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "cmd/cwrun.h"
#include "cmd/cwrun_local.h"

#define LOOK_MS 1000 /* how often to ask whether the run is over */

struct logs_options {
    char *runtime_dir;
    bool follow, only_out, only_err;
};
static const struct opt table[] = {
    OPT_ROW(struct logs_options, follow, "follow", 'f', OPT_FLAG, NULL, NULL,
            "go on until the run ends"),
    OPT_ROW(struct logs_options, only_out, "stdout", 0, OPT_FLAG, NULL, NULL,
            "only standard output"),
    OPT_ROW(struct logs_options, only_err, "stderr", 0, OPT_FLAG, NULL, NULL,
            "only standard error"),
    OPT_ROW(struct logs_options, runtime_dir, "runtime-dir", 0, OPT_STR, "DIR", CWRUN_RUNTIME_DIR,
            "the worker's --runtime-dir"),
    {0},
};

/* One of the two files; opened when it appears. */
struct stream {
    const char *name;
    int fd, to;
    bool wanted;
};

/* A program's output may hold sequences that a terminal obeys: they are shown, not sent (S07). */
static int pass_on(int to, const char *data, size_t n)
{
    char out[4 * 4096];
    size_t k = 0;

    if (!isatty(to))
        return fd_write_all(to, data, n);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)data[i];
        if ((c < 0x20 && c != '\n' && c != '\t' && c != '\r') || c == 0x7f)
            k += (size_t)snprintf(out + k, 5, "\\x%02x", c);
        else
            out[k++] = (char)c;
    }
    return fd_write_all(to, out, k);
}

static int open_stream(struct stream *s, int dir, int watch)
{
    char path[64];
    struct stat st;

    if (!s->wanted || s->fd >= 0)
        return 0;
    s->fd = openat(dir, s->name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (s->fd < 0)
        return 0;
    if (fstat(s->fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close_fd(&s->fd);
        s->wanted = false;
        return fprintf(stderr, "cwrun: %s of this run is no regular file\n", s->name);
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", s->fd);
    return watch >= 0 ? inotify_add_watch(watch, path, IN_MODIFY) : 0;
}

static int copy(struct stream *s)
{
    char buf[4096];
    ssize_t n;

    if (s->fd < 0)
        return 0;
    while ((n = read(s->fd, buf, sizeof(buf))) > 0)
        if (pass_on(s->to, buf, (size_t)n) < 0)
            return -1;
    return 0;
}

static int copy_all(struct stream *s, int dir, int watch)
{
    for (size_t i = 0; i < 2; i++)
        if (open_stream(&s[i], dir, watch) < 0 || copy(&s[i]) < 0)
            return -1;
    return 0;
}

static bool is_over(const char *runtime_dir, const char *uuid)
{
    AUTO(cJSON) cJSON *run = NULL;
    struct err e = ERR_INIT;

    if (cwrun_local_find(runtime_dir, uuid, false, &run, &e) < 0)
        return true;
    const char *stage = cwrun_local_text(run, "stage");
    return !str_eq(stage, "PREPARING") && !str_eq(stage, "CREATED") && !str_eq(stage, "RUNNING");
}

/* The kernel tells of new bytes; whether the run is over is asked once a second, and then all is read once more. */
static void follow(const struct logs_options *o, const char *uuid, struct stream *s, int dir)
{
    AUTO_CLOSE int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    char events[4096];

    for (bool over = false; copy_all(s, dir, watch) == 0 && !over;) {
        struct pollfd p = {.fd = watch, .events = POLLIN};
        int n = poll(&p, 1, LOOK_MS);

        if (n < 0 && errno != EINTR)
            return;
        if (n > 0)
            (void)!read(watch, events, sizeof(events));
        else
            over = is_over(o->runtime_dir, uuid);
    }
    (void)copy_all(s, dir, watch);
}

static int show(const struct logs_options *o, const char *text, struct err *e)
{
    struct stream s[] = {{"stdout", -1, STDOUT_FILENO, !o->only_err},
                         {"stderr", -1, STDERR_FILENO, !o->only_out}};
    AUTO(cJSON) cJSON *run = NULL;

    if (cwrun_local_find(o->runtime_dir, text, false, &run, e) < 0)
        return -1;
    const char *path = cwrun_local_text(run, "dir");
    AUTO_CLOSE int dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0)
        return err_sys(e, "open the bundle directory %s", path);
    if (o->follow)
        follow(o, cwrun_local_text(run, "uuid"), s, dir);
    else
        (void)copy_all(s, dir, -1);
    close_fd(&s[0].fd);
    close_fd(&s[1].fd);
    return 0;
}

int cwrun_logs(int argc, char **argv)
{
    AUTO(str_list) struct str_list words = {0};
    struct logs_options o = {0};
    struct err e = ERR_INIT;
    int rc = cwrun_parse(
        table, "cwrun logs [flags] UUID",
        "Show what a run has written to its stdout and stderr. The beginning of a uuid will do.",
        argc, argv, false, &o, &words, NULL);

    if (rc == 0 && words.n != 1) {
        fputs("cwrun logs: error: which run?\n", stderr);
        rc = -1;
    }
    if (rc == 0 && show(&o, words.items[0], &e) < 0)
        rc = cwrun_fail(&e);
    opt_free(table, &o);
    return rc < 0 ? EXIT_USAGE : rc == 1 ? 0 : rc;
}
