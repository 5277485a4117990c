#pragma once
/*
 * overlay.h - the root of a bundle: its image's layers under a writable directory, as one detached mount.
 *
 * Layers are attached in a mount namespace of our own under short names ("0:1:2…"), so that the option text of even
 * 500 layers fits in the page that the kernel takes, and nothing shows in the host's mount table. With a user
 * namespace the layers are idmapped; the upper directory needs no map, as it is made for this run and thrown away:
 * it just belongs to the container's root.
 * Single-threaded programs only (unshare). Source: kernel overlayfs.rst; S26.
 */
#include <stdbool.h>

#include "base/cleanup.h"

struct err;
struct ctr_spec;
struct str_list;

/*
 * userns_fd   ids of the layers; -1: as on disk
 * Returns the detached mount. Directories "upper" and "work" are made in spec->overlay_dir, and removed again on
 * failure. *ret_unmappable is set when it failed because the file system cannot map ids.
 */
int overlay_open(const struct ctr_spec *s, int userns_fd, bool *ret_unmappable, struct err *e)
    MUST_CHECK;
/* The layers merged, read-only, as one detached mount whose source is called so: to look at. No device, setuid bit
 * or program of it works. lower: topmost first. */
int overlay_view(const struct str_list *lower, const char *source, struct err *e) MUST_CHECK;
