/*
 * seccomp.c - the filter of a spec, kept on disk once it is compiled.
 *
 * A cache file is named by a hash of what the filter was made from, and holds that text whole, so that a clash of
 * hashes is noticed and not believed. The directory and the file must belong to us and to nobody else.
 */
#include "runtime/seccomp.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <linux/filter.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/statefile.h"
#include "base/str.h"
#include "runtime/seccomp_own.h"
#include "runtime/spec.h"

void ctr_seccomp_free(struct ctr_seccomp *f)
{
    free(f->insns);
    free(f->listener_path);
    free(f->listener_metadata);
    *f = (struct ctr_seccomp){0};
}

/* --- prologue and export ------------------------------------------------------------------------------------ */

void ctr_seccomp_prologue_add(struct seccomp_prologue *p, uint16_t code, uint8_t jt, uint8_t jf,
                              uint32_t k)
{
    BUG_ON(p->n >= SECCOMP_PROLOGUE_MAX);
    p->insns[p->n++] = (struct sock_filter){.code = code, .jt = jt, .jf = jf, .k = k};
}

size_t ctr_seccomp_prologue_begin(struct seccomp_prologue *p, uint32_t arch)
{
    ctr_seccomp_prologue_add(p, BPF_LD | BPF_W | BPF_ABS, 0, 0,
                             offsetof(struct seccomp_data, arch));
    ctr_seccomp_prologue_add(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 0, arch);
    return p->n - 1;
}

void ctr_seccomp_prologue_end(struct seccomp_prologue *p, size_t begin)
{
    size_t body = p->n - begin - 1;

    BUG_ON(body > UINT8_MAX);
    p->insns[begin].jf = (uint8_t)body;
}

int ctr_seccomp_export(scmp_filter_ctx ctx, const struct seccomp_prologue *p,
                       struct ctr_seccomp *ret, struct err *e)
{
    AUTO_CLOSE int fd = memfd_create("seccomp", MFD_CLOEXEC);

    if (fd < 0)
        return err_sys(e, "seccomp: memory for the filter");
    int rc = seccomp_export_bpf(ctx, fd);
    off_t size = lseek(fd, 0, SEEK_END);

    if (rc < 0 || size <= 0 || size % (off_t)sizeof(struct sock_filter))
        return err_sysno(e, rc < 0 ? -rc : EIO, "seccomp: compile the filter");
    size_t n = (size_t)size / sizeof(struct sock_filter), n_front = p ? p->n : 0;

    if (n + n_front > BPF_MAXINSNS)
        return err_set(e, ERR_LIMIT,
                       "seccomp: the filter has %zu instructions, the kernel takes %d", n + n_front,
                       BPF_MAXINSNS);
    AUTO_FREE struct sock_filter *insns = mem_array(n + n_front, sizeof(*insns));

    if (n_front)
        memcpy(insns, p->insns, n_front * sizeof(*insns));
    if (pread(fd, insns + n_front, (size_t)size, 0) != size)
        return err_sys(e, "seccomp: read the filter");
    ret->insns = take_ptr(&insns);
    ret->n = n + n_front;
    return 0;
}

/* --- the cache ------------------------------------------------------------------------------------------------ */

struct cache_header {
    char magic[8];
    uint32_t n_insns, flags, listener, n_key;
};
static const char cache_magic[8] = "cwsecc1";

/* What the filter is made from, with all that changes its meaning. */
static char *key_of(const struct ctr_spec *s)
{
    const struct scmp_version *v = seccomp_version();
    AUTO_FREE char *source = s->seccomp ? json_text(s->seccomp)
                                        : mem_printf("default %" PRIx64, s->process.caps.bounding);

    return mem_printf("%s %x %u.%u.%u %s", CW_VERSION, seccomp_arch_native(), v ? v->major : 0,
                      v ? v->minor : 0, v ? v->micro : 0, source);
}

static void file_of(const char *key, char name[32])
{
    uint64_t h = 0xcbf29ce484222325; /* FNV-1a */

    for (; *key; key++)
        h = (h ^ (unsigned char)*key) * 0x100000001b3;
    snprintf(name, 32, "%016" PRIx64 ".bpf", h);
}

static bool is_ours(int fd, mode_t type)
{
    struct stat st;

    return fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == type && st.st_uid == geteuid() &&
           !(st.st_mode & (S_IWGRP | S_IWOTH));
}

