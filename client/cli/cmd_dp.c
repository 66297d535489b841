/* The family dp: data products in and out, in constant memory. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/daemon.h"
#include "cli/listing.h"
#include "cli/output.h"
#include "cli/partial.h"
#include "cli/text.h"

#define CHANGES_MAX 4u /* of a product while it is fetched */

static void source_cleanup(struct cli_source *source)
{
    cli_source_done(source);
}

static void products_cleanup(struct cli_products *products)
{
    cli_products_done(products);
}

static size_t shown_name_len(const struct spb_product *product)
{
    return product->name_len < SPB_PRODUCT_NAME_MAX ? product->name_len : SPB_PRODUCT_NAME_MAX;
}

static json_t *product_to_json(const struct spb_product *product)
{
    json_t *object = cli_json_object();
    bool known = product->state == SPB_PRODUCT_GOOD ||
                 (product->state == SPB_PRODUCT_PRESENT && product->block_count == 0);

    cli_json_set_number(object, "entry", product->entry);
    cli_json_set_text(object, "name", product->name, shown_name_len(product));
    cli_json_set_string(object, "state", cli_product_state_name(product->state));
    if (known)
        cli_json_set_number(object, "length", product->length);
    cli_json_set_number(object, "class", product->product_class);
    cli_json_set_number(object, "priority", product->priority);
    cli_json_set_crc(object, "crc32c", product->crc);
    cli_json_set_number(object, "block_offset", product->block_offset);
    cli_json_set_number(object, "block_count", product->block_count);
    return object;
}

/* A sentence about a product: its name, made safe, then "rest". */
static void print_about(const struct spb_product *product, uint64_t length, const char *rest)
{
    char *name = cli_text_safe(product->name, shown_name_len(product));
    char *safe = cli_text_safe(rest, strlen(rest));

    printf("%s: %" PRIu64 " bytes, ", name == NULL ? "" : name, length);
    if (product->state == SPB_PRODUCT_ROTTEN)
        printf("unverified");
    else
        printf("CRC-32C %08" PRIx32, product->crc);
    printf("%s\n", safe == NULL ? "" : safe);
    free(name);
    free(safe);
}

int cli_run_dp_put(struct cli *cli)
{
    struct spb_product_attributes attributes = {
        .name = cli->words[0],
        .name_len = strlen(cli->words[0]),
        .product_class = (uint16_t)cli_number(cli, CLI_OPT_CLASS, 0),
        .priority = (uint8_t)cli_number(cli, CLI_OPT_PRIORITY, 0)};
    struct cli_source source __attribute__((cleanup(source_cleanup))) = {.fd = -1};
    CLI_AUTO_TARGET struct cli_target *target = NULL;
    struct cli_progress progress;
    struct spb_product product;
    struct spb_error err;
    int code = CLI_EXIT_OK;

    /* From here on a signal leaves an upload to be continued, or gives back what it reserved. */
    cli_interrupt_watch();
    if (!spb_is_ok(cli_source_open(cli->words[1], &source, &err)))
        return cli_fail(cli, &err);
    if (!cli_target_open(cli, &target, &code))
        return code;
    cli_progress_init(&progress, cli, "storing");
    spb_status status = target->ops->product_put(target, &attributes, cli_has(cli, CLI_OPT_REPLACE),
                                                 &source, &progress, &product, &err);
    cli_progress_done(&progress);
    if (!spb_is_ok(status))
        return cli_fail(cli, &err);
    /* What was published is what was read: its length is the source's. */
    product.state = SPB_PRODUCT_GOOD;
    product.length = source.size;
    if (cli_is_json(cli))
        cli_json_print(product_to_json(&product));
    else
        print_about(&product, product.length, ", stored");
    return CLI_EXIT_OK;
}

/* ---- get ----------------------------------------------------------------------------------- */

static spb_status print_hex(void *user, const void *data, size_t n, struct spb_error *err)
{
    char *hex = cli_text_hex("", data, n);

    (void)user;
    if (hex == NULL)
        return spb_fail_memory(err, "preparing the output");
    (void)fwrite(hex, 1, n * 2, stdout);
    free(hex);
    if (ferror(stdout) != 0)
        return spb_fail(err, SPB_IO, "writing to standard output failed");
    return spb_ok();
}

/* One JSON object whose data_hex is streamed: the product may be larger than memory. */
static spb_status get_hex(struct cli_target *target, const struct cli_product *product,
                          struct cli_progress *progress, struct spb_error *err)
{
    json_t *object = product_to_json(&product->product);

