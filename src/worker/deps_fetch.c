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
    uint64_t bytes, most; /* most: more than that is not what was asked for */
    bool wrong;
};

static int write_file(void *arg, const void *data, size_t n, struct err *e)
{
    struct file_sink *s = arg;

    s->wrong = n > s->most - s->bytes;
    if (s->wrong)
        return err_set(e, ERR_REMOTE, "the rest of the file was asked for, and more was sent");
    if (fd_write_all(s->fd, data, n) < 0)
        return err_sys(e, "write the dependency");
    s->bytes += n;
    count(s->f, n);
    return 0;
}

/* The temporary, with what is there of it. */
static int open_file(const struct deps_fetch *f, const char *tmp, uint64_t have, struct err *e)
{
    int flags = O_WRONLY | O_NOFOLLOW | O_CLOEXEC | (have ? O_APPEND : O_CREAT | O_EXCL);
    int fd = openat(f->dirs->contents, tmp, flags, 0644);

    return fd < 0 ? err_sys(e, "create the dependency") : fd;
}

static int fetch_file(const struct deps_fetch *f, const char *tmp, struct deps_place *p,
                      struct err *e)
{
    uint64_t have = f->partial->bytes, size = f->partial->size;
    AUTO_CLOSE int fd = open_file(f, tmp, have, e);
    struct file_sink s = {f, fd, have, have ? size : UINT64_MAX, false};
    const struct service_blob b = {.uuid = f->uuid,
                                   .path = f->path,
                                   .max_bytes = BOUND_UNPACKED,
                                   .first = have,
                                   .last = have ? size - 1 : 0,
                                   .sink = write_file,
                                   .arg = &s};

    f->partial->bytes = 0;
    if (fd < 0)
        return -1;
    int rc = service_contents_blob(f->service, &b, f->cancel, e);

    if (rc < 0 && service_is_transient(e) && e->sys != EBADMSG && !s.wrong && s.bytes < size)
        f->partial->bytes = s.bytes; /* cut off, and right as far as it goes */
    else if (rc == 0 && have && s.bytes != size)
        rc = err_set(e, ERR_REMOTE, "%llu bytes came of a file of %llu",
                     (unsigned long long)s.bytes, (unsigned long long)size);
    p->bytes = s.bytes;
    return rc;
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
    struct tube *tube;
    struct codec *gzip;
    bool unread; /* it was the reader that wanted no more */
};

static int unpacked(void *arg, const void *data, size_t n, struct err *e)
{
    struct directory_sink *s = arg;
    int rc = tube_write(s->tube, data, n, e);

    s->unread = rc < 0;
    return rc;
}

/* Here gzip is content; damaged on the way or at the server, it may be better the next time. */
static int blame(const struct directory_sink *s, int rc, struct err *e)
{
    if (rc < 0 && !s->unread && e->kind != ERR_LIMIT)
        e->kind = ERR_REMOTE;
    return rc;
}

static int feed(void *arg, const void *data, size_t n, struct err *e)
{
    struct directory_sink *s = arg;

    count(s->f, n);
    return blame(s, codec_feed(s->gzip, data, n, e), e);
}

static int receive_directory(const struct deps_fetch *f, struct tube *tube, struct err *e)
{
    struct directory_sink s = {.f = f, .tube = tube};
    AUTO(codec) struct codec *gzip = codec_decoder(CODEC_GZIP, BOUND_UNPACKED, unpacked, &s);
    const struct service_blob b = {
        .uuid = f->uuid, .path = f->path, .max_bytes = BOUND_UNPACKED, .sink = feed, .arg = &s};

    s.gzip = gzip;
    int rc = service_contents_blob(f->service, &b, f->cancel, e);

    if (rc == 0)
        rc = blame(&s, codec_finish(gzip, e), e);
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

/* Is the rest of what is there worth asking for? */
static bool goes_on(const struct deps_fetch *f, const struct service_info *info, const char *tmp)
{
    const struct deps_partial *p = f->partial;
    struct stat st;

    return p->bytes && info->type == SERVICE_FILE && info->size >= 0 &&
           (uint64_t)info->size == p->size &&
           fstatat(f->dirs->contents, tmp, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
           (uint64_t)st.st_size == p->bytes;
}

int deps_fetch(const struct deps_fetch *f, struct deps_place *p, struct err *e)
{
    AUTO_FREE char *tmp = deps_place_temporary(p->name);
    struct service_info info = {0};

    if (service_contents_info(f->service, f->uuid, f->path, f->cancel, &info, e) < 0)
        return -1;
    if (!goes_on(f, &info, tmp)) {
        *f->partial = (struct deps_partial){.size = info.size > 0 ? (uint64_t)info.size : 0};
        if (tree_remove_at(f->dirs->contents, tmp, e) < 0)
            return -1;
    }
    atomic_store(f->received, f->partial->bytes);
    if (info.type == SERVICE_LINK)
        return err_set(e, ERR_USER, "Cannot download files of this type (link).");
    int rc =
        info.type == SERVICE_DIRECTORY ? fetch_directory(f, tmp, p, e) : fetch_file(f, tmp, p, e);

    if (rc < 0 && !f->partial->bytes)
        deps_fetch_discard(f->dirs, p);
    return rc;
}

void deps_fetch_discard(const struct deps_dirs *dirs, const struct deps_place *p)
{
    AUTO_FREE char *tmp = deps_place_temporary(p->name);
    struct err ignored = ERR_INIT;
    int rc UNUSED = tree_remove_at(dirs->contents, tmp, &ignored);
}
