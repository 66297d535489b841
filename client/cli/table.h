/* A table of text cells whose columns line up. Cells come from image and peer, escaped by the
 * caller (text.h). Ends the process where memory runs out. One thread. */
#ifndef SPB_CLI_TABLE_H
#define SPB_CLI_TABLE_H

#include <stddef.h>

#define CLI_TABLE_COLUMNS_MAX 8u

struct cli_table {
    size_t columns;
    char **cells; /* owned, row by row */
    size_t count, room;
};

/* headings: one string a column. */
void cli_table_init(struct cli_table *table, const char *const *headings, size_t columns);
/* Appends a cell, owned from now on; NULL ends the process as out of memory. */
void cli_table_take(struct cli_table *table, char *cell);
void cli_table_add(struct cli_table *table, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Prints on standard output and frees. The rows must be full. */
void cli_table_print(struct cli_table *table);
/* Frees without printing; accepts what was zeroed. */
void cli_table_done(struct cli_table *table);

#endif
