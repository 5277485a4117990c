#pragma once
/*
 * scheme.h - which insecure registries were found to speak plain http, so that not every look at an image costs a TLS
 * handshake that is bound to fail. Inside of oci/.
 *
 * Only the order changes by it: what may be spoken to by http at all is decided by oci_registries_bases, each time. Forgotten
 * after ten minutes, with the process, and when the host answers by https.
 * Threads: any. Ownership: one table for the process, bounded.
 */
#include <stdbool.h>
#include <stdint.h>

#define OCI_SCHEME_KEEP_NS (600ull * 1000000000)

/* authority: "host:port"; now_ns: clock_now_ns(). */
void oci_scheme_note(const char *authority, bool plain, uint64_t now_ns);
bool oci_scheme_is_plain(const char *authority, uint64_t now_ns);
