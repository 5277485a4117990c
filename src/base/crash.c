#include "base/crash.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "base/units.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Atomic uint64_t left; /* 0: none is wanted, or it has been */

static void read_environment(void)
{
    const char *text = getenv("CW_CRASH_AT");
    struct err ignored = ERR_INIT;
    uint64_t n = 0;

    if (text && units_u64(text, UINT32_MAX, &n, &ignored) == 0)
        atomic_store(&left, n);
}

void crash_point(const char *name)
{
    pthread_once(&once, read_environment);
    if (!atomic_load(&left) || atomic_fetch_sub(&left, 1) != 1)
        return;
    log_warn("crash point %s", name);
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}
