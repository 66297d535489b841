/* Envelopes: the protocol's byte vectors, every truncation and bit flip, limits and bad fields. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "ttrpc/ttrpc.h"
#include "ttrpc/wire.h"

static size_t from_hex(const char *hex, uint8_t *out)
{
    size_t n = 0;

    for (; *hex != '\0'; hex++) {
        unsigned byte;
        if (*hex == ' ')
            continue;
        cr_assert_eq(sscanf(hex, "%2x", &byte), 1);
        out[n++] = (uint8_t)byte;
        hex++;
    }
    return n;
}

static const char request_hex[] = "0a0768342e4563686f 12044563686f 1a090a0568656c6c6f1007 "
                                  "20a392c3b907 2a0f0a0674656e616e741205616c706861";
static const char response_hex[] = "1217 0a0568656c6c6f1007 220c74656e616e743d616c706861";
static const char error_hex[] = "0a08 0805 1204 6e6f7065";

static struct spb_ttrpc_view view(const char *text)
{
    return (struct spb_ttrpc_view){(const uint8_t *)text, strlen(text)};
}

static bool is_text(struct spb_ttrpc_view view, const char *text)
{
    return view.size == strlen(text) && (view.size == 0 || !memcmp(view.data, text, view.size));
}

static struct spb_ttrpc_request vector_request(void)
{
    struct spb_ttrpc_request request = {.timeout_ns = 1999685923, .metadata_count = 1};

    request.service = view("h4.Echo");
    request.method = view("Echo");
    request.payload = view("\x0a\x05hello\x10\x07");
    request.metadata[0].key = view("tenant");
    request.metadata[0].value = view("alpha");
    return request;
}

static enum spb_code decode_request(const uint8_t *data, size_t n)
{
    struct spb_ttrpc_request request;
    struct spb_error err = {.code = SPB_OK};
    /* Copied to the exact size, so that a sanitizer sees a read past the end. */
    uint8_t *copy = malloc(n == 0 ? 1 : n);
    memcpy(copy, data, n);
    spb_status status = spb_ttrpc_request_decode(copy, n, &request, &err);

    free(copy);
    if (!spb_is_ok(status)) {
        cr_assert_eq(err.code, status.code);
        cr_assert(err.text[0] != '\0');
    }
    return status.code;
}

static enum spb_code decode_response(const uint8_t *data, size_t n)
{
    struct spb_ttrpc_response response;
    struct spb_error err;
    uint8_t *copy = malloc(n == 0 ? 1 : n);

    memcpy(copy, data, n);
    spb_status status = spb_ttrpc_response_decode(copy, n, &response, &err);
    free(copy);
    return status.code;
}

static enum spb_code decode_request_hex(const char *hex)
{
    uint8_t bytes[512];
    size_t n = from_hex(hex, bytes);

    return decode_request(bytes, n);
}

static enum spb_code decode_response_hex(const char *hex)
{
    uint8_t bytes[512];
    size_t n = from_hex(hex, bytes);

    return decode_response(bytes, n);
}

/* ---- Vectors ------------------------------------------------------------------------------ */

Test(ttrpc_envelope, request_vector_encodes)
{
    struct spb_ttrpc_request request = vector_request();
    uint8_t expected[128], out[128];
    size_t n = from_hex(request_hex, expected);

    cr_assert_eq(n, 0x31);
    cr_assert_eq(spb_ttrpc_request_size(&request), n);
    spb_ttrpc_request_encode(&request, out);
    cr_assert_arr_eq(out, expected, n);
}

Test(ttrpc_envelope, request_vector_decodes)
{
    struct spb_ttrpc_request request;
    uint8_t bytes[128];
    size_t n = from_hex(request_hex, bytes);

    cr_assert(spb_is_ok(spb_ttrpc_request_decode(bytes, n, &request, NULL)));
    cr_assert(is_text(request.service, "h4.Echo"));
    cr_assert(is_text(request.method, "Echo"));
    cr_assert(is_text(request.payload, "\x0a\x05hello\x10\x07"));
    cr_assert_eq(request.timeout_ns, 1999685923);
    cr_assert_eq(request.metadata_count, 1);
    cr_assert(is_text(request.metadata[0].key, "tenant"));
    cr_assert(is_text(request.metadata[0].value, "alpha"));
}

