/*
 * An upload from its start to its end; see upload.h.
 *
 * Where it stands is the daemon's to say: Status is asked whenever the daemon expects another
 * offset than what is sent, and when a run goes on with what an earlier one left. An upload that
 * the daemon does not know any more is begun anew, with a new request_id; one that was refused is
 * aborted, so that it holds no space.
 */
#include "cli/upload.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "cli/resume.h"
#include "cli/transfer.h"

#define ANEW_MAX 5u                     /* times that one run begins again from the start */
#define STUCK_MAX 4u                    /* times that asking where it stands led no further */
#define NOTE_BYTES (UINT64_C(32) << 20) /* between two writings of the record */
#define RPC_INVALID_ARGUMENT 3
#define RPC_FAILED_PRECONDITION 9

struct upload {
    struct cli *cli;
    struct cli_daemon *daemon;
    const struct cli_upload_target *target;
    struct cli_source *source;
    struct cli_progress *progress;
    struct cli_resume_key key;
    struct cli_resume record; /* fd -1: nothing is kept, but what it says holds for this run */
    uint64_t offset;          /* how far the daemon has it */
    uint64_t noted;           /* offset when the record was written */
    bool is_continued;        /* the daemon has bytes that an earlier run sent */
    bool is_gone;             /* the daemon does not know it any more */
    unsigned anew;
};

/* ---- The record ---------------------------------------------------------------------------- */

static void keep(struct upload *upload)
{
    struct spb_error err;

    if (upload->record.fd < 0)
        return;
    upload->record.crc_end = upload->source->crc_end;
    upload->record.crc = upload->source->crc;
    upload->noted = upload->offset;
    if (spb_is_ok(cli_resume_save(&upload->record, &err)))
        return;
    if (cli_is_verbose(upload->cli))
        cli_note(upload->cli, "%s: this command could not be continued later", err.text);
    cli_resume_drop(&upload->record);
}

static void note_offset(void *user, uint64_t offset)
{
    struct upload *upload = user;

    upload->offset = offset;
    if (offset - upload->noted >= NOTE_BYTES)
        keep(upload);
}

static ProtobufCBinaryData upload_id(const struct upload *upload)
{
    return cli_bytes(upload->record.upload_id, upload->record.upload_id_len);
}

/* Gives back what the upload reserved. Where that fails the daemon does so later by itself, and the
 * failure that led here is the one to tell. */
static void abort_upload(struct upload *upload)
{
    static const struct cli_method method = {CLI_SERVICE_UPLOADS, "Abort",
                                             &spaceblock__v1__abort_upload_response__descriptor,
                                             CLI_CONNECT_MS};
    struct cli_failure kept = *upload->daemon->failure;
    Spaceblock__V1__AbortUploadRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    struct spb_error ignored;

    if (upload->record.upload_id_len == 0)
        return;
    spaceblock__v1__abort_upload_request__init(&request);
    request.request_id = upload->record.request_id;
    request.upload_id = upload_id(upload);
    spb_status status =
        cli_daemon_call_at_last(upload->daemon, &method, &request.base, &reply, &ignored);
    (void)status;
    *upload->daemon->failure = kept;
}

/* What is left of an earlier run: continued, or given up where it is of no use. */
static void open_record(struct upload *upload)
{
    bool is_other = false;
    struct spb_error err;

    /* What one call carries needs no record. */
    if (!upload->source->identity.is_known || upload->source->size <= CLI_CHUNK_MAX)
        return;
    if (!spb_is_ok(cli_resume_open(&upload->key, &upload->record, &is_other, &err))) {
        upload->record = (struct cli_resume){.fd = -1};
        if (cli_is_verbose(upload->cli))
            cli_note(upload->cli, "%s: this command could not be continued later", err.text);
        return;
    }
    if (is_other || cli_has(upload->cli, CLI_OPT_NO_RESUME)) {
        abort_upload(upload);
        cli_resume_clear(&upload->record);
    }
    upload->is_continued = upload->record.upload_id_len > 0;
}

