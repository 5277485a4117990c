#pragma once
/*
 * mem.h - allocation that aborts.
 *
 * For small objects of ours. A size from outside is first held against bounds.h; then these may
 * be used. All results are released with free() (AUTO_FREE).
 * Threads: any.
 */
#include <stddef.h>

#include "base/cleanup.h"

void *mem_alloc(size_t size) __attribute__((malloc, returns_nonnull));
/* Zeroed. */
void *mem_zalloc(size_t size) __attribute__((malloc, returns_nonnull));
/* n * size bytes, zeroed; aborts on overflow. */
void *mem_array(size_t n, size_t size) __attribute__((malloc, returns_nonnull));
void *mem_realloc(void *p, size_t n, size_t size) __attribute__((returns_nonnull));
/* NULL in, NULL out. */
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t n);
void *mem_dup(const void *p, size_t size);
char *mem_printf(const char *fmt, ...) PRINTF_LIKE(1, 2) __attribute__((returns_nonnull));

/* Replace *slot by a copy of s (may be NULL), freeing the old one. */
void mem_replace(char **slot, const char *s);

#define mem_new(type) ((type *)mem_zalloc(sizeof(type)))