Test(ttrpc_envelope, response_vector_both_ways)
{
    struct spb_ttrpc_response response = {.code = 0}, decoded;
    uint8_t expected[128], out[128];
    size_t n = from_hex(response_hex, expected);

    response.payload = (struct spb_ttrpc_view){expected + 2, n - 2};
    cr_assert_eq(n, 0x19);
    cr_assert_eq(spb_ttrpc_response_size(&response), n);
    spb_ttrpc_response_encode(&response, out);
    cr_assert_arr_eq(out, expected, n);
    cr_assert(spb_is_ok(spb_ttrpc_response_decode(expected, n, &decoded, NULL)));
    cr_assert_eq(decoded.code, 0);
    cr_assert_eq(decoded.payload.size, 23);
    cr_assert_eq(decoded.payload.data, expected + 2, "borrowed, not copied");
    cr_assert_eq(decoded.details_count, 0);
}

Test(ttrpc_envelope, error_vector_both_ways)
{
    struct spb_ttrpc_response response = {.code = 5}, decoded;
    uint8_t expected[128], out[128];
    size_t n = from_hex(error_hex, expected);

    response.message = view("nope");
    cr_assert_eq(spb_ttrpc_response_size(&response), n);
    spb_ttrpc_response_encode(&response, out);
    cr_assert_arr_eq(out, expected, n);
    cr_assert(spb_is_ok(spb_ttrpc_response_decode(expected, n, &decoded, NULL)));
    cr_assert_eq(decoded.code, 5);
    cr_assert(is_text(decoded.message, "nope"));
    cr_assert_eq(decoded.payload.size, 0);
}

Test(ttrpc_envelope, details_and_negative_code_round_trip)
{
    struct spb_ttrpc_response response = {.code = -7, .details_count = SPB_TTRPC_DETAILS_MAX};
    struct spb_ttrpc_response decoded;
    uint8_t out[1024];

    response.message = view("gr\xc3\xbc\xc3\x9f");
    for (size_t i = 1; i < SPB_TTRPC_DETAILS_MAX; i++) { /* the first stays empty */
        response.details[i].type_url = view("x/google.rpc.ErrorInfo");
        response.details[i].value = view("\x01\xff");
    }
    size_t n = spb_ttrpc_response_size(&response);
    spb_ttrpc_response_encode(&response, out);
    cr_assert(spb_is_ok(spb_ttrpc_response_decode(out, n, &decoded, NULL)));
    cr_assert_eq(decoded.code, -7);
    cr_assert_eq(decoded.details_count, SPB_TTRPC_DETAILS_MAX);
    cr_assert_eq(decoded.details[0].type_url.size, 0);
    cr_assert(is_text(decoded.details[7].type_url, "x/google.rpc.ErrorInfo"));
    cr_assert(is_text(decoded.details[7].value, "\x01\xff"));
}

Test(ttrpc_envelope, empty_messages)
{
    struct spb_ttrpc_request request = {.timeout_ns = 0}, decoded;
    struct spb_ttrpc_response response = {.code = 0}, answer;

    cr_assert_eq(spb_ttrpc_request_size(&request), 0);
    cr_assert_eq(spb_ttrpc_response_size(&response), 0);
    cr_assert(spb_is_ok(spb_ttrpc_request_decode(NULL, 0, &decoded, NULL)));
    cr_assert_eq(decoded.service.size + decoded.method.size + decoded.payload.size, 0);
    cr_assert(spb_is_ok(spb_ttrpc_response_decode(NULL, 0, &answer, NULL)));
    cr_assert_eq(answer.code, 0);
}

