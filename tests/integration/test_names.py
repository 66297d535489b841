"""Names that change hands: images deleted and renamed while others want what they had."""
import errno
import hashlib
import signal
import uuid

import harness
import rpc
import test_copies
from crc import crc32c
from faults import Faults
from uploading import Upload, image_file

READY = 1
PENDING = 1


class Names(test_copies.Images):
    """Two images; the disk under the daemon can be held, and fails on demand."""

    def setUp(self):
        super().setUp()
        self.faults = Faults(self.dir)
        self.addCleanup(self.faults.release_all)
        self.serve(env=self.faults.environment())
        self.c.create("b")
        for name in ("a", "b"):
            self.c.put(name, 1, name.encode())
        self.fresh()

    def fresh(self):
        """The daemon anew; no outcome waits to be written, and each commit is one flush."""
        self.d.stop()
        self.c = self.connect(self.d.restart())
        self.c.put("b", 9, b"the WAL has begun")
        self.eventually(lambda: not self.c.call("Audit", "List", outcome=PENDING)["records"],
                        "an outcome is never written")

    def rename(self, name, to, **more):
        return self.c.ask("Images", "Rename", {"image": name, "name": to.encode(), **more})

    def tied(self):
        """Each image's file has its row; the daemon ends with this."""
        there = {n.decode() for n in self.names()}
        self.d.stop()
        files = {p.stem for p in (self.d.data_dir / "images" / "1").glob("*.img")}
        self.assertEqual((there, self.rows("image_rows")), (files, len(files)))


class Made(Names):
    """A name is taken from the moment on that something of the image is made."""

    def creation(self, name="n"):
        return self.c.ask("Images", "Create", {"image": name, "total_blocks": 64})

    @staticmethod
    def finish(upload):
        return upload.ask("Finish", crc32c=crc32c(upload.data))

    def nobody_else_takes_it(self):
        upload = Upload.image(self.c, image_file(self.dir / "w.img", blocks=64, size=512), "n",
                              new_identity=True)
        upload.send()
        for reply in (self.creation(), self.rename("b", "n"), self.finish(upload),
                      self.c.ask("Images", "Clone", {"image": "b", "to": {"name": b"n"}})):
            self.assertEqual(reply.code, rpc.EXISTS, reply)
            self.assertIn("1/n exists, or is being made", reply.message)
        return upload

    def meanwhile(self, path, service, method, fields):
        """Done while the call that makes n waits for the disk."""
        hold = self.faults.hold("flush", path)
        other = self.connect(self.d)
        making = other.start(service, method, fields)
        hold.wait()
        upload = self.nobody_else_takes_it()
        hold.release()
        self.assertEqual(other.wait(making).code, rpc.OK)
        self.assertEqual(self.finish(upload).code, rpc.EXISTS)
        self.c.call("Images", "Delete", image="n")
        self.assertEqual(self.finish(upload).code, rpc.OK)
        self.tied()

    def test_created(self):
        self.meanwhile("images/1/.n.img.tmp-", "Images", "Create",
                       {"image": "n", "total_blocks": 64})

    def test_cloned(self):
        self.meanwhile("images/1/.n.img.tmp-", "Images", "Clone",
                       {"image": "b", "to": {"name": b"n"}})

    def test_free_again_where_it_failed(self):
        own = uuid.uuid4().bytes
        for number in (errno.EIO, errno.ENOSPC):
            self.faults.fail("flush", "images/1/.n.img.tmp-", number)
            for _ in range(20):
                reply = self.c.ask("Images", "Create",
                                   {"image": "n", "total_blocks": 64, "uuid": own})
                self.assertNotIn(reply.code, (rpc.OK, rpc.EXISTS), reply)
                reply = self.c.ask("Images", "Clone", {"image": "b", "to": {"name": b"n"}})
                self.assertNotIn(reply.code, (rpc.OK, rpc.EXISTS), reply)
            self.faults.clear()
        self.assertEqual(self.creation().code, rpc.OK)
        self.tied()


