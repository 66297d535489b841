"""A disk that fails or is full: the call gets an error, the image turns read-only, others go on."""
import errno
import os
import subprocess
import uuid

import harness
import rpc
from crc import crc32c
from faults import Faults

READY, READ_ONLY = 1, 2
MIB = 1 << 20


class Failing(harness.Case):
    def setUp(self):
        super().setUp()
        self.faults = Faults(self.dir)
        self.d = self.daemon(env=self.faults.environment())
        self.addCleanup(self.faults.release_all)
        self.c = self.connect(self.d)
        for name in "ab":
            self.c.create(name, blocks=1024, sector_size=4096)
            self.c.put(name, 1, b"acknowledged")

    def image(self, name="a"):
        return self.c.call("Images", "Get", image=name)["image"]

    def break_it(self, operation, number=errno.EIO):
        self.faults.fail(operation, "images/1/a.img", number)
        reply = self.refused(rpc.INTERNAL, self.c, "Params", "Put",
                             {"image": "a", "id": 1, "value": b"lost"})
        self.assertEqual(reply.reason, "IO_ERROR")
        self.assertEqual(reply.message.count("may or may not have happened"), 1, reply)
        return reply

    def start_put(self, number):
        return self.c.start("Params", "Put", {"image": "a", "id": number, "value": b"x"})

    def is_read_only(self):
        image = self.image()
        self.assertEqual(image["state"], READ_ONLY)
        self.assertTrue(image["reason"])
        for service, method, fields in (
                ("Params", "Put", {"id": 2, "value": b"x"}),
                ("Params", "BatchPut", {"puts": [{"id": 2}]}), ("Params", "Delete", {"id": 1}),
                ("Events", "Append", {"events": [{"code": 1}]}), ("Images", "Defrag", {}),
                ("DataProducts", "Delete", {"name": b"p"})):
            reply = self.refused(rpc.PRECONDITION, self.c, service, method,
                                 dict(fields, image="a"))
            self.assertEqual(reply.reason, "IMAGE_READ_ONLY", method)
        self.refused(rpc.PRECONDITION, self.c, "Uploads", "Start", {"size": 1, "product": {
            "image": {"name": b"a"}, "name": b"q"}})
        return image["reason"].decode()

    def comes_back(self):
        self.faults.clear()
        opened = self.c.call("Images", "Reopen", image="a")["image"]
        self.assertEqual((opened["state"], opened["reason"]), (READY, b""))
        self.assertIn(self.c.get("a", 1), (b"acknowledged", b"lost"))
        self.c.put("a", 1, b"after")
        self.assertEqual(self.c.get("a", 1), b"after")
        self.assertEqual(self.c.call("Images", "Check", image="a")["findings"], [])

    def others_go_on(self):
        self.c.put("b", 2, b"fine")
        self.c.append("b", b"fine")
        self.c.upload("b", b"fine%d" % self.c.next_stream, b"fine")
        self.assertEqual(self.image("b")["state"], READY)
        self.c.create("c%d" % self.c.next_stream)
        self.assertEqual(self.c.get("a", 1), b"acknowledged")

    def test_failing_flush(self):
        self.break_it("flush")
        self.assertIn("Input/output error", self.is_read_only())
        self.others_go_on()
        self.comes_back()
        self.assertIn("Input/output error", self.d.log())

    def test_failing_write(self):
        for number in (errno.EIO, errno.ENOSPC):
            self.break_it("write", number)
            self.assertIn(os.strerror(number), self.is_read_only())
            self.others_go_on()
            self.comes_back()
            self.c.put("a", 1, b"acknowledged")

    def test_reopen_while_it_still_fails(self):
        self.break_it("flush")
        reply = self.c.ask("Images", "Reopen", {"image": "a"})
        self.assertNotEqual(reply.code, rpc.OK)
        self.assertTrue(reply.message)
        self.assertEqual(self.image()["state"], READ_ONLY)
        self.assertEqual(self.c.get("a", 1), b"acknowledged")
        self.comes_back()

    def test_reopen_by_the_cli(self):
        self.c.append("a", b"kept")
        self.c.upload("a", b"kept", b"kept")
        self.break_it("flush")
        endpoint = ["--endpoint", self.d.unix]
        put = ["param", "put", 5, "x", "--image", "a", *endpoint]
        done = harness.run_cli(*put, code=harness.FAILED)
        self.assertIn("read-only", done.err.lower())
        self.assertEqual(harness.run_cli("param", "get", 1, "--image", "a", "--raw",
                                         *endpoint).out, b"acknowledged")
        self.faults.clear()
        harness.run_cli("image", "reopen", "a", *endpoint)
        harness.run_cli(*put)
        self.assertEqual(self.c.events("a")["events"][0]["payload"], b"kept")
        self.assertEqual(self.c.product("a", b"kept"), b"kept")

    def test_all_of_a_group_get_the_error(self):
        hold = self.faults.hold("flush", "images/1/a.img")
        streams = [self.start_put(10)]
        hold.wait()
        streams += [self.start_put(11 + n) for n in range(20)]
        self.c.call("Server", "Ping", payload=b"queued")
        self.faults.fail("flush", "images/1/a.img")
        hold.release(keep_rules=True)  # the held flush succeeds, the next ones do not
        codes = [self.c.wait(s).code for s in streams]
        self.assertEqual(codes, [rpc.OK] + [rpc.INTERNAL] * 20)
        self.assertEqual([p["id"] for p in self.c.call("Params", "List", image="a")["params"]],
                         [1, 10], "what failed is shown")
        self.comes_back()
        self.assertEqual(self.c.get("a", 10), b"x")

    def test_killed_with_a_poisoned_image(self):
        self.break_it("flush")
        self.d.kill9()
        self.faults.clear()
        self.c = self.connect(self.d.restart())
        self.assertEqual(self.image()["state"], READY)
        self.assertIn(self.c.get("a", 1), (b"acknowledged", b"lost"))
        self.c.put("a", 1, b"after")

    def test_sigterm_with_a_poisoned_image(self):
        self.break_it("flush")
        self.d.stop()
        self.faults.clear()
        self.c = self.connect(self.d.restart())
        self.assertIn(self.c.get("a", 1), (b"acknowledged", b"lost"))

    def test_failing_chunk(self):
        data = b"d" * MIB
        self.c.upload("a", b"there", b"before")
        upload = self.c.call("Uploads", "Start", size=len(data), product={
            "image": {"name": b"a"}, "name": b"p"})["upload_id"]
        self.faults.fail("write", "images/1/a.img")
        reply = self.refused(rpc.INTERNAL, self.c, "Uploads", "Write", {
            "upload_id": upload, "data": data, "crc32c": crc32c(data)})
        self.assertEqual(reply.reason, "IO_ERROR")
        self.faults.clear()
        if self.image()["state"] == READ_ONLY:
            self.c.call("Images", "Reopen", image="a")
        self.assertEqual(self.c.product("a", b"there"), b"before")
        self.c.upload("a", b"p", data)
        self.assertEqual(self.c.product("a", b"p"), data)

    def test_create_that_fails_leaves_nothing(self):
        folder = self.d.data_dir / "images" / "1"
        before = sorted(os.listdir(folder))
        for operation, number, code, reason in (
                ("allocate", errno.ENOSPC, rpc.EXHAUSTED, "NO_SPACE"),
                ("allocate", errno.EIO, rpc.INTERNAL, "IO_ERROR"),
                ("write", errno.ENOSPC, rpc.EXHAUSTED, "NO_SPACE"),
                ("flush", errno.EIO, rpc.INTERNAL, "IO_ERROR")):
            with self.subTest(operation=operation, number=number):
                self.faults.fail(operation, "images/1", number)
                reply = self.c.ask("Images", "Create", {"image": "new", "total_blocks": 64})
                if operation == "flush":  # of the file or of the folder: it may have happened
                    self.assertNotEqual(reply.code, rpc.OK)
                else:
                    self.assertIn(reply.code, (code, rpc.INTERNAL), reply)
                self.assertIn(os.strerror(number), reply.message)
                self.faults.clear()
                self.assertEqual(sorted(os.listdir(folder)), before)
                self.c.create("new")
                self.c.call("Images", "Delete", image="new")
        self.others_go_on()

    def test_offline_command_on_a_failing_disk(self):
        path = self.dir / "offline.img"
        harness.run_cli("init", "--file", path, "--blocks", 64)
        harness.run_cli("param", "put", 1, "kept", "--file", path)
        self.faults.fail("flush", "offline.img")
        done = harness.run_cli("param", "put", 1, "lost", "--file", path, code=harness.FAILED,
                               env=self.faults.environment())
        self.assertIn(str(path), done.err)
        self.assertIn("Input/output error", done.err)
        self.faults.fail("flush", str(self.dir))
        fresh = self.dir / "new.img"
        harness.run_cli("init", "--file", fresh, "--blocks", 64, code=harness.FAILED,
                        env=self.faults.environment())
        self.assertEqual([p.name for p in self.dir.glob(".*")], [], "a temporary file is left")
        self.faults.clear()
        harness.run_cli("param", "put", 1, "after", "--file", path)
        self.assertEqual(harness.run_cli("param", "get", 1, "--raw", "--file", path).out, b"after")


