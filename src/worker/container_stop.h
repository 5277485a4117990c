#pragma once
/*
 * container_stop.h - ask a run's programs to end. Internal to container.c. Threads: any. Blocks until the deadline.
 */
#include <stdbool.h>
#include <stdint.h>

struct ctr_shim;

/* SIGTERM to the programs; true when the container has ended by the deadline (clock_now_ns()). False at once for one that was
 * not started: there is nobody in it to hear. */
bool container_stop(const struct ctr_shim *s, uint64_t deadline);
