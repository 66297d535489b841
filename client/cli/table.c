/* A table of text cells; see table.h. */
#include "cli/table.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

static _Noreturn void out_of_memory(void)
{
    (void)fprintf(stderr, "spaceblock: out of memory while preparing the output\n");
    exit(1);
}

void cli_table_take(struct cli_table *table, char *cell)
{
    if (cell == NULL)
        out_of_memory();
    if (table->count == table->room) {
        size_t room = table->room == 0 ? 64 : table->room * 2;
        char **cells = reallocarray(table->cells, room, sizeof(*cells));
        if (cells == NULL)
            out_of_memory();
        table->cells = cells;
        table->room = room;
    }
    table->cells[table->count++] = cell;
}

void cli_table_add(struct cli_table *table, const char *format, ...)
{
    char *cell = NULL;
    va_list args;

    va_start(args, format);
    int length = vasprintf(&cell, format, args);
    va_end(args);
    cli_table_take(table, length < 0 ? NULL : cell);
}

void cli_table_init(struct cli_table *table, const char *const *headings, size_t columns)
{
    memset(table, 0, sizeof(*table));
    table->columns = columns;
    for (size_t i = 0; i < columns; i++)
        cli_table_take(table, strdup(headings[i]));
}

/* Characters of UTF-8: every byte but the continuing ones. */
static size_t width_of(const char *cell)
{
    size_t width = 0;

    for (; *cell != '\0'; cell++)
        width += ((unsigned char)*cell & 0xC0) != 0x80;
    return width;
}

void cli_table_print(struct cli_table *table)
{
    size_t widths[CLI_TABLE_COLUMNS_MAX] = {0};

    SPB_ASSERT(table->columns <= CLI_TABLE_COLUMNS_MAX && table->count % table->columns == 0);
    for (size_t i = 0; i < table->count; i++) {
        size_t width = width_of(table->cells[i]);
        if (width > widths[i % table->columns])
            widths[i % table->columns] = width;
    }
    for (size_t i = 0; i < table->count; i++) {
        bool last = i % table->columns == table->columns - 1;
        size_t gap = last ? 0 : widths[i % table->columns] - width_of(table->cells[i]) + 2;
        printf("%s%*s%s", table->cells[i], (int)gap, "", last ? "\n" : "");
    }
    cli_table_done(table);
}

void cli_table_done(struct cli_table *table)
{
    for (size_t i = 0; i < table->count; i++)
        free(table->cells[i]);
    free(table->cells);
    memset(table, 0, sizeof(*table));
}
