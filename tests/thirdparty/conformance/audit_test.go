// The audit: a change is found again by what was asked, and long pages come whole.

package conformance

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/golang/protobuf/proto"

	pb "spaceblock/v1"
)

func callAudit(l *link) {
	image := l.image(64, 512)
	id := l.putParam(image, 42, "audited")
	list := &pb.ListAuditResponse{}
	l.call("Audit", "List", &pb.ListAuditRequest{Image: image.Name, Method: []byte("Params.Put")},
		list)
	l.want("records", len(list.Records), 1)
	record := list.Records[0]
	l.want("request_id", hex.EncodeToString(record.RequestId), strings.ReplaceAll(id, "-", ""))
	l.want("object", strings.Contains(string(record.Object), "42"), true)
	value := hex.EncodeToString([]byte("audited"))
	l.want("after", strings.Contains(string(record.After), value), true)
}

// A page of the audit is filled up to what an answer may have: 4 MiB, on which the client depends.
func TestAnswerNearTheLimit(t *testing.T) {
	const batches, perBatch = 100, 250
	onEachTransport(t, func(l *link) {
		if !l.serves("Audit", "List") {
			l.Skip("the daemon does not serve it")
		}
		image := l.image(64, 65536)
		value := []byte(strings.Repeat("a", 240))
		for n := 0; n < batches; n++ {
			request := &pb.BatchPutParamsRequest{RequestId: requestID(), Image: image}
			for id := uint32(0); id < perBatch; id++ {
				request.Puts = append(request.Puts, &pb.ParamPut{Id: id, Value: value})
			}
			l.call("Params", "BatchPut", request, &pb.BatchPutParamsResponse{})
		}
		largest, records := 0, 0
		request := &pb.ListAuditRequest{Image: image.Name, Method: []byte("Params.BatchPut"),
			PageSize: 1000}
		for more := true; more; more = request.BeforeId != 0 {
			page := &pb.ListAuditResponse{}
			l.call("Audit", "List", request, page)
			if size := proto.Size(page); size > largest {
				largest = size
			}
			records += len(page.Records)
			request.BeforeId = page.NextBeforeId
		}
		l.Logf("largest answer: %d bytes", largest)
		l.want("records", records, batches)
		l.want("it is near the limit", largest > frameMax*3/4 && largest < frameMax, true)
	})
}