static int open_cache(const char *dir)
{
    struct err ignored = ERR_INIT;

    if (mkdir(dir, 0700) < 0 && errno != EEXIST && path_mkdirs(dir, 0700, &ignored) < 0)
        return -1;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd >= 0 && !is_ours(fd, S_IFDIR))
        close_fd(&fd);
    return fd;
}

static bool from_cache(int dir, const char *name, const char *key, struct ctr_seccomp *ret)
{
    AUTO_CLOSE int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct cache_header h;
    size_t n_key = strlen(key);
    struct stat st;

    if (fd < 0 || !is_ours(fd, S_IFREG) || fd_read_full(fd, &h, sizeof(h)) != sizeof(h) ||
        memcmp(h.magic, cache_magic, sizeof(h.magic)) != 0 || h.n_key != n_key || h.n_insns == 0 ||
        h.n_insns > BPF_MAXINSNS || fstat(fd, &st) < 0 ||
        (uint64_t)st.st_size != sizeof(h) + n_key + h.n_insns * sizeof(struct sock_filter))
        return false;
    AUTO_FREE char *text = mem_alloc(n_key + 1);
    size_t size = h.n_insns * sizeof(struct sock_filter);
    AUTO_FREE struct sock_filter *insns = mem_array(h.n_insns, sizeof(*insns));

    if (fd_read_full(fd, text, n_key) != (ssize_t)n_key || memcmp(text, key, n_key) != 0 ||
        fd_read_full(fd, insns, size) != (ssize_t)size)
        return false;
    ret->insns = take_ptr(&insns);
    ret->n = h.n_insns;
    ret->flags = h.flags;
    ret->listener = h.listener;
    return true;
}

static void to_cache(int dir, const char *name, const char *key, const struct ctr_seccomp *f)
{
    AUTO(str) struct str text = STR_INIT(8 * BOUND_MIB);
    struct cache_header h = {.n_insns = (uint32_t)f->n,
                             .flags = f->flags,
                             .listener = f->listener,
                             .n_key = (uint32_t)strlen(key)};
    struct err ignored = ERR_INIT;

    memcpy(h.magic, cache_magic, sizeof(h.magic));
    if (str_append(&text, &h, sizeof(h)) == 0 && str_append_text(&text, key) == 0 &&
        str_append(&text, f->insns, f->n * sizeof(*f->insns)) == 0 &&
        statefile_replace(dir, name, text.buf, text.len, 0600, false, &ignored) < 0)
        err_clear(&ignored); /* the next run compiles again */
}

/* --- the filter of a spec ----------------------------------------------------------------------------------------- */

static int compile(const struct ctr_spec *s, struct ctr_seccomp *ret, struct err *e)
{
    if (s->seccomp)
        return ctr_seccomp_compile(s->seccomp, ret, e);
    return ctr_seccomp_compile_default(s->process.caps.bounding, ret, e);
}

int ctr_seccomp_for_spec(const struct ctr_spec *s, const char *cache_dir, struct ctr_seccomp *ret,
                         struct err *e)
{
    AUTO(ctr_seccomp) struct ctr_seccomp f = {0};

    *ret = f;
    if (!s->seccomp && !s->default_seccomp)
        return 0;
    AUTO_FREE char *key = key_of(s);
    AUTO_CLOSE int dir = cache_dir ? open_cache(cache_dir) : -1;
    char name[32];

    file_of(key, name);
    if (dir < 0 || !from_cache(dir, name, key, &f)) {
        if (compile(s, &f, e) < 0)
            return -1;
        if (dir >= 0 && f.n)
            to_cache(dir, name, key, &f);
    } else if (s->seccomp) { /* the texts are not in the cache: they are no part of the program */
        const cJSON *path = cJSON_GetObjectItemCaseSensitive(s->seccomp, "listenerPath");
        const cJSON *meta = cJSON_GetObjectItemCaseSensitive(s->seccomp, "listenerMetadata");

        f.listener_path = mem_strdup(cJSON_GetStringValue(path));
        f.listener_metadata = mem_strdup(cJSON_GetStringValue(meta));
    }
    *ret = f;
    f = (struct ctr_seccomp){0};
    return 0;
}
