// The server: handlers that do as little as can be.

package main

import (
	"context"
	"fmt"
	"net"

	"github.com/containerd/ttrpc"

	pb "spaceblock/v1"
)

// serve answers at all endpoints until the process is ended. It says where it listens as the daemon
// does, in a line that begins with "ready".
func serve(listen []endpoint) error {
	server, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	register(server)
	ready := "ready"
	ended := make(chan error)
	for _, e := range listen {
		listener, err := net.Listen(e.network, e.address)
		if err != nil {
			return err
		}
		ready += " " + endpointOf(listener.Addr())
		go func() { ended <- server.Serve(context.Background(), listener) }()
	}
	fmt.Println(ready)
	return <-ended
}

func register(server *ttrpc.Server) {
	server.Register("spaceblock.v1.Server", map[string]ttrpc.Method{
		"Ping": func(_ context.Context, unmarshal func(interface{}) error) (interface{}, error) {
			var request pb.PingRequest
			if err := unmarshal(&request); err != nil {
				return nil, err
			}
			return &pb.PingResponse{Payload: request.Payload}, nil
		},
	})
	answer := &pb.GetParamResponse{Param: &pb.Param{Generation: 1, Value: make([]byte, 32)}}
	server.Register("spaceblock.v1.Params", map[string]ttrpc.Method{
		"Get": func(_ context.Context, unmarshal func(interface{}) error) (interface{}, error) {
			var request pb.GetParamRequest
			if err := unmarshal(&request); err != nil {
				return nil, err
			}
			return answer, nil
		},
	})
}
