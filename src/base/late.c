#include "base/late.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void late_load(const char *library, const struct late_symbol *symbols, size_t n)
{
    void *handle = dlopen(library, RTLD_LAZY | RTLD_LOCAL);

    for (size_t i = 0; i < n; i++) {
        void *symbol = handle ? dlsym(handle, symbols[i].name) : NULL;

        if (!symbol) {
            fprintf(stderr, "%s cannot be loaded: %s\n", library, dlerror());
            abort();
        }
        memcpy(symbols[i].slot, &symbol, sizeof(symbol));
    }
}
