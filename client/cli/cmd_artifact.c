/* The family artifact: files for guests, known by their SHA-256. */
#include <spaceblock/v1/artifacts.pb-c.h>

#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "cli/session.h"
#include "cli/table.h"
#include "cli/text.h"
#include "cli/upload.h"
#include "digest/sha256.h"

#define SERVICE "spaceblock.v1.Artifacts"
#define LABEL_MAX 64u
#define PIECE ((size_t)1 << 20)
#define PREFIX_MIN 6u

struct tenant_choice {
    bool given;
    uint32_t number;
};

static struct tenant_choice tenant_of(const struct cli *cli)
{
    return (struct tenant_choice){cli_has(cli, CLI_OPT_TENANT_ID),
                                  (uint32_t)cli_number(cli, CLI_OPT_TENANT_ID, 0)};
}

static json_t *to_json(const Spaceblock__V1__Artifact *artifact)
{
    json_t *object = cli_json_object();

    cli_json_set_number(object, "tenant", artifact->tenant);
    cli_json_set_hex(object, "sha256", artifact->sha256.data, artifact->sha256.len);
    cli_json_set_text(object, "name", artifact->name.data, artifact->name.len);
    cli_json_set_number(object, "size", artifact->size);
    cli_json_set_number(object, "created_at", artifact->created_at);
    return object;
}

static void print_one(const struct cli *cli, const Spaceblock__V1__Artifact *artifact,
                      const char *what)
{
    if (cli_is_json(cli)) {
        cli_json_print(to_json(artifact));
        return;
    }
    char *hex = cli_text_hex("", artifact->sha256.data, artifact->sha256.len);
    char *name = cli_text_safe(artifact->name.data, artifact->name.len);
    printf("%s  %s: %" PRIu64 " bytes, %s\n", hex == NULL ? "" : hex, name == NULL ? "" : name,
           artifact->size, what);
    free(hex);
    free(name);
}

/* ---- put ----------------------------------------------------------------------------------- */

struct putting {
    struct cli *cli;
    struct cli_session *session;
    struct tenant_choice tenant;
    const char *label;
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
    if (putting->tenant.given) {
        target->if_tenant_case = SPACEBLOCK__V1__ARTIFACT_TARGET__IF_TENANT_TENANT;
        target->tenant = putting->tenant.number;
    }
    target->name = cli_bytes(putting->label, strlen(putting->label));
    target->sha256 = cli_bytes(putting->sha256, sizeof(putting->sha256));
    request->target_case = SPACEBLOCK__V1__START_UPLOAD_REQUEST__TARGET_ARTIFACT;
    request->artifact = target;
}

static spb_status keep_artifact(struct putting *putting, const Spaceblock__V1__Artifact *artifact,
                                struct spb_error *err)
{
    size_t size = spaceblock__v1__artifact__get_packed_size(artifact);
    uint8_t *packed = malloc(size == 0 ? 1 : size);

