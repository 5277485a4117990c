#include "worker/reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/statefile.h"

enum { PIECES = 256, PIECE_BYTES = 32 << 10, MUCH = 10 /* times as much free as it takes */ };

struct reserve {
    int dir;              /* borrowed */
    pthread_mutex_t lock; /* held while it is used or made: states are few when a disk is full */
    atomic_int pieces;    /* that are there, the first ones; changed under the lock */
};

static char *piece_name(int i)
{
    return mem_printf("reserve.%03d", i);
}

/* What a life before this one has left of it. */
static int count_pieces(const struct reserve *r)
{
    int n = 0;

    for (; n < PIECES; n++) {
        AUTO_FREE char *name = piece_name(n);
        struct stat st;

        if (fstatat(r->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_size != PIECE_BYTES ||
            st.st_blocks * 512 < PIECE_BYTES)
            break;
    }
    return n;
}

static bool make_piece(const struct reserve *r, int i)
{
    AUTO_FREE char *name = piece_name(i);
    AUTO_CLOSE int fd = openat(r->dir, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    return fd >= 0 && ftruncate(fd, PIECE_BYTES) == 0 && posix_fallocate(fd, 0, PIECE_BYTES) == 0;
}

static void refill(struct reserve *r)
{
    struct statvfs v;

    if (atomic_load(&r->pieces) == PIECES || fstatvfs(r->dir, &v) < 0 ||
        (uint64_t)v.f_bavail * v.f_frsize < 1ull * MUCH * PIECES * PIECE_BYTES)
        return;
    if (pthread_mutex_trylock(&r->lock) != 0)
        return;
    int n = atomic_load(&r->pieces);
    while (n < PIECES && make_piece(r, n))
        n++;
    atomic_store(&r->pieces, n);
    pthread_mutex_unlock(&r->lock);
}

static void give_back(struct reserve *r, size_t n)
{
    while (n-- && atomic_load(&r->pieces) > 0) {
        AUTO_FREE char *name = piece_name(atomic_fetch_sub(&r->pieces, 1) - 1);
        unlinkat(r->dir, name, 0);
    }
}

/* In a piece of it, which nobody can snatch away; what is too big for one gets the room of some, if nobody is quicker. */
static int write_in_piece(struct reserve *r, const char *name, const char *text, bool durable,
                          struct err *e)
{
    size_t n = strlen(text);
    int i = atomic_load(&r->pieces) - 1;

    if (i < 0)
        return -1;
    *e = (struct err)ERR_INIT;
    if (n <= PIECE_BYTES) {
        AUTO_FREE char *piece = piece_name(i);

        if (statefile_replace_in(r->dir, piece, name, text, n, durable, e) == 0) {
            atomic_store(&r->pieces, i);
            return 0;
        }
        *e = (struct err)ERR_INIT;
    }
    give_back(r, n / PIECE_BYTES + 2);
    return statefile_replace(r->dir, name, text, n, 0600, durable, e);
}

int reserve_write(struct reserve *r, const char *name, const char *text, bool durable,
                  struct err *e)
{
    if (statefile_replace(r->dir, name, text, strlen(text), 0600, durable, e) == 0) {
        refill(r);
        return 0;
    }
    if (e->sys != ENOSPC && e->sys != EDQUOT)
        return -1;
    pthread_mutex_lock(&r->lock);
    int rc = write_in_piece(r, name, text, durable, e);
    pthread_mutex_unlock(&r->lock);
    return rc;
}

struct reserve *reserve_new(int dir)
{
    struct reserve *r = mem_new(struct reserve);

    r->dir = dir;
    pthread_mutex_init(&r->lock, NULL);
    unlinkat(dir, "reserve", 0); /* an older version's */
    atomic_store(&r->pieces, count_pieces(r));
    refill(r);
    return r;
}

void reserve_free(struct reserve *r)
{
    if (!r)
        return;
    pthread_mutex_destroy(&r->lock);
    free(r);
}

void reserve_remove(int dir)
{
    for (int i = 0; i < PIECES; i++) {
        AUTO_FREE char *name = piece_name(i);
        unlinkat(dir, name, 0);
    }
}
