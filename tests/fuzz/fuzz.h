#pragma once
/*
 * fuzz.h - what every fuzz target includes. The target defines LLVMFuzzerTestOneInput; under libFuzzer (tests/fuzz/run,
 * CW_LIBFUZZER) that is all, else main here gives it each file named, as the corpus tests do.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#ifndef CW_LIBFUZZER
#define FUZZ_FILE_MAX (8 * 1024 * 1024)

static int fuzz_file(const char *path)
{
    FILE *f = fopen(path, "re");
    uint8_t *data = malloc(FUZZ_FILE_MAX), *exact;
    size_t n;

    if (!f || !data) {
        perror(path);
        return 1;
    }
    n = fread(data, 1, FUZZ_FILE_MAX, f);
    fclose(f);
    exact = realloc(data, n ? n : 1); /* so that reading one byte too many is seen */
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    return 0;
}

int main(int argc, char **argv)
{
    int failed = 0;

    for (int i = 1; i < argc; i++)
        failed |= fuzz_file(argv[i]);
    printf("%d inputs\n", argc - 1);
    return failed;
}
#endif