    if (packed != NULL)
        (void)spaceblock__v1__artifact__pack(artifact, packed);
    putting->made = packed == NULL ? NULL : spaceblock__v1__artifact__unpack(NULL, size, packed);
    free(packed);
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

/* Is it stored already? */
static spb_status find_stored(struct putting *putting, struct spb_error *err)
{
    static const struct cli_method method = {
        SERVICE, "Get", &spaceblock__v1__get_artifact_response__descriptor, CLI_CALL_MS};
    Spaceblock__V1__GetArtifactRequest request;
    CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;

    spaceblock__v1__get_artifact_request__init(&request);
    if (putting->tenant.given) {
        request.if_tenant_case = SPACEBLOCK__V1__GET_ARTIFACT_REQUEST__IF_TENANT_TENANT;
        request.tenant = putting->tenant.number;
    }
    request.sha256 = cli_bytes(putting->sha256, sizeof(putting->sha256));
    SPB_TRY(cli_daemon_call(&putting->session->daemon, &method, &request.base, &reply, err));
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
    if (putting->tenant.given)
        (void)snprintf(key, sizeof(key), "artifact %u/%s", putting->tenant.number, hash);
    else
        (void)snprintf(key, sizeof(key), "artifact own/%s", hash);
    (void)snprintf(options, sizeof(options), "name %s", putting->label);
    if (was_there) {
        cli_upload_forget(putting->cli, &putting->session->daemon, &target, source);
        return spb_ok();
    }
    cli_progress_init(&progress, putting->cli, "sending");
    spb_status status =
        cli_upload(putting->cli, &putting->session->daemon, &target, source, &progress, err);
    cli_progress_done(&progress);
    return status;
}

/* What is there with the same label is not sent again. */
static spb_status put(struct putting *putting, bool *was_there, struct spb_error *err)
{
    struct cli_source source __attribute__((cleanup(cli_source_done))) = {.fd = -1};

    SPB_TRY(cli_source_open(putting->cli->words[0], &source, err));
    SPB_TRY(hash_source(putting, &source, err));
    spb_status status = find_stored(putting, err);
    if (!spb_is_ok(status) && status.code != SPB_NOT_FOUND)
        return status;
    *was_there = spb_is_ok(status) && putting->made->name.len == strlen(putting->label) &&
                 memcmp(putting->made->name.data, putting->label, strlen(putting->label)) == 0;
    if (!*was_there) {
        putting_cleanup(putting);
        putting->made = NULL;
    }
    return send_source(putting, &source, *was_there, err);
}

/* --name, or the file's own. The caller's, free(). */
static char *label_of(const struct cli *cli)
{
    const char *given = cli_text_of(cli, CLI_OPT_NAME);
    char *copy = strdup(given != NULL ? given : cli->words[0]);
    char *label = copy == NULL ? NULL : strdup(given != NULL ? copy : basename(copy));

    free(copy);
    return label;
}

int cli_run_artifact_put(struct cli *cli)
{
    CLI_AUTO_SESSION struct cli_session session = {.daemon = {NULL, NULL, 0}};
    struct putting putting __attribute__((cleanup(putting_cleanup))) = {
        .cli = cli, .session = &session, .tenant = tenant_of(cli)};
    bool was_there = false;
    struct spb_error err;

    int code = cli_session_open(cli, &session);
    if (code != CLI_EXIT_OK)
        return code;
    cli_interrupt_watch();
    char *label = label_of(cli);
    if (label == NULL) {
        (void)spb_fail_memory(&err, "storing an artifact");
        return cli_fail(cli, &err);
    }
    if (strlen(label) > LABEL_MAX)
        code = cli_usage(cli,
                         "artifact put: found a name of %zu bytes, expected at most %u: give "
                         "one with --name",
                         strlen(label), LABEL_MAX);
    putting.label = label;
    if (code == CLI_EXIT_OK && !spb_is_ok(put(&putting, &was_there, &err)))
        code = cli_fail(cli, &err);
    else if (code == CLI_EXIT_OK)
        print_one(cli, putting.made, was_there ? "was there" : "stored");
    free(label);
    return code;
}

/* ---- ls ------------------------------------------------------------------------------------ */

/* Calls take with each artifact, page by page, until it returns false. */
static spb_status each_artifact(struct cli *cli, struct cli_session *session,
                                bool (*take)(void *user, const Spaceblock__V1__Artifact *artifact),
                                void *user, struct spb_error *err)
{
    static const struct cli_method method = {
        SERVICE, "List", &spaceblock__v1__list_artifacts_response__descriptor, CLI_CALL_MS};
    struct tenant_choice tenant = tenant_of(cli);
    uint8_t token[512];
    size_t token_len = 0;

    do {
        Spaceblock__V1__ListArtifactsRequest request;
        CLI_AUTO_MESSAGE ProtobufCMessage *reply = NULL;

        spaceblock__v1__list_artifacts_request__init(&request);
        if (tenant.given) {
            request.if_tenant_case = SPACEBLOCK__V1__LIST_ARTIFACTS_REQUEST__IF_TENANT_TENANT;
            request.tenant = tenant.number;
        }
        request.page_token = cli_bytes(token, token_len);
        SPB_TRY(cli_daemon_call(&session->daemon, &method, &request.base, &reply, err));
        const Spaceblock__V1__ListArtifactsResponse *answer = (const void *)reply;
        /* A daemon that pages on without artifacts would never come to an end. */
        if (answer->next_page_token.len > sizeof(token) ||
            (answer->next_page_token.len > 0 && answer->n_artifacts == 0))
            return cli_answer_lacks(&method, "a page token that leads on", err);
        for (size_t i = 0; i < answer->n_artifacts; i++) {
            if (!take(user, answer->artifacts[i]))
                return spb_ok();
        }
        token_len = answer->next_page_token.len;
        if (token_len > 0)
            memcpy(token, answer->next_page_token.data, token_len);
    } while (token_len > 0);
    return spb_ok();
}

struct listing {
    json_t *list; /* with --json */
    struct cli_table table;
};

static bool list_one(void *user, const Spaceblock__V1__Artifact *artifact)
{
    struct listing *listing = user;
    char created[CLI_TIME_SIZE];

    if (listing->list != NULL) {
        cli_json_append(listing->list, to_json(artifact));
        return true;
    }
    cli_text_time(artifact->created_at, created);
    cli_table_take(&listing->table, cli_text_hex("", artifact->sha256.data, artifact->sha256.len));
    cli_table_add(&listing->table, "%" PRIu64, artifact->size);
    cli_table_add(&listing->table, "%s", created);
    cli_table_take(&listing->table, cli_text_safe(artifact->name.data, artifact->name.len));
    return true;
}

int cli_run_artifact_ls(struct cli *cli)
{
    static const char *const headings[] = {"SHA-256", "SIZE", "CREATED", "NAME"};
    CLI_AUTO_SESSION struct cli_session session = {.daemon = {NULL, NULL, 0}};
    struct listing listing = {.list = NULL};
    struct spb_error err;

    int code = cli_session_open(cli, &session);
    if (code != CLI_EXIT_OK)
        return code;
    if (cli_is_json(cli))
        listing.list = cli_json_array();
    else
        cli_table_init(&listing.table, headings, 4);
    if (!spb_is_ok(each_artifact(cli, &session, list_one, &listing, &err))) {
        json_decref(listing.list);
        cli_table_done(&listing.table);
        return cli_fail(cli, &err);
    }
    if (listing.list == NULL) {
        cli_table_print(&listing.table);
        return CLI_EXIT_OK;
    }
    json_t *root = cli_json_object();
    cli_json_set(root, "artifacts", listing.list);
    cli_json_print(root);
    return CLI_EXIT_OK;
}

/* ---- rm ------------------------------------------------------------------------------------ */

/* Which artifact the digits mean. */
struct search {
    const char *digits;
    uint8_t found[SPB_SHA256_SIZE];
    size_t count;
};

static bool search_one(void *user, const Spaceblock__V1__Artifact *artifact)
{
    struct search *search = user;
    char text[SPB_SHA256_TEXT_SIZE];

    if (artifact->sha256.len != SPB_SHA256_SIZE)
        return true;
    spb_sha256_text(artifact->sha256.data, text);
    if (strncmp(text, search->digits, strlen(search->digits)) != 0)
        return true;
    memcpy(search->found, artifact->sha256.data, SPB_SHA256_SIZE);
    search->count++;
    return search->count < 2;
}

static spb_status find_hash(struct cli *cli, struct cli_session *session, const char *digits,
                            uint8_t hash[SPB_SHA256_SIZE], struct spb_error *err)
{
    struct search search = {.digits = digits};

    if (spb_sha256_parse(digits, hash))
        return spb_ok();
    SPB_TRY(each_artifact(cli, session, search_one, &search, err));
    if (search.count == 0)
        return spb_fail(err, SPB_NOT_FOUND, "no artifact's SHA-256 begins with %s", digits);
    if (search.count > 1)
        return spb_fail(err, SPB_INVALID,
                        "several artifacts' SHA-256 begin with %s: give more of it", digits);
    memcpy(hash, search.found, SPB_SHA256_SIZE);
    return spb_ok();
}

static spb_status remove_artifact(struct cli *cli, struct cli_session *session,
                                  const uint8_t hash[SPB_SHA256_SIZE], struct spb_error *err)
{
    static const struct cli_method method = {
        SERVICE, "Delete", &spaceblock__v1__delete_artifact_response__descriptor, CLI_CALL_MS};
    struct tenant_choice tenant = tenant_of(cli);
    Spaceblock__V1__DeleteArtifactRequest request;

    spaceblock__v1__delete_artifact_request__init(&request);
    request.request_id = session->request_id;
    if (tenant.given) {
        request.if_tenant_case = SPACEBLOCK__V1__DELETE_ARTIFACT_REQUEST__IF_TENANT_TENANT;
        request.tenant = tenant.number;
    }
    request.sha256 = cli_bytes(hash, SPB_SHA256_SIZE);
    return cli_daemon_do(&session->daemon, &method, &request.base, err);
}

int cli_run_artifact_rm(struct cli *cli)
{
    CLI_AUTO_SESSION struct cli_session session = {.daemon = {NULL, NULL, 0}};
    const char *digits = cli->words[0];
    size_t n = strlen(digits);
    uint8_t hash[SPB_SHA256_SIZE];
    char text[SPB_SHA256_TEXT_SIZE];
    struct spb_error err;

    if (n < PREFIX_MIN || n > SPB_SHA256_TEXT_SIZE - 1 || strspn(digits, "0123456789abcdef") != n)
        return cli_usage(cli, "SHA256: found \"%s\", expected %u to %u lower-case hex digits",
                         digits, PREFIX_MIN, SPB_SHA256_TEXT_SIZE - 1);
    int code = cli_session_open(cli, &session);
    if (code != CLI_EXIT_OK)
        return code;
    spb_status status = find_hash(cli, &session, digits, hash, &err);
    if (spb_is_ok(status))
        status = remove_artifact(cli, &session, hash, &err);
    if (!spb_is_ok(status))
        return cli_fail(cli, &err);
    spb_sha256_text(hash, text);
    if (cli_is_json(cli)) {
        json_t *root = cli_json_object();
        cli_json_set_string(root, "sha256", text);
        cli_json_set_bool(root, "deleted", true);
        cli_json_print(root);
    } else {
        printf("artifact %s deleted\n", text);
    }
    return CLI_EXIT_OK;
}
