/*
 * Is a GPU fit for a run? The node opens and the driver answers, nobody who is dead still holds it, and the kernel's log
 * has no error of the hardware about it. What is not fit is withdrawn until the worker starts again: a GPU that answers
 * wrongly once is worth a look by a person before it gets another run.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "runtime/gpu_own.h"

#define LOG_SLACK_NS (10 * NS_PER_S)

/* Guards the list. */
static pthread_mutex_t withdrawn_lock = PTHREAD_MUTEX_INITIALIZER;
static struct str_list withdrawn;

bool ctr_gpu_is_withdrawn(const char *uuid)
{
    pthread_mutex_lock(&withdrawn_lock);
    bool is = str_list_has(&withdrawn, uuid);

    pthread_mutex_unlock(&withdrawn_lock);
    return is;
}

void ctr_gpu_withdraw(const char *uuid)
{
    pthread_mutex_lock(&withdrawn_lock);
    if (!str_list_has(&withdrawn, uuid))
        str_list_add(&withdrawn, uuid);
    pthread_mutex_unlock(&withdrawn_lock);
}

void ctr_gpu_readmit(const char *uuid)
{
    struct str_list kept = {0};

    pthread_mutex_lock(&withdrawn_lock);
    for (size_t i = 0; i < withdrawn.n; i++)
        if (!str_eq(withdrawn.items[i], uuid))
            str_list_add(&kept, withdrawn.items[i]);
    str_list_free(&withdrawn);
    withdrawn = kept;
    pthread_mutex_unlock(&withdrawn_lock);
}

/* --- the kernel's log ------------------------------------------------------------------------------------------- */

/* Errors that programs make, or that are about the program alone (XID errors guide; what NVIDIA's device plugin for
 * Kubernetes passes over): the GPU is as good as before. */
static bool is_programs_fault(unsigned long xid)
{
    static const unsigned char numbers[] = {13, 31, 43, 45, 68, 109};

    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        if (numbers[i] == xid)
            return true;
    return false;
}

/* "6,1234,56789012,-;NVRM: Xid (PCI:0000:65:00): 79, pid=…, GPU has fallen off the bus." */
unsigned gpu_xid_of(const char *record, const char *pci, uint64_t since_us)
{
    static const char mark[] = "NVRM: Xid (PCI:";
    const char *text = strchr(record, ';'), *at = text ? strstr(text, mark) : NULL;
    char *end = NULL;
    unsigned long long when = 0;
    size_t n = strlen(pci);

    if (!at || !n || sscanf(record, "%*u,%*u,%llu", &when) != 1 || when < since_us ||
        strncmp(at + sizeof(mark) - 1, pci, n) != 0)
        return 0;
    at = strstr(at + sizeof(mark) - 1 + n, "): ");
    unsigned long xid = at ? strtoul(at + 3, &end, 10) : 0;

    return at && end > at + 3 && xid < 100000 && !is_programs_fault(xid) ? (unsigned)xid : 0;
}

/* The first such record since then; 0: none, or no log to read. */
static unsigned find_xid(const struct gpu_places *at, const char *pci, uint64_t since_us)
{
    AUTO_FREE char *path = mem_printf("%s/kmsg", at->dev);
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    char record[8192];
    ssize_t n;

    while (fd >= 0 &&
           ((n = read(fd, record, sizeof(record) - 1)) > 0 || (n < 0 && errno == EPIPE))) {
        if (n < 0)
            continue; /* overwritten while we read: go on with what is there */
        record[n] = '\0';
        unsigned xid = gpu_xid_of(record, pci, since_us);

        if (xid)
            return xid;
    }
    return 0;
}

/* --- processes ---------------------------------------------------------------------------------------------------- */

/* Process ids of the driver's are the host's: elsewhere they mean nothing to us. PROC_PID_INIT_INO of the kernel. */
static bool sees_all_processes(void)
{
    struct stat st;

    return stat("/proc/self/ns/pid", &st) == 0 && st.st_ino == 0xEFFFFFFC;
}

static bool is_dead(int pid)
{
    AUTO_FREE char *path = mem_printf("/proc/%d/stat", pid);
    AUTO(str) struct str text = STR_INIT(4096);
    struct err ignored = ERR_INIT;

    if (fd_read_file_at(AT_FDCWD, path, &text, &ignored) < 0)
        return ignored.kind == ERR_ABSENT || ignored.sys == ESRCH;
    const char *state = strrchr(str_text(&text), ')');

    return state && (state[2] == 'Z' || state[2] == 'X' || state[2] == 'D');
}

/* --- together ----------------------------------------------------------------------------------------------------- */

static const struct ctr_gpu *find(const struct ctr_gpu *list, size_t n, const char *uuid)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(list[i].uuid, uuid))
            return &list[i];
    return NULL;
}

int gpu_dead_holder(const struct ctr_gpu *g)
{
    for (unsigned i = 0; i < g->n_processes; i++)
        if (is_dead(g->processes[i]))
            return g->processes[i];
    return 0;
}

/* One look: 0 fit, -1 not, with the reason; ERR_LIMIT: not yet. */
static int look(const struct gpu_places *at, const char *uuid, uint64_t since_us, struct err *why)
{
    AUTO_FREE struct ctr_gpu *list = NULL;
    size_t n = 0;

    if (gpu_list_at(at, &list, &n, why) < 0)
        return -1;
    const struct ctr_gpu *g = find(list, n, uuid);

    if (!g)
        return err_set(why, ERR_HOST, "it is not on this host any more");
    if (!g->usable)
        return err_set(why, ERR_HOST, "%s", g->why_not);
    int pid = sees_all_processes() ? gpu_dead_holder(g) : 0;

    if (pid)
        return err_set(why, ERR_LIMIT, "process %d, which is dead or stuck, still holds it", pid);
    unsigned xid = since_us && g->kind == CTR_GPU_NVIDIA ? find_xid(at, g->pci, since_us) : 0;

    return xid ? err_set(why, ERR_HOST, "the driver reported Xid %u about it", xid) : 0;
}

static int check_one(const struct gpu_places *at, const char *uuid, uint64_t since_us,
                     uint64_t deadline, struct err *e)
{
    struct err why = ERR_INIT;

    /* The driver takes down what a killed process had after the process is gone. */
    while (look(at, uuid, since_us, &why) < 0) {
        if (why.kind != ERR_LIMIT || clock_passed(deadline)) {
            ctr_gpu_withdraw(uuid);
            return err_set(e, ERR_HOST, "GPU %s cannot be used: %s", uuid, why.msg);
        }
        poll(NULL, 0, 100);
    }
    return 0;
}

/* Our clock in the log's, which stands still while the machine sleeps and is not corrected; so some seconds early. */
static uint64_t log_time_us(uint64_t since_ns)
{
    struct timespec t = {0};

    if (!since_ns)
        return 0;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t now = (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
    uint64_t early = clock_now_ns() - now + LOG_SLACK_NS;

    return since_ns > early ? (since_ns - early) / 1000 : 1;
}

int gpu_check_at(const struct gpu_places *at, const char *const *uuids, size_t n, uint64_t since_ns,
                 uint64_t patience_ns, struct err *e)
{
    uint64_t deadline = clock_in_ns(patience_ns), since_us = log_time_us(since_ns);
    struct err other = ERR_INIT;
    int rc = 0;

    for (size_t i = 0; i < n; i++)
        if (check_one(at, uuids[i], since_us, deadline, rc < 0 ? &other : e) < 0)
            rc = -1;
    return rc;
}
