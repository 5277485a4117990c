#pragma once
/*
 * elf.h - the soname of a shared library of the host. Threads: any; blocks on disk.
 */
#include "base/cleanup.h"

struct err;

/* New string, or NULL when it has none or is not a 64-bit ELF library of this byte order. Errors: reading it. */
int elf_soname(const char *path, char **ret, struct err *e) MUST_CHECK;
