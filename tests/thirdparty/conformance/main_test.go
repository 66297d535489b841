// Package conformance calls a running spaceblockd through containerd's ttrpc client, with message
// types that protoc-gen-go made: code that this project has no part in. test_go_client.py builds
// it, starts the daemon and names it in the environment:
//
//	SPB_UNIX, SPB_TCP    its two endpoints
//	SPB_DAEMON_PID       its process, which the tests of deadlines stop for a moment
//
// The tests share the daemon and run one after the other; each has images of its own.
package conformance

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/golang/protobuf/proto"
	"github.com/sirupsen/logrus"

	pb "spaceblock/v1"
)

const (
	pkg    = "spaceblock.v1."
	domain = "spaceblock"
	// For what comes at once unless something is broken.
	patience = time.Minute
)

// Full names of the methods that were called with success, by all tests together.
var called sync.Map

// link is one connection of the ttrpc client, for one test.
type link struct {
	*testing.T
	client *ttrpc.Client
	images int
}

func TestMain(m *testing.M) {
	for _, name := range []string{"SPB_UNIX", "SPB_TCP", "SPB_DAEMON_PID"} {
		if os.Getenv(name) == "" {
			fmt.Fprintf(os.Stderr, "%s is not set; test_go_client.py runs these tests\n", name)
			os.Exit(2)
		}
	}
	logrus.SetOutput(io.Discard) // of answers that come after their call has given up
	os.Exit(m.Run())
}

// onEachTransport runs a test over a unix socket and over TCP.
func onEachTransport(t *testing.T, test func(l *link)) {
	for _, name := range []string{"unix", "tcp"} {
		t.Run(name, func(t *testing.T) {
			test(newLink(t, dial(t, name)))
		})
	}
}

func dial(t *testing.T, transport string) net.Conn {
	t.Helper()
	address := strings.TrimPrefix(os.Getenv("SPB_UNIX"), "unix:")
	if transport == "tcp" {
		address = strings.TrimPrefix(os.Getenv("SPB_TCP"), "tcp://")
	}
	conn, err := net.DialTimeout(transport, address, patience)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func newLink(t *testing.T, conn net.Conn, opts ...ttrpc.ClientOpts) *link {
	client := ttrpc.NewClient(conn, opts...)
	t.Cleanup(func() { client.Close() })
	return &link{T: t, client: client}
}

func longContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

// fullName is that of a service; one without a package is the daemon's own.
func fullName(service string) string {
	if strings.Contains(service, ".") {
		return service
	}
	return pkg + service
}

// try makes one call.
func (l *link) try(service, method string, req, resp proto.Message) error {
	ctx, cancel := longContext()
	defer cancel()
	return l.client.Call(ctx, fullName(service), method, req, resp)
}

// call makes one call that must succeed.
func (l *link) call(service, method string, req, resp proto.Message) {
	l.Helper()
	if err := l.try(service, method, req, resp); err != nil {
		l.Fatalf("%s.%s: %v", service, method, err)
	}
	called.Store(fullName(service)+"."+method, true)
}

func (l *link) ping(payload string) {
	l.Helper()
	pong := &pb.PingResponse{}
	l.call("Server", "Ping", &pb.PingRequest{Payload: []byte(payload)}, pong)
	if string(pong.Payload) != payload {
		l.Fatalf("Ping(%q) was answered %q", payload, pong.Payload)
	}
}

// image creates an image of this test's own.
func (l *link) image(blocks, sectorSize uint32) *pb.ImageRef {
	l.Helper()
	l.images++
	name := fmt.Sprintf("%.50s-%d", strings.ReplaceAll(l.Name(), "/", "-"), l.images)
	ref := &pb.ImageRef{Name: []byte(name)}
	l.call("Images", "Create", &pb.CreateImageRequest{RequestId: requestID(), Image: ref,
		TotalBlocks: blocks, SectorSize: sectorSize}, &pb.CreateImageResponse{})
	return ref
}

// requestID is a random UUID.
func requestID() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// want fails the test unless got is what was expected of it.
func (l *link) want(what string, got, expected interface{}) {
	l.Helper()
	if got != expected {
		l.Fatalf("%s: found %v, expected %v", what, got, expected)
	}
}
