// Command peer is what the daemon's unary calls are measured against: containerd's ttrpc for Go,
// its server and its client, with the daemon's own messages. tests/bench/run drives it.
//
//	peer serve --listen unix:PATH --listen tcp://127.0.0.1:0
//	peer load --endpoint E --op ping|get [--connections N] [--depth N] [--seconds S]
//	          [--value-size N] [--image NAME]
//
// The server answers Server.Ping with the payload that it got and Params.Get with a constant, which
// is the least that a handler can do. The load is that of bench_rpc.c, and so is what it prints.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
)

func main() {
	if len(os.Args) < 2 {
		fail(2, "expected serve or load")
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	switch os.Args[1] {
	case "serve":
		var listen endpoints
		flags.Var(&listen, "listen", "an `endpoint`; may be given several times")
		flags.Parse(os.Args[2:])
		check(serve(listen))
	case "load":
		load := newLoad(flags)
		flags.Parse(os.Args[2:])
		check(load.run())
	default:
		fail(2, "found %q, expected serve or load", os.Args[1])
	}
}

func check(err error) {
	if err != nil {
		fail(1, "%v", err)
	}
}

func fail(status int, format string, args ...interface{}) {
	fmt.Fprintf(os.Stderr, "peer: "+format+"\n", args...)
	os.Exit(status)
}

// endpoint is unix:PATH or tcp://HOST:PORT.
type endpoint struct{ network, address string }

func parseEndpoint(text string) (endpoint, error) {
	if path := strings.TrimPrefix(text, "unix:"); path != text {
		return endpoint{"unix", path}, nil
	}
	if address := strings.TrimPrefix(text, "tcp://"); address != text {
		return endpoint{"tcp", address}, nil
	}
	return endpoint{}, fmt.Errorf("found endpoint %q, expected unix:PATH or tcp://HOST:PORT", text)
}

// endpoints is a flag that may be repeated.
type endpoints []endpoint

func (e *endpoints) String() string { return fmt.Sprint(*e) }

func (e *endpoints) Set(text string) error {
	one, err := parseEndpoint(text)
	*e = append(*e, one)
	return err
}

func endpointOf(address net.Addr) string {
	if address.Network() == "unix" {
		return "unix:" + address.String()
	}
	return "tcp://" + address.String()
}
