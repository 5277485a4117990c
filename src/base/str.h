#pragma once
/*
 * str.h - bounded strings and string lists.
 *
 * A struct str grows to its maximum and no further: every buffer fed from outside is created with
 * the bound that holds for it. It may hold any bytes and always has a NUL behind them.
 * Threads: any, one at a time. Ownership: the holder; str_free / str_list_free.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct err;

struct str {
    char *buf;  /* NULL until something is appended */
    size_t len; /* without the NUL */
    size_t cap;
    size_t max; /* most bytes, without the NUL */
};

#define STR_INIT(max_bytes) ((struct str){.max = (max_bytes)})

void str_free(struct str *s);
DEFINE_AUTO_VALUE(str, str_free)

/* Append; -1 when the maximum would be passed (nothing is appended then). */
int str_append(struct str *s, const void *data, size_t n) MUST_CHECK;
int str_append_text(struct str *s, const char *text) MUST_CHECK;
int str_appendf(struct str *s, const char *fmt, ...) PRINTF_LIKE(2, 3) MUST_CHECK;
void str_clear(struct str *s);
/* "" when empty; borrowed until the next change. */
const char *str_text(const struct str *s);
/* Hand over the buffer (never NULL), leaving s empty. */
char *str_take(struct str *s);

bool str_eq(const char *a, const char *b); /* both may be NULL */
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);

/*
 * Make foreign bytes safe to show: printable ASCII stays, everything else becomes \xNN, at most
 * `size - 1` bytes, a cut is marked "...". Returns dst. For log lines, errors and terminals (S07).
 */
char *str_escape(char *dst, size_t size, const void *data, size_t n);
#define STR_SHOW_MAX 200
/* str_escape of a NUL-terminated text into a buffer of the caller's: char b[STR_SHOW_MAX]. */
#define str_show(buf, text) str_escape((buf), sizeof(buf), (text), strlen(text))

/*
 * What may go to the bundle service: ASCII only (other bytes dropped), at most `max` bytes, the cut
 * marked " [cut]" (B052, D83). Returns a new string.
 */
char *str_ascii(const char *text, size_t max);

/* True when the n bytes are well-formed UTF-8 without NUL. */
bool str_is_utf8(const void *data, size_t n);

struct str_list {
    char **items; /* NULL-terminated, or NULL when n is 0 and nothing was ever added */
    size_t n;
};

void str_list_free(struct str_list *l);
DEFINE_AUTO_VALUE(str_list, str_list_free)
void str_list_add(struct str_list *l, const char *s); /* copies */
void str_list_take(struct str_list *l, char *s);      /* takes ownership */
void str_list_copy(struct str_list *dst, const struct str_list *src);
bool str_list_has(const struct str_list *l, const char *s);
/* Split at each occurrence of sep; empty parts are kept. */
void str_list_split(struct str_list *l, const char *text, char sep);
char *str_list_join(const struct str_list *l, const char *sep);

/* Environment lists ("NAME=value"): set or replace NAME. */
void str_list_setenv(struct str_list *l, const char *name, const char *value);
/* Value of NAME, or NULL; borrowed. */
const char *str_list_getenv(const struct str_list *l, const char *name);
