/* Tables that several commands show; see listing.h. */
#include "cli/listing.h"

#include <inttypes.h>

#include "cli/text.h"

void cli_listing_params_init(struct cli_table *table)
{
    static const char *const headings[] = {"ID", "GENERATION", "SLOT", "LENGTH", "VALUE"};

    cli_table_init(table, headings, 5);
}

void cli_listing_param(struct cli_table *table, const struct spb_param *param)
{
    bool corrupt = param->state == SPB_PARAM_CORRUPT;

    cli_table_add(table, "%" PRIu32, param->id);
    cli_table_add(table, "%u", param->generation);
    cli_table_add(table, "%" PRIu32, param->slot);
    if (corrupt) {
        cli_table_add(table, "-");
        cli_table_add(table, "(corrupt)");
        return;
    }
    cli_table_add(table, "%u", param->len);
    cli_table_take(table, cli_text_value(param->value, param->len));
}

void cli_listing_events(const struct cli_events *events)
{
    static const char *const headings[] = {"INDEX", "TIME", "SEVERITY", "CODE", "PAYLOAD"};
    char when[CLI_TIME_SIZE], severity[CLI_SEVERITY_SIZE];
    struct cli_table table;

    cli_table_init(&table, headings, 5);
    for (size_t i = 0; i < events->count; i++) {
        const struct spb_event *event = &events->events[i];
        cli_table_add(&table, "%" PRIu32, event->index);
        if (event->corrupt) {
            cli_table_add(&table, "-");
            cli_table_add(&table, "-");
            cli_table_add(&table, "-");
            cli_table_add(&table, "(corrupt)");
            continue;
        }
        cli_text_event_time(events->epoch, event->timestamp, when);
        cli_text_severity(event->severity, severity);
        cli_table_add(&table, "%s", when);
        cli_table_add(&table, "%s", severity);
        cli_table_add(&table, "%u", event->code);
        cli_table_take(&table, cli_text_value(event->payload, event->payload_len));
    }
    cli_table_print(&table);
}

const char *cli_product_state_name(enum spb_product_state state)
{
    switch (state) {
    case SPB_PRODUCT_GOOD:
        return "good";
    case SPB_PRODUCT_ROTTEN:
        return "rotten";
    case SPB_PRODUCT_INVALID:
        return "invalid";
    case SPB_PRODUCT_FREE:
    case SPB_PRODUCT_PRESENT:
        break;
    }
    return "unverified";
}

static void add_length(struct cli_table *table, const struct spb_product *product,
                       uint32_t sector_size)
{
    bool known = product->state == SPB_PRODUCT_GOOD ||
                 (product->state == SPB_PRODUCT_PRESENT && product->block_count == 0);

    if (known)
        cli_table_add(table, "%" PRIu64, product->length);
    else if (product->state == SPB_PRODUCT_PRESENT && sector_size > 0)
        cli_table_add(table, "<=%" PRIu64, (uint64_t)product->block_count * sector_size);
    else
        cli_table_add(table, "-");
}

void cli_listing_products(const struct cli_products *products, uint32_t sector_size)
{
    static const char *const headings[] = {"NAME",   "LENGTH", "CLASS",  "PRIORITY",
                                           "CRC32C", "OFFSET", "BLOCKS", "STATE"};
    struct cli_table table;

    cli_table_init(&table, headings, 8);
    for (size_t i = 0; i < products->count; i++) {
        const struct spb_product *product = &products->products[i].product;
        size_t name_len =
            product->name_len < SPB_PRODUCT_NAME_MAX ? product->name_len : SPB_PRODUCT_NAME_MAX;
        cli_table_take(&table, cli_text_safe(product->name, name_len));
        add_length(&table, product, sector_size);
        cli_table_add(&table, "%u", product->product_class);
        cli_table_add(&table, "%u", product->priority);
        cli_table_add(&table, "%08" PRIx32, product->crc);
        cli_table_add(&table, "%" PRIu32, product->block_offset);
        cli_table_add(&table, "%" PRIu32, product->block_count);
        cli_table_add(&table, "%s", cli_product_state_name(product->state));
    }
    cli_table_print(&table);
}
