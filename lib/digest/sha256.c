/* SHA-256; see sha256.h. */
#include "digest/sha256.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

struct spb_sha256 {
    EVP_MD_CTX *context; /* owned */
};

static spb_status fail_digest(struct spb_error *err)
{
    return spb_fail(err, SPB_UNSUPPORTED, "computing SHA-256: libcrypto refuses to");
}

spb_status spb_sha256_new(struct spb_sha256 **out, struct spb_error *err)
{
    struct spb_sha256 *digest = calloc(1, sizeof(*digest));

    if (digest == NULL)
        return spb_fail_memory(err, "computing SHA-256");
    digest->context = EVP_MD_CTX_new();
    if (digest->context == NULL) {
        spb_sha256_free(digest);
        return spb_fail_memory(err, "computing SHA-256");
    }
    if (EVP_DigestInit_ex(digest->context, EVP_sha256(), NULL) != 1) {
        spb_sha256_free(digest);
        return fail_digest(err);
    }
    *out = digest;
    return spb_ok();
}

spb_status spb_sha256_add(struct spb_sha256 *digest, const void *data, size_t n,
                          struct spb_error *err)
{
    return EVP_DigestUpdate(digest->context, data, n) == 1 ? spb_ok() : fail_digest(err);
}

spb_status spb_sha256_finish(struct spb_sha256 *digest, uint8_t out[SPB_SHA256_SIZE],
                             struct spb_error *err)
{
    uint8_t hash[EVP_MAX_MD_SIZE];
    unsigned size = 0;

    if (EVP_DigestFinal_ex(digest->context, hash, &size) != 1 || size != SPB_SHA256_SIZE)
        return fail_digest(err);
    memcpy(out, hash, SPB_SHA256_SIZE);
    return spb_ok();
}

void spb_sha256_free(struct spb_sha256 *digest)
{
    if (digest == NULL)
        return;
    EVP_MD_CTX_free(digest->context);
    free(digest);
}

void spb_sha256_text(const uint8_t hash[SPB_SHA256_SIZE], char text[SPB_SHA256_TEXT_SIZE])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < SPB_SHA256_SIZE; i++) {
        text[2 * i] = digits[hash[i] >> 4];
        text[2 * i + 1] = digits[hash[i] & 15];
    }
    text[SPB_SHA256_TEXT_SIZE - 1] = '\0';
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool spb_sha256_parse(const char *text, uint8_t hash[SPB_SHA256_SIZE])
{
    uint8_t found[SPB_SHA256_SIZE];

    if (strlen(text) != SPB_SHA256_TEXT_SIZE - 1)
        return false;
    for (size_t i = 0; i < SPB_SHA256_SIZE; i++) {
        int high = digit_of(text[2 * i]), low = digit_of(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        found[i] = (uint8_t)(high << 4 | low);
    }
    memcpy(hash, found, sizeof(found));
    return true;
}
