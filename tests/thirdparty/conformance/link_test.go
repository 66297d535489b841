// What a connection has to bear: many calls at once, deadlines, metadata, what is too large.

package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/golang/protobuf/proto"
	"google.golang.org/grpc/codes"

	pb "spaceblock/v1"
)

const (
	inFlightMax = 64      // calls of one connection that the daemon takes at once
	frameMax    = 4 << 20 // bytes of data; the client reads no more
	chunkMax    = 1 << 20 // bytes of a product in one answer
)

// atOnce runs work(0) to work(n-1) at the same time; their errors fail the test.
func (l *link) atOnce(n int, work func(i int) error) {
	l.Helper()
	errs := make(chan error)
	for i := 0; i < n; i++ {
		go func(i int) { errs <- work(i) }(i)
	}
	for i := 0; i < n; i++ {
		if err := <-errs; err != nil {
			l.Error(err)
		}
	}
	if l.Failed() {
		l.FailNow()
	}
}

// Every caller gets its own answers, in whatever order they come: pings are answered at once, puts
// wait for the medium.
func TestConcurrentCalls(t *testing.T) {
	const rounds = 50
	onEachTransport(t, func(l *link) {
		image := l.image(64, 4096)
		l.atOnce(inFlightMax, func(caller int) error {
			for n := 0; n < rounds; n++ {
				text := fmt.Sprintf("caller %d, round %d", caller, n)
				if n%10 == 0 {
					if err := l.tryPutAndGet(image, uint32(caller), text); err != nil {
						return err
					}
				}
				if err := l.tryPing(text); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func (l *link) tryPing(payload string) error {
	pong := &pb.PingResponse{}
	err := l.try("Server", "Ping", &pb.PingRequest{Payload: []byte(payload)}, pong)
	if err == nil && string(pong.Payload) != payload {
		err = fmt.Errorf("Ping(%q) was answered %q", payload, pong.Payload)
	}
	return err
}

func (l *link) tryPutAndGet(image *pb.ImageRef, id uint32, value string) error {
	put := &pb.PutParamRequest{RequestId: requestID(), Image: image, Id: id, Value: []byte(value)}
	if err := l.try("Params", "Put", put, &pb.PutParamResponse{}); err != nil {
		return err
	}
	got := &pb.GetParamResponse{}
	err := l.try("Params", "Get", &pb.GetParamRequest{Image: image, Id: id}, got)
	if err == nil && string(got.Param.Value) != value {
		err = fmt.Errorf("parameter %d: found %q, expected %q", id, got.Param.Value, value)
	}
	return err
}

// The deadline of the context travels as timeout_nano, and the daemon keeps it.
func TestDeadlineTravels(t *testing.T) {
	var sent, replaced int64
	look := func(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response,
		_ *ttrpc.UnaryClientInfo, invoke ttrpc.Invoker) error {
		sent = req.TimeoutNano
		if replaced != 0 {
			req.TimeoutNano = replaced
		}
		return invoke(ctx, req, resp)
	}
	for _, transport := range []string{"unix", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			l := newLink(t, dial(t, transport), ttrpc.WithUnaryClientInterceptor(look))
			image := l.image(64, 512)
			l.want("timeout_nano is that of the context", sent > 0 && sent <= int64(patience), true)
			replaced = 1 // which only the daemon sees: the context waits on
			l.refused(codes.DeadlineExceeded, "DEADLINE", "Params", "Put", &pb.PutParamRequest{
				RequestId: requestID(), Image: image, Id: 1, Value: []byte("late")})
			replaced = 0
			l.refused(codes.NotFound, "NOT_FOUND", "Params", "Get", &pb.GetParamRequest{Image: image,
				Id: 1})
		})
	}
}

// A caller whose daemon has stopped gives up at its deadline; the answer that comes late harms
// neither the connection nor the next call.
func TestDeadlineOfAStoppedDaemon(t *testing.T) {
	pid, err := strconv.Atoi(os.Getenv("SPB_DAEMON_PID"))
	if err != nil {
		t.Fatal(err)
	}
	onEachTransport(t, func(l *link) {
		l.ping("before")
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			l.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		err := l.client.Call(ctx, pkg+"Server", "Ping", &pb.PingRequest{}, &pb.PingResponse{})
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			l.Fatal(err)
		}
		l.want("error", errors.Is(err, context.DeadlineExceeded), true)
		l.ping("after")
	})
}

func TestMetadata(t *testing.T) {
	onEachTransport(t, func(l *link) {
		send := func(md ttrpc.MD) error {
			ctx, cancel := longContext()
			defer cancel()
			return l.client.Call(ttrpc.WithMetadata(ctx, md), pkg+"Server", "Ping", &pb.PingRequest{},
				&pb.PingResponse{})
		}
		if err := send(ttrpc.MD{"tenant": {"alpha", "beta"}, "trace": {"1"}}); err != nil {
			l.Fatal(err)
		}
		many := make([]string, 33)
		l.failed(send(ttrpc.MD{"k": many}), codes.ResourceExhausted, "LIMIT_EXCEEDED")
		l.failed(send(ttrpc.MD{"k": {strings.Repeat("v", 9000)}}), codes.ResourceExhausted,
			"LIMIT_EXCEEDED")
		l.ping("the connection lives")
	})
}

// Frames over the limit, of the daemon and of the protocol, are refused and the connection lives.
// One of 16 MiB ends it, and no other.
func TestOversizedRequests(t *testing.T) {
	onEachTransport(t, func(l *link) {
		for _, size := range []int{chunkMax + 100<<10, frameMax - 100, frameMax + 1, 15 << 20} {
			l.refused(codes.ResourceExhausted, "LIMIT_EXCEEDED", "Server", "Ping",
				&pb.PingRequest{Payload: make([]byte, size)})
			l.ping("the connection lives")
		}
	})
	onEachTransport(t, func(l *link) {
		err := l.try("Server", "Ping", &pb.PingRequest{Payload: make([]byte, 17<<20)}, &pb.PingResponse{})
		l.want("a frame of 17 MiB fails", err != nil, true)
		l.want("a call after it fails", l.tryPing("") != nil, true)
	})
	onEachTransport(t, func(l *link) { l.ping("a new connection") })
}

// The largest answers that there are: a chunk of a product, and all events and all parameters that
// an image of the largest blocks holds. The client ends in a panic on more than 4 MiB.
func TestLargeReplies(t *testing.T) {
	const blockSize = 65536
	onEachTransport(t, func(l *link) {
		image := l.image(64, blockSize)
		data := noise(chunkMax)
		product := l.upload(image, "p", data, chunkMax)
		piece := &pb.ReadProductResponse{}
		l.call("DataProducts", "Read", &pb.ReadProductRequest{Image: image, Name: []byte("p"),
			Identity: product.Identity, Length: chunkMax}, piece)
		l.want("a chunk's crc32c", crc32c(piece.Data), crc32c(data))

		inspected := &pb.InspectImageResponse{}
		l.call("Images", "Inspect", &pb.InspectImageRequest{Image: image}, inspected)
		l.fillEvents(image, int(inspected.EventWindow))
		l.fillParams(image, int(inspected.ParamSlots))

		events := &pb.ListEventsResponse{}
		l.call("Events", "List", &pb.ListEventsRequest{Image: image, Limit: inspected.EventWindow},
			events)
		l.want("events", len(events.Events), int(inspected.EventWindow))
		for n, event := range events.Events {
			l.want("index", event.Index, uint32(n))
		}
		l.call("Images", "Inspect", &pb.InspectImageRequest{Image: image}, inspected)
		l.want("parameters", len(inspected.Params) >= int(inspected.ParamSlots)/2, true)
		for _, answer := range []proto.Message{events, inspected} {
			size := proto.Size(answer)
			l.Logf("%T: %d bytes", answer, size)
			l.want("it is large", size > 512<<10 && size <= frameMax, true)
		}
	})
}

func (l *link) fillEvents(image *pb.ImageRef, count int) {
	payload := []byte(strings.Repeat("e", 64))
	for left := count; left > 0; {
		request := &pb.AppendEventsRequest{RequestId: requestID(), Image: image}
		for ; left > 0 && len(request.Events) < 500; left-- {
			request.Events = append(request.Events, &pb.NewEvent{Severity: 255, Code: 65535,
				Payload: payload})
		}
		l.call("Events", "Append", request, &pb.AppendEventsResponse{})
	}
}

func (l *link) fillParams(image *pb.ImageRef, count int) {
	value := []byte(strings.Repeat("p", 240))
	for id := 0; id < count/2; {
		request := &pb.BatchPutParamsRequest{RequestId: requestID(), Image: image}
		for ; id < count/2 && len(request.Puts) < 200; id++ {
			request.Puts = append(request.Puts, &pb.ParamPut{Id: 1<<31 + uint32(id), Value: value})
		}
		l.call("Params", "BatchPut", request, &pb.BatchPutParamsResponse{})
	}
}
