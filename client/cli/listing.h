/* Tables that several commands show: parameters, events, data products. Standard output. */
#ifndef SPB_CLI_LISTING_H
#define SPB_CLI_LISTING_H

#include "cli/table.h"
#include "cli/target.h"

void cli_listing_params_init(struct cli_table *table);
void cli_listing_param(struct cli_table *table, const struct spb_param *param);
void cli_listing_events(const struct cli_events *events);
/* sector_size 0: not known, so a length that is not known is not bounded either. */
void cli_listing_products(const struct cli_products *products, uint32_t sector_size);

/* "good", "rotten", "invalid" or "unverified". */
const char *cli_product_state_name(enum spb_product_state state);

#endif
