/* Files for guests, found and stored; see artifact.h. */
#include "cli/artifact.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "cli/pages.h"
#include "cli/upload.h"

#define SERVICE "spaceblock.v1.Artifacts"
#define PIECE ((size_t)1 << 20)

/* ---- Storing ------------------------------------------------------------------------------- */

struct putting {
    struct cli *cli;
    struct cli_daemon *daemon;
    const struct cli_artifact_file *file;
    uint8_t sha256[SPB_SHA256_SIZE];
    Spaceblock__V1__ArtifactTarget target;
    Spaceblock__V1__Artifact *made; /* owned */
};

static void putting_cleanup(struct putting *putting)
{
    if (putting->made != NULL)
        spaceblock__v1__artifact__free_unpacked(putting->made, NULL);
}

static void fill_start(void *user, Spaceblock__V1__StartUploadRequest *request)
{
    struct putting *putting = user;
    Spaceblock__V1__ArtifactTarget *target = &putting->target;

    spaceblock__v1__artifact_target__init(target);
    if (putting->file->tenant.given) {
        target->if_tenant_case = SPACEBLOCK__V1__ARTIFACT_TARGET__IF_TENANT_TENANT;
        target->tenant = putting->file->tenant.number;
    }
    target->name = cli_bytes(putting->file->label, strlen(putting->file->label));
    target->sha256 = cli_bytes(putting->sha256, sizeof(putting->sha256));
    request->target_case = SPACEBLOCK__V1__START_UPLOAD_REQUEST__TARGET_ARTIFACT;
    request->artifact = target;
}

static spb_status keep_artifact(struct putting *putting, const Spaceblock__V1__Artifact *artifact,
                                struct spb_error *err)
{
    putting->made = (Spaceblock__V1__Artifact *)cli_message_copy(&artifact->base);
    return putting->made != NULL ? spb_ok() : spb_fail_memory(err, "storing an artifact");
}

static spb_status take_finished(void *user, const Spaceblock__V1__FinishUploadResponse *answer,
                                struct spb_error *err)
{
    if (answer->result_case != SPACEBLOCK__V1__FINISH_UPLOAD_RESPONSE__RESULT_ARTIFACT ||
        answer->artifact == NULL)
        return spb_fail(err, SPB_PROTOCOL,
                        "reading the daemon's answer to Finish: found no artifact in it");
    return keep_artifact(user, answer->artifact, err);
}

/* Is it stored already, and still what it was? All of it is read there. */
static spb_status find_stored(struct putting *putting, struct spb_error *err)
{
    static const struct cli_method method = {
        SERVICE, "Get", &spaceblock__v1__get_artifact_response__descriptor, CLI_LONG_CALL_MS};
    Spaceblock__V1__GetArtifactRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;

    spaceblock__v1__get_artifact_request__init(&request);
    if (putting->file->tenant.given) {
        request.if_tenant_case = SPACEBLOCK__V1__GET_ARTIFACT_REQUEST__IF_TENANT_TENANT;
        request.tenant = putting->file->tenant.number;
    }
    request.sha256 = cli_bytes(putting->sha256, sizeof(putting->sha256));
    request.verify = true;
    SPB_TRY(cli_daemon_call(putting->daemon, &method, &request.base, &reply, err));
    const Spaceblock__V1__GetArtifactResponse *answer = (const void *)reply;
    if (answer->artifact == NULL)
        return cli_answer_lacks(&method, "artifact", err);
    return keep_artifact(putting, answer->artifact, err);
}

static bool find_after_upload(void *user, uint32_t crc, uint64_t size)
{
    struct spb_error ignored;

    (void)crc;
    (void)size;
    return spb_is_ok(find_stored(user, &ignored));
}

static spb_status hash_pieces(struct cli_source *source, struct spb_sha256 *digest, uint8_t *piece,
                              struct cli_progress *progress, struct spb_error *err)
{
    for (uint64_t at = 0; at < source->size; at += PIECE) {
        size_t n = source->size - at < PIECE ? (size_t)(source->size - at) : PIECE;

        if (!cli_progress_callback(progress, at, source->size))
            return spb_fail(err, SPB_DEADLINE, "reading \"%s\": interrupted", source->name);
        SPB_TRY(cli_source_read_at(source, at, piece, n, err));
        SPB_TRY(spb_sha256_add(digest, piece, n, err));
    }
    return spb_ok();
}

