/*
 * SHA-256 of bytes that come in pieces. The one user of OpenSSL's digests; server and CLI share it.
 * A digest is one thread's at a time.
 */
#ifndef SPB_DIGEST_SHA256_H
#define SPB_DIGEST_SHA256_H

#include <stddef.h>
#include <stdint.h>

#include "spaceblock/status.h"

#define SPB_SHA256_SIZE 32u

struct spb_sha256;

SPB_MUST_USE spb_status spb_sha256_new(struct spb_sha256 **digest, struct spb_error *err);
SPB_MUST_USE spb_status spb_sha256_add(struct spb_sha256 *digest, const void *data, size_t n,
                                       struct spb_error *err);
/* Of all that was added; nothing can be added any more. */
SPB_MUST_USE spb_status spb_sha256_finish(struct spb_sha256 *digest, uint8_t out[SPB_SHA256_SIZE],
                                          struct spb_error *err);
/* Accepts NULL. */
void spb_sha256_free(struct spb_sha256 *digest);

/* 64 lower-case digits and a NUL. */
#define SPB_SHA256_TEXT_SIZE (2u * SPB_SHA256_SIZE + 1u)
void spb_sha256_text(const uint8_t hash[SPB_SHA256_SIZE], char text[SPB_SHA256_TEXT_SIZE]);
/* From exactly 64 digits; false for anything else. */
bool spb_sha256_parse(const char *text, uint8_t hash[SPB_SHA256_SIZE]);

#endif
