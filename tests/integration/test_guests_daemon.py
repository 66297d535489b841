"""Guests over restarts of the daemon, and calls about them that are made again."""
import contextlib
import errno
import os
import signal
import sqlite3
import threading
import time
import uuid

import harness
import rpc
from faults import Faults
from guestcase import ALWAYS, ENDINGS, GuestCase, NEVER, ON_FAILURE, STATES, alive, qemus
from protowire import SCHEMA


class Requests(GuestCase):
    def bad(self, field, method="Create", **fields):
        body = {"guest": {"name": "g"}, **fields}
        reply = self.refused(rpc.INVALID, self.c, "Guests", method, body)
        self.assertEqual(reply.violations(), [field])

    def test_gates(self):
        self.start()
        good = self.config()
        image = {"name": "a"}
        for field, change in (
                ("config.images", {"images": []}),
                ("config.images", {"images": [{"name": f"i{n}"} for n in range(17)]}),
                ("config.images[1]", {"images": [image, image]}),
                ("config.images[0].name", {"images": [{"name": "../x"}]}),
                ("config.images[0]", {"images": [{"name": "a", "tenant": 2}]}),
                ("config.kernel", {"kernel": None}), ("config.kernel", {"kernel": {}}),
                ("config.kernel.sha256", {"kernel": {"sha256": b"short"}}),
                ("config.kernel.file", {"kernel": {"file": "../vmlinuz"}}),
                ("config.kernel.file", {"kernel": {"file": "/etc/passwd"}}),
                ("config.kernel.file", {"kernel": {"file": ".hidden"}}),
                ("config.initrd", {"initrd": {}}),
                ("config.append", {"append": "x" * 1025}),
                ("config.append", {"append": "a\nb"}),
                ("config.memory_mib", {"memory_mib": 31}),
                ("config.cpus", {"cpus": 9}), ("config.accel", {"accel": 9}),
                ("config.restart", {"restart": 4}),
                ("config.boot_deadline_ms", {"boot_deadline_ms": 3600001}),
                ("config.stop_timeout_ms", {"stop_timeout_ms": 3600001}),
                ("config.labels[0]", {"labels": [{"key": "", "value": "x"}]}),
                ("config.labels[1]", {"labels": [{"key": "k"}, {"key": "k"}]}),
                ("config.labels", {"labels": [{"key": str(n)} for n in range(17)]})):
            with self.subTest(field=field, change=change):
                self.bad(field, config={k: v for k, v in (good | change).items() if v is not None})
        self.bad("config")
        self.bad("guest", guest=None, config=good)
        self.bad("guest.name", guest={"name": ".x"}, config=good)
        self.bad("guest.tenant", guest={"name": "x", "tenant": 65536}, config=good)
        self.bad("request_id", config=good, request_id="no uuid")
        self.bad("wait_ms", "Wait", wait_ms=60001)
        self.bad("wait_ms", "ReadConsole", wait_ms=60001)
        self.bad("limit", "ReadConsole", limit=(256 << 10) + 1)
        self.bad("writer_id", "WriteConsole", writer_id=b"short", data=b"x")
        self.bad("data", "WriteConsole", writer_id=b"w" * 16, data=b"")
        self.bad("timeout_ms", "Stop", timeout_ms=3600001)
        self.assertEqual(self.c.call("Guests", "List")["guests"], [])

    def test_files_of_the_folder_alone(self):
        self.start()
        (self.files / "link").symlink_to("/etc/passwd")
        (self.files / "sub").mkdir()
        for name, code in (("link", rpc.NOT_FOUND), ("absent", rpc.NOT_FOUND),
                           ("sub", rpc.INVALID)):
            with self.subTest(name=name):
                self.refused(code, self.c, "Guests", "Create", {
                    "guest": {"name": "g"}, "config": self.config() | {"kernel": {"file": name}}})

    def test_absent_ones(self):
        self.start()
        self.create()
        # What is another tenant's, and of a tenant that has none, is as if it were not there.
        for guest in ({"name": "x"}, {"name": "g", "tenant": 2}):
            for method, more in (("Get", {}), ("Start", {}), ("Stop", {}), ("Kill", {}),
                                 ("Delete", {}), ("Wait", {}), ("Stats", {}), ("ReadConsole", {}),
                                 ("WriteConsole", {"writer_id": b"w" * 16, "data": b"x"})):
                with self.subTest(guest=guest, method=method):
                    reply = self.refused(rpc.NOT_FOUND, self.c, "Guests", method,
                                         {"guest": guest, **more})
                    self.assertRegex(reply.message, r"^no guest \d/[xg]$")
        reply = self.refused(rpc.NOT_FOUND, self.c, "Guests", "Create", {
            "guest": {"name": "y"}, "config": self.config() | {"images": [{"name": "none"}]}})
        self.assertIn("no image 1/none", reply.message)

    def test_a_full_disk_is_told_so(self):
        faults = Faults(self.dir)
        self.env = faults.environment()
        self.start()
        config = self.config("end=poweroff")
        for number in (errno.ENOSPC, errno.EDQUOT):
            faults.fail("folder", "guests/", number)
            reply = self.refused(rpc.EXHAUSTED, self.c, "Guests", "Create",
                                 {"guest": {"name": "g"}, "config": config})
            self.assertEqual(reply.reason, "NO_SPACE")
            self.assertIn(os.strerror(number), reply.message)
        self.refused(rpc.NOT_FOUND, self.c, "Guests", "Get", {"guest": {"name": "g"}})
        faults.clear()
        self.c.call("Guests", "Create", guest={"name": "g"}, config=config)
        faults.fail("folder", "g1-1", errno.ENOSPC)
        reply = self.refused(rpc.EXHAUSTED, self.c, "Guests", "Start", {"guest": {"name": "g"}})
        self.assertEqual(reply.reason, "NO_SPACE")
        faults.clear()
        self.guest("Start")
        self.wait_for("stopped")

    def test_list_in_pages(self):
        self.start()
        names = [f"g{n:02}" for n in range(7)]
        for name in reversed(names):
            self.create(name)
        got, token = [], b""
        while True:
            page = self.c.call("Guests", "List", page_size=3, page_token=token)
            got += [g["name"].decode() for g in page["guests"]]
            token = page["next_page_token"]
            if not token:
                break
        self.assertEqual(got, names)
        self.assertEqual(len(self.c.call("Guests", "List", all_tenants=True)["guests"]), 7)
        self.assertEqual(self.c.call("Guests", "List", tenant=2)["guests"], [])
        for fields in ({"page_size": 101}, {"page_token": b"made up"},
                       {"tenant": 1, "all_tenants": True}, {"tenant": 70000}):
            self.refused(rpc.INVALID, self.c, "Guests", "List", fields)

    def test_calls_that_are_repeated(self):
        self.start()
        ids = {m: str(uuid.uuid4()) for m in ("Create", "Start", "Stop", "Delete")}
        config = self.config()
        create = {"guest": {"name": "g"}, "config": config, "request_id": ids["Create"]}
        first = self.c.call("Guests", "Create", **create)["guest"]
        self.assertEqual(self.c.call("Guests", "Create", **create)["guest"], first)
        started = self.guest("Start", request_id=ids["Start"])
        self.assertEqual(self.guest("Start", request_id=ids["Start"]), started)
        self.guest("Kill")
        self.wait_for("stopped")
        # What was done is not done again.
        self.assertEqual(self.guest("Start", request_id=ids["Start"]), started)
        self.assertEqual(self.state(), "stopped")
        self.c.call("Guests", "Delete", guest={"name": "g"}, request_id=ids["Delete"])
        self.c.call("Guests", "Delete", guest={"name": "g"}, request_id=ids["Delete"])
        self.assertEqual(self.c.call("Guests", "Create", **create)["guest"], first)
        self.refused(rpc.NOT_FOUND, self.c, "Guests", "Get", {"guest": {"name": "g"}})
        self.refused(rpc.INVALID, self.c, "Guests", "Create",
                     create | {"guest": {"name": "other"}})

    def test_acts_are_in_the_audit(self):
        self.start()
        self.create(start=True)
        self.guest("Kill")
        self.wait_for("stopped")
        self.c.call("Guests", "Delete", guest={"name": "g"})
        records = [r for r in self.c.call("Audit", "List")["records"]
                   if r["method"].startswith(b"Guests.")]
        self.assertEqual([r["method"] for r in records],
                         [b"Guests.Delete", b"Guests.Kill", b"Guests.Create"])
        self.assertTrue(all(r["object"] == b"guest 1/g" for r in records), records)


