/* Health: the shapes of grpc.health.v1. Answered on the loop's thread, also while draining. */
#include "daemon.h"
#include "dispatch.h"
#include "services/services.h"

static bool is_served(const char *service)
{
    size_t count;
    const struct spb_method *methods = spb_methods(&count);

    if (*service == '\0')
        return true; /* the server as a whole */
    for (size_t i = 0; i < count; i++) {
        if (strcmp(methods[i].service, service) == 0)
            return true;
    }
    return false;
}

void spb_health_check(struct spb_call *call)
{
    const PB_HealthCheckRequest *request = (const void *)call->request;
    PB_HealthCheckResponse reply = SPACEBLOCK__V1__HEALTH_CHECK_RESPONSE__INIT;

    if (!is_served(request->service)) {
        spb_call_set_fault(call, PB_REASON(NOT_FOUND), "no service \"%.200s\"", request->service);
        spb_call_send(call);
        return;
    }
    reply.status = call->daemon->draining
                       ? SPACEBLOCK__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
                       : SPACEBLOCK__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    spb_call_reply(call, &reply.base);
}
