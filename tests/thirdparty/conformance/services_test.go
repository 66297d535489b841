// Every service, each of its methods once at least, and that none is left out.

package conformance

import (
	"bytes"
	"hash/crc32"
	"sort"
	"strings"
	"testing"

	"github.com/golang/protobuf/proto"
	"github.com/golang/protobuf/protoc-gen-go/descriptor"
	"github.com/golang/protobuf/ptypes/empty"
	"google.golang.org/grpc/codes"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "spaceblock/v1"
)

// services has a function for each service that the daemon describes, which calls each method that
// it serves; TestNothingIsLeftOut fails where one is missing.
var services = map[string]func(l *link){
	"Artifacts":    callArtifacts,
	"Audit":        callAudit,
	"DataProducts": callDataProducts,
	"Events":       callEvents,
	"Guests":       callGuests,
	"Health":       callHealth,
	"Images":       callImages,
	"Params":       callParams,
	"Server":       callServer,
	"Uploads":      callUploads,
}

func TestServices(t *testing.T) {
	for name, test := range services {
		name, test := name, test
		t.Run(name, func(t *testing.T) {
			onEachTransport(t, func(l *link) {
				for _, method := range described(l)[pkg+name] {
					if l.serves(name, method) {
						test(l)
						return
					}
				}
				l.Skip("the daemon serves none of its methods")
			})
		})
	}
}

// described gives the methods that Server.Info's descriptors have, by service.
func described(l *link) map[string][]string {
	info := &pb.ServerInfoResponse{}
	l.call("Server", "Info", &pb.ServerInfoRequest{}, info)
	set := &descriptor.FileDescriptorSet{}
	if err := proto.Unmarshal(info.FileDescriptorSet, set); err != nil {
		l.Fatalf("file_descriptor_set: %v", err)
	}
	found := make(map[string][]string)
	for _, file := range set.File {
		for _, service := range file.Service {
			name := file.GetPackage() + "." + service.GetName()
			for _, method := range service.Method {
				found[name] = append(found[name], method.GetName())
			}
		}
	}
	return found
}

// TestNothingIsLeftOut comes after TestServices, and looks at what the others have called.
func TestNothingIsLeftOut(t *testing.T) {
	onEachTransport(t, func(l *link) {
		found := described(l)
		for name, methods := range found {
			if services[strings.TrimPrefix(name, pkg)] == nil {
				l.Errorf("%s has no row in the table of services", name)
			}
			sort.Strings(methods)
			for _, method := range methods {
				if _, ok := called.Load(name + "." + method); ok {
					continue
				}
				if l.serves(name, method) {
					l.Errorf("%s.%s was not called", name, method)
				} else {
					l.Logf("%s.%s is described and not served", name, method)
				}
			}
		}
		for name := range services {
			if found[pkg+name] == nil {
				l.Errorf("%s has a row, and the daemon does not describe it", name)
			}
		}
	})
}

// serves tells whether the daemon has what a method does. The descriptors are those of the whole
// API, some of which may be its shape only.
func (l *link) serves(service, method string) bool {
	l.Helper()
	err := l.try(service, method, &empty.Empty{}, &empty.Empty{})
	return status.Code(err) != codes.Unimplemented
}

func callServer(l *link) {
	info := &pb.ServerInfoResponse{}
	l.call("Server", "Info", &pb.ServerInfoRequest{}, info)
	l.want("message_bytes_max", info.MessageBytesMax, uint32(4<<20))
	l.want("a version is told", len(info.Version) > 0, true)
	l.ping("")
	l.ping("payload")
	if l.serves("Server", "Cancel") {
		cancelled := &pb.CancelResponse{}
		l.call("Server", "Cancel", &pb.CancelRequest{RequestId: requestID()}, cancelled)
		l.want("a call that does not run is found", cancelled.Found, false)
	}
}

// callHealth asks under both names: gRPC's with gRPC's own messages.
func callHealth(l *link) {
	for _, service := range []string{"", pkg + "Params"} {
		ours := &pb.HealthCheckResponse{}
		l.call("Health", "Check", &pb.HealthCheckRequest{Service: service}, ours)
		l.want("status", ours.Status, pb.HealthCheckResponse_SERVING)
		theirs := &health.HealthCheckResponse{}
		l.call("grpc.health.v1.Health", "Check", &health.HealthCheckRequest{Service: service}, theirs)
		l.want("status", theirs.Status, health.HealthCheckResponse_SERVING)
	}
}

