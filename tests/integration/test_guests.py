"""Guests over RPC, with a program in QEMU's place that does as it is told: states, endings, restarts,
bounds, consoles, and what a restart of the daemon leaves of them."""
import os
import pathlib
import signal
import time
import unittest
import uuid

import harness
import rpc
from protowire import SCHEMA

FAKE = pathlib.Path(__file__).resolve().parent / "fake_qemu.py"
STATES = {v: k.removeprefix("GUEST_STATE_").lower() for k, v in SCHEMA.enums["GuestState"].items()}
ENDINGS = {v: k.removeprefix("GUEST_ENDING_").lower()
           for k, v in SCHEMA.enums["GuestEnding"].items()}
NEVER, ON_FAILURE, ALWAYS = 1, 2, 3


class GuestCase(harness.Case):
    def setUp(self):
        super().setUp()
        self.files = self.dir / "files"
        self.files.mkdir()
        (self.files / "vmlinuz").write_bytes(b"kernel")
        self.args = ["--qemu", str(FAKE), "--guest-files", str(self.files), "--accelerator", "tcg",
                     "--http", "127.0.0.1:0"]

    def start(self, **limits):
        values = {"guest_quit_ms": 2000, "guest_backoff_ms": 50, "guest_backoff_max_ms": 400}
        self.d = self.daemon(args=self.args + harness.limits(**(values | limits)))
        self.addCleanup(self.end_all)
        self.c = self.connect(self.d)
        return self.c

    def again(self):
        """The daemon that was killed or stopped comes back."""
        self.d.start()
        self.c = self.connect(self.d)
        return self.c

    def end_all(self):
        """QEMUs outlive their daemon."""
        for path in self.d.data_dir.glob("run/g*/p"):
            try:
                os.kill(int(path.read_text() or 0) or -1, signal.SIGKILL)
            except (OSError, ValueError):
                pass

    def config(self, words="", images=("a",), **more):
        for name in images:
            self.c.ask("Images", "Create", {"image": name, "total_blocks": 64})
        return {"images": [{"name": n} for n in images], "kernel": {"file": "vmlinuz"},
                "append": words, **more}

    def create(self, name="g", words="", images=("a",), start=False, **more):
        return self.c.call("Guests", "Create", guest={"name": name}, start=start,
                           config=self.config(words, images, **more))["guest"]

    def get(self, name="g"):
        return self.c.call("Guests", "Get", guest={"name": name})["guest"]

    def state(self, name="g"):
        return STATES[self.get(name)["state"]]

    def wait_for(self, *states, name="g", seconds=harness.WAIT_S):
        """By Guests.Wait, as users do."""
        deadline, known = time.monotonic() + seconds, 0
        while time.monotonic() < deadline:
            guest = self.c.call("Guests", "Wait", guest={"name": name}, known_version=known,
                                wait_ms=1000)["guest"]
            if STATES[guest["state"]] in states:
                return guest
            known = guest["version"]
        raise AssertionError(f"{name} is {STATES[guest['state']]}: {guest['reason']}, not {states}")

    def run(self, result=None):
        return super().run(result)

    def guest(self, method, name="g", **more):
        return self.c.call("Guests", method, guest={"name": name}, **more).get("guest")


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


if __name__ == "__main__":
    harness.main()
