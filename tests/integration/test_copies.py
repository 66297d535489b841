"""Whole images in and out: import, export while writers go on, clone, rename, artifacts."""
import hashlib
import json
import os
import sqlite3
import struct
import subprocess
import threading
import uuid

import harness
import rpc
from crc import crc32c
from faults import Faults
from uploading import KIB, MIB, Case, Upload, image_file, noise

READY = 1


class Images(Case):
    def cli(self, *words, **how):
        return harness.run_cli(*words, "--endpoint", self.d.unix, **how)

    def image(self, name):
        return self.c.call("Images", "Get", image=name)["image"]

    def names(self):
        return [i["name"] for i in self.c.call("Images", "List")["images"]]

    def clean(self, path, **more):
        """The file is a sound image, as the library and the independent reader see it."""
        self.assertEqual(harness.run_cli("check", "--file", path, "--json").json["findings"], [])
        return harness.dump(path)


def uuid_of(content):
    return content[28:44]


class Import(Images):
    def test_served_as_it_was(self):
        self.serve()
        for n, (blocks, size) in enumerate(((64, 512), (300, 4096), (40, 65536))):
            path = self.dir / f"w{n}.img"
            content = image_file(path, blocks, size, value=b"v%d" % n)
            made = self.cli("image", "import", path, "--json").json
            self.assertEqual((made["name"], made["total_blocks"], made["sector_size"],
                              made["uuid"], made["state"]),
                             (f"w{n}", blocks, size, uuid_of(content).hex(), "ready"))
            self.assertEqual(self.c.get(f"w{n}", 1), b"v%d" % n)
            self.assertEqual(self.c.product(f"w{n}", b"p"), b"v%d" % n * 1000)
            self.c.put(f"w{n}", 2, b"and goes on")
        self.again(kill=True)
        for n in range(3):
            self.assertEqual(self.c.get(f"w{n}", 2), b"and goes on")
        self.assertEqual(self.stray(), [])

    def test_what_is_no_image_is_refused(self):
        self.serve()
        good = image_file(self.dir / "good.img", 64, 512)
        bad = {"noise": noise(64 * 512), "zeros": bytes(64 * 512), "cut": good[:40 * 512],
               "magic": b"X" + good[1:], "crc": good[:9] + b"\x07" + good[10:],
               "version": good[:4] + b"\x02" + good[5:]}
        for name, content in bad.items():
            with self.subTest(name=name):
                upload = Upload.image(self.c, content)
                upload.send()
                reply = upload.ask("Finish", crc32c=crc32c(content))
                self.assertEqual((reply.code, reply.reason), (rpc.DATA_LOSS, "IMAGE_DAMAGED"),
                                 reply)
                self.assertNotIn(str(self.d.data_dir), reply.message)
                upload.abort()
                path = self.file(f"{name}.img", content)
                done = self.cli("image", "import", path, code=harness.CORRUPT)
                self.assertIn(str(path), done.err)
        self.assertEqual(self.names(), [b"a"])
        self.assertEqual(self.stray(), [])

    def test_tenants_and_uuids(self):
        self.serve()
        path = self.dir / "w.img"
        content = image_file(path, 64, 512, tenant=7)
        self.assertIn("tenant 7", self.cli("image", "import", path, code=harness.FAILED).err)
        self.cli("image", "import", path, "7/w")
        self.assertIn("uuid", self.cli("image", "import", path, "7/again", code=harness.FAILED).err)
        made = self.cli("image", "import", path, "own", "--new-identity", "--json").json
        self.assertEqual(made["tenant"], 1)
        self.assertNotEqual(made["uuid"], uuid_of(content).hex())
        for name in ("7/w", "own"):
            self.assertEqual(self.c.get(name, 1), b"within")
            self.assertEqual(self.c.product(name, b"p"), b"within" * 1000)
            self.assertEqual(self.c.call("Images", "Check", image=name)["findings"], [])
        self.c.call("Images", "Delete", image="7/w")
        self.cli("image", "import", path, "7/w")
        again = self.again(kill=True)
        self.assertEqual(again.call("Images", "Get", image="own")["image"]["uuid"].hex(),
                         made["uuid"])
        self.assertEqual(self.stray(), [])

    def test_a_name_that_is_taken(self):
        self.serve()
        path = self.dir / "a.img"
        image_file(path)
        self.assertIn("exists", self.cli("image", "import", path, code=harness.FAILED).err)
        upload = Upload.image(self.c, path.read_bytes(), image="later")
        upload.send()
        self.c.create("later")
        reply = upload.ask("Finish", crc32c=crc32c(upload.data))
        self.assertEqual((reply.code, reply.reason), (rpc.EXISTS, "ALREADY_EXISTS"))
        self.c.call("Images", "Delete", image="later")
        upload.finish()  # its bytes are as they were
        self.assertEqual(self.c.get("later", 1), b"within")

    def test_a_name_that_is_taken_with_a_new_identity(self):
        self.serve()
        upload = Upload.image(self.c, image_file(self.dir / "w.img"), image="w",
                              new_identity=True)
        upload.send()
        # the registry does not know of it
        self.d.image_path(1, "w").write_bytes(b"in the way")
        self.assertEqual(upload.ask("Finish", crc32c=crc32c(upload.data)).code, rpc.EXISTS)
        self.d.image_path(1, "w").unlink()
        upload.c = self.again(kill=True)
        upload.resume()
        upload.finish()
        self.assertEqual(self.c.get("w", 1), b"within")

    def test_two_imports_to_one_name(self):
        self.serve()
        uploads = [Upload.image(self.c, image_file(self.dir / f"{n}.img", value=b"%d" % n), "w")
                   for n in range(4)]
        for one in uploads:
            one.send()
        codes = {}

        def finish(n):
            with self.d.connect() as c:
                codes[n] = c.ask("Uploads", "Finish", {
                    "upload_id": uploads[n].id, "crc32c": crc32c(uploads[n].data)}).code

        harness.threads(4, finish)
        self.assertEqual(sorted(codes.values()), [rpc.OK] + [rpc.EXISTS] * 3)
        won = next(n for n in codes if codes[n] == rpc.OK)
        self.assertEqual(self.c.get("w", 1), b"%d" % won)
        for n, one in enumerate(uploads):
            self.assertEqual(one.is_gone(), n == won) if n == won else one.abort()
        self.assertEqual(self.stray(), [])

    def test_two_imports_of_one_uuid(self):
        self.serve()
        data = image_file(self.dir / "w.img")
        uploads = [Upload.image(self.c, data, f"w{n}") for n in range(4)]
        for one in uploads:
            one.send()
        codes = []

        def finish(n):
            with self.d.connect() as c:
                codes.append(c.ask("Uploads", "Finish", {"upload_id": uploads[n].id,
                                                         "crc32c": crc32c(data)}).code)

        harness.threads(4, finish)
        self.assertEqual(sorted(codes), [rpc.OK] + [rpc.EXISTS] * 3)

    def test_an_unusual_size_needs_its_sector_size(self):
        self.serve()
        path = self.dir / "w.img"
        content = image_file(path, 64, 512)
        path.write_bytes(content + b"and more")
        self.cli("image", "import", path, code=harness.CORRUPT)
        made = self.cli("image", "import", path, "--sector-size", 512, "--json").json
        self.assertEqual((made["state"], made["sector_size"]), ("ready", 512))
        self.c.put("w", 2, b"written")
        self.again(kill=True)
        self.assertEqual(self.image("w")["state"], READY)
        self.assertEqual(self.c.get("w", 2), b"written")


