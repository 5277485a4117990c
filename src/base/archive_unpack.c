/*
 * libarchive reads, treewriter writes: of the library only the tar and zip readers are enabled, fed from our own callback, so
 * that no entry can make it open a file or start a program (S21), and nothing is written by it.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/archive.h"
#include "base/bounds.h"
#include "base/err.h"
#include "base/jobs.h"
#include "base/late_archive.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/treewriter.h"

enum { INPUT = 64 * 1024 };

struct unpacker {
    struct archive *a;
    struct treewriter *w;
    archive_source *source;
    void *arg;
    struct cancel *cancel;
    struct err source_error; /* what the source said, behind libarchive's back */
    char *buf;
};

static ssize_t feed(struct archive *a, void *arg, const void **ret)
{
    struct unpacker *u = arg;
    long n = -1;

    if (cancel_fired(u->cancel))
        err_set(&u->source_error, ERR_CANCELLED, "cancelled");
    else
        n = u->source(u->arg, u->buf, INPUT, &u->source_error);
    if (n < 0)
        archive_set_error(a, EIO, "the source failed");
    *ret = u->buf;
    return n;
}

/* libarchive's own text, or what our source said. */
static int failed(struct unpacker *u, struct err *e)
{
    char shown[STR_SHOW_MAX];
    const char *text = archive_error_string(u->a);

    if (u->source_error.kind != ERR_NONE) {
        *e = u->source_error;
        return -1;
    }
    return err_set(e, ERR_USER, "archive: %s", str_show(shown, text ? text : "damaged"));
}

/* Bytes as they stand in the archive; UTF-8 where only that is kept. */
static const char *either(const char *bytes, const char *utf8)
{
    return bytes ? bytes : utf8;
}

/* Inside, normalised; NULL with e when it climbs out. */
static char *inside(const char *path, struct err *e)
{
    char shown[STR_SHOW_MAX];
    char *plain = path ? path_normalize(path) : NULL;

    if (!plain)
        err_set(e, ERR_USER, "archive: %s leads out of the directory",
                path ? str_show(shown, path) : "an unnamed entry");
    return plain;
}

static struct tree_meta meta_of(struct archive_entry *entry)
{
    return (struct tree_meta){
        .mode = archive_entry_perm(entry) & 01777,
        .uid = (uid_t)archive_entry_uid(entry),
        .gid = (gid_t)archive_entry_gid(entry),
        .mtime = {archive_entry_mtime(entry), archive_entry_mtime_nsec(entry)},
    };
}

static int unpack_data(struct unpacker *u, uint64_t size, struct err *e)
{
    uint64_t at = 0;

    for (;;) {
        const void *data;
        size_t n;
        la_int64_t offset;
        int rc = archive_read_data_block(u->a, &data, &n, &offset);

        if (rc == ARCHIVE_EOF) /* a hole at the end has no block */
            return at < size ? treewriter_hole(u->w, size - at, e) : 0;
        if (rc != ARCHIVE_OK)
            return failed(u, e);
        if (offset < 0 || (uint64_t)offset < at)
            return err_set(e, ERR_USER, "archive: sparse blocks run backwards");
        if ((uint64_t)offset > at && treewriter_hole(u->w, (uint64_t)offset - at, e) < 0)
            return -1;
        if (n && treewriter_data(u->w, data, n, e) < 0)
            return -1;
        at = (uint64_t)offset + n;
    }
}

static int unpack_file(struct unpacker *u, struct archive_entry *entry, const char *path,
                       struct err *e)
{
    struct tree_meta m = meta_of(entry);
    int64_t size = archive_entry_size(entry);

    if (size < 0)
        return err_set(e, ERR_USER, "archive: negative size");
    if (treewriter_file(u->w, path, &m, (uint64_t)size, e) < 0 ||
        unpack_data(u, (uint64_t)size, e) < 0)
        return -1;
    return treewriter_file_end(u->w, e);
}

