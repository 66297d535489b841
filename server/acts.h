/*
 * What calls are about to do beside the groups of an image: images taken in, copied and renamed,
 * uploads begun and given up, artifacts stored and deleted, guests made, started and ended. Each is
 * recorded as an intent (intent.h) whose detail says enough to tell after a crash whether it
 * happened, and to complete it.
 *
 * An act has one step that decides it: a file gets its name, or a row is written or removed. Before
 * it nothing can be seen of the act, after it the act is completed whatever happens. Workers only.
 */
#ifndef SPB_SERVER_ACTS_H
#define SPB_SERVER_ACTS_H

#include <stdint.h>

#include "audit/tables.h"
#include "call.h"
#include "spaceblock/volume.h"

struct spb_settling;

enum spb_act_kind {
    SPB_ACT_IMAGE_IMPORT = 1,
    SPB_ACT_IMAGE_CLONE = 2,
    SPB_ACT_IMAGE_RENAME = 3,
    SPB_ACT_UPLOAD_START = 4,
    SPB_ACT_UPLOAD_ABORT = 5,
    SPB_ACT_ARTIFACT_PUT = 6,
    SPB_ACT_ARTIFACT_DELETE = 7,
    SPB_ACT_GUEST_CREATE = 8,
    SPB_ACT_GUEST_START = 9, /* size: the run that is meant */
    SPB_ACT_GUEST_STOP = 10,
    SPB_ACT_GUEST_KILL = 11,
    SPB_ACT_GUEST_DELETE = 12,
};

/* What is recorded. Members that a kind does not use are zero. */
struct spb_act_detail {
    enum spb_act_kind kind;
    uint16_t tenant;
    char name[SPB_AUDIT_NAME_SIZE];     /* of the image, or guest */
    char new_name[SPB_AUDIT_NAME_SIZE]; /* RENAME */
    uint8_t uuid[SPB_UUID_SIZE];        /* that the image has afterwards; the guest's */
    uint8_t upload[16];
    bool new_identity;    /* IMPORT */
    uint32_t sector_size; /* IMPORT, RENAME: S */
    uint8_t sha256[32];
    uint64_t size; /* of the artifact */
    uint8_t label[64];
    uint8_t label_len;
};

#define SPB_ACT_DETAIL_SIZE_MAX 512u

/* Returns the size, at most SPB_ACT_DETAIL_SIZE_MAX. */
size_t spb_act_encode(const struct spb_act_detail *detail, uint8_t out[SPB_ACT_DETAIL_SIZE_MAX]);
/* SPB_CORRUPT where the bytes are no detail. */
SPB_MUST_USE spb_status spb_act_decode(const uint8_t *bytes, size_t size,
                                       struct spb_act_detail *detail, struct spb_error *err);

/* For people, in the audit. */
struct spb_act_texts {
    const char *object, *before, *after;
};

/* The act could not be recorded, or not be answered: the call's answer is set, and says so. */
#define SPB_ACT_REFUSED SPB_AGAIN

/*
 * The intent of an act, durable; spb_act_end follows. The reply is set: a repeat of the call after
 * a crash gets it. Fails with SPB_ACT_REFUSED alone.
 */
SPB_MUST_USE spb_status spb_act_begin(struct spb_call *call, const struct spb_act_detail *detail,
                                      const struct spb_act_texts *texts, struct spb_error *err);
/* Done, with the reply set; or decided, and what else there was to do failed; or nothing of it is
 * there. */
void spb_act_end(struct spb_call *call, bool done, bool decided);
/* The same of an act that gives an image's file its name, or another one: decided where that is
 * done, and then in doubt (doubts.h), which is SPB_IO. */
void spb_act_end_named(struct spb_call *call, bool done, bool named, const struct spb_image *image,
                       struct spb_error *err);
/* Sets the error of an act that failed. */
void spb_act_set_error(struct spb_call *call, const struct spb_error *err);
/* The same about call->upload. */
SPB_MUST_USE spb_status spb_act_begin_upload(struct spb_call *call, enum spb_act_kind kind,
                                             const char *before, const char *after,
                                             struct spb_error *err);

/*
 * The settler (settle.h) of all of them: what was decided is completed, what was not is as before.
 * At the start, before any image is opened or upload loaded. Blocks.
 */
SPB_MUST_USE spb_status spb_act_settle(const struct spb_settling *settling,
                                       enum spb_outcome *outcome, struct spb_error *err);

#endif
