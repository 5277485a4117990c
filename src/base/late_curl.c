#include "base/late_curl.h"

#include <pthread.h>

#include "base/late.h"

static struct late_curl table;

static void load(void)
{
    /* With # and ## the names stay names, though the header has made macros of them. */
#define LATE_SYMBOL(f) {#f, &table.to_##f},
    static const struct late_symbol symbols[] = {LATE_CURL(LATE_SYMBOL)};
#undef LATE_SYMBOL

    late_load("libcurl.so.4", symbols, sizeof(symbols) / sizeof(symbols[0]));
}

const struct late_curl *late_curl(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, load);
    return &table;
}
