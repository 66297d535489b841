"""Guests over RPC: states, endings, restarts, bounds and consoles."""
import hashlib
import os
import pathlib
import signal
import threading
import time

import harness
import rpc
from crc import crc32c
from guestcase import ALWAYS, ENDINGS, GuestCase, ON_FAILURE, STATES, alive


class Life(GuestCase):
    def test_from_making_to_deletion(self):
        self.start()
        made = self.create(words="print=hello end=poweroff after=200")
        self.assertEqual(STATES[made["state"]], "created")
        self.assertEqual((made["config"]["memory_mib"], made["config"]["cpus"]), (128, 1))
        started = self.guest("Start")
        self.assertEqual(STATES[started["state"]], "running")
        self.assertGreater(started["pid"], 0)
        self.assertTrue(pathlib.Path(f"/proc/{started['pid']}").exists())
        ended = self.wait_for("stopped")
        self.assertEqual(ENDINGS[ended["ending"]], "poweroff")
        self.assertEqual(ended["exit_status"], 0)
        self.assertGreaterEqual(ended["ended_at_ms"], ended["started_at_ms"])
        self.assertTrue(ended["alive"])
        self.assertEqual((ended["pid"], ended["console_bytes"]), (0, 6))
        read = self.c.call("Guests", "ReadConsole", guest={"name": "g"})
        self.assertEqual((read["data"], read["offset"], read["end"]), (b"hello\n", 0, 6))
        self.c.call("Guests", "Delete", guest={"name": "g"})
        self.refused(rpc.NOT_FOUND, self.c, "Guests", "Get", {"guest": {"name": "g"}})
        self.assertEqual(list((self.d.data_dir / "guests").glob("*-*")), [])
        self.c.put("a", 1, b"mine again")

    def test_endings(self):
        self.start()
        for end, state, ending, code in (
                ("poweroff", "stopped", "poweroff", 0), ("reboot", "stopped", "reboot", 0),
                ("panic", "crashed", "panic", 0), ("exit:3", "crashed", "crashed", 3),
                ("crash", "crashed", "crashed", -9)):
            with self.subTest(end=end):
                name = end.replace(":", "-")
                self.create(name, f"end={end} after=50", start=True)
                guest = self.wait_for(state, name=name)
                self.assertEqual((ENDINGS[guest["ending"]], guest["exit_status"]), (ending, code))
                self.assertTrue(guest["reason"])
        self.assertIn(b"something broke", self.get("exit-3")["reason"])


    def test_what_is_shown_of_a_guest(self):
        self.start()
        made = self.create(images=("a", "b"), words="writes", memory_mib=64, cpus=2, restart=ALWAYS,
                           labels=[{"key": "team", "value": "x"}], stop_timeout_ms=1234)
        self.assertEqual([i["name"] for i in made["config"]["images"]], [b"a", b"b"])
        self.assertEqual(made["config"]["images"][0]["tenant"], 1)
        self.assertEqual((made["config"]["stop_timeout_ms"], made["config"]["boot_deadline_ms"]),
                         (1234, 60000))
        self.assertEqual(made["config"]["labels"][0]["key"], b"team")
        self.guest("Start")
        stats = self.c.call("Guests", "Stats", guest={"name": "g"})
        self.assertGreater(stats["resident_bytes"], 1 << 20)
        self.assertEqual([d["read_operations"] for d in stats["disks"]], [1, 2])
        self.assertEqual(stats["disks"][0]["flush_operations"], 7)
        self.guest("Kill")
        self.wait_for("stopped")
        stats = self.c.call("Guests", "Stats", guest={"name": "g"})
        self.assertEqual((stats["resident_bytes"], stats["disks"]), (0, []))
        for state, count in (("stopped", 1), ("running", 0)):
            self.assertEqual(self.d.metric("spaceblock_guests", state=state), count)

    def test_start_of_one_that_runs(self):
        self.start()
        first = self.create(start=True)
        again = self.guest("Start")
        self.assertEqual((again["pid"], again["version"]), (first["pid"], first["version"]))

    def test_start_of_one_whose_disk_was_full(self):
        self.start()
        first = self.create(words="full=1", start=True)
        self.wait_for("paused")
        for daemon in ("the same", "another"):
            reply = self.c.ask("Guests", "Start", {"guest": {"name": "g"}})
            if daemon == "the same":
                self.assertEqual(reply.reason, "GUEST_FAILED", reply)
                self.assertIn("guest 1/g is still paused: a disk failed on the host: No space",
                              reply.message)
                self.assertEqual(self.state(), "paused")
                self.d.kill9()
                self.again()
                # The daemon may have died before it wrote down why.
                self.assertTrue(self.get()["reason"].startswith(b"a disk failed on the host"))
        guest = reply.body["guest"]
        self.assertEqual((STATES[guest["state"]], guest["reason"], guest["pid"]),
                         ("running", b"", first["pid"]))

    def test_wait_for_a_version(self):
        self.start()
        version = self.create()["version"]
        stream = self.c.start("Guests", "Wait", {"guest": {"name": "g"}, "known_version": version,
                                                 "wait_ms": 60000})
        self.assertTrue(self.c.quiet_for(0.1))
        with self.d.connect() as other:
            other.call("Guests", "Start", guest={"name": "g"})
        self.assertGreater(self.c.wait(stream).body["guest"]["version"], version)
        begin = time.monotonic()
        self.c.call("Guests", "Wait", guest={"name": "g"}, known_version=2**63, wait_ms=50)
        self.assertLess(time.monotonic() - begin, 5)

    def test_deletion(self):
        self.start()
        self.create(start=True)
        self.refused(rpc.PRECONDITION, self.c, "Guests", "Delete", {"guest": {"name": "g"}})
        self.assertEqual(self.state(), "running")
        pid = self.get()["pid"]
        self.c.call("Guests", "Delete", guest={"name": "g"}, force=True)
        self.assertFalse(pathlib.Path(f"/proc/{pid}").exists())
        self.refused(rpc.NOT_FOUND, self.c, "Guests", "Delete", {"guest": {"name": "g"}})
        self.assertEqual([p.name for p in (self.d.data_dir / "run").glob("g*")], [])
        self.c.put("a", 1, b"mine again")
        self.create()

    def test_what_cannot_start_leaves_a_guest_that_tells_why(self):
        self.start()
        reply = self.c.ask("Guests", "Create", {"guest": {"name": "g"}, "start": True,
                                                "config": self.config("exit=3")})
        self.assertEqual((reply.code, reply.reason), (rpc.PRECONDITION, "GUEST_FAILED"))
        self.assertIn("cannot start: code 3", reply.message)
        guest = self.get()
        self.assertEqual((STATES[guest["state"]], ENDINGS[guest["ending"]], guest["exit_status"]),
                         ("crashed", "not_started", 3))
        reply = self.refused(rpc.PRECONDITION, self.c, "Guests", "Start", {"guest": {"name": "g"}})
        self.assertIn("cannot start: code 3", reply.message)
        self.c.put("a", 1, b"mine again")

    def test_missing_program(self):
        self.args[1] = "/nonexistent/qemu"
        self.start()
        self.create()
        reply = self.refused(rpc.PRECONDITION, self.c, "Guests", "Start", {"guest": {"name": "g"}})
        self.assertEqual(reply.reason, "GUEST_FAILED")
        self.assertIn("/nonexistent/qemu", reply.message)
        self.c.put("a", 1, b"mine again")

    def test_boot_deadline_is_told(self):
        self.start()
        self.create("silent", boot_deadline_ms=100, start=True)
        self.create("writes", "writes", images=("b",), boot_deadline_ms=100, start=True)
        self.eventually(lambda: b"no sign of life" in self.get("silent")["reason"], "not told")
        self.assertEqual((self.state("silent"), self.get("silent")["alive"]), ("running", False))
        self.eventually(lambda: self.get("writes")["alive"], "its write was not seen")


