"""spaceblock launch before a standard output that takes nothing for a while, and what it says of
the image before and after. A program of the test's is in the place of QEMU: it takes the console's
and the monitor's descriptors, may write to the image, prints, tells of a panic and ends."""
import json
import os
import signal
import struct
import subprocess
import sys

import harness
from crc import crc32c
from harness import CLI, run_cli

PANIC = 6
# More than a pipe and what launch carries, less than what the sockets hold besides.
PRINTED = b"".join(b"line %6d\n" % n for n in range(16000)) + b"Kernel panic: the last words\n"
PROGRAM = r"""
import json, os, re, socket, sys

def channel(name):
    found = re.search(rf"socket,id={name},fd=(\d+)", " ".join(sys.argv))
    return socket.socket(fileno=int(found[1]))

open(sys.argv[0] + ".started", "w").close()
monitor, console = channel("qmp"), channel("con")
monitor.sendall(b'{"QMP": {"version": {}, "capabilities": []}}\r\n')
for line in monitor.makefile("rb"):
    message = json.loads(line)
    monitor.sendall(json.dumps({"return": {}, "id": message["id"]}).encode() + b"\r\n")
    if message["execute"] == "cont":
        break
if os.path.exists(sys.argv[0] + ".superblock"):
    with open(sys.argv[0] + ".superblock", "rb") as block, \
            open(os.path.dirname(sys.argv[0]) + "/g.img", "r+b") as image:
        image.write(block.read())
with open(sys.argv[0] + ".printed", "rb") as printed:
    console.sendall(printed.read())
monitor.sendall(b'{"event": "GUEST_PANICKED", "data": {"action": "pause"}, '
                b'"timestamp": {"seconds": 1, "microseconds": 0}}\r\n')
"""


class LaunchCase(harness.Case):
    def setUp(self):
        super().setUp()
        self.image = self.dir / "g.img"
        run_cli("init", "--file", self.image, "--blocks", "1024")
        self.program = self.file("qemu", f"#!{sys.executable}\n{PROGRAM}".encode())
        os.chmod(self.program, 0o755)


class LaunchOutput(LaunchCase):
    def setUp(self):
        super().setUp()
        self.file("qemu.printed", PRINTED)

    def launch(self):
        """A launch whose QEMU has printed everything and ended, nothing of which was read."""
        kernel = self.file("kernel", b"none")
        process = subprocess.Popen(
            [CLI, "launch", "--file", self.image, "--kernel", kernel, "--initrd",
             kernel, "--accel", "tcg", "--qemu", self.program],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=harness.die_with_parent)
        self.addCleanup(harness.end, process)
        # Who takes note of that end is told of the console's hangup, too.
        self.eventually(lambda: self.has_ended(process), "launch does not see QEMU's end")
        return process

    def has_ended(self, process):
        if process.poll() is not None:
            self.fail(f"launch itself has ended: {process.communicate()}")
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as found:
            return os.path.exists(f"{self.program}.started") and not found.read().split()

    def test_a_slow_reader_gets_all_of_it(self):
        process = self.launch()
        self.assertIsNone(process.poll())
        out, err = process.communicate(timeout=harness.WAIT_S)
        self.assertTrue(out.startswith(PRINTED), (len(out), err))
        self.assertEqual(process.returncode, PANIC, err)

    def test_who_wants_no_more_need_not_read(self):
        process = self.launch()
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=harness.WAIT_S), PANIC)


class LaunchImage(LaunchCase):
    def setUp(self):
        super().setUp()
        self.file("qemu.printed", b"the console\n")
        self.words = {"--file": self.image, "--kernel": self.file("kernel", b"none"),
                      "--initrd": self.file("initrd", b"none"), "--qemu": self.program}

    def launch(self, *more, code, **other):
        words = {**self.words, **{f"--{key}": value for key, value in other.items()}}
        return run_cli("launch", *(word for pair in words.items() for word in pair), *more,
                       code=code)

    def printed_object(self, done):
        """What came of it, after the console."""
        console, brace, rest = done.text.partition("{")
        self.assertEqual(console, "the console\n")
        return json.loads(brace + rest)

    def test_as_many_blocks_as_are_there(self):
        done = self.launch("--blocks", 100, code=harness.CORRUPT)
        self.assertRegex(done.err, "--blocks 100 was given, but .* 1024 blocks of 512 bytes")
        self.assertFalse((self.dir / "qemu.started").exists())
        self.launch("--blocks", 1024, code=PANIC)

    def test_what_is_no_file(self):
        for option in ("file", "kernel", "initrd"):
            with self.subTest(option):
                done = self.launch(code=harness.USAGE, **{option: self.dir})
                self.assertIn(f"--{option} {self.dir}: it is a directory", done.err)
        done = self.launch(code=harness.USAGE, kernel=self.dir / "absent")
        self.assertIn("absent: no such file", done.err)
        done = self.launch(code=harness.USAGE, kernel=self.image / "within")
        self.assertIn("Not a directory", done.err)

    def superblock(self, **fields):
        names = "magic version reserved tenant blocks start size epoch uuid".split()
        values = dict(zip(names, struct.unpack(">IBBHIIIQ16s", self.image.read_bytes()[:44])))
        values.update(fields)
        body = struct.pack(">IBBHIIIQ16s", *values.values())
        return body + struct.pack(">I", crc32c(body))

    def test_another_superblock(self):
        good = self.superblock()
        blocks = struct.unpack(">IBBHIIIQ16s", good[:44])[4]
        for what, block, word in (("uuid", self.superblock(uuid=b"u" * 16), "75757575-7575"),
                                  ("tenant", self.superblock(tenant=7), "tenant 7,"),
                                  ("blocks", self.superblock(blocks=512, size=512 - 33),
                                   "512 blocks of 1024")):
            with self.subTest(what):
                with open(self.image, "r+b") as file:
                    file.write(good)
                self.file("qemu.superblock", block)
                done = self.launch(code=harness.CORRUPT)
                self.assertIn("the guest panicked", done.err)
                self.assertRegex(done.err, f"wrote another superblock.*found .*{word}.*before")
                with open(self.image, "r+b") as file:
                    file.write(good)
                done = self.launch("--json", code=harness.CORRUPT)
                told = self.printed_object(done)
                self.assertEqual((told["ending"], told["clean"]), ("panic", False))
                self.assertEqual(told["error"]["code"], "corrupt")
                self.assertIn(word, told["error"]["message"])
        with open(self.image, "r+b") as file:
            file.write(good)
        self.file("qemu.superblock", good)
        self.launch("--blocks", blocks, code=PANIC)

    def test_no_superblock_any_more(self):
        self.file("qemu.superblock", bytes(512))
        told = self.printed_object(self.launch("--json", code=harness.CORRUPT))
        self.assertEqual((told["ending"], told["was_asked"], told["clean"]),
                         ("panic", False, False))
        self.assertEqual(set(told["error"]), {"code", "message"})
        self.assertNotIn("findings", told)

    def test_what_a_sound_one_is_told_with(self):
        told = self.printed_object(self.launch("--json", code=PANIC))
        self.assertEqual((told["ending"], told["clean"], told["findings"]), ("panic", True, 0))


if __name__ == "__main__":
    harness.main()
