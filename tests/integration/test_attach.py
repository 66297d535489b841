"""Images in the hands of guests: what is refused, what reads and watches see, what comes back."""
import fcntl
import shutil
import struct
import subprocess
import threading
import time

import harness
import lending
import rpc
from crc import crc32c
from lending import (ATTACHED, DAMAGED, GUEST, QUARANTINED, READY, UNAVAILABLE, Refused)
from test_watch import NOW, OLDEST, Watcher

EPOCH = 1700000000
MIB = 1 << 20
LIVE = 84  # events of the live window at S=512
OWNER_BYTE, OFD_SETLK = 64, 37
SEEN_S = 0.1  # from a guest's append to the watch's answer


def payloads(reply):
    return [e["payload"] for e in reply["events"]]


class Attached(lending.Case):
    def setUp(self):
        super().setUp()
        self.d = self.lender()
        self.c = self.connect(self.d)
        self.c.create("a", blocks=16384, epoch=EPOCH)
        self.path = self.d.image_path(1, "a")

    def lend(self, name="a"):
        self.d.attach(name)
        return self.guest(self.d, name)

    def take_back(self, guest, name="a"):
        guest.end()
        return self.d.detach(name)

    def in_use(self, service, method, fields):
        reply = self.refused(rpc.PRECONDITION, self.c, service, method, fields)
        self.assertEqual(reply.reason, "IMAGE_IN_USE", reply)
        self.assertIn(GUEST, reply.message)

    # ---- who may do what

    def test_changes_are_refused_with_the_guests_name(self):
        self.c.upload("a", "p", b"x" * 100)
        self.lend()
        before = self.path.read_bytes()
        product = {"image": rpc.image_ref("a"), "name": "q"}
        for service, method, fields in (
                ("Params", "Put", {"id": 1, "value": b"v"}),
                ("Params", "BatchPut", {"puts": [{"id": 1, "value": b"v"}]}),
                ("Params", "Delete", {"id": 1}),
                ("Events", "Append", {"events": [{"code": 1}]}),
                ("DataProducts", "Delete", {"name": "p"}),
                ("Images", "Check", {}),
                ("Images", "Check", {"repair": True}),
                ("Images", "Defrag", {}),
                ("Images", "Reopen", {}),
                ("Images", "Rename", {"name": "b"}),
                ("Images", "Clone", {"to": rpc.image_ref("b")}),
                ("Images", "Backup", {}),
                ("Images", "Scrub", {"start": True}),
                ("Images", "Delete", {})):
            with self.subTest(f"{service}.{method}"):
                self.in_use(service, method, dict(fields, image="a"))
        self.in_use("Uploads", "Start", {"product": product, "size": 10})
        self.assertEqual(self.path.read_bytes(), before)
        self.assertEqual(self.state(self.c, "a"), (ATTACHED, f"guest {GUEST}"))
        listed = self.c.call("Images", "List")["images"]
        self.assertEqual([(i["name"], i["state"]) for i in listed], [(b"a", ATTACHED)])

    def test_cli_shows_who_has_it(self):
        self.lend()
        shown = harness.run_cli("image", "list", "--endpoint", self.d.unix).text
        self.assertRegex(shown, rf"attached.*{GUEST}")

    def test_a_second_guest_is_told_of_the_first(self):
        self.d.attach("a")
        with self.assertRaisesRegex(Refused, f"^locked .*{GUEST}"):
            self.d.attach("a", "1/other")
        self.assertEqual(self.state(self.c, "a"), (ATTACHED, f"guest {GUEST}"))

    def test_only_ready_images_are_lent(self):
        self.c.create("torn")
        self.d.stop()
        with open(self.d.image_path(1, "torn"), "r+b") as file:
            file.write(b"none")
        self.d.restart()
        with self.assertRaisesRegex(Refused, "^bad-magic .*damaged"):
            self.d.attach("torn")
        self.path.rename(self.path.with_suffix(".away"))
        with self.assertRaisesRegex(Refused, "^unsupported .*removed or replaced"):
            self.d.attach("a")
        self.path.with_suffix(".away").rename(self.path)
        self.d.attach("a")

    def test_the_owners_lock_is_kept_all_the_while(self):
        """Nobody else gets in, whenever they try."""
        stop, tried, got = threading.Event(), [0], []

        def intrude():
            wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, OWNER_BYTE, 1, 0)
            with open(self.path, "r+b") as file:
                while not stop.is_set():
                    tried[0] += 1
                    try:
                        fcntl.fcntl(file, OFD_SETLK, wanted)
                        got.append(tried[0])
                        return
                    except BlockingIOError:
                        pass

        intruder = threading.Thread(target=intrude)
        intruder.start()
        try:
            for _ in range(20):
                guest, before = self.lend(), tried[0]
                self.eventually(lambda: got or tried[0] > before + 100, "nobody tries")
                self.take_back(guest)
        finally:
            stop.set()
            intruder.join()
        print(f"the owner's lock was asked for {tried[0]} times")
        self.assertEqual(got, [])
        harness.run_cli("param", "put", 9, "x", "--file", self.path, code=harness.FAILED)

    def test_qemu_is_let_in_and_out(self):
        if not shutil.which("qemu-io"):
            self.skipTest("no qemu-io (package qemu-utils)")

        def qemu_io(*commands):
            words = [word for c in commands for word in ("-c", c)]
            return subprocess.run(["qemu-io", "-f", "raw", *words, self.path],
                                  capture_output=True, check=False,
                                  timeout=harness.WAIT_S).returncode

        self.assertNotEqual(qemu_io("read 0 512"), 0)
        self.d.attach("a")
        self.assertEqual(qemu_io("read 0 512"), 0)
        self.assertEqual(self.d.detach("a"), "")
        self.assertNotEqual(qemu_io("read 0 512"), 0)

    def test_detaching_waits_for_an_ending_qemu(self):
        guest = self.lend()
        self.d.say("detach", 1, "a")
        # reads are put off until the image is back: one that waits has met the detaching
        waiting = self.c.start("Params", "List", {"image": "a"})
        while not self.c.quiet_for(0.3):
            self.c.wait(waiting)
            waiting = self.c.start("Params", "List", {"image": "a"})
        guest.end()
        self.assertEqual(self.d.hear(), "")
        self.assertEqual(self.c.wait(waiting).code, rpc.OK)
        self.assertEqual(self.state(self.c, "a")[0], READY)

    def test_a_qemu_that_stays_makes_it_unavailable(self):
        guest = self.lend()
        self.assertRegex(self.d.detach("a"), "unavailable.*(QEMU|guest)")
        self.assertEqual(self.state(self.c, "a")[0], UNAVAILABLE)
        reply = self.refused(rpc.PRECONDITION, self.c, "Params", "Get",
                             {"image": "a", "id": 1})
        self.assertEqual(reply.reason, "IMAGE_IN_USE")
        guest.end()
        self.c.call("Images", "Reopen", image="a")
        self.c.put("a", 1, b"v")

    # ---- what is under way when a guest comes

    def test_uploads_of_products_end(self):
        target = {"image": rpc.image_ref("a"), "name": "p"}
        started = self.c.call("Uploads", "Start", product=target, size=MIB)
        self.c.write(started["upload_id"], 0, b"u" * 65536)
        guest = self.lend()
        self.refused(rpc.NOT_FOUND, self.c, "Uploads", "Write",
                     {"upload_id": started["upload_id"], "offset": 65536, "data": b"x",
                      "crc32c": crc32c(b"x")})
        guest.do("product", "big", MIB, 7)
        self.assertEqual(self.take_back(guest), "")
        self.assertEqual(self.c.product("a", "big"), b"\7" * MIB)
        self.d.stop()
        self.d.restart()
        with self.d.connect() as c:
            self.refused(rpc.NOT_FOUND, c, "Uploads", "Status",
                         {"upload_id": started["upload_id"]})

    def test_lending_in_the_midst_of_changes(self):
        """Each change was done before the guest came, or was refused; what was done is there."""
        done, refused, stop = [], [], threading.Event()

        def change(n):
            with self.d.connect() as c:
                k = 0
                while not stop.is_set():
                    k += 1
                    reply = c.ask("Params", "Put", {"image": "a", "id": n, "value": b"%d" % k})
                    if reply.code == rpc.OK:
                        done.append((n, k))
                    else:
                        self.assertEqual(reply.reason, "IMAGE_IN_USE", reply)
                        refused.append((n, k))

        workers = [threading.Thread(target=change, args=(n,)) for n in range(4)]
        for worker in workers:
            worker.start()
        try:
            for _ in range(5):
                count = len(done)
                self.eventually(lambda: len(done) > count + 20, "no change")
                before = len(refused)
                guest = self.lend()
                # Who is refused has written down what was answered before.
                self.eventually(lambda: {n for n, _ in refused[before:]} == set(range(4)),
                                "not each of them is refused")
                last = {}
                for n, k in list(done):
                    last[n] = max(last.get(n, 0), k)
                for n, k in last.items():
                    self.assertEqual(self.c.get("a", n), b"%d" % k)
                guest.do("put", 100, "guest's")
                self.assertEqual(self.take_back(guest), "")
        finally:
            stop.set()
            for worker in workers:
                worker.join()
        self.assertEqual(self.c.get("a", 100), b"guest's")

    # ---- reads

    def test_reads_see_what_was_written_before(self):
        self.c.put("a", 1, b"daemon's")
        guest = self.lend()
        for k in range(200):
            guest.do("put", 1 + k % 3, f"v{k}")
            self.assertEqual(self.c.get("a", 1 + k % 3), b"v%d" % k)
        for k in range(100):
            guest.do("append", 1, k)
            newest = self.c.events("a", limit=1)
            self.assertEqual((newest["pointer"], payloads(newest)), (k + 1, [b"%d" % k]))
        guest.do("product", "p", 3000, 65)
        names = [p["name"] for p in self.c.call("DataProducts", "List", image="a")["products"]]
        self.assertEqual(names, [b"p"])
        shown = self.c.call("Images", "Inspect", image="a")
        self.assertEqual((shown["event_pointer"], shown["product_count"]), (100, 1))
        self.assertEqual(self.take_back(guest), "")
        self.assertEqual(self.c.get("a", 1), b"v198")

    def test_many_readers_share_looks(self):
        guest = self.lend()
        guest.do("put", 1, "first")
        streams = [self.c.start("Params", "Get", {"image": "a", "id": 1}) for _ in range(60)]
        for stream in streams:
            self.assertEqual(self.c.wait(stream).body["param"]["value"], b"first")

    def test_products_are_read_and_change_under_the_reader(self):
        guest = self.lend()
        guest.do("product", "p", MIB, 1)
        found = self.c.call("DataProducts", "Get", image="a", name="p")["product"]
        read = {"image": "a", "name": "p", "identity": found["identity"], "length": 65536}
        self.assertEqual(self.c.call("DataProducts", "Read", offset=0, **read)["data"],
                         b"\1" * 65536)
        guest.do("product", "p", MIB, 2)
        reply = self.refused(rpc.ABORTED, self.c, "DataProducts", "Read", dict(read, offset=65536))
        self.assertEqual(reply.reason, "PRODUCT_CHANGED")
        self.assertEqual(self.c.product("a", "p"), b"\2" * MIB)
        guest.do("drop", "p")
        self.refused(rpc.ABORTED, self.c, "DataProducts", "Read", dict(read, offset=0))
        self.refused(rpc.NOT_FOUND, self.c, "DataProducts", "Get", {"image": "a", "name": "p"})

    def test_products_are_whole_while_the_guest_replaces_them(self):
        """Whatever is read is of one product, never of two."""
        guest, stop, whole, aborted = self.lend(), threading.Event(), [], []
        guest.do("product", "p", MIB, 0)

        def replace():
            byte = 0
            while not stop.is_set():
                byte = (byte + 1) % 256
                guest.do("product", "p", MIB, byte)

        writer = threading.Thread(target=replace)
        writer.start()
        try:
            deadline = time.monotonic() + 20
            while len(whole) < 10 and time.monotonic() < deadline:
                try:
                    data = self.c.product("a", "p", piece=65536 * 4)
                except rpc.RpcError as error:
                    self.assertEqual(error.reply.code, rpc.ABORTED, error)
                    aborted.append(error)
                    continue
                self.assertEqual((len(data), len(set(data))), (MIB, 1))
                whole.append(data[0])
        finally:
            stop.set()
            writer.join()
        self.assertTrue(whole or aborted)

    def test_half_written_records_are_read_again(self):
        """A sector that is torn for a moment is not called corrupt."""
        guest = self.lend()
        guest.do("put", 5, "before")
        self.assertEqual(self.c.get("a", 5), b"before")
        entry = struct.pack(">IHH240s", 5, 2, 2, b"ok")
        entry += struct.pack(">I", crc32c(entry))
        slot = self.c.call("Params", "Get", image="a", id=5)["param"]["slot"]
        at = 512 + (slot // 2 + 1) * 512  # the first slot of the next block: free
        for _ in range(20):
            guest.raw(at, entry[:100])
            asked = self.c.start("Params", "Get", {"image": "a", "id": 5})
            guest.raw(at, entry)
            found = self.c.wait(asked).body
            self.assertFalse(found["newer_corrupt"], found)
            self.assertIn(found["param"]["value"], (b"before", b"ok"))
            guest.raw(at, bytes(252))
            self.assertEqual(self.c.get("a", 5), b"before")

    def test_corruption_that_stays_is_told(self):
        guest = self.lend()
        guest.do("put", 5, "good")
        guest.do("append", 3, 1)
        guest.do("product", "p", 1000, 3)
        shown = self.c.call("DataProducts", "Get", image="a", name="p")["product"]
        guest.raw(512 + 8, b"BAD!")
        guest.raw(18 * 512 + 8, b"BAD!")
        guest.raw((33 + shown["block_offset"]) * 512, b"BAD!")
        self.refused(rpc.DATA_LOSS, self.c, "Params", "Get", {"image": "a", "id": 5})
        self.assertEqual([e["corrupt"] for e in self.c.events("a")["events"]],
                         [True, False, False])
        found = self.take_back(guest)
        self.assertRegex(found, "1 corrupt parameter slots, 1 corrupt events and 0 invalid")
        self.refused(rpc.DATA_LOSS, self.c, "DataProducts", "Get", {"image": "a", "name": "p"})
        self.assertIn("image-detached", self.d.log())

    def test_a_rotten_product_that_the_guest_mends(self):
        guest = self.lend()
        guest.do("product", "p", 1000, 3)
        shown = self.c.call("DataProducts", "List", image="a")["products"][0]
        at = (33 + shown["block_offset"]) * 512
        guest.raw(at, b"BAD!")
        self.refused(rpc.DATA_LOSS, self.c, "DataProducts", "Get", {"image": "a", "name": "p"})
        guest.raw(at, b"\3" * 4)
        guest.do("put", 1, "and goes on")
        self.assertEqual(self.c.product("a", "p"), b"\3" * 1000)

    # ---- watches

    def watch(self, **filters):
        watcher = Watcher(self.d, "a", **filters)
        self.addCleanup(watcher.lose)
        return watcher

    def test_watches_see_a_guests_appends_at_once(self):
        guest = self.lend()
        guest.do("append", 1, 1)
        watcher = self.watch()
        watcher.step(0)
        took = []
        for k in range(1, 31):
            stream = watcher.connection.start("Events", "Watch", {
                "image": "a", "cursor": watcher.cursor, "wait_ms": 60000})
            self.eventually(lambda: self.c.call("Images", "Get", image="a"), "asks once")
            begin = time.monotonic()
            guest.do("append", 1, 1)
            watcher.take(watcher.connection.wait(stream).body)
            took.append(time.monotonic() - begin)
            self.assertEqual(len(watcher.seen), k + 1)
        took.sort()
        print(f"append to answer: median {took[15] * 1000:.1f} ms, "
              f"longest {took[-1] * 1000:.1f} ms")
        if not self.d.is_sanitized():
            self.assertLess(took[15], SEEN_S)

    def test_no_event_is_lost_or_seen_twice(self):
        """Over attaching and detaching, from the daemon and from guests."""
        watcher, total, stop = self.watch(), [0], threading.Event()
        failures = []

        def follow():
            try:
                while not (stop.is_set() and len(watcher.seen) >= total[0]):
                    watcher.step(1000)
            except BaseException as error:
                failures.append(error)

        follower = threading.Thread(target=follow)
        follower.start()
        try:
            for _ in range(4):
                self.c.append("a", *[b"%d" % (total[0] + i) for i in range(3)])
                total[0] += 3
                guest = self.lend()
                for _ in range(5):
                    guest.do("append", 8, 1)
                    total[0] += 8
                    self.eventually(lambda: failures or len(watcher.seen) >= total[0] - 40,
                                    "the watch falls behind")
                self.assertEqual(self.take_back(guest), "")
        finally:
            stop.set()
            follower.join()
        self.assertEqual(failures, [])
        self.assertEqual((watcher.resets, watcher.skipped), (0, 0))
        self.assertEqual(watcher.seen, [(i, b"%d" % i) for i in range(total[0])])

    def test_a_watch_waits_through_attaching_and_detaching(self):
        watcher = self.watch(start=NOW)
        cursor = watcher.connection or watcher.step(0)
        self.assertEqual(cursor, [])
        stream = watcher.connection.start("Events", "Watch", {
            "image": "a", "cursor": watcher.cursor, "wait_ms": 60000})
        self.assertTrue(watcher.connection.quiet_for(0.05))
        guest = self.lend()
        self.take_back(guest)
        self.assertTrue(watcher.connection.quiet_for(0.05))
        self.c.append("a", b"at last")
        watcher.take(watcher.connection.wait(stream).body)
        self.assertEqual(watcher.seen, [(0, b"at last")])

    def qemu_writes(self, cache, old, new):
        """A qemu-io that changes the image from old to new, sector by sector from the end, so that
        records come before the pointer, as a guest has it; gives when the last was written."""
        qemu = subprocess.Popen(["qemu-io", "-f", "raw", "-t", cache, self.path],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                preexec_fn=harness.die_with_parent)
        self.addCleanup(harness.end, qemu)
        for at in range(len(new) - 512, -1, -512):
            if old[at:at + 512] == new[at:at + 512]:
                continue
            self.file(f"s{at}", new[at:at + 512])
            qemu.stdin.write(f"write -s {self.dir}/s{at} {at} 512\n".encode())
            qemu.stdin.flush()
            # it takes a line at a time
            while b"ops/sec" not in qemu.stdout.readline():
                self.assertIsNone(qemu.poll())
        written = time.monotonic()
        qemu.communicate(b"quit\n", timeout=harness.WAIT_S)
        return written

    def test_appends_through_qemu_are_seen(self):
        """The writes of a real QEMU: prepared in a copy, and carried over."""
        if not shutil.which("qemu-io"):
            self.skipTest("no qemu-io (package qemu-utils)")
        self.d.attach("a")
        copy = self.dir / "copy.img"
        shutil.copy(self.path, copy)
        watcher = self.watch()
        watcher.step(0)
        for n, cache in enumerate(("writeback", "none", "directsync", "writethrough")):
            stream = watcher.connection.start("Events", "Watch", {
                "image": "a", "cursor": watcher.cursor, "wait_ms": 60000})
            harness.run_cli("event", "append", "hello", "--severity", 1, "--code", 7, "--file",
                            copy)
            written = self.qemu_writes(cache, self.path.read_bytes(), copy.read_bytes())
            watcher.take(watcher.connection.wait(stream).body)
            took = time.monotonic() - written
            print(f"qemu-io, cache {cache}: seen {took * 1000:.1f} ms after its last write")
            self.assertEqual(watcher.seen, [(i, b"hello") for i in range(n + 1)])
        self.assertEqual(self.d.detach("a"), "")

    def test_writes_that_inotify_does_not_tell_of_are_seen(self):
        guest = self.lend()
        record = struct.pack(">IBBH64s", 1, 1, 6, 9, b"mapped")
        record += struct.pack(">I", crc32c(record))
        watcher = self.watch()
        watcher.step(0)
        stream = watcher.connection.start("Events", "Watch", {
            "image": "a", "cursor": watcher.cursor, "wait_ms": 60000})
        self.assertTrue(watcher.connection.quiet_for(0.3))
        guest.do("mapped", 18 * 512, record.hex())
        guest.do("mapped", 17 * 512, struct.pack(">I", 1).hex())
        written = time.monotonic()
        watcher.take(watcher.connection.wait(stream).body)
        print(f"without inotify: seen after {(time.monotonic() - written) * 1000:.0f} ms")
        self.assertEqual(watcher.seen, [(0, b"mapped")])
        self.assertLess(time.monotonic() - written, 10)

    def test_cursors_are_renewed_where_the_log_was_rewritten(self):
        self.c.append("a", *[b"%d" % i for i in range(10)])
        cursor = self.c.events("a")["cursor"]
        guest = self.lend()
        guest.do("append", 5, 1)
        got = self.c.events("a", cursor=cursor)
        self.assertEqual((got["reset"], len(got["events"])), (False, 5))
        cursor = got["cursor"]
        guest.do("reset")
        got = self.c.events("a", cursor=cursor)
        self.assertEqual((got["reset"], len(got["events"]), got["pointer"]), (True, 0, 0))
        self.assertEqual(self.take_back(guest), "")
        self.c.append("a", b"new")
        got = self.c.events("a", cursor=got["cursor"])
        self.assertEqual((got["reset"], payloads(got)), (False, [b"new"]))

    def test_a_log_rewritten_as_far_as_before_is_no_append(self):
        self.c.append("a", *[b"%d" % i for i in range(3)])
        cursor = self.c.events("a")["cursor"]
        guest = self.lend()
        self.c.events("a")
        fresh = struct.pack(">IBBH64s", 1, 1, 3, 9, b"new")
        guest.raw(18 * 512, fresh + struct.pack(">I", crc32c(fresh)))
        got = self.c.events("a", cursor=cursor)
        self.assertEqual((got["reset"], payloads(got)), (True, [b"new", b"1", b"2"]))

    def test_many_appends_between_looks(self):
        """More than the ring holds: what was overwritten is told as skipped."""
        cursor = self.c.events("a")["cursor"]
        guest = self.lend()
        guest.do("append", 500, 1)
        got = self.c.events("a", cursor=cursor, limit=1000)
        self.assertEqual((got["reset"], got["skipped"], got["pointer"]), (False, 500 - LIVE, 500))
        self.assertEqual(payloads(got), [b"%d" % i for i in range(500 - LIVE, 500)])

    # ---- after the guest

    def test_identity_that_changed_is_quarantined(self):
        super_block = self.path.read_bytes()[:48]

        def changed(**fields):
            values = dict(zip(("magic", "version", "reserved", "tenant", "blocks", "start", "size",
                               "epoch", "uuid"), struct.unpack(">IBBHIIIQ16s", super_block[:44])))
            values.update(fields)
            body = struct.pack(">IBBHIIIQ16s", *values.values())
            return body + struct.pack(">I", crc32c(body))

        for what, block, word in (
                ("uuid", changed(uuid=b"u" * 16), "uuid"),
                ("tenant", changed(tenant=7), r"\b7\b"),
                ("fewer blocks", changed(blocks=8192, size=8192 - 33), "8192"),
                ("no size at all", changed(blocks=3000, size=3000 - 33), "3000")):
            with self.subTest(what):
                guest = self.lend()
                self.assertEqual(self.c.call("Params", "List", image="a")["params"], [])
                guest.raw(0, block)
                reply = self.refused(rpc.PRECONDITION, self.c, "Params", "List", {"image": "a"})
                self.assertEqual(reply.reason, "IMAGE_QUARANTINED")
                written = self.path.read_bytes()
                self.assertRegex(self.take_back(guest), f"quarantined.*{word}")
                self.assertEqual(self.path.read_bytes(), written, "it was written")
                state, reason = self.state(self.c, "a")
                self.assertEqual(state, QUARANTINED)
                self.assertRegex(reason, word)
                if what == "tenant":
                    self.cannot_be_accepted(word)
                with open(self.path, "r+b") as file:
                    file.write(super_block)
                self.c.call("Images", "Reopen", image="a")
                self.assertEqual(self.state(self.c, "a")[0], READY)

    def cannot_be_accepted(self, word):
        for accept in (True, False):
            reply = self.refused(rpc.PRECONDITION, self.c, "Images", "Reopen",
                                 {"image": "a", "accept_identity": accept})
            self.assertEqual(reply.reason, "IMAGE_QUARANTINED")
            self.assertRegex(reply.message, word)
            self.assertEqual(self.state(self.c, "a")[0], QUARANTINED)

    def test_a_broken_superblock_is_damage(self):
        guest = self.lend()
        guest.raw(0, b"nothing")
        self.refused(rpc.DATA_LOSS, self.c, "Params", "List", {"image": "a"})
        watcher = self.watch()
        with self.assertRaises(rpc.RpcError):
            watcher.step(1000)
        self.assertRegex(self.take_back(guest), "damaged")
        self.assertEqual(self.state(self.c, "a")[0], DAMAGED)

    def test_everything_goes_on_afterwards(self):
        guest = self.lend()
        guest.do("put", 1, "one")
        guest.do("append", 2, 2)
        self.assertEqual(self.take_back(guest), "")
        self.assertEqual(self.c.put("a", 1, b"two"), 2)
        self.assertEqual(self.c.append("a", b"e"), 2)
        self.c.upload("a", "p", b"x" * 5000)
        self.assertEqual(self.c.call("Images", "Check", image="a")["findings"], [])
        self.c.call("Images", "Scrub", image="a", start=True, wait_seconds=60)
        self.c.call("Images", "Clone", image="a", to=rpc.image_ref("b"))
        self.c.call("Images", "Rename", image="a", name="c")
        self.assertEqual(self.c.get("c", 1), b"two")

    def test_detaching_what_nobody_has_does_nothing(self):
        self.assertEqual(self.d.detach("a"), "")
        self.c.put("a", 1, b"v")
        self.assertEqual(self.state(self.c, "a")[0], READY)

    def test_deleted_images_are_not_lent(self):
        self.c.call("Images", "Delete", image="a")
        with self.assertRaisesRegex(Refused, "^not-found"):
            self.d.attach("a")


class Restarts(lending.Case):
    """Guests outlive the daemon."""

    def setUp(self):
        super().setUp()
        self.d = self.lender()
        with self.d.connect() as c:
            c.create("a", blocks=4096, epoch=EPOCH)
            c.append("a", b"0", b"1")
            self.cursor = c.events("a")["cursor"]
        self.d.attach("a")
        self.g = self.guest(self.d, "a")

    def test_a_live_guests_image_is_opened_attached(self):
        self.g.do("append", 3, 1)
        self.d.kill9()
        self.g.do("append", 3, 1)
        self.d.expect((1, "a", GUEST))
        self.d.restart()
        with self.d.connect() as c:
            self.assertEqual(self.state(c, "a"), (ATTACHED, f"guest {GUEST}"))
            got = c.events("a", cursor=self.cursor)
            self.assertEqual((got["reset"], payloads(got)),
                             (False, [b"%d" % i for i in range(2, 8)]))
            self.refused(rpc.PRECONDITION, c, "Params", "Put",
                         {"image": "a", "id": 1, "value": b"v"})
            done = harness.run_cli("param", "put", 1, "x", "--file", self.d.image_path(1, "a"),
                                   code=harness.FAILED)
            self.assertIn("held by a spaceblock daemon", done.err)
            watcher = Watcher(self.d, "a")
            watcher.cursor = got["cursor"]
            watcher.step(0)
            stream = watcher.connection.start("Events", "Watch", {
                "image": "a", "cursor": watcher.cursor, "wait_ms": 60000})
            self.g.do("append", 1, 1)
            watcher.take(watcher.connection.wait(stream).body)
            watcher.lose()
            self.assertEqual(watcher.seen, [(8, b"8")])
            self.g.end()
            self.assertEqual(self.d.detach("a"), "")
            c.put("a", 1, b"v")
            self.assertEqual(c.events("a", cursor=self.cursor)["reset"], False)

    def test_an_unexpected_guest_makes_it_unavailable(self):
        self.d.kill9()
        self.d.restart()
        with self.d.connect() as c:
            self.assertEqual(self.state(c, "a")[0], UNAVAILABLE)
            with self.assertRaisesRegex(Refused, "^locked"):
                self.d.attach("a")

    def test_a_guest_that_died_meanwhile(self):
        self.g.do("append", 1, 1)
        self.d.kill9()
        self.g.end()
        self.d.expect((1, "a", GUEST))
        self.d.restart()
        with self.d.connect() as c:
            self.assertEqual(self.state(c, "a")[0], ATTACHED)
            self.assertEqual(self.d.detach("a"), "")
            self.assertEqual(self.state(c, "a")[0], READY)
            self.assertEqual(c.append("a", b"3"), 3)

    def test_an_expected_image_with_another_identity(self):
        """It is not shown as another's, and comes back once the guest has gone."""
        self.d.kill9()
        path = self.d.image_path(1, "a")
        good = path.read_bytes()[:512]
        body = good[:28] + b"u" * 16
        self.g.raw(0, body + struct.pack(">I", crc32c(body)))
        self.d.expect((1, "a", GUEST))
        self.d.restart()
        with self.d.connect() as c:
            self.assertEqual(self.state(c, "a")[0], QUARANTINED)
            reply = self.refused(rpc.PRECONDITION, c, "Images", "Reopen",
                                 {"image": "a", "accept_identity": True})
            self.assertIn(GUEST, reply.message)
            self.g.raw(0, good[:48])
            self.g.end()
            self.assertEqual(self.d.detach("a"), "")
            self.assertEqual(self.state(c, "a")[0], READY)

    def test_events_that_a_power_loss_took_reset_cursors(self):
        """Shown to somebody, and not flushed by the guest: the machine goes down, they are gone."""
        self.d.expect((1, "a", GUEST))
        path = self.d.image_path(1, "a")
        before = path.read_bytes()
        with self.d.connect() as c:
            self.g.do("append", 5, 1)
            cursor = c.events("a", cursor=self.cursor)["cursor"]
        self.d.kill9()
        self.g.end()
        with open(path, "r+b") as file:
            file.write(before)
        self.d.env.pop("SPB_EXPECT")
        self.d.restart()
        with self.d.connect() as c:
            c.append("a", *[b"other %d" % i for i in range(9)])
            got = c.events("a", cursor=cursor)
            self.assertTrue(got["reset"])
            self.assertEqual(len(got["events"]), 11)

    def test_stopping_with_guests_running(self):
        with self.d.connect() as c:
            stream = c.start("Events", "Watch", {"image": "a", "start": OLDEST, "wait_ms": 60000,
                                                 "cursor": c.events("a")["cursor"]})
            self.assertTrue(c.quiet_for(0.05))
            self.d.terminate()
            self.assertEqual(c.wait(stream).code, rpc.OK)
        self.d.wait()
        self.g.do("append", 1, 1)


class Idle(lending.Case):
    def test_idle_images_cost_next_to_nothing(self):
        d = self.lender()
        with d.connect() as c:
            for k in range(50):
                c.create(f"i{k}", blocks=64)
                d.attach(f"i{k}")
        if d.is_sanitized():
            self.skipTest("a sanitized daemon's time says nothing")
        # times of files are looked at more often while they are young
        threading.Event().wait(2.5)
        before = d.cpu_s()
        threading.Event().wait(4)
        used = d.cpu_s() - before
        print(f"50 idle attached images: {used / 4 * 100:.2f} % of a processor")
        self.assertLess(used / 4, 0.05)

    def test_metrics_count_them(self):
        d = self.lender(args=["--http", "127.0.0.1:0"])
        with d.connect() as c:
            c.create("a")
            d.attach("a")
            self.assertEqual(d.metric("spaceblock_images", state="attached"), 1)
            self.assertEqual(d.metric("spaceblock_images", state="ready"), 0)
            self.assertEqual(d.http_get("/readyz")[0], 200)
            d.detach("a")
            self.assertEqual(d.metric("spaceblock_images", state="attached"), 0)


if __name__ == "__main__":
    harness.main()