Test(ttrpc_envelope, more_details_than_places_are_skipped)
{
    /* ten empty details after code 5 */
    cr_assert_eq(decode_response_hex("0a16 0805 1a00 1a00 1a00 1a00 1a00 1a00 1a00 1a00 1a00 1a00"),
                 SPB_OK);
    /* ... of which the tenth does not parse */
    cr_assert_eq(
        decode_response_hex("0a17 0805 1a00 1a00 1a00 1a00 1a00 1a00 1a00 1a00 1a00 1a01 0a"),
        SPB_PROTOCOL);
}

/* ---- Damage ------------------------------------------------------------------------------- */

/* A cut is either noticed, or falls between two fields. */
Test(ttrpc_envelope, every_truncation_of_a_request)
{
    static const size_t between[] = {0, 9, 15, 26, 32};
    uint8_t bytes[128];
    size_t n = from_hex(request_hex, bytes), next = 0;

    for (size_t cut = 0; cut < n; cut++) {
        bool is_between = next < 5 && cut == between[next];
        cr_assert_eq(decode_request(bytes, cut), is_between ? SPB_OK : SPB_PROTOCOL, "cut at %zu",
                     cut);
        next += is_between;
    }
    cr_assert_eq(decode_request(bytes, n), SPB_OK);
}

Test(ttrpc_envelope, every_truncation_of_an_error)
{
    uint8_t bytes[128];
    size_t n = from_hex(error_hex, bytes);

    for (size_t cut = 1; cut < n; cut++)
        cr_assert_eq(decode_response(bytes, cut), SPB_PROTOCOL, "cut at %zu", cut);
}

/* What a flip leaves decodable encodes and decodes again to the same. */
Test(ttrpc_envelope, every_bit_flip_of_a_request)
{
    uint8_t clean[128];
    size_t n = from_hex(request_hex, clean), refused = 0;

    for (size_t bit = 0; bit < 8 * n; bit++) {
        struct spb_ttrpc_request first, second;
        uint8_t bytes[128], again[256];
        memcpy(bytes, clean, n);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (decode_request(bytes, n) != SPB_OK) {
            refused++;
            continue;
        }
        cr_assert(spb_is_ok(spb_ttrpc_request_decode(bytes, n, &first, NULL)));
        size_t size = spb_ttrpc_request_size(&first);
        cr_assert(size <= sizeof(again));
        spb_ttrpc_request_encode(&first, again);
        cr_assert(spb_is_ok(spb_ttrpc_request_decode(again, size, &second, NULL)));
        cr_assert_eq(second.timeout_ns, first.timeout_ns);
        cr_assert_eq(second.metadata_count, first.metadata_count);
        cr_assert_eq(second.payload.size, first.payload.size);
    }
    cr_assert(refused > 50, "only %zu flips were noticed", refused);
}

Test(ttrpc_envelope, outputs_are_untouched_on_failure)
{
    struct spb_ttrpc_request request;
    uint8_t bytes[128];
    size_t n = from_hex(request_hex, bytes);

    memset(&request, 0x5A, sizeof(request));
    struct spb_ttrpc_request before = request;
    cr_assert(!spb_is_ok(spb_ttrpc_request_decode(bytes, n - 1, &request, NULL)));
    cr_assert_arr_eq((uint8_t *)&request, (uint8_t *)&before, sizeof(request));
}

Test(ttrpc_envelope, bogus_lengths)
{
    cr_assert_eq(decode_request_hex("0a05 6162"), SPB_PROTOCOL);
    cr_assert_eq(decode_request_hex("0affffffff0f 61"), SPB_PROTOCOL);
    cr_assert_eq(decode_request_hex("0affffffffffffffffff01 61"), SPB_PROTOCOL);
    cr_assert_eq(decode_response_hex("0a0a 0805"), SPB_PROTOCOL);
    cr_assert_eq(decode_request_hex("2a03 0a0561"), SPB_PROTOCOL, "longer than its message");
}