class Daemons(GuestCase):
    """What a restart of the daemon leaves of guests."""

    def several(self, count, words="print=hi", **more):
        return {f"g{n}": self.create(f"g{n}", words, images=(f"i{n}",), start=True, **more)
                for n in range(count)}

    def test_all_are_adopted(self):
        for end in ("stop", "kill9"):
            with self.subTest(end=end):
                if not hasattr(self, "d"):
                    self.start()
                before = self.several(4, restart=ALWAYS)
                getattr(self.d, end)()
                for guest in before.values():
                    os.kill(guest["pid"], 0)
                self.again()
                for name, was in before.items():
                    guest = self.get(name)
                    self.assertEqual((STATES[guest["state"]], guest["pid"]),
                                     ("running", was["pid"]), guest["reason"])
                    self.assertTrue(guest["adopted"])
                    self.assertEqual((guest["restarts"], guest["started_at_ms"]),
                                     (0, was["started_at_ms"]))
                    self.assertGreater(guest["version"], was["version"])
                reply = self.refused(rpc.PRECONDITION, self.c, "Params", "Put",
                                     {"image": "i0", "id": 1, "value": b"x"})
                self.assertIn("1/g0", reply.message)
                for name in before:
                    self.guest("Stop", name)
                for name in before:
                    guest = self.wait_for("stopped", name=name)
                    self.assertEqual(ENDINGS[guest["ending"]], "poweroff")
                    self.c.call("Guests", "Delete", guest={"name": name})
                self.c.put("i0", 1, b"mine again")

    def test_endings_while_no_daemon_was_there(self):
        self.start()
        cases = {"poweroff": ("stopped", "poweroff"), "panic": ("crashed", "panic"),
                 "reboot": ("stopped", "reboot"), "untraced": ("lost", "lost"),
                 "crash": ("lost", "lost")}  # the last to end
        for end in cases:
            how = "reboot untraced" if end == "untraced" else end
            self.create(end, f"after=2500 end={how}", images=(end,), start=True)
        pids = {end: self.get(end)["pid"] for end in cases}
        self.d.kill9()
        self.eventually(lambda: not alive(pids["crash"]), "it lives on")
        threading.Event().wait(0.3)  # the others pause and stay: nothing tells when
        self.again()
        for end, wanted in cases.items():
            guest = self.wait_for("stopped", "crashed", "lost", name=end)
            self.assertEqual((STATES[guest["state"]], ENDINGS[guest["ending"]]), wanted)
            self.assertFalse(alive(pids[end]))
            self.c.put(end, 1, b"mine again")
            self.assertNotIn(b"runstate", guest["reason"])
        self.assertEqual(self.get("untraced")["reason"],
                         b"powered off or asked for a reboot while no daemon was there")
        self.assertEqual([p.name for p in (self.d.data_dir / "run").glob("g*")], [])

    def test_lost_ones_are_started_again_where_that_was_asked_for(self):
        self.start()
        self.create(restart=ON_FAILURE, start=True)
        pid = self.get()["pid"]
        self.d.kill9()
        os.kill(pid, signal.SIGKILL)
        self.eventually(lambda: not alive(pid), "it lives on")
        self.again()
        self.eventually(lambda: self.get()["restarts"] == 1 and self.state() == "running",
                        "not started again")

    def test_a_stop_holds(self):
        self.start()
        self.create(words="button=ignore", restart=ALWAYS, stop_timeout_ms=600, start=True)
        pid = self.get()["pid"]
        self.guest("Stop")
        self.d.kill9()
        os.kill(pid, 0)
        self.again()
        guest = self.wait_for("stopped")
        self.assertEqual((ENDINGS[guest["ending"]], guest["restarts"]), ("stopped", 0))

    def test_time_of_a_stop_holds(self):
        """Over any number of daemons, none of which is there for so long."""
        self.start()
        self.create(words="button=ignore", stop_timeout_ms=600000, start=True)
        began = time.monotonic()
        self.guest("Stop", timeout_ms=3000)
        while self.state() == "stopping" and time.monotonic() - began < 20:
            self.d.kill9()
            threading.Event().wait(0.5)
            self.again()
        took = time.monotonic() - began
        guest = self.wait_for("stopped")
        # It may quit when there is no daemon to see it.
        self.assertIn(ENDINGS[guest["ending"]], ("stopped", "lost"))
        self.assertTrue(2.5 < took < 15, took)

    def test_ephemeral_ones_end_with_it(self):
        self.start()
        for end in ("stop", "kill9"):
            with self.subTest(end=end):
                guest = self.create(end, images=(end,), ephemeral=True, start=True)
                getattr(self.d, end)()
                self.eventually(lambda pid=guest["pid"]: not alive(pid), "it lives on")
                self.again()
                state = self.wait_for("stopped", "lost", name=end)["state"]
                self.assertEqual(STATES[state], "stopped" if end == "stop" else "lost")
                self.c.put(end, 1, b"mine again")

    def test_ephemeral_ones_are_started_again_by_their_policy(self):
        """The same, whichever way the daemon ended."""
        self.start()
        for end in ("stop", "kill9"):
            for restart in (NEVER, ON_FAILURE, ALWAYS):
                name = f"{end}{restart}"
                self.create(name, images=(name,), ephemeral=True, restart=restart, start=True)
            pids = [self.get(f"{end}{r}")["pid"] for r in (NEVER, ON_FAILURE, ALWAYS)]
            getattr(self.d, end)()
            self.eventually(lambda pids=pids: not any(map(alive, pids)), "one lives on")
            self.again()
            for restart in (ON_FAILURE, ALWAYS):
                with self.subTest(end=end, restart=restart):
                    guest = self.wait_for("running", name=f"{end}{restart}")
                    self.assertEqual(guest["restarts"], 1)
                    self.guest("Kill", f"{end}{restart}")
            with self.subTest(end=end):
                guest = self.wait_for("stopped", "lost", name=f"{end}{NEVER}")
                self.assertEqual(guest["restarts"], 0)
                if end == "stop":
                    self.assertEqual(guest["reason"], b"ended with the daemon")

    def test_a_pause_before_a_restart_goes_on(self):
        self.start(guest_backoff_ms=3600000, guest_backoff_max_ms=3600000)
        self.create(words="end=crash", restart=ALWAYS, start=True)
        at = self.wait_for("backoff")["restart_at_ms"]
        self.eventually(lambda: self.recorded() == "backoff", "not recorded")
        self.d.kill9()
        self.again()
        guest = self.get()
        self.assertEqual((STATES[guest["state"]], guest["restart_at_ms"]), ("backoff", at))
        again = self.guest("Start")  # which does not wait for that
        self.assertGreater(again["started_at_ms"], guest["started_at_ms"])

    def test_killed_at_any_moment_of_a_start(self):
        """Neither orphan nor phantom: what says that it runs has a QEMU, and no other is there."""
        self.start()
        for n in range(8):
            name = f"g{n}"
            self.create(name, images=(name,))
            self.c.start("Guests", "Start", {"guest": {"name": name}})
            threading.Event().wait(n * 0.02)
            self.d.kill9()
            self.again()
            guest = self.get(name)
            state = STATES[guest["state"]]
            with self.subTest(n=n, state=state):
                self.eventually(lambda n=name: self.state(n) in ("running", "created", "crashed",
                                                                 "lost"), state)
                guest = self.get(name)
                self.assertEqual(bool(guest["pid"]), STATES[guest["state"]] == "running")
        running = {self.get(f"g{n}")["pid"] for n in range(8)} - {0}
        self.eventually(lambda: qemus(self.d.data_dir) == running, "orphans")

    def test_one_that_was_only_just_spawned(self):
        """It is not there when the daemon looks for it, and does not come up behind its back."""
        self.start()
        for words in ("late=400", "latelock=400"):
            with self.subTest(words=words):
                self.create("g", words)
                self.c.start("Guests", "Start", {"guest": {"name": "g"}})
                self.eventually(lambda: qemus(self.d.data_dir), "not spawned")
                self.d.kill9()
                self.again()
                guest = self.wait_for("crashed")
                self.assertEqual(ENDINGS[guest["ending"]], "not_started")
                self.eventually(lambda: not qemus(self.d.data_dir), "an orphan")
                self.assertEqual([p.name for p in (self.d.data_dir / "run").glob("g*")], [])
                self.c.put("a", 1, b"mine again")
                self.c.call("Guests", "Delete", guest={"name": "g"})

    def test_one_daemon_a_folder_of_runs(self):
        self.args += ["--run-dir", str(self.dir / "run")]
        self.start()
        other = self.daemon("other", start=False, args=self.args)
        code, log = other.refuses_to_start()
        self.assertEqual(code, 1)
        self.assertIn("another spaceblockd", log)

    def test_leftovers_go(self):
        self.start()
        self.create(start=True)
        self.d.kill9()
        for path in ("run/g99-1", f"guests/{uuid.uuid4()}"):
            (self.d.data_dir / path).mkdir(mode=0o700)
        self.again()
        self.assertEqual([p.name for p in (self.d.data_dir / "run").glob("g*")], ["g1-1"])
        self.assertEqual(len(list((self.d.data_dir / "guests").glob("*-*-*"))), 1)

    def test_one_that_cannot_be_read(self):
        """It is left out, and keeps neither the others nor the daemon."""
        self.start()
        self.create("good")
        self.create("bad", images=("b",))
        self.d.stop()
        with contextlib.closing(sqlite3.connect(self.d.data_dir / "audit.db")) as db:
            db.execute("UPDATE guest_rows SET config = x'ffff' WHERE name = 'bad'")
            db.commit()
        self.again()
        self.assertEqual([g["name"] for g in self.c.call("Guests", "List")["guests"]], [b"good"])
        self.assertRegex(self.d.log(), "event=guest-not-loaded tenant=1 name=bad")

    def test_live_one_that_cannot_be_read(self):
        """What is its own is left alone, until a daemon can read it."""
        self.start()
        pid = self.create("bad", "print=hi", start=True)["pid"]
        self.d.kill9()
        with contextlib.closing(sqlite3.connect(self.d.data_dir / "audit.db")) as db:
            config = db.execute("SELECT config FROM guest_rows").fetchone()[0]
            db.execute("UPDATE guest_rows SET config = ?",  # without a kernel
                       (SCHEMA.encode("GuestConfig", {"images": [{"name": "a"}]}),))
            db.commit()
        self.again()
        self.assertRegex(self.d.log(), "event=guest-not-loaded tenant=1 name=bad")
        self.assertTrue(alive(pid), "it was taken for an orphan")
        self.assertEqual(len(list((self.d.data_dir / "guests").glob("*-*-*"))), 1)
        reply = self.refused(rpc.PRECONDITION, self.c, "Params", "Put",
                             {"image": "a", "id": 1, "value": b"x"})
        self.assertIn("1/bad", reply.message)
        self.d.kill9()
        with contextlib.closing(sqlite3.connect(self.d.data_dir / "audit.db")) as db:
            db.execute("UPDATE guest_rows SET config = ?", (config,))
            db.commit()
        self.again()
        guest = self.get("bad")
        self.assertEqual((STATES[guest["state"]], guest["pid"]), ("running", pid))

    def test_one_whose_console_log_cannot_be_read(self):
        self.start()
        pid = self.create(words="echo", start=True)["pid"]
        self.d.kill9()
        folder, = (self.d.data_dir / "guests").glob("*-*-*")
        folder.rename(self.dir / "aside")
        folder.write_bytes(b"no folder")
        self.again()
        self.assertRegex(self.d.log(), "event=console-log-stopped guest=1/g")
        guest = self.get()
        self.assertEqual((STATES[guest["state"]], guest["pid"]), ("running", pid))
        self.assertEqual(folder.read_bytes(), b"no folder")
        self.c.call("Guests", "WriteConsole", guest={"name": "g"}, writer_id=b"w" * 16,
                    data=b"abc")
        piece = self.c.call("Guests", "ReadConsole", guest={"name": "g"}, offset=0, wait_ms=20000)
        self.assertTrue(b"abc".startswith(piece["data"]) and piece["data"], piece)
        self.guest("Kill")
        self.wait_for("stopped")

    def test_process_that_cannot_be_watched_at_first(self):
        """Its end is seen all the same, and nothing is left of it."""
        faults = Faults(self.dir)
        self.env = faults.environment()
        self.start()
        faults.fail("watch", "pidfd", errno.ENOSPC)
        for end in ("crash", "kill"):
            with self.subTest(end=end):
                pid = self.create(end, "end=crash" if end == "crash" else "", images=(end,),
                                  start=True)["pid"]
                if end == "kill":
                    self.guest("Kill", end)
                self.eventually(lambda pid=pid: not alive(pid), "it lives on")
                faults.clear()
                guest = self.wait_for("crashed", "stopped", name=end)
                self.assertEqual(guest["exit_status"], -9)
                self.assertFalse(os.path.exists(f"/proc/{pid}"), "it was not reaped")
                faults.fail("watch", "pidfd", errno.ENOSPC)
        self.assertRegex(self.d.log(), "event=guest-not-watched guest=1/crash")
        faults.clear()
        # The same of one that is adopted.
        pid = self.create(start=True)["pid"]
        self.d.kill9()
        faults.fail("watch", "pidfd", errno.ENOSPC)
        self.again()
        guest = self.wait_for("running")
        self.assertEqual(guest["pid"], pid)
        self.guest("Kill")
        self.eventually(lambda: not alive(pid), "it lives on")
        faults.clear()
        self.wait_for("stopped")

    def test_stopped_ones_cost_nothing(self):
        self.start()
        for n in range(100):
            self.create(f"g{n}")
        self.c.call("Server", "Ping")
        memory, cpu = self.d.memory_kb(), self.d.cpu_s()
        threading.Event().wait(1.5)
        self.assertLess(self.d.cpu_s() - cpu, 0.1)
        if not self.d.is_sanitized():
            self.assertLess(memory, 64 << 10)


if __name__ == "__main__":
    harness.main()
