"""Long transfers by the CLI: the progress bar on a terminal, interruption, pipes, and daemons that
take less than others do.
"""
import os
import signal
import subprocess
import threading

import harness
from faults import Faults
from targets import DaemonTarget, FileTarget

KIB, MIB = 1 << 10, 1 << 20
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


class Narrow(harness.Case):
    """Limits of the daemon that are below what a transfer takes where nothing is told."""

    def start(self, name="d", **values):
        self.d = self.daemon(name, env=self.faults.environment(),
                             args=["--http", "127.0.0.1:0", *harness.limits(**values)])

    def cli(self, *words, **how):
        return harness.run_cli(*words, "--endpoint", self.d.unix, **how)

    def asked(self):
        return self.d.metric("spaceblock_rpc_calls_total", service="spaceblock.v1.Server",
                             method="Info", code="OK")

    def setUp(self):
        super().setUp()
        self.faults = Faults(self.dir)
        self.addCleanup(self.faults.release_all)
        self.data = os.urandom(3 * MIB + 5)
        self.source = self.file("source", self.data)

    def test_whatever_is_told_is_kept_to(self):
        for n, values in enumerate(({"chunk_max_bytes": 64 * KIB}, {"chunk_max_bytes": 300_000},
                                    {"calls_in_flight_max": 1}, {"calls_in_flight_max": 2},
                                    {"calls_in_flight_max": 3, "chunk_max_bytes": 100_000})):
            with self.subTest(**values):
                self.start(f"d{n}", **values)
                folder = self.dir / f"f{n}"
                folder.mkdir()
                self.every_transfer(folder)

    def every_transfer(self, folder):
        of = ("--image", "a")
        self.cli("image", "create", "a", "--blocks", 2048, "--sector-size", 4096)
        self.cli("dp", "put", "p", self.source, *of)
        self.assertEqual(self.cli("dp", "get", "p", "-", *of).out, self.data)
        self.cli("dp", "get", "p", folder / "p", *of)
        self.assertEqual((folder / "p").read_bytes(), self.data)
        seen = self.cli("inspect", "--data", "--json", *of).json["dps"]
        self.assertEqual([bytes.fromhex(one["data_hex"]) for one in seen], [self.data])
        self.cli("image", "export", "a", folder / "image")
        self.cli("image", "delete", "a")
        self.cli("image", "import", folder / "image", "a")
        self.assertEqual(self.cli("dp", "get", "p", "-", *of).out, self.data)
        self.cli("artifact", "put", self.source)

    def test_an_upload_that_was_begun_with_longer_chunks(self):
        self.start(upload_sync_bytes=64 * KIB)
        self.cli("image", "create", "a", "--blocks", 2048, "--sector-size", 4096)
        hold = self.faults.hold("write", "images/1/a.img")
        words = ("dp", "put", "p", self.source, "--image", "a")
        process = subprocess.Popen([harness.CLI, *words, "--endpoint", self.d.unix],
                                   env=harness.environment(), stderr=subprocess.PIPE,
                                   preexec_fn=harness.die_with_parent)
        self.addCleanup(harness.end, process)
        hold.wait()
        process.send_signal(signal.SIGINT)
        hold.release()
        self.assertIn(b"goes on with it", process.communicate(timeout=harness.WAIT_S)[1])
        self.d.finish()
        self.start(chunk_max_bytes=64 * KIB)
        self.assertIn("going on at", self.cli(*words, "--verbose").err)
        self.assertEqual(self.cli("dp", "get", "p", "-", "--image", "a").out, self.data)

    def test_who_sends_little_does_not_ask(self):
        self.start()
        self.cli("image", "create", "a", "--blocks", 2048, "--sector-size", 4096)
        for size, calls in ((64 * KIB, 0), (64 * KIB + 1, 2)):
            little = self.file("little", self.data[:size])
            before = self.asked()
            self.cli("dp", "put", f"p{size}", little, "--image", "a")
            self.cli("dp", "get", f"p{size}", "-", "--image", "a")
            self.assertEqual(self.asked() - before, calls)


if __name__ == "__main__":
    harness.main()
