#pragma once
/*
 * reserve.h - room in a directory that runs cannot take: on a full disk their ends are still written down.
 *
 * 8 MiB in files reserve.000 to reserve.255 that have their blocks. A state that finds no room is written into one of them,
 * which then gets the state's name: the room is at no time free, so a run that takes every block as soon as it can gets none of
 * it. Made anew when there is ten times as much room. What a life before this one has left of it is used.
 * Threads: any. Ownership: reserve_new/reserve_free; the directory is borrowed.
 */
#include <stdbool.h>

#include "base/cleanup.h"

struct err;
struct reserve;

/* Of a directory that no other process writes in. Blocks: some milliseconds. */
struct reserve *reserve_new(int dir);
void reserve_free(struct reserve *r); /* NULL is fine; the files stay */
/* statefile_replace, and where the disk is full in the reserve. */
int reserve_write(struct reserve *r, const char *name, const char *text, bool durable,
                  struct err *e) MUST_CHECK;
/* Of a worker that is over for good. */
void reserve_remove(int dir);
