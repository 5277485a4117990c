#include "oci/layer.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <linux/limits.h>

#include "base/bounds.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/str.h"
#include "base/treesum.h"
#include "base/treewriter.h"
#include "oci/layer_inner.h"
#include "oci/lower.h"
#include "oci/tar.h"
#include "oci/whiteout.h"

static int on_entry(void *arg, const struct tar_entry *t, struct err *e);
static int on_data(void *arg, const void *data, size_t n, struct err *e);
static int on_hole(void *arg, uint64_t n, struct err *e);
static int on_end(void *arg, struct err *e);

static int on_between(void *arg, uint64_t offset, struct err *e);
static int on_spoil(void *arg, struct err *e);

static const struct tar_ops layer_ops = {on_entry, on_data, on_hole, on_end, on_between};

int oci_layer_new(int dirfd, const struct oci_layer_desc *desc, struct oci_layer **ret,
                  struct err *e)
{
    AUTO(oci_layer) struct oci_layer *l = mem_new(struct oci_layer);
    const struct treewriter_opts opts = {.keep_owner = true,
                                         .keep_special = true,
                                         .create_parents = true,
                                         .inside_links = true,
                                         .overlay = true,
                                         .write_early = true,
                                         .max_bytes = BOUND_UNPACKED,
                                         .max_entries = BOUND_TAR_ENTRIES,
                                         .spoil = on_spoil,
                                         .spoil_arg = l};

    l->desc = *desc;
    l->dir = dirfd;
    l->blob = digest_new(desc->digest);
    l->diff = digest_new(desc->diff_id);
    l->tar = tar_new(&layer_ops, l);
    if (treewriter_new(dirfd, &opts, &l->writer, e) < 0)
        return -1;
    *ret = take_ptr(&l);
    return 0;
}

void oci_layer_free(struct oci_layer *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < l->n_stand_ins; i++) {
        free(l->stand_ins[i].target);
        free(l->stand_ins[i].path);
    }
    free(l->stand_ins);
    oci_layer_checkpoint_free(l->checkpoint);
    treewriter_free(l->writer);
    tar_free(l->tar);
    oci_layer_decoder_free(l);
    digest_free(l->diff);
    digest_free(l->blob);
    free(l);
}

/* ---- entries ---- */

static int refuse(struct err *e, const char *path, const char *why)
{
    char shown[STR_SHOW_MAX];

    return err_set(e, ERR_USER, "%s: %s", str_show(shown, path), why);
}

/* Lexically inside the root, or an error (S22). Most names are plain already. */
static int normalize(const char *path, char **ret, struct err *e)
{
    *ret = path_normalize(path);
    if (!*ret)
        return refuse(e, path, "leads out of the image");
    if (strlen(*ret) >= BOUND_PATH) {
        free(*ret);
        *ret = NULL;
        return refuse(e, path, "path too long");
    }
    return 0;
}

/* Is a part of the path a whiteout's name? */
static bool has_marker(const char *path)
{
    return str_starts(path, ".wh.") || strstr(path, "/.wh.");
}

/* What other programs read as an order to overlayfs is not taken from an image (S26, S27). */
static bool xattr_is_allowed(const char *name, enum tar_type type)
{
    if (str_starts(name, "user."))
        return !str_starts(name, "user.overlay.") && (type == TAR_FILE || type == TAR_DIR);
    return str_eq(name, "security.capability") && type == TAR_FILE;
}

static int put_xattrs(struct oci_layer *l, enum tar_type type, struct err *e)
{
    for (size_t i = 0; i < l->n_xattrs; i++) {
        const struct tar_xattr *x = &l->xattrs[i];

        if (!xattr_is_allowed(x->name, type))
            continue;
        if (treewriter_xattr(l->writer, x->name, x->value, x->n, e) < 0) {
            /* A file system without user attributes is no reason not to run the image. */
            if (e->sys != ENOTSUP || !str_starts(x->name, "user."))
                return -1;
            err_clear(e);
        }
    }
    return 0;
}

