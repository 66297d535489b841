/* What the files of the service Uploads share: how a call finds its upload and works on it. */
#ifndef SPB_SERVER_SERVICES_UPLOAD_CALLS_H
#define SPB_SERVER_SERVICES_UPLOAD_CALLS_H

#include "call.h"
#include "uploads.h"

/* The same for one that never was, was another's, or has ended. */
void spb_uploads_set_absent(struct spb_call *call);
/* Sets call->upload; answers the call where there is none. Where it is set the call was put off. */
bool spb_uploads_find_for(struct spb_call *call, const ProtobufCBinaryData *id);
bool spb_uploads_gate_id(struct spb_call *call, const ProtobufCBinaryData *id);
/* Runs it on the upload's strand. */
void spb_uploads_to_strand(struct spb_call *call, void (*run)(struct spb_task *task));
/* The image is this one from now on, with a reference of the call's own. */
void spb_uploads_set_image(struct spb_call *call, struct spb_image *image);
/*
 * Begins work on the strand: the upload is open, entered and checked, and spb_upload_leave follows.
 * Else the call has been answered, or runs again when its image is to be had. A call that a strand
 * has reached may find that the upload ended before it.
 */
bool spb_uploads_begin_work(struct spb_call *call);
/* The medium or the space failed under it: it cannot go on, and ends. */
void spb_uploads_give_up(struct spb_call *call, const struct spb_error *err);

#endif
