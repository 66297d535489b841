/* Texts and the numbers that rows have in their stead; see names.h. */
#include "audit/names.h"

#include <stdlib.h>
#include <string.h>

struct spb_name {
    struct spb_name *next; /* of the bucket */
    int64_t id;
    enum spb_name_kind kind;
    uint16_t tenant;
    char text[];
};

static const struct {
    enum spb_sql find, add;
} statements[] = {
    [SPB_NAME_PRINCIPAL] = {SPB_SQL_FIND_PRINCIPAL, SPB_SQL_ADD_PRINCIPAL},
    [SPB_NAME_METHOD] = {SPB_SQL_FIND_METHOD, SPB_SQL_ADD_METHOD},
    [SPB_NAME_TARGET] = {SPB_SQL_FIND_TARGET, SPB_SQL_ADD_TARGET},
};

/* FNV-1a. Whoever chose names that collide would slow down nobody's calls but by microseconds: at
 * most SPB_NAMES_MAX are in a bucket. */
static size_t bucket_of(enum spb_name_kind kind, uint16_t tenant, const char *text)
{
    uint64_t hash = UINT64_C(14695981039346656037) ^ (unsigned)kind ^ ((uint64_t)tenant << 8);

    for (; *text != '\0'; text++)
        hash = (hash ^ (unsigned char)*text) * UINT64_C(1099511628211);
    return (hash ^ hash >> 32) % SPB_NAMES_BUCKETS;
}

static void remember(struct spb_names *names, struct spb_name **bucket, enum spb_name_kind kind,
                     uint16_t tenant, const char *text, int64_t id)
{
    size_t size = strlen(text) + 1;

    if (names->count >= SPB_NAMES_MAX)
        spb_names_forget(names);
    struct spb_name *name = malloc(sizeof *name + size);
    if (name == NULL)
        return; /* the database knows it */
    *name = (struct spb_name){.next = *bucket, .id = id, .kind = kind, .tenant = tenant};
    memcpy(name->text, text, size);
    *bucket = name;
    names->count++;
}

static void bind(sqlite3_stmt *statement, enum spb_name_kind kind, uint16_t tenant,
                 const char *text)
{
    if (kind != SPB_NAME_METHOD)
        spb_bind_number(statement, 1, tenant);
    spb_bind_text(statement, 2, text);
}

static spb_status find_or_add(struct spb_db *db, enum spb_name_kind kind, uint16_t tenant,
                              const char *text, int64_t *id, struct spb_error *err)
{
    sqlite3_stmt *statement;
    bool found;

    SPB_TRY(spb_db_prepare(db, statements[kind].find, &statement, err));
    bind(statement, kind, tenant, text);
    SPB_TRY(spb_db_next(db, statement, "looking up a name", &found, err));
    if (found) {
        *id = sqlite3_column_int64(statement, 0);
        (void)sqlite3_reset(statement);
        return spb_ok();
    }
    SPB_TRY(spb_db_prepare(db, statements[kind].add, &statement, err));
    bind(statement, kind, tenant, text);
    SPB_TRY(spb_db_run(db, statement, "adding a name", err));
    *id = sqlite3_last_insert_rowid(db->handle);
    return spb_ok();
}

spb_status spb_names_get(struct spb_names *names, struct spb_db *db, enum spb_name_kind kind,
                         uint16_t tenant, const char *text, int64_t *id, struct spb_error *err)
{
    struct spb_name **bucket = &names->buckets[bucket_of(kind, tenant, text)];

    for (const struct spb_name *name = *bucket; name != NULL; name = name->next) {
        if (name->kind == kind && name->tenant == tenant && strcmp(name->text, text) == 0) {
            *id = name->id;
            return spb_ok();
        }
    }
    SPB_TRY(find_or_add(db, kind, tenant, text, id, err));
    remember(names, bucket, kind, tenant, text, *id);
    return spb_ok();
}

void spb_names_forget(struct spb_names *names)
{
    for (size_t i = 0; i < SPB_NAMES_BUCKETS; i++) {
        while (names->buckets[i] != NULL) {
            struct spb_name *name = names->buckets[i];

            names->buckets[i] = name->next;
            free(name);
        }
    }
    names->count = 0;
}