class Rename(Images):
    def test_the_image_goes_on_under_its_new_name(self):
        self.serve()
        self.c.put("a", 1, b"kept")
        self.c.append("a", b"event")
        self.c.upload("a", b"p", noise(100 * KIB))
        before = self.image("a")
        cursor = self.c.events("a")["cursor"]
        upload = Upload.product(self.c, noise(MIB), name=b"q")
        shown = self.cli("image", "rename", "a", "b", "--json").json
        self.assertEqual((shown["name"], shown["uuid"]), ("b", before["uuid"].hex()))
        self.assertTrue(upload.is_gone())
        self.refused(rpc.NOT_FOUND, self.c, "Images", "Get", {"image": "a"})
        for _ in range(2):
            self.assertEqual(self.c.get("b", 1), b"kept")
            self.assertEqual(self.c.product("b", b"p"), noise(100 * KIB))
            self.assertEqual(self.names(), [b"b"])
            self.c.append("b", b"more")
            listed = self.c.events("b", cursor=cursor)  # counts go on
            self.assertFalse(listed["reset"])
            self.assertEqual(listed["events"][0]["payload"], b"more")
            self.again(kill=True)
        self.c.create("a")
        self.d.stop()
        self.assertEqual(self.rows(), 0)

    def test_refusals(self):
        self.serve()
        self.c.create("b")
        for image, name, code in (("a", b"b", rpc.EXISTS), ("a", b"a", rpc.EXISTS),
                                  ("a", b".x", rpc.INVALID), ("a", b"", rpc.INVALID),
                                  ("a", b"x/y", rpc.INVALID), ("a", b"n" * 65, rpc.INVALID),
                                  ("nope", b"c", rpc.NOT_FOUND)):
            self.refused(code, self.c, "Images", "Rename", {"image": image, "name": name})
        self.d.image_path(1, "c").write_bytes(b"in the way")
        self.refused(rpc.EXISTS, self.c, "Images", "Rename", {"image": "a", "name": b"c"})
        self.assertEqual(self.image("a")["state"], READY)
        self.assertEqual(self.d.image_path(1, "c").read_bytes(), b"in the way")

    def test_repeated(self):
        self.serve()
        request = {"image": "a", "name": b"b", "request_id": str(uuid.uuid4())}
        for kill in (None, True):
            if kill:
                self.again(kill=True)
            reply = self.c.ask("Images", "Rename", request)
            self.assertEqual(reply.code, rpc.OK, reply)

    def test_beside_readers_and_writers(self):
        self.serve()
        self.c.upload("a", b"p", noise(500 * KIB))
        stop, wrong = threading.Event(), []

        def work():
            with self.d.connect() as c:
                while not stop.is_set():
                    for name in ("a", "b"):
                        reply = c.ask("Params", "Put", {"image": name, "id": 1, "value": b"v"})
                        if reply.code not in (rpc.OK, rpc.NOT_FOUND):
                            wrong.append(reply)
                        try:
                            if c.product(name, b"p") != noise(500 * KIB):
                                wrong.append("other bytes")
                        except rpc.RpcError as error:
                            if error.code not in (rpc.NOT_FOUND, rpc.ABORTED):
                                wrong.append(error)

        workers = [threading.Thread(target=work) for _ in range(3)]
        for one in workers:
            one.start()
        names = ["a", "b"]
        for n in range(20):
            self.c.call("Images", "Rename", image=names[n % 2], name=names[(n + 1) % 2])
        stop.set()
        for one in workers:
            one.join()
        self.assertEqual(wrong, [])
        self.assertEqual(self.c.call("Images", "Check", image="a")["findings"], [])


