/* Answers that are bytes and their CRC: the frame is what packing the message would have given. */
#include <spaceblock/v1/products.pb-c.h>

#include "base/crc32c.h"
#include "bytes_reply.h"
#include "daemon.h"
#include "ttrpc/ttrpc.h"
#include "volume_kit.h"

static char data_dir[] = "/data";
static struct spb_daemon daemon_one = {.data_dir = data_dir};
static struct spb_call_cache cache;

static struct spb_call *new_call(void)
{
    struct spb_call *call = spb_call_new(&cache, &daemon_one);

    cr_assert_not_null(call);
    call->origin.stream = 0x01020305;
    return call;
}

static void end_call(struct spb_call *call)
{
    spb_call_free(call);
    spb_call_cache_done(&cache);
    spb_arena_pool_done(&cache.pool);
}

/* The answer as protobuf-c and the envelope's encoder make it. */
static size_t expected(const struct spb_call *call, const uint8_t *bytes, size_t n, uint8_t *frame)
{
    Spaceblock__V1__ReadProductResponse message = SPACEBLOCK__V1__READ_PRODUCT_RESPONSE__INIT;
    static uint8_t packed[SPB_TTRPC_DATA_MAX];
    struct spb_ttrpc_response response = {.payload = {.data = packed}};

    message.data.data = (uint8_t *)(uintptr_t)bytes;
    message.data.len = n;
    message.crc32c = spb_crc32c(0, bytes, n);
    response.payload.size = protobuf_c_message_pack(&message.base, packed);
    struct spb_ttrpc_header header = {.length = (uint32_t)spb_ttrpc_response_size(&response),
                                      .stream = call->origin.stream,
                                      .type = SPB_TTRPC_TYPE_RESPONSE};
    spb_ttrpc_header_encode(&header, frame);
    spb_ttrpc_response_encode(&response, frame + SPB_TTRPC_HEADER_SIZE);
    return SPB_TTRPC_HEADER_SIZE + header.length;
}

static void check_one(const uint8_t *bytes, size_t n)
{
    static uint8_t frame[SPB_TTRPC_HEADER_SIZE + SPB_TTRPC_DATA_MAX];
    struct spb_call *call = new_call();
    uint8_t *room = spb_bytes_reply_begin(call, n);

    cr_assert_not_null(room);
    if (n > 0)
        memcpy(room, bytes, n);
    spb_bytes_reply_end(call, room, n);
    size_t size = expected(call, bytes, n, frame);
    cr_assert_eq(call->frame_size, size, "of %zu bytes", n);
    cr_assert_arr_eq(call->frame, frame, size);
    cr_assert_eq(call->code, 0);
    cr_assert_eq(call->payload + call->payload_size, call->frame + call->frame_size);
    end_call(call);
}

Test(bytes_reply, is_what_packing_gives)
{
    static const size_t sizes[] = {0,     1,     2,      3,      115,     120,
                                   121,   127,   128,    129,    16375,   16383,
                                   16384, 16385, 262143, 262144, 1048575, 1048576};
    static uint8_t bytes[1048576];

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 11);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        check_one(bytes, sizes[i]);
}

/* Both lengths before the bytes depend on how long the CRC is as a varint. */
Test(bytes_reply, crcs_of_every_length)
{
    static const uint8_t none[] = {0xAB, 0x9B, 0xE0, 0x9B};
    unsigned seen = 0;

    cr_assert_eq(spb_crc32c(0, none, sizeof(none)), 0);
    check_one(none, sizeof(none));
    for (uint32_t i = 1; i < 100000 && seen != 0xE; i++) {
        uint32_t crc = spb_crc32c(0, &i, sizeof(i));
        unsigned length = crc < 1u << 21 ? 1 : crc < 1u << 28 ? 2 : 3;

        if ((seen & 1u << length) == 0)
            check_one((const uint8_t *)&i, sizeof(i));
        seen |= 1u << length;
    }
    cr_assert_eq(seen, 0xE);
}

Test(bytes_reply, more_than_a_frame_holds)
{
    struct spb_call *call = new_call();

    cr_assert_null(spb_bytes_reply_begin(call, SPB_TTRPC_DATA_MAX));
    cr_assert_neq(call->code, 0);
    cr_assert_not_null(call->frame);
    end_call(call);
}
