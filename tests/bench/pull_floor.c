/*
 * The least that unpacking layers can take with the libraries that cworker uses: read the blobs, add up both SHA-256 sums,
 * inflate, and make the files with as few calls as can be. No network, no checks, no store.
 *
 *     pull_floor [-j THREADS] DIR BLOB...     blobs of gzip, each into a directory of its own, the largest first; then DIR
 *                                             is synced
 *
 * With one thread (the default) CPU is what is of interest, with as many as there are processors the wall time. What is
 * made begins to be written at once, as ours does, in that form. Prints the CPU seconds of each stage, and the wall time of
 * unpacking and of the sync.
 */
#define _GNU_SOURCE
#define OPENSSL_SUPPRESS_DEPRECATED
#include <errno.h>
#include <fcntl.h>
#include <isa-l/igzip_lib.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 512, CHUNK = 128 * 1024, NAME = 4096 };
enum { READ, SUMS, INFLATE, FILES, SYNC, STAGES };
enum { EARLY = 256 * 1024, THREADS_MAX = 64 };

struct layer {
    SHA256_CTX blob, plain;
    int root;
    unsigned char head[BLOCK];
    size_t head_n;
    uint64_t left, padding; /* of the entry's data */
    char type, name[NAME], link[NAME];
    char long_name[NAME], long_link[NAME]; /* for the entry that follows */
    char text[1 << 16];                    /* of an extended header */
    size_t text_n;
    int file;
    uint64_t size; /* of the file */
    struct timespec mtime;
};

struct blob {
    const char *path;
    off_t size;
    int n; /* its directory */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all three */
static struct blob *blobs;
static int n_blobs, next_blob;

static int dir;
static unsigned threads = 1;
static __thread double spent[STAGES];
static __thread struct timespec begun;

static void start(void)
{
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begun);
}

static void stop(int stage)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    spent[stage] +=
        (double)(now.tv_sec - begun.tv_sec) + (double)(now.tv_nsec - begun.tv_nsec) / 1e9;
}

