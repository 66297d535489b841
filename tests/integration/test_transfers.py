"""Long transfers by the CLI: the progress bar on a terminal, interruption, pipes."""
import os
import signal
import subprocess
import threading

import harness
from faults import Faults
from targets import DaemonTarget, FileTarget

MIB = 1 << 20
BAR_AFTER_S = 0.2  # a bar is drawn for what takes longer than a tenth of a second


class Transfers:
    """start(words) runs the CLI on an image whose writes self.faults controls."""

    def setUp(self):
        super().setUp()
        self.faults = Faults(self.dir)
        self.t = self.target()
        self.addCleanup(self.faults.release_all)
        self.data = os.urandom(MIB) * 8
        self.source = self.file("source", self.data)

    def start(self, *words, **how):
        process = subprocess.Popen([harness.CLI, *map(str, words), *self.t.flags],
                                   env=harness.environment(**self.cli_env()),
                                   preexec_fn=harness.die_with_parent, **how)
        self.addCleanup(harness.end, process)
        return process

    def held_put(self, **how):
        hold = self.faults.hold("write", self.t.path.name)
        process = self.start("dp", "put", "p", self.source, **how)
        hold.wait()
        return hold, process

    def test_bar_on_a_terminal_only(self):
        master, slave = os.openpty()
        hold, process = self.held_put(stderr=slave, stdout=subprocess.PIPE)
        os.close(slave)
        threading.Event().wait(BAR_AFTER_S)
        hold.release()
        process.communicate(timeout=harness.WAIT_S)
        seen = b""
        try:
            while piece := os.read(master, 65536):
                seen += piece
        except OSError:  # the other end of the terminal is closed
            pass
        os.close(master)
        self.assertEqual(process.returncode, 0, seen)
        self.assertRegex(seen, rb"\[#* *\] +\d+%")
        self.assertTrue(seen.endswith(b"\r\x1b[K"), "the bar is left standing")
        self.t.cli("dp delete p")
        hold, process = self.held_put(stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        threading.Event().wait(BAR_AFTER_S)
        hold.release()
        self.assertNotIn(b"%", process.communicate(timeout=harness.WAIT_S)[1])

    def test_interrupted_put(self):
        free = self.t.json("inspect").get("free_blocks")
        for number in (signal.SIGINT, signal.SIGTERM):
            hold, process = self.held_put(stderr=subprocess.PIPE, stdout=subprocess.PIPE)
            process.send_signal(number)
            hold.release()
            _, said = process.communicate(timeout=harness.WAIT_S)
            self.assertEqual(process.returncode, harness.FAILED)
            found = self.t.json("dp list")["products"]
            self.assertEqual(found, [], "a product of an interrupted transfer")
            self.after_interrupt(said.decode(), free)
        self.t.cli("dp put p", self.source)
        self.assertEqual(self.t.cli("dp get p").out, self.data)

    def test_reader_that_leaves(self):
        self.t.cli("dp put p", self.source)
        process = self.start("dp", "get", "p", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(process.stdout.read(1000), self.data[:1000])
        process.stdout.close()
        err = process.stderr.read()
        self.assertNotEqual(process.wait(harness.WAIT_S), 0)
        harness.no_report(err.decode(), "the CLI")

    def test_pipes_of_any_pace(self):
        process = self.start("dp", "put", "piped", "-", stdin=subprocess.PIPE,
                             stdout=subprocess.DEVNULL)
        for first in range(0, 3 * MIB, 100_000):
            process.stdin.write(self.data[first:min(first + 100_000, 3 * MIB)])
            process.stdin.flush()
        process.stdin.close()
        self.assertEqual(process.wait(harness.WAIT_S), 0)
        self.assertEqual(self.t.cli("dp get piped -").out, self.data[:3 * MIB])


class OnFileTransfers(Transfers, harness.Case):
    def target(self):
        one = FileTarget(self.dir / "image.img")
        one.make(blocks=12000, size=4096)
        return one

    def cli_env(self):
        return self.faults.environment()

    def after_interrupt(self, said, free):
        self.assertIn("interrupted", said)
        self.assertEqual(self.t.json("inspect").get("free_blocks"), free)


class DaemonTransfers(Transfers, harness.Case):
    def target(self):
        self.d = self.daemon(env=self.faults.environment())
        one = DaemonTarget(self.d, "image")
        one.make(blocks=12000, size=4096)
        return one

    def cli_env(self):
        return {}

    def after_interrupt(self, said, free):
        """The upload keeps its space, to be continued."""
        self.assertRegex(said, r"\d+ of 8388608 bytes are there; the same command goes on")
        self.assertLess(self.t.json("inspect").get("free_blocks"), free)


if __name__ == "__main__":
    harness.main()