class Clone(Images):
    def test_a_clone_is_its_own(self):
        self.serve()
        self.c.put("a", 1, b"before")
        self.c.append("a", b"event")
        self.c.upload("a", b"p", noise(300 * KIB))
        made = self.cli("image", "clone", "a", "b", "--json").json
        source = self.image("a")
        self.assertEqual((made["name"], made["tenant"], made["total_blocks"], made["sector_size"],
                          made["epoch"]), ("b", 1, source["total_blocks"], source["sector_size"],
                                           source["epoch"]))
        self.assertNotEqual(made["uuid"], source["uuid"].hex())
        self.c.put("a", 1, b"after")
        self.c.put("b", 2, b"only here")
        for _ in range(2):
            self.assertEqual((self.c.get("a", 1), self.c.get("b", 1)), (b"after", b"before"))
            self.assertEqual(self.c.product("b", b"p"), noise(300 * KIB))
            self.assertEqual(self.c.events("b")["events"][0]["payload"], b"event")
            self.assertEqual(self.c.call("Images", "Check", image="b")["findings"], [])
            self.again(kill=True)
        self.assertEqual(self.stray(), [])

    def test_uuid_tenant_and_refusals(self):
        self.serve()
        wanted = uuid.uuid4()
        made = self.cli("image", "clone", "a", "9/b", "--uuid", str(wanted), "--json").json
        self.assertEqual((made["tenant"], made["uuid"]), (9, wanted.hex))
        self.d.stop()
        self.assertEqual(self.clean(self.d.image_path(9, "b"))["tenant_id"], 9)
        self.c = self.connect(self.d.restart())
        to = {"name": b"c"}
        for fields, code in (
                ({"to": {"name": b"c", "tenant": 9}, "uuid": wanted.bytes}, rpc.EXISTS),
                ({"to": {"name": b"a"}}, rpc.EXISTS), ({"to": {"name": b".c"}}, rpc.INVALID),
                ({}, rpc.INVALID), ({"to": to, "uuid": b"x" * 15}, rpc.INVALID),
                ({"to": {"name": b"c", "tenant": 65536}}, rpc.INVALID),
                ({"to": to, "image": "nope"}, rpc.NOT_FOUND)):
            with self.subTest(fields=fields):
                self.refused(code, self.c, "Images", "Clone", {"image": "a", **fields})
        self.assertEqual(self.stray(), [])

    def test_goes_on_beyond_the_deadline(self):
        self.serve()
        self.c.create("big", blocks=65536, sector_size=4096)
        self.c.put("big", 1, b"big")
        request = {"image": "big", "to": {"name": b"copy"}, "request_id": str(uuid.uuid4())}
        # the deadline passes while it is copied; the answer is had by asking again
        first = self.c.ask("Images", "Clone", request, timeout_ns=300_000_000)
        again = self.c.ask("Images", "Clone", request)
        self.assertEqual(again.code, rpc.OK, (first, again))
        self.assertEqual(self.c.get("copy", 1), b"big")

    def test_repeated(self):
        self.serve()
        request = {"image": "a", "to": {"name": b"b"}, "request_id": str(uuid.uuid4())}
        first = self.c.ask("Images", "Clone", request)
        self.assertEqual(first.code, rpc.OK, first)
        self.again(kill=True)
        self.assertEqual(self.c.ask("Images", "Clone", request).payload, first.payload)

    def test_no_room(self):
        self.serve("temporary_max_bytes=1 MiB")
        reply = self.refused(rpc.EXHAUSTED, self.c, "Images", "Clone",
                             {"image": "a", "to": {"name": b"b"}})
        self.assertIn("temporary_max_bytes", reply.message)
        self.refused(rpc.EXHAUSTED, self.c, "Images", "Backup", {"image": "a"})
        self.assertEqual((self.stray(), self.names()), ([], [b"a"]))

    def test_deleting_the_source_meanwhile(self):
        self.serve()
        for n in range(4):
            self.c.create(f"s{n}", blocks=8192, sector_size=4096)
            with self.d.connect() as other:
                stream = other.start("Images", "Clone", {"image": rpc.image_ref(f"s{n}"),
                                                         "to": {"name": b"t%d" % n}})
                self.c.call("Images", "Delete", image=f"s{n}")
                reply = other.wait(stream)
            self.assertIn(reply.code, (rpc.OK, rpc.PRECONDITION, rpc.NOT_FOUND), reply)
            self.assertEqual(b"t%d" % n in self.names(), reply.code == rpc.OK)
        self.assertEqual(self.stray(), [])


