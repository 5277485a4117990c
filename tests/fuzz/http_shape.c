/* Any bytes as a run's HTTP answer (S62): found whole at the same place, however it arrives. */
#include "base/err.h"
#include "fuzz.h"
#include "worker/reply_netcat.h"

#define REQUEST "GET / HTTP/1.1\r\n\r\n"
#define STEPS   512

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct http_shape by_byte = {0};
    size_t first = 0;

    n = n < STEPS ? n : STEPS;
    while (first <= n && !http_shape_is_whole(&by_byte, REQUEST, (const char *)data, first))
        first++;
    for (size_t k = 0; k <= n; k++) {
        struct http_shape at_once = {0};
        bool whole = http_shape_is_whole(&at_once, REQUEST, (const char *)data, k);

        BUG_ON(whole != (k >= first));
    }
    return 0;
}
