/* rows: S19 S62 */
/* Any text as the answer to a range (Content-Range), as Retry-After, and as the place of a redirect, a line each. */
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/http.h"
#include "base/mem.h"
#include "base/str.h"
#include "fuzz.h"
#include "oci/registry_get.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    AUTO_FREE char *text = mem_strndup(n ? (const char *)data : "", n);
    AUTO(str_list) struct str_list lines = {0};
    AUTO(http_response) struct http_response a = {0};

    str_list_split(&lines, text, '\n');
    /* Exactly one text is the range from 100 of 200. */
    BUG_ON(oci_registry_is_range(lines.items[0], 100, 200) !=
           str_eq(lines.items[0], "bytes 100-199/200"));
    str_list_take(&a.headers, mem_printf("retry-after: %s", lines.items[0]));
    if (lines.n > 1)
        str_list_take(&a.headers, mem_printf("date: %s", lines.items[1]));
    BUG_ON(http_retry_after_ns(&a, 60 * NS_PER_S) > 60 * NS_PER_S);
    AUTO_FREE char *next = http_resolve("https://host/v2/x", lines.items[0]);

    if (next) {
        BUG_ON(!str_starts(next, "http://") && !str_starts(next, "https://"));
        BUG_ON(memchr(next, '@', 8 + strcspn(next + 8, "/?#")) != NULL);
    }
    return 0;
}
