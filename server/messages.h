/* The generated messages of the API under shorter names, and how bytes get into them. */
#ifndef SPB_SERVER_MESSAGES_H
#define SPB_SERVER_MESSAGES_H

#include <string.h>

#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "spaceblock/v1/common.pb-c.h"
#include "spaceblock/v1/events.pb-c.h"
#include "spaceblock/v1/health.pb-c.h"
#include "spaceblock/v1/images.pb-c.h"
#include "spaceblock/v1/params.pb-c.h"
#include "spaceblock/v1/products.pb-c.h"
#include "spaceblock/v1/server.pb-c.h"
#include "spaceblock/v1/uploads.pb-c.h"

/* PB_ImageRef is the struct of spaceblock.v1.ImageRef. */
#define PB_AbortUploadRequest Spaceblock__V1__AbortUploadRequest
#define PB_AbortUploadResponse Spaceblock__V1__AbortUploadResponse
#define PB_AppendEventsRequest Spaceblock__V1__AppendEventsRequest
#define PB_AppendEventsResponse Spaceblock__V1__AppendEventsResponse
#define PB_BatchPutParamsRequest Spaceblock__V1__BatchPutParamsRequest
#define PB_BatchPutParamsResponse Spaceblock__V1__BatchPutParamsResponse
#define PB_CheckImageRequest Spaceblock__V1__CheckImageRequest
#define PB_CheckImageResponse Spaceblock__V1__CheckImageResponse
#define PB_CreateImageRequest Spaceblock__V1__CreateImageRequest
#define PB_CreateImageResponse Spaceblock__V1__CreateImageResponse
#define PB_DefragImageRequest Spaceblock__V1__DefragImageRequest
#define PB_DefragImageResponse Spaceblock__V1__DefragImageResponse
#define PB_DeleteImageRequest Spaceblock__V1__DeleteImageRequest
#define PB_DeleteImageResponse Spaceblock__V1__DeleteImageResponse
#define PB_DeleteParamRequest Spaceblock__V1__DeleteParamRequest
#define PB_DeleteParamResponse Spaceblock__V1__DeleteParamResponse
#define PB_DeleteProductRequest Spaceblock__V1__DeleteProductRequest
#define PB_DeleteProductResponse Spaceblock__V1__DeleteProductResponse
#define PB_ErrorReason Spaceblock__V1__ErrorReason
#define PB_Event Spaceblock__V1__Event
#define PB_Finding Spaceblock__V1__Finding
#define PB_FinishUploadRequest Spaceblock__V1__FinishUploadRequest
#define PB_FinishUploadResponse Spaceblock__V1__FinishUploadResponse
#define PB_GetImageRequest Spaceblock__V1__GetImageRequest
#define PB_GetImageResponse Spaceblock__V1__GetImageResponse
#define PB_GetParamRequest Spaceblock__V1__GetParamRequest
#define PB_GetParamResponse Spaceblock__V1__GetParamResponse
#define PB_GetProductRequest Spaceblock__V1__GetProductRequest
#define PB_GetProductResponse Spaceblock__V1__GetProductResponse
#define PB_HealthCheckRequest Spaceblock__V1__HealthCheckRequest
#define PB_HealthCheckResponse Spaceblock__V1__HealthCheckResponse
#define PB_Image Spaceblock__V1__Image
#define PB_ImageRef Spaceblock__V1__ImageRef
#define PB_InspectImageRequest Spaceblock__V1__InspectImageRequest
#define PB_InspectImageResponse Spaceblock__V1__InspectImageResponse
#define PB_ListEventsRequest Spaceblock__V1__ListEventsRequest
#define PB_ListEventsResponse Spaceblock__V1__ListEventsResponse
#define PB_ListImagesRequest Spaceblock__V1__ListImagesRequest
#define PB_ListImagesResponse Spaceblock__V1__ListImagesResponse
#define PB_ListParamsRequest Spaceblock__V1__ListParamsRequest
#define PB_ListParamsResponse Spaceblock__V1__ListParamsResponse
#define PB_ListProductsRequest Spaceblock__V1__ListProductsRequest
#define PB_ListProductsResponse Spaceblock__V1__ListProductsResponse
#define PB_NewEvent Spaceblock__V1__NewEvent
#define PB_Param Spaceblock__V1__Param
#define PB_ParamHistoryRequest Spaceblock__V1__ParamHistoryRequest
#define PB_ParamHistoryResponse Spaceblock__V1__ParamHistoryResponse
#define PB_ParamPut Spaceblock__V1__ParamPut
#define PB_ParamSlot Spaceblock__V1__ParamSlot
#define PB_PingRequest Spaceblock__V1__PingRequest
#define PB_PingResponse Spaceblock__V1__PingResponse
#define PB_Product Spaceblock__V1__Product
#define PB_ProductTarget Spaceblock__V1__ProductTarget
#define PB_PutParamRequest Spaceblock__V1__PutParamRequest
#define PB_PutParamResponse Spaceblock__V1__PutParamResponse
#define PB_ReadProductRequest Spaceblock__V1__ReadProductRequest
#define PB_ReadProductResponse Spaceblock__V1__ReadProductResponse
#define PB_ReopenImageRequest Spaceblock__V1__ReopenImageRequest
#define PB_ReopenImageResponse Spaceblock__V1__ReopenImageResponse
#define PB_ServerInfoResponse Spaceblock__V1__ServerInfoResponse
#define PB_StartUploadRequest Spaceblock__V1__StartUploadRequest
#define PB_StartUploadResponse Spaceblock__V1__StartUploadResponse
#define PB_UploadStatusRequest Spaceblock__V1__UploadStatusRequest
#define PB_UploadStatusResponse Spaceblock__V1__UploadStatusResponse
#define PB_WriteUploadRequest Spaceblock__V1__WriteUploadRequest
#define PB_WriteUploadResponse Spaceblock__V1__WriteUploadResponse

#define PB_REASON(name) SPACEBLOCK__V1__ERROR_REASON__ERROR_REASON_##name

/* The generated structs lack const; packing only reads. The bytes stay the caller's. */
static inline ProtobufCBinaryData spb_pb_bytes(const void *data, size_t n)
{
    ProtobufCBinaryData bytes = {.len = n, .data = (uint8_t *)(uintptr_t)data};

    return bytes;
}

static inline ProtobufCBinaryData spb_pb_text(const char *text)
{
    return spb_pb_bytes(text, strlen(text));
}

static inline char *spb_pb_string(const char *text)
{
    return (char *)(uintptr_t)text;
}

#endif
