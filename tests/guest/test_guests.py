"""Guests of a daemon, real ones: what they do with their images, how they end, who may do what."""
import os
import signal
import subprocess
import threading
import time

import harness
import rpc
from crc import crc32c
from guests import BOOT_S, SharedGuests, alive, needs
from harness import FAILED, run_cli
from machine import (ACCEL, BOOTS, BUTTON, END, EVENTS, INTERVAL_MS, PRODUCT_SIZE, SPOIL,
                     product_bytes)

PANIC, REBOOT, STOPPED, QEMU = 6, 7, 8, 9


class Guests(SharedGuests):
    ARGS = harness.limits(guest_backoff_ms=50, guest_backoff_max_ms=100)

    def cli(self, *words, **how):
        return run_cli(*words, "--endpoint", self.d.unix, **how)

    def test_what_was_put_is_read_and_what_it_wrote_is_read_back(self):
        guest = self.guest("io", steer={EVENTS: 3, PRODUCT_SIZE: 70000})
        found = guest.ended()
        self.assertEqual((found["state"], found["ending"], found["exit_status"], found["pid"]),
                         ("stopped", "poweroff", 0, 0), found)
        self.assertEqual([code for code, _ in guest.events()], [1, 3, 2, 2, 2, 4])
        data = product_bytes(70000)
        self.assertEqual(guest.connection.product("io", "guest/data"), data)
        listed = guest.connection.call("DataProducts", "Get", image="io", name="guest/data")
        self.assertEqual(listed["product"]["crc32c"], crc32c(data))
        self.assertIn((3, f"product of 70000 bytes, crc {crc32c(data):08x}"), guest.events())
        self.assertEqual(guest.connection.get("io", BOOTS), b"1")
        self.cli("check", "--image", "io")
        self.assertEqual(guest.connection.put("io", 99, "ours again"), 1)
        # The same guest again, by the CLI, which tells how it ended.
        done = self.cli("guest", "start", "io", "--wait", "--json")
        self.assertEqual((done.json["ending"], done.json["alive"]), ("poweroff", True))
        self.assertEqual(guest.connection.get("io", BOOTS), b"2")
        self.assertIn("boot 2", self.cli("guest", "logs", "io", "-n", 5).text)
        self.assertGreater(self.cli("guest", "logs", "io").text.count("guest: boot"), 1)
        self.cli("guest", "rm", "io")
        self.assertEqual(guest.ask("Get").code, rpc.NOT_FOUND)

    def test_each_ending_has_its_state_reason_and_restart(self):
        def make(end, restart, steer=None):
            return self.guest(f"{end}-{restart}", steer={END: end, **(steer or {})},
                              restart=restart)

        once = {end: make(end, "never") for end in ("reboot", "panic")}
        again = make("panic", "on-failure")
        content = make("poweroff", "on-failure")
        for end, state, code in (("reboot", "stopped", REBOOT), ("panic", "crashed", PANIC)):
            found = once[end].ended()
            self.assertEqual((found["state"], found["ending"], found["restarts"], found["pid"]),
                             (state, end, 0, 0), found)
            self.assertTrue(found["reason"])
            self.assertEqual(self.cli("guest", "wait", once[end].name, code=code).code, code)
        self.assertEqual(content.ended()["restarts"], 0)
        found = again.wait(lambda g: g["restarts"] >= 1, "a start by itself")
        self.assertIn(found["state"], ("starting", "running", "backoff"), found)
        again.booted(boots=2)
        again.call("Stop", timeout_ms=0)
        found = again.ended()
        self.assertEqual(found["restart_at_ms"], 0)
        self.assertEqual(again.connection.get(again.image, BOOTS), b"2")
        for one in (*once.values(), again, content):
            self.assertFalse(one.connection.ask("Params", "Put", {
                "image": one.image, "id": 5, "value": "ours"}).code)

    def test_always_means_also_after_a_poweroff_but_not_after_a_stop(self):
        guest = self.guest("always", steer={END: "poweroff"}, restart="always")
        guest.booted(boots=2)
        guest.connection.call("Guests", "Stop", guest={"name": "always"}, timeout_ms=0)
        found = guest.ended()
        self.assertEqual((found["state"], found["restart_at_ms"]), ("stopped", 0), found)
        boots = guest.connection.get("always", BOOTS)
        self.assertEqual(guest.wait(lambda g: True, "")["version"], found["version"])
        self.assertEqual(guest.connection.get("always", BOOTS), boots)

    def test_running(self):
        """A guest that hangs, and ignores its button: what it is while it runs, who may touch its
        image, what its QEMU's death and its stop look like."""
        guest = self.guest("hang", steer={END: "hang", BUTTON: "ignore"}, restart="on-failure")
        guest.booted()
        with self.subTest("state"):
            found = guest.wait(lambda g: g["alive"], "a sign of life")
            self.assertEqual((found["state"], found["ending"], found["ended_at_ms"]),
                             ("running", "unspecified", 0), found)
            self.assertEqual(found["accel"], ACCEL)
            self.assertTrue(alive(found["pid"]))
            self.assertRegex(self.cli("guest", "ls").text, r"(?m)^1 +hang +running +hang ")
        with self.subTest("a start of what runs is none"):
            self.assertEqual(guest.start()["pid"], found["pid"])
        self.no_second_writer(guest)
        with self.subTest("statistics"):
            stats = guest.call("Stats")
            self.assertGreater(stats["cpu_ms"], 100)
            self.assertGreater(stats["resident_bytes"], 32 << 20)
            self.assertEqual(len(stats["disks"]), 1)
            for key in ("read_bytes", "write_bytes", "flush_operations"):
                self.assertGreater(stats["disks"][0][key], 0, key)
        with self.subTest("kill -9 of QEMU"):
            os.kill(found["pid"], signal.SIGKILL)
            after = guest.wait(lambda g: g["restarts"] == 1 and g["state"] == "running",
                               "a start by itself")
            self.assertNotEqual(after["pid"], found["pid"])
            guest.booted(boots=2)
        with self.subTest("stop of one that ignores the button"):
            done = self.cli("guest", "stop", "hang", "--stop-timeout", 1, "--json")
            self.assertEqual((done.json["state"], done.json["ending"]), ("stopped", "stopped"))
            self.cli("guest", "wait", "hang", code=STOPPED)
            self.assertFalse(alive(after["pid"]))
        self.cli("check", "--image", "hang")

    def no_second_writer(self, guest):
        with self.subTest("a second writer is refused"):
            path = self.d.image_path(1, "hang")
            told = self.refused(rpc.PRECONDITION, guest.connection, "Params", "Put",
                                {"image": "hang", "id": 1, "value": "x"})
            self.assertEqual(told.reason, "IMAGE_IN_USE")
            self.assertIn("hang", told.message)
            for service, method, fields in (
                    ("Events", "Append", {"events": [{"severity": 1, "code": 9}]}),
                    ("Params", "Delete", {"id": 1}), ("Images", "Delete", {}),
                    ("Images", "Rename", {"name": "other"}), ("Images", "Defrag", {}),
                    ("Images", "Check", {"repair": True})):
                told = self.refused(rpc.PRECONDITION, guest.connection, service, method,
                                    {"image": "hang", **fields})
                self.assertEqual(told.reason, "IMAGE_IN_USE", method)
            self.assertIn("held by", run_cli("param", "put", 1, "x", "--file", path,
                                             code=FAILED).err)
        with self.subTest("a second guest is refused"):
            other = type(guest)(self, self.d, "other", "hang")
            other.call("Create", config=self.config("hang"))
            told = other.ask("Start")
            self.assertEqual((told.code, told.reason), (rpc.PRECONDITION, "IMAGE_IN_USE"), told)
            self.assertIn("hang", told.message)
            other.call("Delete", force=True)
        with self.subTest("what it wrote is read"):
            self.assertEqual(guest.connection.get("hang", BOOTS), b"1")

    def test_killed_guests_stay_down(self):
        guest = self.guest("killed", steer={END: "hang"}, restart="always")
        pid = guest.booted() and guest.get()["pid"]
        done = self.cli("guest", "kill", "killed", "--json")
        self.assertEqual((done.json["restart_at_ms"], done.json["pid"]), (0, 0))
        self.assertIn(done.json["state"], ("stopped", "crashed"))
        self.assertFalse(alive(pid))
        self.assertEqual(guest.connection.put("killed", 5, "ours"), 1)

    def test_a_crash_of_qemu_without_restart(self):
        guest = self.guest("crash", steer={END: "hang"})
        guest.booted()
        os.kill(guest.get()["pid"], signal.SIGKILL)
        found = guest.ended()
        self.assertEqual((found["state"], found["ending"], found["exit_status"]),
                         ("crashed", "crashed", -9), found)
        self.assertIn("9", found["reason"])
        self.cli("guest", "wait", "crash", code=QEMU)
        self.assertEqual(guest.connection.get("crash", BOOTS), b"1")

    def test_the_power_button_is_obeyed(self):
        guest = self.guest("button", steer={END: "wait"})
        guest.booted()
        done = self.cli("guest", "stop", "button", "--stop-timeout", BOOT_S, "--json")
        self.assertEqual((done.json["state"], done.json["ending"]), ("stopped", "poweroff"))
        self.assertEqual(guest.events()[-1], (4, "ends: wait"))

    def test_a_guest_that_rewrites_block_0_is_quarantined(self):
        guest = self.guest("spoil", steer={SPOIL: "superblock"})
        found = guest.ended()
        self.assertEqual(found["ending"], "poweroff")
        image = guest.connection.call("Images", "Get", image="spoil")["image"]
        self.assertIn("superblock", image["reason"].decode())
        self.assertIn("quarantine", found["reason"])
        told = self.refused(rpc.PRECONDITION, guest.connection, "Params", "Get",
                            {"image": "spoil", "id": 1})
        self.assertEqual(told.reason, "IMAGE_QUARANTINED")
        self.assertTrue(guest.ask("Start").code)

    @needs("qemu-io")
    def test_other_programs_find_it_locked(self):
        guest = self.guest("locked", steer={END: "hang"})
        guest.booted()
        done = subprocess.run(["qemu-io", "-f", "raw", "-c", "write 0 512",
                               self.d.image_path(1, "locked")], capture_output=True, text=True,
                              check=False)
        self.assertIn("lock", done.stderr + done.stdout)
        self.assertEqual(guest.connection.get("locked", BOOTS), b"1")


