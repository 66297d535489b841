/* Which images there are, in memory; see registry.h. The folders are read in registry_scan.c. */
#include "registry.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/status.h"
#include "image.h"

#define BUCKETS_MIN 256u
#define CLAIM_BUCKETS 4096u

struct spb_registry {
    pthread_mutex_t lock; /* over all below */
    uint64_t seed;        /* of the hash: names are chosen by others */
    struct spb_image **buckets;
    size_t bucket_count;       /* a power of two */
    struct spb_image **sorted; /* by tenant, then name; each holds a reference */
    size_t count, room;
    struct spb_image *reserving;             /* those that have a name set aside: a few at a time */
    struct spb_image *claims[CLAIM_BUCKETS]; /* by uuid; they need not be in the lists above */
};

static uint64_t hash(const struct spb_registry *registry, uint16_t tenant, const char *name,
                     size_t n)
{
    uint64_t h = registry->seed ^ tenant;

    for (size_t i = 0; i < n; i++) {
        h ^= (uint8_t)name[i];
        h *= UINT64_C(0x9E3779B97F4A7C15);
        h ^= h >> 29;
    }
    return h;
}

static struct spb_image **bucket_of(const struct spb_registry *registry, uint16_t tenant,
                                    const char *name, size_t n)
{
    return &registry->buckets[hash(registry, tenant, name, n) & (registry->bucket_count - 1)];
}

static int order(uint16_t tenant, const char *name, const struct spb_image *image)
{
    if (tenant != image->tenant)
        return tenant < image->tenant ? -1 : 1;
    return strcmp(name, image->name);
}

