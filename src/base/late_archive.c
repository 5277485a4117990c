#include "base/late_archive.h"

#include <pthread.h>

#include "base/late.h"

static struct late_archive table;

static void load(void)
{
    /* With # and ## the names stay names, though the header has made macros of them. */
#define LATE_SYMBOL(f) {#f, &table.to_##f},
    static const struct late_symbol symbols[] = {LATE_ARCHIVE(LATE_SYMBOL)};
#undef LATE_SYMBOL

    late_load("libarchive.so.13", symbols, sizeof(symbols) / sizeof(symbols[0]));
}

const struct late_archive *late_archive(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, load);
    return &table;
}