class Starts(SharedGuests):
    """What cannot start says why, with QEMU's own words, and leaves the image free."""

    ARGS = harness.limits(guest_memory_max_bytes=1 << 40,
                          guests_tenant_memory_max_bytes=1 << 41)

    def failed(self, name, words, **config):
        guest = self.guest(name, start=False, **config)
        told = guest.ask("Start")
        self.assertEqual(told.reason, "GUEST_FAILED", told)
        self.assertRegex(told.message, words)
        found = guest.get()
        self.assertEqual((found["state"], found["ending"], found["pid"]),
                         ("crashed", "not-started", 0), found)
        self.assertRegex(found["reason"], words)
        self.assertEqual(guest.connection.put(name, 5, "ours"), 1)
        return told.message

    def test_a_kernel_that_is_none(self):
        junk = self.file("junk", os.urandom(65536))
        done = run_cli("artifact", "put", junk, "--endpoint", self.d.unix, "--json")
        self.failed("junk", "kernel", kernel={"sha256": bytes.fromhex(done.json["sha256"])})

    def test_more_memory_than_there_is(self):
        self.failed("memory", "(?i)memory", memory_mib=1 << 20)

    def test_what_is_asked_for_is_checked_before(self):
        self.image("checked")
        c = self.connect(self.d)
        for more, field in (({"images": []}, "images"), ({"images": [{"name": "none"}]}, None),
                            ({"kernel": None}, "kernel"), ({"memory_mib": 1}, "memory"),
                            ({"kernel": {"sha256": bytes(32)}}, None),
                            ({"append": b"a\0b"}, "append"), ({"append": b"x" * 1025}, "append"),
                            ({"labels": [{"key": "a"}, {"key": "a"}]}, "labels"),
                            ({"kernel": {"file": "../etc/passwd"}}, None),
                            ({"images": [{"name": "checked"}] * 2}, "images"),
                            ({"cpus": 100000}, None)):
            with self.subTest(more):
                told = c.ask("Guests", "Create", {"guest": {"name": "bad"},
                                                  "config": {**self.config("checked"), **more}})
                self.assertIn(told.code, (rpc.INVALID, rpc.NOT_FOUND, rpc.PRECONDITION,
                                          rpc.EXHAUSTED), told)
                if field is not None and told.code == rpc.INVALID:
                    self.assertIn(field, " ".join(told.violations()) + told.message)
        names = [one["name"] for one in c.call("Guests", "List")["guests"]]
        self.assertNotIn(b"bad", names)

    def test_no_such_qemu(self):
        daemon = self.guest_daemon("other", args=["--qemu", "/nonexistent/qemu"])
        shared, type(self).d = self.d, daemon
        try:
            self.failed("none", "/nonexistent/qemu")
        finally:
            type(self).d = shared

    def test_a_failed_run_of_the_cli_says_it_too(self):
        self.image("said")
        junk = self.file("junk", b"no kernel at all" * 64)
        done = run_cli("guest", "run", "said", "--image", "said", "--kernel", junk, "--rm",
                       "--accel", ACCEL, "--endpoint", self.d.unix, code=FAILED)
        self.assertIn("kernel", done.err)
        listed = run_cli("guest", "ls", "--json", "--endpoint", self.d.unix).json["guests"]
        self.assertNotIn("said", [one["name"] for one in listed])


