/* The family param. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/listing.h"
#include "cli/output.h"
#include "cli/text.h"

/* Far more than a value may have, so that an error can say how many bytes were found. */
#define VALUE_ROOM 4097u

static void params_cleanup(struct cli_params *params)
{
    cli_params_done(params);
}

/* The first word as an id; false after a printed usage error. */
static bool id_of(struct cli *cli, uint32_t *id, int *code)
{
    struct spb_error err;
    uint64_t number;

    if (!spb_is_ok(cli_parse_number("ID", cli->words[0], 0, UINT32_MAX, &number, &err))) {
        *code = cli_usage(cli, "%s", err.text);
        return false;
    }
    *id = (uint32_t)number;
    return true;
}

/* VALUE, - or @FILE; *value is borrowed from the word or from buffer. */
static spb_status value_of(const char *word, uint8_t buffer[VALUE_ROOM], const void **value,
                           size_t *len, struct spb_error *err)
{
    bool from_input = strcmp(word, "-") == 0;

    if (!from_input && word[0] != '@') {
        *value = word;
        *len = strlen(word);
        return spb_ok();
    }
    SPB_TRY(cli_source_read_small(from_input ? word : word + 1, buffer, VALUE_ROOM, len, err));
    if (*len == VALUE_ROOM)
        return spb_fail(err, SPB_INVALID,
                        "reading a value from \"%s\": found more than %u bytes, expected at most "
                        "%u",
                        word, VALUE_ROOM - 1, SPB_PARAM_VALUE_MAX);
    *value = buffer;
    return spb_ok();
}

int cli_run_param_put(struct cli *cli)
{
    CLI_AUTO_TARGET struct cli_target *target = NULL;
    struct spb_param_put put = {.expected_generation = SPB_ANY_GENERATION};
    uint8_t buffer[VALUE_ROOM];
    uint16_t generation = 0;
    struct spb_error err;
    int code = CLI_EXIT_OK;

    if (!id_of(cli, &put.id, &code))
        return code;
    if (cli_has(cli, CLI_OPT_IF_GENERATION))
        put.expected_generation = (int32_t)cli_number(cli, CLI_OPT_IF_GENERATION, 0);
    if (!spb_is_ok(value_of(cli->words[1], buffer, &put.value, &put.len, &err)))
        return cli_fail(cli, &err);
    if (!cli_target_open(cli, &target, &code))
        return code;
    if (!spb_is_ok(target->ops->param_put(target, &put, &generation, &err)))
        return cli_fail(cli, &err);
    if (cli_is_json(cli)) {
        json_t *root = cli_json_object();
        cli_json_set_number(root, "id", put.id);
        cli_json_set_number(root, "generation", generation);
        cli_json_print(root);
    } else {
        printf("param %" PRIu32 ": generation %u\n", put.id, generation);
    }
    return CLI_EXIT_OK;
}

static json_t *param_to_json(const struct spb_param *param)
{
    json_t *object = cli_json_object();
    bool corrupt = param->state == SPB_PARAM_CORRUPT;

    cli_json_set_number(object, "id", param->id);
    cli_json_set_number(object, "generation", param->generation);
    cli_json_set_number(object, "slot", param->slot);
    cli_json_set_bool(object, "corrupt", corrupt);
    if (!corrupt) {
        cli_json_set_number(object, "length", param->len);
        cli_json_set_value(object, "value", param->value, param->len);
    }
    return object;
}

static void get_json(const struct spb_param *param, const struct spb_param_warning *warning)
{
    json_t *root = param_to_json(param);

    cli_json_set_bool(root, "newer_corrupt", warning->newer_corrupt);
    if (warning->newer_corrupt) {
        cli_json_set_number(root, "newer_corrupt_slot", warning->slot);
        cli_json_set_number(root, "newer_corrupt_generation", warning->generation);
    }
    cli_json_print(root);
}