func callImages(l *link) {
	image := l.image(64, 512)
	got := &pb.GetImageResponse{}
	l.call("Images", "Get", &pb.GetImageRequest{Image: image}, got)
	l.want("name", string(got.Image.Name), string(image.Name))
	l.want("blocks", got.Image.TotalBlocks, uint32(64))
	l.want("state", got.Image.State, pb.ImageState_IMAGE_STATE_READY)

	other := l.image(64, 512)
	names := make(map[string]bool)
	request := &pb.ListImagesRequest{PageSize: 1}
	for more := true; more; more = len(request.PageToken) > 0 {
		page := &pb.ListImagesResponse{}
		l.call("Images", "List", request, page)
		for _, one := range page.Images {
			names[string(one.Name)] = true
		}
		request.PageToken = page.NextPageToken
	}
	l.want("both are listed", names[string(image.Name)] && names[string(other.Name)], true)

	inspected := &pb.InspectImageResponse{}
	l.call("Images", "Inspect", &pb.InspectImageRequest{Image: image}, inspected)
	l.want("parameter slots", inspected.ParamSlots, uint32(32))
	checked := &pb.CheckImageResponse{}
	l.call("Images", "Check", &pb.CheckImageRequest{Image: image}, checked)
	l.want("findings", len(checked.Findings), 0)
	packed := &pb.DefragImageResponse{}
	l.call("Images", "Defrag", &pb.DefragImageRequest{RequestId: requestID(), Image: image}, packed)
	l.want("done", packed.Done, true)
	reopened := &pb.ReopenImageResponse{}
	l.call("Images", "Reopen", &pb.ReopenImageRequest{RequestId: requestID(), Image: image}, reopened)
	l.want("state", reopened.Image.State, pb.ImageState_IMAGE_STATE_READY)
	l.call("Images", "Delete", &pb.DeleteImageRequest{RequestId: requestID(), Image: image},
		&pb.DeleteImageResponse{})
	l.refused(codes.NotFound, "NOT_FOUND", "Images", "Get", &pb.GetImageRequest{Image: image})
	callImageCopies(l)
}

func callParams(l *link) {
	image := l.image(64, 512)
	for n, value := range []string{"first", "second"} {
		put := &pb.PutParamResponse{}
		l.call("Params", "Put", &pb.PutParamRequest{RequestId: requestID(), Image: image, Id: 42,
			Value: []byte(value), IfExpectedGeneration: &pb.PutParamRequest_ExpectedGeneration{
				ExpectedGeneration: uint32(n)}}, put)
		l.want("generation", put.Generation, uint32(n+1))
	}
	batch := &pb.BatchPutParamsResponse{}
	l.call("Params", "BatchPut", &pb.BatchPutParamsRequest{RequestId: requestID(), Image: image,
		Puts: []*pb.ParamPut{{Id: 1, Value: []byte("a")}, {Id: 42, Value: nil}}}, batch)
	l.want("generations", len(batch.Generations), 2)
	l.want("the second one's", batch.Generations[1], uint32(3))

	got := &pb.GetParamResponse{}
	l.call("Params", "Get", &pb.GetParamRequest{Image: image, Id: 1}, got)
	l.want("value", string(got.Param.Value), "a")
	list := &pb.ListParamsResponse{}
	l.call("Params", "List", &pb.ListParamsRequest{Image: image}, list)
	l.want("ids", len(list.Params), 2)
	history := &pb.ParamHistoryResponse{}
	l.call("Params", "History", &pb.ParamHistoryRequest{Image: image, Id: 42}, history)
	l.want("entries", len(history.Entries), 3)
	l.want("the middle one", string(history.Entries[1].Value), "second")

	l.call("Params", "Delete", &pb.DeleteParamRequest{RequestId: requestID(), Image: image, Id: 42},
		&pb.DeleteParamResponse{})
	l.refused(codes.NotFound, "NOT_FOUND", "Params", "Get", &pb.GetParamRequest{Image: image, Id: 42})
}

func callEvents(l *link) {
	image := l.image(64, 512)
	list := func(request *pb.ListEventsRequest) *pb.ListEventsResponse {
		request.Image = image
		page := &pb.ListEventsResponse{}
		l.call("Events", "List", request, page)
		return page
	}
	add := func(payloads ...string) {
		request := &pb.AppendEventsRequest{RequestId: requestID(), Image: image}
		for n, payload := range payloads {
			request.Events = append(request.Events, &pb.NewEvent{Severity: uint32(n), Code: 7,
				Payload: []byte(payload)})
		}
		answer := &pb.AppendEventsResponse{}
		l.call("Events", "Append", request, answer)
		l.want("count", answer.Count, uint32(len(payloads)))
	}
	add("boot", "low battery")
	page := list(&pb.ListEventsRequest{})
	l.want("events", len(page.Events), 2)
	l.want("the newest", string(page.Events[1].Payload), "low battery")
	add("later")
	page = list(&pb.ListEventsRequest{Cursor: page.Cursor})
	l.want("events after the cursor", len(page.Events), 1)
	l.want("the newest", string(page.Events[0].Payload), "later")
	severe := list(&pb.ListEventsRequest{Severities: []uint32{1}})
	l.want("events of severity 1", len(severe.Events), 1)
	if l.serves("Events", "Watch") {
		callWatch(l, image, page.Cursor, add)
	}
}

// callWatch waits for an event that another call appends over the same connection meanwhile.
func callWatch(l *link, image *pb.ImageRef, cursor []byte, add func(payloads ...string)) {
	oldest := &pb.WatchEventsResponse{}
	l.call("Events", "Watch", &pb.WatchEventsRequest{Image: image,
		Start: pb.WatchStart_WATCH_START_OLDEST}, oldest)
	l.want("events", len(oldest.Events), 3)
	watched := &pb.WatchEventsResponse{}
	answered := make(chan error)
	go func() {
		answered <- l.try("Events", "Watch", &pb.WatchEventsRequest{Image: image, Cursor: cursor,
			WaitMs: 60000}, watched)
	}()
	add("watched")
	if err := <-answered; err != nil {
		l.Fatal(err)
	}
	l.want("events", len(watched.Events), 1)
	l.want("the newest", string(watched.Events[0].Payload), "watched")
}