class Ends(GuestCase):
    def test_ladder(self):
        for words, ending, code in (("", "poweroff", 0), ("button=ignore", "stopped", 0),
                                    ("button=ignore quit=ignore", "stopped", -9)):
            with self.subTest(words=words):
                if not hasattr(self, "d"):
                    self.start(guest_quit_ms=200)
                self.create(words=words, restart=ALWAYS, stop_timeout_ms=200, start=True)
                self.assertEqual(STATES[self.guest("Stop")["state"]], "stopping")
                guest = self.wait_for("stopped", "crashed", "backoff")
                self.assertEqual((STATES[guest["state"]], ENDINGS[guest["ending"]],
                                  guest["exit_status"]), ("stopped", ending, code), guest["reason"])
                self.c.call("Guests", "Delete", guest={"name": "g"})

    def test_stop_of_a_paused_one(self):
        """It cannot hear a button."""
        self.start()
        self.create(words="full=0 button=ignore", start=True)
        self.wait_for("paused")
        self.guest("Stop", timeout_ms=3600000)
        self.assertEqual(ENDINGS[self.wait_for("stopped")["ending"]], "stopped")

    def test_stop_of_one_that_does_not_run(self):
        self.start()
        self.create()
        self.assertEqual(STATES[self.guest("Stop")["state"]], "created")
        self.guest("Start")
        self.guest("Kill")
        self.wait_for("stopped")
        self.assertEqual(STATES[self.guest("Kill")["state"]], "stopped")

    def test_start_of_one_that_is_being_stopped(self):
        self.start()
        first = self.create(words="button=ignore", start=True)
        self.guest("Stop", timeout_ms=200)
        again = self.guest("Start")
        self.assertEqual(STATES[again["state"]], "running")
        self.assertNotEqual(again["pid"], first["pid"])

    def test_start_that_is_called_off(self):
        self.start()
        self.create(words="button=ignore", start=True)
        self.guest("Stop", timeout_ms=60000)
        version = self.get()["version"]
        waiting = self.c.start("Guests", "Start", {"guest": {"name": "g"}})
        with self.d.connect() as other:
            # It has been heard: it is shown, as a version of its own.
            other.call("Guests", "Wait", guest={"name": "g"}, known_version=version, wait_ms=20000)
            other.call("Guests", "Kill", guest={"name": "g"})
        reply = self.c.wait(waiting)
        self.assertEqual(reply.code, rpc.PRECONDITION, reply.message)
        self.assertIn("was not started: killed by a call", reply.message)
        self.assertEqual(self.state(), "stopped")

    def test_kill_of_qemu_from_outside(self):
        self.start()
        os.kill(self.create(start=True)["pid"], signal.SIGKILL)
        guest = self.wait_for("crashed")
        self.assertEqual((guest["exit_status"], ENDINGS[guest["ending"]]), (-9, "crashed"))
        self.assertIn(b"signal 9", guest["reason"])
        self.c.put("a", 1, b"mine again")


