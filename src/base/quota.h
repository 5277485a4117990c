#pragma once
/*
 * quota.h - a byte limit on a directory tree by project quota, where the file system has it on (ext4, XFS).
 *
 *   quota_limit ──► (writes beneath end with EDQUOT, on XFS with ENOSPC) ──► quota_usage, at no cost ──► quota_lift before it is removed
 *
 * The directory's project id is its own: one out of a range of ours that nobody uses, chosen under a lock that all
 * processes of the host share (/run/cworker-quota-*.lock). Everything made beneath
 * inherits it, so nothing else need be remembered: after a restart the directory still knows it.
 * Threads: any. Blocks: shortly; quota_limit walks what is in the directory already.
 */
#include <stdint.h>

#include "base/cleanup.h"

struct err;

/*
 * Hold a directory and all beneath to `bytes` of disk blocks.
 *   seed  what the search for a free id starts with: a hash of the name
 * Errors: ERR_ABSENT when the file system has no project quota; then nothing has been changed.
 */
int quota_limit(int dirfd, uint32_t seed, uint64_t bytes, struct err *e) MUST_CHECK;
/* Bytes used and allowed. ERR_ABSENT when the directory has no limit of ours. */
int quota_usage(int dirfd, uint64_t *ret_used, uint64_t *ret_limit, struct err *e) MUST_CHECK;
/* Take the limit away, so that the file system forgets the id; what has none is left alone. */
void quota_lift(int dirfd);
