#pragma once
/*
 * crash.h - named instants at which a test can have this process die as by kill -9.
 *
 * With CW_CRASH_AT=N in the environment the N-th point passed, of whatever name and thread, is the last. A test counts N
 * up until a whole run passes, restarts after each death, and compares: so every change of state is met once from
 * either side (style.md 12). Without the variable a point costs one comparison. Threads: any.
 */

void crash_point(const char *name);
