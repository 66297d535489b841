/* SHA-256: the standard's examples, in pieces of any length; the hash as text and back. */
#include <criterion/criterion.h>
#include <string.h>

#include "digest/sha256.h"

/* FIPS 180-4's examples, and a million of "a". */
static const struct {
    const char *text;
    size_t repeat;
    const char *hash;
} vectors[] = {
    {"", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {"a", 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
};

static void hash(const char *text, size_t repeat, size_t piece, uint8_t out[SPB_SHA256_SIZE])
{
    struct spb_sha256 *digest;
    struct spb_error err;

    cr_assert(spb_is_ok(spb_sha256_new(&digest, &err)), "%s", err.text);
    for (size_t i = 0; i < repeat; i++) {
        size_t size = strlen(text);

        for (size_t at = 0; at < size; at += piece)
            cr_assert(spb_is_ok(
                spb_sha256_add(digest, text + at, size - at < piece ? size - at : piece, &err)));
    }
    cr_assert(spb_is_ok(spb_sha256_finish(digest, out, &err)), "%s", err.text);
    spb_sha256_free(digest);
}

Test(sha256, examples_of_the_standard)
{
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        for (size_t piece = 1; piece < 70; piece += 23) {
            uint8_t found[SPB_SHA256_SIZE];
            char text[SPB_SHA256_TEXT_SIZE];

            hash(vectors[i].text, vectors[i].repeat, piece, found);
            spb_sha256_text(found, text);
            cr_assert_str_eq(text, vectors[i].hash);
        }
    }
}

Test(sha256, text_and_back)
{
    uint8_t found[SPB_SHA256_SIZE], before[SPB_SHA256_SIZE];
    char text[SPB_SHA256_TEXT_SIZE];

    cr_assert(spb_sha256_parse(vectors[1].hash, found));
    spb_sha256_text(found, text);
    cr_assert_str_eq(text, vectors[1].hash);
    cr_assert(spb_sha256_parse("BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD",
                               before));
    cr_assert(memcmp(found, before, sizeof(found)) == 0);
}

Test(sha256, what_is_no_hash_is_refused)
{
    char text[SPB_SHA256_TEXT_SIZE + 1];
    uint8_t found[SPB_SHA256_SIZE] = {7};

    memcpy(text, vectors[1].hash, SPB_SHA256_TEXT_SIZE);
    text[63] = '\0';
    cr_assert(!spb_sha256_parse(text, found), "63 digits");
    memcpy(text, vectors[1].hash, SPB_SHA256_TEXT_SIZE);
    memcpy(text + 64, "0", 2);
    cr_assert(!spb_sha256_parse(text, found), "65 digits");
    cr_assert(!spb_sha256_parse("", found));
    memcpy(text, vectors[1].hash, SPB_SHA256_TEXT_SIZE);
    text[10] = 'g';
    cr_assert(!spb_sha256_parse(text, found));
    cr_assert_eq(found[0], 7, "a failure wrote something");
}

Test(sha256, freeing_nothing)
{
    spb_sha256_free(NULL);
}