class Deleted(Names):
    def test_keeps_its_name_until_that_is_recorded(self):
        hold = self.faults.hold("flush", "audit.db", skip=1)
        other = self.connect(self.d)
        deletion = other.start("Images", "Delete", {"image": "a"})
        hold.wait()
        self.assertEqual(self.c.ask("Images", "Get", {"image": "a"}).code, rpc.NOT_FOUND)
        self.assertEqual(self.names(), [b"b"])
        for reply in (self.rename("b", "a"),
                      self.c.ask("Images", "Clone", {"image": "b", "to": {"name": b"a"}}),
                      self.c.ask("Images", "Create", {"image": "a", "total_blocks": 64})):
            self.assertEqual(reply.code, rpc.EXISTS, reply)
        hold.release()
        self.assertEqual(other.wait(deletion).code, rpc.OK)
        self.assertEqual(self.rename("b", "a").code, rpc.OK)
        self.assertEqual(self.c.get("a", 1), b"b")
        self.tied()

    def test_row_that_stayed_gives_way(self):
        self.faults.strike("flush", "audit.db", errno.EIO, 1)
        self.c.call("Images", "Delete", image="a")
        self.assertIn("image-not-forgotten", self.d.log())
        self.faults.clear()
        self.assertEqual(self.rename("b", "a").code, rpc.OK)
        self.c.put("a", 2, b"goes on")
        self.d.kill9()
        self.c = self.connect(self.d.restart())
        self.assertEqual((self.c.get("a", 1), self.c.get("a", 2)), (b"b", b"goes on"))
        self.tied()


    def test_row_that_stayed_is_not_the_next_ones(self):
        """Where the next one of that name is made, and death comes before it has a row."""
        copied = {"image": "b", "to": {"name": b"a"}}
        for method, fields in (("Create", {"image": "a", "total_blocks": 64}), ("Clone", copied),
                               ("Rename", {"image": "b", "name": b"a"})):
            with self.subTest(method=method):
                self.fresh()
                self.faults.strike("flush", "audit.db", errno.EIO, 1)
                self.c.call("Images", "Delete", image="a")
                self.assertIn("image-not-forgotten", self.d.log())
                fields["request_id"] = str(uuid.uuid4())
                self.faults.kill("flush", "images/1$")
                with self.assertRaises(rpc.Closed):
                    self.c.ask("Images", method, fields)
                self.d.wait(-signal.SIGKILL)
                self.faults.clear()
                self.c = self.connect(self.d.restart())
                self.assertEqual(self.c.ask("Images", method, fields).code, rpc.OK)
                self.assertEqual(self.image("a")["state"], READY, self.image("a"))
        self.tied()

    def test_row_that_cannot_go_leaves_its_name_taken(self):
        self.faults.fail("flush", "audit.db", skip=1)
        self.c.call("Images", "Delete", image="a")
        for method, fields in (("Create", {"image": "a", "total_blocks": 64}),
                               ("Clone", {"image": "b", "to": {"name": b"a"}}),
                               ("Rename", {"image": "b", "name": b"a"})):
            reply = self.c.ask("Images", method, fields)
            self.assertNotIn(reply.code, (rpc.OK, rpc.EXISTS), reply)
            self.assertIn("in audit.db", reply.message)
            self.assertNotIn(str(self.dir), reply.message, "it tells where things lie on the host")
            self.assertFalse(self.d.image_path(1, "a").exists())
        self.faults.clear()
        self.c.create("a")
        self.tied()