class Restarts(GuestCase):
    def test_crash_loop(self):
        self.start()
        self.create(words="end=panic", restart=ON_FAILURE, start=True)
        self.eventually(lambda: self.get()["restarts"] >= 4, "no restarts")
        guest = self.wait_for("backoff")
        self.assertTrue(guest["crash_loop"])
        self.assertGreater(guest["restart_at_ms"], guest["ended_at_ms"])
        self.assertEqual(ENDINGS[guest["ending"]], "panic")
        self.assertGreaterEqual(self.d.metric("spaceblock_guest_restarts_total"), 4)
        self.guest("Stop")
        version = self.wait_for("stopped", "crashed")["version"]
        guest = self.c.call("Guests", "Wait", guest={"name": "g"}, known_version=version,
                            wait_ms=1000)["guest"]
        self.assertEqual(guest["version"], version, "it went on after a stop")

    def test_policies(self):
        self.start()
        self.create("never", "end=crash", start=True)
        self.create("failure", "end=poweroff", images=("b",), restart=ON_FAILURE, start=True)
        self.create("always", "end=poweroff", images=("c",), restart=ALWAYS, start=True)
        self.wait_for("crashed", name="never")
        self.wait_for("stopped", name="failure")
        self.eventually(lambda: self.get("always")["restarts"] >= 2, "no restarts")
        self.assertEqual(self.get("never")["restarts"], 0)
        self.guest("Kill", "always")

    def test_a_start_that_fails_is_not_tried_again(self):
        self.start()
        self.create(words="exit=1", restart=ALWAYS)
        self.refused(rpc.PRECONDITION, self.c, "Guests", "Start", {"guest": {"name": "g"}})
        self.assertEqual((self.state(), self.get()["restarts"]), ("crashed", 0))