func crc32c(data []byte) uint32 {
	return crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
}

func (l *link) startUpload(request *pb.StartUploadRequest) []byte {
	l.Helper()
	started := &pb.StartUploadResponse{}
	request.RequestId = requestID()
	l.call("Uploads", "Start", request, started)
	return started.UploadId
}

func (l *link) writeChunk(upload []byte, offset int, data []byte) {
	l.Helper()
	written := &pb.WriteUploadResponse{}
	l.call("Uploads", "Write", &pb.WriteUploadRequest{UploadId: upload, Offset: uint64(offset),
		Data: data, Crc32C: crc32c(data)}, written)
	l.want("next_offset", written.NextOffset, uint64(offset+len(data)))
}

func (l *link) writeChunks(upload []byte, data []byte, chunk int) {
	l.Helper()
	for offset := 0; offset < len(data); offset += chunk {
		end := offset + chunk
		if end > len(data) {
			end = len(data)
		}
		l.writeChunk(upload, offset, data[offset:end])
	}
}

func (l *link) finishUpload(upload []byte, data []byte) *pb.FinishUploadResponse {
	l.Helper()
	finished := &pb.FinishUploadResponse{}
	l.call("Uploads", "Finish", &pb.FinishUploadRequest{RequestId: requestID(), UploadId: upload,
		Crc32C: crc32c(data)}, finished)
	return finished
}

func productStart(image *pb.ImageRef, name string, size int) *pb.StartUploadRequest {
	return &pb.StartUploadRequest{Size: uint64(size),
		Target: &pb.StartUploadRequest_Product{Product: &pb.ProductTarget{Image: image,
			Name: []byte(name), ProductClass: 1, Priority: 2}}}
}

// upload stores a product, in chunks of at most the given size.
func (l *link) upload(image *pb.ImageRef, name string, data []byte, chunk int) *pb.Product {
	l.Helper()
	id := l.startUpload(productStart(image, name, len(data)))
	l.writeChunks(id, data, chunk)
	return l.finishUpload(id, data).GetProduct()
}

// noise is data of which no part is like another.
func noise(size int) []byte {
	data := make([]byte, size)
	state := uint32(1)
	for i := range data {
		state = state*1664525 + 1013904223
		data[i] = byte(state >> 24)
	}
	return data
}

func callUploads(l *link) {
	image := l.image(1024, 512)
	data := noise(150000)
	product := l.upload(image, "science/thermal", data, 64<<10)
	l.want("length", product.Length, uint64(len(data)))
	l.want("crc32c", product.Crc32C, crc32c(data))

	id := l.startUpload(productStart(image, "left", 100000))
	l.writeChunk(id, 0, data[:70000])
	status := &pb.UploadStatusResponse{}
	l.call("Uploads", "Status", &pb.UploadStatusRequest{UploadId: id}, status)
	l.want("next_offset", status.NextOffset, uint64(70000))
	l.call("Uploads", "Abort", &pb.AbortUploadRequest{RequestId: requestID(), UploadId: id},
		&pb.AbortUploadResponse{})
	l.refused(codes.NotFound, "NOT_FOUND", "Uploads", "Status", &pb.UploadStatusRequest{UploadId: id})
}

func callDataProducts(l *link) {
	image := l.image(1024, 512)
	data := noise(100001)
	l.upload(image, "p", data, 1<<20)
	list := &pb.ListProductsResponse{}
	l.call("DataProducts", "List", &pb.ListProductsRequest{Image: image}, list)
	l.want("products", len(list.Products), 1)
	got := &pb.GetProductResponse{}
	l.call("DataProducts", "Get", &pb.GetProductRequest{Image: image, Name: []byte("p")}, got)
	l.want("length", got.Product.Length, uint64(len(data)))

	var read []byte
	for len(read) < len(data) {
		piece := &pb.ReadProductResponse{}
		l.call("DataProducts", "Read", &pb.ReadProductRequest{Image: image, Name: []byte("p"),
			Identity: got.Product.Identity, Offset: uint64(len(read)), Length: 64 << 10}, piece)
		l.want("crc32c", piece.Crc32C, crc32c(piece.Data))
		if len(piece.Data) == 0 {
			l.Fatalf("nothing to read at %d", len(read))
		}
		read = append(read, piece.Data...)
	}
	l.want("the same bytes", bytes.Equal(read, data), true)
	l.call("DataProducts", "Delete", &pb.DeleteProductRequest{RequestId: requestID(), Image: image,
		Name: []byte("p")}, &pb.DeleteProductResponse{})
	l.refused(codes.NotFound, "NOT_FOUND", "DataProducts", "Get",
		&pb.GetProductRequest{Image: image, Name: []byte("p")})
}
