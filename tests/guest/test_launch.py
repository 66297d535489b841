"""spaceblock launch: real guests on an image file, without a daemon."""
import os
import pty
import select
import signal
import subprocess
import time

import harness
from harness import Case, run_cli
from machine import (ACCEL, BOOTS, BUTTON, CONSOLE, END, EVENTS, PRODUCT_SIZE, SPOIL, boot_files,
                     product_bytes)

PANIC, REBOOT, STOPPED = 6, 7, 8
BOOTED = b"guest: boot"


class Launch(Case):
    def setUp(self):
        super().setUp()
        self.kernel, self.initrd = boot_files()
        self.image = self.dir / "g.img"

    def words(self, *more):
        return ["launch", "--file", str(self.image), "--kernel", str(self.kernel), "--initrd",
                str(self.initrd), "--accel", ACCEL, "--append", "quiet", *more]

    def launch(self, *more, code=harness.DONE):
        return run_cli(*self.words(*more), code=code)

    def steer(self, **values):
        if not self.image.exists():
            run_cli("init", "--file", self.image, "--blocks", "4096")
        for number, value in values.items():
            run_cli("param", "put", number[1:], str(value), "--file", self.image)

    def started(self, stdin=subprocess.DEVNULL):
        """A launch in the background that has booted; and what it printed so far."""
        process = subprocess.Popen([harness.CLI, *self.words()], stdin=stdin,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   preexec_fn=harness.die_with_parent)
        self.addCleanup(harness.end, process)
        out = b""
        while BOOTED not in out:
            piece = process.stdout.read1(4096)
            if not piece:
                self.fail(f"it ended: {out!r} {process.stderr.read()!r}")
            out += piece
        return process

    def test_an_absent_file_is_made_and_the_guest_uses_it(self):
        done = self.launch("--blocks", "2048", "--json")
        self.assertIn(BOOTED.decode(), done.text)
        self.assertIn("made", done.err)
        self.assertEqual(self.image.stat().st_size, 2048 * 512)
        self.assertIn('"ending": "poweroff"', done.text)
        self.steer(**{f"p{PRODUCT_SIZE}": 70000, f"p{EVENTS}": 3})
        self.launch()
        boots = run_cli("param", "get", BOOTS, "--file", self.image, "--json").json
        self.assertEqual(boots["value"], "2")
        events = run_cli("event", "list", "--file", self.image, "--json").json["events"]
        self.assertEqual([e["code"] for e in events], [1, 4, 1, 3, 2, 2, 2, 4])
        run_cli("dp", "get", "guest/data", self.dir / "out", "--file", self.image)
        self.assertEqual((self.dir / "out").read_bytes(), product_bytes(70000))
        run_cli("check", "--file", self.image)

    def test_the_exit_status_tells_how_it_ended(self):
        for end, code in (("panic", PANIC), ("reboot", REBOOT)):
            self.steer(**{f"p{END}": end})
            with self.subTest(end):
                self.launch(code=code)

    def test_sigint_ends_a_guest_that_hangs(self):
        self.steer(**{f"p{END}": "hang", f"p{BUTTON}": "ignore"})
        process = self.started()
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=harness.WAIT_S)
        self.assertEqual(process.returncode, STOPPED, err)
        self.assertLess(time.monotonic() - begin, 10)
        run_cli("param", "put", "99", "free again", "--file", self.image)

    def test_ctrl_a_x_on_a_terminal_ends_it(self):
        self.steer(**{f"p{END}": "wait"})
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        process = self.started(stdin=slave)
        os.close(slave)
        os.write(master, b"\x03")  # the guest's, not ours
        self.assertFalse(select.select([process.stderr], [], [], 0.3)[0])
        os.write(master, b"\x01x")
        process.communicate(timeout=harness.WAIT_S)
        self.assertEqual(process.returncode, STOPPED)

    def test_a_second_writer_is_refused_while_it_runs(self):
        self.steer(**{f"p{END}": "wait"})
        process = self.started()
        done = run_cli("param", "put", "1", "x", "--file", self.image, code=harness.FAILED)
        self.assertIn("held by", done.err)
        self.launch(code=harness.FAILED)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=harness.WAIT_S)
        self.assertEqual(process.returncode, STOPPED)

    def test_much_output_arrives(self):
        size = 2_000_000
        self.steer(**{f"p{CONSOLE}": size})
        self.assertGreaterEqual(len(self.launch().out), size)

    def test_a_spoilt_superblock_is_found(self):
        self.steer(**{f"p{SPOIL}": "superblock"})
        done = self.launch(code=None)
        self.assertIn("cannot be checked", done.err)
        self.assertNotEqual(done.code, harness.DONE)

    def test_what_cannot_start_says_why(self):
        self.steer()
        junk = self.file("junk", b"no kernel at all" * 64)
        done = run_cli("launch", "--file", self.image, "--kernel", junk, "--initrd", self.initrd,
                       code=harness.FAILED)
        self.assertRegex(done.err, "ended before the guest ran.*kernel")
        done = self.launch("--qemu", "/nonexistent/qemu", code=harness.FAILED)
        self.assertIn("could not be started", done.err)
        done = self.launch("--memory", "1048576", code=harness.FAILED)
        self.assertIn("memory", done.err.lower())
        self.launch("--accel", "warp", code=harness.USAGE)
        run_cli("launch", "--file", self.image, "--kernel", "/nonexistent", "--initrd",
                self.initrd, code=harness.USAGE)
        run_cli("check", "--file", self.image)


if __name__ == "__main__":
    harness.main()
