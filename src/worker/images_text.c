#include "worker/images_text.h"

#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"
#include "oci/pull.h"
#include "oci/ref.h"

char *images_text_name(const char *image, const struct oci_ref *ref)
{
    if (!ref || ref->digest)
        return mem_strdup(image);
    AUTO_FREE char *suffix = mem_printf(":%s", ref->tag);

    return str_ends(image, suffix) ? mem_strdup(image) : mem_printf("%s%s", image, suffix);
}

static unsigned percent(uint64_t part, uint64_t whole)
{
    return part >= whole ? 100 : (unsigned)((double)part * 100 / (double)whole);
}

char *images_text_progress(const struct oci_progress *p)
{
    const char *verb = p->phase == OCI_DOWNLOADING  ? "Downloading"
                       : p->phase == OCI_EXTRACTING ? "Extracting"
                                                    : NULL;
    char now[UNITS_TEXT_MAX], all[UNITS_TEXT_MAX];

    if (p->phase == OCI_RESOLVING)
        return mem_strdup("Download starting");
    if (!verb)
        return mem_strdup("");
    if (p->total)
        return mem_printf("%s %s/%s (%u%% done)", verb, units_decimal_str(now, p->bytes),
                          units_decimal_str(all, p->total), percent(p->bytes, p->total));
    if (p->layers)
        return mem_printf("%s (%u%% done)", verb, percent(p->layers_done, p->layers));
    return mem_strdup("");
}

char *images_text_too_big(const char *name, uint64_t size, uint64_t limit)
{
    char s[UNITS_TEXT_MAX], l[UNITS_TEXT_MAX];
    const char *size_text = units_size_str(s, (double)size, false),
               *limit_text = units_size_str(l, (double)limit, false);

    return mem_printf("The size of %s: %s exceeds the maximum image size allowed %s.", name,
                      size_text ? size_text : "1024t or more",
                      limit_text ? limit_text : "1024t or more");
}
