/*
 * A directory's answer is pushed by the transfer and pulled by the tar reader: the transfer runs on the job's thread, the
 * reader on one of its own, a tube between them. What is received is decoded before it goes into the tube.
 */
#include "worker/deps_fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#include "base/archive.h"
#include "base/bounds.h"
#include "base/codec.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/tree.h"
#include "base/tube.h"
#include "worker/deps_place.h"
#include "worker/service.h"

enum { TUBE_BYTES = 256 * 1024 };

static void count(const struct deps_fetch *f, size_t n)
{
    atomic_fetch_add(f->received, n);
    f->progress(f->progress_arg);
}

struct file_sink {
    const struct deps_fetch *f;
    int fd;
    uint64_t bytes;
};

static int write_file(void *arg, const void *data, size_t n, struct err *e)
{
    struct file_sink *s = arg;

    if (fd_write_all(s->fd, data, n) < 0)
        return err_sys(e, "write the dependency");
    s->bytes += n;
    count(s->f, n);
    return 0;
}

static int fetch_file(const struct deps_fetch *f, const char *tmp, struct deps_place *p,
                      struct err *e)
{
    AUTO_CLOSE int fd =
        openat(f->dirs->contents, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    struct file_sink s = {f, fd, 0};

    if (fd < 0)
        return err_sys(e, "create the dependency");
    if (service_contents_blob(f->service, f->uuid, f->path, SERVICE_FILE, BOUND_UNPACKED,
                              write_file, &s, f->cancel, e) < 0)
        return -1;
    p->bytes = s.bytes;
    return 0;
}

struct unpacking {
    struct tube *tube;
    struct cancel *cancel;
    int dir;
    struct err error;
    int rc;
};

static long from_tube(void *arg, void *buf, size_t n, struct err *e)
{
    return tube_read(arg, buf, n, e);
}

static int to_tube(void *arg, const void *data, size_t n, struct err *e)
{
    return tube_write(arg, data, n, e);
}

static void *unpack(void *arg)
{
    struct unpacking *u = arg;
    const struct archive_limits lim = {.max_bytes = BOUND_UNPACKED,
                                       .max_entries = BOUND_TAR_ENTRIES};

    u->rc = archive_unpack_tar(u->dir, from_tube, u->tube, &lim, u->cancel, &u->error);
    tube_break(u->tube, u->rc < 0 ? &u->error : NULL);
    return NULL;
}

struct directory_sink {
    const struct deps_fetch *f;
    struct codec *gzip;
};

static int feed(void *arg, const void *data, size_t n, struct err *e)
{
    struct directory_sink *s = arg;

    count(s->f, n);
    return codec_feed(s->gzip, data, n, e);
}

static int receive_directory(const struct deps_fetch *f, struct tube *tube, struct err *e)
{
    AUTO(codec) struct codec *gzip = codec_decoder(CODEC_GZIP, BOUND_UNPACKED, to_tube, tube);
    struct directory_sink s = {f, gzip};
    int rc = service_contents_blob(f->service, f->uuid, f->path, SERVICE_DIRECTORY, BOUND_UNPACKED,
                                   feed, &s, f->cancel, e);

    if (rc == 0)
        rc = codec_finish(gzip, e);
    tube_close(tube, rc < 0 ? e : NULL);
    return rc;
}

static int fetch_directory(const struct deps_fetch *f, const char *tmp, struct deps_place *p,
                           struct err *e)
{
    AUTO(tube) struct tube *tube = tube_new(TUBE_BYTES);
    AUTO_CLOSE int dir = -1;
    struct unpacking u = {.tube = tube, .cancel = f->cancel, .rc = -1};
    pthread_t thread;

    if (mkdirat(f->dirs->contents, tmp, 0755) < 0 ||
        (dir = openat(f->dirs->contents, tmp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0)
        return err_sys(e, "create the dependency");
    u.dir = dir;
    int rc = pthread_create(&thread, NULL, unpack, &u);

    if (rc)
        return err_sysno(e, rc, "start a thread");
    rc = receive_directory(f, tube, e);
    pthread_join(thread, NULL);
    /* The reader's complaint is the cause when both failed: the writer only noticed that nobody reads. */
    if (u.rc < 0 && (rc == 0 || e->kind == ERR_CANCELLED))
        *e = u.error;
    if (rc < 0 || u.rc < 0)
        return -1;
    p->is_dir = true;
    return tree_size(dir, f->cancel, &p->bytes, e);
}

int deps_fetch(const struct deps_fetch *f, struct deps_place *p, struct err *e)
{
    AUTO_FREE char *tmp = deps_place_temporary(p->name);
    struct service_info info = {0};
    struct err ignored = ERR_INIT;

    atomic_store(f->received, 0);
    if (service_contents_info(f->service, f->uuid, f->path, f->cancel, &info, e) < 0 ||
        tree_remove_at(f->dirs->contents, tmp, e) < 0)
        return -1;
    if (info.type == SERVICE_LINK)
        return err_set(e, ERR_USER, "Cannot download files of this type (link).");
    int rc =
        info.type == SERVICE_DIRECTORY ? fetch_directory(f, tmp, p, e) : fetch_file(f, tmp, p, e);

    if (rc < 0) {
        int left UNUSED = tree_remove_at(f->dirs->contents, tmp, &ignored);
    }
    return rc;
}
