/* inspect: what an image holds, as a summary and tables, or with the keys of the reference reader.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/listing.h"
#include "cli/output.h"
#include "cli/table.h"
#include "cli/target.h"
#include "cli/text.h"

struct contents {
    struct cli_inspection inspection;
    struct cli_events events;
    struct cli_products products;
};

static void contents_cleanup(struct contents *contents)
{
    cli_inspection_done(&contents->inspection);
    cli_events_done(&contents->events);
    cli_products_done(&contents->products);
}

static spb_status read_contents(struct cli *cli, struct cli_target *target,
                                struct contents *contents, struct spb_error *err)
{
    static const struct cli_event_query all = {.newest = 0};
    struct cli_progress progress;

    SPB_TRY(target->ops->inspect(target, &contents->inspection, err));
    SPB_TRY(target->ops->event_list(target, &all, &contents->events, err));
    cli_progress_init(&progress, cli, "verifying");
    spb_status status =
        target->ops->product_list(target, true, &progress, &contents->products, err);
    cli_progress_done(&progress);
    return status;
}

/* ---- JSON ---------------------------------------------------------------------------------- */

static json_t *param_to_json(const struct spb_param *param)
{
    json_t *object = cli_json_object();

    cli_json_set_number(object, "slot", param->slot);
    cli_json_set_number(object, "id", param->id);
    cli_json_set_number(object, "generation", param->generation);
    cli_json_set_hex(object, "value_hex", param->value, param->len);
    return object;
}

static int by_id(const void *a, const void *b)
{
    const struct spb_param *left = a, *right = b;

    return left->id < right->id ? -1 : left->id > right->id;
}

static spb_status newest_to_json(const struct cli_inspection *inspection, json_t *array,
                                 struct spb_error *err)
{
    size_t count = 0;
    struct spb_param *newest = calloc(inspection->param_count + 1, sizeof(*newest));

    if (newest == NULL)
        return spb_fail_memory(err, "listing parameters");
    for (size_t i = 0; i < inspection->param_count; i++) {
        if (inspection->params[i].newest)
            newest[count++] = inspection->params[i];
    }
    qsort(newest, count, sizeof(*newest), by_id);
    for (size_t i = 0; i < count; i++)
        cli_json_append(array, param_to_json(&newest[i]));
    free(newest);
    return spb_ok();
}

static spb_status params_to_json(const struct cli_inspection *inspection, json_t *root,
                                 struct spb_error *err)
{
    json_t *valid = cli_json_array(), *corrupt = cli_json_array(), *newest = cli_json_array();

    for (size_t i = 0; i < inspection->param_count; i++) {
        const struct spb_param *param = &inspection->params[i];
        if (param->state == SPB_PARAM_CORRUPT)
            cli_json_append(corrupt, json_integer((json_int_t)param->slot));
        else
            cli_json_append(valid, param_to_json(param));
    }
    cli_json_set(root, "params", valid);
    cli_json_set(root, "corrupt_param_slots", corrupt);
    spb_status status = newest_to_json(inspection, newest, err);
    cli_json_set(root, "latest_params", newest);
    return status;
}

static void events_to_json(const struct cli_events *events, json_t *root)
{
    json_t *valid = cli_json_array(), *corrupt = cli_json_array();

    for (size_t i = 0; i < events->count; i++) {
        const struct spb_event *event = &events->events[i];
        if (event->corrupt) {
            cli_json_append(corrupt, json_integer((json_int_t)event->index));
            continue;
        }
        json_t *object = cli_json_object();
        cli_json_set_number(object, "index", event->index);
        cli_json_set_number(object, "timestamp", event->timestamp);
        cli_json_set_number(object, "severity", event->severity);
        cli_json_set_number(object, "code", event->code);
        cli_json_set_hex(object, "payload_hex", event->payload, event->payload_len);
        cli_json_append(valid, object);
    }
    cli_json_set(root, "events", valid);
    cli_json_set(root, "corrupt_event_indexes", corrupt);
}

static size_t shown_name_len(const struct spb_product *product)
{
    return product->name_len < SPB_PRODUCT_NAME_MAX ? product->name_len : SPB_PRODUCT_NAME_MAX;
}

static json_t *product_to_json(const struct spb_product *product)
{
    json_t *object = cli_json_object();
    bool good = product->state == SPB_PRODUCT_GOOD;

    cli_json_set_number(object, "entry", product->entry);
    cli_json_set_number(object, "block_offset", product->block_offset);
    cli_json_set_number(object, "block_count", product->block_count);
    cli_json_set_number(object, "class", product->product_class);
    cli_json_set_number(object, "priority", product->priority);
    cli_json_set_text(object, "name", product->name, shown_name_len(product));
    cli_json_set_crc(object, "crc32c", product->crc);
    cli_json_set_bool(object, "ok", good);
    if (good)
        cli_json_set_number(object, "length", product->length);
    return object;
}

struct buffer {
    uint8_t *data; /* owned */
    size_t used, size;
};

static spb_status take_bytes(void *user, const void *data, size_t n, struct spb_error *err)
{
    struct buffer *buffer = user;

    if (n > buffer->size - buffer->used)
        return spb_fail(err, SPB_PROTOCOL, "reading a data product: found more than its length");
    memcpy(buffer->data + buffer->used, data, n);
    buffer->used += n;
    return spb_ok();
}

