#!/usr/bin/env python3
"""In the place of QEMU, for tests of the supervisor: takes its arguments, locks its pidfile, serves
its sockets and speaks its monitor's protocol, and runs nothing.

What it does is told by words in -append:
  exit=CODE          ends at once, with a word on stderr
  late=MS            takes its time before it opens its pidfile, latelock=MS before it locks it
  nopidfile          does not lock its pidfile
  monitor=garbage, silent, half, close, nocont   how the monitor fails
  later=garbage, silent, close                   how it fails once the guest runs
  print=TEXT         printed when the guest goes on
  flood=BYTES        printed after that
  echo               prints what is typed
  end=poweroff, reboot, panic, crash, exit:CODE  how it ends, after=MS milliseconds (0)
  button=ignore      the power button does nothing
  quit=ignore        nor does quit
  untraced           its trace events are not those that are asked for
  writes             has written to its first disk
  full=COUNT         its disk is full at once, and so many times when it is to go on
SIGUSR1 makes it tell of a disk that failed.
"""
import fcntl
import json
import os
import selectors
import signal
import socket
import sys
import time


def options(argv):
    """{option: [values]}"""
    found = {}
    for at, word in enumerate(argv):
        if word.startswith("-") and at + 1 < len(argv):
            found.setdefault(word[1:], []).append(argv[at + 1])
    return found


def socket_path(found, name):
    for value in found["chardev"]:
        parts = dict(p.split("=", 1) for p in value.split(",") if "=" in p)
        if parts.get("id") == name:
            return parts["path"]
    raise SystemExit(f"no chardev {name}")


def receive(sock):
    """None of it: the peer has gone, be it with what was sent to it unread."""
    try:
        return sock.recv(65536)
    except ConnectionResetError:
        return b""


