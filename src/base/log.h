#pragma once
/*
 * log.h - levelled log lines on stderr.
 *
 * Two forms: LOG_STYLE_WORKER "{YYYY-MM-DD HH:MM:SS,mmm} {message}" (protocol 10.4), and with a
 * "<N>" prefix when stderr is the journal (JOURNAL_STREAM). Messages are key=value where they carry
 * data. Never tokens, passwords, URLs with a query, environments (S10).
 * Rooms and base log at debug only; the worker logs a failure once, where it stops travelling.
 * Threads: any; each line is one write(2).
 */
#include <stdbool.h>

#include "base/cleanup.h"

enum log_level { LOG_L_ERR = 3, LOG_L_WARN = 4, LOG_L_INFO = 6, LOG_L_DEBUG = 7 };

void log_setup(enum log_level most, bool timestamps);
bool log_wants(enum log_level level);
void log_write(enum log_level level, const char *file, int line, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

#define log_err(...)  log_write(LOG_L_ERR, __FILE__, __LINE__, __VA_ARGS__)
#define log_warn(...) log_write(LOG_L_WARN, __FILE__, __LINE__, __VA_ARGS__)
#define log_info(...) log_write(LOG_L_INFO, __FILE__, __LINE__, __VA_ARGS__)
#define log_debug(...)                                               \
    do {                                                             \
        if (log_wants(LOG_L_DEBUG))                                  \
            log_write(LOG_L_DEBUG, __FILE__, __LINE__, __VA_ARGS__); \
    } while (0)
