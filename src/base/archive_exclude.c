#include <fnmatch.h>
#include <string.h>

#include "base/archive.h"
#include "base/mem.h"

/*
 * As GNU tar's --exclude without other switches: wildcards match '/', a pattern may begin at the start of the name or after
 * any '/', what lies below a matched directory is matched too, a '/' at the pattern's end counts for nothing.
 */
static bool matches(const char *pattern, const char *path)
{
    for (const char *p = path; p; p = strchr(p, '/') ? strchr(p, '/') + 1 : NULL)
        if (fnmatch(pattern, p, FNM_LEADING_DIR) == 0)
            return true;
    return false;
}

bool archive_excluded(const struct str_list *patterns, const char *path)
{
    for (size_t i = 0; patterns && i < patterns->n; i++) {
        AUTO_FREE char *pattern = mem_strdup(patterns->items[i]);
        size_t n = strlen(pattern);

        while (n > 1 && pattern[n - 1] == '/')
            pattern[--n] = '\0';
        if (n && matches(pattern, path))
            return true;
    }
    return false;
}