Test(ttrpc_envelope, varints_of_ten_bytes_and_more)
{
    /* 2^63-1 takes nine bytes, 2^64-1 (a timeout of -1) ten */
    cr_assert_eq(decode_request_hex("20 ffffffffffffffff7f"), SPB_OK);
    cr_assert_eq(decode_request_hex("20 ffffffffffffffffff01"), SPB_PROTOCOL, "negative");
    cr_assert_eq(decode_request_hex("30 ffffffffffffffffff01"), SPB_OK, "unknown field");
    cr_assert_eq(decode_request_hex("30 ffffffffffffffffff02"), SPB_PROTOCOL, "above 64 bits");
    cr_assert_eq(decode_request_hex("30 8080808080808080808000"), SPB_PROTOCOL, "eleven bytes");
    cr_assert_eq(decode_request_hex("30 80808080808080808000"), SPB_OK, "ten bytes of zero");
}

Test(ttrpc_envelope, negative_timeout_says_so)
{
    struct spb_ttrpc_request request;
    struct spb_error err;
    uint8_t bytes[32];
    size_t n = from_hex("20 80808080808080808001", bytes);

    cr_assert_eq(spb_ttrpc_request_decode(bytes, n, &request, &err).code, SPB_PROTOCOL);
    cr_assert(strstr(err.text, "timeout_nano") != NULL, "%s", err.text);
}

Test(ttrpc_envelope, unknown_fields_of_all_types_are_skipped)
{
    struct spb_ttrpc_request request;
    uint8_t bytes[64];
    size_t n = from_hex("30 9601  39 0102030405060708  3a03 616263  3d 01020304  "
                        "faffffff0f 01 7a  0a01 73",
                        bytes);

    cr_assert(spb_is_ok(spb_ttrpc_request_decode(bytes, n, &request, NULL)));
    cr_assert(is_text(request.service, "s"));
    cr_assert_eq(decode_response_hex("18 01  21 0102030405060708"), SPB_OK);
    cr_assert_eq(decode_response_hex("0a04 0805 2001"), SPB_OK, "in the status");
}

Test(ttrpc_envelope, groups_and_undefined_types_are_refused)
{
    cr_assert_eq(decode_request_hex("33 34"), SPB_PROTOCOL);
    cr_assert_eq(decode_request_hex("34"), SPB_PROTOCOL);
    cr_assert_eq(decode_request_hex("36 00"), SPB_PROTOCOL);
    cr_assert_eq(decode_request_hex("37 00"), SPB_PROTOCOL);
    cr_assert_eq(decode_request_hex("00 00"), SPB_PROTOCOL, "field number 0");
    cr_assert_eq(decode_request_hex("8080808010 00"), SPB_PROTOCOL, "field number 2^29");
}

Test(ttrpc_envelope, known_fields_of_another_type_are_refused)
{
    cr_assert_eq(decode_request_hex("08 01"), SPB_PROTOCOL);
    cr_assert_eq(decode_request_hex("1d 01020304"), SPB_PROTOCOL);
    cr_assert_eq(decode_request_hex("22 00"), SPB_PROTOCOL);
    cr_assert_eq(decode_request_hex("28 00"), SPB_PROTOCOL);
    cr_assert_eq(decode_response_hex("08 00"), SPB_PROTOCOL);
    cr_assert_eq(decode_response_hex("0a02 0a00"), SPB_PROTOCOL);
}

