#pragma once
/*
 * treesum.h - a sum over a tree that does not depend on order: taken while the tree is written, taken again by
 * walking it, and equal unless something was lost or changed since.
 *
 * In it: the name of every entry; of each regular file mode, owner, size and a CRC of the content; of links
 * their targets; of devices and FIFOs mode and number. Not in it: times, attributes, and which directory an
 * entry is in. It is made against accidents (power cuts, bad disks, a hand that slipped), not against somebody
 * who can write to the tree: who can, can write the sum, too.
 * Threads: any; a struct is its holder's.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/cleanup.h"

struct err;
struct cancel;

struct treesum {
    uint64_t sum, entries;
};
#define TREESUM_TEXT_MAX 40

/* One more entry of that name (its last part), whatever it is. */
void treesum_name(struct treesum *s, const char *name);
/* One more file, link or node; a hard link adds a name and no more. */
void treesum_file(struct treesum *s, mode_t mode, uid_t uid, gid_t gid, uint64_t size,
                  uint32_t crc);
void treesum_link(struct treesum *s, const char *target);
void treesum_node(struct treesum *s, mode_t mode, dev_t rdev);

/* CRC-32C of a content: begin with TREESUM_CRC; n zero bytes take no longer than one. */
#define TREESUM_CRC UINT32_MAX
uint32_t treesum_crc(uint32_t crc, const void *data, size_t n);
uint32_t treesum_crc_zeros(uint32_t crc, uint64_t n);

/* Of what is beneath dirfd. Reads every byte that is not a hole. */
int treesum_of(int dirfd, struct cancel *cancel, struct treesum *ret, struct err *e) MUST_CHECK;

/* "0123456789abcdef-17": sum and count. */
void treesum_text(const struct treesum *s, char ret[TREESUM_TEXT_MAX]);
