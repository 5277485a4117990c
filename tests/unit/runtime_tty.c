/* The keys that leave a program running. */
#include <string.h>

#include "base/err.h"
#include "runtime/tty.h"
#include "test.h"

static void keys_are_found_wherever_reads_end(void **state UNUSED)
{
    static const struct {
        const char *reads[4]; /* as they come from the terminal */
        const char *sent;
        bool left;
    } rows[] = {
        {{"plain"}, "plain", false},
        {{"a\x10\x11"
          "b"},
         "a",
         true},
        {{"a\x10", "\x11"
                   "b"},
         "a",
         true},
        {{"\x10", "x"}, "\x10x", false},
        {{"\x10\x10\x11"}, "\x10", true},
        {{"\x10", "\x10", "y"}, "\x10\x10y", false},
        {{"\x11"}, "\x11", false},
        {{"\x10"}, "", false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct tty_keys k = {false};
        char all[64] = "";
        size_t have = 0;
        bool left = false;

        for (size_t r = 0; r < 4 && rows[i].reads[r] && !left; r++)
            have +=
                tty_filter_keys(&k, rows[i].reads[r], strlen(rows[i].reads[r]), all + have, &left);
        all[have] = '\0';
        assert_string_equal(all, rows[i].sent);
        assert_int_equal(left, rows[i].left);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(keys_are_found_wherever_reads_end)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