Test(ttrpc_envelope, strings_are_utf8_without_nul)
{
    cr_assert_eq(decode_request_hex("0a02 c3bc"), SPB_OK);
    cr_assert_eq(decode_request_hex("0a01 c3"), SPB_PROTOCOL);
    cr_assert_eq(decode_request_hex("0a02 c080"), SPB_PROTOCOL, "overlong");
    cr_assert_eq(decode_request_hex("0a03 eda080"), SPB_PROTOCOL, "surrogate");
    cr_assert_eq(decode_request_hex("1203 610062"), SPB_PROTOCOL, "NUL");
    cr_assert_eq(decode_request_hex("2a03 0a0100"), SPB_PROTOCOL, "NUL in a key");
    cr_assert_eq(decode_request_hex("2a03 1201ff"), SPB_PROTOCOL, "value");
    cr_assert_eq(decode_request_hex("1a03 00ffc0"), SPB_OK, "the payload is bytes");
    cr_assert_eq(decode_response_hex("0a03 120100"), SPB_PROTOCOL);
    cr_assert_eq(decode_response_hex("0a05 1a03 0a01ff"), SPB_PROTOCOL);
    cr_assert_eq(decode_response_hex("0a05 1a03 1201ff"), SPB_OK, "a detail's value is bytes");
}

Test(ttrpc_envelope, last_of_a_repeated_single_field_counts)
{
    struct spb_ttrpc_request request;
    struct spb_ttrpc_response response;
    uint8_t bytes[64];
    size_t n = from_hex("0a01 61 0a01 62 2005 2006", bytes);

    cr_assert(spb_is_ok(spb_ttrpc_request_decode(bytes, n, &request, NULL)));
    cr_assert(is_text(request.service, "b"));
    cr_assert_eq(request.timeout_ns, 6);
    n = from_hex("0a07 0805 1201 61 1a00 0a02 0806", bytes);
    cr_assert(spb_is_ok(spb_ttrpc_response_decode(bytes, n, &response, NULL)));
    cr_assert_eq(response.code, 6);
    cr_assert_eq(response.message.size + response.details_count, 0);
}

/* ---- Limits of metadata ------------------------------------------------------------------- */

static enum spb_code decode_pairs(size_t count, size_t value_size)
{
    char *value = malloc(value_size + 1);
    uint8_t *bytes = malloc(count * (value_size + 16) + 1);
    struct spb_writer w = spb_writer_over(bytes, count * (value_size + 16) + 1);

    memset(value, 'v', value_size);
    for (size_t i = 0; i < count; i++) {
        size_t inner = 3 + spb_wire_bytes_field_size(2, value_size);
        spb_wire_write_bytes_head(&w, 5, inner);
        spb_wire_write_bytes_field(&w, 1, (const uint8_t *)"k", 1);
        spb_wire_write_bytes_field(&w, 2, (uint8_t *)value, value_size);
    }
    cr_assert(!w.failed);
    enum spb_code code = decode_request(bytes, w.pos);
    free(value);
    free(bytes);
    return code;
}

Test(ttrpc_envelope, metadata_limits)
{
    cr_assert_eq(decode_pairs(32, 10), SPB_OK);
    cr_assert_eq(decode_pairs(33, 10), SPB_LIMIT);
    cr_assert_eq(decode_pairs(1, 8191), SPB_OK);
    cr_assert_eq(decode_pairs(1, 8192), SPB_LIMIT);
    cr_assert_eq(decode_pairs(2, 4095), SPB_OK);
    cr_assert_eq(decode_pairs(2, 4096), SPB_LIMIT);
}

Test(ttrpc_envelope, all_metadata_round_trips)
{
    struct spb_ttrpc_request request = vector_request(), decoded;
    uint8_t out[4096];

    request.metadata_count = SPB_TTRPC_METADATA_MAX;
    for (size_t i = 1; i < SPB_TTRPC_METADATA_MAX; i++)
        request.metadata[i] = (struct spb_ttrpc_pair){.key = view(i % 2 ? "key" : "")};
    size_t n = spb_ttrpc_request_size(&request);
    cr_assert(n <= sizeof(out));
    spb_ttrpc_request_encode(&request, out);
    cr_assert(spb_is_ok(spb_ttrpc_request_decode(out, n, &decoded, NULL)));
    cr_assert_eq(decoded.metadata_count, SPB_TTRPC_METADATA_MAX);
    cr_assert(is_text(decoded.metadata[1].key, "key"));
    cr_assert_eq(decoded.metadata[2].key.size, 0);
}
