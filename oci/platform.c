#include "oci/platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/err.h"
#include "base/str.h"
#include "oci/pull.h"

static const struct {
    const char *machine, *arch, *variant;
} machines[] = {
    {"x86_64", "amd64", "v1"},  {"aarch64", "arm64", "v8"},     {"armv7l", "arm", "v7"},
    {"armv8l", "arm", "v7"},    {"armv6l", "arm", "v6"},        {"i386", "386", ""},
    {"i686", "386", ""},        {"ppc64le", "ppc64le", ""},     {"s390x", "s390x", ""},
    {"riscv64", "riscv64", ""}, {"loongarch64", "loong64", ""},
};

/* x86-64 psABI levels; what the compiler's run-time probe covers decides. */
static const char *amd64_level(void)
{
#ifdef __x86_64__
    __builtin_cpu_init();
    bool v2 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt") &&
              __builtin_cpu_supports("ssse3");
    bool v3 = v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") &&
              __builtin_cpu_supports("fma");
    bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
              __builtin_cpu_supports("avx512vl");

    return v4 ? "v4" : v3 ? "v3" : v2 ? "v2" : "v1";
#else
    return "v1";
#endif
}

void oci_platform_host(struct oci_platform *ret)
{
    struct utsname u;
    const char *arch = "unknown", *variant = "";

    uname(&u);
    for (size_t i = 0; i < ARRAY_SIZE(machines); i++) {
        if (!str_eq(machines[i].machine, u.machine))
            continue;
        arch = machines[i].arch;
        variant = machines[i].variant;
    }
    if (str_eq(arch, "amd64"))
        variant = amd64_level();
    *ret = (struct oci_platform){.os = "linux"};
    snprintf(ret->arch, sizeof(ret->arch), "%s", arch);
    snprintf(ret->variant, sizeof(ret->variant), "%s", variant);
}

/* "v7" is 7; what no variant means differs by architecture: the base level, for arm v7, arm64 v8. */
static int level(const char *arch, const char *variant)
{
    if (!*variant)
        return str_eq(arch, "arm") ? 7 : str_eq(arch, "arm64") ? 8 : 1;
    if (variant[0] != 'v' || variant[1] < '1' || variant[1] > '9' || variant[2])
        return -1;
    return variant[1] - '0';
}

int oci_platform_score(const struct oci_platform *host, const struct oci_platform *offered)
{
    if (!str_eq(host->os, offered->os) || !str_eq(host->arch, offered->arch))
        return 0;
    if (str_eq(host->variant, offered->variant))
        return 100;
    int have = level(host->arch, host->variant), want = level(offered->arch, offered->variant);

    return want < 0 || want > have ? 0 : 1 + want;
}

static bool is_word(const char *word, size_t n, size_t max)
{
    return n && n < max && strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789._-") >= n;
}

static int not_a_platform(const char *text, struct err *e)
{
    char shown[STR_SHOW_MAX];

    return err_set(e, ERR_USER, "not a platform (OS/ARCHITECTURE[/VARIANT], as linux/arm64): %s",
                   str_show(shown, text));
}

int oci_platform_parse(const char *text, struct oci_platform *ret, struct err *e)
{
    const char *os = text, *arch = strchr(os, '/'), *variant = arch ? strchr(arch + 1, '/') : NULL;
    struct oci_platform p = {0};

    if (!arch++)
        return not_a_platform(text, e);
    size_t os_n = (size_t)(arch - 1 - os), arch_n = strcspn(arch, "/");

    if (!is_word(os, os_n, sizeof(p.os)) || !is_word(arch, arch_n, sizeof(p.arch)) ||
        (variant && !is_word(variant + 1, strlen(variant + 1), sizeof(p.variant))))
        return not_a_platform(text, e);
    snprintf(p.os, sizeof(p.os), "%.*s", (int)os_n, os);
    snprintf(p.arch, sizeof(p.arch), "%.*s", (int)arch_n, arch);
    snprintf(p.variant, sizeof(p.variant), "%s", variant ? variant + 1 : "");
    for (size_t i = 0; i < ARRAY_SIZE(machines); i++)
        if (str_eq(p.arch, machines[i].machine))
            snprintf(p.arch, sizeof(p.arch), "%s", machines[i].arch);
    *ret = p;
    return 0;
}

char *oci_platform_text(const struct oci_platform *p, char buf[OCI_PLATFORM_TEXT])
{
    snprintf(buf, OCI_PLATFORM_TEXT, "%s/%s%s%s", p->os, p->arch, *p->variant ? "/" : "",
             p->variant);
    return buf;
}

const char *oci_platform_asked(const char *platform)
{
    return platform ? platform : getenv("DOCKER_DEFAULT_PLATFORM");
}

int oci_platform_admits(const char *wanted, const char *offered, bool *ret, struct err *e)
{
    struct oci_platform a, b;

    wanted = oci_platform_asked(wanted);
    *ret = true;
    if (!wanted || !*wanted)
        return 0;
    if (oci_platform_parse(wanted, &a, e) < 0)
        return -1;
    if (*offered && oci_platform_parse(offered, &b, e) == 0)
        *ret = oci_platform_score(&a, &b) > 0;
    err_clear(e);
    return 0;
}
