"""event watch: what is printed, in order and once, over restarts; filters, cursors, every end."""
import json
import re
import signal
import subprocess
import threading

import harness
from harness import ABSENT, CLI, DONE, FAILED, UNREACHABLE, USAGE, run_cli

EPOCH = 1700000000
WINDOW = 84


class Follower:
    """A running event watch, its lines read as they come."""

    def __init__(self, case, daemon, *args, image="a", code=DONE):
        self.case, self.code = case, code
        self.process = subprocess.Popen(
            [CLI, "event", "watch", "--image", image, "--endpoint", daemon.unix, *args],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=harness.environment(), preexec_fn=harness.die_with_parent)
        case.addCleanup(harness.end, self.process)
        self.notes, self.said = [], threading.Condition()
        self.reader = threading.Thread(target=self._read_notes)
        self.reader.start()
        case.addCleanup(self.reader.join)

    def _read_notes(self):
        for line in self.process.stderr:
            with self.said:
                self.notes.append(line.decode().rstrip("\n"))
                self.said.notify_all()
        with self.said:
            self.said.notify_all()

    def line(self):
        line = self.process.stdout.readline().decode()
        self.case.assertTrue(line, f"it ended: {self.notes}")
        return line.rstrip("\n")

    def lines(self, count):
        return [self.line() for _ in range(count)]

    def objects(self, count):
        return [json.loads(self.line()) for _ in range(count)]

    def wait_note(self, word):
        with self.said:
            self.case.assertTrue(self.said.wait_for(
                lambda: any(word in n for n in self.notes) or self.process.poll() is not None,
                harness.WAIT_S), f"no note with {word!r}: {self.notes}")
            return next(n for n in self.notes if word in n)

    def ended(self):
        """Waits for its end; gives the rest of its output."""
        rest = self.process.stdout.read().decode()
        code = self.process.wait(harness.WAIT_S)
        self.reader.join()
        harness.no_report("\n".join(self.notes), "the CLI")
        self.case.assertEqual(code, self.code, self.notes)
        return rest

    def cursor(self):
        found = re.search(r"--from ([0-9a-f]+)", "\n".join(self.notes))
        self.case.assertTrue(found, self.notes)
        return found.group(1)

    def interrupt(self, number=signal.SIGINT):
        """Ends it by a signal; gives the rest of its output and the cursor."""
        self.process.send_signal(number)
        return self.ended(), self.cursor()


