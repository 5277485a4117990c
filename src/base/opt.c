#include "base/opt.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"

#define AT(base, offset, type) ((type *)(void *)((char *)(base) + (offset)))

static int bad_choice(const struct opt *o, const char *value, struct err *e)
{
    struct str list = STR_INIT(400);
    char shown[STR_SHOW_MAX];

    for (size_t i = 0; o->choices[i]; i++)
        if (str_appendf(&list, "%s'%s'", i ? ", " : "", o->choices[i]) < 0)
            break;
    err_set(e, ERR_USER, "argument --%s: invalid choice: '%s' (choose from %s)", o->name,
            str_show(shown, value), str_text(&list));
    str_free(&list);
    return -1;
}

static int set_choice(const struct opt *o, const char *value, char **slot, struct err *e)
{
    for (size_t i = 0; o->choices[i]; i++)
        if (str_eq(o->choices[i], value)) {
            mem_replace(slot, value);
            return 0;
        }
    return bad_choice(o, value, e);
}

static int set_int(const struct opt *o, const char *value, int64_t *slot, struct err *e)
{
    bool any = o->min == 0 && o->max == 0;
    char shown[STR_SHOW_MAX];
    int64_t v;

    if (units_i64(value, INT64_MIN + 1, INT64_MAX, &v, e) < 0)
        return err_set(e, ERR_USER, "argument --%s: invalid int value: '%s'", o->name,
                       str_show(shown, value));
    if (!any && (v < o->min || v > o->max))
        return err_set(e, ERR_USER, "argument --%s: %lld is not between %lld and %lld", o->name,
                       (long long)v, (long long)o->min, (long long)o->max);
    *slot = v;
    return 0;
}

static int set_value(const struct opt *o, const char *value, void *options, struct err *e)
{
    char shown[STR_SHOW_MAX];

    switch (o->type) {
    case OPT_FLAG: *AT(options, o->offset, bool) = true; return 0;
    case OPT_STR: mem_replace(AT(options, o->offset, char *), value); return 0;
    case OPT_INT: return set_int(o, value, AT(options, o->offset, int64_t), e);
    case OPT_SIZE:
        if (units_size(value, AT(options, o->offset, int64_t), e) < 0)
            return err_set(e, ERR_USER, "argument --%s: invalid parse_size value: '%s'", o->name,
                           str_show(shown, value));
        return 0;
    case OPT_CHOICE: return set_choice(o, value, AT(options, o->offset, char *), e);
    case OPT_LIST: str_list_add(AT(options, o->offset, struct str_list), value); return 0;
    }
    return err_set(e, ERR_BUG, "flag --%s has no type", o->name);
}

void opt_defaults(const struct opt *table, void *options)
{
    struct err e = ERR_INIT;

    for (const struct opt *o = table; o->name; o++) {
        int rc = o->def && o->type != OPT_FLAG ? set_value(o, o->def, options, &e) : 0;

        BUG_ON(rc < 0);
    }
}

/* Exact name, else the only name it abbreviates. */
static int find_long(const struct opt *table, const char *name, size_t n, const struct opt **ret,
                     struct err *e)
{
    struct str candidates = STR_INIT(300);
    char shown[STR_SHOW_MAX];
    unsigned found = 0;

    for (const struct opt *o = table; o->name; o++) {
        if (strncmp(o->name, name, n) != 0)
            continue;
        if (o->name[n] == '\0') {
            str_free(&candidates);
            *ret = o;
            return 0;
        }
        *ret = o;
        int full UNUSED = str_appendf(&candidates, "%s--%s", found ? ", " : "", o->name);
        found++;
    }
    str_escape(shown, sizeof(shown), name, n);
    if (found > 1)
        err_set(e, ERR_USER, "ambiguous option: --%s could match %s", shown, str_text(&candidates));
    else if (!found)
        err_set(e, ERR_USER, "unrecognized arguments: --%s", shown);
    str_free(&candidates);
    return found == 1 ? 0 : -1;
}

/* "--name", "--name=value", "--name value". Returns how many arguments were used, -1 with e. */
static int parse_long(const struct opt *table, char **argv, int left, void *options, bool *help,
                      struct err *e)
{
    const char *name = argv[0] + 2;
    const char *equals = strchr(name, '=');
    size_t n = equals ? (size_t)(equals - name) : strlen(name);
    const struct opt *o = NULL;

