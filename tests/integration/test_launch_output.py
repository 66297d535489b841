"""spaceblock launch before a standard output that takes nothing for a while. A program of the
test's is in the place of QEMU: it takes the console's and the monitor's descriptors, prints, tells
of a panic and ends."""
import os
import signal
import subprocess
import sys

import harness
from harness import CLI, run_cli

PANIC = 6
# More than a pipe and what launch carries, less than what the sockets hold besides.
PRINTED = b"".join(b"line %6d\n" % n for n in range(16000)) + b"Kernel panic: the last words\n"
PROGRAM = r"""
import json, re, socket, sys

def channel(name):
    found = re.search(rf"socket,id={name},fd=(\d+)", " ".join(sys.argv))
    return socket.socket(fileno=int(found[1]))

open(sys.argv[0] + ".started", "x").close()
monitor, console = channel("qmp"), channel("con")
monitor.sendall(b'{"QMP": {"version": {}, "capabilities": []}}\r\n')
for line in monitor.makefile("rb"):
    message = json.loads(line)
    monitor.sendall(json.dumps({"return": {}, "id": message["id"]}).encode() + b"\r\n")
    if message["execute"] == "cont":
        break
with open(sys.argv[0] + ".printed", "rb") as printed:
    console.sendall(printed.read())
monitor.sendall(b'{"event": "GUEST_PANICKED", "data": {"action": "pause"}, '
                b'"timestamp": {"seconds": 1, "microseconds": 0}}\r\n')
"""


class LaunchOutput(harness.Case):
    def setUp(self):
        super().setUp()
        self.image = self.dir / "g.img"
        run_cli("init", "--file", self.image, "--blocks", "1024")
        self.program = self.file("qemu", f"#!{sys.executable}\n{PROGRAM}".encode())
        os.chmod(self.program, 0o755)
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


if __name__ == "__main__":
    harness.main()
