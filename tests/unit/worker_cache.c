/* rows: B137 B138 B051 B153 */
/* Which ones go, in which order, as a table. */
#include "test.h"
#include "worker/cache.h"

#define MANY 5

struct row {
    const char *what;
    struct cache_item items[MANY];
    size_t n;
    uint64_t max_bytes, max_key_bytes;
    const char *gone; /* indices in order */
};

static const struct row rows[] = {
    {"nothing there", {{0}}, 0, 1, 1, ""},
    {"no limit, nothing goes", {{.bytes = 1 << 30}, {.bytes = 1, .failed = true}}, 2, 0, 0, ""},
    {"exactly full", {{.bytes = 5}, {.bytes = 5}}, 2, 10, 0, ""},
    {"one byte too much",
     {{.bytes = 5, .last_used = 2}, {.bytes = 6, .last_used = 1}},
     2,
     10,
     0,
     "1"},
    {"oldest first, no more than needed",
     {{.bytes = 4, .last_used = 3}, {.bytes = 4, .last_used = 1}, {.bytes = 4, .last_used = 2}},
     3,
     5,
     0,
     "12"},
    {"failed ones before older good ones",
     {{.bytes = 4, .last_used = 1},
      {.bytes = 4, .last_used = 9, .failed = true},
      {.bytes = 4, .last_used = 2}},
     3,
     8,
     0,
     "1"},
    {"failed ones by last use",
     {{.bytes = 4, .last_used = 9, .failed = true},
      {.bytes = 4, .last_used = 8, .failed = true},
      {.bytes = 4}},
     3,
     4,
     0,
     "10"},
    {"in use stays, even failed, even above the limit",
     {{.bytes = 9, .in_use = true},
      {.bytes = 9, .in_use = true, .failed = true},
      {.bytes = 1, .last_used = 5}},
     3,
     3,
     0,
     "2"},
    {"same age: as they stand", {{.bytes = 4}, {.bytes = 4}, {.bytes = 4}}, 3, 4, 0, "01"},
    {"names count on their own",
     {{.bytes = 9, .key_bytes = 40, .last_used = 2}, {.bytes = 9, .key_bytes = 40, .last_used = 1}},
     2,
     100,
     50,
     "1"},
    {"either limit",
     {{.bytes = 9, .key_bytes = 1, .last_used = 1}, {.bytes = 1, .key_bytes = 9, .last_used = 2}},
     2,
     5,
     9,
     "0"},
    {"what does not help stays",
     {{.bytes = 0, .key_bytes = 9, .last_used = 1}, {.bytes = 9, .key_bytes = 9, .last_used = 2}},
     2,
     5,
     100,
     "1"},
    {"sizes that would wrap around",
     {{.bytes = UINT64_MAX, .last_used = 2}, {.bytes = 2, .last_used = 1}},
     2,
     10,
     0,
     "10"},
};

static void evicts(void **state UNUSED)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        size_t victims[MANY];
        char got[MANY + 1] = "";
        size_t n = cache_evict(rows[i].items, rows[i].n, rows[i].max_bytes, rows[i].max_key_bytes,
                               victims);

        for (size_t k = 0; k < n; k++)
            got[k] = (char)('0' + victims[k]);
        if (strcmp(got, rows[i].gone) != 0)
            fail_msg("%s: \"%s\" went, not \"%s\"", rows[i].what, got, rows[i].gone);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(evicts)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
