/* needs: root */
/* rows: S12 S20 S22 S23 S24 S25 S26 S27 S28 S30 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/tree.h"
#include "oci/layer.h"
#include "oci/lower.h"
#include "oci/whiteout.h"
#include "tar_maker.h"
#include "test.h"

/*
 * Each layer is unpacked into scratch/layer. Beside it stands scratch/canary, a file and a directory, which the
 * hostile ones aim at; after each case scratch must hold just these.
 */
static char scratch[64];
static int top = -1;

static int set_up(void **state UNUSED)
{
    snprintf(scratch, sizeof(scratch), "/tmp/cw-layer-XXXXXX");
    if (!mkdtemp(scratch))
        return -1;
    top = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTO_CLOSE int canary = openat(top, "canary", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    if (canary < 0 || write(canary, "safe", 4) != 4 || mkdirat(top, "canary.d", 0700) < 0 ||
        mkdirat(top, "layer", 0755) < 0)
        return -1;
    return 0;
}

static int tear_down(void **state UNUSED)
{
    struct err e = ERR_INIT;

    close(top);
    return tree_remove_at(AT_FDCWD, scratch, &e);
}

static int count(void *arg, int parent UNUSED, const char *name UNUSED, const char *path UNUSED,
                 const struct stat *st UNUSED, struct err *e UNUSED)
{
    ++*(int *)arg;
    return 1;
}

static void check_canary(void)
{
    struct err e = ERR_INIT;
    int entries = 0;
    char text[8] = "";
    struct stat st;
    AUTO_CLOSE int canary = openat(top, "canary", O_RDONLY | O_CLOEXEC);

    assert_ok(tree_walk(top, count, &entries, NULL, &e), &e);
    assert_int_equal(entries, 3); /* canary, canary.d, layer */
    assert_int_equal(read(canary, text, sizeof(text)), 4);
    assert_string_equal(text, "safe");
    assert_int_equal(fstat(canary, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_nlink, 1);
    AUTO_CLOSE int dir = openat(top, "canary.d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    entries = 0;
    assert_ok(tree_walk(dir, count, &entries, NULL, &e), &e);
    assert_int_equal(entries, 0);
}

/* Unpack the tar into a fresh directory; *ret the layer, *dir its directory. Chunks of `chunk` bytes. */
static int unpack(const struct str *tar, size_t chunk, int *dir, struct oci_layer **ret,
                  struct err *e)
{
    char digest[DIGEST_TEXT_MAX];
    AUTO(oci_layer) struct oci_layer *l = NULL;

    digest_of(str_text(tar), tar->len, digest);
    struct oci_layer_desc desc = {digest, digest, tar->len};

    assert_ok(tree_remove_at(top, "layer", e), e);
    assert_int_equal(mkdirat(top, "layer", 0755), 0);
    *dir = openat(top, "layer", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_ok(oci_layer_new(*dir, &desc, &l, e), e);
    for (size_t at = 0; at < tar->len; at += chunk)
        if (oci_layer_feed(l, tar->buf + at, tar->len - at < chunk ? tar->len - at : chunk, e) < 0)
            return -1;
    if (oci_layer_finish(l, e) < 0)
        return -1;
    *ret = take_ptr(&l);
    return 0;
}

#define FILE_(p, d)                                         \
    {                                                       \
        .path = (p), .type = '0', .data = (d), .mode = 0644 \
    }
#define DIR_(p)                                \
    {                                          \
        .path = (p), .type = '5', .mode = 0755 \
    }
#define SYM_(p, l)                                          \
    {                                                       \
        .path = (p), .type = '2', .link = (l), .mode = 0777 \
    }
#define LINK_(p, l)                                         \
    {                                                       \
        .path = (p), .type = '1', .link = (l), .mode = 0644 \
    }
#define WH_(p)                   \
    {                            \
        .path = (p), .type = '0' \
    }

struct attack {
    const char *name;
    struct tar_member m[6];
    const char *refused; /* part of the error, or NULL: unpacks */
    const char *there;   /* a regular file that must be there then */
    const char *absent;
};

static const struct attack attacks[] = {
    {"dot-dot", {FILE_("../canary", "x")}, "leads out of the image", NULL, NULL},
    {"dot-dot in the middle",
     {DIR_("a"), FILE_("a/../../canary", "x")},
     "leads out of the image",
     NULL,
     NULL},
    {"dot-dot that stays", {FILE_("a/../b", "x")}, NULL, "b", "a/b"},
    {"absolute", {FILE_("/etc/x", "x")}, NULL, "etc/x", NULL},
    {"slashes and dots", {FILE_(".//./a//b/.", "x")}, NULL, "a/b", NULL},
    {"through a link upwards",
     {SYM_("up", "../../../.."), FILE_("up/canary", "x")},
     NULL,
     "canary",
     NULL},
    {"through an absolute link",
     {SYM_("l", "/d"), DIR_("d"), FILE_("l/x", "x")},
     NULL,
     "d/x",
     NULL},
    {"through a link to nowhere",
     {SYM_("l", "/tmp/nowhere"), FILE_("l/x", "x")},
     "link to nowhere",
     NULL,
     NULL},
    {"through a loop of links",
     {SYM_("a", "b"), SYM_("b", "a"), FILE_("a/x", "x")},
     "symbolic link",
     NULL,
     NULL},
    {"through /proc",
     {SYM_("l", "/proc/self/root"), FILE_("l/x", "x")},
     "link to nowhere",
     NULL,
     NULL},
    {"over a link", {SYM_("l", "../canary"), FILE_("l", "x")}, NULL, "l", NULL},
    {"over a hard link to a link",
     {SYM_("l", "../canary"), LINK_("h", "l"), FILE_("h", "x")},
     NULL,
     "h",
     NULL},
    {"over a FIFO", {{.path = "p", .type = '6', .mode = 0644}, FILE_("p", "x")}, NULL, "p", NULL},
    {"over a device",
     {{.path = "d", .type = '3', .major = 1, .minor = 3}, FILE_("d", "x")},
     NULL,
     "d",
     NULL},
    {"file over directory", {DIR_("d"), FILE_("d/x", "x"), FILE_("d", "y")}, NULL, "d", "d/x"},
    {"directory over file", {FILE_("d", "x"), DIR_("d"), FILE_("d/x", "x")}, NULL, "d/x", NULL},
    {"directory over link",
     {SYM_("d", "../canary.d"), DIR_("d"), FILE_("d/x", "x")},
     NULL,
     "d/x",
     NULL},
    {"below a file", {FILE_("f", "x"), FILE_("f/x", "x")}, "not a directory", NULL, NULL},
    {"hard link out", {LINK_("h", "../canary")}, "leads out of the image", NULL, NULL},
    {"hard link through a link out",
     {SYM_("u", "../.."), LINK_("h", "u/canary"), FILE_("h", "x")},
     NULL,
     "h",
     NULL},
    {"hard link to a directory",
     {DIR_("d"), LINK_("h", "d")},
     "hard link to a directory",
     NULL,
     NULL},
    {"hard link to the root", {LINK_("h", "/")}, "", NULL, NULL},
    {"hard link to itself", {FILE_("f", "x"), LINK_("f", "f")}, NULL, "f", NULL},
    {"hard link over a directory it is in",
     {DIR_("d"), FILE_("d/f", "x"), LINK_("d", "d/f")},
     "into what it replaces",
     NULL,
     NULL},
    {"hard link to a whiteout",
     {WH_(".wh.gone"), LINK_("h", ".wh.gone")},
     "hard link to a whiteout",
     NULL,
     NULL},
    {"hard link to a device's whiteout",
     {WH_(".wh.gone"), LINK_("h", "gone")},
     NULL,
     "h",
     ".wh.gone"},
    {"root as a file", {FILE_(".", "x")}, "root must be a directory", NULL, NULL},
    {"root as a link",
     {SYM_("/", "../canary.d"), FILE_("x", "x")},
     "root must be a directory",
     NULL,
     NULL},
    {"empty name", {FILE_("", "x")}, "root must be a directory", NULL, NULL},
    {"whiteout of nothing", {WH_("a/.wh.")}, "names nothing", NULL, NULL},
    {"whiteout of dot", {WH_("a/.wh..")}, "names nothing", NULL, NULL},
    {"whiteout of dot-dot", {WH_("a/.wh...")}, "names nothing", NULL, NULL},
    {"whiteout through a link",
     {SYM_("l", "../canary.d"), WH_("l/.wh.x")},
     "link to nowhere",
     NULL,
     NULL},
    {"opaque through a link",
     {SYM_("l", ".."), WH_("l/.wh..wh..opq"), FILE_("x", "x")},
     NULL,
     "x",
     NULL},
    {"below a whiteout", {FILE_("a/.wh.b/c", "x")}, "below a whiteout", NULL, NULL},
    {"aufs leftovers",
     {DIR_(".wh..wh.plnk"), FILE_(".wh..wh.plnk/1.2", "x"), FILE_(".wh..wh.aufs", ""),
      FILE_("f", "x")},
     NULL,
     "f",
     ".wh..wh.plnk"},
    {"whiteout of what the layer has", {FILE_("f", "x"), WH_(".wh.f")}, NULL, "f", ".wh.f"},
    {"0:0 device", {{.path = "gone", .type = '3'}, FILE_("f", "x")}, NULL, "f", "gone"},
    {"unknown type", {{.path = "f", .type = 'Z'}}, "unknown type", NULL, NULL},
};

static void attacks_stay_inside(void **state UNUSED)
{
    for (size_t i = 0; i < ARRAY_SIZE(attacks); i++) {
        const struct attack *a = &attacks[i];
        AUTO(str) struct str tar = STR_INIT(BOUND_MIB);
        AUTO(oci_layer) struct oci_layer *l = NULL;
        AUTO_CLOSE int dir = -1;
        struct err e = ERR_INIT;
        struct stat st;

        for (size_t k = 0; k < ARRAY_SIZE(a->m) && a->m[k].path; k++)
            tar_put(&tar, &a->m[k]);
        tar_end(&tar);
        int rc = unpack(&tar, 100, &dir, &l, &e);

        check_canary();
        if (a->refused && rc == 0)
            fail_msg("%s: was taken", a->name);
        if (!a->refused && rc < 0)
            fail_msg("%s: %s", a->name, e.msg);
        if (a->refused)
            assert_has(e.msg, a->refused);
        if (a->there &&
            (fstatat(dir, a->there, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode)))
            fail_msg("%s: no file %s", a->name, a->there);
        if (a->absent && fstatat(dir, a->absent, &st, AT_SYMLINK_NOFOLLOW) == 0)
            fail_msg("%s: %s is there", a->name, a->absent);
    }
}

/* ---- names and numbers of extended headers ---- */

struct extended {
    const char *name, *key, *value;
    size_t n; /* of value; 0: strlen */
    const char *refused;
};

static const struct extended extendeds[] = {
    {"PAX name out", "path", "../canary", 0, "leads out"},
    {"PAX link out", "linkpath", "../canary", 0, NULL}, /* a plain file has no link: ignored */
    {"NUL in a name", "path", "a\0b", 3, "not valid"},
    {"NUL in an attribute's name", "SCHILY.xattr.user.a\0b", "x", 0,
     NULL}, /* the key ends at the NUL here: no "=" */
    {"sparse name without a map", "GNU.sparse.name", "x", 0, "sparse map"},
    {"size not a number", "size", "12x", 0, "not valid"},
    {"size negative", "size", "-1", 0, "not valid"},
    {"size beyond 64 bits", "size", "99999999999999999999999", 0, "not valid"},
    {"size beyond all", "size", "9223372036854775807", 0, "above"},
    {"owner -1", "uid", "4294967295", 0, "owner out of range"},
    {"owner beyond 32 bits", "gid", "4294967296", 0, "owner out of range"},
    {"owner at the limit", "uid", "4294967294", 0, NULL},
    {"time with a fraction", "mtime", "-1.5", 0, NULL},
    {"time not a number", "mtime", "1.x", 0, "not valid"},
    {"sparse map of an odd count", "GNU.sparse.map", "0,1,2", 0, "not valid"},
    {"sparse map beyond the end", "GNU.sparse.map", "0,1,9,9", 0, "sparse map"},
    {"sparse map that overlaps", "GNU.sparse.map", "0,2,1,2", 0, "sparse map"},
    {"sparse version unknown", "GNU.sparse.major", "2", 0, "not valid"},
    {"half a sparse map", "GNU.sparse.offset", "0", 0, "half a sparse map"},
};

static void extended_headers_are_strict(void **state UNUSED) /* S05 S06 S07 S22 */
{
    for (size_t i = 0; i < ARRAY_SIZE(extendeds); i++) {
        const struct extended *x = &extendeds[i];
        AUTO(str) struct str tar = STR_INIT(BOUND_MIB), records = STR_INIT(BOUND_MIB);
        AUTO(oci_layer) struct oci_layer *l = NULL;
        AUTO_CLOSE int dir = -1;
        struct err e = ERR_INIT;

        tar_record(&records, x->key, x->value, x->n ? x->n : strlen(x->value));
        tar_pax(&tar, &records);
        tar_put(&tar, &(struct tar_member)FILE_("f", "data"));
        tar_end(&tar);
        int rc = unpack(&tar, 1, &dir, &l, &e);

        check_canary();
        if (!x->refused && rc < 0)
            fail_msg("%s: %s", x->name, e.msg);
        if (x->refused && rc == 0)
            fail_msg("%s: was taken", x->name);
        if (x->refused)
            assert_has(e.msg, x->refused);
    }
}

static void broken_tars_are_refused(void **state UNUSED) /* S30 */
{
    static const struct {
        const char *name, *refused;
        int at;
        unsigned char byte;
        bool keep_sum;
    } cases[] = {
        {"checksum", "checksum", 0, 'z', true},
        {"mode not octal", "not octal", 100, '9', false},
        {"size negative", "out of range", 124, 0xff, false},
        {"owner negative", "out of range", 108, 0xff, false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        AUTO(str) struct str tar = STR_INIT(BOUND_MIB);
        AUTO(oci_layer) struct oci_layer *l = NULL;
        AUTO_CLOSE int dir = -1;
        struct err e = ERR_INIT;

        tar_put(&tar, &(struct tar_member)FILE_("f", "data"));
        tar_end(&tar);
        tar.buf[cases[i].at] = (char)cases[i].byte;
        if (!cases[i].keep_sum)
            tar_checksum((unsigned char *)tar.buf);
        if (unpack(&tar, 7, &dir, &l, &e) == 0)
            fail_msg("%s: was taken", cases[i].name);
        assert_has(e.msg, cases[i].refused);
    }
}

static void every_cut_is_an_error_or_between_entries(void **state UNUSED) /* S30 */
{
    AUTO(str) struct str tar = STR_INIT(BOUND_MIB);

    tar_pax1(&tar, "path", "long");
    tar_put(&tar, &(struct tar_member)FILE_("f", "data"));
    tar_put(&tar, &(struct tar_member)FILE_("g", "data"));
    for (size_t n = 0; n < tar.len; n += 128) {
        struct str cut = {.buf = tar.buf, .len = n, .max = n};
        AUTO(oci_layer) struct oci_layer *l = NULL;
        AUTO_CLOSE int dir = -1;
        struct err e = ERR_INIT;
        bool between = n == 0 || n == 4 * 512; /* nothing; after f */

        assert_int_equal(unpack(&cut, 4096, &dir, &l, &e), between ? 0 : -1);
    }
}

/* ---- what is put on disk ---- */

static void attributes_by_allow_list(void **state UNUSED) /* S24 S26 S27 */
{
    static const char cap[] =
        "\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"; /* version 2, cap_net_bind_service */
    AUTO(str) struct str tar = STR_INIT(BOUND_MIB), records = STR_INIT(BOUND_MIB);
    AUTO(oci_layer) struct oci_layer *l = NULL;
    AUTO_CLOSE int dir = -1;
    struct err e = ERR_INIT;
    struct stat st;
    char names[1000];

    tar_record(&records, "SCHILY.xattr.user.note", "v\0\n=", 4);
    tar_record(&records, "SCHILY.xattr.user.overlay.opaque", "y", 1);
    tar_record(&records, "SCHILY.xattr.trusted.overlay.redirect", "/etc", 4);
    tar_record(&records, "SCHILY.xattr.security.selinux", "x", 1);
    tar_record(&records, "SCHILY.xattr.security.capability", cap, 20);
    tar_pax(&tar, &records);
    tar_put(&tar, &(struct tar_member){.path = "f",
                                       .type = '0',
                                       .data = "x",
                                       .mode = 06755,
                                       .uid = 1000,
                                       .gid = 7,
                                       .mtime = 99});
    tar_pax(&tar, &records);
    tar_put(&tar, &(struct tar_member){
                      .path = "d", .type = '5', .mode = 02751, .uid = 1, .gid = 2, .mtime = 5});
    tar_put(&tar, &(struct tar_member)FILE_("d/inside", "x"));
    tar_end(&tar);
    assert_ok(unpack(&tar, 1000, &dir, &l, &e), &e);

    AUTO_CLOSE int f = openat(dir, "f", O_RDONLY | O_CLOEXEC);
    AUTO_CLOSE int d = openat(dir, "d", O_RDONLY | O_CLOEXEC);
    ssize_t n = flistxattr(f, names, sizeof(names));

    assert_int_equal(n, sizeof("user.note") + sizeof("security.capability"));
    assert_int_equal(fgetxattr(f, "user.note", names, sizeof(names)), 4);
    assert_memory_equal(names, "v\0\n=", 4);
    assert_int_equal(fgetxattr(f, "security.capability", names, sizeof(names)), 20);
    assert_int_equal(fstat(f, &st), 0);
    assert_int_equal(st.st_mode & 07777, 06755);
    assert_int_equal(st.st_uid, 1000);
    assert_int_equal(st.st_gid, 7);
    assert_int_equal(st.st_mtime, 99);
    assert_int_equal(flistxattr(d, names, sizeof(names)), sizeof("user.note"));
    assert_int_equal(fstat(d, &st), 0);
    assert_int_equal(st.st_mode & 07777, 02751);
    assert_int_equal(st.st_mtime, 5);
    assert_int_equal(fstatat(dir, "d/inside", &st, 0), 0);
    assert_int_equal(st.st_gid, 0); /* not handed down by the setgid directory */
    assert_false(oci_layer_depends(l));
}

static void whiteouts_in_overlay_form(void **state UNUSED) /* S25 */
{
    static const struct tar_member members[] = {
        DIR_("d"),
        WH_("d/.wh.gone"),
        DIR_("o"),
        FILE_("o/before", "x"),
        WH_("o/.wh..wh..opq"),
        FILE_("o/after", "x"),
        /* a whiteout that is a hard link to another one, and one of a directory the layer has */
        LINK_("d/.wh.too", "d/.wh.gone"),
        DIR_("again"),
        FILE_("again/x", "x"),
        WH_(".wh.again"),
        WH_(".wh.later"),
        DIR_("later"),
        WH_(".wh.deep"),
        FILE_("deep/down/x", "x"),
    };
    AUTO(str) struct str tar = STR_INIT(BOUND_MIB);
    AUTO(oci_layer) struct oci_layer *l = NULL;
    AUTO_CLOSE int dir = -1;
    struct err e = ERR_INIT;
    struct stat st;
    static const char *const devices[] = {"d/gone", "d/too"},
                             *const opaque[] = {"o", "again", "later", "deep"},
                             *const there[] = {"o/before", "o/after", "again/x", "deep/down/x"};

    for (size_t i = 0; i < ARRAY_SIZE(members); i++)
        tar_put(&tar, &members[i]);
    assert_ok(unpack(&tar, 4096, &dir, &l, &e), &e);
    for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
        assert_int_equal(fstatat(dir, devices[i], &st, AT_SYMLINK_NOFOLLOW), 0);
        assert_true(oci_whiteout_is(&st));
    }
    for (size_t i = 0; i < ARRAY_SIZE(opaque); i++) {
        AUTO_CLOSE int d = openat(dir, opaque[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (!oci_whiteout_is_opaque(d))
            fail_msg("%s is not opaque", opaque[i]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(there); i++)
        assert_int_equal(faccessat(dir, there[i], F_OK, AT_SYMLINK_NOFOLLOW), 0);
    AUTO_CLOSE int d = openat(dir, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_false(oci_whiteout_is_opaque(d));
}

/* ---- with layers below ---- */

static void put_all(struct str *tar, const struct tar_member *m, size_t n)
{
    for (size_t i = 0; i < n; i++)
        tar_put(tar, &m[i]);
    tar_end(tar);
}

static void unpack_to(const char *name, const struct tar_member *m, size_t n)
{
    AUTO(str) struct str tar = STR_INIT(BOUND_MIB);
    AUTO(oci_layer) struct oci_layer *l = NULL;
    AUTO_CLOSE int dir = -1;
    struct err e = ERR_INIT;

    put_all(&tar, m, n);
    assert_ok(unpack(&tar, 4096, &dir, &l, &e), &e);
    assert_int_equal(renameat(top, "layer", top, name), 0);
}

static int complete(const struct tar_member *m, size_t n, int *dir, struct err *e)
{
    AUTO(str) struct str tar = STR_INIT(BOUND_MIB);
    AUTO(oci_layer) struct oci_layer *l = NULL;
    struct oci_lowers below = {.dir = top};

    put_all(&tar, m, n);
    assert_ok(unpack(&tar, 4096, dir, &l, e), e);
    assert_true(oci_layer_depends(l));
    str_list_add(&below.keys, "two");
    str_list_add(&below.keys, "one");
    int rc = oci_layer_complete(l, &below, e);

    str_list_free(&below.keys);
    return rc;
}

static void layers_below_fill_in(void **state UNUSED)
{
    static const struct tar_member one[] = {
        {.path = "d", .type = '5', .mode = 0700, .uid = 5, .gid = 6, .mtime = 77},
        {.path = "d/f",
         .type = '0',
         .data = "lower",
         .mode = 0640,
         .uid = 8,
         .gid = 9,
         .mtime = 88},
        {.path = "hidden", .type = '5', .mode = 0711, .mtime = 1},
        FILE_("hidden/f", "x"),
        FILE_("gone", "x"),
        SYM_("way", "d"),
        SYM_("out", "../../../canary"),
    };
    static const struct tar_member two[] = {DIR_("hidden"), WH_("hidden/.wh..wh..opq"),
                                            WH_(".wh.gone")};
    static const struct tar_member three[] = {FILE_("d/new", "x"), LINK_("a", "d/f"),
                                              LINK_("b", "d/f"), LINK_("c", "a"),
                                              LINK_("w", "way/f")};
    AUTO_CLOSE int dir = -1;
    struct err e = ERR_INIT;
    struct stat st, other;
    char text[10] = "";

    unpack_to("one", one, ARRAY_SIZE(one));
    unpack_to("two", two, ARRAY_SIZE(two));
    assert_ok(complete(three, ARRAY_SIZE(three), &dir, &e), &e);
    assert_int_equal(fstatat(dir, "d", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(st.st_uid, 5);
    assert_int_equal(st.st_mtime, 77);
    AUTO_CLOSE int a = openat(dir, "a", O_RDONLY | O_CLOEXEC);

    assert_int_equal(read(a, text, sizeof(text)), 5);
    assert_string_equal(text, "lower");
    assert_int_equal(fstat(a, &st), 0);
    assert_int_equal(st.st_uid, 8);
    assert_int_equal(st.st_mode & 07777, 0640);
    assert_int_equal(st.st_mtime, 88);
    for (const char *name = "b\0c\0d/f\0"; *name; name += strlen(name) + 1) {
        assert_int_equal(fstatat(dir, name, &other, AT_SYMLINK_NOFOLLOW), 0);
        assert_int_equal(st.st_ino, other.st_ino);
    }

    /* What the layers below hide, lack, or have as something else. */
    static const struct {
        const char *target, *refused;
    } cases[] = {
        {"gone", "no layer has"},  {"hidden/f", "no layer has"}, {"never", "no layer has"},
        {"d", "no regular file"},  {"out", "no regular file"},   {"out/x", "no layer has"},
        {"d/f/x", "no layer has"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct tar_member m = LINK_("h", cases[i].target);
        AUTO_CLOSE int ignored = -1;

        err_clear(&e);
        if (complete(&m, 1, &ignored, &e) == 0)
            fail_msg("hard link to %s was taken", cases[i].target);
        assert_has(e.msg, cases[i].refused);
    }
}

/* ---- digests ---- */

static void digests_and_size_decide(void **state UNUSED) /* S12 S20 */
{
    AUTO(str) struct str tar = STR_INIT(BOUND_MIB);
    char right[DIGEST_TEXT_MAX], wrong[DIGEST_TEXT_MAX];
    struct err e = ERR_INIT;
    AUTO_CLOSE int dir = openat(top, "layer", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    tar_put(&tar, &(struct tar_member)FILE_("f", "data"));
    tar_end(&tar);
    tar_bytes(&tar, "what follows the end is hashed, too", 35);
    digest_of(tar.buf, tar.len, right);
    digest_of("", 0, wrong);
    const struct {
        struct oci_layer_desc desc;
        const char *refused;
    } cases[] = {
        {{right, right, tar.len}, NULL},
        {{wrong, right, tar.len}, "digest of what came is"},
        {{right, wrong, tar.len}, "digest of the uncompressed layer is"},
        {{right, right, tar.len - 1}, "more bytes than"},
        {{right, right, tar.len + 1}, "instead of"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        AUTO(oci_layer) struct oci_layer *l = NULL;

        err_clear(&e);
        assert_ok(oci_layer_new(dir, &cases[i].desc, &l, &e), &e);
        int rc = oci_layer_feed(l, tar.buf, tar.len, &e);

        if (rc == 0)
            rc = oci_layer_finish(l, &e);
        assert_int_equal(rc, cases[i].refused ? -1 : 0);
        if (cases[i].refused)
            assert_has(e.msg, cases[i].refused);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(attacks_stay_inside, set_up, tear_down),
        cmocka_unit_test_setup_teardown(extended_headers_are_strict, set_up, tear_down),
        cmocka_unit_test_setup_teardown(broken_tars_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_cut_is_an_error_or_between_entries, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(attributes_by_allow_list, set_up, tear_down),
        cmocka_unit_test_setup_teardown(whiteouts_in_overlay_form, set_up, tear_down),
        cmocka_unit_test_setup_teardown(layers_below_fill_in, set_up, tear_down),
        cmocka_unit_test_setup_teardown(digests_and_size_decide, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