class Writer(threading.Thread):
    """Puts batches of one value, and products whose name says what they hold."""

    def __init__(self, daemon, image, n):
        super().__init__()
        self.d, self.image, self.n, self.stop, self.failure = daemon, image, n, False, None
        self.done = 0

    def run(self):
        try:
            with self.d.connect() as c:
                while not self.stop:
                    self.step(c)
        except BaseException as error:
            self.failure = error

    def step(self, c):
        k = self.done
        first = 100 * (self.n + 1)
        c.call("Params", "BatchPut", image=self.image,
               puts=[{"id": first + i, "value": b"%d" % k} for i in range(4)])
        data = noise(20000 + 13 * (k % 50), k)
        c.upload(self.image, b"p%d" % self.n, struct.pack(">I", k) + data, replace=True)
        c.append(self.image, *[struct.pack(">II", self.n, k)] * 3)
        self.done += 1


class Export(Images):
    def test_while_writers_hammer_the_image(self):
        self.serve()
        writers = [Writer(self.d, "a", n) for n in range(3)]
        for one in writers:
            one.start()
        try:
            self.until(lambda: all(w.done > 2 or w.failure for w in writers), "writers")
            for n in range(4):
                low = [w.done for w in writers]
                path = self.dir / f"e{n}.img"
                told = self.cli("image", "export", "a", path, "--json").json
                high = [w.done for w in writers]
                content = path.read_bytes()
                self.assertEqual((told["length"], told["crc32c"]),
                                 (len(content), f"{crc32c(content):08x}"))
                self.is_consistent(path, low, high)
        finally:
            for one in writers:
                one.stop = True
            for one in writers:
                one.join()
        self.assertEqual([w.failure for w in writers], [None] * 3)
        self.assertEqual(self.c.call("Images", "Check", image="a")["findings"], [])
        self.assertEqual((self.stray(), sorted(p.name for p in self.dir.glob("*.part*"))), ([], []))

    def is_consistent(self, path, low, high):
        seen = self.clean(path)
        params = {p["id"]: p["value_hex"] for p in seen["latest_params"]}
        products = {d["name"]: bytes.fromhex(d["data_hex"]) for d in seen["dps"]}
        for n in range(3):
            batch = {bytes.fromhex(params[100 * (n + 1) + i]) for i in range(4)}
            self.assertEqual(len(batch), 1, "a batch is whole or not there")
            k = int(batch.pop())
            self.assertLessEqual(low[n] - 1, k)
            self.assertLessEqual(k, high[n])
            data = products[f"p{n}"]
            held = struct.unpack(">I", data[:4])[0]
            self.assertIn(held, (k - 1, k))  # the batch of a round comes before its product
            self.assertEqual(data[4:], noise(20000 + 13 * (held % 50), held))

    def test_continued_after_the_command_was_ended(self):
        self.serve()
        self.c.create("big", blocks=16384, sector_size=4096)
        for n in range(4):
            self.c.upload("big", b"p%d" % n, noise(4 * MIB, n))
        path = self.dir / "big.img"
        # what an earlier run left: a part, and of what
        backup = self.c.call("Images", "Backup", image="big")
        self.leave(path, backup, 3 * MIB)
        self.c.put("big", 1, b"later")
        done = self.cli("image", "export", "big", path, "--json")
        self.assertEqual(done.json["crc32c"], f"{backup['crc32c']:08x}")
        seen = self.clean(path)
        self.assertEqual(seen["params"], [])  # the copy is of the moment when it was begun
        # the daemon keeps it no longer
        self.refused(rpc.NOT_FOUND, self.c, "Images", "ReadBackup",
                     {"backup_id": backup["backup_id"], "length": 1})
        # one whose backup is gone is begun anew; so is one whose part was changed
        self.leave(path, backup, 3 * MIB, content=path.read_bytes())
        self.cli("image", "export", "big", path, code=harness.FAILED)  # an image stands there
        path.unlink()
        self.cli("image", "export", "big", path)
        self.assertEqual(len(self.clean(path)["params"]), 1)
        path.unlink()
        backup = self.c.call("Images", "Backup", image="big")
        self.leave(path, backup, 3 * MIB, spoil=True)
        self.cli("image", "export", "big", path)
        self.clean(path)
        path.unlink()
        backup = self.c.call("Images", "Backup", image="big")
        self.leave(path, backup, MIB)
        self.cli("image", "export", "big", path, "--no-resume")
        self.refused(rpc.NOT_FOUND, self.c, "Images", "ReadBackup",
                     {"backup_id": backup["backup_id"], "length": 1})

    def leave(self, path, backup, size, spoil=False, content=b""):
        while len(content) < size:
            content += self.c.call("Images", "ReadBackup", backup_id=backup["backup_id"],
                                   offset=len(content), length=MIB)["data"]
        content = content[:size]
        if spoil:
            content = content[:5000] + b"!" + content[5001:]
        part = path.with_name(path.name + ".part")
        part.write_bytes(content)
        companion = path.with_name(path.name + ".part.json")
        companion.write_text(json.dumps({
            "format": "spaceblock part 1",
            "content": f"backup {backup['backup_id'].hex()}, {backup['size']} bytes, "
                       f"CRC-32C {backup['crc32c']:08x}, of image big"}))

    def test_ended_by_a_signal_and_continued(self):
        self.serve()
        self.c.create("big", blocks=32768, sector_size=4096)
        path = self.dir / "big.img"
        part = self.dir / "big.img.part"
        command = subprocess.Popen(
            [harness.CLI, "image", "export", "big", path, "--endpoint", self.d.unix],
            stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=harness.environment(),
            preexec_fn=harness.die_with_parent)
        self.until(lambda: part.exists() and part.stat().st_size > 0 or command.poll() is not None,
                   "the first bytes")
        command.terminate()
        _, said = command.communicate(timeout=harness.WAIT_S)
        if not path.exists():  # it had not ended by then
            self.assertIn(b"goes on", said)
            self.cli("image", "export", "big", path)
        self.clean(path)
        self.assertEqual(self.backups_left(), 0)

    def test_a_daemon_that_is_restarted_meanwhile(self):
        self.serve()
        self.c.create("big", blocks=65536, sector_size=4096)
        self.c.put("big", 1, b"kept")
        path, part = self.dir / "big.img", self.dir / "big.img.part"
        command = subprocess.Popen(
            [harness.CLI, "image", "export", "big", path, "--endpoint", self.d.unix],
            stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=harness.environment(),
            preexec_fn=harness.die_with_parent)
        self.addCleanup(harness.end, command)
        self.until(lambda: part.exists() and part.stat().st_size > 0 or command.poll() is not None,
                   "the first bytes")
        self.again(kill=True)
        _, said = command.communicate(timeout=4 * harness.WAIT_S)
        self.assertEqual(command.returncode, harness.DONE, said)
        self.assertEqual(len(self.clean(path)["params"]), 1)
        self.assertEqual(list(self.dir.glob("*.part*")), [])

    def test_a_stream_whose_backup_ends_meanwhile(self):
        self.serve()
        self.c.create("big", blocks=65536, sector_size=4096)
        command = subprocess.Popen(
            [harness.CLI, "image", "export", "big", "-", "--endpoint", self.d.unix],
            stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=harness.environment(),
            preexec_fn=harness.die_with_parent)
        self.addCleanup(harness.end, command)
        self.assertTrue(command.stdout.read(1000))
        self.again(kill=True)
        _, said = command.communicate(timeout=4 * harness.WAIT_S)
        self.assertEqual(command.returncode, harness.FAILED, said)
        self.assertRegex(said, b"exporting image big: .* begins anew: .*no such backup")
        self.cli("image", "export", "absent", "-", code=harness.ABSENT)

    def backups_left(self):
        """How many more the principal may make, counted by making them."""
        made = []
        while (reply := self.c.ask("Images", "Backup", {"image": "a"})).code == rpc.OK:
            made.append(reply.body["backup_id"])
        for one in made:
            self.c.call("Images", "EndBackup", backup_id=one)
        return 4 - len(made)

    def test_backups_are_private_bounded_and_end(self):
        self.serve("backups_max=3", "backups_principal_max=2", "backup_life_s=600")
        self.c.put("a", 1, b"one")
        made = [self.c.call("Images", "Backup", image="a") for _ in range(2)]
        self.assertEqual(made[0]["image"]["name"], b"a")
        self.assertEqual(made[0]["expires_in_seconds"], 600)
        self.assertEqual(made[0]["size"], 2048 * 4096)
        reply = self.refused(rpc.EXHAUSTED, self.c, "Images", "Backup", {"image": "a"})
        self.assertEqual(reply.reason, "LIMIT_EXCEEDED")
        with self.d.connect(self.d.tcp) as other:
            theirs = other.call("Images", "Backup", image="a")["backup_id"]
            self.refused(rpc.EXHAUSTED, other, "Images", "Backup", {"image": "a"})
            for method, more in (("ReadBackup", {"length": 1}), ("EndBackup", {})):
                self.refused(rpc.NOT_FOUND, other, "Images", method,
                             {"backup_id": made[0]["backup_id"], **more})
                self.refused(rpc.NOT_FOUND, self.c, "Images", method,
                             {"backup_id": theirs, **more})
        one = made[0]["backup_id"]
        for fields, code in (({"offset": made[0]["size"] + 1, "length": 1}, rpc.INVALID),
                             ({"offset": (1 << 64) - 1, "length": 1}, rpc.INVALID),
                             ({"length": 0}, rpc.INVALID), ({"length": MIB + 1}, rpc.INVALID),
                             ({"length": 1, "backup_id": b"x"}, rpc.INVALID),
                             ({"length": 1, "backup_id": b"x" * 16}, rpc.NOT_FOUND)):
            self.refused(code, self.c, "Images", "ReadBackup", {"backup_id": one, **fields})
        got = self.c.call("Images", "ReadBackup", backup_id=one, offset=made[0]["size"] - 10,
                          length=MIB)
        self.assertEqual((len(got["data"]), got["crc32c"]), (10, crc32c(got["data"])))
        self.assertEqual(self.c.call("Images", "ReadBackup", backup_id=one, length=1,
                                     offset=made[0]["size"])["data"], b"")
        self.c.call("Images", "EndBackup", backup_id=one)
        self.refused(rpc.NOT_FOUND, self.c, "Images", "EndBackup", {"backup_id": one})
        self.assertEqual(os.listdir(self.d.data_dir / "copies"), [])
        self.again()
        self.refused(rpc.NOT_FOUND, self.c, "Images", "ReadBackup",
                     {"backup_id": made[1]["backup_id"], "length": 1})
        for _ in range(2):
            self.c.call("Images", "Backup", image="a")

    def test_backups_expire(self):
        self.serve("backups_principal_max=1", "backup_life_s=1")
        self.c.call("Images", "Backup", image="a")
        self.until(lambda: self.c.ask("Images", "Backup", {"image": "a"}).code == rpc.OK,
                   "the end of the backup")

    def test_to_a_stream(self):
        self.serve()
        self.c.put("a", 1, b"streamed")
        out = self.cli("image", "export", "a", "-").out
        path = self.file("out.img", out)
        self.assertEqual(len(self.clean(path)["params"]), 1)
        self.cli("image", "export", "a", "-", "--json", code=harness.USAGE)
        self.cli("image", "import", "-", "b", "--new-identity", input=out)
        self.assertEqual(self.c.get("b", 1), b"streamed")
        self.cli("image", "import", "-", input=out, code=harness.USAGE)

    def test_round_trip(self):
        self.serve()
        self.c.put("a", 1, b"round")
        self.c.upload("a", b"p", noise(MIB))
        path = self.dir / "a.img"
        self.cli("image", "export", "a", path)
        self.c.call("Images", "Delete", image="a")
        self.cli("image", "import", path)
        self.assertEqual(self.c.get("a", 1), b"round")
        self.assertEqual(self.c.product("a", b"p"), noise(MIB))
        self.assertEqual(self.c.call("Images", "Check", image="a")["findings"], [])