    cli_json_set_number(object, "length", product->product.length);
    /* All but the closing brace, which jansson writes last. */
    char *head = json_dumps(object, JSON_COMPACT | JSON_ENSURE_ASCII);
    json_decref(object);
    if (head == NULL)
        return spb_fail_memory(err, "preparing the output");
    printf("%.*s,\"data_hex\":\"", (int)strlen(head) - 1, head);
    free(head);
    const struct cli_fetched nothing = {0, 0};

    SPB_TRY(cli_product_fetch(target, product, nothing, progress, print_hex, NULL, err));
    printf("\"}\n");
    return spb_ok();
}

/* A product of a daemon on its way into a file. */
struct getting {
    struct cli *cli;
    struct cli_target *target;
    struct cli_product *product;
    const char *path;
    struct cli_progress *progress;
};

/* What FILE.part is a part of: this content. NULL for what cannot be continued; free(). */
static char *name_content(const struct getting *getting)
{
    const struct cli_product *product = getting->product;
    const char *image = cli_text_of(getting->cli, CLI_OPT_IMAGE);
    char *text = NULL;

    if (image == NULL || product->identity_len == 0 || product->product.state != SPB_PRODUCT_GOOD)
        return NULL;
    char *where = cli_text_value(image, strlen(image));
    char *name = cli_text_hex("", product->product.name, shown_name_len(&product->product));
    char *identity = cli_text_hex("", product->identity, product->identity_len);
    if (where == NULL || name == NULL || identity == NULL ||
        asprintf(&text, "product %s/%s, identity %s, %" PRIu64 " bytes, CRC-32C %08" PRIx32, where,
                 name, identity, product->product.length, product->product.crc) < 0)
        text = NULL;
    free(where);
    free(name);
    free(identity);
    return text;
}

/* Bytes that an earlier run left count once the whole has the right CRC; else all is fetched. */
static spb_status fetch_rest(const struct getting *getting, struct cli_partial *partial,
                             struct spb_error *err)
{
    struct cli_fetched fetched = {partial->length, partial->crc};

    if (fetched.length > 0 && cli_is_verbose(getting->cli))
        cli_note(getting->cli, "%s: going on at %" PRIu64 " of %" PRIu64 " bytes", getting->path,
                 fetched.length, getting->product->product.length);
    spb_status status =
        cli_product_fetch(getting->target, getting->product, fetched, getting->progress,
                          cli_output_write, &partial->output, err);
    if (status.code != SPB_CORRUPT)
        return status;
    bool had_rest = fetched.length > 0;
    fetched = (struct cli_fetched){0, 0};
    SPB_TRY(cli_partial_restart(partial, err));
    if (!had_rest)
        return status;
    return cli_product_fetch(getting->target, getting->product, fetched, getting->progress,
                             cli_output_write, &partial->output, err);
}

static spb_status say_left(const struct getting *getting, const struct cli_partial *partial,
                           spb_status status, struct spb_error *err)
{
    struct spb_error why = *err;
    uint64_t left = cli_partial_left(partial);

    if (left == 0 || (status.code != SPB_UNREACHABLE && status.code != SPB_DEADLINE))
        return status;
    status = spb_fail(err, why.code,
                      "%" PRIu64 " of %" PRIu64 " bytes are in %s.part; the same command goes on "
                      "with it: %s",
                      left, getting->product->product.length, getting->path, why.text);
    err->saved_errno = why.saved_errno;
    return status;
}

static spb_status get_bytes(const struct getting *getting, struct spb_error *err)
{
    struct cli_partial partial __attribute__((cleanup(cli_partial_done))) = {.output = {.fd = -1}};
    char *content = name_content(getting);

    /* From here on a signal ends it with a word about what is there. */
    if (content != NULL && strcmp(getting->path, "-") != 0)
        cli_interrupt_watch();
    spb_status status = cli_partial_open(getting->path, content, getting->product->product.length,
                                         cli_has(getting->cli, CLI_OPT_NO_RESUME), &partial, err);
    free(content);
    SPB_TRY(status);
    status = fetch_rest(getting, &partial, err);
    if (!spb_is_ok(status))
        return say_left(getting, &partial, status, err);
    return cli_partial_commit(&partial, err);
}

static spb_status find_product(const struct getting *getting, struct spb_error *err)
{
    const char *name = getting->cli->words[0];
    struct cli_progress progress;

    cli_progress_init(&progress, getting->cli, "verifying");
    spb_status status = getting->target->ops->product_find(getting->target, name, strlen(name),
                                                           cli_has(getting->cli, CLI_OPT_PADDED),
                                                           &progress, getting->product, err);
    cli_progress_done(&progress);
    return status;
}