class Renamed(Names):
    def test_old_name_is_taken_until_that_is_recorded(self):
        hold = self.faults.hold("flush", "images/1/c.img")
        other = self.connect(self.d)
        renaming = other.start("Images", "Rename", {"image": "a", "name": b"c"})
        hold.wait()
        reply = self.c.ask("Images", "Clone", {"image": "b", "to": {"name": b"a"}})
        self.assertEqual(reply.code, rpc.EXISTS, reply)
        hold.release()
        self.assertEqual(other.wait(renaming).code, rpc.OK)
        self.c.create("a")
        self.tied()

    def test_keeps_its_uuid(self):
        """Nobody takes it while the image changes hands."""
        own = self.image("a")["uuid"]
        hold = self.faults.hold("flush", "images/1/c.img")
        other, third = self.connect(self.d), self.connect(self.d)
        renaming = other.start("Images", "Rename", {"image": "a", "name": b"c"})
        hold.wait()
        reply = third.ask("Images", "Clone", {"image": "b", "to": {"name": b"n"}, "uuid": own})
        self.assertEqual(reply.code, rpc.EXISTS, reply)
        hold.release()
        reply = other.wait(renaming)
        self.assertEqual(reply.body["image"]["state"], READY, reply.body)
        self.assertEqual(self.image("c")["uuid"], own)
        self.tied()

    def test_settled_beside_another_image_of_the_old_name(self):
        request = str(uuid.uuid4())
        hold = self.faults.hold("flush", "images/1/c.img")
        self.connect(self.d).start("Images", "Rename", {"image": "a", "name": b"c",
                                                        "request_id": request})
        hold.wait()
        self.d.kill9()
        hold.release()
        image_file(self.d.image_path(1, "a"), value=b"by hand")
        self.c = self.connect(self.d.restart())
        self.assertEqual(self.rename("a", "c", request_id=request).code, rpc.OK)
        self.assertEqual((self.c.get("a", 1), self.c.get("c", 1)), (b"by hand", b"a"))
        self.tied()

    def test_nothing_is_done_where_the_row_cannot_be_written(self):
        for number in (errno.EIO, errno.ENOSPC):
            self.faults.strike("flush", "audit.db", number, 1)
            reply = self.rename("a", "c")
            self.assertNotIn(reply.code, (rpc.OK, rpc.EXISTS), reply)
            self.faults.clear()
            self.assertEqual(self.names(), [b"a", b"b"])
            self.c.put("a", 2, b"goes on")
        self.assertEqual(self.rename("b", "c").code, rpc.OK)
        self.tied()

    def test_row_that_a_failed_commit_left_is_taken_back(self):
        """The daemon dies before it can write over that commit, which has the new name."""
        request, cursor = str(uuid.uuid4()), self.c.events("a")["cursor"]
        self.faults.rules(f"flush audit.db {errno.EIO} 1 1", "flush images/1/a.img kill 0")
        self.connect(self.d).start("Images", "Rename", {"image": "a", "name": b"c",
                                                        "request_id": request})
        self.d.wait(-signal.SIGKILL)
        self.faults.clear()
        self.c = self.connect(self.d.restart())
        self.assertEqual((self.names(), self.c.get("a", 1)), ([b"a", b"b"], b"a"))
        self.assertFalse(self.c.events("a", cursor=cursor)["reset"], "its row was dropped")
        self.assertEqual(self.rename("a", "c", request_id=request).code, rpc.OK)
        self.assertFalse(self.c.events("c", cursor=cursor)["reset"])
        self.tied()