static spb_status hash_source(struct putting *putting, struct cli_source *source,
                              struct spb_error *err)
{
    struct spb_sha256 *digest = NULL;
    struct cli_progress progress;
    uint8_t *piece = malloc(PIECE);

    if (piece == NULL)
        return spb_fail_memory(err, "storing an artifact");
    spb_status status = spb_sha256_new(&digest, err);
    if (spb_is_ok(status)) {
        cli_progress_init(&progress, putting->cli, "hashing");
        status = hash_pieces(source, digest, piece, &progress, err);
        cli_progress_done(&progress);
    }
    if (spb_is_ok(status))
        status = spb_sha256_finish(digest, putting->sha256, err);
    spb_sha256_free(digest);
    free(piece);
    return status;
}

/* Sends it; or, where it was there, ends what an earlier run may have left. */
static spb_status send_source(struct putting *putting, struct cli_source *source, bool was_there,
                              struct spb_error *err)
{
    char key[32 + SPB_SHA256_TEXT_SIZE], what[32 + SPB_SHA256_TEXT_SIZE], options[96] = "";
    char hash[SPB_SHA256_TEXT_SIZE];
    struct cli_upload_target target = {.what = what,
                                       .key = key,
                                       .options = options,
                                       .fill = fill_start,
                                       .take = take_finished,
                                       .find = find_after_upload,
                                       .user = putting};
    struct cli_progress progress;

    spb_sha256_text(putting->sha256, hash);
    (void)snprintf(what, sizeof(what), "artifact %s", hash);
    if (putting->file->tenant.given)
        (void)snprintf(key, sizeof(key), "artifact %u/%s", putting->file->tenant.number, hash);
    else
        (void)snprintf(key, sizeof(key), "artifact own/%s", hash);
    (void)snprintf(options, sizeof(options), "name %s", putting->file->label);
    if (was_there) {
        cli_upload_forget(putting->cli, putting->daemon, &target, source);
        return spb_ok();
    }
    cli_progress_init(&progress, putting->cli, "sending");
    spb_status status = cli_upload(putting->cli, putting->daemon, &target, source, &progress, err);
    cli_progress_done(&progress);
    return status;
}

static bool is_wanted(const struct putting *putting)
{
    const char *label = putting->file->label;

    return putting->file->keeps_label ||
           (putting->made->name.len == strlen(label) &&
            memcmp(putting->made->name.data, label, strlen(label)) == 0);
}

/* What is stored is not what it was, or cannot be read: the upload takes its place. */
static bool is_bad(enum spb_code code)
{
    return code == SPB_CORRUPT || code == SPB_IO;
}

static spb_status put(struct putting *putting, bool *was_there, struct spb_error *err)
{
    struct cli_source source __attribute__((cleanup(cli_source_done))) = {.fd = -1};

    SPB_TRY(cli_source_open(putting->file->path, &source, err));
    SPB_TRY(hash_source(putting, &source, err));
    spb_status status = find_stored(putting, err);
    if (!spb_is_ok(status) && status.code != SPB_NOT_FOUND && !is_bad(status.code))
        return status;
    if (is_bad(status.code))
        cli_note(putting->cli, "%s; it is sent again", err->text);
    *was_there = spb_is_ok(status) && is_wanted(putting);
    if (!*was_there) {
        putting_cleanup(putting);
        putting->made = NULL;
    }
    return send_source(putting, &source, *was_there, err);
}

spb_status cli_artifact_store(struct cli *cli, struct cli_daemon *daemon,
                              const struct cli_artifact_file *file,
                              Spaceblock__V1__Artifact **stored, bool *was_there,
                              struct spb_error *err)
{
    struct putting putting
        __attribute__((cleanup(putting_cleanup))) = {.cli = cli, .daemon = daemon, .file = file};
    bool there = false;

    SPB_TRY(put(&putting, &there, err));
    *stored = putting.made;
    *was_there = there;
    putting.made = NULL;
    return spb_ok();
}

