#include "runtime/elf.h"

#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/path.h"

enum { HEADERS_MAX = 256, DYNAMIC_MAX = 4096, SONAME_MAX = 256 };

static bool read_at(int fd, void *buf, size_t n, uint64_t offset)
{
    return offset <= INT64_MAX && pread(fd, buf, n, (off_t)offset) == (ssize_t)n;
}

/* File offset of a virtual address, by the loadable segments; UINT64_MAX when it is in none. */
static uint64_t file_offset(const Elf64_Phdr *ph, size_t n, uint64_t address)
{
    for (size_t i = 0; i < n; i++)
        if (ph[i].p_type == PT_LOAD && address >= ph[i].p_vaddr &&
            address - ph[i].p_vaddr < ph[i].p_filesz)
            return ph[i].p_offset + (address - ph[i].p_vaddr);
    return UINT64_MAX;
}

static bool is_library(const Elf64_Ehdr *h)
{
    return memcmp(h->e_ident, ELFMAG, SELFMAG) == 0 && h->e_ident[EI_CLASS] == ELFCLASS64 &&
           h->e_ident[EI_DATA] == ELFDATA2LSB && h->e_type == ET_DYN &&
           h->e_phentsize == sizeof(Elf64_Phdr) && h->e_phnum > 0 && h->e_phnum <= HEADERS_MAX;
}

/* The string at DT_STRTAB + DT_SONAME. */
static char *read_soname(int fd, const Elf64_Phdr *ph, size_t n, const Elf64_Phdr *dynamic)
{
    uint64_t table = 0, name = 0;
    bool has_name = false;
    char text[SONAME_MAX] = "";

    for (uint64_t i = 0; i < dynamic->p_filesz / sizeof(Elf64_Dyn) && i < DYNAMIC_MAX; i++) {
        Elf64_Dyn d;

        if (!read_at(fd, &d, sizeof(d), dynamic->p_offset + i * sizeof(d)) || d.d_tag == DT_NULL)
            break;
        if (d.d_tag == DT_STRTAB)
            table = d.d_un.d_ptr;
        if (d.d_tag == DT_SONAME) {
            name = d.d_un.d_val;
            has_name = true;
        }
    }
    uint64_t at = has_name ? file_offset(ph, n, table) : UINT64_MAX;

    if (at == UINT64_MAX || name > UINT32_MAX ||
        pread(fd, text, sizeof(text) - 1, (off_t)(at + name)) <= 0)
        return NULL;
    return path_is_component(text) ? mem_strdup(text) : NULL;
}

int elf_soname(const char *path, char **ret, struct err *e)
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    Elf64_Phdr ph[HEADERS_MAX];
    Elf64_Ehdr h;

    *ret = NULL;
    if (fd < 0)
        return err_sys(e, "open %s", path);
    if (!read_at(fd, &h, sizeof(h), 0) || !is_library(&h) ||
        !read_at(fd, ph, h.e_phnum * sizeof(*ph), h.e_phoff))
        return 0;
    for (size_t i = 0; i < h.e_phnum; i++)
        if (ph[i].p_type == PT_DYNAMIC)
            *ret = read_soname(fd, ph, h.e_phnum, &ph[i]);
    return 0;
}