/* ---- Start and where it stands -------------------------------------------------------------- */

static spb_status take_started(struct upload *upload, const struct cli_method *method,
                               const Spaceblock__V1__StartUploadResponse *answer,
                               struct spb_error *err)
{
    struct cli_resume *record = &upload->record;

    if (answer->upload_id.len == 0 || answer->upload_id.len > CLI_UPLOAD_ID_MAX ||
        answer->chunk_size_max < CLI_CHUNK_MIN)
        return cli_answer_lacks(method, "an upload_id, or a chunk size of 64 KiB or more", err);
    memcpy(record->upload_id, answer->upload_id.data, answer->upload_id.len);
    record->upload_id_len = answer->upload_id.len;
    record->chunk = answer->chunk_size_max < CLI_CHUNK_MAX ? answer->chunk_size_max : CLI_CHUNK_MAX;
    return spb_ok();
}

/* The record has the request_id before Start is sent, so that a run that ends in between does not
 * reserve twice. */
static spb_status start(struct upload *upload, struct spb_error *err)
{
    static const struct cli_method method = {CLI_SERVICE_UPLOADS, "Start",
                                             &spaceblock__v1__start_upload_response__descriptor,
                                             CLI_CALL_MS};
    Spaceblock__V1__StartUploadRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;

    if (upload->record.request_id[0] == '\0') {
        SPB_TRY(spb_client_request_id(upload->record.request_id, err));
        keep(upload);
    }
    spaceblock__v1__start_upload_request__init(&request);
    upload->target->fill(upload->target->user, &request);
    request.request_id = upload->record.request_id;
    request.size = upload->source->size;
    SPB_TRY(cli_daemon_call(upload->daemon, &method, &request.base, &reply, err));
    SPB_TRY(take_started(upload, &method, (const void *)reply, err));
    keep(upload);
    return spb_ok();
}

/* How far the daemon has it. Of an upload that is gone, upload->is_gone. */
static spb_status ask_status(struct upload *upload, struct spb_error *err)
{
    static const struct cli_method method = {CLI_SERVICE_UPLOADS, "Status",
                                             &spaceblock__v1__upload_status_response__descriptor,
                                             CLI_CALL_MS};
    Spaceblock__V1__UploadStatusRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;

    spaceblock__v1__upload_status_request__init(&request);
    request.upload_id = upload_id(upload);
    spb_status status = cli_daemon_call(upload->daemon, &method, &request.base, &reply, err);
    upload->is_gone = status.code == SPB_NOT_FOUND;
    SPB_TRY(status);
    const Spaceblock__V1__UploadStatusResponse *answer = (const void *)reply;
    if (answer->size != upload->source->size || answer->next_offset > answer->size)
        return cli_answer_lacks(&method, "the size of the source, and an offset within it", err);
    upload->offset = upload->noted = answer->next_offset;
    return status;
}

/* Of an upload that an earlier run began: are the source's bytes still those that it sent? Time and
 * size of a file can be set; its bytes have to be read again in any case. */
static spb_status check_source(struct upload *upload, bool *is_same, struct spb_error *err)
{
    uint32_t crc = 0;

    SPB_TRY(cli_source_crc(upload->source, upload->record.crc_end, &crc, err));
    *is_same = crc == upload->record.crc;
    return spb_ok();
}

static spb_status go_on(struct upload *upload, struct spb_error *err)
{
    bool is_same = false;
    uint32_t crc;

    SPB_TRY(ask_status(upload, err));
    SPB_TRY(check_source(upload, &is_same, err));
    if (is_same && upload->offset > upload->source->crc_end)
        SPB_TRY(cli_source_crc(upload->source, upload->offset, &crc, err));
    if (!is_same) {
        abort_upload(upload);
        upload->is_gone = true;
        return spb_fail(err, SPB_CHANGED, "storing %s: \"%s\" is not what it was",
                        upload->target->what, upload->source->name);
    }
    if (cli_is_verbose(upload->cli))
        cli_note(upload->cli, "storing %s: going on at %" PRIu64 " of %" PRIu64 " bytes",
                 upload->target->what, upload->offset, upload->source->size);
    return spb_ok();
}

