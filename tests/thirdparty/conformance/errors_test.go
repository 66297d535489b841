// Errors: their codes, and the details that they carry.

package conformance

import (
	"testing"

	"github.com/golang/protobuf/proto"
	"github.com/golang/protobuf/ptypes/empty"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "spaceblock/v1"
)

// refused makes a call that must fail so, and checks what every error of the daemon carries.
func (l *link) refused(code codes.Code, reason, service, method string,
	req proto.Message) *status.Status {
	l.Helper()
	return l.failed(l.try(service, method, req, &empty.Empty{}), code, reason)
}

// failed checks an error of a call.
func (l *link) failed(err error, code codes.Code, reason string) *status.Status {
	l.Helper()
	st, ok := status.FromError(err)
	if !ok || st.Code() != code {
		l.Fatalf("found error %v, expected the code %v", err, code)
	}
	l.want("there is a message", st.Message() != "", true)
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			l.want("reason", info.Reason, reason)
			l.want("domain", info.Domain, domain)
			return st
		}
	}
	l.Fatalf("no ErrorInfo among the details %v of %v", st.Details(), err)
	return nil
}

// violations gives the fields that the status's BadRequest names.
func violations(st *status.Status) (fields []string) {
	for _, detail := range st.Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, one := range bad.FieldViolations {
				fields = append(fields, one.Field)
			}
		}
	}
	return fields
}

func TestErrors(t *testing.T) {
	onEachTransport(t, func(l *link) {
		image := l.image(64, 512)
		put := func(change func(request *pb.PutParamRequest)) *pb.PutParamRequest {
			request := &pb.PutParamRequest{RequestId: requestID(), Image: image, Id: 1}
			change(request)
			return request
		}
		absent := &pb.ImageRef{Name: []byte("absent")}
		for _, c := range []struct {
			service, method string
			request         proto.Message
			code            codes.Code
			reason          string
			field           string // of InvalidArgument
		}{
			{"Images", "Get", &pb.GetImageRequest{Image: absent}, codes.NotFound, "NOT_FOUND", ""},
			{"Params", "Get", &pb.GetParamRequest{Image: image, Id: 9}, codes.NotFound, "NOT_FOUND", ""},
			{"Images", "Create", &pb.CreateImageRequest{RequestId: requestID(), Image: image,
				TotalBlocks: 64}, codes.AlreadyExists, "ALREADY_EXISTS", ""},
			{"Params", "Put", put(func(r *pb.PutParamRequest) { r.RequestId = "1" }),
				codes.InvalidArgument, "INVALID_REQUEST", "request_id"},
			{"Params", "Put", put(func(r *pb.PutParamRequest) { r.Value = make([]byte, 241) }),
				codes.InvalidArgument, "INVALID_REQUEST", "value"},
			{"Params", "Put", put(func(r *pb.PutParamRequest) { r.Image = &pb.ImageRef{} }),
				codes.InvalidArgument, "INVALID_REQUEST", "image.name"},
			{"Params", "Put", put(func(r *pb.PutParamRequest) {
				r.IfExpectedGeneration = &pb.PutParamRequest_ExpectedGeneration{ExpectedGeneration: 3}
			}), codes.Aborted, "GENERATION_MISMATCH", ""},
			{"Server", "Ping", &pb.PingRequest{Payload: make([]byte, 70000)},
				codes.ResourceExhausted, "LIMIT_EXCEEDED", ""},
			{"Params", "Nope", &empty.Empty{}, codes.Unimplemented, "UNKNOWN_METHOD", ""},
			{"Nope", "Get", &empty.Empty{}, codes.Unimplemented, "UNKNOWN_METHOD", ""},
			{"no.such.Service", "Get", &empty.Empty{}, codes.Unimplemented, "UNKNOWN_METHOD", ""},
		} {
			st := l.refused(c.code, c.reason, c.service, c.method, c.request)
			fields := violations(st)
			if c.field == "" {
				l.want("fields of a BadRequest", len(fields), 0)
			} else if len(fields) != 1 || fields[0] != c.field {
				l.Fatalf("%v: found the fields %q, expected %q", st.Message(), fields, c.field)
			}
		}
		l.ping("the connection lives")
	})
}