class InDoubt(Names):
    """The folder's flush fails: what was done is there, and may be gone after a power loss. It is
    done before anything else of its kind is, and is never done twice."""

    DONE = 2

    def fails(self, service, method, fields, folder="images/1$", nth=0):
        fields["request_id"] = str(uuid.uuid4())
        self.faults.strike("flush", folder, errno.EIO, nth)
        reply = self.c.ask(service, method, fields)
        self.assertEqual(reply.reason, "IO_ERROR", reply)
        self.faults.clear()

    def outcomes(self, fields):
        request = uuid.UUID(fields["request_id"]).bytes
        return [r["outcome"] for r in self.c.call("Audit", "List")["records"]
                if r["request_id"] == request]

    def was_done_once(self, service, method, fields):
        """However often it is repeated, and over a death."""
        reply = self.c.ask(service, method, fields)
        self.assertEqual(reply.code, rpc.OK, reply)
        self.assertEqual(self.outcomes(fields), [self.DONE])
        self.d.kill9()
        self.c = self.connect(self.d.restart())
        again = self.c.ask(service, method, fields)
        self.assertEqual((again.code, again.payload), (rpc.OK, reply.payload))
        self.assertEqual(self.outcomes(fields), [self.DONE])

    def upload(self, name, **more):
        upload = Upload.image(self.c, self.data, name, **more)
        upload.send()
        upload.status()
        return {"upload_id": upload.id, "crc32c": crc32c(self.data)}

    def setUp(self):
        super().setUp()
        self.data = image_file(self.dir / "w.img", blocks=64, size=512)

    def test_deleted_then_imported_anew(self):
        self.c.call("Uploads", "Finish", **self.upload("w"))
        deletion = {"image": "w"}
        self.fails("Images", "Delete", deletion)
        self.c.call("Uploads", "Finish", **self.upload("w"))
        self.c.put("w", 7, b"acknowledged")
        self.was_done_once("Images", "Delete", deletion)
        self.assertEqual(self.c.get("w", 7), b"acknowledged")
        self.tied()

    def test_renamed_and_back(self):
        renaming = {"image": "a", "name": b"n"}
        self.fails("Images", "Rename", renaming)
        self.assertEqual(self.rename("n", "a").code, rpc.OK)
        self.was_done_once("Images", "Rename", renaming)
        self.assertEqual(self.names(), [b"a", b"b"])
        self.tied()

    def test_renamed_and_another_of_its_name(self):
        renaming = {"image": "a", "name": b"n"}
        self.fails("Images", "Rename", renaming)
        self.c.call("Images", "Delete", image="n")
        self.c.create("a")
        self.c.put("a", 1, b"somebody else's")
        self.was_done_once("Images", "Rename", renaming)
        self.assertEqual(self.c.get("a", 1), b"somebody else's")
        self.tied()

    def test_imported_and_deleted(self):
        finish = self.upload("w")
        self.fails("Uploads", "Finish", finish)
        self.c.put("w", 7, b"acknowledged")
        self.c.call("Images", "Delete", image="w")
        self.was_done_once("Uploads", "Finish", finish)
        self.assertEqual(self.names(), [b"a", b"b"])
        self.tied()

    def test_cloned_and_deleted(self):
        cloning = {"image": "a", "to": {"name": b"n"}}
        self.fails("Images", "Clone", cloning, nth=1)  # after that of a temporary file
        self.c.call("Images", "Delete", image="n")
        self.was_done_once("Images", "Clone", cloning)
        self.assertEqual(self.names(), [b"a", b"b"])
        self.tied()

    def test_created_is_served(self):
        """It has its name and its uuid."""
        creation = {"image": "n", "total_blocks": 64, "uuid": uuid.uuid4().bytes}
        self.fails("Images", "Create", creation)
        self.assertEqual(self.image("n")["state"], READY)
        reply = self.c.ask("Images", "Create", {"image": "m", "total_blocks": 64,
                                                "uuid": creation["uuid"]})
        self.assertEqual(reply.code, rpc.EXISTS, reply)
        self.c.put("n", 1, b"acknowledged")
        self.was_done_once("Images", "Create", creation)
        self.assertEqual(self.c.get("n", 1), b"acknowledged")
        self.tied()

    def test_nothing_comes_before_it_is_settled(self):
        deletion = {"image": "a"}
        self.fails("Images", "Delete", deletion)
        self.faults.fail("flush", "images/1$")
        for method, fields in (("Create", {"image": "a", "total_blocks": 64}),
                               ("Clone", {"image": "b", "to": {"name": b"a"}}),
                               ("Rename", {"image": "b", "name": b"a"}),
                               ("Delete", {"image": "b"})):
            reply = self.c.ask("Images", method, fields)
            self.assertEqual(reply.reason, "IO_ERROR", reply)
            self.assertIn("an earlier Images.Delete of tenant 1", reply.message)
        self.assertEqual(self.c.ask("Images", "Delete", deletion).reason, "OUTCOME_UNKNOWN")
        self.c.put("b", 3, b"changes are no acts")
        self.c.call("Images", "Create", image={"name": b"a", "tenant": 2}, total_blocks=64)
        self.faults.clear()
        self.assertEqual(self.rename("b", "a").code, rpc.OK)
        self.was_done_once("Images", "Delete", deletion)

    def test_settled_at_the_end(self):
        deletion = {"image": "a"}
        self.fails("Images", "Delete", deletion)
        self.d.stop()
        self.assertIn("event=doubt-settled", self.d.log())
        self.c = self.connect(self.d.restart())
        self.assertEqual(self.outcomes(deletion), [self.DONE])
        self.assertEqual(self.d.log().count("event=changes-settled"), 0)

    def store(self, data):
        upload = Upload.artifact(self.c, data)
        upload.send()
        upload.finish()

    def test_artifact_deleted_then_stored_anew(self):
        data = b"kernel" * 10000
        digest = hashlib.sha256(data).digest()
        self.store(data)
        deletion = {"sha256": digest}
        self.fails("Artifacts", "Delete", deletion, "artifacts/1$")
        self.store(data)
        self.was_done_once("Artifacts", "Delete", deletion)
        self.assertEqual([a["sha256"] for a in self.c.call("Artifacts", "List")["artifacts"]],
                         [digest])

    def test_artifact_whose_row_has_no_room(self):
        """It is there once there is room: the call is not told that nothing was done."""
        data = b"kernel" * 10000
        upload = Upload.artifact(self.c, data)
        upload.send()
        upload.status()
        finish = {"upload_id": upload.id, "crc32c": crc32c(data)}
        self.fresh()
        told = []
        for nth in range(12):
            finish["request_id"] = str(uuid.uuid4())
            self.faults.strike("write", "audit.db", errno.ENOSPC, nth)
            reply = self.c.ask("Uploads", "Finish", finish)
            self.faults.clear()
            told.append(reply.reason)
            if reply.reason == "IO_ERROR":
                self.was_done_once("Uploads", "Finish", finish)
                self.assertEqual(len(self.c.call("Artifacts", "List")["artifacts"]), 1)
                break
            self.assertEqual((reply.reason, self.outcomes(finish)[1:]), ("NO_SPACE", []), nth)
        self.assertIn("IO_ERROR", told, "no row of it was struck")