class Monitors(GuestCase):
    """QMP peers that send garbage, nothing, or half lines."""

    def test_at_the_start(self):
        self.start(guest_start_ms=500, guest_monitor_ms=500)
        for how, word in (("garbage", "monitor failed"), ("silent", "did not answer within"),
                          ("half", "did not answer within"), ("close", "monitor"),
                          ("nocont", "not answer")):
            with self.subTest(how=how):
                self.create(how, f"monitor={how}")
                reply = self.refused(rpc.PRECONDITION, self.c, "Guests", "Start",
                                     {"guest": {"name": how}})
                self.assertEqual(reply.reason, "GUEST_FAILED")
                self.assertIn(word, reply.message)
                guest = self.get(how)
                self.assertEqual((STATES[guest["state"]], guest["pid"]), ("crashed", 0))
        self.c.put("a", 1, b"mine again")

    def test_while_it_runs(self):
        self.start(guest_monitor_ms=300)
        self.create("garbage", "later=garbage", start=True)
        self.create("close", "later=close", images=("b",), start=True)
        self.create("silent", "later=silent", images=("c",), start=True)
        self.create("asked", "later=silent", images=("d",), start=True)
        self.c.call("Guests", "Stats", guest={"name": "asked"})  # it does not hang
        for name in ("garbage", "close", "silent", "asked"):
            guest = self.wait_for("crashed", name=name)
            self.assertIn(b"monitor", guest["reason"])
            self.assertEqual(ENDINGS[guest["ending"]], "crashed")

    def test_answers_that_nobody_could_read_in_time(self):
        """The daemon, or the machine, was stopped meanwhile: that is no fault of QEMU's."""
        self.start(guest_monitor_ms=2000)
        pid = self.create(start=True)["pid"]
        self.pause(pid, 3)  # it is asked after 2 s, and would have to answer within 4
        self.d.process.send_signal(signal.SIGSTOP)
        os.kill(pid, signal.SIGCONT)
        threading.Event().wait(3)
        self.d.process.send_signal(signal.SIGCONT)
        threading.Event().wait(1)  # to find out that it is late
        self.assertEqual((self.state(), self.get()["pid"]), ("running", pid))
        self.pause(pid, 0)
        self.assertIn(b"was not answered", self.wait_for("crashed")["reason"])

    def pause(self, pid, seconds):
        os.kill(pid, signal.SIGSTOP)
        threading.Event().wait(seconds)

    def test_a_hundred_of_them(self):
        """The daemon serves on."""
        self.start(guest_start_ms=300, guest_starts_max=16)
        streams = []
        for n in range(20):
            how = ("garbage", "half", "silent", "close")[n % 4]
            self.create(f"g{n}", f"monitor={how}", images=(f"i{n}",))
            streams.append(self.c.start("Guests", "Start", {"guest": {"name": f"g{n}"}}))
        with self.d.connect() as other:
            other.call("Server", "Ping")
        for stream in streams:
            reply = self.c.wait(stream)
            self.assertEqual(reply.reason, "GUEST_FAILED", reply)


    def test_questions_leave_room_for_orders(self):
        """As many as callers like, of a monitor that answers none."""
        self.start(guest_monitor_ms=60000, guest_quit_ms=20000)
        self.create(words="later=silent", start=True)
        streams = [self.c.start("Guests", "Stats", {"guest": {"name": "g"}}) for _ in range(40)]
        self.c.wait(streams[-1])  # it was not asked: all others were, or were refused to be
        with self.d.connect() as other:
            other.call("Guests", "Stop", guest={"name": "g"}, timeout_ms=0)
        guest = self.wait_for("stopped", "crashed")
        self.assertEqual((STATES[guest["state"]], guest["exit_status"]), ("stopped", 0),
                         guest["reason"])
        for stream in streams[:-1]:
            self.assertEqual(self.c.wait(stream).code, rpc.OK)

    def test_questions_do_not_put_the_deadline_off(self):
        self.start(guest_monitor_ms=1000)
        self.create(words="later=silent", start=True)
        asked = 0
        with self.d.connect() as other:
            while STATES[other.call("Guests", "Get", guest={"name": "g"})["guest"]["state"]] == \
                    "running":
                self.c.start("Guests", "Stats", {"guest": {"name": "g"}})
                asked += 1
                self.assertLess(asked, 15, "it is asked and asked")
                threading.Event().wait(0.2)
        guest = self.wait_for("crashed")
        self.assertIn(b"was not answered within 1000 ms", guest["reason"])