    if (n == 4 && memcmp(name, "help", 4) == 0) {
        *help = true;
        return 1;
    }
    if (find_long(table, name, n, &o, e) < 0)
        return -1;
    if (o->type == OPT_FLAG) {
        if (equals)
            return err_set(e, ERR_USER, "argument --%s: ignored explicit argument '%.80s'", o->name,
                           equals + 1);
        return set_value(o, NULL, options, e) < 0 ? -1 : 1;
    }
    if (equals)
        return set_value(o, equals + 1, options, e) < 0 ? -1 : 1;
    /* As argparse: a following flag is not taken as the value; "-" and "-5" are. */
    if (left < 2 || (argv[1][0] == '-' && argv[1][1] == '-'))
        return err_set(e, ERR_USER, "argument --%s: expected one argument", o->name);
    return set_value(o, argv[1], options, e) < 0 ? -1 : 2;
}

static int parse_short(const struct opt *table, char **argv, int left, void *options, bool *help,
                       struct err *e)
{
    for (const char *p = argv[0] + 1; *p; p++) {
        const struct opt *o = table;

        if (*p == 'h') {
            *help = true;
            continue;
        }
        while (o->name && o->short_name != *p)
            o++;
        if (!o->name)
            return err_set(e, ERR_USER, "unrecognized arguments: %.80s", argv[0]);
        if (o->type == OPT_FLAG) {
            if (set_value(o, NULL, options, e) < 0)
                return -1;
            continue;
        }
        if (p[1])
            return set_value(o, p + 1, options, e) < 0 ? -1 : 1;
        if (left < 2)
            return err_set(e, ERR_USER, "argument -%c: expected one argument", *p);
        return set_value(o, argv[1], options, e) < 0 ? -1 : 2;
    }
    return 1;
}

int opt_parse(const struct opt *table, int argc, char **argv, bool stop_at_word, void *options,
              struct str_list *words, bool *help, struct err *e)
{
    int i = 1;

    while (i < argc) {
        const char *arg = argv[i];
        int used;

        if (str_eq(arg, "--")) {
            i++;
            break;
        }
        if (arg[0] != '-' || !arg[1]) {
            if (stop_at_word)
                return i;
            str_list_add(words, arg);
            i++;
            continue;
        }
        used = arg[1] == '-' ? parse_long(table, argv + i, argc - i, options, help, e)
                             : parse_short(table, argv + i, argc - i, options, help, e);
        if (used < 0)
            return -1;
        i += used;
    }
    if (!stop_at_word && words)
        for (; i < argc; i++)
            str_list_add(words, argv[i]);
    return i;
}

static char *trim(char *s)
{
    s += strspn(s, " \t");
    size_t n = strlen(s);

    while (n && strchr(" \t\r\n", s[n - 1]))
        s[--n] = '\0';
    return s;
}

/* Whether a flag line says yes: "flag", "flag = true"; "flag = false" leaves the default. */
static int parse_flag_line(const struct opt *o, const char *value, void *options, struct err *e)
{
    static const char *const yes[] = {"true", "yes", "on", "1"};
    static const char *const no[] = {"false", "no", "off", "0"};

    if (!value)
        return set_value(o, NULL, options, e);
    for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
        if (str_eq(value, yes[i]) || str_eq(value, no[i])) {
            *AT(options, o->offset, bool) = str_eq(value, yes[i]);
            return 0;
        }
    }
    return err_set(e, ERR_USER, "%s is true or false, not \"%.80s\"", o->name, value);
}

static int parse_line(const struct opt *table, char *line, void *options, struct err *e)
{
    const struct opt *o = table;
    char *name = trim(line);
    char *value = strchr(name, '=');

    if (!*name || *name == '#')
        return 0;
    if (value) {
        *value = '\0';
        value = trim(value + 1);
        name = trim(name);
    }
    while (o->name && !str_eq(o->name, name))
        o++;
    if (!o->name)
        return err_set(e, ERR_USER, "unknown setting \"%.80s\"", name);
    if (o->type == OPT_FLAG)
        return parse_flag_line(o, value, options, e);
    if (!value)
        return err_set(e, ERR_USER, "%s needs a value: %s = …", name, name);
    return set_value(o, value, options, e);
}

