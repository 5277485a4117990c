#include "base/clock.h"

#include <limits.h>
#include <sys/random.h>
#include <time.h>

uint64_t clock_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_BOOTTIME, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

double clock_epoch(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

uint64_t clock_in_ns(uint64_t delta_ns)
{
    uint64_t now = clock_now_ns();

    return delta_ns > UINT64_MAX - now ? UINT64_MAX : now + delta_ns;
}

bool clock_passed(uint64_t deadline_ns)
{
    return clock_now_ns() >= deadline_ns;
}

int clock_left_ms(uint64_t deadline_ns)
{
    uint64_t now = clock_now_ns();

    if (now >= deadline_ns)
        return 0;
    uint64_t ms = (deadline_ns - now + NS_PER_MS - 1) / NS_PER_MS;

    return ms > INT_MAX ? INT_MAX : (int)ms;
}

uint64_t backoff_next(struct backoff *b)
{
    uint32_t r = 0;

    if (!b->next_ns)
        b->next_ns = b->first_ns;
    uint64_t step = b->next_ns;

    b->next_ns = step > b->cap_ns / 2 ? b->cap_ns : step * 2;
    if (getrandom(&r, sizeof(r), GRND_NONBLOCK) != (ssize_t)sizeof(r))
        r = (uint32_t)clock_now_ns();
    uint64_t half = step / 2;

    return half + (uint64_t)((double)half * ((double)r / UINT32_MAX));
}

void backoff_reset(struct backoff *b)
{
    b->next_ns = 0;
}