class WatchCli(harness.Case):
    def setUp(self):
        super().setUp()
        self.d = self.daemon()
        self.c = self.connect(self.d)
        self.c.create("a", epoch=EPOCH)

    def follow(self, *args, **how):
        return Follower(self, self.d, *args, **how)

    def cli(self, *args, **how):
        return run_cli("event", "watch", *args, "--endpoint", self.d.unix, **how)

    def test_lines_come_with_the_events(self):
        f = self.follow("--from", "start")
        self.c.append("a", b"hello", code=7, severity=3, time=EPOCH + 61)
        self.assertEqual(f.line().split(), ["0", "2023-11-14T22:14:21Z", "ERROR", "7", "hello"])
        self.c.append("a", b"\x1b[31m", code=65535, severity=77, time=EPOCH)
        self.assertEqual(f.line().split(), ["1", "2023-11-14T22:13:20Z", "77", "65535",
                                            "hex:1b5b33316d"])
        rest, _ = f.interrupt()
        self.assertEqual(rest, "")

    def test_json_lines(self):
        self.c.append("a", b"one", b"two", code=5, severity=1, time=EPOCH + 1)
        f = self.follow("--from", "start", "--json", "--limit", "3")
        first, second = f.objects(2)
        self.assertEqual((first["kind"], first["index"], first["payload"], first["severity_name"],
                          first["code"], first["timestamp"], first["time"]),
                         ("event", 0, "one", "INFO", 5, 1, "2023-11-14T22:13:21Z"))
        self.assertNotIn("cursor", first)
        self.assertEqual(len(second["cursor"]), 56)
        self.c.append("a", b"three")
        third, = f.objects(1)
        f.ended()
        self.assertEqual(json.loads(f.notes[-1]),
                         {"note": {"message": f"continue with --from {third['cursor']}"}})

    def test_from_now_is_the_default_and_filters(self):
        self.c.append("a", b"before", severity=4)
        f = self.follow("--json", "--severity", "error", "--severity", "4", "--code", "9",
                        "--limit", "2")
        self.assertEqual(f.objects(1)[0]["kind"], "cursor")
        for severity, code, payload in ((3, 8, b"code"), (2, 9, b"severity"), (3, 9, b"yes"),
                                        (4, 9, b"too")):
            self.c.append("a", payload, severity=severity, code=code)
        self.assertEqual([o["payload"] for o in f.objects(2)], ["yes", "too"])
        f.ended()

    def test_cursor_continues(self):
        self.c.append("a", *[b"%d" % n for n in range(10)])
        done = self.cli("--image", "a", "--from", "start", "--limit", "4")
        self.assertEqual([line.split()[-1] for line in done.text.splitlines()], list("0123"))
        cursor = re.search(r"--from ([0-9a-f]+)", done.err).group(1)
        f = self.follow("--from", cursor)
        self.assertEqual([line.split()[-1] for line in f.lines(6)], list("456789"))
        _, cursor = f.interrupt(signal.SIGTERM)
        self.c.append("a", b"10")
        done = self.cli("--image", "a", "--from", cursor, "--limit", "1", "--json")
        self.assertEqual(done.json["payload"], "10")

    def test_skips_are_told(self):
        self.c.append("a", b"x")
        done = self.cli("--image", "a", "--from", "start", "--limit", "1")
        cursor = re.search(r"--from ([0-9a-f]+)", done.err).group(1)
        for _ in range(2):
            self.c.append("a", *[b"y"] * WINDOW)
        f = self.follow("--from", cursor)
        self.assertEqual(f.line().split()[0], str(1 + WINDOW))
        self.assertIn(f"{WINDOW} events were overwritten", f.wait_note("overwritten"))
        f.lines(WINDOW - 1)
        f.interrupt()
        f = self.follow("--from", cursor, "--json", "--limit", "1")
        self.assertEqual(f.objects(1), [{"kind": "skipped", "count": WINDOW}])
        self.assertEqual(f.objects(1)[0]["index"], 1 + WINDOW)
        f.ended()

    def test_resets_are_told(self):
        self.c.append("a", b"x")
        for args in ((), ("--json",)):
            f = self.follow("--from", "00" * 28, *args)
            if args:
                self.assertEqual(f.objects(1), [{"kind": "reset"}])
            else:
                f.wait_note("are not those that were followed before")
            self.assertTrue(f.line())
            f.interrupt()

    def test_restarts_of_the_daemon(self):
        """Nothing is lost and nothing comes twice, and the cursor goes on."""
        f = self.follow("--from", "start", "--json")
        seen, total, resets = [], 0, 0

        def take_until(count):
            nonlocal resets
            while len(seen) < count:
                one, = f.objects(1)
                if one["kind"] == "reset":
                    resets += 1
                    seen.clear()
                elif one["kind"] == "event":
                    seen.append((one["index"], one["payload"]))
                else:
                    self.assertEqual(one["kind"], "cursor")

        for how in ("stop", "kill9", "stop"):
            for _ in range(5):
                self.c.append("a", b"%d" % total)
                total += 1
            take_until(total)
            self.c.close()
            getattr(self.d, how)()
            self.d.restart()
            self.c = self.connect(self.d)
        self.c.append("a", b"%d" % total)
        take_until(total + 1)
        self.assertEqual(seen, [(n, "%d" % n) for n in range(total + 1)])
        self.assertEqual(resets, 0)
        f.interrupt()

    def test_image_deleted_meanwhile(self):
        f = self.follow("--from", "start", code=ABSENT)
        self.c.append("a", b"x")
        f.line()
        self.c.call("Images", "Delete", image="a")
        f.ended()
        f.cursor()

    def test_ends(self):
        self.assertIn("nobody", self.cli("--image", "nobody", code=ABSENT).err)
        run_cli("event", "watch", "--image", "a", "--endpoint", f"unix:{self.dir}/none",
                code=UNREACHABLE)
        for bad in (["--from", "xyz"], ["--from", ""], ["--from", "abc"], ["--from", "00" * 129],
                    ["--limit", "0"], ["--severity", "256"], ["--code", "65536"],
                    ["--file", "x.img"], ["--time", "1"], ["word"]):
            self.cli("--image", "a", *bad, code=USAGE)
        self.cli(code=USAGE)
        self.assertIn("cursor", self.cli("--image", "a", "--from", "00", code=FAILED).err)

    def test_reader_that_goes_away(self):
        f = self.follow("--from", "start", code=FAILED)
        self.c.append("a", b"x")
        f.line()
        f.process.stdout.close()
        self.c.append("a", b"y")
        f.process.wait(harness.WAIT_S)
        f.reader.join()
        self.assertEqual(f.process.returncode, FAILED, f.notes)
        # what could not be shown comes again from that cursor
        done = self.cli("--image", "a", "--from", f.cursor(), "--limit", "1", "--json")
        self.assertEqual(done.json["payload"], "y")


if __name__ == "__main__":
    harness.main()