/* ---- Sending and Finish --------------------------------------------------------------------- */

/* The upload may have ended because it was finished, and only the answer was lost. */
static spb_status find_stored(struct upload *upload, uint32_t crc, struct spb_error *err)
{
    struct spb_error kept = *err;

    if (upload->target->find(upload->target->user, crc, upload->source->size))
        return spb_ok();
    upload->is_gone = true;
    *err = kept;
    return (spb_status){kept.code};
}

static bool is_wrong_state(const struct upload *upload)
{
    const struct cli_failure *failure = upload->daemon->failure;

    return failure->rpc_code == RPC_FAILED_PRECONDITION &&
           strcmp(failure->reason, "WRONG_STATE") == 0;
}

static spb_status finish(struct upload *upload, bool *is_astray, struct spb_error *err)
{
    static const struct cli_method method = {CLI_SERVICE_UPLOADS, "Finish",
                                             &spaceblock__v1__finish_upload_response__descriptor,
                                             CLI_LONG_CALL_MS};
    Spaceblock__V1__FinishUploadRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;
    uint32_t crc = 0;

    SPB_TRY(cli_source_crc(upload->source, upload->source->size, &crc, err));
    keep(upload);
    spaceblock__v1__finish_upload_request__init(&request);
    request.request_id = upload->record.request_id;
    request.upload_id = upload_id(upload);
    request.crc32c = crc;
    spb_status status = cli_daemon_call(upload->daemon, &method, &request.base, &reply, err);
    if (status.code == SPB_NOT_FOUND)
        return find_stored(upload, crc, err);
    *is_astray = is_wrong_state(upload);
    /* What an earlier run sent was not what the source holds now. */
    if (upload->is_continued && upload->daemon->failure->rpc_code == RPC_INVALID_ARGUMENT) {
        abort_upload(upload);
        upload->is_gone = true;
    }
    SPB_TRY(status);
    return upload->target->take(upload->target->user, (const void *)reply, err);
}

static spb_status send_bytes(struct upload *upload, bool *is_astray, struct spb_error *err)
{
    ProtobufCBinaryData id = upload_id(upload);
    struct cli_sending sending = {
        .upload_id = &id,
        .chunk = upload->record.chunk,
        .source = upload->source,
        .progress = upload->progress,
        .offset = upload->offset,
        .note = note_offset,
        .user = upload,
    };

    spb_status status = cli_transfer_send(upload->daemon, &sending, err);
    upload->is_gone = status.code == SPB_NOT_FOUND;
    *is_astray = sending.is_astray;
    return status;
}

/* A daemon that restarted may have less than it took, and expects to go on there. */
static spb_status send_and_finish(struct upload *upload, struct spb_error *err)
{
    uint64_t furthest = 0;
    unsigned stuck = 0;

    for (;;) {
        bool is_astray = false;
        struct spb_error ignored;
        spb_status status = send_bytes(upload, &is_astray, err);
        if (spb_is_ok(status))
            status = finish(upload, &is_astray, err);
        if (!is_astray)
            return status;
        stuck = upload->offset > furthest ? 0 : stuck + 1;
        furthest = upload->offset > furthest ? upload->offset : furthest;
        if (stuck == STUCK_MAX)
            return status;
        spb_status asked = ask_status(upload, &ignored);
        if (!spb_is_ok(asked)) {
            *err = ignored;
            return asked;
        }
    }
}

/* ---- All of it ------------------------------------------------------------------------------ */

static spb_status run_once(struct upload *upload, struct spb_error *err)
{
    upload->is_gone = false;
    if (upload->record.upload_id_len > 0)
        SPB_TRY(go_on(upload, err));
    else
        SPB_TRY(start(upload, err));
    return send_and_finish(upload, err);
}