static int add_stand_in(struct oci_layer *l, const char *path, const char *target, struct err *e)
{
    static const struct tree_meta meta = {.mode = 0600};
    struct stat st;
    const char *name;

    if (l->n_stand_ins == BOUND_TAR_LINKS)
        return err_set(e, ERR_LIMIT, "more than %d hard links to files of lower layers",
                       BOUND_TAR_LINKS);
    int dir = treewriter_parent(l->writer, target, &name, e);

    /* The next one would take it for a file of this layer. */
    if (dir < 0 || oci_layer_checkpoint_spoil(l, e) < 0)
        return -1;
    bool at_target =
        fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0; /* else a whiteout, which stays */
    const char *where = at_target ? target : path;

    if (treewriter_file(l->writer, where, &meta, 0, e) < 0 || treewriter_file_end(l->writer, e) < 0)
        return -1;
    dir = treewriter_parent(l->writer, where, &name, e);
    if (dir < 0)
        return -1;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return err_sys(e, "stat");
    l->stand_ins = mem_realloc(l->stand_ins, l->n_stand_ins + 1, sizeof(*l->stand_ins));
    l->stand_ins[l->n_stand_ins++] =
        (struct stand_in){mem_strdup(target), mem_strdup(path), at_target, st.st_ino};
    return at_target ? treewriter_hardlink(l->writer, path, target, e) : 0;
}

static int put_hardlink(struct oci_layer *l, const char *path, const char *raw_target,
                        struct err *e)
{
    AUTO_FREE char *target = NULL;

    if (normalize(raw_target, &target, e) < 0)
        return err_wrap(e, "hard link");
    if (has_marker(target))
        return refuse(e, path, "hard link to a whiteout");
    if (treewriter_hardlink(l->writer, path, target, e) == 0)
        return 0;
    if (e->sys != ENOENT || !*target)
        return -1;
    err_clear(e);
    return add_stand_in(l, path, target, e);
}

/* The stand-in of a file that the layer, later on, whites out: it goes on under its link's name only. */
static int whiteout_stand_in(struct oci_layer *l, const char *path, struct err *e)
{
    const char *slash = strrchr(path, '/');
    AUTO_FREE char *hidden = mem_printf("%.*s%s", (int)(slash ? slash - path + 1 : 0), path,
                                        (slash ? slash + 1 : path) + strlen(".wh."));

    for (size_t i = 0; i < l->n_stand_ins; i++) {
        if (!l->stand_ins[i].at_target || !str_eq(l->stand_ins[i].target, hidden))
            continue;
        l->stand_ins[i].at_target = false;
        return treewriter_remove(l->writer, hidden, e);
    }
    return 0;
}

static int put_whiteout(struct oci_layer *l, const char *path, enum whiteout_kind kind,
                        struct err *e)
{
    l->skip = true;
    if (kind == WHITEOUT_AUFS)
        return 0;
    if (kind == WHITEOUT_FILE && l->n_stand_ins && whiteout_stand_in(l, path, e) < 0)
        return -1;
    return oci_whiteout_apply(l->writer, path, kind, e);
}

static int put_entry(struct oci_layer *l, const char *path, const struct tar_entry *t,
                     struct err *e)
{
    struct tree_meta m = {.mode = t->mode, .uid = t->uid, .gid = t->gid, .mtime = t->mtime};

    switch (t->type) {
    case TAR_FILE: return treewriter_file(l->writer, path, &m, t->size, e);
    case TAR_DIR: return treewriter_dir(l->writer, path, &m, e);
    case TAR_SYMLINK: return treewriter_symlink(l->writer, path, t->link, &m, e);
    case TAR_HARDLINK: return put_hardlink(l, path, t->link, e);
    case TAR_FIFO: m.mode |= S_IFIFO; break;
    case TAR_CHAR: m.mode |= S_IFCHR; break;
    case TAR_BLOCK: m.mode |= S_IFBLK; break;
    }
    return treewriter_node(l->writer, path, &m, makedev(t->major, t->minor), e);
}

