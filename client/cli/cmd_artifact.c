/* The family artifact: files for guests, known by their SHA-256. */
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/artifact.h"
#include "cli/output.h"
#include "cli/session.h"
#include "cli/table.h"
#include "cli/text.h"

#define SERVICE "spaceblock.v1.Artifacts"

static struct cli_tenant tenant_of(const struct cli *cli)
{
    return (struct cli_tenant){cli_has(cli, CLI_OPT_TENANT_ID),
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
    CLI_AUTO_SESSION struct cli_session session = {.daemon = {.client = NULL}};
    struct cli_artifact_file file = {.tenant = tenant_of(cli), .path = cli->words[0]};
    Spaceblock__V1__Artifact *stored = NULL;
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
    file.label = label;
    if (strlen(label) > CLI_ARTIFACT_LABEL_MAX)
        code = cli_usage(cli,
                         "artifact put: found a name of %zu bytes, expected at most %u: give "
                         "one with --name",
                         strlen(label), CLI_ARTIFACT_LABEL_MAX);
    else if (!spb_is_ok(cli_artifact_store(cli, &session.daemon, &file, &stored, &was_there, &err)))
        code = cli_fail(cli, &err);
    else
        print_one(cli, stored, was_there ? "was there" : "stored");
    if (stored != NULL)
        spaceblock__v1__artifact__free_unpacked(stored, NULL);
    free(label);
    return code;
}

/* ---- ls ------------------------------------------------------------------------------------ */

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
    CLI_AUTO_SESSION struct cli_session session = {.daemon = {.client = NULL}};
    struct listing listing = {.list = NULL};
    struct spb_error err;

    int code = cli_session_open(cli, &session);
    if (code != CLI_EXIT_OK)
        return code;
    if (cli_is_json(cli))
        listing.list = cli_json_array();
    else
        cli_table_init(&listing.table, headings, 4);
    if (!spb_is_ok(cli_artifact_each(&session.daemon, tenant_of(cli), list_one, &listing, &err))) {
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

static spb_status remove_artifact(struct cli *cli, struct cli_session *session,
                                  const uint8_t hash[SPB_SHA256_SIZE], struct spb_error *err)
{
    static const struct cli_method method = {
        SERVICE, "Delete", &spaceblock__v1__delete_artifact_response__descriptor, CLI_CALL_MS};
    struct cli_tenant tenant = tenant_of(cli);
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
    CLI_AUTO_SESSION struct cli_session session = {.daemon = {.client = NULL}};
    const char *digits = cli->words[0];
    uint8_t hash[SPB_SHA256_SIZE];
    char text[SPB_SHA256_TEXT_SIZE];
    struct spb_error err;

    if (!cli_artifact_is_digits(digits))
        return cli_usage(cli, "SHA256: found \"%s\", expected %u to %u lower-case hex digits",
                         digits, CLI_ARTIFACT_DIGITS_MIN, SPB_SHA256_TEXT_SIZE - 1);
    int code = cli_session_open(cli, &session);
    if (code != CLI_EXIT_OK)
        return code;
    spb_status status = cli_artifact_by_digits(&session.daemon, tenant_of(cli), digits, hash, &err);
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