class Tmpfs(harness.Case):
    """A daemon of which some folder lies on a small disk of its own."""

    def mount(self, folder, size):
        folder.mkdir(parents=True)
        if os.geteuid() != 0 or subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "spb-test", folder],
                capture_output=True, check=False).returncode:
            self.skipTest("no tmpfs can be mounted")
        self.addCleanup(subprocess.run, ["umount", "-l", folder], check=False)
        self.disk = folder

    def fill(self):
        with open(self.disk / "filler", "wb", buffering=0) as f:
            try:
                while True:
                    f.write(b"f" * 4096)
            except OSError as error:
                self.assertEqual(error.errno, errno.ENOSPC)


class FullAudit(Tmpfs):
    """All lies on one disk: a change that cannot be recorded is not made."""

    def setUp(self):
        super().setUp()
        self.mount(self.dir / "disk", "48m")
        (self.disk / "d").mkdir()
        self.d = harness.Daemon(self.disk / "d", listen=[f"unix:{self.dir}/s"])
        self.d.log_path = self.dir / "log"
        self.addCleanup(self.d.finish)

    def put_until_refused(self, c):
        """Until what the audit has in reserve is used up; the last that was made, what was refused
        and how."""
        request, made = None, None
        for n in range(20000):
            request = {"image": "a", "id": 1, "value": b"%d" % n, "request_id": str(uuid.uuid4())}
            reply = c.ask("Params", "Put", request)
            if reply.code:
                return made, request, reply
            made = request["value"]
        return self.fail("the disk never became full")

    def test_starts_on_a_full_disk(self):
        """All can be read, nothing changed; and once there is room all is as before."""
        c = self.connect(self.d.start())
        c.create("a", blocks=64)
        c.put("a", 2, b"kept")
        ends = {"kill": self.d.kill9, "term": self.d.stop}
        for way in ("fill kill", "fill use kill", "fill term", "term fill", "kill fill"):
            with self.subTest(way=way):
                value = b"before " + way.encode()
                c.put("a", 1, value)
                for step in way.split():
                    if step == "fill":
                        self.fill()
                    elif step == "use":
                        value = self.put_until_refused(c)[0] or value
                    else:
                        ends[step]()
                for _ in range(2):
                    c = self.connect(self.d.restart())
                    self.assertEqual((c.get("a", 1), c.get("a", 2)), (value, b"kept"))
                    self.assertEqual(c.call("Images", "Check", image="a")["findings"], [])
                    self.d.kill9()
                c = self.connect(self.d.restart())
                os.unlink(self.disk / "filler")
                c.put("a", 1, b"after")
                self.d.stop()
                c = self.connect(self.d.restart())
                self.assertEqual(c.get("a", 1), b"after")
                self.assertTrue((self.d.data_dir / "reserve").exists())

    def test_changes_on_a_full_disk(self):
        c = self.connect(self.d.start())
        c.create("a", blocks=64)
        c.put("a", 1, b"before")
        self.fill()
        made, request, refused = self.put_until_refused(c)
        self.assertEqual((refused.code, refused.reason), (rpc.EXHAUSTED, "NO_SPACE"), refused)
        self.assertIn("not made", refused.message)
        image = c.call("Images", "Get", image="a")["image"]
        self.assertEqual((image["state"], image["reason"]), (READY, b""))
        self.assertEqual(c.get("a", 1), made or b"before")
        for service, method, fields in (("Images", "Delete", {"image": "a"}),
                                        ("Images", "Create", {"image": "b", "total_blocks": 64})):
            reply = c.ask(service, method, fields)
            self.assertEqual(reply.reason, "NO_SPACE", (method, reply))
        os.unlink(self.disk / "filler")
        self.assertEqual(c.ask("Params", "Put", request).code, rpc.OK)
        self.assertEqual(c.get("a", 1), request["value"])
        c.call("Images", "Delete", image="a")


