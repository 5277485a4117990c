#pragma once
/*
 * clock.h - monotonic deadlines and back-off. Times are uint64_t nanoseconds.
 * Threads: any. Blocks: nothing.
 */
#include <stdbool.h>
#include <stdint.h>

#define NS_PER_S  1000000000ULL
#define NS_PER_MS 1000000ULL

uint64_t clock_now_ns(void);             /* CLOCK_BOOTTIME: goes on while the machine sleeps */
double clock_epoch(void);                /* seconds since 1970, for the wire */
uint64_t clock_in_ns(uint64_t delta_ns); /* now + delta, saturating */
bool clock_passed(uint64_t deadline_ns);
/* Time left until the deadline in ms for poll(2): 0 when passed, at most INT_MAX, rounded up. */
int clock_left_ms(uint64_t deadline_ns);

/* Exponential back-off with full jitter: first..cap, doubled each time. */
struct backoff {
    uint64_t first_ns, cap_ns, next_ns;
};
#define BACKOFF_INIT(first, cap) ((struct backoff){.first_ns = (first), .cap_ns = (cap)})
/* Pause before the next attempt (between half and all of the current step); advances. */
uint64_t backoff_next(struct backoff *b);
void backoff_reset(struct backoff *b);
