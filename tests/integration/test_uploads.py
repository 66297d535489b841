"""Uploads of every kind: resumed over lost links and restarts, bounded, private, ended for good."""
import errno
import os
import shutil
import struct
import subprocess
import time
import uuid

import harness
import rpc
from crc import crc32c
from faults import Faults
from uploading import KIB, KINDS, MIB, Case, Upload, image_file, noise


class Resuming(Case):
    def test_after_a_lost_link(self):
        self.serve()
        for kind in KINDS:
            with self.subTest(kind=kind):
                data = self.source(kind)
                upload = self.begin(kind, data)
                upload.send(0, MIB)
                # a chunk on its way when the link goes
                piece = data[MIB:2 * MIB]
                self.c.start("Uploads", "Write", {"upload_id": upload.id, "offset": MIB,
                                                  "data": piece, "crc32c": crc32c(piece)})
                self.c.close()
                upload.c = self.c = self.connect(self.d)
                self.assertIn(upload.status()["next_offset"], (MIB, 2 * MIB))
                upload.resume()
                upload.finish()
                self.landed(kind, upload)
                self.assertTrue(upload.is_gone())
        self.assertEqual(self.stray(), [])

    def test_after_restarts(self):
        self.serve("upload_sync_bytes=256 KiB")
        for kind in KINDS:
            for kill in (False, True):
                with self.subTest(kind=kind, kill=kill):
                    data = self.source(kind)
                    upload = self.begin(kind, data)
                    upload.send(0, MIB + 128 * KIB)
                    upload.c = self.again(kill)
                    status = upload.status()
                    self.assertEqual(status["durable_offset"], status["next_offset"])
                    self.assertEqual(status["size"], len(data))
                    # every 256 KiB it was made durable, and when the daemon ended well
                    self.at_least(kind, status["durable_offset"], MIB if kill else MIB + 128 * KIB)
                    upload.resume()
                    upload.c = self.again(True)  # all has come, and was not finished
                    upload.resume()
                    upload.finish()
                    self.landed(kind, upload)
                    upload.c = self.again(True)
                    self.landed(kind, upload)
                    self.assertTrue(upload.is_gone())
                    self.clear(kind)
        self.d.stop()
        self.assertEqual((self.rows(), self.stray()), (0, []))

    def clear(self, kind):
        if kind == "product":
            self.c.call("DataProducts", "Delete", image="a", name=b"p")
        elif kind == "image":
            self.c.call("Images", "Delete", image="new")

    def test_status_makes_durable_what_has_come(self):
        self.serve()
        for kind in KINDS:
            with self.subTest(kind=kind):
                upload = self.begin(kind, self.source(kind))
                upload.send(0, MIB)
                told = upload.status()
                self.assertEqual(told["next_offset"], MIB)
                self.at_least(kind, told["durable_offset"], MIB)
                upload.c = self.again(kill=True)
                self.assertGreaterEqual(upload.status()["durable_offset"], told["durable_offset"])
                upload.resume()
                upload.finish()
                self.landed(kind, upload)

    def test_an_unanswered_start_is_answered_again(self):
        self.serve()
        request = str(uuid.uuid4())
        for kind in KINDS:
            data = self.source(kind)
            for kill in (None, False, True):
                with self.subTest(kind=kind, kill=kill):
                    before = self.free_blocks()
                    request = str(uuid.uuid4())
                    first = self.begin(kind, data, how={"request_id": request})
                    if kill is not None:
                        self.again(kill)
                    second = self.begin(kind, data, how={"request_id": request})
                    self.assertEqual(first.id, second.id)
                    second.send(0, 64 * KIB)
                    second.abort()
                    self.assertEqual(self.free_blocks(), before)

    def test_an_unanswered_finish_is_answered_again(self):
        self.serve()
        for kind in KINDS:
            for kill in (None, False, True):
                with self.subTest(kind=kind, kill=kill):
                    upload = self.begin(kind, self.source(kind))
                    upload.send()
                    request = str(uuid.uuid4())
                    first = upload.finish(request_id=request)
                    if kill is not None:
                        upload.c = self.again(kill)
                    self.assertEqual(upload.finish(request_id=request), first)
                    self.landed(kind, upload)
                    self.clear(kind)

    def test_an_unanswered_abort_is_answered_again(self):
        self.serve()
        for kind in KINDS:
            upload = self.begin(kind, self.source(kind))
            request = str(uuid.uuid4())
            self.assertEqual(upload.ask("Abort", request_id=request).code, rpc.OK)
            upload.c = self.again(kill=True)
            self.assertEqual(upload.ask("Abort", request_id=request).code, rpc.OK)
            self.assertTrue(upload.is_gone())

    def test_two_at_once_over_a_restart(self):
        self.serve("upload_sync_bytes=64 KiB")
        uploads = [Upload.product(self.c, noise(MIB, n), name=b"p%d" % n) for n in range(3)]
        uploads.append(Upload.artifact(self.c, noise(MIB, 9)))
        uploads.append(Upload.image(self.c, self.source("image", MIB)))
        for step in range(0, 512 * KIB, 128 * KIB):
            for one in uploads:
                one.send(step, step + 128 * KIB)
        self.again(kill=True)
        for one in uploads:
            one.c = self.c
            one.resume()
        for one in uploads:
            one.finish()
        for n in range(3):
            self.assertEqual(self.c.product("a", b"p%d" % n), uploads[n].data)
        self.landed("artifact", uploads[3])
        self.landed("image", uploads[4])

    def test_bytes_that_changed_meanwhile_are_sent_again(self):
        self.serve()
        for kind in KINDS:
            with self.subTest(kind=kind):
                data = self.source(kind)
                upload = self.begin(kind, data)
                upload.send(0, MIB)
                self.at_least(kind, upload.status()["durable_offset"], MIB)
                self.d.stop()
                self.spoil(kind, data)
                upload.c = self.connect(self.d.restart())
                self.c = upload.c
                told = upload.status()
                self.assertEqual((told["durable_offset"], told["next_offset"]), (0, 0))
                upload.send()
                upload.finish()
                self.landed(kind, upload)

    def spoil(self, kind, data):
        folder = self.d.data_dir / ("artifacts" if kind == "artifact" else "images") / "1"
        path = folder / "a.img" if kind == "product" else next(folder.glob(".upload-*"))
        content = path.read_bytes()
        at = content.index(data[1000 * KIB:1001 * KIB])
        with open(path, "r+b") as f:
            f.seek(at)
            f.write(b"spoilt")

    def test_a_finish_meets_a_resumed_upload(self):
        self.serve()
        for kind in KINDS:
            upload = self.begin(kind, self.source(kind))
            upload.send()
            upload.status()
            upload.c = self.again(kill=True)
            reply = upload.ask("Finish", crc32c=crc32c(upload.data))
            if reply.code:  # a last block that was not whole is missing
                self.assertEqual(reply.code, rpc.PRECONDITION, reply)
                upload.resume()
                upload.finish()
            self.landed(kind, upload)


