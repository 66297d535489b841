// A client that closes its side with its calls still in the air.

package conformance

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	pb "spaceblock/v1"
)

// corked is a connection that holds back what is written until so many frames have come, then sends
// them all and closes its own side in one go. The client takes the end of the stream for that of
// every call, answered or not, so the end is kept from it until release is closed.
type corked struct {
	net.Conn
	mu      sync.Mutex
	held    bytes.Buffer
	frames  int
	ended   chan struct{} // closed at the end of the stream
	release chan struct{}
}

func (c *corked) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held.Write(p)
	if countFrames(c.held.Bytes()) == c.frames {
		if _, err := c.Conn.Write(c.held.Bytes()); err != nil {
			return 0, err
		}
		if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (c *corked) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF {
		close(c.ended)
		<-c.release
	}
	return n, err
}

// countFrames counts the whole frames that data consists of; 0 where a part is left over.
func countFrames(data []byte) (n int) {
	const header = 10
	for ; len(data) >= header; n++ {
		size := header + int(binary.BigEndian.Uint32(data))
		if len(data) < size {
			return 0
		}
		data = data[size:]
	}
	if len(data) > 0 {
		return 0
	}
	return n
}

// The client closes its side right behind its requests, before any of these changes is on the
// medium: every answer comes, and then the end of the stream.
func TestHalfClose(t *testing.T) {
	for _, transport := range []string{"unix", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			image := newLink(t, dial(t, transport)).image(64, 4096)
			conn := &corked{Conn: dial(t, transport), frames: inFlightMax,
				ended: make(chan struct{}), release: make(chan struct{})}
			t.Cleanup(func() { close(conn.release) })
			l := newLink(t, conn)
			l.atOnce(inFlightMax, func(id int) error {
				return l.try("Params", "Put", &pb.PutParamRequest{RequestId: requestID(), Image: image,
					Id: uint32(id), Value: []byte("v")}, &pb.PutParamResponse{})
			})
			select {
			case <-conn.ended:
			case <-time.After(patience):
				t.Error("the daemon did not close its side after the last answer")
			}
		})
	}
}
