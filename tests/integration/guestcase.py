"""What tests of guests share: a daemon with a program in QEMU's place (fake_qemu.py) that does as
it is told."""
import contextlib
import os
import pathlib
import signal
import sqlite3
import time

import harness
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
        self.env = None

    def start(self, **limits):
        values = {"guest_quit_ms": 2000, "guest_backoff_ms": 50, "guest_backoff_max_ms": 400}
        self.d = self.daemon(args=self.args + harness.limits(**(values | limits)), env=self.env)
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

    def recorded(self):
        """The state of the one guest, as it outlives the daemon."""
        with contextlib.closing(sqlite3.connect(
                f"file:{self.d.data_dir}/audit.db?mode=ro", uri=True)) as db:
            return db.execute("SELECT state FROM guests").fetchone()[0]

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

    def guest(self, method, name="g", **more):
        return self.c.call("Guests", method, guest={"name": name}, **more).get("guest")


def alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def qemus(data_dir):
    """Pids of what runs in QEMU's place for a daemon."""
    found = set()
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if b"-pidfile" in words and bytes(data_dir) in words and alive(int(path.parent.name)):
            found.add(int(path.parent.name))
    return found