/* Index of the first image that does not come before the name; or, past it, that comes after. */
static size_t position(const struct spb_registry *registry, uint16_t tenant, const char *name,
                       bool past)
{
    size_t low = 0, high = registry->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int found = order(tenant, name, registry->sorted[middle]);

        if (found > 0 || (past && found == 0))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

spb_status spb_registry_new(struct spb_registry **out, struct spb_error *err)
{
    struct spb_registry *registry = calloc(1, sizeof(*registry));

    if (registry == NULL)
        return spb_fail_memory(err, "making the registry of images");
    (void)pthread_mutex_init(&registry->lock, NULL);
    registry->bucket_count = BUCKETS_MIN;
    registry->buckets = calloc(BUCKETS_MIN, sizeof(struct spb_image *));
    if (registry->buckets == NULL) {
        spb_registry_free(registry);
        return spb_fail_memory(err, "making the registry of images");
    }
    if (getrandom(&registry->seed, sizeof(registry->seed), 0) < 0)
        registry->seed = (uint64_t)(uintptr_t)registry;
    *out = registry;
    return spb_ok();
}

void spb_registry_free(struct spb_registry *registry)
{
    if (registry == NULL)
        return;
    for (size_t i = 0; i < registry->count; i++)
        spb_image_unref(registry->sorted[i]);
    free(registry->sorted);
    free(registry->buckets);
    (void)pthread_mutex_destroy(&registry->lock);
    free(registry);
}

static struct spb_image *find_locked(const struct spb_registry *registry, uint16_t tenant,
                                     const char *name, size_t n)
{
    struct spb_image *image = *bucket_of(registry, tenant, name, n);

    while (image != NULL && (image->tenant != tenant || strlen(image->name) != n ||
                             memcmp(image->name, name, n) != 0))
        image = image->next_in_bucket;
    return image;
}

struct spb_image *spb_registry_find(struct spb_registry *registry, uint16_t tenant,
                                    const void *name, size_t name_len)
{
    (void)pthread_mutex_lock(&registry->lock);
    struct spb_image *image = find_locked(registry, tenant, name, name_len);
    if (image != NULL)
        spb_image_ref(image);
    (void)pthread_mutex_unlock(&registry->lock);
    return image;
}

/* ---- Names -------------------------------------------------------------------------------- */

static bool is_reserved(const struct spb_registry *registry, const struct spb_image *image)
{
    const struct spb_image *other = registry->reserving;

    while (other != NULL && order(image->tenant, image->name, other) != 0)
        other = other->next_reserving;
    return other != NULL;
}

bool spb_registry_reserve(struct spb_registry *registry, struct spb_image *image)
{
    (void)pthread_mutex_lock(&registry->lock);
    bool free_to_take =
        find_locked(registry, image->tenant, image->name, strlen(image->name)) == NULL &&
        !is_reserved(registry, image);
    if (free_to_take) {
        image->next_reserving = registry->reserving;
        registry->reserving = image;
    }
    (void)pthread_mutex_unlock(&registry->lock);
    return free_to_take;
}

static void unreserve(struct spb_registry *registry, const struct spb_image *image)
{
    struct spb_image **place = &registry->reserving;

    while (*place != NULL && *place != image)
        place = &(*place)->next_reserving;
    if (*place != NULL)
        *place = image->next_reserving;
}

void spb_registry_unreserve(struct spb_registry *registry, struct spb_image *image)
{
    (void)pthread_mutex_lock(&registry->lock);
    unreserve(registry, image);
    (void)pthread_mutex_unlock(&registry->lock);
}

/* ---- Changes ------------------------------------------------------------------------------ */

static void link_image(struct spb_registry *registry, struct spb_image *image)
{
    struct spb_image **bucket =
        bucket_of(registry, image->tenant, image->name, strlen(image->name));

    image->next_in_bucket = *bucket;
    *bucket = image;
}

/* Room for one more. */
static bool make_room(struct spb_registry *registry)
{
    if (registry->count == registry->room) {
        size_t room = registry->room == 0 ? BUCKETS_MIN : registry->room * 2;
        struct spb_image **sorted = realloc(registry->sorted, room * sizeof(struct spb_image *));

        if (sorted == NULL)
            return false;
        registry->sorted = sorted;
        registry->room = room;
    }
    if (registry->count < registry->bucket_count)
        return true;
    struct spb_image **buckets = calloc(registry->bucket_count * 2, sizeof(struct spb_image *));
    if (buckets == NULL)
        return true; /* longer chains still work */
    free(registry->buckets);
    registry->buckets = buckets;
    registry->bucket_count *= 2;
    for (size_t i = 0; i < registry->count; i++)
        link_image(registry, registry->sorted[i]);
    return true;
}

/* Takes it out; the registry's reference becomes the caller's. False: it is not there. */
static bool take_out(struct spb_registry *registry, struct spb_image *image)
{
    size_t n = strlen(image->name);
    struct spb_image **place = bucket_of(registry, image->tenant, image->name, n);

    while (*place != NULL && *place != image)
        place = &(*place)->next_in_bucket;
    if (*place == NULL)
        return false;
    *place = image->next_in_bucket;
    size_t at = position(registry, image->tenant, image->name, false);
    registry->count--;
    memmove(&registry->sorted[at], &registry->sorted[at + 1],
            (registry->count - at) * sizeof(struct spb_image *));
    return true;
}

static bool put_in(struct spb_registry *registry, struct spb_image *image)
{
    if (!make_room(registry))
        return false;
    size_t at = position(registry, image->tenant, image->name, false);
    memmove(&registry->sorted[at + 1], &registry->sorted[at],
            (registry->count - at) * sizeof(struct spb_image *));
    registry->sorted[at] = image;
    registry->count++;
    link_image(registry, image);
    spb_image_ref(image);
    return true;
}

spb_status spb_registry_add(struct spb_registry *registry, struct spb_image *image,
                            struct spb_error *err)
{
    (void)pthread_mutex_lock(&registry->lock);
    SPB_ASSERT(find_locked(registry, image->tenant, image->name, strlen(image->name)) == NULL);
    unreserve(registry, image);
    bool added = put_in(registry, image);
    (void)pthread_mutex_unlock(&registry->lock);
    return added ? spb_ok() : spb_fail_memory(err, "registering an image");
}

void spb_registry_remove(struct spb_registry *registry, struct spb_image *image)
{
    (void)pthread_mutex_lock(&registry->lock);
    bool removed = take_out(registry, image);
    (void)pthread_mutex_unlock(&registry->lock);
    if (removed)
        spb_image_unref(image);
}

/* ---- Uuids -------------------------------------------------------------------------------- */

static struct spb_image **claim_bucket(struct spb_registry *registry, const uint8_t uuid[16])
{
    uint64_t a, b;

    memcpy(&a, uuid, sizeof(a));
    memcpy(&b, uuid + sizeof(a), sizeof(b));
    a = (a ^ registry->seed) * UINT64_C(0x9E3779B97F4A7C15) ^ b;
    a *= UINT64_C(0xD6E8FEB86659FD93);
    return &registry->claims[(a >> 32) % CLAIM_BUCKETS];
}

static void unclaim(struct spb_registry *registry, struct spb_image *image)
{
    if (!image->has_claim)
        return;
    struct spb_image **place = claim_bucket(registry, image->claim);
    while (*place != image)
        place = &(*place)->next_claim;
    *place = image->next_claim;
    image->has_claim = false;
}

/* Of an image that has none. Nobody else has that one. */
static void set_claim(struct spb_registry *registry, struct spb_image *image,
                      const uint8_t uuid[16])
{
    struct spb_image **bucket = claim_bucket(registry, uuid);

    memcpy(image->claim, uuid, SPB_UUID_SIZE);
    image->has_claim = true;
    image->next_claim = *bucket;
    *bucket = image;
}

bool spb_registry_claim(struct spb_registry *registry, struct spb_image *image,
                        const uint8_t uuid[16], char other[80])
{
    (void)pthread_mutex_lock(&registry->lock);
    unclaim(registry, image);
    const struct spb_image *holder = *claim_bucket(registry, uuid);
    while (holder != NULL &&
           (holder->tenant != image->tenant || memcmp(holder->claim, uuid, SPB_UUID_SIZE) != 0))
        holder = holder->next_claim;
    if (holder == NULL)
        set_claim(registry, image, uuid);
    else
        (void)snprintf(other, SPB_IMAGE_TEXT_SIZE, "%u/%s", (unsigned)holder->tenant, holder->name);
    (void)pthread_mutex_unlock(&registry->lock);
    return holder == NULL;
}

void spb_registry_unclaim(struct spb_registry *registry, struct spb_image *image)
{
    (void)pthread_mutex_lock(&registry->lock);
    unclaim(registry, image);
    (void)pthread_mutex_unlock(&registry->lock);
}

void spb_registry_hand_over(struct spb_registry *registry, struct spb_image *from,
                            struct spb_image *to)
{
    (void)pthread_mutex_lock(&registry->lock);
    SPB_ASSERT(!to->has_claim);
    if (from->has_claim) {
        unclaim(registry, from);
        set_claim(registry, to, from->claim);
    }
    (void)pthread_mutex_unlock(&registry->lock);
}

/* ---- Listing ------------------------------------------------------------------------------ */

size_t spb_registry_count(struct spb_registry *registry)
{
    (void)pthread_mutex_lock(&registry->lock);
    size_t count = registry->count;
    (void)pthread_mutex_unlock(&registry->lock);
    return count;
}

size_t spb_registry_list(struct spb_registry *registry, const struct spb_registry_place *place,
                         struct spb_image **images, size_t max)
{
    size_t found = 0, i = 0;

    (void)pthread_mutex_lock(&registry->lock);
    if (place->after_name != NULL)
        i = position(registry, (uint16_t)place->after_tenant, place->after_name, true);
    else if (place->tenant >= 0)
        i = position(registry, (uint16_t)place->tenant, "", false);
    for (; i < registry->count && found < max; i++) {
        struct spb_image *image = registry->sorted[i];

        if (place->tenant >= 0 && image->tenant != place->tenant)
            break;
        spb_image_ref(image);
        images[found++] = image;
    }
    (void)pthread_mutex_unlock(&registry->lock);
    return found;
}
