#pragma once
/*
 * units.h - strict numbers, sizes, durations and CPU lists.
 *
 * Text to number takes the whole text and nothing else (S06). Threads: any. Blocks: never.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct err;

/* Decimal digits only (i64: an optional leading '-'), within [min, max]. ERR_USER. */
int units_u64(const char *text, uint64_t max, uint64_t *ret, struct err *e) MUST_CHECK;
int units_i64(const char *text, int64_t min, int64_t max, int64_t *ret, struct err *e) MUST_CHECK;
/* Octal digits only, at most 07777. */
int units_mode(const char *text, uint32_t *ret, struct err *e) MUST_CHECK;

/*
 * CodaLab size: "<number>[k|m|g|t]" in binary units, protocol appendix A.1 (B202): a bare number must
 * be an integer, with a unit it may be decimal with exponent, truncated. May be negative.
 * Error text: "Invalid size: {s}, expected <number>[<k|m|g|t>]".
 */
int units_size(const char *text, int64_t *ret, struct err *e) MUST_CHECK;
/* "10s", "5m", "3d", "2h", bare seconds; result in seconds. */
int units_duration(const char *text, uint64_t *ret_s, struct err *e) MUST_CHECK;

#define UNITS_TEXT_MAX 32
/* size_str of appendix A.1 (B212): "1.5k", "10m"; with bytes, " bytes" is the unit below 1 KiB.
 * Returns buf, or NULL from 1024 t on. */
char *units_size_str(char buf[UNITS_TEXT_MAX], double n, bool bytes);
/* duration_str of appendix A.2 (B212). */
char *units_duration_str(char buf[UNITS_TEXT_MAX], double seconds);
/* Docker's decimal sizes: "20.32MB" (protocol 8.5). */
char *units_decimal_str(char buf[UNITS_TEXT_MAX], uint64_t n);

/* A set of small integers (CPUs, memory nodes). */
#define UNITS_CPU_MAX 4096
struct cpu_set {
    uint64_t bits[UNITS_CPU_MAX / 64];
};
/* The kernel's list form: "0-3,8,10-11"; empty text is the empty set. */
int cpu_set_parse(const char *text, struct cpu_set *ret, struct err *e) MUST_CHECK;
/* The same form; a new string. */
char *cpu_set_text(const struct cpu_set *s);
void cpu_set_add(struct cpu_set *s, unsigned cpu);
void cpu_set_del(struct cpu_set *s, unsigned cpu);
bool cpu_set_has(const struct cpu_set *s, unsigned cpu);
unsigned cpu_set_count(const struct cpu_set *s);
void cpu_set_and(struct cpu_set *s, const struct cpu_set *other);
void cpu_set_or(struct cpu_set *s, const struct cpu_set *other);
void cpu_set_minus(struct cpu_set *s, const struct cpu_set *other);
/* Next member at or after `from`, or -1. */
int cpu_set_next(const struct cpu_set *s, unsigned from);