/* An upload that is gone after its Finish was sent, perhaps by an earlier run, may be stored. */
static bool is_stored(struct upload *upload)
{
    uint32_t crc = 0;

    return upload->record.crc_end == upload->source->size && upload->is_continued &&
           spb_is_ok(cli_source_crc(upload->source, upload->source->size, &crc, NULL)) &&
           crc == upload->record.crc &&
           upload->target->find(upload->target->user, crc, upload->source->size);
}

static void begin_anew(struct upload *upload, const struct spb_error *why)
{
    if (cli_is_verbose(upload->cli))
        cli_note(upload->cli, "storing %s: beginning anew: %s", upload->target->what, why->text);
    cli_resume_clear(&upload->record);
    upload->offset = upload->noted = 0;
    upload->is_continued = false;
    upload->anew++;
}

static spb_status run(struct upload *upload, struct spb_error *err)
{
    for (;;) {
        spb_status status = run_once(upload, err);
        if (spb_is_ok(status) || !upload->is_gone)
            return status;
        if (is_stored(upload))
            return spb_ok();
        if (upload->anew == ANEW_MAX)
            return status;
        begin_anew(upload, err);
    }
}

/* Can the same command go on with it later? */
static bool is_left(const struct upload *upload, spb_status status)
{
    return upload->record.fd >= 0 && upload->record.upload_id_len > 0 && !upload->is_gone &&
           (status.code == SPB_UNREACHABLE || status.code == SPB_DEADLINE);
}

static spb_status end_failed(struct upload *upload, spb_status status, struct spb_error *err)
{
    struct spb_error why = *err;

    if (!is_left(upload, status)) {
        abort_upload(upload);
        /* An unanswered Start is found again by its request_id. */
        if (status.code != SPB_UNREACHABLE && status.code != SPB_DEADLINE)
            cli_resume_drop(&upload->record);
        return status;
    }
    keep(upload);
    upload->daemon->failure->is_unanswered = upload->daemon->failure->is_unknown = false;
    status = spb_fail(err, why.code,
                      "storing %s: %" PRIu64 " of %" PRIu64 " bytes are there; the same command "
                      "goes on with it: %s",
                      upload->target->what, upload->offset, upload->source->size, why.text);
    err->saved_errno = why.saved_errno;
    return status;
}

static spb_status find_endpoint(struct cli *cli, char *endpoint, size_t size, struct spb_error *err)
{
    const char *given = cli_text_of(cli, CLI_OPT_ENDPOINT);

    if (given == NULL)
        return spb_client_usual_endpoint(endpoint, size, err);
    (void)snprintf(endpoint, size, "%s", given);
    return spb_ok();
}

spb_status cli_upload(struct cli *cli, struct cli_daemon *daemon,
                      const struct cli_upload_target *target, struct cli_source *source,
                      struct cli_progress *progress, struct spb_error *err)
{
    char endpoint[512];
    struct upload upload = {
        .cli = cli,
        .daemon = daemon,
        .target = target,
        .source = source,
        .progress = progress,
        .key = {endpoint, target->key, target->options, source},
        .record = {.fd = -1},
    };

    SPB_TRY(find_endpoint(cli, endpoint, sizeof(endpoint), err));
    open_record(&upload);
    spb_status status = run(&upload, err);
    if (spb_is_ok(status))
        cli_resume_drop(&upload.record);
    else
        status = end_failed(&upload, status, err);
    cli_resume_done(&upload.record);
    return status;
}

void cli_upload_forget(struct cli *cli, struct cli_daemon *daemon,
                       const struct cli_upload_target *target, struct cli_source *source)
{
    char endpoint[512];
    struct upload upload = {
        .cli = cli,
        .daemon = daemon,
        .target = target,
        .source = source,
        .key = {endpoint, target->key, target->options, source},
        .record = {.fd = -1},
    };
    struct spb_error ignored;

    if (!spb_is_ok(find_endpoint(cli, endpoint, sizeof(endpoint), &ignored)))
        return;
    open_record(&upload);
    if (upload.is_continued)
        abort_upload(&upload);
    cli_resume_drop(&upload.record);
    cli_resume_done(&upload.record);
}