class Images(GuestCase):
    def test_one_guest_at_a_time(self):
        self.start()
        self.create("one", start=True)
        self.create("two", images=("b", "a"))
        reply = self.refused(rpc.PRECONDITION, self.c, "Guests", "Start",
                             {"guest": {"name": "two"}})
        self.assertEqual(reply.reason, "IMAGE_IN_USE")
        self.assertIn("1/one", reply.message)
        reply = self.refused(rpc.PRECONDITION, self.c, "Params", "Put",
                             {"image": "a", "id": 1, "value": b"x"})
        self.assertIn("1/one", reply.message)
        self.c.put("b", 1, b"given back")
        self.guest("Kill", "one")
        self.wait_for("stopped", name="one")
        self.c.put("a", 1, b"mine again")

    def test_artifacts_boot_guests(self):
        self.start()
        data = b"a kernel" * 100
        sha = hashlib.sha256(data).digest()
        config = self.config() | {"kernel": {"sha256": sha}}
        self.refused(rpc.NOT_FOUND, self.c, "Guests", "Create",
                     {"guest": {"name": "g"}, "config": config})
        started = self.c.call("Uploads", "Start", size=len(data),
                              artifact={"sha256": sha, "name": b"k"})
        self.c.write(started["upload_id"], 0, data)
        self.c.call("Uploads", "Finish", upload_id=started["upload_id"], crc32c=crc32c(data))
        self.c.call("Guests", "Create", guest={"name": "g"}, config=config, start=True)
        # QEMU has read it: that it goes does no harm, but to the next start.
        self.c.call("Artifacts", "Delete", sha256=sha)
        self.assertEqual(self.state(), "running")
        self.guest("Kill")
        self.wait_for("stopped")
        reply = self.refused(rpc.NOT_FOUND, self.c, "Guests", "Start", {"guest": {"name": "g"}})
        self.assertIn(sha.hex(), reply.message)

    def test_rotten_artifacts_boot_nothing(self):
        self.start()
        kernel, initrd = b"a kernel" * 100, b"an initrd" * 100
        for data in (kernel, initrd):
            self.put_artifact(data)
        config = self.config("print=hello end=poweroff") | {
            "kernel": {"sha256": hashlib.sha256(kernel).digest()},
            "initrd": {"sha256": hashlib.sha256(initrd).digest()}}
        self.c.call("Guests", "Create", guest={"name": "g"}, config=config)
        for what, data in (("kernel", kernel), ("initial RAM disk", initrd)):
            with self.subTest(what):
                name = hashlib.sha256(data).hexdigest()
                path = self.d.data_dir / "artifacts" / "1" / name
                path.write_bytes(b"b" + data[1:])
                reply = self.refused(rpc.DATA_LOSS, self.c, "Guests", "Start",
                                     {"guest": {"name": "g"}})
                self.assertEqual(reply.reason, "CORRUPT_DATA")
                for word in (what, name, hashlib.sha256(b"b" + data[1:]).hexdigest(),
                             "upload it again"):
                    self.assertIn(word, reply.message)
                self.assertEqual(self.state(), "crashed")
                self.assertEqual(self.get()["console_bytes"], 0)
                self.c.put("a", 1, b"mine still")
                self.put_artifact(data)
        self.guest("Start")
        self.wait_for("stopped")

    def put_artifact(self, data):
        started = self.c.call("Uploads", "Start", size=len(data), artifact={
            "sha256": hashlib.sha256(data).digest(), "name": b"k"})
        self.c.write(started["upload_id"], 0, data)
        self.c.call("Uploads", "Finish", upload_id=started["upload_id"], crc32c=crc32c(data))

    def test_image_that_is_gone_at_the_start(self):
        self.start()
        self.create()
        self.c.call("Images", "Delete", image="a")
        reply = self.refused(rpc.NOT_FOUND, self.c, "Guests", "Start", {"guest": {"name": "g"}})
        self.assertIn("no image 1/a", reply.message)


