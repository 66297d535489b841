"""Transfers of the CLI that go on: over lost links, a killed client, a restarted daemon."""
import json
import os
import pathlib
import signal
import subprocess

import harness
from harness import DONE, FAILED, UNREACHABLE
from proxy import DOWN, UP, Fault, Proxy

MIB = 1 << 20
SIZE = 24 * MIB + 12345
WINDOW = 6 * MIB  # what may be on its way, and be lost with a connection
NAME = "science/é.dat"


class Base(harness.Case):
    def setUp(self):
        super().setUp()
        self.d = self.daemon()
        self.proxy = Proxy(self.d.unix, f"{self.dir}/proxy.sock")
        self.addCleanup(self.proxy.close)
        with self.d.connect() as c:
            c.create("image", blocks=20000, sector_size=4096)
            self.free = c.call("Images", "Inspect", image="image")["free_blocks"]
        self.data = os.urandom(MIB) * 24 + os.urandom(12345)
        self.state = self.dir / "state"
        self.flags = ["--image", "image", "--endpoint", self.proxy.endpoint]

    def env(self):
        return {"XDG_STATE_HOME": str(self.state)}

    def cli(self, *words, code=DONE, **how):
        return harness.run_cli(*words, *self.flags, env=self.env(), code=code, **how)

    def start(self, *words, **how):
        process = subprocess.Popen([harness.CLI, *map(str, words), *self.flags],
                                   env=harness.environment(**self.env()), text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   preexec_fn=harness.die_with_parent, **how)
        self.addCleanup(harness.end, process)
        return process

    def finish(self, process, code=DONE):
        out, err = process.communicate(timeout=harness.WAIT_S)
        harness.no_report(err, "the CLI")
        self.assertEqual(process.returncode, code, err)
        return out, err

    def start_held(self, direction, offset, *words):
        """The transfer stands still after so many bytes; ends when its process does."""
        self.proxy.plan(Fault("hold", direction, offset))
        process = self.start(*words)
        self.proxy.wait_for_fault(harness.WAIT_S)
        return process

    def kill(self, process):
        process.kill()
        process.wait()
        self.proxy.release()

    def store(self, data):
        """The product, beside the proxy."""
        harness.run_cli("dp", "put", NAME, self.file("stored", data), "--replace", "--image",
                        "image", "--endpoint", self.d.unix, env=self.env())

    def free_blocks(self):
        with self.d.connect() as c:
            return c.call("Images", "Inspect", image="image")["free_blocks"]


