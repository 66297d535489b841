/*
 * Gates, handlers and settlers of all methods; the tables that name them are methods.c and
 * settle.c. A gate checks the request's fields, a handler does the work and sees to the answer.
 * Handlers are called on the loop's thread, and again from a worker where an image was not to be
 * had.
 */
#ifndef SPB_SERVER_SERVICES_H
#define SPB_SERVER_SERVICES_H

#include "call.h"
#include "settle.h"

bool spb_params_put_gate(struct spb_call *call);
bool spb_params_batch_put_gate(struct spb_call *call);
bool spb_params_delete_gate(struct spb_call *call);
void spb_params_put(struct spb_call *call);
void spb_params_batch_put(struct spb_call *call);
void spb_params_get(struct spb_call *call);
void spb_params_list(struct spb_call *call);
void spb_params_history(struct spb_call *call);
void spb_params_delete(struct spb_call *call);

bool spb_events_append_gate(struct spb_call *call);
bool spb_events_list_gate(struct spb_call *call);
void spb_events_append(struct spb_call *call);
void spb_events_list(struct spb_call *call);
bool spb_events_watch_gate(struct spb_call *call);
void spb_events_watch(struct spb_call *call);

bool spb_products_get_gate(struct spb_call *call);
bool spb_products_read_gate(struct spb_call *call);
bool spb_products_delete_gate(struct spb_call *call);
void spb_products_list(struct spb_call *call);
void spb_products_get(struct spb_call *call);
void spb_products_read(struct spb_call *call);
void spb_products_delete(struct spb_call *call);

bool spb_uploads_start_gate(struct spb_call *call);
bool spb_uploads_write_gate(struct spb_call *call);
bool spb_uploads_status_gate(struct spb_call *call);
bool spb_uploads_finish_gate(struct spb_call *call);
bool spb_uploads_abort_gate(struct spb_call *call);
void spb_uploads_start(struct spb_call *call);
void spb_uploads_write(struct spb_call *call);
void spb_uploads_status(struct spb_call *call);
void spb_uploads_finish(struct spb_call *call);
void spb_uploads_abort(struct spb_call *call);

bool spb_images_create_gate(struct spb_call *call);
bool spb_images_list_gate(struct spb_call *call);
bool spb_images_check_gate(struct spb_call *call);
void spb_images_create(struct spb_call *call);
void spb_images_list(struct spb_call *call);
void spb_images_get(struct spb_call *call);
void spb_images_inspect(struct spb_call *call);
void spb_images_check(struct spb_call *call);
void spb_images_defrag(struct spb_call *call);
void spb_images_reopen(struct spb_call *call);
bool spb_images_delete_gate(struct spb_call *call);
void spb_images_delete(struct spb_call *call);
bool spb_images_clone_gate(struct spb_call *call);
bool spb_images_rename_gate(struct spb_call *call);
bool spb_images_read_backup_gate(struct spb_call *call);
bool spb_images_end_backup_gate(struct spb_call *call);
void spb_images_clone(struct spb_call *call);
void spb_images_rename(struct spb_call *call);
void spb_images_backup(struct spb_call *call);
void spb_images_read_backup(struct spb_call *call);
void spb_images_end_backup(struct spb_call *call);

bool spb_artifacts_list_gate(struct spb_call *call);
bool spb_artifacts_get_gate(struct spb_call *call);
bool spb_artifacts_delete_gate(struct spb_call *call);
void spb_artifacts_list(struct spb_call *call);
void spb_artifacts_get(struct spb_call *call);
void spb_artifacts_delete(struct spb_call *call);
bool spb_images_scrub_gate(struct spb_call *call);
void spb_images_scrub(struct spb_call *call);
/* Answers the calls that wait for the end of the image's scrub. The loop's thread. */
void spb_images_scrub_ended(struct spb_image *image);

bool spb_guests_create_gate(struct spb_call *call);
bool spb_guests_start_gate(struct spb_call *call);
bool spb_guests_stop_gate(struct spb_call *call);
bool spb_guests_kill_gate(struct spb_call *call);
bool spb_guests_delete_gate(struct spb_call *call);
bool spb_guests_get_gate(struct spb_call *call);
bool spb_guests_list_gate(struct spb_call *call);
bool spb_guests_wait_gate(struct spb_call *call);
bool spb_guests_stats_gate(struct spb_call *call);
bool spb_guests_read_console_gate(struct spb_call *call);
bool spb_guests_write_console_gate(struct spb_call *call);
void spb_guests_create(struct spb_call *call);
void spb_guests_start_one(struct spb_call *call);
void spb_guests_stop_one(struct spb_call *call);
void spb_guests_kill_one(struct spb_call *call);
void spb_guests_delete_one(struct spb_call *call);
void spb_guests_get(struct spb_call *call);
void spb_guests_list_all(struct spb_call *call);
void spb_guests_wait(struct spb_call *call);
void spb_guests_stats(struct spb_call *call);
void spb_guests_read_console(struct spb_call *call);
void spb_guests_write_console(struct spb_call *call);

spb_status spb_images_settle_create(const struct spb_settling *settling, enum spb_outcome *outcome,
                                    struct spb_error *err);
spb_status spb_images_settle_delete(const struct spb_settling *settling, enum spb_outcome *outcome,
                                    struct spb_error *err);
spb_status spb_images_settle_defrag(const struct spb_settling *settling, enum spb_outcome *outcome,
                                    struct spb_error *err);
spb_status spb_images_settle_reopen(const struct spb_settling *settling, enum spb_outcome *outcome,
                                    struct spb_error *err);

void spb_health_check(struct spb_call *call);
bool spb_server_ping_gate(struct spb_call *call);
void spb_server_info(struct spb_call *call);
void spb_server_ping(struct spb_call *call);
bool spb_server_cancel_gate(struct spb_call *call);
void spb_server_cancel(struct spb_call *call);

bool spb_audit_list_gate(struct spb_call *call);
void spb_audit_list_records(struct spb_call *call);

#endif