class Full(Tmpfs):
    """The images have a disk of their own, which is full."""

    def setUp(self):
        super().setUp()
        self.d = self.daemon(start=False, listen=[f"unix:{self.dir}/s"])
        self.mount(self.d.data_dir / "images", "2m")

    def test_create_on_a_full_disk(self):
        c = self.connect(self.d.start())
        made = 0
        while (reply := c.ask("Images", "Create", {"image": f"i{made}", "total_blocks": 512})
               ).code == rpc.OK:
            made += 1
            self.assertLess(made, 10, "more than the disk holds")
        self.assertGreaterEqual(made, 6)
        self.assertEqual((reply.code, reply.reason), (rpc.EXHAUSTED, "NO_SPACE"), reply)
        names = sorted(os.listdir(self.d.data_dir / "images" / "1"))
        self.assertEqual(names, [f"i{n}.img" for n in range(made)])
        for n in range(made):  # what was allocated takes changes on the full disk
            for k in range(5):
                c.put(f"i{n}", k, b"v" * 240)
            c.append(f"i{n}", b"e" * 64)
            c.upload(f"i{n}", b"p", b"p" * 100000)
        c.call("Images", "Delete", image="i0")
        c.create("again", blocks=512)

    def test_sparse_image_on_a_full_disk(self):
        self.d.start().stop()
        for name in ("sparse", "fine"):
            path = self.d.image_path(1, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            harness.run_cli("init", "--file", path, "--blocks", 512, "--tenant-id", 1)
        path = self.d.image_path(1, "sparse")
        head = path.read_bytes()[:512]
        path.unlink()
        with open(path, "wb") as f:
            f.write(head)
            f.truncate(512 * 512)
        self.fill()
        c = self.connect(self.d.start())
        image = c.call("Images", "Get", image="sparse")["image"]
        self.assertEqual(image["state"], READY)
        self.assertIn(b"lacks", image["reason"])
        self.assertEqual(c.call("Images", "Get", image="fine")["image"]["reason"], b"")
        failed = None
        for n in range(32):
            reply = c.ask("Params", "Put", {"image": "sparse", "id": n, "value": b"v"})
            if reply.code:
                failed = reply
                break
        self.assertIsNotNone(failed)
        self.assertIn(failed.code, (rpc.INTERNAL, rpc.EXHAUSTED), failed)
        self.assertIn("No space left", failed.message)
        self.assertEqual(c.call("Images", "Get", image="sparse")["image"]["state"], READ_ONLY)
        c.put("fine", 1, b"v")
        self.assertEqual(c.get("fine", 1), b"v")
        os.unlink(self.disk / "filler")
        if self.reads_past_the_cache(path):
            opened = c.call("Images", "Reopen", image="sparse")["image"]
            self.assertEqual((opened["state"], opened["reason"]), (READY, b""))
            c.put("sparse", 1, b"now")

    @staticmethod
    def reads_past_the_cache(path):
        """As later kernels can on a tmpfs; without it the image stays as it is."""
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
        except OSError:
            return False
        return True


class LimitedFiles(harness.Case):
    """Files that may grow to 4 MiB (ulimit -f): more is an error as of a full disk."""

    def limited(self, *words):
        return ["bash", "-c", 'ulimit -f 4096; exec "$@"', "bash", *map(str, words)]

    def test_daemon(self):
        d = self.daemon(start=False)
        d.start(self.limited(*d.command()))
        c = self.connect(d)
        c.create("a", blocks=64)
        for service, method, fields in (
                ("Images", "Create", {"image": "b", "total_blocks": 20000}),
                ("Uploads", "Start", {"size": 8 * MIB, "artifact": {"sha256": bytes(32)}})):
            reply = self.refused(rpc.EXHAUSTED, c, service, method, fields)
            self.assertEqual(reply.reason, "NO_SPACE", reply)
        c.put("a", 1, b"goes on")
        self.assertEqual(os.listdir(d.data_dir / "images" / "1"), ["a.img"])

    def test_cli(self):
        d = self.daemon()
        with d.connect() as c:
            c.create("a", blocks=4096, sector_size=4096)
            c.upload("a", b"p", bytes(6 * MIB))
        got = subprocess.run(
            self.limited(harness.CLI, "dp", "get", "p", self.dir / "p", "--image", "a",
                         "--endpoint", d.unix), env=harness.environment(), check=False,
            capture_output=True, timeout=harness.WAIT_S)
        self.assertEqual(got.returncode, harness.FAILED, got)
        self.assertIn(b"File too large", got.stderr)
        self.assertFalse((self.dir / "p").exists())


if __name__ == "__main__":
    harness.main()