class Sized(Names):
    """An image whose file's size does not tell its blocks' size: only the daemon knows it."""

    def setUp(self):
        super().setUp()
        self.data = image_file(self.dir / "w.img", blocks=64, size=512) + bytes(512)

    def die_in(self, path, service, method, fields):
        hold = self.faults.hold("flush", path)
        fields["request_id"] = str(uuid.uuid4())
        self.connect(self.d).start(service, method, dict(fields))
        hold.wait()
        self.d.kill9()
        hold.release()
        self.c = self.connect(self.d.restart())
        reply = self.c.ask(service, method, fields)
        self.assertEqual(reply.code, rpc.OK, reply)

    def take_in(self, name):
        upload = Upload.image(self.c, self.data, name, sector_size=512, new_identity=True)
        upload.send()
        upload.status()
        return {"upload_id": upload.id, "crc32c": crc32c(self.data)}

    def test_imported_over_a_crash(self):
        for name, path in (("w", "images/1"), ("x", "images/1/x.img")):
            with self.subTest(path=path):
                fields = self.take_in(name)
                self.fresh()
                self.die_in(path, "Uploads", "Finish", fields)
                self.assertEqual(self.image(name)["state"], READY, self.image(name))
                self.assertEqual(self.c.get(name, 1), b"within")
        self.tied()

    def test_renamed_over_a_crash(self):
        self.c.call("Uploads", "Finish", **self.take_in("w"))
        self.fresh()
        self.die_in("images/1/x.img", "Images", "Rename", {"image": "w", "name": b"x"})
        self.assertEqual(self.image("x")["state"], READY, self.image("x"))
        self.assertEqual(self.c.get("x", 1), b"within")
        self.tied()

    def test_cloned_over_a_crash(self):
        self.c.call("Uploads", "Finish", **self.take_in("w"))
        self.fresh()
        self.die_in("images/1/x.img", "Images", "Clone", {"image": "w", "to": {"name": b"x"}})
        self.assertEqual(self.image("x")["state"], READY, self.image("x"))
        self.assertEqual(self.c.get("x", 1), b"within")
        self.tied()


