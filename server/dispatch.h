/*
 * From a request's bytes to its handler. Everything that can be checked without doing the work is
 * checked here, so that a handler may trust its request: the method's row in the table says what.
 * The loop's thread.
 */
#ifndef SPB_SERVER_DISPATCH_H
#define SPB_SERVER_DISPATCH_H

#include "call.h"
#include "spaceblock/status.h"
#include "ttrpc/ttrpc.h"

#define SPB_CONTROL_MAX (64u * 1024)
#define SPB_CHUNK_MAX (1024u * 1024)
#define SPB_CHUNK_MIN (64u * 1024)
#define SPB_REPLY_MAX SPB_TTRPC_DATA_MAX
/* Of a frame: a chunk and what goes with it, and an envelope's names and metadata. */
#define SPB_FRAME_DATA_MAX (SPB_CHUNK_MAX + 4096 + 16384)

enum spb_image_need {
    SPB_NEED_NO_IMAGE,
    SPB_NEED_NAME,  /* the reference is checked; whether there is one is the handler's business */
    SPB_NEED_IMAGE, /* call->image is held */
};

struct spb_method {
    const char *service, *name;
    const ProtobufCMessageDescriptor *request;
    uint32_t payload_max; /* bytes */
    bool while_draining;
    size_t request_id_offset; /* in the request's struct; 0: it has none, or it is the gate's */
    size_t image_offset;      /* of its ImageRef; with a need */
    enum spb_image_need need;
    uint32_t reply_bytes; /* about the largest that the loop's thread answers at once; 0: small */
    /* Whether the fields are right; sets the error where not. May be NULL. */
    bool (*gate)(struct spb_call *call);
    /* Sees to it that the call is answered, now or later. */
    void (*handler)(struct spb_call *call);
};

/* All methods; *count gets their number. */
const struct spb_method *spb_methods(size_t *count);

/*
 * Takes a call whose origin and principal are set. data is borrowed for the call of the function.
 * The call is answered, or on its way.
 */
void spb_dispatch(struct spb_call *call, const uint8_t *data, size_t size);

/* Goes on with a call that was not admitted at once. */
void spb_dispatch_begin(struct spb_call *call);
/* Runs a call that waited for another: its request passed the gates before. */
void spb_dispatch_run(struct spb_call *call);

/* Sets NOT_FOUND about call->image_text: the same for an absent image and another tenant's. */
void spb_dispatch_set_no_image(struct spb_call *call);

/* ---- For gates ---------------------------------------------------------------------------- */

/* A UUID as text; becomes the call's. */
bool spb_gate_request_id(struct spb_call *call, const char *id);
/* Checks a reference and sets call->image_text; field is its path. */
bool spb_gate_image(struct spb_call *call, const PB_ImageRef *ref, const char *field);
/* Then looks it up; sets call->image or the error. */
bool spb_find_image(struct spb_call *call, const PB_ImageRef *ref);
/* Which tenant a reference means. It is checked. */
uint16_t spb_image_ref_tenant(const struct spb_call *call, const PB_ImageRef *ref);
/* A power of two that is a block size, or 0. */
bool spb_gate_sector_size(struct spb_call *call, const char *field, uint32_t size);
/* 16 bytes, or none. */
bool spb_gate_uuid(struct spb_call *call, const char *field, const ProtobufCBinaryData *uuid);
/* Whether the caller may name things of that tenant; sets the error. */
bool spb_may_name_tenant(struct spb_call *call, uint16_t tenant);
/* value <= max, or an error on the field. */
bool spb_gate_max(struct spb_call *call, const char *field, uint64_t value, uint64_t max);
/* 1 to 64 bytes of UTF-8 without NUL. */
bool spb_gate_product_name(struct spb_call *call, const char *field,
                           const ProtobufCBinaryData *name);

#endif
