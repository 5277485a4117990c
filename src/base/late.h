#pragma once
/*
 * late.h - libraries that a program needs seldom are loaded when they are first used.
 *
 * libcurl brings thirty others with it (Kerberos, LDAP, SSH, HTTP/3) and libarchive a dozen (XML, ICU); to map and relocate
 * them took half of the time of `cwrun run`, which fetches nothing when the image is there. A header late_NAME.h lists the
 * functions of one library that we call, takes its place for whoever includes it, and makes the names mean entries of a
 * table that is filled once.
 * Threads: any. A library that is not there ends the program, as it would have at its start: packages depend on it.
 */
#include <stddef.h>

struct late_symbol {
    const char *name;
    void *slot; /* of a pointer to a function */
};
/* Fill all slots from the library, which stays loaded. Aborts with a message when it or one of them is missing. */
void late_load(const char *library, const struct late_symbol *symbols, size_t n);
