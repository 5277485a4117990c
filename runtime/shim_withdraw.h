#pragma once
/*
 * shim_withdraw.h - a process that is there to wait makes itself small: signals do not end it, its memory is not to be had,
 * the OOM killer looks elsewhere, and of the capabilities only the one to send signals is left (S48).
 *
 * To be called when the processes it looks after exist: one made from a non-dumpable process owns none of its files in /proc,
 * and would be as safe from the OOM killer as we are. Single-threaded programs only.
 */
void shim_withdraw(void);
