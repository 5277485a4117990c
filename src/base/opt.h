#pragma once
/*
 * opt.h - flags by table: parser, --help, config file and man page from one table.
 *
 * Syntax as Python's argparse (protocol 11.1): --flag value, --flag=value, unambiguous abbreviations,
 * the last of repeated flags wins (OPT_LIST collects), -x short forms, "--" ends. Errors print usage
 * and "{prog}: error: {text}" (by the caller from `e`), exit 2 (B199, B200).
 * Threads: single-threaded programs only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/cleanup.h"

struct err;
struct str_list;

enum opt_type {
    OPT_FLAG,   /* bool: set true */
    OPT_STR,    /* char *: replaced (freed by opt_free) */
    OPT_INT,    /* int64_t within [min, max]; error "argument --x: invalid int value: 'v'" */
    OPT_SIZE,   /* int64_t, units_size; error "argument --x: invalid parse_size value: 'v'" */
    OPT_CHOICE, /* char *: one of `choices`, argparse's error text */
    OPT_LIST,   /* struct str_list: appended */
};

struct opt {
    const char *name; /* long name without dashes; NULL ends the table */
    char short_name;  /* or 0 */
    enum opt_type type;
    size_t offset;   /* in the struct of options */
    const char *arg; /* metavariable for help */
    const char *help;
    const char *def;            /* shown default; also parsed into the struct by opt_defaults */
    int64_t min, max;           /* OPT_INT; both 0: any */
    const char *const *choices; /* NULL-terminated */
    const char *group;          /* heading in help, or NULL for the one before */
};

#define OPT_ROW(struct_type, member, nm, sh, ty, ar, de, he)                                     \
    {                                                                                            \
        .name = (nm), .short_name = (sh), .type = (ty), .offset = offsetof(struct_type, member), \
        .arg = (ar), .def = (de), .help = (he)                                                   \
    }

/* Fill defaults (struct zeroed by the caller). */
void opt_defaults(const struct opt *table, void *options);
/* Parse argv[1..]; stops at the first non-flag when stop_at_word (subcommands), else collects words
 * into `words`. Returns the index of the first unparsed argument, or -1 with e (ERR_USER). --help and
 * -h set *help. */
int opt_parse(const struct opt *table, int argc, char **argv, bool stop_at_word, void *options,
              struct str_list *words, bool *help, struct err *e) MUST_CHECK;
/* "flag = value" a line, '#' comments; the long names. ERR_USER names file and line. */
int opt_parse_file(const struct opt *table, const char *path, void *options, struct err *e)
    MUST_CHECK;
/* --help as text; with CW_HELP=man in the environment as a piece of a man page (configs/man). */
void opt_print_help(const struct opt *table, const char *usage, const char *about, FILE *out);
/* The flags as tagged paragraphs of a man page, roff. */
void opt_print_man(const struct opt *table, FILE *out);
void opt_free(const struct opt *table, void *options);
