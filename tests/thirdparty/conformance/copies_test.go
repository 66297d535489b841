// Whole images: copies, other names, backups that are read and stored again.

package conformance

import (
	"bytes"
	"crypto/sha256"

	"google.golang.org/grpc/codes"

	pb "spaceblock/v1"
)

// hasParam checks the value of an image's parameter.
func (l *link) hasParam(image *pb.ImageRef, id uint32, value string) {
	l.Helper()
	got := &pb.GetParamResponse{}
	l.call("Params", "Get", &pb.GetParamRequest{Image: image, Id: id}, got)
	l.want("value", string(got.Param.Value), value)
}

func (l *link) putParam(image *pb.ImageRef, id uint32, value string) (requestId string) {
	l.Helper()
	requestId = requestID()
	l.call("Params", "Put", &pb.PutParamRequest{RequestId: requestId, Image: image, Id: id,
		Value: []byte(value)}, &pb.PutParamResponse{})
	return requestId
}

// callImageCopies calls what the daemon serves of Clone, Rename, Backup and Scrub.
func callImageCopies(l *link) {
	image := l.image(64, 512)
	l.putParam(image, 1, "original")
	if l.serves("Images", "Clone") {
		to := &pb.ImageRef{Name: append([]byte("clone-"), image.Name...)}
		cloned := &pb.CloneImageResponse{}
		l.call("Images", "Clone", &pb.CloneImageRequest{RequestId: requestID(), Image: image, To: to},
			cloned)
		l.putParam(image, 1, "changed")
		l.hasParam(to, 1, "original")
		l.want("blocks", cloned.Image.TotalBlocks, uint32(64))
	}
	if l.serves("Images", "Rename") {
		other := append([]byte("other-"), image.Name...)
		l.call("Images", "Rename", &pb.RenameImageRequest{RequestId: requestID(), Image: image,
			Name: other}, &pb.RenameImageResponse{})
		l.refused(codes.NotFound, "NOT_FOUND", "Images", "Get", &pb.GetImageRequest{Image: image})
		image = &pb.ImageRef{Name: other}
	}
	l.putParam(image, 1, "kept")
	if l.serves("Images", "Backup") {
		callBackup(l, image)
	}
	if l.serves("Images", "Scrub") {
		scrubbed := &pb.ScrubImageResponse{}
		l.call("Images", "Scrub", &pb.ScrubImageRequest{Image: image, Start: true, WaitSeconds: 50},
			scrubbed)
		l.want("it has ended", !scrubbed.Running && scrubbed.EndedAt > 0, true)
		l.want("findings", len(scrubbed.Findings), 0)
	}
}

// callBackup reads a copy of an image that goes on changing, and makes a new image of it.
func callBackup(l *link, image *pb.ImageRef) {
	backup := &pb.BackupImageResponse{}
	l.call("Images", "Backup", &pb.BackupImageRequest{Image: image}, backup)
	l.putParam(image, 1, "later")
	var data []byte
	for uint64(len(data)) < backup.Size {
		piece := &pb.ReadBackupResponse{}
		l.call("Images", "ReadBackup", &pb.ReadBackupRequest{BackupId: backup.BackupId,
			Offset: uint64(len(data)), Length: chunkMax}, piece)
		l.want("crc32c of a piece", piece.Crc32C, crc32c(piece.Data))
		if len(piece.Data) == 0 {
			l.Fatalf("nothing to read at %d", len(data))
		}
		data = append(data, piece.Data...)
	}
	l.want("crc32c", backup.Crc32C, crc32c(data))
	end := &pb.EndBackupRequest{BackupId: backup.BackupId}
	l.call("Images", "EndBackup", end, &pb.EndBackupResponse{})

	restored := &pb.ImageRef{Name: append([]byte("back-"), image.Name...)}
	id := l.startUpload(&pb.StartUploadRequest{Size: uint64(len(data)),
		Target: &pb.StartUploadRequest_Image{Image: &pb.ImageTarget{Image: restored,
			NewIdentity: true}}})
	l.writeChunks(id, data, chunkMax)
	l.want("the image's name", string(l.finishUpload(id, data).GetImage().GetName()),
		string(restored.Name))
	l.hasParam(restored, 1, "kept")
}

func callArtifacts(l *link) {
	data := append(noise(100000), l.Name()...)
	sum := sha256.Sum256(data)
	id := l.startUpload(&pb.StartUploadRequest{Size: uint64(len(data)),
		Target: &pb.StartUploadRequest_Artifact{Artifact: &pb.ArtifactTarget{Name: []byte("kernel"),
			Sha256: sum[:]}}})
	l.writeChunks(id, data, chunkMax)
	l.want("size", l.finishUpload(id, data).GetArtifact().GetSize(), uint64(len(data)))

	got := &pb.GetArtifactResponse{}
	l.call("Artifacts", "Get", &pb.GetArtifactRequest{Sha256: sum[:]}, got)
	l.want("name", string(got.Artifact.Name), "kernel")
	list := &pb.ListArtifactsResponse{}
	l.call("Artifacts", "List", &pb.ListArtifactsRequest{}, list)
	found := false
	for _, one := range list.Artifacts {
		found = found || bytes.Equal(one.Sha256, sum[:])
	}
	l.want("it is listed", found, true)
	l.call("Artifacts", "Delete", &pb.DeleteArtifactRequest{RequestId: requestID(), Sha256: sum[:]},
		&pb.DeleteArtifactResponse{})
	l.refused(codes.NotFound, "NOT_FOUND", "Artifacts", "Get", &pb.GetArtifactRequest{Sha256: sum[:]})
}