class Artifacts(Images):
    def test_put_ls_rm(self):
        self.serve()
        data = {n: noise(size, n) for n, size in enumerate((0, 1, 100 * KIB, 3 * MIB))}
        shas = {n: hashlib.sha256(d).hexdigest() for n, d in data.items()}
        for n, content in data.items():
            path = self.file(f"file{n}", content)
            told = self.cli("artifact", "put", path, "--json").json
            self.assertEqual((told["sha256"], told["size"], told["name"], told["tenant"]),
                             (shas[n], len(content), f"file{n}", 1))
        again = self.cli("artifact", "put", self.dir / "file3")
        self.assertIn("was there", again.text)
        relabelled = self.cli("artifact", "put", self.dir / "file3", "--name", "other",
                              "--json").json
        self.assertEqual((relabelled["name"], relabelled["created_at"]),
                         ("other", told["created_at"]))
        listed = self.cli("artifact", "ls", "--json").json["artifacts"]
        self.assertEqual([a["sha256"] for a in listed], sorted(shas.values()))
        self.cli("artifact", "put", "-", "--name", "theirs", "--tenant-id", 5, input=b"theirs")
        self.assertEqual(len(self.cli("artifact", "ls", "--json").json["artifacts"]), 4)
        theirs = self.cli("artifact", "ls", "--json", "--tenant-id", 5).json["artifacts"]
        self.assertEqual([a["name"] for a in theirs], ["theirs"])
        self.again(kill=True)
        self.cli("artifact", "rm", shas[2][:10])
        self.cli("artifact", "rm", shas[2], code=harness.ABSENT)
        self.cli("artifact", "rm", shas[2][:10], code=harness.ABSENT)
        self.cli("artifact", "rm", "xyz", code=harness.USAGE)
        self.assertEqual(self.files(), sorted(shas[n] for n in (0, 1, 3)))
        pages = []
        token = b""
        while True:
            page = self.c.call("Artifacts", "List", page_size=2, page_token=token)
            pages.append([a["sha256"].hex() for a in page["artifacts"]])
            token = page["next_page_token"]
            if not token:
                break
        self.assertEqual([len(p) for p in pages], [2, 1])
        self.assertEqual(sum(pages, []), self.files())

    def files(self, tenant=1):
        return sorted(os.listdir(self.d.data_dir / "artifacts" / str(tenant)))

    def test_another_content_than_was_promised(self):
        self.serve()
        upload = Upload(self.c, noise(100), {"artifact": {"sha256": hashlib.sha256(b"x").digest()}})
        upload.send()
        reply = upload.ask("Finish", crc32c=crc32c(upload.data))
        self.assertEqual(reply.code, rpc.INVALID)
        self.assertIn(hashlib.sha256(upload.data).hexdigest(), reply.message)
        upload.abort()
        self.assertEqual((self.files(), self.stray()), ([], []))

    def test_one_content_from_many_at_once(self):
        self.serve()
        data = noise(300 * KIB)

        def work(n):
            with self.d.connect() as c:
                upload = Upload.artifact(c, data, name=b"n%d" % n)
                upload.send()
                upload.finish()
                if n % 2:
                    c.ask("Artifacts", "Delete", {"sha256": hashlib.sha256(data).digest()})

        harness.threads(6, work)
        left = self.c.call("Artifacts", "List")["artifacts"]
        self.assertEqual([a["sha256"].hex() for a in left], self.files())
        self.assertEqual(self.stray(), [])

    def test_rows_and_files_agree_after_a_start(self):
        self.serve()
        lost, kept = noise(1000, 1), noise(1000, 2)
        for data in (lost, kept):
            upload = Upload.artifact(self.c, data)
            upload.send()
            upload.finish()
        folder = self.d.data_dir / "artifacts" / "1"
        self.d.stop()
        (folder / hashlib.sha256(lost).hexdigest()).unlink()
        (folder / "README").write_bytes(b"not ours")
        with sqlite3.connect(self.d.data_dir / "audit.db") as db:
            db.execute("delete from artifact_rows where sha256 = ?",
                       (hashlib.sha256(kept).digest(),))
        self.c = self.connect(self.d.restart())
        listed = self.c.call("Artifacts", "List")["artifacts"]
        self.assertEqual([a["sha256"] for a in listed], [hashlib.sha256(kept).digest()])

    def test_refusals(self):
        self.serve()
        sha = b"s" * 32
        self.refused(rpc.NOT_FOUND, self.c, "Artifacts", "Get", {"sha256": sha})
        self.refused(rpc.NOT_FOUND, self.c, "Artifacts", "Delete", {"sha256": sha})
        for method in ("Get", "Delete"):
            self.refused(rpc.INVALID, self.c, "Artifacts", method, {"sha256": b"s"})
            self.refused(rpc.INVALID, self.c, "Artifacts", method, {"sha256": sha, "tenant": 65536})
        for fields in ({"page_size": 1001}, {"page_token": b"x"}, {"tenant": 65536}):
            self.refused(rpc.INVALID, self.c, "Artifacts", "List", fields)


