/*
 * pin, unpin, mount, umount, doctor --images: what is done with images that are there.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <linux/mount.h>

#include "base/digest.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/units.h"
#include "cmd/cwrun.h"
#include "oci/image.h"
#include "oci/store.h"
#include "runtime/overlay.h"

struct keep_options {
    struct image_options i; /* first member: the table below fills a struct image_options */
};
static const struct opt keep_table[] = {IMAGE_OPTION_ROWS(struct keep_options, i), {0}};

int cwrun_pin(int argc, char **argv)
{
    AUTO(str_list) struct str_list words = {0};
    AUTO(oci_store) struct oci_store *store = NULL;
    struct keep_options o = {0};
    struct err e = ERR_INIT;
    bool pin = str_eq(argv[0], "pin");
    int rc = cwrun_parse(keep_table, pin ? "cwrun pin [flags] IMAGE..." : "cwrun unpin IMAGE...",
                         "A pinned image is never removed to make room.", argc, argv, false, &o,
                         &words, NULL);

    if (rc == 0 && oci_store_open(o.i.store, &store, &e) < 0)
        rc = cwrun_fail(&e);
    for (size_t i = 0; rc == 0 && i < words.n; i++)
        if (oci_store_pin(store, words.items[i], pin, &e) < 0)
            rc = cwrun_fail(&e);
    opt_free(keep_table, &o);
    return rc < 0 ? EXIT_USAGE : rc == 1 ? 0 : rc;
}

static int show_at(const struct image *image, const char *where, struct err *e)
{
    AUTO_FREE char *source = mem_printf(OCI_MOUNT_SOURCE "%s", digest_hex(image->id));
    /* Before the view is made: it is made in a mount namespace of its own. */
    AUTO_CLOSE int target = open(where, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (target < 0)
        return err_sys(e, "%s", where);
    AUTO_CLOSE int view = overlay_view(&image->lowerdirs, source, e);

    if (view < 0)
        return -1;
    if (syscall(SYS_move_mount, view, "", target, "",
                MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
        return err_sys(e, "show the image at %s", where);
    return 0;
}

int cwrun_mount(int argc, char **argv)
{
    AUTO(str_list) struct str_list words = {0};
    AUTO(oci_store) struct oci_store *store = NULL;
    AUTO(image) struct image *image = NULL;
    struct keep_options o = {0};
    struct err e = ERR_INIT;
    int rc = cwrun_parse(
        keep_table, "cwrun mount [flags] IMAGE DIRECTORY",
        "Show an image's merged tree, read-only. The image is kept as long as it is mounted.", argc,
        argv, false, &o, &words, NULL);

    if (rc == 0 && words.n != 2) {
        fputs("cwrun mount: error: give an image and a directory\n", stderr);
        rc = -1;
    }
    if (rc == 0 && (cwrun_get_image(&o.i, words.items[0], PULL_NEVER, &store, &image, &e) < 0 ||
                    show_at(image, words.items[1], &e) < 0))
        rc = cwrun_fail(&e);
    opt_free(keep_table, &o);
    return rc < 0 ? EXIT_USAGE : rc == 1 ? 0 : rc;
}

/* Is what is mounted last at that path one of our views? */
static int check_view(const char *path, struct err *e)
{
    AUTO_FREE char *real = realpath(path, NULL);
    AUTO_CLOSE int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    AUTO(str) struct str text = STR_INIT(16 << 20);
    AUTO(str_list) struct str_list lines = {0};
    const char *last = NULL;

    if (!real)
        return err_sys(e, "%s", path);
    if (fd < 0 || fd_read_all(fd, &text, e) < 0)
        return fd < 0 ? err_sys(e, "read the mount table") : -1;
    AUTO_FREE char *here = mem_printf(" %s ", real);

    str_list_split(&lines, str_text(&text), '\n');
    for (size_t i = 0; i < lines.n; i++)
        if (strstr(lines.items[i], here))
            last = lines.items[i];
    return last && strstr(last, " overlay " OCI_MOUNT_SOURCE)
               ? 0
               : err_set(e, ERR_USER, "%s: no image is mounted there", path);
}

int cwrun_umount(int argc, char **argv)
{
    static const struct opt table[] = {{0}};
    AUTO(str_list) struct str_list words = {0};
    struct err e = ERR_INIT;
    char unused[1];
    int rc = cwrun_parse(table, "cwrun umount DIRECTORY...", "Take views of images away.", argc,
                         argv, false, unused, &words, NULL);

    for (size_t i = 0; rc == 0 && i < words.n; i++) {
        const char *where = words.items[i];

        if (check_view(where, &e) < 0 ||
            (umount2(where, UMOUNT_NOFOLLOW) < 0 && err_sys(&e, "unmount %s", where) < 0))
            rc = cwrun_fail(&e);
    }
    return rc < 0 ? EXIT_USAGE : rc == 1 ? 0 : rc;
}

static void print_finding(void *arg UNUSED, const char *text)
{
    printf("DAMAGED  %s\n", text);
}

int cwrun_check_images(const char *store, bool repair)
{
    const struct oci_check check = {.repair = repair, .found = print_finding};
    struct oci_check_result r;
    struct err e = ERR_INIT;

    if (oci_store_check(store, &check, &r, &e) < 0)
        return cwrun_fail(&e);
    printf("%-8s images: %zu images, %zu layers", r.left ? "DAMAGED" : "ok", r.images, r.layers);
    if (r.unknown)
        printf(" (%zu cannot be checked: unpacked by an older version)", r.unknown);
    if (r.damaged)
        printf("; found %zu, left %zu", r.damaged, r.left);
    puts(r.left && !repair ? "; --repair removes what is damaged" : "");
    return r.left ? 1 : 0;
}
