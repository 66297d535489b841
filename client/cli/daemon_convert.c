/* The daemon's messages as the library's structures, every field checked. No state. */
#include <string.h>

#include "cli/daemon.h"

static spb_status out_of_bounds(struct spb_error *err, const char *what, uint64_t found,
                                uint64_t most)
{
    return spb_fail(err, SPB_PROTOCOL,
                    "reading the daemon's answer: found %s %llu, expected at most %llu", what,
                    (unsigned long long)found, (unsigned long long)most);
}

spb_status cli_answer_lacks(const struct cli_method *method, const char *field,
                            struct spb_error *err)
{
    return spb_fail(err, SPB_PROTOCOL, "reading the daemon's answer to %s.%s: %s is missing",
                    method->service, method->name, field);
}

static spb_status set_value(struct spb_param *param, uint32_t generation,
                            const ProtobufCBinaryData *value, struct spb_error *err)
{
    if (generation > UINT16_MAX)
        return out_of_bounds(err, "generation", generation, UINT16_MAX);
    if (value->len > SPB_PARAM_VALUE_MAX)
        return out_of_bounds(err, "a value's length", value->len, SPB_PARAM_VALUE_MAX);
    param->generation = (uint16_t)generation;
    param->len = (uint16_t)value->len;
    if (value->len > 0)
        memcpy(param->value, value->data, value->len);
    return spb_ok();
}

spb_status cli_from_param(const Spaceblock__V1__Param *message, struct spb_param *param,
                          struct spb_error *err)
{
    struct spb_param out = {.slot = message->slot, .id = message->id};

    out.state = message->corrupt ? SPB_PARAM_CORRUPT : SPB_PARAM_VALID;
    SPB_TRY(set_value(&out, message->generation, &message->value, err));
    *param = out;
    return spb_ok();
}

spb_status cli_from_slot(const Spaceblock__V1__ParamSlot *message, struct spb_param *param,
                         struct spb_error *err)
{
    struct spb_param out = {.slot = message->slot, .id = message->id, .newest = message->newest};

    out.state = message->corrupt ? SPB_PARAM_CORRUPT : SPB_PARAM_VALID;
    SPB_TRY(set_value(&out, message->generation, &message->value, err));
    *param = out;
    return spb_ok();
}

spb_status cli_from_event(const Spaceblock__V1__Event *message, struct spb_event *event,
                          struct spb_error *err)
{
    struct spb_event out = {.index = message->index, .corrupt = message->corrupt};

    if (message->corrupt) {
        *event = out;
        return spb_ok();
    }
    if (message->severity > UINT8_MAX)
        return out_of_bounds(err, "severity", message->severity, UINT8_MAX);
    if (message->code > UINT16_MAX)
        return out_of_bounds(err, "event code", message->code, UINT16_MAX);
    if (message->payload.len > SPB_EVENT_PAYLOAD_MAX)
        return out_of_bounds(err, "a payload's length", message->payload.len,
                             SPB_EVENT_PAYLOAD_MAX);
    out.timestamp = message->timestamp;
    out.severity = (uint8_t)message->severity;
    out.code = (uint16_t)message->code;
    out.payload_len = (uint8_t)message->payload.len;
    if (message->payload.len > 0)
        memcpy(out.payload, message->payload.data, message->payload.len);
    *event = out;
    return spb_ok();
}

static enum spb_product_state product_state(Spaceblock__V1__ProductState state)
{
    switch (state) {
    case SPACEBLOCK__V1__PRODUCT_STATE__PRODUCT_STATE_GOOD:
        return SPB_PRODUCT_GOOD;
    case SPACEBLOCK__V1__PRODUCT_STATE__PRODUCT_STATE_ROTTEN:
        return SPB_PRODUCT_ROTTEN;
    case SPACEBLOCK__V1__PRODUCT_STATE__PRODUCT_STATE_INVALID:
        return SPB_PRODUCT_INVALID;
    default:
        return SPB_PRODUCT_PRESENT;
    }
}

spb_status cli_from_product(const Spaceblock__V1__Product *message, struct spb_product *product,
                            struct spb_error *err)
{
    struct spb_product out = {.entry = message->entry,
                              .state = product_state(message->state),
                              .block_offset = message->block_offset,
                              .block_count = message->block_count,
                              .crc = message->crc32c};

    if (message->name.len > SPB_PRODUCT_NAME_MAX)
        return out_of_bounds(err, "a name's length", message->name.len, SPB_PRODUCT_NAME_MAX);
    if (message->product_class > UINT16_MAX)
        return out_of_bounds(err, "class", message->product_class, UINT16_MAX);
    if (message->priority > UINT8_MAX)
        return out_of_bounds(err, "priority", message->priority, UINT8_MAX);
    /* Lengths are sums of file offsets here. */
    if (message->length_known && message->length > INT64_MAX)
        return out_of_bounds(err, "a product's length", message->length, INT64_MAX);
    out.product_class = (uint16_t)message->product_class;
    out.priority = (uint8_t)message->priority;
    out.name_len = (uint8_t)message->name.len;
    if (message->name.len > 0)
        memcpy(out.name, message->name.data, message->name.len);
    out.length = message->length_known ? message->length : 0;
    *product = out;
    return spb_ok();
}

spb_status cli_from_finding(const Spaceblock__V1__Finding *message, struct spb_finding *finding,
                            struct spb_error *err)
{
    /* The kinds on the wire are the library's plus one. */
    if (message->kind <= SPACEBLOCK__V1__FINDING_KIND__FINDING_KIND_UNSPECIFIED ||
        message->kind > SPACEBLOCK__V1__FINDING_KIND__FINDING_KIND_MEDIUM)
        return spb_fail(err, SPB_PROTOCOL,
                        "reading the daemon's answer: found a finding of kind %d, expected 1 to %d",
                        (int)message->kind, (int)SPACEBLOCK__V1__FINDING_KIND__FINDING_KIND_MEDIUM);
    _Static_assert((int)SPB_FINDING_MEDIUM + 1 ==
                       (int)SPACEBLOCK__V1__FINDING_KIND__FINDING_KIND_MEDIUM,
                   "kinds of findings on the wire are the library's plus one");
    memset(finding, 0, sizeof(*finding));
    finding->kind = (enum spb_finding_kind)((int)message->kind - 1);
    finding->index = message->index;
    finding->repairable = message->repairable;
    size_t n =
        message->text.len < sizeof(finding->text) ? message->text.len : sizeof(finding->text) - 1;
    if (n > 0)
        memcpy(finding->text, message->text.data, n);
    return spb_ok();
}

const char *cli_image_state_name(Spaceblock__V1__ImageState state)
{
    switch (state) {
    case SPACEBLOCK__V1__IMAGE_STATE__IMAGE_STATE_READY:
        return "ready";
    case SPACEBLOCK__V1__IMAGE_STATE__IMAGE_STATE_READ_ONLY:
        return "read-only";
    case SPACEBLOCK__V1__IMAGE_STATE__IMAGE_STATE_DAMAGED:
        return "damaged";
    case SPACEBLOCK__V1__IMAGE_STATE__IMAGE_STATE_UNAVAILABLE:
        return "unavailable";
    case SPACEBLOCK__V1__IMAGE_STATE__IMAGE_STATE_QUARANTINED:
        return "quarantined";
    case SPACEBLOCK__V1__IMAGE_STATE__IMAGE_STATE_ATTACHED:
        return "attached";
    default:
        return "unknown";
    }
}