class Continued(Images):
    """Commands that go on with what an ended command, or an ended daemon, left."""

    def setUp(self):
        super().setUp()
        self.faults = Faults(self.dir)
        self.serve("upload_sync_bytes=1 MiB", env=self.faults.environment())
        self.addCleanup(self.faults.release_all)
        self.state = {"XDG_STATE_HOME": str(self.dir / "state")}

    def started(self):
        listed = self.cli("audit", "list", "--method", "Uploads.Start", "--json").json
        return len(listed["records"])

    def command(self, *words):
        process = subprocess.Popen(
            [harness.CLI, *words, "--endpoint", self.d.unix], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=harness.environment(**self.state),
            preexec_fn=harness.die_with_parent)
        self.addCleanup(harness.end, process)
        return process

    def half_way(self, folder, *words):
        """The command, while the daemon is in a flush of what it has sent."""
        process = self.command(*words)
        self.until(lambda: list(folder.glob(".upload-*")), "the upload")
        hold = self.faults.hold("flush", ".upload-")
        return process, hold.wait()

    def cases(self):
        image = image_file(self.dir / "w.img", blocks=64 * 256)
        yield "image", ("image", "import", self.dir / "w.img", "new"), image
        data = noise(48 * MIB)
        yield "artifact", ("artifact", "put", self.file("kernel", data)), data

    def landed_as(self, kind, data):
        if kind == "image":
            self.assertEqual(self.c.get("new", 1), b"within")
        else:
            path = self.d.data_dir / "artifacts" / "1" / hashlib.sha256(data).hexdigest()
            self.assertEqual(path.read_bytes(), data)
        self.assertEqual(self.stray(), [])

    def test_the_command_is_killed(self):
        for n, (kind, words, data) in enumerate(self.cases()):
            folder = self.d.data_dir / ("images" if kind == "image" else "artifacts") / "1"
            process, hold = self.half_way(folder, *words)
            process.kill()
            process.wait()
            hold.release()
            self.cli(*words, env=self.state)
            self.landed_as(kind, data)
            self.assertEqual(self.started(), n + 1, "it was begun anew")

    def test_the_daemon_is_killed(self):
        for n, (kind, words, data) in enumerate(self.cases()):
            folder = self.d.data_dir / ("images" if kind == "image" else "artifacts") / "1"
            process, hold = self.half_way(folder, *words)
            self.d.kill9()
            hold.release()
            self.c = self.connect(self.d.restart())
            out, err = process.communicate(timeout=4 * harness.WAIT_S)
            self.assertEqual(process.returncode, harness.DONE, err)
            self.landed_as(kind, data)
            self.assertEqual(self.started(), n + 1, "it was begun anew")