static int on_entry(void *arg, const struct tar_entry *t, struct err *e)
{
    struct oci_layer *l = arg;
    AUTO_FREE char *path = NULL;
    enum whiteout_kind kind;

    l->skip = false;
    l->xattrs = t->xattrs;
    l->n_xattrs = t->n_xattrs;
    if (normalize(t->path, &path, e) < 0 || oci_whiteout_kind(path, &kind, e) < 0)
        return -1;
    if (str_starts(path, ".wh..wh.") && kind != WHITEOUT_OPAQUE)
        kind = WHITEOUT_AUFS; /* its directories, too */
    if (kind != WHITEOUT_NONE)
        return put_whiteout(l, path, kind, e);
    if (has_marker(path))
        return refuse(e, path, "below a whiteout");
    if (t->type == TAR_CHAR && !t->major && !t->minor) {
        l->skip = true; /* would hide a file of the layers below without a whiteout (S26) */
        return 0;
    }
    if (put_entry(l, path, t, e) < 0)
        return err_wrap(e, "unpack");
    return t->type == TAR_FILE || t->type == TAR_HARDLINK ? 0 : put_xattrs(l, t->type, e);
}

static int on_data(void *arg, const void *data, size_t n, struct err *e)
{
    struct oci_layer *l = arg;

    return l->skip ? 0 : treewriter_data(l->writer, data, n, e);
}

static int on_hole(void *arg, uint64_t n, struct err *e)
{
    struct oci_layer *l = arg;

    return l->skip ? 0 : treewriter_hole(l->writer, n, e);
}

static int on_end(void *arg, struct err *e)
{
    struct oci_layer *l = arg;

    if (l->skip)
        return 0;
    return put_xattrs(l, TAR_FILE, e) < 0 || treewriter_file_end(l->writer, e) < 0 ? -1 : 0;
}

static int on_between(void *arg, uint64_t offset, struct err *e)
{
    return oci_layer_checkpoint_between(arg, offset, e);
}

static int on_spoil(void *arg, struct err *e)
{
    return oci_layer_checkpoint_spoil(arg, e);
}

/* ---- stream ---- */

int oci_layer_plain(void *arg, const void *data, size_t n, struct err *e)
{
    struct oci_layer *l = arg;

    digest_update(l->diff, data, n);
    return l->sink ? l->sink(l->sink_arg, data, n, e) : oci_layer_write(l, data, n, e);
}

void oci_layer_write_by(struct oci_layer *l,
                        int (*sink)(void *arg, const void *data, size_t n, struct err *e),
                        void *arg)
{
    l->sink = sink;
    l->sink_arg = arg;
}

int oci_layer_write(struct oci_layer *l, const void *data, size_t n, struct err *e)
{
    const char *p = data;

    /* After a restart the decoder begins a little earlier than the tar. */
    if (l->plain < l->skip_to) {
        size_t part = n < l->skip_to - l->plain ? n : (size_t)(l->skip_to - l->plain);

        l->plain += part;
        p += part;
        n -= part;
    }
    l->plain += n;
    return n ? tar_feed(l->tar, p, n, e) : 0;
}

void oci_layer_help_by(struct oci_layer *l, struct inflate_crew *crew)
{
    l->crew = crew;
}

int oci_layer_dir(const struct oci_layer *l)
{
    return treewriter_root(l->writer);
}

void oci_layer_park(struct oci_layer *l)
{
    treewriter_park(l->writer);
}

static int start_decoder(struct oci_layer *l, struct err *e)
{
    oci_layer_decoder_choose(l);
    return oci_layer_decoder_feed(l, l->head, l->head_n, e);
}

