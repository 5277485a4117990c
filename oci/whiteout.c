#include "oci/whiteout.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/str.h"
#include "base/treewriter.h"

#define PREFIX       ".wh."
#define AUFS_PREFIX  ".wh..wh."
#define OPAQUE_NAME  ".wh..wh..opq"
#define OPAQUE_XATTR "trusted.overlay.opaque"

static const char *last_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

int oci_whiteout_kind(const char *path, enum whiteout_kind *ret, struct err *e)
{
    const char *name = last_of(path);
    char shown[STR_SHOW_MAX];

    *ret = WHITEOUT_NONE;
    if (!str_starts(name, PREFIX))
        return 0;
    if (str_eq(name, OPAQUE_NAME)) {
        *ret = WHITEOUT_OPAQUE;
    } else if (str_starts(name, AUFS_PREFIX)) {
        *ret = WHITEOUT_AUFS;
    } else if (path_is_component(name + strlen(PREFIX))) {
        *ret = WHITEOUT_FILE;
    } else {
        return err_set(e, ERR_USER, "%s: a whiteout that names nothing", str_show(shown, path));
    }
    return 0;
}

static int set_opaque(int parent, const char *name)
{
    AUTO_CLOSE int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? -1 : fsetxattr(fd, OPAQUE_XATTR, "y", 1, 0);
}

int oci_whiteout_apply(struct treewriter *w, const char *path, enum whiteout_kind kind,
                       struct err *e)
{
    char shown[STR_SHOW_MAX];
    const char *name;
    struct stat st;
    int dir = treewriter_parent(w, path, &name, e);

    if (dir < 0)
        return -1;
    if (kind == WHITEOUT_OPAQUE) {
        if (set_opaque(dir, ".") < 0)
            goto failed;
        return 0;
    }
    name += strlen(PREFIX);
    if (mknodat(dir, name, S_IFCHR, makedev(0, 0)) == 0) {
        treewriter_count_node(w, name, S_IFCHR, makedev(0, 0));
        return 0;
    }
    /* The layer itself has something of that name, which stays: a file hides what is below by being
     * there, a directory only when it is opaque. */
    if (errno != EEXIST || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        (S_ISDIR(st.st_mode) && set_opaque(dir, name) < 0))
        goto failed;
    return 0;
failed:
    err_sys(e, "make whiteout");
    return err_wrap(e, "%s", str_show(shown, path));
}

bool oci_whiteout_is(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

bool oci_whiteout_is_opaque(int dirfd)
{
    char value;

    return fgetxattr(dirfd, OPAQUE_XATTR, &value, 1) == 1 && value == 'y';
}