class Waiting(Images):
    """One copy at once: others wait for it."""

    def setUp(self):
        super().setUp()
        self.faults = Faults(self.dir)
        self.addCleanup(self.faults.release_all)
        self.serve("copies_running_max=1", env=self.faults.environment())
        self.c.create("b")
        self.hold = self.faults.hold("write", "images/1/.c")
        self.clone = self.c.start("Images", "Clone", {"image": "a", "to": {"name": b"c"}})
        self.hold.wait()
        self.other = self.connect(self.d)

    def test_nobody_who_closes_an_image_waits_for_another_ones_copy(self):
        for method, fields in (("Rename", {"image": "b", "name": b"d"}),
                               ("Delete", {"image": "d"})):
            with self.subTest(method=method):
                waiting = [self.other.start("Images", "Backup", {"image": fields["image"]})
                           for _ in range(3)]
                self.other.call("Images", "Get", image=fields["image"])
                self.other.call("Params", "List", image=fields["image"])
                self.c.call("Images", method, **fields)
                for stream in waiting:
                    reply = self.other.wait(stream)
                    self.assertIn(reply.reason, ("WRONG_STATE", "NOT_FOUND"), reply)
        self.hold.release()
        self.assertEqual(self.c.wait(self.clone).code, rpc.OK)
        self.cli("image", "export", "c", self.dir / "c.img")

    def test_backups_that_nobody_hears_of_go(self):
        for _ in range(6):  # more than one may have
            with self.d.connect() as lost:
                lost.start("Images", "Backup", {"image": "b"})
                lost.call("Server", "Ping", payload=b"it was taken")
        self.hold.release()
        self.assertEqual(self.c.wait(self.clone).code, rpc.OK)
        for _ in range(4):  # as many as one may have: all of them
            self.eventually(
                lambda: self.c.ask("Images", "Backup", {"image": "b"}).code == rpc.OK,
                "there are others still")


if __name__ == "__main__":
    harness.main()