int oci_layer_feed(struct oci_layer *l, const void *data, size_t n, struct err *e)
{
    const unsigned char *p = data;

    if (n > l->desc.size - l->received)
        return err_set(e, ERR_REMOTE, "more bytes than the %llu announced",
                       (unsigned long long)l->desc.size);
    digest_update(l->blob, p, n);
    l->received += n;
    if (!oci_layer_decoder_is_there(l)) {
        while (n && l->head_n < sizeof(l->head))
            l->head[l->head_n++] = *p++, n--;
        if (l->head_n < sizeof(l->head))
            return 0;
        if (start_decoder(l, e) < 0)
            return -1;
    }
    if (oci_layer_decoder_feed(l, p, n, e) < 0)
        return -1;
    return oci_layer_checkpoint_decoded(l, e);
}

static int check_digest(const struct digest *d, const char *want, const char *what, struct err *e)
{
    char got[DIGEST_TEXT_MAX];

    digest_text(d, got);
    return str_eq(got, want) ? 0 : err_set(e, ERR_USER, "%s is %s, not %s", what, got, want);
}

static int note_implied(void *arg, const char *path UNUSED, struct err *e UNUSED)
{
    struct oci_layer *l = arg;

    l->depends = true;
    return 0;
}

int oci_layer_decoded(struct oci_layer *l, struct err *e)
{
    /* What is wrong with the bytes themselves comes first, as when they are decoded at once. */
    if (oci_layer_decoder_settle(l, e) < 0)
        return -1;
    if (l->received != l->desc.size)
        return err_set(e, ERR_REMOTE, "%llu bytes instead of %llu", (unsigned long long)l->received,
                       (unsigned long long)l->desc.size);
    if (check_digest(l->blob, l->desc.digest, "digest of what came", e) < 0)
        return -1;
    if ((!oci_layer_decoder_is_there(l) && start_decoder(l, e) < 0) ||
        oci_layer_decoder_finish(l, e) < 0)
        return -1;
    l->decoded = true;
    return check_digest(l->diff, l->desc.diff_id, "digest of the uncompressed layer", e);
}

int oci_layer_finish(struct oci_layer *l, struct err *e)
{
    if (!l->decoded && oci_layer_decoded(l, e) < 0)
        return -1;
    oci_layer_checkpoint_free(
        take_ptr(&l->checkpoint)); /* its file is the caller's, who may close it now */
    if (tar_finish(l->tar, e) < 0 || treewriter_finish(l->writer, e) < 0)
        return -1;
    l->depends = l->n_stand_ins > 0;
    return treewriter_implied(l->writer, note_implied, l, e);
}

uint64_t oci_layer_received(const struct oci_layer *l)
{
    return l->received;
}

uint64_t oci_layer_bytes(const struct oci_layer *l)
{
    return treewriter_bytes(l->writer);
}

int oci_layer_sum(struct oci_layer *l, struct treesum *ret, struct err *e)
{
    if (treewriter_sum(l->writer, ret) && !l->depends)
        return 0;
    return treesum_of(l->dir, NULL, ret, e);
}

bool oci_layer_depends(const struct oci_layer *l)
{
    return l->depends;
}

/* ---- from the layers below ---- */

/* Attributes the store lets through were judged when the lower layer was unpacked; overlay's own stay
 * behind. */
static int copy_xattrs(int from, int to, struct err *e)
{
    AUTO_FREE char *names = mem_alloc(XATTR_LIST_MAX), *value = mem_alloc(XATTR_SIZE_MAX);
    ssize_t n = flistxattr(from, names, XATTR_LIST_MAX);

    for (char *p = names; n > 0 && p < names + n; p += strlen(p) + 1) {
        if (!str_starts(p, "user.") && !str_eq(p, "security.capability"))
            continue;
        ssize_t len = fgetxattr(from, p, value, XATTR_SIZE_MAX);

        if (len < 0 || fsetxattr(to, p, value, (size_t)len, 0) < 0)
            return err_sys(e, "copy attribute %s", p);
    }
    return n < 0 && errno != ENOTSUP ? err_sys(e, "list attributes") : 0;
}