int cli_run_param_get(struct cli *cli)
{
    CLI_AUTO_TARGET struct cli_target *target = NULL;
    struct spb_param_warning warning = {.newer_corrupt = false};
    struct spb_param param;
    struct spb_error err;
    uint32_t id = 0;
    int code = CLI_EXIT_OK;

    if (cli_has(cli, CLI_OPT_RAW) && cli_is_json(cli))
        return cli_usage(cli, "param get: found both --raw and --json, expected one");
    if (!id_of(cli, &id, &code) || !cli_target_open(cli, &target, &code))
        return code;
    if (!spb_is_ok(target->ops->param_get(target, id, &param, &warning, &err)))
        return cli_fail(cli, &err);
    if (warning.newer_corrupt)
        cli_note(cli,
                 "param %" PRIu32 ": slot %" PRIu32 " is corrupt and shows generation %u, above "
                 "the value's %u: there may have been a newer value",
                 id, warning.slot, warning.generation, param.generation);
    if (cli_is_json(cli)) {
        get_json(&param, &warning);
    } else if (cli_has(cli, CLI_OPT_RAW)) {
        (void)fwrite(param.value, 1, param.len, stdout);
    } else {
        char *text = cli_text_value(param.value, param.len);
        printf("%s\n", text == NULL ? "" : text);
        free(text);
    }
    return CLI_EXIT_OK;
}

static void list_json(const struct cli_params *params)
{
    json_t *root = cli_json_object(), *list = cli_json_array(), *corrupt = cli_json_array();

    for (size_t i = 0; i < params->count; i++)
        cli_json_append(list, param_to_json(&params->params[i]));
    for (size_t i = 0; i < params->corrupt_count; i++)
        cli_json_append(corrupt, json_integer((json_int_t)params->corrupt_ids[i]));
    cli_json_set(root, "params", list);
    cli_json_set(root, "corrupt_only_ids", corrupt);
    cli_json_print(root);
}

static void list_text(const struct cli_params *params)
{
    struct cli_table table;

    cli_listing_params_init(&table);
    for (size_t i = 0; i < params->count; i++)
        cli_listing_param(&table, &params->params[i]);
    for (size_t i = 0; i < params->corrupt_count; i++) {
        cli_table_add(&table, "%" PRIu32, params->corrupt_ids[i]);
        for (size_t column = 1; column < 4; column++)
            cli_table_add(&table, "-");
        cli_table_add(&table, "(corrupt)");
    }
    cli_table_print(&table);
}

int cli_run_param_list(struct cli *cli)
{
    struct cli_params params __attribute__((cleanup(params_cleanup))) = {.count = 0};
    CLI_AUTO_TARGET struct cli_target *target = NULL;
    struct spb_error err;
    int code = CLI_EXIT_OK;

    if (!cli_target_open(cli, &target, &code))
        return code;
    if (!spb_is_ok(target->ops->param_list(target, &params, &err)))
        return cli_fail(cli, &err);
    if (cli_is_json(cli))
        list_json(&params);
    else
        list_text(&params);
    return CLI_EXIT_OK;
}

int cli_run_param_history(struct cli *cli)
{
    struct cli_params params __attribute__((cleanup(params_cleanup))) = {.count = 0};
    CLI_AUTO_TARGET struct cli_target *target = NULL;
    struct spb_error err;
    uint32_t id = 0;
    int code = CLI_EXIT_OK;

    if (!id_of(cli, &id, &code) || !cli_target_open(cli, &target, &code))
        return code;
    if (!spb_is_ok(target->ops->param_history(target, id, &params, &err)))
        return cli_fail(cli, &err);
    if (!cli_is_json(cli)) {
        list_text(&params);
        return CLI_EXIT_OK;
    }
    json_t *root = cli_json_object(), *entries = cli_json_array();
    for (size_t i = 0; i < params.count; i++)
        cli_json_append(entries, param_to_json(&params.params[i]));
    cli_json_set_number(root, "id", id);
    cli_json_set(root, "entries", entries);
    cli_json_print(root);
    return CLI_EXIT_OK;
}

int cli_run_param_delete(struct cli *cli)
{
    CLI_AUTO_TARGET struct cli_target *target = NULL;
    struct spb_error err;
    uint32_t id = 0;
    int code = CLI_EXIT_OK;

    if (!id_of(cli, &id, &code) || !cli_target_open(cli, &target, &code))
        return code;
    if (!spb_is_ok(target->ops->param_delete(target, id, &err)))
        return cli_fail(cli, &err);
    if (cli_is_json(cli)) {
        json_t *root = cli_json_object();
        cli_json_set_number(root, "id", id);
        cli_json_set_bool(root, "deleted", true);
        cli_json_print(root);
    } else {
        printf("param %" PRIu32 " deleted\n", id);
    }
    return CLI_EXIT_OK;
}
