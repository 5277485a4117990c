#pragma once
/*
 * cleanup.h - locals released by attribute, on every path, without labels.
 *
 * Initialise at once (NULL, -1). take_ptr/take_fd hand the value over and leave the variable empty.
 * DEFINE_AUTO(image, image_unref) makes AUTO(image) usable for `struct image *x = NULL`.
 * DEFINE_AUTO_VALUE(str, str_free) makes AUTO(str) usable for `struct str s = STR_INIT(...)`.
 * Threads: any. Ownership: the scope owns until taken.
 */
#include <stdlib.h>
#include <unistd.h>

#define MUST_CHECK             __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define UNUSED                 __attribute__((unused))
#define ARRAY_SIZE(a)          (sizeof(a) / sizeof((a)[0]))

static inline void auto_close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void auto_free_ptr(void *p)
{
    free(*(void **)p);
}

#define AUTO_CLOSE __attribute__((cleanup(auto_close_fd)))
#define AUTO_FREE  __attribute__((cleanup(auto_free_ptr)))
#define AUTO(name) __attribute__((cleanup(auto_release_##name)))

#define DEFINE_AUTO(name, release)                          \
    static inline void auto_release_##name(struct name **p) \
    {                                                       \
        if (*p)                                             \
            release(*p);                                    \
    }

#define DEFINE_AUTO_VALUE(name, release)                   \
    static inline void auto_release_##name(struct name *p) \
    {                                                      \
        release(p);                                        \
    }

#define take_ptr(p)                     \
    ({                                  \
        __typeof__(*(p)) taken_ = *(p); \
        *(p) = NULL;                    \
        taken_;                         \
    })

static inline int take_fd(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

/* Close *fd if open and mark it closed. */
static inline void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}