static int unpack_entry(struct unpacker *u, struct archive_entry *entry, struct err *e)
{
    AUTO_FREE char *path =
        inside(either(archive_entry_pathname(entry), archive_entry_pathname_utf8(entry)), e);
    const char *link = either(archive_entry_hardlink(entry), archive_entry_hardlink_utf8(entry));
    struct tree_meta m = meta_of(entry);

    if (!path)
        return -1;
    if (link) {
        AUTO_FREE char *target = inside(link, e);

        return target ? treewriter_hardlink(u->w, path, target, e) : -1;
    }
    switch (archive_entry_filetype(entry)) {
    case AE_IFDIR: return treewriter_dir(u->w, path, &m, e);
    case AE_IFREG: return unpack_file(u, entry, path, e);
    case AE_IFLNK:
        link = either(archive_entry_symlink(entry), archive_entry_symlink_utf8(entry));
        return link ? treewriter_symlink(u->w, path, link, &m, e)
                    : err_set(e, ERR_USER, "archive: a link without a target");
    default: return 0; /* devices, FIFOs, sockets: dependencies keep none (S28, B142) */
    }
}

static int unpack_all(struct unpacker *u, struct err *e)
{
    struct archive_entry *entry;
    char shown[STR_SHOW_MAX];

    for (;;) {
        int rc = archive_read_next_header(u->a, &entry);

        if (rc == ARCHIVE_EOF)
            return treewriter_finish(u->w, e);
        if (rc == ARCHIVE_RETRY)
            continue;
        if (rc <
            ARCHIVE_WARN) /* a warning is about names in our locale: the bytes are there all the same */
            return failed(u, e);
        if (unpack_entry(u, entry, e) < 0) {
            const char *name =
                either(archive_entry_pathname(entry), archive_entry_pathname_utf8(entry));

            return e->kind == ERR_CANCELLED ? -1
                                            : err_wrap(e, "%s", name ? str_show(shown, name) : "?");
        }
        if (cancel_fired(u->cancel))
            return err_set(e, ERR_CANCELLED, "cancelled");
    }
}

static int make_writer(int dirfd, const struct archive_limits *lim, struct treewriter **ret,
                       struct err *e)
{
    const struct treewriter_opts opts = {
        .keep_owner = lim->keep_owner,
        .create_parents = true,
        .max_bytes = lim->max_bytes,
        .max_entries = lim->max_entries ? lim->max_entries : BOUND_TAR_ENTRIES,
    };

    return treewriter_new(dirfd, &opts, ret, e);
}

/* To the end of the stream, so that what is behind the archive (gzip's trailer) has been judged too (S30). */
static int drain(struct unpacker *u, struct err *e)
{
    long n;

    while ((n = u->source(u->arg, u->buf, INPUT, e)) > 0)
        if (cancel_fired(u->cancel))
            return err_set(e, ERR_CANCELLED, "cancelled");
    return n < 0 ? -1 : 0;
}

int archive_unpack_tar(int dirfd, archive_source *source, void *arg,
                       const struct archive_limits *lim, struct cancel *cancel, struct err *e)
{
    AUTO(treewriter) struct treewriter *w = NULL;
    AUTO_FREE char *buf = mem_alloc(INPUT);
    struct unpacker u = {
        .a = archive_read_new(), .source = source, .arg = arg, .cancel = cancel, .buf = buf};
    int rc = make_writer(dirfd, lim, &w, e);

    BUG_ON(!u.a);
    u.w = w;
    if (rc == 0 && (archive_read_support_format_tar(u.a) != ARCHIVE_OK ||
                    archive_read_open(u.a, &u, NULL, feed, NULL) != ARCHIVE_OK))
        rc = failed(&u, e);
    if (rc == 0)
        rc = unpack_all(&u, e);
    archive_read_free(u.a);
    return rc == 0 ? drain(&u, e) : -1;
}

int archive_unpack_zip(int dirfd, int zipfd, const struct archive_limits *lim,
                       struct cancel *cancel, struct err *e)
{
    AUTO(treewriter) struct treewriter *w = NULL;
    struct unpacker u = {.a = archive_read_new(), .cancel = cancel};
    int rc = make_writer(dirfd, lim, &w, e);

    BUG_ON(!u.a);
    u.w = w;
    if (rc == 0 && (archive_read_support_format_zip_seekable(u.a) != ARCHIVE_OK ||
                    archive_read_open_fd(u.a, zipfd, INPUT) != ARCHIVE_OK))
        rc = failed(&u, e);
    if (rc == 0)
        rc = unpack_all(&u, e);
    archive_read_free(u.a);
    return rc;
}