/* ---- Finding ------------------------------------------------------------------------------- */

spb_status cli_artifact_each(struct cli_daemon *daemon, struct cli_tenant tenant,
                             bool (*take)(void *user, const Spaceblock__V1__Artifact *artifact),
                             void *user, struct spb_error *err)
{
    static const struct cli_method method = {
        SERVICE, "List", &spaceblock__v1__list_artifacts_response__descriptor, CLI_CALL_MS};
    struct cli_page page = {.token_len = 0};

    do {
        Spaceblock__V1__ListArtifactsRequest request;
        CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;

        spaceblock__v1__list_artifacts_request__init(&request);
        if (tenant.given) {
            request.if_tenant_case = SPACEBLOCK__V1__LIST_ARTIFACTS_REQUEST__IF_TENANT_TENANT;
            request.tenant = tenant.number;
        }
        request.page_token = cli_bytes(page.token, page.token_len);
        SPB_TRY(cli_daemon_call(daemon, &method, &request.base, &reply, err));
        const Spaceblock__V1__ListArtifactsResponse *answer = (const void *)reply;
        for (size_t i = 0; i < answer->n_artifacts; i++) {
            if (!take(user, answer->artifacts[i]))
                return spb_ok();
        }
        SPB_TRY(cli_page_turn(&page, &method, &answer->next_page_token, answer->n_artifacts, err));
    } while (page.token_len > 0);
    return spb_ok();
}

/* Which artifact the digits or the label mean. */
struct search {
    const char *digits; /* NULL: by label */
    const char *label;
    uint8_t found[SPB_SHA256_SIZE];
    size_t count;
};

static bool search_one(void *user, const Spaceblock__V1__Artifact *artifact)
{
    struct search *search = user;
    char text[SPB_SHA256_TEXT_SIZE];
    bool fits = false;

    if (artifact->sha256.len != SPB_SHA256_SIZE)
        return true;
    spb_sha256_text(artifact->sha256.data, text);
    if (search->digits != NULL)
        fits = strncmp(text, search->digits, strlen(search->digits)) == 0;
    else
        fits = artifact->name.len == strlen(search->label) &&
               memcmp(artifact->name.data, search->label, artifact->name.len) == 0;
    if (!fits)
        return true;
    memcpy(search->found, artifact->sha256.data, SPB_SHA256_SIZE);
    search->count++;
    return search->count < 2;
}

bool cli_artifact_is_digits(const char *text)
{
    size_t n = strlen(text);

    return n >= CLI_ARTIFACT_DIGITS_MIN && n < SPB_SHA256_TEXT_SIZE &&
           strspn(text, "0123456789abcdef") == n;
}

spb_status cli_artifact_by_digits(struct cli_daemon *daemon, struct cli_tenant tenant,
                                  const char *digits, uint8_t hash[SPB_SHA256_SIZE],
                                  struct spb_error *err)
{
    struct search search = {.digits = digits};

    if (spb_sha256_parse(digits, hash))
        return spb_ok();
    SPB_TRY(cli_artifact_each(daemon, tenant, search_one, &search, err));
    if (search.count == 0)
        return spb_fail(err, SPB_NOT_FOUND, "no artifact's SHA-256 begins with %s", digits);
    if (search.count > 1)
        return spb_fail(err, SPB_INVALID,
                        "several artifacts' SHA-256 begin with %s: give more of it", digits);
    memcpy(hash, search.found, SPB_SHA256_SIZE);
    return spb_ok();
}

spb_status cli_artifact_by_label(struct cli_daemon *daemon, struct cli_tenant tenant,
                                 const char *label, uint8_t hash[SPB_SHA256_SIZE],
                                 struct spb_error *err)
{
    struct search search = {.label = label};

    SPB_TRY(cli_artifact_each(daemon, tenant, search_one, &search, err));
    if (search.count == 0)
        return spb_fail(err, SPB_NOT_FOUND, "there is neither a file nor an artifact \"%s\"",
                        label);
    if (search.count > 1)
        return spb_fail(err, SPB_INVALID,
                        "several artifacts have the label \"%s\": give one's sha256:HEX", label);
    memcpy(hash, search.found, SPB_SHA256_SIZE);
    return spb_ok();
}