static spb_status add_data(struct cli *cli, struct cli_target *target,
                           const struct cli_product *product, json_t *object, struct spb_error *err)
{
    struct buffer buffer = {.size = (size_t)product->product.length};
    const struct cli_fetched nothing = {0, 0};
    struct cli_progress progress;

    buffer.data = malloc(buffer.size == 0 ? 1 : buffer.size);
    if (buffer.data == NULL)
        return spb_fail_memory(err, "reading a data product");
    cli_progress_init(&progress, cli, "reading");
    spb_status status =
        cli_product_fetch(target, product, nothing, &progress, take_bytes, &buffer, err);
    cli_progress_done(&progress);
    if (spb_is_ok(status))
        cli_json_set_hex(object, "data_hex", buffer.data, buffer.used);
    free(buffer.data);
    return status;
}

static spb_status products_to_json(struct cli *cli, struct cli_target *target,
                                   const struct cli_products *products, json_t *root,
                                   struct spb_error *err)
{
    json_t *array = cli_json_array();

    cli_json_set(root, "dps", array);
    for (size_t i = 0; i < products->count; i++) {
        const struct cli_product *product = &products->products[i];
        json_t *object = product_to_json(&product->product);
        cli_json_append(array, object);
        if (product->product.state == SPB_PRODUCT_GOOD && cli_has(cli, CLI_OPT_DATA))
            SPB_TRY(add_data(cli, target, product, object, err));
    }
    return spb_ok();
}

static void superblock_to_json(const struct cli_inspection *inspection, json_t *root)
{
    const struct spb_superblock *superblock = &inspection->superblock;

    cli_json_set_number(root, "sector_size", inspection->sector_size);
    cli_json_set_number(root, "format_version", superblock->format_version);
    cli_json_set_number(root, "tenant_id", superblock->tenant_id);
    cli_json_set_number(root, "total_blocks", superblock->total_blocks);
    cli_json_set_number(root, "dp_start", superblock->dp_start);
    cli_json_set_number(root, "dp_size", superblock->dp_size);
    cli_json_set_number(root, "epoch", superblock->epoch);
    cli_json_set_hex(root, "uuid", superblock->uuid, SPB_UUID_SIZE);
    /* An image whose superblock fails its CRC is not opened. */
    cli_json_set_bool(root, "crc_ok", true);
}

static spb_status contents_to_json(struct cli *cli, struct cli_target *target,
                                   const struct contents *contents, json_t *root,
                                   struct spb_error *err)
{
    const struct cli_inspection *inspection = &contents->inspection;

    superblock_to_json(inspection, root);
    SPB_TRY(params_to_json(inspection, root, err));
    cli_json_set_number(root, "event_pointer", inspection->event_pointer);
    cli_json_set_number(root, "event_capacity", inspection->event_capacity);
    events_to_json(&contents->events, root);
    SPB_TRY(products_to_json(cli, target, &contents->products, root, err));
    cli_json_set_number(root, "param_slots", inspection->param_slots);
    cli_json_set_number(root, "event_window", inspection->event_window);
    cli_json_set_number(root, "product_entries", inspection->product_entries);
    cli_json_set_number(root, "free_blocks", inspection->free_blocks);
    cli_json_set_number(root, "largest_free_blocks", inspection->largest_free_blocks);
    cli_json_set_string(root, "summary", inspection->summary);
    return spb_ok();
}

/* ---- Text ---------------------------------------------------------------------------------- */

/* Lines of a text from the daemon, each made safe. */
static void print_lines(const char *text)
{
    while (*text != '\0') {
        size_t length = strcspn(text, "\n");
        char *line = cli_text_safe(text, length);
        printf("%s\n", line == NULL ? "" : line);
        free(line);
        text += length + (text[length] == '\n' ? 1 : 0);
    }
}

static void print_params(const struct cli_inspection *inspection)
{
    struct cli_table table;

    cli_listing_params_init(&table);
    for (size_t i = 0; i < inspection->param_count; i++) {
        const struct spb_param *param = &inspection->params[i];
        if (param->newest || param->state == SPB_PARAM_CORRUPT)
            cli_listing_param(&table, param);
    }
    cli_table_print(&table);
}

static void print_contents(const struct contents *contents)
{
    print_lines(contents->inspection.summary);
    printf("\nParameters, newest values\n");
    print_params(&contents->inspection);
    printf("\nEvents, oldest first\n");
    cli_listing_events(&contents->events);
    printf("\nData products\n");
    cli_listing_products(&contents->products, contents->inspection.sector_size);
}

int cli_run_inspect(struct cli *cli)
{
    struct contents contents
        __attribute__((cleanup(contents_cleanup))) = {.inspection = {.summary = NULL}};
    CLI_AUTO_TARGET struct cli_target *target = NULL;
    struct spb_error err;
    int code = CLI_EXIT_OK;

    if (cli_has(cli, CLI_OPT_DATA) && !cli_is_json(cli))
        return cli_usage(cli, "inspect: found --data without --json, expected both");
    if (!cli_target_open(cli, &target, &code))
        return code;
    spb_status status = read_contents(cli, target, &contents, &err);
    if (!spb_is_ok(status))
        return cli_fail(cli, &err);
    if (contents.events.cut)
        cli_note(cli, "only the newest %zu events are shown", contents.events.count);
    if (!cli_is_json(cli)) {
        print_contents(&contents);
        return CLI_EXIT_OK;
    }
    json_t *root = cli_json_object();
    status = contents_to_json(cli, target, &contents, root, &err);
    if (spb_is_ok(status)) {
        cli_json_print(root);
        return CLI_EXIT_OK;
    }
    json_decref(root);
    return cli_fail(cli, &err);
}
