// Guests: each method, on a guest of which QEMU is a program that does as its command line says.

package conformance

import (
	"google.golang.org/grpc/codes"

	pb "spaceblock/v1"
)

func callGuests(l *link) {
	ref := &pb.GuestRef{Name: []byte("g-" + requestID())}
	made := &pb.CreateGuestResponse{}
	l.call("Guests", "Create", &pb.CreateGuestRequest{RequestId: requestID(), Guest: ref,
		Config: &pb.GuestConfig{
			Images: []*pb.ImageRef{l.image(64, 512)},
			Kernel: &pb.BootFile{Place: &pb.BootFile_File{File: []byte("vmlinuz")}},
			Append: []byte("print=hello echo button=ignore"),
		}}, made)
	l.want("state", made.Guest.State, pb.GuestState_GUEST_STATE_CREATED)
	l.want("memory_mib", made.Guest.Config.MemoryMib, uint32(128))

	started := &pb.StartGuestResponse{}
	l.call("Guests", "Start", &pb.StartGuestRequest{RequestId: requestID(), Guest: ref}, started)
	l.want("state", started.Guest.State, pb.GuestState_GUEST_STATE_RUNNING)
	typed := &pb.WriteConsoleResponse{}
	l.call("Guests", "WriteConsole", &pb.WriteConsoleRequest{Guest: ref,
		WriterId: []byte("sixteen bytes it"), Data: []byte("typed")}, typed)
	l.want("offset", typed.Offset, uint64(5))
	l.want("console", readConsole(l, ref, 11), "hello\ntyped")
	stats := &pb.GuestStatsResponse{}
	l.call("Guests", "Stats", &pb.GuestStatsRequest{Guest: ref}, stats)
	l.want("disks", len(stats.Disks), 1)
	list := &pb.ListGuestsResponse{}
	l.call("Guests", "List", &pb.ListGuestsRequest{}, list)
	l.want("some are listed", len(list.Guests) > 0, true)

	l.refused(codes.FailedPrecondition, "WRONG_STATE", "Guests", "Delete",
		&pb.DeleteGuestRequest{RequestId: requestID(), Guest: ref})
	stopping := &pb.StopGuestResponse{}
	l.call("Guests", "Stop", &pb.StopGuestRequest{RequestId: requestID(), Guest: ref}, stopping)
	l.want("state", stopping.Guest.State, pb.GuestState_GUEST_STATE_STOPPING)
	l.call("Guests", "Kill", &pb.KillGuestRequest{RequestId: requestID(), Guest: ref},
		&pb.KillGuestResponse{})
	l.want("state", waitForEnd(l, ref).State, pb.GuestState_GUEST_STATE_STOPPED)
	l.call("Guests", "Delete", &pb.DeleteGuestRequest{RequestId: requestID(), Guest: ref},
		&pb.DeleteGuestResponse{})
	l.refused(codes.NotFound, "NOT_FOUND", "Guests", "Get", &pb.GetGuestRequest{Guest: ref})
}

// readConsole reads until so many bytes have come.
func readConsole(l *link, ref *pb.GuestRef, size int) string {
	var text []byte
	for len(text) < size {
		piece := &pb.ReadConsoleResponse{}
		l.call("Guests", "ReadConsole", &pb.ReadConsoleRequest{Guest: ref, WaitMs: 20000,
			From: &pb.ReadConsoleRequest_Offset{Offset: uint64(len(text))}}, piece)
		if len(piece.Data) == 0 {
			l.Fatalf("the console ends with %q", text)
		}
		text = append(text, piece.Data...)
	}
	return string(text)
}

// waitForEnd waits by version, as clients do.
func waitForEnd(l *link, ref *pb.GuestRef) *pb.Guest {
	got := &pb.GetGuestResponse{}
	l.call("Guests", "Get", &pb.GetGuestRequest{Guest: ref}, got)
	guest := got.Guest
	for guest.EndedAtMs == 0 || guest.State == pb.GuestState_GUEST_STATE_STOPPING {
		next := &pb.WaitGuestResponse{}
		l.call("Guests", "Wait", &pb.WaitGuestRequest{Guest: ref, KnownVersion: guest.Version,
			WaitMs: 20000}, next)
		guest = next.Guest
	}
	return guest
}
