#pragma once
/*
 * images_text.h - what the user reads about an image (protocol 8.1-8.5). Pure.
 *
 * Threads: any. Ownership: all results are new strings. Error texts are copied as they are, never used as
 * formats (D32, B156).
 */
#include <stdint.h>

struct oci_progress;
struct oci_ref;

/* The image as the bundle names it, with its ":latest" where that was left out (B146). */
char *images_text_name(const char *image, const struct oci_ref *ref);
/* "Downloading 20.32MB/28.54MB (71% done)", "Extracting …", or "" (B150). */
char *images_text_progress(const struct oci_progress *p);
/* "The size of {image}: {size} exceeds the maximum image size allowed {limit}." (B152) */
char *images_text_too_big(const char *name, uint64_t size, uint64_t limit);
