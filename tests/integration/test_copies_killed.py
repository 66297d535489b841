"""Copies of images and uploads of files, under a daemon that dies at each of their steps."""
import hashlib
import os
import uuid

import harness
import rpc
import test_copies
from crc import crc32c
from faults import Faults
from uploading import MIB, Upload, image_file, noise


class Killed(test_copies.Images):
    """The daemon dies inside of what cannot be done in one step."""

    def setUp(self):
        super().setUp()
        self.faults = Faults(self.dir)
        self.serve(env=self.faults.environment())
        self.addCleanup(self.faults.release_all)

    def die_in(self, operation, path, service, method, fields):
        """Gives the answer to the same call after the restart."""
        hold = self.faults.hold(operation, path)
        fields["request_id"] = str(uuid.uuid4())
        self.connect(self.d).start(service, method, dict(fields))
        hold.wait()
        self.d.kill9()
        hold.release()
        self.c = self.connect(self.d.restart())
        return self.c.ask(service, method, fields)

    def test_rename(self):
        self.c.put("a", 1, b"kept")
        names = ["a", "b"]
        for operation, path in (("flush", "audit.db"), ("flush", "images/1")):
            with self.subTest(path=path):
                old, new = names
                reply = self.die_in(operation, path, "Images", "Rename",
                                    {"image": old, "name": new.encode()})
                self.assertEqual(reply.code, rpc.OK, reply)
                self.assertEqual(self.c.get(new, 1), b"kept")
                self.assertEqual(self.names(), [new.encode()])
                names.reverse()
        self.d.stop()
        self.assertEqual(self.rows("image_rows"), 1)

    def test_clone(self):
        self.c.put("a", 1, b"kept")
        for n, (operation, path) in enumerate((
                ("flush", "audit.db"), ("allocate", "images/1/.c"), ("write", "images/1/.c"),
                ("flush", "images/1/.c"), ("flush", "images/1"))):
            with self.subTest(operation=operation, path=path):
                reply = self.die_in(operation, path, "Images", "Clone",
                                    {"image": "a", "to": {"name": b"c%d" % n}})
                self.assertEqual(reply.code, rpc.OK, reply)
                self.assertEqual(self.c.get(f"c{n}", 1), b"kept")
                self.assertEqual((self.stray(), len(self.names())), ([], n + 2))

    def test_import(self):
        for n, (operation, path) in enumerate((
                ("flush", "audit.db"), ("write", "images/1/.upload"), ("flush", "images/1/.upload"),
                ("flush", "images/1"))):
            for new_identity in (False, True):
                with self.subTest(path=path, operation=operation, new_identity=new_identity):
                    name = f"w{n}{int(new_identity)}"
                    data = image_file(self.dir / f"{name}.img")
                    upload = Upload.image(self.c, data, name, new_identity=new_identity)
                    upload.send()
                    upload.status()
                    if operation == "write" and not new_identity:
                        upload.abort()
                        continue  # nothing of the file is written then
                    reply = self.die_in(operation, path, "Uploads", "Finish",
                                        {"upload_id": upload.id, "crc32c": crc32c(data)})
                    self.assertEqual(reply.code, rpc.OK, reply)
                    self.assertEqual(self.c.get(name, 1), b"within")
                    self.assertEqual(self.stray(), [])
                    upload.c = self.c
                    self.assertTrue(upload.is_gone())

    def test_artifact(self):
        for n, (operation, path) in enumerate((
                ("flush", "audit.db"), ("flush", "artifacts/1/.upload"), ("flush", "artifacts/1"))):
            with self.subTest(path=path):
                upload = Upload.artifact(self.c, noise(MIB, n))
                upload.send()
                upload.status()
                reply = self.die_in(operation, path, "Uploads", "Finish",
                                    {"upload_id": upload.id, "crc32c": crc32c(upload.data)})
                self.assertEqual(reply.code, rpc.OK, reply)
                self.landed("artifact", upload)
                self.assertEqual(self.stray(), [])
                reply = self.die_in("flush", "artifacts/1" if n else "audit.db", "Artifacts",
                                    "Delete", {"sha256": hashlib.sha256(upload.data).digest()})
                self.assertEqual(reply.code, rpc.OK, reply)
                self.assertEqual(self.c.call("Artifacts", "List")["artifacts"], [])
                self.assertEqual(os.listdir(self.d.data_dir / "artifacts" / "1"), [])


if __name__ == "__main__":
    harness.main()