int opt_parse_file(const struct opt *table, const char *path, void *options, struct err *e)
{
    FILE *f = fopen(path, "re");
    AUTO_FREE char *line = NULL;
    size_t size = 0;
    int rc = 0;

    if (!f)
        return err_sys(e, "open %s", path);
    for (unsigned n = 1; rc == 0 && getline(&line, &size, f) >= 0; n++)
        if ((rc = parse_line(table, line, options, e)) < 0)
            err_wrap(e, "%s line %u", path, n);
    fclose(f);
    return rc;
}

static void print_row(const struct opt *o, FILE *out)
{
    char left[80];
    int n = 0;

    if (o->short_name)
        n = snprintf(left, sizeof(left), "-%c, ", o->short_name);
    snprintf(left + n, sizeof(left) - (size_t)n, "--%s%s%s", o->name, o->arg ? " " : "",
             o->arg ? o->arg : "");
    if (strlen(left) < 26)
        fprintf(out, "  %-26s %s", left, o->help ? o->help : "");
    else
        fprintf(out, "  %s\n  %-26s %s", left, "", o->help ? o->help : "");
    if (o->def && o->type != OPT_FLAG)
        fprintf(out, " (default: %s)", o->def);
    fputc('\n', out);
}

/* roff reads a leading dot or quote as a request, a backslash as an escape and '-' as a hyphen. */
static void print_roff(const char *text, FILE *out)
{
    for (const char *p = text; *p; p++) {
        if (*p == '\\')
            fputs("\\e", out);
        else if (*p == '-')
            fputs("\\-", out);
        else if ((*p == '.' || *p == '\'') && p == text)
            fprintf(out, "\\&%c", *p);
        else
            fputc(*p, out);
    }
}

static void print_choices(const struct opt *o, FILE *out)
{
    for (size_t i = 0; o->type == OPT_CHOICE && o->choices && o->choices[i]; i++) {
        fputs(i ? ", \\fB" : ". One of: \\fB", out);
        print_roff(o->choices[i], out);
        fputs("\\fR", out);
    }
}

void opt_print_man(const struct opt *table, FILE *out)
{
    for (const struct opt *o = table; o->name; o++) {
        if (o->group)
            fprintf(out, ".SS %s\n", o->group);
        fputs(".TP\n.B ", out);
        if (o->short_name)
            fprintf(out, "\\-%c, ", o->short_name);
        fputs("\\-\\-", out);
        print_roff(o->name, out);
        if (o->arg)
            fprintf(out, " \\fI%s\\fR", o->arg);
        fputc('\n', out);
        print_roff(o->help ? o->help : "", out);
        print_choices(o, out);
        if (o->def && o->type != OPT_FLAG) {
            fputs(". Default: ", out);
            print_roff(o->def, out);
        }
        fputs(".\n", out);
    }
}

static void print_help_roff(const struct opt *table, const char *usage, const char *about,
                            FILE *out)
{
    fputs(".PP\n.B ", out);
    print_roff(usage, out);
    if (about && about[0]) {
        fputs("\n.PP\n", out);
        print_roff(about, out);
    }
    fputc('\n', out);
    opt_print_man(table, out);
}

void opt_print_help(const struct opt *table, const char *usage, const char *about, FILE *out)
{
    const char *format = getenv("CW_HELP");

    if (format && strcmp(format, "man") == 0) {
        print_help_roff(table, usage, about, out);
        return;
    }
    fprintf(out, "usage: %s\n\n", usage);
    if (about)
        fprintf(out, "%s\n\n", about);
    fputs("options:\n  -h, --help                 show this and exit\n", out);
    for (const struct opt *o = table; o->name; o++) {
        if (o->group)
            fprintf(out, "\n%s:\n", o->group);
        print_row(o, out);
    }
}

void opt_free(const struct opt *table, void *options)
{
    for (const struct opt *o = table; o->name; o++) {
        if (o->type == OPT_STR || o->type == OPT_CHOICE)
            mem_replace(AT(options, o->offset, char *), NULL);
        else if (o->type == OPT_LIST)
            str_list_free(AT(options, o->offset, struct str_list));
    }
}