class Uploaded(Names):
    """Rows of uploads that could not be removed: what ended stays so."""

    def begin(self, data, image, **more):
        upload = Upload.product(self.c, data, image, **more)
        upload.send()
        upload.status()
        self.anew(upload)
        upload.resume()
        return upload

    def anew(self, upload, kill=False):
        if kill:
            self.d.kill9()
            self.c = self.connect(self.d.restart())
        else:
            self.fresh()
        upload.c = self.c

    def row_stays(self, act, *args, **fields):
        """The second commit fails: the one that removes the row."""
        before = self.d.log().count("upload-row-left")
        self.faults.strike("flush", "audit.db", errno.EIO, 1)
        act(*args, **fields)
        self.eventually(lambda: self.d.log().count("upload-row-left") > before,
                        "the row was removed")
        self.faults.clear()

    def ended(self, upload):
        for method in ("Status", "Finish", "Abort"):
            reply = upload.ask(method, **({"crc32c": crc32c(upload.data)} if method == "Finish"
                                          else {}))
            self.assertEqual(reply.code, rpc.NOT_FOUND, (method, reply))

    def gone(self, upload, image="v"):
        """It ended, with what it held."""
        self.ended(upload)
        self.assertEqual(self.c.call("DataProducts", "List", image=image)["products"], [])

    def test_image_of_a_name_given_anew(self):
        data = b"of another image"
        for method, fields in (("Delete", {}), ("Rename", {"name": b"t"})):
            for kill in (True, False):
                with self.subTest(method=method, kill=kill):
                    self.c.create("v", blocks=200)
                    free = self.c.call("Images", "Inspect", image="v")["free_blocks"]
                    upload = self.begin(data, "v")
                    self.row_stays(self.c.call, "Images", method, image="v", **fields)
                    self.ended(upload)
                    self.c.create("v", blocks=200)
                    self.anew(upload, kill)
                    self.gone(upload)
                    self.assertEqual(
                        self.c.call("Images", "Inspect", image="v")["free_blocks"], free)
                    self.c.call("Images", "Delete", image="v")
                    if method == "Rename":
                        self.c.call("Images", "Delete", image="t")
        self.d.stop()
        self.assertEqual(self.rows(), 0)

    def test_removed_once_it_can_be(self):
        """At an orderly end, or with the row of another one."""
        for kill in (False, True):
            self.c.create("v", blocks=200)
            self.begin(b"x", "v")
            self.row_stays(self.c.call, "Images", "Delete", image="v")
            if kill:
                Upload.artifact(self.c, b"another").abort()
                self.d.kill9()
            else:
                self.d.stop()
            self.assertEqual(self.rows(), 0)
            self.c = self.connect(self.d.restart())

    def test_goes_on_in_its_image(self):
        """The image of that name is the same, over a crash too."""
        for kill in (True, False):
            upload = self.begin(b"of this image", "b", name=b"q%d" % kill)
            self.anew(upload, kill)
            upload.resume()
            upload.finish()
            self.assertEqual(self.c.product("b", b"q%d" % kill), b"of this image")

    def test_finished_and_its_product_deleted(self):
        for data in (b"", b"published"):
            for kill in (True, False):
                with self.subTest(size=len(data), kill=kill):
                    upload = self.begin(data, "b")
                    self.row_stays(upload.finish)
                    self.c.call("DataProducts", "Delete", image="b", name=b"p")
                    self.anew(upload, kill)
                    self.gone(upload, "b")

    def test_finish_that_was_killed(self):
        """At each write to the audit: it was done and is at its end, or can be done."""
        ended = 0
        for nth in range(10):
            for data in (b"", b"x"):
                with self.subTest(nth=nth, size=len(data)):
                    ended += self.killed_finish(nth, data)
        self.assertGreater(ended, 3)

    def killed_finish(self, nth, data):
        upload = self.begin(data, "b", replace=True)
        self.faults.kill("write", "audit.db", nth)
        try:
            upload.ask("Finish", crc32c=crc32c(data))
        except rpc.Closed:
            pass
        self.faults.clear()
        self.anew(upload, kill=True)
        names = [p["name"] for p in self.c.call("DataProducts", "List", image="b")["products"]]
        if names:
            self.gone_but_product(upload)
        else:
            upload.resume()
            upload.finish()
        self.assertEqual(self.c.product("b", b"p"), data)
        self.c.call("DataProducts", "Delete", image="b", name=b"p")
        return bool(names)

    def gone_but_product(self, upload):
        self.c.upload("b", b"p", b"newer", replace=True)
        self.ended(upload)
        self.assertEqual(self.c.product("b", b"p"), b"newer")
        self.c.upload("b", b"p", upload.data, replace=True)

    def test_failed_finish_leaves_it_open(self):
        """One that was never published goes on after a crash, whatever was tried."""
        upload = self.begin(b"", "b")
        self.c.upload("b", b"p", b"in the way")
        self.assertEqual(upload.ask("Finish", crc32c=0).code, rpc.EXISTS)
        self.anew(upload, kill=True)
        self.c.call("DataProducts", "Delete", image="b", name=b"p")
        upload.finish()
        self.assertEqual(self.c.product("b", b"p"), b"")


class Unserved(Names):
    def test_the_reason_names_no_path(self):
        """Where an image lies on the host is none of its clients'."""
        self.d.stop()
        content = self.d.image_path(1, "b").read_bytes()
        for damage in (content[:40 * 512], b"X" + content[1:], content[:9] + b"\7" + content[10:],
                       content + bytes(512)):
            with self.subTest(size=len(damage), begins=damage[:12]):
                self.d.image_path(1, "b").write_bytes(damage)
                self.c = self.connect(self.d.restart())
                image = self.image("b")
                if image["state"] == READY:
                    self.assertEqual(len(damage), len(content) + 512)  # the registry knows S
                else:
                    self.assertIn(b"1/b", image["reason"])
                reply = self.c.ask("Params", "Get", {"image": "b", "id": 1})
                self.assertNotIn(str(self.dir), image["reason"].decode() + reply.message)
                self.d.stop()


if __name__ == "__main__":
    harness.main()