class Ending(Case):
    def test_abort_gives_all_back(self):
        self.serve()
        before = self.free_blocks()
        for kind in KINDS:
            upload = self.begin(kind, self.source(kind))
            upload.send(0, MIB)
            if kind == "product":
                self.assertLess(self.free_blocks(), before - 767)
            upload.abort()
            self.assertTrue(upload.is_gone())
        self.assertEqual((self.free_blocks(), self.stray()), (before, []))
        self.again(kill=True)
        self.assertEqual(self.free_blocks(), before)

    def test_reserved_space_stays_reserved_over_a_restart(self):
        self.serve()
        before = self.free_blocks()
        upload = Upload.product(self.c, noise(4 * MIB))
        during = self.free_blocks()
        self.assertEqual(before - during, 1025)  # and the block that the length may need
        upload.c = self.again(kill=True)
        self.assertEqual(self.free_blocks(), during)
        self.refused(rpc.EXHAUSTED, self.c, "Uploads", "Start", {
            "size": 5 * MIB, "product": {"image": {"name": b"a"}, "name": b"q"}})
        upload.abort()
        self.assertEqual(self.free_blocks(), before)
        self.again(kill=True)
        self.assertEqual(self.free_blocks(), before)

    def test_expiry(self):
        self.serve("upload_life_s=1")
        before = self.free_blocks()
        uploads = [self.begin(kind, self.source(kind)) for kind in KINDS]
        for one in uploads:
            one.send(0, MIB)
            self.assertLessEqual(one.status()["expires_in_seconds"], 1)
        self.until(lambda: not self.stray() and self.free_blocks() == before, "the end of uploads")
        for one in uploads:
            self.assertTrue(one.is_gone())
        self.d.stop()
        self.assertEqual(self.rows(), 0)

    def test_expiry_while_the_daemon_is_down(self):
        self.serve()
        before = self.free_blocks()
        uploads = [self.begin(kind, self.source(kind)) for kind in KINDS]
        self.d.stop()
        self.assertEqual(self.rows(), 3)
        used = time.time()
        self.until(lambda: time.time() > used + 1.1, "the clock")
        self.d.args = ["--limit", "upload_life_s=1"]
        self.c = self.connect(self.d.restart())
        for one in uploads:
            one.c = self.c
            self.assertTrue(one.is_gone())
        self.assertEqual((self.free_blocks(), self.stray()), (before, []))

    def test_deleting_the_image_ends_its_uploads(self):
        self.serve()
        upload = Upload.product(self.c, noise(MIB))
        upload.send(0, 128 * KIB)
        self.c.call("Images", "Delete", image="a")
        self.assertTrue(upload.is_gone())
        self.c.create("a", blocks=2048, sector_size=4096)
        before = self.free_blocks()
        upload.c = self.again()
        self.assertTrue(upload.is_gone())
        self.assertEqual(self.free_blocks(), before)
        self.d.stop()
        self.assertEqual(self.rows(), 0)

    def test_an_image_that_is_gone_at_the_start(self):
        self.serve()
        upload = Upload.product(self.c, noise(MIB))
        self.d.stop()
        self.d.image_path(1, "a").unlink()
        upload.c = self.c = self.connect(self.d.restart())
        self.assertTrue(upload.is_gone())
        self.d.stop()
        self.assertEqual(self.rows(), 0)

    def test_a_file_that_is_gone_or_cut_at_the_start(self):
        self.serve()
        for kind in ("image", "artifact"):
            for how in ("gone", "cut"):
                upload = self.begin(kind, self.source(kind))
                self.d.stop()
                folder = self.d.data_dir / ("images" if kind == "image" else "artifacts") / "1"
                path = next(folder.glob(".upload-*"))
                if how == "gone":
                    path.unlink()
                else:
                    os.truncate(path, 1000)
                upload.c = self.c = self.connect(self.d.restart())
                self.assertTrue(upload.is_gone())
                self.assertEqual(self.stray(), [])
                line = self.d.log().split("event=upload-ended ")[-1].splitlines()[0]
                self.assertRegex(line, rf"kind={kind} tenant=1 .* by=\S+ reason=\S*its file")
                self.assertIn("gone" if how == "gone" else "size", line)

    def test_a_start_passes_over_the_files_of_uploads(self):
        self.serve()
        uploads = [self.begin(kind, self.source(kind)) for kind in KINDS]
        self.again()
        for one in uploads:
            one.c = self.c
            one.resume()
            one.finish()
        self.assertNotIn("file-skipped", self.d.log())
        self.assertNotIn("upload-ended", self.d.log())

    def test_files_without_a_row_are_removed_at_the_start(self):
        self.serve()
        kept = [self.begin(kind, self.source(kind)) for kind in ("image", "artifact")]
        self.d.stop()
        (self.d.data_dir / "images" / "1" / (".upload-" + "0" * 32)).write_bytes(b"x")
        (self.d.data_dir / "artifacts" / "1" / (".upload-" + "f" * 32)).write_bytes(b"x")
        (self.d.data_dir / "copies" / "0123").write_bytes(b"x")
        self.c = self.connect(self.d.restart())
        self.assertEqual(len(self.stray()), 2)
        for one in kept:
            one.c = self.c
            one.send()
            one.finish()
        self.assertEqual(self.stray(), [])

    def test_a_product_in_the_way_ends_the_upload_at_the_opening(self):
        self.serve()
        upload = Upload.product(self.c, noise(MIB))
        upload.send(0, 512 * KIB)
        other = Upload.product(self.c, noise(100 * KIB), name=b"other")
        self.d.stop()
        # a command that works on the file knows nothing of what the daemon has reserved
        harness.run_cli("dp", "put", "offline", "-", "--file", self.d.image_path(1, "a"),
                        input=noise(512 * KIB, 3))
        upload.c = other.c = self.c = self.connect(self.d.restart())
        self.assertTrue(upload.is_gone())
        self.assertEqual(self.c.product("a", b"offline"), noise(512 * KIB, 3))
        other.send()
        other.finish()
        self.assertEqual(self.c.product("a", b"other"), noise(100 * KIB))
        self.assertEqual(self.c.call("Images", "Check", image="a")["findings"], [])

    def test_an_image_that_another_owner_holds_keeps_its_uploads(self):
        self.serve("upload_sync_bytes=64 KiB")
        upload = Upload.product(self.c, noise(MIB))
        given_up = Upload.product(self.c, noise(MIB), name=b"q")
        upload.send(0, 512 * KIB)
        self.d.stop()
        with open(self.d.image_path(1, "a"), "r+b") as owner:
            lock_byte(owner, 64)
            upload.c = given_up.c = self.c = self.connect(self.d.restart())
            for method, more in (("Status", {}), ("Write", {"data": b"x", "crc32c": crc32c(b"x")}),
                                 ("Finish", {})):
                reply = upload.ask(method, **more)
                self.assertEqual((reply.code, reply.reason), (rpc.PRECONDITION, "IMAGE_IN_USE"))
            given_up.abort()
            self.assertTrue(given_up.is_gone())
        self.c.call("Images", "Reopen", image="a")
        self.at_least("product", upload.status()["next_offset"], 512 * KIB)
        upload.resume()
        upload.finish()
        self.assertEqual(self.c.product("a", b"p"), upload.data)
        self.assertTrue(given_up.is_gone())