static void must(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "pull_floor: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static uint64_t number(const unsigned char *field, size_t n)
{
    uint64_t value = 0;

    if (field[0] & 0x80) {
        for (size_t i = 1; i < n; i++)
            value = value << 8 | field[i];
        return value;
    }
    for (size_t i = 0; i < n && field[i]; i++)
        if (field[i] >= '0' && field[i] <= '7')
            value = value * 8 + (uint64_t)(field[i] - '0');
    return value;
}

/* "12 path=x\n": what an extended header says of the next entry's name and link. */
static void read_extended(struct layer *l)
{
    for (char *p = l->text, *end = p + l->text_n; p < end;) {
        size_t n = strtoul(p, NULL, 10);
        char *key = memchr(p, ' ', (size_t)(end - p));

        if (!n || !key || p + n > end)
            return;
        key++;
        char *to = !strncmp(key, "path=", 5)       ? l->long_name
                   : !strncmp(key, "linkpath=", 9) ? l->long_link
                                                   : NULL;
        char *value = strchr(key, '=');

        if (to && value && (size_t)(p + n - 1 - value) < NAME)
            snprintf(to, NAME, "%.*s", (int)(p + n - 2 - value), value + 1);
        p += n;
    }
}

static void end_entry(struct layer *l)
{
    const struct timespec times[2] = {l->mtime, l->mtime};

    if (l->type == 'x')
        read_extended(l);
    else if (l->type == 'L')
        snprintf(l->long_name, NAME, "%.*s", (int)l->text_n, l->text);
    else if (l->type == 'K')
        snprintf(l->long_link, NAME, "%.*s", (int)l->text_n, l->text);
    if (l->file >= 0) {
        if (threads > 1 && l->size >= EARLY)
            sync_file_range(l->file, 0, 0, SYNC_FILE_RANGE_WRITE);
        must(futimens(l->file, times) == 0 && close(l->file) == 0, l->name);
        l->file = -1;
    }
}

static void make(struct layer *l, mode_t mode)
{
    const struct timespec times[2] = {l->mtime, l->mtime};
    const char *name = *l->name ? l->name : ".";

    if (l->type == '5') {
        must(mkdirat(l->root, name, 0755) == 0 || errno == EEXIST, name);
    } else if (l->type == '2') {
        must(symlinkat(l->link, l->root, name) == 0, name);
        must(utimensat(l->root, name, times, AT_SYMLINK_NOFOLLOW) == 0, name);
    } else if (l->type == '1') {
        must(linkat(l->root, l->link, l->root, name, 0) == 0, name);
    } else if (l->type == '0') {
        l->file = openat(l->root, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        must(l->file >= 0, name);
        if (mode & 07000)
            must(fchmod(l->file, mode) == 0, name);
    }
}

static const char *plain_name(const char *name)
{
    while (*name == '/' || (name[0] == '.' && name[1] == '/'))
        name++;
    return name;
}

static void begin_entry(struct layer *l)
{
    const unsigned char *h = l->head;

    l->head_n = 0;
    if (!h[0])
        return;
    l->type = h[156] ? (char)h[156] : '0';
    l->left = l->type == '1' || l->type == '2' || l->type == '5' ? 0 : number(h + 124, 12);
    l->size = l->left;
    l->padding = (BLOCK - l->left % BLOCK) % BLOCK;
    l->mtime.tv_sec = (time_t)number(h + 136, 12);
    l->text_n = 0;
    if (strchr("xgLK", l->type)) {
        must(l->left < sizeof(l->text), "extended header");
    } else {
        if (*l->long_name)
            snprintf(l->name, NAME, "%s", plain_name(l->long_name));
        else if (h[345] && !memcmp(h + 257, "ustar", 6))
            snprintf(l->name, NAME, "%.155s/%.100s", h + 345, h);
        else
            snprintf(l->name, NAME, "%.100s", plain_name((const char *)h));
        snprintf(l->link, NAME, "%.*s", *l->long_link ? NAME - 1 : 100,
                 *l->long_link ? l->long_link : (const char *)h + 157);
        if (l->type == '1')
            memmove(l->link, plain_name(l->link), strlen(plain_name(l->link)) + 1);
        *l->long_name = *l->long_link = '\0';
        make(l, (mode_t)number(h + 100, 8) & 07777);
    }
    if (!l->left)
        end_entry(l);
}

static void feed(struct layer *l, const unsigned char *p, size_t n)
{
    while (n) {
        size_t part;

        if (l->left) {
            part = n < l->left ? n : (size_t)l->left;
            if (l->file >= 0) {
                must(write(l->file, p, part) == (ssize_t)part, l->name);
            } else if (l->text_n + part <= sizeof(l->text)) {
                memcpy(l->text + l->text_n, p, part);
                l->text_n += part;
            }
            l->left -= part;
            if (!l->left)
                end_entry(l);
        } else if (l->padding) {
            part = n < l->padding ? n : (size_t)l->padding;
            l->padding -= part;
        } else {
            part = n < BLOCK - l->head_n ? n : BLOCK - l->head_n;
            memcpy(l->head + l->head_n, p, part);
            l->head_n += part;
            if (l->head_n == BLOCK)
                begin_entry(l);
        }
        p += part;
        n -= part;
    }
}

static void unpack(struct layer *l, int blob)
{
    static __thread unsigned char in[CHUNK], out[2 * CHUNK];
    struct inflate_state *s = malloc(sizeof(*s));
    ssize_t n;

    must(s != NULL, "memory");
    isal_inflate_init(s);
    s->crc_flag = ISAL_GZIP;
    for (;;) {
        start();
        n = read(blob, in, sizeof(in));
        stop(READ);
        if (n <= 0)
            break;
        start();
        SHA256_Update(&l->blob, in, (size_t)n);
        stop(SUMS);
        s->next_in = in;
        s->avail_in = (uint32_t)n;
        do {
            s->next_out = out;
            s->avail_out = sizeof(out);
            start();
            int rc = isal_inflate(s);

            stop(INFLATE);
            must(rc >= 0, "inflate");
            size_t got = sizeof(out) - s->avail_out;

            start();
            SHA256_Update(&l->plain, out, got);
            stop(SUMS);
            start();
            feed(l, out, got);
            stop(FILES);
        } while (s->block_state != ISAL_BLOCK_FINISH && (s->avail_in || !s->avail_out));
    }
    free(s);
}

static void unpack_blob(const struct blob *b)
{
    static __thread struct layer l;
    char name[32];
    int blob = open(b->path, O_RDONLY | O_CLOEXEC);

    must(blob >= 0, b->path);
    memset(&l, 0, sizeof(l));
    SHA256_Init(&l.blob);
    SHA256_Init(&l.plain);
    snprintf(name, sizeof(name), "%d", b->n);
    must(mkdirat(dir, name, 0755) == 0, name);
    l.root = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    l.file = -1;
    unpack(&l, blob);
    close(l.root);
    close(blob);
}

static const struct blob *take(void)
{
    pthread_mutex_lock(&lock);
    const struct blob *b = next_blob < n_blobs ? &blobs[next_blob++] : NULL;

    pthread_mutex_unlock(&lock);
    return b;
}

/* Returns what it has spent. */
static void *worker(void *arg)
{
    double *mine = arg;

    for (const struct blob *b; (b = take());)
        unpack_blob(b);
    memcpy(mine, spent, sizeof(spent));
    return NULL;
}

static int larger_first(const void *a, const void *b)
{
    const struct blob *x = a, *y = b;

    return (x->size < y->size) - (x->size > y->size);
}

static void find_blobs(int n, char **paths)
{
    struct stat st;

    blobs = calloc((size_t)n, sizeof(*blobs));
    must(blobs != NULL, "memory");
    for (n_blobs = 0; n_blobs < n; n_blobs++) {
        must(stat(paths[n_blobs], &st) == 0, paths[n_blobs]);
        blobs[n_blobs] = (struct blob){paths[n_blobs], st.st_size, n_blobs};
    }
    qsort(blobs, (size_t)n, sizeof(*blobs), larger_first);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void run_all(double all[STAGES])
{
    static double each[THREADS_MAX][STAGES];
    pthread_t ids[THREADS_MAX];

    for (unsigned i = 0; i < threads; i++)
        must(pthread_create(&ids[i], NULL, worker, each[i]) == 0, "thread");
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        for (int k = 0; k < STAGES; k++)
            all[k] += each[i][k];
    }
}

int main(int argc, char **argv)
{
    double all[STAGES] = {0}, begin, unpacked;
    int at = 1;

    umask(0);
    if (argc > 2 && !strcmp(argv[1], "-j")) {
        threads = (unsigned)atoi(argv[2]);
        at = 3;
    }
    must(argc > at + 1 && threads && threads <= THREADS_MAX, "usage");
    dir = open(argv[at], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    must(dir >= 0, argv[at]);
    find_blobs(argc - at - 1, argv + at + 1);
    begin = now();
    run_all(all);
    unpacked = now();
    start();
    must(syncfs(dir) == 0, "sync");
    stop(SYNC);
    printf("read %.2f sums %.2f inflate %.2f files %.2f sync %.2f; wall %.2f and %.2f\n", all[READ],
           all[SUMS], all[INFLATE], all[FILES], spent[SYNC], unpacked - begin, now() - unpacked);
    return 0;
}
