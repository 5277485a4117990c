/*
 * How fast one gzip stream is decoded: by ISA-L (what one core uses), by zlib, and by oci/gunzip alone and with a crew of
 * 1, 2, 4, ... threads. Output is thrown away, or hashed, as a pull does.
 *
 *   build/tests/bench/inflate FILE.gz [THREADS_MAX] [--hash]
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <zlib.h>

#include "base/clock.h"
#include "base/codec.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"
#include "oci/gunzip.h"
#include "oci/inflate_crew.h"

enum { PIECE = 64 * 1024, RUNS = 3 };

static const uint8_t *blob;
static size_t size;
static bool hashed;
static uint64_t produced;

struct result {
    double wall, cpu;
};

static int to_nowhere(void *arg, const void *data, size_t n, struct err *e UNUSED)
{
    produced += n;
    if (hashed)
        digest_update(arg, data, n);
    return 0;
}

static double cpu_now(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int by_isal(struct digest *d, struct err *e)
{
    AUTO(codec) struct codec *c = codec_decoder(CODEC_GZIP, 0, to_nowhere, d);

    for (size_t at = 0; at < size; at += PIECE)
        if (codec_feed(c, blob + at, size - at < PIECE ? size - at : PIECE, e) < 0)
            return -1;
    return codec_finish(c, e);
}

static int by_zlib(struct digest *d, struct err *e)
{
    AUTO_FREE unsigned char *buf = mem_alloc(PIECE * 4);
    z_stream z = {.next_in = (unsigned char *)blob, .avail_in = (unsigned)size};
    int rc = inflateInit2(&z, 15 + 16);

    while (rc == Z_OK) {
        z.next_out = buf;
        z.avail_out = PIECE * 4;
        rc = inflate(&z, Z_NO_FLUSH);
        to_nowhere(d, buf, PIECE * 4 - z.avail_out, e);
    }
    inflateEnd(&z);
    return rc == Z_STREAM_END ? 0 : err_set(e, ERR_USER, "zlib: %d", rc);
}

static uint64_t ahead;

static int by_gunzip(unsigned threads, struct digest *d, struct err *e)
{
    struct inflate_crew_opts o = inflate_crew_usual(64, -1);

    o.cores = 0;
    o.threads = threads;
    o.chunks = threads + 2 < 28 ? threads + 2 : 28;
    AUTO(inflate_crew) struct inflate_crew *crew = threads ? inflate_crew_new(&o) : NULL;
    AUTO(gunzip) struct gunzip *g = gunzip_new(crew, 0, to_nowhere, d);

    for (size_t at = 0; at < size; at += PIECE)
        if (gunzip_feed(g, blob + at, size - at < PIECE ? size - at : PIECE, e) < 0)
            return -1;
    int rc = gunzip_finish(g, e);

    ahead = gunzip_bytes_ahead(g);
    return rc;
}

/* way: -2 ISA-L, -1 zlib, else threads */
static struct result best_of(int way)
{
    struct result best = {1e9, 0};

    for (int i = 0; i < RUNS; i++) {
        AUTO(digest) struct digest *d = digest_new("sha256");
        struct err e = ERR_INIT;
        double cpu = cpu_now();
        uint64_t start = clock_now_ns();

        produced = ahead = 0;
        int rc = way == -2   ? by_isal(d, &e)
                 : way == -1 ? by_zlib(d, &e)
                             : by_gunzip((unsigned)way, d, &e);

        if (rc < 0) {
            fprintf(stderr, "%s\n", e.msg);
            exit(1);
        }
        double wall = (double)(clock_now_ns() - start) / 1e9;

        if (wall < best.wall)
            best = (struct result){wall, cpu_now() - cpu};
    }
    return best;
}

static void row(const char *name, int way)
{
    struct result r = best_of(way);

    printf("| %s | %.3f | %.0f | %.2f | %.0f %% |\n", name, r.wall, (double)produced / r.wall / 1e6,
           r.cpu, 100.0 * (double)ahead / (double)(produced ? produced : 1));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct stat st;
    int fd = argc > 1 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
    long most = argc > 2 ? strtol(argv[2], NULL, 10) : 2;

    if (fd < 0 || fstat(fd, &st) < 0) {
        fprintf(stderr, "usage: inflate FILE.gz [THREADS_MAX] [--hash]\n");
        return 2;
    }
    hashed = argc > 3;
    size = (size_t)st.st_size;
    blob = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (blob == MAP_FAILED)
        return 1;
    printf("| decoder | s | MB/s | CPU s | from chunks |\n|---|---|---|---|---|\n");
    row("ISA-L", -2);
    row("zlib", -1);
    row("own, alone", 0);
    for (int threads = 1; threads <= most; threads *= 2) {
        char name[32];

        snprintf(name, sizeof(name), "own and %d threads", threads);
        row(name, threads);
    }
    return 0;
}