def lock_byte(file, at):
    """An open file description's write lock, as an owner of the image has it."""
    import fcntl
    fcntl.fcntl(file, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0))


class Refusing(Case):
    def test_another_principals_upload_is_absent(self):
        self.serve()
        with self.d.connect(self.d.tcp) as stranger:  # "local" is not the peer of a unix socket
            for kind in KINDS:
                upload = self.begin(kind, self.source(kind))
                upload.send(0, 128 * KIB)
                upload.c = stranger
                self.assertTrue(upload.is_gone())
                upload.c = self.c
                upload.resume()
                upload.finish()
                self.landed(kind, upload)

    def test_bounds(self):
        self.serve("uploads_max=5", "uploads_principal_max=3", "temporary_max_bytes=2 MiB")
        mine = [Upload.product(self.c, b"x", name=b"%d" % n) for n in range(3)]
        start = {"size": 1, "product": {"image": {"name": b"a"}, "name": b"q"}}
        reply = self.refused(rpc.EXHAUSTED, self.c, "Uploads", "Start", start)
        self.assertEqual(reply.reason, "LIMIT_EXCEEDED")
        with self.d.connect(self.d.tcp) as other:
            theirs = [Upload.product(other, b"x", name=b"t%d" % n) for n in range(2)]
            self.refused(rpc.EXHAUSTED, other, "Uploads", "Start", start)
            self.c = self.again(kill=True)  # bounds count what was kept
            for one in mine + theirs:
                one.c = self.c if one in mine else self.connect(self.d, self.d.tcp)
            self.refused(rpc.EXHAUSTED, self.c, "Uploads", "Start", start)
        for one in mine + theirs:
            one.abort()
        one = Upload.artifact(self.c, noise(MIB + 1))
        reply = self.refused(rpc.EXHAUSTED, self.c, "Uploads", "Start", {
            "size": MIB, "artifact": {"sha256": b"s" * 32}})
        self.assertIn("temporary_max_bytes", reply.message)
        self.c = one.c = self.again(kill=True)
        self.refused(rpc.EXHAUSTED, self.c, "Uploads", "Start", {
            "size": MIB, "artifact": {"sha256": b"s" * 32}})
        one.abort()
        Upload.artifact(self.c, noise(MIB)).abort()

    def test_bad_chunks(self):
        self.serve()
        for kind in KINDS:
            with self.subTest(kind=kind):
                data = self.source(kind)
                upload = self.begin(kind, data)
                upload.send(0, 64 * KIB)
                piece = data[64 * KIB:128 * KIB]
                for offset, what, crc, code in (
                        (64 * KIB, piece, crc32c(piece) ^ 1, rpc.INVALID),
                        (64 * KIB + 1, piece, None, rpc.PRECONDITION),
                        (128 * KIB, piece, None, rpc.PRECONDITION),
                        (1 << 63, piece, None, rpc.INVALID),
                        ((1 << 64) - 1, piece, None, rpc.INVALID),
                        ((1 << 64) - 64 * KIB, piece, None, rpc.INVALID),
                        (len(data) - 1, piece, None, rpc.INVALID),
                        (len(data), piece, None, rpc.INVALID),
                        (64 * KIB, b"small", None, rpc.INVALID),
                        (64 * KIB, b"", None, rpc.INVALID)):
                    reply = upload.ask("Write", offset=offset, data=what,
                                       crc32c=crc32c(what) if crc is None else crc)
                    self.assertEqual(reply.code, code, (offset, reply))
                self.assertEqual(upload.send(0, 64 * KIB), 64 * KIB)  # a repeat
                self.assertEqual(upload.ask("Finish", crc32c=crc32c(data)).code, rpc.PRECONDITION)
                upload.send(64 * KIB)
                reply = upload.ask("Finish", crc32c=crc32c(data) ^ 1)
                self.assertEqual((reply.code, reply.violations()), (rpc.INVALID, ["crc32c"]))
                upload.finish()
                self.landed(kind, upload)

    def test_chunks_that_are_there_already(self):
        """What is there is answered as before, whatever its bounds; other bytes are refused."""
        self.serve("upload_sync_bytes=256 KiB")
        for kind in KINDS:
            with self.subTest(kind=kind):
                data = self.source(kind)
                upload = self.begin(kind, data)
                here = upload.send(0, MIB, chunk=70000)
                self.check_repeats(upload, here)
                upload.c = self.again(kill=True)  # of what was durable at the most
                here = upload.status()["next_offset"]
                if here > 0:
                    self.check_repeats(upload, here)
                upload.resume()
                self.check_repeats(upload, len(data))
                reply = upload.ask("Finish", crc32c=crc32c(upload.data) ^ 1)
                self.assertEqual(reply.code, rpc.INVALID, reply)
                self.check_repeats(upload, len(data))
                upload.finish()
                self.landed(kind, upload)

    def check_repeats(self, upload, here):
        data = upload.data
        for start, end in ((0, here), (0, 64 * KIB), (0, 70000), (1, here - 1),
                           (here - 64 * KIB, here), (here - 64 * KIB - 1, here - 1),
                           (12345, 12345 + 64 * KIB)):
            end = min(end, start + MIB)
            reply = upload.write(start, data[start:end])
            self.assertEqual((reply.code, reply.body), (rpc.OK, {"next_offset": here}))
            for spoilt in {start, (start + end) // 2, end - 1}:
                piece = bytearray(data[start:end])
                piece[spoilt - start] ^= 0x40
                reply = upload.write(start, bytes(piece))
                self.assertEqual((reply.code, reply.reason), (rpc.PRECONDITION, "WRONG_STATE"))
                for number in (start, spoilt, here):
                    self.assertIn(str(number), reply.message)
        reply = upload.write(1, data[:64 * KIB])  # right bytes, one too late
        self.assertEqual((reply.code, reply.reason), (rpc.PRECONDITION, "WRONG_STATE"))
        self.assertEqual(upload.status()["next_offset"], here)

    def test_targets_that_are_none(self):
        self.serve()
        for target, field in (
                ({}, "target"),
                ({"product": {"name": b"p"}}, "product.image"),
                ({"image": {}}, "image.image"),
                ({"image": {"image": {"name": b".x"}}}, "image.image.name"),
                ({"image": {"image": {"name": b"x", "tenant": 65536}}}, "image.image.tenant"),
                ({"image": {"image": {"name": b"x"}, "sector_size": 513}}, "image.sector_size"),
                ({"artifact": {}}, "artifact.sha256"),
                ({"artifact": {"sha256": b"s" * 31}}, "artifact.sha256"),
                ({"artifact": {"sha256": b"s" * 32, "name": b"n" * 65}}, "artifact.name"),
                ({"artifact": {"sha256": b"s" * 32, "name": b"\xff"}}, "artifact.name"),
                ({"artifact": {"sha256": b"s" * 32, "tenant": 70000}}, "artifact.tenant")):
            reply = self.refused(rpc.INVALID, self.c, "Uploads", "Start",
                                 {"size": 1 << 20, **target})
            self.assertEqual(reply.violations(), [field], target)
        for size in (0, 33 * 512 - 1, 1 << 63, (1 << 64) - 1):
            reply = self.refused(rpc.INVALID, self.c, "Uploads", "Start", {
                "size": size, "image": {"image": {"name": b"new"}}})
            self.assertEqual(reply.violations(), ["size"])
        reply = self.refused(rpc.EXISTS, self.c, "Uploads", "Start", {
            "size": MIB, "image": {"image": {"name": b"a"}}})
        self.assertEqual(reply.reason, "ALREADY_EXISTS")

    def test_an_empty_artifact(self):
        self.serve()
        upload = Upload.artifact(self.c, b"")
        upload.finish()
        self.landed("artifact", upload)

    def test_no_room(self):
        self.serve()
        for kind in ("image", "artifact"):
            reply = self.c.ask("Uploads", "Start", {
                "size": 1 << 44, **({"image": {"image": {"name": b"new"}}} if kind == "image"
                                    else {"artifact": {"sha256": b"s" * 32}})})
            self.assertEqual(reply.code, rpc.EXHAUSTED, reply)
        self.assertEqual(self.stray(), [])


class Racing(Case):
    def test_finish_abort_and_write_at_once(self):
        self.serve()
        before = self.free_blocks()
        for n in range(12):
            kind = KINDS[n % 3]
            data = self.source(kind, 512 * KIB)
            upload = self.begin(kind, data)
            upload.send()
            codes = {}

            def work(which, upload=upload, codes=codes, data=data):
                with self.d.connect() as c:
                    fields = {"upload_id": upload.id}
                    if which == "Finish":
                        fields["crc32c"] = crc32c(data)
                    if which == "Write":
                        fields.update(offset=0, data=data[:64 * KIB],
                                      crc32c=crc32c(data[:64 * KIB]))
                    codes[which] = c.ask("Uploads", which, fields).code

            words = ("Finish", "Abort", "Write", "Status")
            harness.threads(4, lambda n: work(words[n]))
            done = [w for w in ("Finish", "Abort") if codes[w] == rpc.OK]
            self.assertEqual(len(done), 1, codes)
            for word in words:
                self.assertIn(codes[word], (rpc.OK, rpc.NOT_FOUND, rpc.PRECONDITION), codes)
            if done == ["Finish"]:
                self.landed(kind, upload)
                if kind == "product":
                    self.c.call("DataProducts", "Delete", image="a", name=b"p")
                elif kind == "image":
                    self.c.call("Images", "Delete", image="new")
            self.assertTrue(upload.is_gone())
        self.assertEqual((self.free_blocks(), self.stray()), (before, []))

    def test_uploads_while_images_come_and_go(self):
        self.serve()

        def work(n):
            with self.d.connect() as c:
                for k in range(6):
                    name = f"i{n}"
                    c.create(name, blocks=512, sector_size=4096)
                    upload = Upload.product(c, noise(200 * KIB, k), image=name)
                    upload.send(0, 128 * KIB)
                    if k % 2:
                        c.call("Images", "Delete", image=name)
                        self.assertTrue(upload.is_gone())
                    else:
                        upload.resume()
                        upload.finish()
                        self.assertEqual(c.product(name, b"p"), upload.data)
                        c.call("Images", "Delete", image=name)

        harness.threads(4, work)
        self.d.stop()
        self.assertEqual(self.rows(), 0)


class Failing(Case):
    def setUp(self):
        super().setUp()
        self.faults = Faults(self.dir)
        self.serve("upload_sync_bytes=128 KiB", env=self.faults.environment())
        self.addCleanup(self.faults.release_all)

    def die_at(self, operation, path, upload, at):
        """Kills the daemon while it is in that call, which a chunk leads to."""
        hold = self.faults.hold(operation, path)
        piece = upload.data[at:at + 64 * KIB]
        self.c.start("Uploads", "Write", {"upload_id": upload.id, "offset": at, "data": piece,
                                          "crc32c": crc32c(piece)})
        hold.wait()
        self.d.kill9()
        hold.release()
        self.c = upload.c = self.connect(self.d.restart())

    def where(self, kind):
        return {"product": "images/1/a.img", "image": "images/1/.upload-",
                "artifact": "artifacts/1/.upload-"}[kind]

    def test_killed_between_flush_and_row(self):
        for kind in KINDS:
            for operation, path in (("flush", self.where(kind)), ("flush", "audit.db")):
                with self.subTest(kind=kind, path=path):
                    upload = self.begin(kind, self.source(kind))
                    upload.send(0, 64 * KIB)
                    self.die_at(operation, path, upload, 64 * KIB)
                    self.assertLessEqual(upload.status()["next_offset"], 128 * KIB)
                    upload.resume()
                    upload.abort()
        self.assertEqual(self.stray(), [])

    def test_killed_while_starting(self):
        before = self.free_blocks()
        for kind in KINDS:
            data = self.source(kind)
            for operation, path in (("flush", "audit.db"), ("allocate", "images/1/.upload-"),
                                    ("flush", "images/1")):
                if kind != "image" and operation != "flush" or kind == "product" and "img" in path:
                    continue
                if kind == "product" and path != "audit.db":
                    continue
                path = path.replace("images", "artifacts") if kind == "artifact" else path
                with self.subTest(kind=kind, operation=operation, path=path):
                    request = str(uuid.uuid4())
                    hold = self.faults.hold(operation, path)
                    stranger = self.connect(self.d)
                    target = {"product": {"image": {"name": b"a"}, "name": b"p"},
                              "image": {"image": {"name": b"new"}},
                              "artifact": {"sha256": b"s" * 32}}[kind]
                    stranger.start("Uploads", "Start", {"size": len(data), kind: target,
                                                        "request_id": request})
                    hold.wait()
                    self.d.kill9()
                    hold.release()
                    self.c = self.connect(self.d.restart())
                    again = self.c.call("Uploads", "Start", size=len(data), request_id=request,
                                        **{kind: target})["upload_id"]
                    self.c.call("Uploads", "Abort", upload_id=again)
                    self.assertEqual((self.free_blocks(), self.stray()), (before, []))

    def hold_image(self):
        """Something holds the image, and a rename waits for it: gives what lets both go on."""
        slow = Upload.product(self.c, noise(MIB), name=b"slow")
        slow.send(0, 64 * KIB)
        hold = self.faults.hold("flush", "images/1/a.img")
        stranger = self.connect(self.d)
        status = stranger.start("Uploads", "Status", {"upload_id": slow.id})
        hold.wait()
        name = {"image": "a", "name": b"b", "request_id": str(uuid.uuid4())}
        rename = stranger.start("Images", "Rename", name)
        return hold, stranger, status, rename

    def test_calls_wait_while_the_image_is_closing(self):
        """What becomes of the image tells what becomes of the call; it is not refused before."""
        first, second = noise(64 * KIB), noise(MIB)
        for method in ("Write", "Write of 128 KiB", "Status", "Finish", "Abort"):
            upload = Upload.product(self.c, first if method == "Finish" else second)
            upload.send(0, 64 * KIB)
            hold, stranger, status, rename = self.hold_image()
            fields = {"upload_id": upload.id}
            if method.startswith("Write"):
                piece = second[64 * KIB:(192 if "of" in method else 128) * KIB]
                fields.update(offset=64 * KIB, data=piece, crc32c=crc32c(piece))
            elif method == "Finish":
                fields["crc32c"] = crc32c(first)
            word = method.split()[0]
            stream = self.closing(word, fields)
            hold.release()
            self.assertEqual(stranger.wait(status).code, rpc.OK)
            self.assertEqual(stranger.wait(rename).code, rpc.OK)
            reply = self.c.wait(stream)
            self.assertEqual((reply.code, reply.reason), (rpc.NOT_FOUND, "NOT_FOUND"), reply)
            self.c.call("Images", "Rename", image="b", name=b"a")
            self.assertEqual(self.c.call("Images", "Check", image="a")["findings"], [])

    def closing(self, method, fields):
        """Makes the call once the image is closing: reads of it wait then, too."""
        def waits():
            with self.d.connect() as c:
                stream = c.start("Params", "Get", {"image": "a", "id": 1})
                c.call("Server", "Ping")
                c.call("Server", "Ping")
                return stream not in c.replies
        self.until(waits, "the image's closing")
        stream = self.c.start("Uploads", method, fields)
        for _ in range(20):
            self.c.call("Server", "Ping")
        self.assertNotIn(stream, self.c.replies, self.c.replies.get(stream))
        return stream

    def test_a_failing_file_ends_its_upload(self):
        for kind in ("image", "artifact"):
            for operation in ("write", "flush"):
                with self.subTest(kind=kind, operation=operation):
                    upload = self.begin(kind, self.source(kind))
                    upload.send(0, 64 * KIB)
                    self.faults.fail(operation, self.where(kind))
                    reply = upload.write(64 * KIB, upload.data[64 * KIB:128 * KIB])
                    self.assertEqual((reply.code, reply.reason), (rpc.INTERNAL, "IO_ERROR"))
                    self.faults.clear()
                    self.assertTrue(upload.is_gone())
                    self.assertEqual(self.stray(), [])

    def test_a_failed_image_ends_its_uploads(self):
        upload = Upload.product(self.c, noise(MIB))
        other = Upload.artifact(self.c, noise(MIB))
        upload.send(0, 64 * KIB)
        self.faults.fail("flush", "images/1/a.img")
        self.refused(rpc.INTERNAL, self.c, "Params", "Put", {"image": "a", "id": 1, "value": b"x"})
        self.faults.clear()
        self.until(upload.is_gone, "the end of the upload")
        self.c.call("Images", "Reopen", image="a")
        self.assertTrue(upload.is_gone())
        other.send()
        other.finish()
        self.again()
        fresh = Upload.product(self.c, noise(MIB))
        fresh.send()
        fresh.finish()
        self.d.stop()
        self.assertEqual(self.rows(), 0)

    def test_an_audit_that_fails_refuses_starts_and_keeps_nothing(self):
        before = self.free_blocks()
        kept = Upload.artifact(self.c, noise(MIB))
        kept.send(0, 64 * KIB)
        self.faults.fail("write", "audit.db", errno.ENOSPC)
        for kind in KINDS:
            target = {"product": {"image": {"name": b"a"}, "name": b"p"},
                      "image": {"image": {"name": b"new"}},
                      "artifact": {"sha256": b"s" * 32}}[kind]
            reply = self.c.ask("Uploads", "Start", {"size": MIB, kind: target})
            self.assertIn(reply.reason, ("NO_SPACE", "AUDIT_UNAVAILABLE"), reply)
        # what runs goes on; that it cannot be kept is no failure of its own
        self.assertEqual(kept.send(64 * KIB, 512 * KIB), 512 * KIB)
        self.assertNotEqual(kept.ask("Abort").code, rpc.OK)
        self.assertNotEqual(kept.ask("Finish", crc32c=crc32c(kept.data)).code, rpc.OK)
        self.assertEqual(kept.status()["next_offset"], 512 * KIB)
        self.faults.clear()
        self.assertEqual(len(self.stray()), 1)
        self.assertEqual(self.free_blocks(), before)
        kept.resume()
        kept.finish()
        self.landed("artifact", kept)


class Full(Case):
    """The data directory lies on a small disk of its own."""

    def setUp(self):
        super().setUp()
        disk = self.dir / "disk"
        disk.mkdir()
        if os.geteuid() != 0 or subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=24m", "spb-test", disk],
                capture_output=True, check=False).returncode:
            self.skipTest("no tmpfs can be mounted")
        self.addCleanup(subprocess.run, ["umount", "-l", disk], check=False)
        self.d = harness.Daemon(disk / "d", listen=[f"unix:{self.dir}/s"])
        self.d.log_path = self.dir / "log"
        self.addCleanup(self.d.finish)
        self.c = self.connect(self.d.start())

    def test_no_room_for_the_file(self):
        self.c.create("a", blocks=64)
        for size in (64 * MIB, 21 * MIB):
            for target in ({"image": {"image": {"name": b"new"}}},
                           {"artifact": {"sha256": b"s" * 32}}):
                reply = self.c.ask("Uploads", "Start", {"size": size, **target})
                if reply.code == rpc.OK:
                    self.c.call("Uploads", "Abort", upload_id=reply.body["upload_id"])
                    continue
                self.assertEqual((reply.code, reply.reason), (rpc.EXHAUSTED, "NO_SPACE"), reply)
        self.assertEqual(self.stray(), [])
        upload = Upload.artifact(self.c, noise(2 * MIB))
        free = shutil.disk_usage(self.dir / "disk").free
        with open(self.dir / "disk" / "filler", "wb") as f:
            f.write(b"f" * (free - 64 * KIB))
        upload.send()  # its space is its own
        (self.dir / "disk" / "filler").unlink()
        upload.finish()
        self.landed("artifact", upload)

    def test_no_room_for_a_copy(self):
        free = shutil.disk_usage(self.dir / "disk").free
        self.c.create("a", blocks=int(free * 0.45) // 4096, sector_size=4096)
        self.c.put("a", 1, b"kept")
        self.c.call("Images", "Clone", image="a", to={"name": b"b"})
        free = shutil.disk_usage(self.dir / "disk").free
        for method, more in (("Clone", {"to": {"name": b"c"}}), ("Backup", {})):
            reply = self.refused(rpc.EXHAUSTED, self.c, "Images", method, {"image": "a", **more})
            self.assertEqual(reply.reason, "NO_SPACE", reply)
            self.assertEqual(self.stray(), [])
        self.assertLess(free - shutil.disk_usage(self.dir / "disk").free, MIB)
        self.c.call("Images", "Delete", image="b")
        self.c.call("Images", "Backup", image="a")
        self.assertEqual(self.c.get("a", 1), b"kept")


if __name__ == "__main__":
    harness.main()
