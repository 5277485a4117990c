#pragma once
/*
 * banned.h - calls that must not be in our code; the Makefile includes it before every file.
 *
 * A call of one of these does not compile: its name turns into one that is not declared and says
 * what to use. Only calls are caught (a field may be named `signal`). The system's headers that
 * declare or use them come first, so that these are not touched. A place with a reason says
 * `#undef NAME` and the reason above it.
 * Threads: not applicable. Ownership: none.
 */
#include <alloca.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* no bound on what is written */
#undef strcpy
#define strcpy(...) banned_strcpy_use_base_str_h
#undef strcat
#define strcat(...) banned_strcat_use_base_str_h
#undef strncat
#define strncat(...) banned_strncat_use_base_str_h
#undef sprintf
#define sprintf(...) banned_sprintf_use_base_str_h
#undef vsprintf
#define vsprintf(...) banned_vsprintf_use_base_str_h
#undef gets
#define gets(...) banned_gets_use_base_fd_h
#undef alloca
#define alloca(...) banned_alloca_use_base_mem_h

/* hidden state shared by threads */
#undef strtok
#define strtok(...) banned_strtok_use_base_str_h

/* numbers without an error (S06) */
#undef atoi
#define atoi(...) banned_atoi_use_base_units_h
#undef atol
#define atol(...) banned_atol_use_base_units_h
#undef atoll
#define atoll(...) banned_atoll_use_base_units_h

/* a shell (S09) */
#undef system
#define system(...) banned_system_use_base_proc_h
#undef popen
#define popen(...) banned_popen_use_base_proc_h

/* names that another process can take in between */
#undef mktemp
#define mktemp(...) banned_mktemp_use_base_path_h
#undef tmpnam
#define tmpnam(...) banned_tmpnam_use_base_path_h

/* a forked copy of a program with threads; meanings of signal() differ */
#undef fork
#define fork(...) banned_fork_use_base_proc_h
#undef vfork
#define vfork(...) banned_vfork_use_base_proc_h
#undef signal
#define signal(...) banned_signal_use_signalfd