static int copy_attributes(int from, int to, const struct stat *st, struct err *e)
{
    const struct timespec times[2] = {st->st_mtim, st->st_mtim};

    if (fchown(to, st->st_uid, st->st_gid) < 0 || fchmod(to, st->st_mode & 07777) < 0)
        return err_sys(e, "copy owner and mode");
    if (copy_xattrs(from, to, e) < 0)
        return -1;
    return futimens(to, times) < 0 ? err_sys(e, "copy time") : 0;
}

static int copy_bytes(int from, int to, uint64_t n, struct err *e)
{
    while (n) {
        ssize_t r = copy_file_range(from, NULL, to, NULL, n, 0);

        if (r < 0)
            return err_sys(e, "copy");
        if (r == 0)
            return err_set(e, ERR_HOST, "copy: shorter than it was");
        n -= (uint64_t)r;
    }
    return 0;
}

static int open_stand_in(struct oci_layer *l, const struct stand_in *s, struct err *e)
{
    const char *candidates[] = {s->at_target ? s->target : s->path, s->path};
    struct stat st;

    for (size_t i = 0; i < ARRAY_SIZE(candidates); i++) {
        const char *name;
        int dir = treewriter_parent(l->writer, candidates[i], &name, e);

        if (dir < 0)
            return -1;
        AUTO_CLOSE int fd = openat(dir, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

        if (fd >= 0 && fstat(fd, &st) == 0 && st.st_ino == s->ino && S_ISREG(st.st_mode))
            return take_fd(&fd);
    }
    return refuse(e, s->path, "hard link to a lower layer's file, replaced by its own layer");
}

static int fill(struct oci_layer *l, const struct stand_in *s, const struct oci_lowers *below,
                struct err *e)
{
    AUTO_CLOSE int found = -1;
    AUTO_CLOSE int to = open_stand_in(l, s, e);
    struct stat st;

    if (to < 0)
        return -1;
    int rc = oci_lower_find(below, s->target, &found, &st, e);

    if (rc < 0)
        return -1;
    if (rc == 0)
        return refuse(e, s->path, "hard link to a file that no layer has");
    if (!S_ISREG(st.st_mode))
        return refuse(e, s->path,
                      "hard link to something of a lower layer that is no regular file");
    AUTO_CLOSE int from = path_reopen(found, O_RDONLY, e);

    if (from < 0 || copy_bytes(from, to, (uint64_t)st.st_size, e) < 0)
        return -1;
    return copy_attributes(from, to, &st, e);
}

struct completion {
    struct oci_layer *l;
    const struct oci_lowers *below;
};

static int complete_dir(void *arg, const char *path, struct err *e)
{
    struct completion *c = arg;
    AUTO_CLOSE int found = -1;
    struct stat st;
    struct err gone = ERR_INIT;
    AUTO_CLOSE int to = path_open_in_root(c->l->dir, path, O_RDONLY | O_DIRECTORY, 0, &gone);

    if (to < 0 || oci_whiteout_is_opaque(to))
        return 0; /* replaced since, or new here: nothing of the layers below shows through */
    int rc = oci_lower_find(c->below, path, &found, &st, e);

    if (rc <= 0 || !S_ISDIR(st.st_mode))
        return rc < 0 ? -1 : 0;
    AUTO_CLOSE int from = path_reopen(found, O_RDONLY, e);

    return from < 0 ? -1 : copy_attributes(from, to, &st, e);
}

int oci_layer_complete(struct oci_layer *l, const struct oci_lowers *below, struct err *e)
{
    struct completion c = {l, below};

    for (size_t i = 0; i < l->n_stand_ins; i++)
        if (fill(l, &l->stand_ins[i], below, e) < 0)
            return -1;
    if (l->n_stand_ins && treewriter_finish(l->writer, e) < 0)
        return -1;
    return treewriter_implied(l->writer, complete_dir, &c, e);
}
