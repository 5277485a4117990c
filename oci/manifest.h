#pragma once
/*
 * manifest.h - indexes, manifests and image configurations, OCI and Docker schema 2. Pure.
 *
 * A document is read once, strictly, into a struct (S14): its media type, the type it was served with and
 * its fields agree, or it is refused; sizes are numbers, digests have the grammar (S13), lists are capped.
 * Threads: any. Ownership: *_free releases what *_parse filled.
 * Source: OCI image-spec 1.1 manifest.md, image-index.md, config.md, descriptor.md; Docker image manifest V2
 * schema 2.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/digest.h"
#include "oci/image.h"
#include "oci/platform.h"

struct err;

/* All manifest types we take, for the Accept header. */
extern const char oci_manifest_accept[];

struct oci_desc {
    char digest[DIGEST_TEXT_MAX];
    uint64_t size;
    char media_type[128];
};

enum oci_doc_kind { OCI_DOC_INDEX, OCI_DOC_MANIFEST };

struct oci_index_entry {
    struct oci_desc desc;
    struct oci_platform platform; /* os "" when not said */
};

struct oci_doc {
    enum oci_doc_kind kind;
    /* index */
    struct oci_index_entry *entries;
    size_t n_entries;
    /* manifest */
    struct oci_desc config, *layers;
    size_t n_layers;
};

/* content_type: as served, or NULL; parameters after ";" are ignored. ERR_USER. */
int oci_doc_parse(const char *text, size_t n, const char *content_type, struct oci_doc *ret,
                  struct err *e) MUST_CHECK;
void oci_doc_free(struct oci_doc *d);
DEFINE_AUTO_VALUE(oci_doc, oci_doc_free)

/* The entry that suits host best; ERR_ABSENT names what there is. Borrowed. */
int oci_doc_choose(const struct oci_doc *index, const struct oci_platform *host,
                   const struct oci_desc **ret, struct err *e) MUST_CHECK;

struct oci_config_doc {
    struct image_config config;
    struct str_list diff_ids;
    struct oci_platform platform; /* os "" when not said */
};
int oci_config_parse(const char *text, size_t n, struct oci_config_doc *ret, struct err *e)
    MUST_CHECK;
void oci_config_free(struct oci_config_doc *c);
DEFINE_AUTO_VALUE(oci_config_doc, oci_config_free)
void oci_image_config_free(struct image_config *c);