class Consoles(GuestCase):
    def read(self, name="g", **more):
        return self.c.call("Guests", "ReadConsole", guest={"name": name}, **more)

    def whole(self, size, name="g"):
        out = b""
        while len(out) < size:
            piece = self.read(name, offset=len(out), limit=256 << 10, wait_ms=20000)
            self.assertEqual((piece["offset"], piece["skipped"]), (len(out), 0))
            self.assertTrue(piece["data"], "it ends early")
            out += piece["data"]
        return out

    def test_two_readers_see_the_same(self):
        self.start()
        size = 3 << 20
        self.create(words=f"flood={size}", start=True)
        wanted = (b"0123456789abcde\n" * (size // 16))[:size]
        self.assertEqual(self.whole(size), wanted)
        self.assertEqual(self.whole(size), wanted, "reading consumes")
        last = self.read(last=16)
        self.assertEqual((last["data"], last["end"]), (b"0123456789abcde\n", size))
        self.assertEqual(self.d.metric("spaceblock_guest_console_bytes_total"), size)

    def test_waiting_and_the_end(self):
        self.start()
        self.create(words="print=one echo", start=True)
        self.assertEqual(self.whole(4), b"one\n")
        stream = self.c.start("Guests", "ReadConsole", {"guest": {"name": "g"}, "offset": 4,
                                                        "wait_ms": 60000})
        self.assertTrue(self.c.quiet_for(0.1))
        with self.d.connect() as other:
            other.call("Guests", "WriteConsole", guest={"name": "g"}, writer_id=b"w" * 16,
                       data=b"two")
            self.assertEqual(self.c.wait(stream).body["data"], b"two")
            stream = self.c.start("Guests", "ReadConsole", {"guest": {"name": "g"}, "offset": 7,
                                                            "wait_ms": 60000})
            other.call("Guests", "Kill", guest={"name": "g"})
        body = self.c.wait(stream).body
        self.assertEqual((body["data"], STATES[body["state"]]), (b"", "stopped"))

    def test_waiting_for_the_first_output(self):
        self.start()
        self.create(words="print=one")
        stream = self.c.start("Guests", "ReadConsole", {"guest": {"name": "g"}, "offset": 0,
                                                        "wait_ms": 60000})
        self.assertTrue(self.c.quiet_for(0.1), "one that was never started is not at its end")
        with self.d.connect() as other:
            other.call("Guests", "Start", guest={"name": "g"})
        self.assertEqual(self.c.wait(stream).body["data"], b"one\n")

    def test_offsets_go_on_over_runs_and_daemons(self):
        self.start()
        self.create(words="print=hello", start=True)
        self.assertEqual(self.whole(6), b"hello\n")
        self.guest("Kill")
        self.wait_for("stopped")
        self.guest("Start")
        self.assertEqual(self.whole(12), b"hello\nhello\n")
        self.guest("Kill")
        self.wait_for("stopped")
        self.d.stop()
        self.again()
        self.assertEqual(self.whole(12), b"hello\nhello\n")
        self.guest("Start")
        self.assertEqual(self.whole(18), b"hello\n" * 3)

    def test_log_is_bounded(self):
        self.start(console_log_max_bytes=65536, console_memory_bytes=4096)
        self.create(words="flood=1000000 end=poweroff after=200", start=True)
        self.wait_for("stopped")
        read = self.read(offset=0)
        self.assertGreater(read["skipped"], 900000)
        self.assertEqual(read["end"], 1000000)
        size = sum(f.stat().st_size for f in (self.d.data_dir / "guests").rglob("*.log"))
        self.assertLessEqual(size, 65536)

    def test_one_writer(self):
        self.start()
        self.create(words="echo", start=True)
        self.refused(rpc.PRECONDITION, self.c, "Guests", "WriteConsole", {
            "guest": {"name": "g"}, "writer_id": b"z" * 16, "offset": 5, "data": b"x"})
        first = {"guest": {"name": "g"}, "writer_id": b"a" * 16, "data": b"abc"}
        self.assertEqual(self.c.call("Guests", "WriteConsole", **first)["offset"], 3)
        self.assertEqual(self.c.call("Guests", "WriteConsole", **first)["offset"], 3)
        second = first | {"writer_id": b"b" * 16, "data": b"X"}
        self.refused(rpc.PRECONDITION, self.c, "Guests", "WriteConsole", second)
        self.c.call("Guests", "WriteConsole", **second, takes_over=True)
        self.assertEqual(self.whole(4), b"abcX")
        self.guest("Kill")
        self.wait_for("stopped")
        self.refused(rpc.PRECONDITION, self.c, "Guests", "WriteConsole", first)


class Bounds(GuestCase):
    def test_guests(self):
        self.start(guests_tenant_max=2, guests_max=3)
        self.create("a")
        self.create("b")
        reply = self.refused(rpc.EXHAUSTED, self.c, "Guests", "Create",
                             {"guest": {"name": "c"}, "config": self.config()})
        self.assertIn("guests_tenant_max", reply.message)
        self.refused(rpc.EXISTS, self.c, "Guests", "Create",
                     {"guest": {"name": "a"}, "config": self.config()})
        self.c.call("Guests", "Delete", guest={"name": "a"})
        self.create("c")

    def test_memory_and_cpus(self):
        self.start(guests_tenant_memory_max_bytes=256 << 20, guests_tenant_cpus_max=3,
                   guest_memory_max_bytes=200 << 20)
        self.create("a", start=True)
        self.create("b", images=("b",), memory_mib=129)
        reply = self.refused(rpc.EXHAUSTED, self.c, "Guests", "Start", {"guest": {"name": "b"}})
        self.assertIn("guests_tenant_memory_max_bytes", reply.message)
        self.assertEqual(self.state("b"), "created")
        self.create("c", images=("c",), memory_mib=32, cpus=3)
        reply = self.refused(rpc.EXHAUSTED, self.c, "Guests", "Start", {"guest": {"name": "c"}})
        self.assertIn("guests_tenant_cpus_max", reply.message)
        reply = self.refused(rpc.INVALID, self.c, "Guests", "Create", {
            "guest": {"name": "d"}, "config": self.config(memory_mib=201)})
        self.assertEqual(reply.violations(), ["config.memory_mib"])
        self.guest("Kill", "a")
        self.wait_for("stopped", name="a")
        self.guest("Start", "b")

    def test_starts_at_once(self):
        self.start(guest_starts_max=1, guest_start_ms=1000)
        self.create("slow", "monitor=silent")
        self.create("quick", images=("b",))
        slow = self.c.start("Guests", "Start", {"guest": {"name": "slow"}})
        with self.d.connect() as other:
            self.eventually(lambda: other.call("Guests", "Get", guest={"name": "slow"})["guest"]
                            ["pid"], "not spawned")
            begin = time.monotonic()
            other.call("Guests", "Start", guest={"name": "quick"})
            self.assertGreater(time.monotonic() - begin, 0.2, "it did not wait for its turn")
        self.assertEqual(self.c.wait(slow).reason, "GUEST_FAILED")


if __name__ == "__main__":
    harness.main()