class Watch(SharedGuests):
    """A watch shows what a guest appends within 100 ms of its being in the file."""

    TICKS = 30

    def test_latency(self):
        guest = self.guest("ticks", steer={EVENTS: self.TICKS, INTERVAL_MS: 150, END: "wait"})
        path, arrived, written = self.d.image_path(1, "ticks"), {}, {}
        guest.booted()
        done, deadline = threading.Event(), time.monotonic() + BOOT_S

        def look():  # at the write pointer, in the first bytes of block 17
            with open(path, "rb", buffering=0) as image:
                while not done.wait(0.001) and time.monotonic() < deadline:
                    count = int.from_bytes(os.pread(image.fileno(), 4, 17 * 512), "big")
                    now = time.monotonic()
                    for index in range(max(written, default=-1) + 1, count):
                        written[index] = now

        def follow():
            cursor = b""
            try:
                with self.d.connect() as c:
                    while self.TICKS not in arrived and time.monotonic() < deadline:
                        told = c.call("Events", "Watch", image="ticks", cursor=cursor, start=2,
                                      wait_ms=20000)
                        now, cursor = time.monotonic(), told["cursor"]
                        for event in told["events"]:
                            arrived[event["index"]] = now
            finally:
                done.set()

        harness.threads(2, lambda n: (look, follow)[n]())
        # What was there before both looked says nothing.
        first = min(written.values())
        late = sorted(arrived[i] - at for i, at in written.items() if at > first and i in arrived)
        told = (f"{len(late)} events came {late[len(late) // 2] * 1000:.1f} ms (median) and "
                f"{late[-1] * 1000:.1f} ms (most) after they were in the file")
        print(told)
        self.assertGreater(len(late), self.TICKS // 2)
        # A machine that is busy with other things may hold up a few.
        self.assertLess(late[len(late) * 9 // 10], 0.1, told)


if __name__ == "__main__":
    harness.main()
