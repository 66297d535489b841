/* The table of methods: what each takes, what is checked of it, and who does it. Constant. */
#include <stddef.h>

#include "dispatch.h"
#include "services/services.h"

#define PACKAGE "spaceblock.v1."
#define REQUEST(lower) &spaceblock__v1__##lower##__descriptor
#define ID(type) .request_id_offset = offsetof(PB_##type, request_id)
#define IMAGE(type) .image_offset = offsetof(PB_##type, image), .need = SPB_NEED_IMAGE
#define NAME(type) .image_offset = offsetof(PB_##type, image), .need = SPB_NEED_NAME

/* A payload of the full size, and the fields around it. */
#define BATCH_MAX (SPB_CONTROL_MAX + 4096)
#define PING_MAX (SPB_CONTROL_MAX + 16)
#define WRITE_MAX (SPB_CHUNK_MAX + 4096)

/* About what an answer may have, with what is needed to make it. */
#define SMALL_REPLY (128u * 1024)
#define LIST_REPLY (512u * 1024)
#define CONSOLE_REPLY (600u * 1024)
#define EVENTS_REPLY (2u * 1024 * 1024)
#define AUDIT_REPLY SPB_REPLY_MAX

static const struct spb_method methods[] = {
    {PACKAGE "Params", "Put", REQUEST(put_param_request), SPB_CONTROL_MAX, ID(PutParamRequest),
     IMAGE(PutParamRequest), .gate = spb_params_put_gate, .handler = spb_params_put},
    {PACKAGE "Params", "Get", REQUEST(get_param_request), SPB_CONTROL_MAX, IMAGE(GetParamRequest),
     .handler = spb_params_get},
    {PACKAGE "Events", "Append", REQUEST(append_events_request), SPB_CONTROL_MAX,
     ID(AppendEventsRequest), IMAGE(AppendEventsRequest), .gate = spb_events_append_gate,
     .handler = spb_events_append},
    {PACKAGE "DataProducts", "Read", REQUEST(read_product_request), SPB_CONTROL_MAX,
     IMAGE(ReadProductRequest), .gate = spb_products_read_gate, .handler = spb_products_read},
    {PACKAGE "Uploads", "Write", REQUEST(write_upload_request), WRITE_MAX,
     .gate = spb_uploads_write_gate, .handler = spb_uploads_write},
    {PACKAGE "Params", "BatchPut", REQUEST(batch_put_params_request), BATCH_MAX,
     ID(BatchPutParamsRequest), IMAGE(BatchPutParamsRequest), .gate = spb_params_batch_put_gate,
     .handler = spb_params_batch_put},
    {PACKAGE "Params", "List", REQUEST(list_params_request), SPB_CONTROL_MAX,
     IMAGE(ListParamsRequest), .reply_bytes = LIST_REPLY, .handler = spb_params_list},
    {PACKAGE "Params", "History", REQUEST(param_history_request), SPB_CONTROL_MAX,
     IMAGE(ParamHistoryRequest), .reply_bytes = LIST_REPLY, .handler = spb_params_history},
    {PACKAGE "Params", "Delete", REQUEST(delete_param_request), SPB_CONTROL_MAX,
     ID(DeleteParamRequest), IMAGE(DeleteParamRequest), .gate = spb_params_delete_gate,
     .handler = spb_params_delete},
    {PACKAGE "Events", "List", REQUEST(list_events_request), SPB_CONTROL_MAX,
     IMAGE(ListEventsRequest), .gate = spb_events_list_gate, .handler = spb_events_list},
    {PACKAGE "Events", "Watch", REQUEST(watch_events_request), SPB_CONTROL_MAX,
     IMAGE(WatchEventsRequest), .gate = spb_events_watch_gate, .handler = spb_events_watch},
    {PACKAGE "DataProducts", "List", REQUEST(list_products_request), SPB_CONTROL_MAX,
     IMAGE(ListProductsRequest), .reply_bytes = LIST_REPLY, .handler = spb_products_list},
    {PACKAGE "DataProducts", "Get", REQUEST(get_product_request), SPB_CONTROL_MAX,
     IMAGE(GetProductRequest), .gate = spb_products_get_gate, .handler = spb_products_get},
    {PACKAGE "DataProducts", "Delete", REQUEST(delete_product_request), SPB_CONTROL_MAX,
     ID(DeleteProductRequest), IMAGE(DeleteProductRequest), .gate = spb_products_delete_gate,
     .handler = spb_products_delete},
    {PACKAGE "Uploads", "Start", REQUEST(start_upload_request), SPB_CONTROL_MAX,
     ID(StartUploadRequest), .gate = spb_uploads_start_gate, .handler = spb_uploads_start},
    {PACKAGE "Uploads", "Status", REQUEST(upload_status_request), SPB_CONTROL_MAX,
     .gate = spb_uploads_status_gate, .handler = spb_uploads_status},
    {PACKAGE "Uploads", "Finish", REQUEST(finish_upload_request), SPB_CONTROL_MAX,
     ID(FinishUploadRequest), .gate = spb_uploads_finish_gate, .handler = spb_uploads_finish},
    {PACKAGE "Uploads", "Abort", REQUEST(abort_upload_request), SPB_CONTROL_MAX,
     ID(AbortUploadRequest), .gate = spb_uploads_abort_gate, .handler = spb_uploads_abort},
    {PACKAGE "Images", "Create", REQUEST(create_image_request), SPB_CONTROL_MAX,
     ID(CreateImageRequest), NAME(CreateImageRequest), .gate = spb_images_create_gate,
     .handler = spb_images_create},
    {PACKAGE "Images", "List", REQUEST(list_images_request), SPB_CONTROL_MAX,
     .gate = spb_images_list_gate, .reply_bytes = LIST_REPLY, .handler = spb_images_list},
    {PACKAGE "Images", "Get", REQUEST(get_image_request), SPB_CONTROL_MAX, IMAGE(GetImageRequest),
     .handler = spb_images_get},
    {PACKAGE "Images", "Inspect", REQUEST(inspect_image_request), SPB_CONTROL_MAX,
     IMAGE(InspectImageRequest), .reply_bytes = LIST_REPLY, .handler = spb_images_inspect},
    {PACKAGE "Images", "Check", REQUEST(check_image_request), SPB_CONTROL_MAX,
     IMAGE(CheckImageRequest), .gate = spb_images_check_gate, .reply_bytes = EVENTS_REPLY,
     .handler = spb_images_check},
    {PACKAGE "Images", "Defrag", REQUEST(defrag_image_request), SPB_CONTROL_MAX,
     ID(DefragImageRequest), IMAGE(DefragImageRequest), .handler = spb_images_defrag},
    {PACKAGE "Images", "Reopen", REQUEST(reopen_image_request), SPB_CONTROL_MAX,
     ID(ReopenImageRequest), IMAGE(ReopenImageRequest), .handler = spb_images_reopen},
    {PACKAGE "Images", "Delete", REQUEST(delete_image_request), SPB_CONTROL_MAX,
     ID(DeleteImageRequest), IMAGE(DeleteImageRequest), .gate = spb_images_delete_gate,
     .handler = spb_images_delete},
    {PACKAGE "Images", "Clone", REQUEST(clone_image_request), SPB_CONTROL_MAX,
     ID(CloneImageRequest), IMAGE(CloneImageRequest), .gate = spb_images_clone_gate,
     .handler = spb_images_clone},
    {PACKAGE "Images", "Rename", REQUEST(rename_image_request), SPB_CONTROL_MAX,
     ID(RenameImageRequest), IMAGE(RenameImageRequest), .gate = spb_images_rename_gate,
     .handler = spb_images_rename},
    {PACKAGE "Images", "Backup", REQUEST(backup_image_request), SPB_CONTROL_MAX,
     IMAGE(BackupImageRequest), .handler = spb_images_backup},
    {PACKAGE "Images", "ReadBackup", REQUEST(read_backup_request), SPB_CONTROL_MAX,
     .gate = spb_images_read_backup_gate, .handler = spb_images_read_backup},
    {PACKAGE "Images", "EndBackup", REQUEST(end_backup_request), SPB_CONTROL_MAX,
     .gate = spb_images_end_backup_gate, .handler = spb_images_end_backup},
    {PACKAGE "Artifacts", "List", REQUEST(list_artifacts_request), SPB_CONTROL_MAX,
     .gate = spb_artifacts_list_gate, .reply_bytes = LIST_REPLY, .handler = spb_artifacts_list},
    {PACKAGE "Artifacts", "Get", REQUEST(get_artifact_request), SPB_CONTROL_MAX,
     .gate = spb_artifacts_get_gate, .handler = spb_artifacts_get},
    {PACKAGE "Artifacts", "Delete", REQUEST(delete_artifact_request), SPB_CONTROL_MAX,
     ID(DeleteArtifactRequest), .gate = spb_artifacts_delete_gate, .handler = spb_artifacts_delete},
    {PACKAGE "Images", "Scrub", REQUEST(scrub_image_request), SPB_CONTROL_MAX,
     IMAGE(ScrubImageRequest), .gate = spb_images_scrub_gate, .handler = spb_images_scrub},
    {PACKAGE "Guests", "Create", REQUEST(create_guest_request), SPB_CONTROL_MAX,
     ID(CreateGuestRequest), .gate = spb_guests_create_gate, .handler = spb_guests_create},
    {PACKAGE "Guests", "Start", REQUEST(start_guest_request), SPB_CONTROL_MAX,
     ID(StartGuestRequest), .gate = spb_guests_start_gate, .handler = spb_guests_start_one},
    {PACKAGE "Guests", "Stop", REQUEST(stop_guest_request), SPB_CONTROL_MAX, ID(StopGuestRequest),
     .gate = spb_guests_stop_gate, .handler = spb_guests_stop_one},
    {PACKAGE "Guests", "Kill", REQUEST(kill_guest_request), SPB_CONTROL_MAX, ID(KillGuestRequest),
     .gate = spb_guests_kill_gate, .handler = spb_guests_kill_one},
    {PACKAGE "Guests", "Delete", REQUEST(delete_guest_request), SPB_CONTROL_MAX,
     ID(DeleteGuestRequest), .gate = spb_guests_delete_gate, .handler = spb_guests_delete_one},
    {PACKAGE "Guests", "Get", REQUEST(get_guest_request), SPB_CONTROL_MAX,
     .gate = spb_guests_get_gate, .handler = spb_guests_get},
    {PACKAGE "Guests", "List", REQUEST(list_guests_request), SPB_CONTROL_MAX,
     .gate = spb_guests_list_gate, .reply_bytes = LIST_REPLY, .handler = spb_guests_list_all},
    {PACKAGE "Guests", "Wait", REQUEST(wait_guest_request), SPB_CONTROL_MAX,
     .gate = spb_guests_wait_gate, .handler = spb_guests_wait},
    {PACKAGE "Guests", "Stats", REQUEST(guest_stats_request), SPB_CONTROL_MAX,
     .gate = spb_guests_stats_gate, .handler = spb_guests_stats},
    {PACKAGE "Guests", "ReadConsole", REQUEST(read_console_request), SPB_CONTROL_MAX,
     .gate = spb_guests_read_console_gate, .reply_bytes = CONSOLE_REPLY,
     .handler = spb_guests_read_console},
    {PACKAGE "Guests", "WriteConsole", REQUEST(write_console_request), SPB_CONTROL_MAX,
     .gate = spb_guests_write_console_gate, .handler = spb_guests_write_console},
    {PACKAGE "Health", "Check", REQUEST(health_check_request), SPB_CONTROL_MAX,
     .while_draining = true, .handler = spb_health_check},
    {"grpc.health.v1.Health", "Check", REQUEST(health_check_request), SPB_CONTROL_MAX,
     .while_draining = true, .handler = spb_health_check},
    {PACKAGE "Server", "Info", REQUEST(server_info_request), SPB_CONTROL_MAX,
     .reply_bytes = SMALL_REPLY, .handler = spb_server_info},
    {PACKAGE "Server", "Cancel", REQUEST(cancel_request), SPB_CONTROL_MAX, .while_draining = true,
     .gate = spb_server_cancel_gate, .handler = spb_server_cancel},
    {PACKAGE "Audit", "List", REQUEST(list_audit_request), SPB_CONTROL_MAX,
     .gate = spb_audit_list_gate, .reply_bytes = AUDIT_REPLY, .handler = spb_audit_list_records},
    {PACKAGE "Server", "Ping", REQUEST(ping_request), PING_MAX, .gate = spb_server_ping_gate,
     .handler = spb_server_ping},
};

const struct spb_method *spb_methods(size_t *count)
{
    *count = SPB_COUNT(methods);
    return methods;
}