class Put(Base):
    def setUp(self):
        super().setUp()
        self.source = self.file("source", self.data)
        self.put = ["dp", "put", NAME, self.source]

    def records(self):
        return sorted((self.state / "spaceblock").glob("upload-*.json"))

    def upload_id(self):
        (record,) = self.records()
        return bytes.fromhex(json.loads(record.read_text())["upload_id"])

    def durable(self):
        """How much of the one upload the daemon keeps whatever happens: all that it has taken."""
        with self.d.connect() as c:
            return c.call("Uploads", "Status", upload_id=self.upload_id())["durable_offset"]

    def stored(self, data=None):
        """The product is there as it should be, and nothing is left of the way to it."""
        with self.d.connect() as c:
            self.assertEqual(c.product("image", NAME.encode()), data or self.data)
            self.assertEqual(c.call("Images", "Check", image="image")["findings"], [])
        self.assertEqual(self.records(), [])
        blocks = -(-len(data or self.data) // 4096)
        self.assertEqual(self.free_blocks(), self.free - blocks, "a reservation is left")

    def test_links_that_are_cut(self):
        for kind in ("cut", "reset", "truncate", "half-close"):
            faults = [Fault(kind, UP, 3 * MIB + 1000 * n) for n in range(4)]
            self.proxy.plan(*faults, Fault(kind, DOWN, 100))
            self.cli(*self.put, "--replace")
            self.assertEqual(self.proxy.connections, 6)
            self.assertLess(self.proxy.passed[UP], SIZE + 5 * WINDOW, "it did not go on")
            with self.d.connect() as c:
                self.assertEqual(c.product("image", NAME.encode()), self.data)
        self.stored()

    def test_killed_client(self):
        process = self.start_held(UP, 15 * MIB, *self.put)
        self.kill(process)
        (record,) = self.records()
        self.assertEqual(record.stat().st_mode & 0o777, 0o600)
        self.assertEqual(record.parent.stat().st_mode & 0o777, 0o700)
        self.assertEqual(len(json.loads(record.read_text())["upload_id"]), 32)
        self.proxy.plan()
        self.cli(*self.put)
        self.assertLess(self.proxy.passed[UP], SIZE - 15 * MIB + WINDOW, "it began anew")
        self.stored()

    def test_killed_again_and_again(self):
        for n in range(1, 5):
            self.kill(self.start_held(UP, n * MIB + 777, *self.put))
        self.proxy.plan()
        self.cli(*self.put)
        self.stored()

    def test_interrupted_client(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.start_held(UP, 9 * MIB, *self.put, "--replace")
            process.send_signal(number)
            _, err = self.finish(process, FAILED)
            self.assertRegex(err, rf"\d+ of {SIZE} bytes are there; the same command goes on")
            self.proxy.release()
            self.proxy.plan()
            _, err = self.finish(self.start(*self.put, "--replace", "--verbose"))
            self.assertRegex(err, r"going on at \d+ of")
            self.assertLess(self.proxy.passed[UP], SIZE - 8 * MIB + WINDOW)
        self.stored()

    def test_restarted_daemon(self):
        """It goes on from what was durable, at least."""
        process = self.start_held(UP, 15 * MIB, *self.put, "--verbose")
        self.eventually(lambda: self.durable() > 9 * MIB, "what was passed on is not durable")
        durable = self.durable()
        self.d.kill9()
        self.proxy.release()
        self.d.restart()
        _, err = self.finish(process)
        self.assertIn("reconnecting to", err)
        self.assertNotIn("beginning anew", err)
        self.assertLess(self.proxy.passed[UP], SIZE + 15 * MIB - durable + WINDOW)
        self.stored()

    def test_upload_that_is_known_no_more(self):
        process = self.start_held(UP, 15 * MIB, *self.put, "--verbose")
        with self.d.connect() as c:
            c.call("Uploads", "Abort", upload_id=self.upload_id())
        self.proxy.release()
        _, err = self.finish(process)
        self.assertIn("beginning anew", err)
        self.stored()

    def test_restarted_daemon_and_client(self):
        for _ in range(2):
            self.kill(self.start_held(UP, 15 * MIB, *self.put))
            self.d.kill9()
            self.d.restart()
        self.proxy.plan()
        self.cli(*self.put)
        self.stored()

    def test_daemon_that_drains(self):
        process = self.start_held(UP, 15 * MIB, *self.put)
        self.d.terminate()
        self.proxy.release()
        self.d.wait(0)
        self.d.restart()
        self.finish(process)
        self.stored()

    def test_lost_answer_of_finish(self):
        """The product is published, the answer is lost; a second Finish need not find the upload.
        """
        self.proxy.plan()
        self.cli(*self.put)
        down = self.proxy.passed[DOWN]
        for offset in range(down - 40, down, 13):
            with self.d.connect() as c:
                c.call("DataProducts", "Delete", image="image", name=NAME.encode())
            self.proxy.plan(Fault("cut", DOWN, offset))
            self.cli(*self.put)
            self.assertEqual(self.proxy.connections, 2)
            self.assertLess(self.proxy.passed[UP], SIZE + WINDOW)
            self.stored()

    def test_killed_client_after_finish(self):
        self.proxy.plan()
        self.cli(*self.put)
        down = self.proxy.passed[DOWN]
        with self.d.connect() as c:
            c.call("DataProducts", "Delete", image="image", name=NAME.encode())
        self.kill(self.start_held(DOWN, down - 20, *self.put))
        self.assertEqual(len(self.records()), 1)
        self.proxy.plan()
        self.cli(*self.put)
        self.assertLess(self.proxy.passed[UP], MIB, "it was stored already")
        self.stored()

    def change_source(self, at):
        """Other bytes under the same name, size and time."""
        about = self.source.stat()
        with open(self.source, "r+b") as f:
            f.seek(at)
            f.write(b"changed")
        os.utime(self.source, ns=(about.st_atime_ns, about.st_mtime_ns))
        self.data = self.source.read_bytes()

    def test_source_that_changed_without_a_trace(self):
        process = self.start_held(UP, 15 * MIB, *self.put)
        process.send_signal(signal.SIGINT)  # the record knows the CRC of what was read
        self.finish(process, FAILED)
        self.proxy.release()
        self.change_source(5 * MIB)
        self.proxy.plan()
        self.cli(*self.put)
        self.stored()

    def test_source_that_changed_before_anything_was_noted(self):
        self.kill(self.start_held(UP, 15 * MIB, *self.put))
        self.change_source(100)
        self.proxy.plan()
        self.cli(*self.put)
        self.stored()

    def test_source_that_changed(self):
        self.kill(self.start_held(UP, 15 * MIB, *self.put))
        self.data = os.urandom(3 * MIB)
        self.source.write_bytes(self.data)
        self.proxy.plan()
        self.cli(*self.put)
        self.stored()

    def test_other_options_are_another_upload(self):
        self.kill(self.start_held(UP, 15 * MIB, *self.put))
        self.proxy.plan()
        self.cli(*self.put, "--class", 7)
        with self.d.connect() as c:
            found = c.call("DataProducts", "Get", image="image", name=NAME.encode())["product"]
        self.assertEqual(found["product_class"], 7)
        self.stored()

    def test_no_resume(self):
        self.kill(self.start_held(UP, 15 * MIB, *self.put))
        self.proxy.plan()
        self.cli(*self.put, "--no-resume")
        self.assertGreater(self.proxy.passed[UP], SIZE)
        self.stored()

    def test_refusal_leaves_nothing(self):
        process = self.start_held(UP, 15 * MIB, *self.put)
        with self.d.connect() as c:
            c.upload("image", NAME.encode(), b"first")
        self.proxy.release()
        _, err = self.finish(process, FAILED)
        self.assertIn("taken", err)
        self.stored(b"first")

    def test_two_at_once(self):
        first = self.start_held(UP, 15 * MIB, *self.put, "--replace")
        second = self.start(*self.put, "--replace", "--verbose")
        _, err = self.finish(second)
        self.assertIn("another run", err)
        self.proxy.release()
        self.finish(first)
        self.stored()

    def test_records_that_are_broken(self):
        self.kill(self.start_held(UP, 15 * MIB, *self.put))
        (record,) = self.records()
        good = record.read_bytes()
        whole = json.loads(good)
        bad = [b"", b"\0" * 100, b"[]", b"{}", good[:-20], good + b"x", b"{" * 5000,
               *(json.dumps({**whole, key: value}).encode() for key, value in (
                   ("version", 2), ("upload_id", "zz"), ("upload_id", "0" * 200),
                   ("upload_id", 1), ("request_id", "x"), ("request_id", None), ("chunk", -1),
                   ("chunk", 1), ("crc_end", -5), ("crc_end", 1 << 62), ("crc32c", 1 << 40),
                   ("source", {}), ("endpoint", "unix:/other"), ("target", ""))),
               json.dumps({**whole, "upload_id": "00" * 16}).encode()]
        small = self.data[:MIB]
        self.source.write_bytes(small)
        self.proxy.plan()
        for text in bad:
            record.write_bytes(text)
            self.cli(*self.put, "--replace")
            with self.d.connect() as c:
                self.assertEqual(c.product("image", NAME.encode()), small, text)
            self.assertEqual(self.records(), [])

    def test_no_place_for_records(self):
        self.proxy.plan(Fault("cut", UP, 3 * MIB))
        self.state.write_bytes(b"a file where the folder should be")
        err = self.cli(*self.put, "--verbose").err
        self.assertIn("could not be continued", err)
        self.state.unlink()
        self.stored()

    def test_standard_input_is_continued_over_links_only(self):
        self.proxy.plan(Fault("cut", UP, 3 * MIB), Fault("cut", UP, 5 * MIB))
        self.cli("dp", "put", NAME, "-", input=self.data)
        self.assertEqual(self.proxy.connections, 3)
        self.stored()

    def test_record_is_durable_and_gone_in_the_end(self):
        self.proxy.plan()
        self.cli(*self.put)
        self.assertTrue((self.state / "spaceblock").is_dir())
        self.stored()

    def test_old_records_are_removed(self):
        folder = self.state / "spaceblock"
        folder.mkdir(parents=True)
        old, young = folder / "upload-0123456789abcdef.json", folder / "upload-fedcba.json"
        other = folder / "something else"
        for path in (old, young, other):
            path.write_bytes(b"{}")
        for path in (old, other):
            os.utime(path, (1, 1))
        self.cli(*self.put)
        self.assertEqual(sorted(folder.iterdir()), sorted([young, other]))


class Artifact(Base):
    def test_stored_by_another_in_the_meantime(self):
        """Nothing is left of the run that was killed, neither here nor at the daemon."""
        source = self.file("kernel", self.data)
        self.flags = ["--endpoint", self.proxy.endpoint]
        self.kill(self.start_held(UP, 9 * MIB, "artifact", "put", source))
        self.proxy.plan()
        harness.run_cli("artifact", "put", source, "--endpoint", self.d.unix,
                        env={"XDG_STATE_HOME": str(self.dir / "another")})
        folder = self.d.data_dir / "artifacts" / "1"
        self.assertEqual(len(list((self.state / "spaceblock").iterdir())), 1)
        self.assertEqual(len(list(folder.glob(".upload-*"))), 1)
        self.cli("artifact", "put", source)
        self.assertEqual(list((self.state / "spaceblock").iterdir()), [])
        self.assertEqual(list(folder.glob(".upload-*")), [])


class Get(Base):
    def setUp(self):
        super().setUp()
        self.store(self.data)
        self.out = self.dir / "out"
        self.part = pathlib.Path(f"{self.out}.part")
        self.get = ["dp", "get", NAME, self.out]

    def got(self, data=None):
        self.assertEqual(self.out.read_bytes(), data or self.data)
        left = [p.name for p in self.dir.iterdir() if "out" in p.name]
        self.assertEqual(left, ["out"])

    def test_links_that_are_cut(self):
        for kind in ("cut", "reset", "truncate", "half-close"):
            self.proxy.plan(*[Fault(kind, DOWN, 3 * MIB + 1000 * n) for n in range(4)])
            self.cli(*self.get)
            self.assertEqual(self.proxy.connections, 5)
            self.assertLess(self.proxy.passed[DOWN], SIZE + 4 * WINDOW)
            self.got()
        self.proxy.plan(*[Fault("cut", DOWN, 3 * MIB + 1000 * n) for n in range(4)])
        self.assertEqual(self.cli("dp", "get", NAME, "-").out, self.data)

    def test_killed_client(self):
        self.out.write_bytes(b"precious")
        self.out.chmod(0o640)
        self.kill(self.start_held(DOWN, 15 * MIB, *self.get))
        self.assertEqual(self.out.read_bytes(), b"precious")
        self.assertGreater(self.part.stat().st_size, 8 * MIB)
        self.proxy.plan()
        self.cli(*self.get)
        self.assertLess(self.proxy.passed[DOWN], SIZE - 8 * MIB)
        self.assertEqual(self.out.stat().st_mode & 0o777, 0o640)
        self.got()

    def test_interrupted_client(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.start_held(DOWN, 6 * MIB, *self.get)
            process.send_signal(number)
            _, err = self.finish(process, FAILED)
            self.assertRegex(err, rf"\d+ of {SIZE} bytes are in .*out.part; the same command")
            self.proxy.release()
        self.proxy.plan()
        _, err = self.finish(self.start(*self.get, "--verbose"))
        self.assertRegex(err, r"going on at \d+ of")
        self.got()

    def test_restarted_daemon(self):
        process = self.start_held(DOWN, 15 * MIB, *self.get)
        self.d.kill9()
        self.proxy.release()
        self.d.restart()
        self.finish(process)
        self.got()

    def test_product_that_is_replaced_meanwhile(self):
        other = os.urandom(12 * MIB)
        process = self.start_held(DOWN, 15 * MIB, *self.get)
        self.store(other)
        self.proxy.release()
        self.finish(process)
        self.got(other)

    def test_product_that_was_replaced_between_two_runs(self):
        self.kill(self.start_held(DOWN, 15 * MIB, *self.get))
        other = os.urandom(20 * MIB)
        self.store(other)
        self.proxy.plan()
        self.cli(*self.get)
        self.got(other)

    def test_part_that_rotted(self):
        for damage in (b"", b"\0" * 1000, self.data + b"longer", b"x" * SIZE):
            self.kill(self.start_held(DOWN, 9 * MIB, *self.get))
            self.part.write_bytes(damage)
            self.proxy.plan()
            self.cli(*self.get)
            self.got()
            self.out.unlink()

    def test_whole_part(self):
        """Killed between the last byte and the name."""
        self.kill(self.start_held(DOWN, 9 * MIB, *self.get))
        self.part.write_bytes(self.data)
        self.proxy.plan()
        self.cli(*self.get)
        self.assertLess(self.proxy.passed[DOWN], MIB)
        self.got()

    def test_what_is_somebody_elses_is_not_touched(self):
        self.proxy.plan()
        self.part.write_bytes(b"not ours")
        self.cli(*self.get)
        self.assertEqual(self.part.read_bytes(), b"not ours")
        self.part.unlink()
        self.got()
        companion = pathlib.Path(f"{self.part}.json")
        for text in (b"{}", b"nonsense", b'{"format": "other"}'):
            companion.write_bytes(text)
            self.cli(*self.get)
            self.assertEqual(companion.read_bytes(), text)
            self.assertFalse(self.part.exists())
            companion.unlink()
        self.part.symlink_to(self.dir / "elsewhere")
        self.cli(*self.get)
        self.assertFalse((self.dir / "elsewhere").exists())
        self.part.unlink()
        self.got()

    def test_two_at_once(self):
        first = self.start_held(DOWN, 15 * MIB, *self.get)
        self.cli(*self.get)
        self.assertEqual(self.out.read_bytes(), self.data)
        self.proxy.release()
        self.finish(first)
        self.got()

    def test_no_resume(self):
        self.kill(self.start_held(DOWN, 15 * MIB, *self.get))
        self.proxy.plan()
        self.cli(*self.get, "--no-resume")
        self.assertGreater(self.proxy.passed[DOWN], SIZE)
        self.got()

    def test_refusal_leaves_nothing(self):
        self.cli("dp", "get", "absent", self.out, code=harness.ABSENT)
        self.assertEqual([p for p in self.dir.iterdir() if "out" in p.name], [])


class Calls(Base):
    """Short commands over a bad link."""

    def setUp(self):
        super().setUp()
        self.cli("param", "put", 1, "one")

    def test_budget_of_none(self):
        self.proxy.plan(Fault("cut", UP, 20))
        err = self.cli("param", "get", 1, "--retries", 0, code=UNREACHABLE).err
        self.assertNotIn("tried", err)
        self.assertEqual(self.proxy.connections, 1)
        self.proxy.plan(Fault("cut", UP, 20))
        self.assertEqual(self.cli("param", "get", 1).text, "one\n")

    def test_budget_of_some(self):
        self.proxy.plan(every=Fault("cut", UP, 20))
        err = self.cli("param", "get", 1, "--retries", 3, code=UNREACHABLE).err
        self.assertIn("tried 4 times; no retries are left", err)
        self.assertEqual(self.proxy.connections, 4)

    def test_deadline_end_to_end(self):
        for kind in ("blackhole", "cut"):
            self.proxy.plan(every=Fault(kind, UP, 20))
            started = os.times().elapsed
            self.cli("param", "get", 1, "--timeout", 2,
                     code=FAILED if kind == "blackhole" else UNREACHABLE)
            self.assertLess(os.times().elapsed - started, 10)

    def test_what_is_told(self):
        for more, told in (([], False), (["--verbose"], True)):
            self.proxy.plan(Fault("cut", UP, 20))
            result = self.cli("param", "get", 1, *more)
            self.assertEqual(result.text, "one\n")
            self.assertEqual(f"reconnecting to {self.proxy.endpoint} in" in result.err, told,
                             result.err)
        self.proxy.plan(Fault("cut", UP, 20))
        result = self.cli("param", "get", 1, "--verbose", "--json")
        note = json.loads(result.err.splitlines()[0])["note"]["message"]
        self.assertIn("reconnecting to", note)
        master, slave = os.openpty()
        self.addCleanup(os.close, master)
        self.proxy.plan(Fault("cut", UP, 20))
        done = subprocess.run([harness.CLI, "param", "get", "1", *self.flags], stderr=slave,
                              stdout=subprocess.PIPE, timeout=harness.WAIT_S, check=False,
                              env=harness.environment(**self.env()))
        os.close(slave)
        self.assertEqual(done.returncode, DONE)
        self.assertIn(b"reconnecting to", os.read(master, 65536))

    def test_daemon_that_restarts(self):
        """A command that meets a draining daemon comes again when it is back."""
        with self.d.connect() as c:
            c.call("Server", "Ping")
            self.d.terminate()
            self.d.wait(0)
        process = self.start("param", "put", 2, "two", "--timeout", 60, "--verbose")
        self.assertIn("reconnecting", process.stderr.readline())
        self.d.restart()
        self.finish(process)
        self.assertEqual(self.cli("param", "get", 2).text, "two\n")

    def test_usage(self):
        for words in (["--retries", "-1"], ["--retries", "x"], ["--retries"], ["--verbose=1"]):
            self.cli("param", "get", 1, *words, code=harness.USAGE)
        for words in (["--retries", 1], ["--verbose"]):
            harness.run_cli("param", "get", 1, "--file", "x", *words, code=harness.USAGE)
        self.cli("dp", "list", "--no-resume", code=harness.USAGE)

    def test_refusal_is_asked_once(self):
        self.proxy.plan()
        self.cli("param", "get", 99, code=harness.ABSENT)
        self.assertEqual(self.proxy.connections, 1)
        self.assertLess(self.proxy.passed[UP], 200)


del Base

if __name__ == "__main__":
    harness.main()
