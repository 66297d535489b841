"""Control of the preloaded failing disk (faults.c): which calls fail, which wait for the test."""
import errno
import os
import pathlib
import signal
import unittest

import harness


class Stuck(Exception):
    pass


def _alarm(*unused):
    raise Stuck("the call that was to be held never came")


class Faults:
    """Rules of one process. Give environment() to it before it starts."""

    def __init__(self, folder):
        if not os.path.exists(harness.FAULTS):
            raise unittest.SkipTest("no SPB_FAULTS")
        self.folder = pathlib.Path(folder)
        self.rules_path, self.trace_path = self.folder / "rules", self.folder / "trace"
        self.holds = []
        self.clear()

    def environment(self):
        asan = os.environ.get("ASAN_OPTIONS", "")
        return {"LD_PRELOAD": harness.FAULTS, "SPB_FAULT_FILE": str(self.rules_path),
                "SPB_FAULT_TRACE": str(self.trace_path),
                "ASAN_OPTIONS": f"{asan}:verify_asan_link_order=0"}

    def _write(self, text):
        fresh = self.folder / "rules.new"
        fresh.write_text(text)
        fresh.rename(self.rules_path)

    def clear(self):
        self._write("")

    def rules(self, *lines):
        """Several at once, as faults.c reads them."""
        self._write("".join(f"{line}\n" for line in lines))

    def fail(self, operation, path, number=errno.EIO, skip=0):
        self._write(f"{operation} {path} {number} {skip}\n")

    def strike(self, operation, path, action, nth):
        """The nth such call from now on (from 0), and no other: an errno, or "short=BYTES"."""
        self._write(f"{operation} {path} {action} {nth} 1\n")

    def kill(self, operation, path, skip=0):
        """The process ends before such a call, after letting some through."""
        self._write(f"{operation} {path} kill {skip}\n")

    def tear(self, path, size, skip=0):
        """The process ends in such a write, after so many bytes of it were written; one that has
        not so many goes through."""
        self._write(f"write {path} tear={size} {skip}\n")

    def hold(self, operation, path, skip=0):
        pipe = self.folder / f"pipe{len(self.holds)}"
        os.mkfifo(pipe)
        self._write(f"{operation} {path} {pipe} {skip}\n")
        self.holds.append(Hold(self, pipe))
        return self.holds[-1]

    def release_all(self):
        """At the end of a test, which may have failed while something was held."""
        for one in self.holds:
            one.release()

    def count(self, operation, path):
        """Calls of that kind so far."""
        if not self.trace_path.exists():
            return 0
        return sum(line.startswith(operation + " ") and path in line
                   for line in self.trace_path.read_text().splitlines())


class Hold:
    """A call that waits; release() lets it and all later ones go on."""

    def __init__(self, faults, pipe):
        self.faults, self.pipe, self.fd, self.released = faults, pipe, None, False

    def wait(self):
        """Returns once the process is in the call."""
        before = signal.signal(signal.SIGALRM, _alarm)
        signal.alarm(harness.WAIT_S)
        try:
            self.fd = os.open(self.pipe, os.O_WRONLY | os.O_CLOEXEC)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        return self

    def release(self, keep_rules=False):
        if self.released:
            return
        self.released = True
        if not keep_rules:
            self.faults.clear()
        if self.fd is None:
            self.fd = os.open(self.pipe, os.O_RDWR | os.O_CLOEXEC)
        os.close(self.fd)
        os.unlink(self.pipe)
