#include "base/late_crypto.h"

#include <pthread.h>

#include "base/late.h"

static struct late_crypto table;

static void load(void)
{
    /* With # and ## the names stay names, though the header has made macros of them. */
#define LATE_SYMBOL(f) {#f, &table.to_##f},
    static const struct late_symbol symbols[] = {LATE_CRYPTO(LATE_SYMBOL)};
#undef LATE_SYMBOL

    late_load("libcrypto.so.3", symbols, sizeof(symbols) / sizeof(symbols[0]));
}

const struct late_crypto *late_crypto(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, load);
    return &table;
}