class Fake:
    def __init__(self, argv):
        self.options = options(argv)
        self.words = {}
        for word in self.options["append"][0].split():
            key, _, value = word.partition("=")
            self.words[key] = value
        self.selector = selectors.DefaultSelector()
        self.console = self.monitor = None
        self.status, self.running = "prelaunch", False
        self.end_at = None
        self.output, self.input = b"", b""
        self.full = int(self.words.get("full", -1))

    def listen(self, name, accept):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(socket_path(self.options, name))
        sock.listen(1)
        self.selector.register(sock, selectors.EVENT_READ, accept)

    def dawdle(self, word):
        """To be slow is what it is told to."""
        selectors.DefaultSelector().select(int(self.words.get(word, 0)) / 1000)

    def start(self):
        if "exit" in self.words:
            print(f"fake-qemu: cannot start: code {self.words['exit']}", file=sys.stderr)
            sys.exit(int(self.words["exit"]))
        self.dawdle("late")
        if "nopidfile" not in self.words:
            self.pidfile = open(self.options["pidfile"][0], "w")
            self.dawdle("latelock")
            fcntl.lockf(self.pidfile, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.pidfile.write(f"{os.getpid()}\n")
            self.pidfile.flush()
        self.listen("con", self.accept_console)
        self.listen("qmp", self.accept_monitor)

    # ---- The console

    def accept_console(self, sock):
        self.console, _ = sock.accept()
        self.selector.register(self.console, selectors.EVENT_READ, self.on_console)

    def on_console(self, sock):
        data = receive(sock)
        if not data:
            self.selector.unregister(sock)
            self.console = None
        elif "echo" in self.words:
            self.print(data)

    def print(self, data):
        if self.console:
            try:
                self.console.sendall(data)
            except OSError:
                self.console = None

    # ---- The monitor

    def accept_monitor(self, sock):
        self.monitor, _ = sock.accept()
        self.input = b""
        self.selector.register(self.monitor, selectors.EVENT_READ, self.on_monitor)
        how = self.words.get("monitor")
        if how == "garbage":
            self.monitor.sendall(b"\x00\xff this is no JSON\n")
        elif how == "half":
            self.monitor.sendall(b'{"QMP": {"version"')
        elif how == "close":
            self.selector.unregister(self.monitor)
            self.monitor.close()
        elif how != "silent":
            self.send({"QMP": {"version": {}, "capabilities": []}})

    def send(self, message):
        if self.monitor:
            try:
                self.monitor.sendall(json.dumps(message).encode() + b"\r\n")
            except OSError:
                self.monitor = None

    def event(self, name, **data):
        self.send({"event": name, "data": data,
                   "timestamp": {"seconds": int(time.time()), "microseconds": 0}})

    def on_monitor(self, sock):
        data = receive(sock)
        if not data:
            self.selector.unregister(sock)
            self.monitor = None
            return
        self.input += data
        while b"\n" in self.input:
            line, _, self.input = self.input.partition(b"\n")
            self.execute(json.loads(line))

    def execute(self, message):
        name = message["execute"]
        if self.running and "later" in self.words and name not in ("cont", "quit"):
            return
        if name == "cont" and self.words.get("monitor") == "nocont":
            return
        answer = {}
        if name == "query-uuid":
            answer = {"UUID": self.options["uuid"][0]}
        elif name == "query-status":
            answer = {"status": self.status, "running": self.running}
        elif name == "query-blockstats":
            answer = [{"qdev": f"/machine/peripheral/vd{n}", "stats": {
                "rd_bytes": 512 * (n + 1), "rd_operations": n + 1, "flush_operations": 7,
                "wr_bytes": 0, "wr_operations": 1 if "writes" in self.words else 0}}
                for n in range(len([d for d in self.options["device"] if "virtio-blk" in d]))]
        self.send({"return": answer, "id": message["id"]})
        if name == "cont":
            self.go_on()
        elif name == "system_powerdown" and self.words.get("button") != "ignore":
            self.end("poweroff")
        elif name == "quit" and self.words.get("quit") != "ignore":
            self.event("SHUTDOWN", guest=False, reason="host-qmp-quit")
            os.unlink(self.options["pidfile"][0])
            sys.exit(0)

    # ---- The guest

    def tell_failure(self, *unused):
        self.event("BLOCK_IO_ERROR", action="stop", reason=f"the clock is {time.monotonic()}")

    def trace(self, event, text):
        if f"{event}*" in self.options.get("trace", []) and "untraced" not in self.words:
            print(event, text, file=sys.stderr, flush=True)

    def become(self, status):
        self.trace("runstate_set", f"current_run_state 1 ({self.status}) new_state 2 ({status})")
        self.status, self.running = status, status == "running"

    def go_on(self):
        self.become("running")
        self.event("RESUME")
        if self.full >= 0:
            self.full -= 1
            self.become("io-error")
            self.event("BLOCK_IO_ERROR", action="stop", reason="No space left on device")
            self.event("STOP")
        if "print" in self.words:
            self.print(self.words["print"].encode() + b"\n")
        left = int(self.words.get("flood", 0))
        while left > 0:
            n = min(left, 65536)
            self.print(b"0123456789abcde\n" * (n // 16) + b"x" * (n % 16))
            left -= n
        if "end" in self.words:
            self.end_at = time.monotonic() + int(self.words.get("after", 0)) / 1000
        later = self.words.get("later")
        if later == "garbage":
            self.monitor.sendall(b"]]]]\n")
        elif later == "close":
            self.selector.unregister(self.monitor)
            self.monitor.close()
            self.monitor = None

    def end(self, how):
        self.end_at = None
        if how == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if how.startswith("exit:"):
            print("fake-qemu: something broke", file=sys.stderr)
            sys.exit(int(how[5:]))
        if how == "poweroff":
            self.trace("qemu_system_shutdown_request", "reason=6")
        self.become("guest-panicked" if how == "panic" else "shutdown")
        if how == "panic":
            self.event("GUEST_PANICKED", action="pause")
        else:
            self.event("SHUTDOWN", guest=True,
                       reason="guest-reset" if how == "reboot" else "guest-shutdown")
        self.event("STOP")

    def serve(self):
        while True:
            wait = None if self.end_at is None else max(0, self.end_at - time.monotonic())
            for key, _ in self.selector.select(wait):
                key.data(key.fileobj)
            if self.end_at is not None and time.monotonic() >= self.end_at:
                self.end(self.words["end"])


if __name__ == "__main__":
    fake = Fake(sys.argv[1:])
    signal.signal(signal.SIGUSR1, fake.tell_failure)
    fake.start()
    fake.serve()
