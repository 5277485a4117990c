#pragma once
/*
 * test.h - what every unit test program includes: cmocka with what it needs in front.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/err.h"

/* For names that the machine has once: the same program runs as built with a sanitizer, at the same time. */
#if defined(__SANITIZE_ADDRESS__)
#define TEST_VARIANT "-asan"
#elif defined(__SANITIZE_THREAD__)
#define TEST_VARIANT "-tsan"
#else
#define TEST_VARIANT ""
#endif

/* 0 or print the error and fail. */
#define assert_ok(expr, e)                       \
    do {                                         \
        if ((expr) < 0)                          \
            fail_msg("%s: %s", #expr, (e)->msg); \
    } while (0)

#define assert_has(text, part)                                          \
    do {                                                                \
        if (!strstr((text), (part)))                                    \
            fail_msg("\"%s\" does not contain \"%s\"", (text), (part)); \
    } while (0)
