// The load: callers that call one after the other, and the figures of all of them.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"sort"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/golang/protobuf/proto"

	pb "spaceblock/v1"
)

const (
	paramIDs    = 16 // what bench_rpc puts and gets go round
	callTimeout = 10 * time.Second
)

// load is so many callers on each of so many connections, each with one call at a time.
type load struct {
	endpoint, op, image           string
	connections, depth, valueSize int
	seconds                       float64
}

func newLoad(flags *flag.FlagSet) *load {
	l := &load{}
	flags.StringVar(&l.endpoint, "endpoint", "", "unix:PATH or tcp://HOST:PORT")
	flags.StringVar(&l.op, "op", "ping", "ping or get")
	flags.StringVar(&l.image, "image", "bench", "what get reads from")
	flags.IntVar(&l.connections, "connections", 1, "how many")
	flags.IntVar(&l.depth, "depth", 1, "calls in flight on each connection")
	flags.IntVar(&l.valueSize, "value-size", 32, "bytes of a ping's payload")
	flags.Float64Var(&l.seconds, "seconds", 1, "after a tenth of that to warm up")
	return l
}

// caller makes one call after the other. Its messages are made once.
type caller struct {
	client            *ttrpc.Client
	service, method   string
	request, response proto.Message
	latencies         []time.Duration
	err               error
}

func (l *load) newCaller(client *ttrpc.Client, n int) (*caller, error) {
	switch l.op {
	case "ping":
		return &caller{client: client, service: "spaceblock.v1.Server", method: "Ping",
			request:  &pb.PingRequest{Payload: make([]byte, l.valueSize)},
			response: &pb.PingResponse{}}, nil
	case "get":
		return &caller{client: client, service: "spaceblock.v1.Params", method: "Get",
			request: &pb.GetParamRequest{Image: &pb.ImageRef{Name: []byte(l.image)},
				Id: uint32(1 + n%paramIDs)}, response: &pb.GetParamResponse{}}, nil
	}
	return nil, fmt.Errorf("found op %q, expected ping or get", l.op)
}

func (l *load) open() (callers []*caller, err error) {
	e, err := parseEndpoint(l.endpoint)
	if err != nil {
		return nil, err
	}
	for i := 0; i < l.connections; i++ {
		conn, err := net.Dial(e.network, e.address)
		if err != nil {
			return nil, err
		}
		client := ttrpc.NewClient(conn)
		for k := 0; k < l.depth; k++ {
			c, err := l.newCaller(client, i*l.depth+k)
			if err != nil {
				return nil, err
			}
			callers = append(callers, c)
		}
	}
	return callers, nil
}

// work calls until end; what began after begin and ended by end counts.
func (c *caller) work(ctx context.Context, begin, end time.Time) {
	for now := time.Now(); now.Before(end); {
		if c.err = c.client.Call(ctx, c.service, c.method, c.request, c.response); c.err != nil {
			return
		}
		started := now
		now = time.Now()
		if !started.Before(begin) && !now.After(end) {
			c.latencies = append(c.latencies, now.Sub(started))
		}
	}
}

// figures are printed under the names that the other load generators use.
type figures struct {
	Calls    int     `json:"calls"`
	Rate     float64 `json:"rate"`
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
	CPU      float64 `json:"client_cpu_us"`
	Failures int     `json:"failures"`
}

func (l *load) run() error {
	callers, err := l.open()
	if err != nil {
		return err
	}
	length := time.Duration(l.seconds * float64(time.Second))
	begin := time.Now().Add(length / 10)
	end := begin.Add(length)
	// One for all calls, so that none pays for a timer of its own.
	ctx, cancel := context.WithDeadline(context.Background(), end.Add(callTimeout))
	defer cancel()
	var group sync.WaitGroup
	for _, c := range callers {
		group.Add(1)
		go func(c *caller) {
			defer group.Done()
			c.work(ctx, begin, end)
		}(c)
	}
	<-time.After(time.Until(begin))
	before := cpuTime()
	group.Wait()
	return report(callers, length, cpuTime()-before)
}

func report(callers []*caller, length, cpu time.Duration) error {
	var latencies []time.Duration
	for _, c := range callers {
		if c.err != nil {
			return c.err
		}
		latencies = append(latencies, c.latencies...)
	}
	if len(latencies) == 0 {
		return errors.New("no call ended in time")
	}
	sort.Slice(latencies, func(i, k int) bool { return latencies[i] < latencies[k] })
	return json.NewEncoder(os.Stdout).Encode(figures{
		Calls: len(latencies),
		Rate:  float64(len(latencies)) / length.Seconds(),
		P50:   us(latencies[len(latencies)/2]),
		P99:   us(latencies[len(latencies)*99/100]),
		CPU:   us(cpu) / float64(len(latencies)),
	})
}

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