/* A product that is replaced meanwhile is begun anew where nobody has seen the old one. */
static spb_status get_file(const struct getting *getting, struct spb_error *err)
{
    for (unsigned tries = 1;; tries++) {
        spb_status status = get_bytes(getting, err);
        if (status.code != SPB_CHANGED || tries == CHANGES_MAX || strcmp(getting->path, "-") == 0)
            return status;
        SPB_TRY(find_product(getting, err));
    }
}

static void report_got(const struct cli *cli, const struct spb_product *product, const char *path)
{
    char rest[512];

    if (!cli_is_json(cli)) {
        (void)snprintf(rest, sizeof(rest), ", written to %s", path);
        print_about(product, product->length, rest);
        return;
    }
    json_t *root = product_to_json(product);
    cli_json_set_number(root, "length", product->length);
    cli_json_set_string(root, "file", path);
    cli_json_print(root);
}

int cli_run_dp_get(struct cli *cli)
{
    const char *path = cli->word_count > 1 ? cli->words[1] : "-";
    bool to_stream = strcmp(path, "-") == 0;
    CLI_AUTO_TARGET struct cli_target *target = NULL;
    struct cli_progress progress;
    struct cli_product product;
    struct getting getting = {cli, NULL, &product, path, &progress};
    struct spb_error err;
    int code = CLI_EXIT_OK;

    if (!cli_target_open(cli, &target, &code))
        return code;
    getting.target = target;
    spb_status status = find_product(&getting, &err);
    if (!spb_is_ok(status))
        return cli_fail(cli, &err);
    if (product.product.state == SPB_PRODUCT_ROTTEN)
        cli_note(cli,
                 "data product \"%s\" is corrupt: these are the %" PRIu64
                 " bytes of its blocks, padding included, unverified",
                 cli->words[0], product.product.length);
    cli_progress_init(&progress, cli, "fetching");
    if (to_stream && cli_is_json(cli))
        status = get_hex(target, &product, &progress, &err);
    else
        status = get_file(&getting, &err);
    cli_progress_done(&progress);
    if (!spb_is_ok(status))
        return cli_fail(cli, &err);
    if (!to_stream)
        report_got(cli, &product.product, path);
    return CLI_EXIT_OK;
}

/* ---- list, delete -------------------------------------------------------------------------- */

int cli_run_dp_list(struct cli *cli)
{
    struct cli_products products __attribute__((cleanup(products_cleanup))) = {.count = 0};
    struct cli_inspection inspection = {.sector_size = 0};
    CLI_AUTO_TARGET struct cli_target *target = NULL;
    struct cli_progress progress;
    struct spb_error err;
    int code = CLI_EXIT_OK;

    if (!cli_target_open(cli, &target, &code))
        return code;
    cli_progress_init(&progress, cli, "verifying");
    spb_status status =
        target->ops->product_list(target, cli_has(cli, CLI_OPT_VERIFY), &progress, &products, &err);
    cli_progress_done(&progress);
    /* The size of a block bounds what is not known exactly. */
    if (spb_is_ok(status))
        status = target->ops->inspect(target, &inspection, &err);
    if (!spb_is_ok(status))
        return cli_fail(cli, &err);
    uint32_t sector_size = inspection.sector_size;
    cli_inspection_done(&inspection);
    if (!cli_is_json(cli)) {
        cli_listing_products(&products, sector_size);
        return CLI_EXIT_OK;
    }
    json_t *root = cli_json_object(), *list = cli_json_array();
    for (size_t i = 0; i < products.count; i++)
        cli_json_append(list, product_to_json(&products.products[i].product));
    cli_json_set_number(root, "sector_size", sector_size);
    cli_json_set(root, "products", list);
    cli_json_print(root);
    return CLI_EXIT_OK;
}

int cli_run_dp_delete(struct cli *cli)
{
    CLI_AUTO_TARGET struct cli_target *target = NULL;
    const char *name = cli->words[0];
    struct spb_error err;
    int code = CLI_EXIT_OK;

    if (!cli_target_open(cli, &target, &code))
        return code;
    if (!spb_is_ok(target->ops->product_delete(target, name, strlen(name), &err)))
        return cli_fail(cli, &err);
    if (cli_is_json(cli)) {
        json_t *root = cli_json_object();
        cli_json_set_string(root, "name", name);
        cli_json_set_bool(root, "deleted", true);
        cli_json_print(root);
    } else {
        char *safe = cli_text_safe(name, strlen(name));
        printf("data product %s deleted\n", safe == NULL ? "" : safe);
        free(safe);
    }
    return CLI_EXIT_OK;
}
