"""Processes and folders of the integration tests: the daemon, the CLI, the independent image tool.

Environment: SPB_DAEMON, SPB_CLI (the programs), SPB_FIXTURES_DIR (fixtures/ and tools/; what needs
it is skipped without it), SPB_FAULTS (the preloaded library of faults.c). Every process ends with
the test that started it, and a sanitizer's report in any of them fails the test.
"""
import atexit
import ctypes
import functools
import http.client
import importlib.util
import json
import os
import pathlib
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse

import rpc

DAEMON = os.environ.get("SPB_DAEMON", "spaceblockd")
CLI = os.environ.get("SPB_CLI", "spaceblock")
FAULTS = os.environ.get("SPB_FAULTS", "")
FIXTURES = pathlib.Path(os.environ.get("SPB_FIXTURES_DIR", "/nonexistent"))
# On a disk: where files cannot be read past the page cache, failed images do not come back.
SCRATCH = os.environ.get("TMPDIR") or "/var/tmp"
WAIT_S = 60  # for what comes at once unless something is broken
METRIC = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="([^"]*)"')
REPORTS = ("Sanitizer", "runtime error:", "assertion failed", "Assertion")
DONE, FAILED, USAGE, UNREACHABLE, ABSENT, CORRUPT = range(6)  # exit codes of the CLI


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@functools.cache
def state_home():
    """Where the CLI keeps what can be continued: not among what the user of this machine has."""
    folder = tempfile.mkdtemp(prefix="spb-state-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def environment(**more):
    env = {k: v for k, v in os.environ.items() if k != "SPACEBLOCK_ENDPOINT"}
    env["XDG_STATE_HOME"] = state_home()
    env.update(more)
    return env


def no_report(text, who):
    text = re.sub(r".* event=kvm .*", "", text)  # where KVM does not work QEMU may assert
    for word in REPORTS:
        assert word not in text, f"{who} reports a defect:\n{text[-8000:]}"


def limits(**values):
    """Arguments that set limits of the daemon."""
    return [word for name, value in values.items() for word in ("--limit", f"{name}={value}")]


def end(process):
    """Whatever it does: it is gone afterwards, and its pipes are closed."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe and not pipe.closed:
            try:
                pipe.close()
            except BrokenPipeError:
                pass


class Daemon:
    """A spaceblockd. start() returns once it says that it is ready."""

    def __init__(self, data_dir, listen=None, args=(), env=None, user=None):
        self.data_dir = pathlib.Path(data_dir)
        self.socket = f"{data_dir}.sock"
        self.listen = [f"unix:{self.socket}", "tcp://127.0.0.1:0"] if listen is None else listen
        self.args, self.env, self.user = list(args), env or {}, user
        self.process, self.ready = None, []
        self.log_path = pathlib.Path(f"{data_dir}.log")

    def command(self):
        listen = [word for one in self.listen for word in ("--listen", one)]
        return [DAEMON, "--data-dir", str(self.data_dir), *listen, *self.args]

    def spawn(self, command=None):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                command or self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=log, env=environment(**self.env), preexec_fn=die_with_parent,
                user=self.user)

    def start(self, command=None):
        self.spawn(command)
        line = self._first_line()
        if not line.startswith("ready"):
            end(self.process)
            raise AssertionError(f"no ready line but {line!r}; it logged:\n{self.log()}")
        self.ready = line.split()[1:]
        return self

    def _first_line(self):
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            return (self.process.stdout.readline().decode().strip()
                    if selector.select(WAIT_S) else "")

    def refuses_to_start(self):
        """Runs it; gives exit code and what it wrote, of a daemon that must not come up."""
        self.spawn()
        out, _ = self.process.communicate(timeout=WAIT_S)
        assert not out.startswith(b"ready"), f"it came up: {out!r}"
        no_report(self.log(), "the daemon")
        return self.process.returncode, self.log()

    @property
    def unix(self):
        return next(e for e in self.ready if e.startswith("unix:"))

    @property
    def tcp(self):
        return next(e for e in self.ready if e.startswith("tcp://"))

    def connect(self, endpoint=None):
        return rpc.Connection(endpoint or self.unix, WAIT_S)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self, code=0):
        got = self.process.wait(WAIT_S)
        self.process.stdout.close()
        no_report(self.log(), "the daemon")
        assert got == code, f"the daemon ended with {got}, not {code}:\n{self.log()[-4000:]}"

    def stop(self):
        self.terminate()
        self.wait()

    def kill9(self):
        self.process.kill()
        self.wait(-signal.SIGKILL)

    def restart(self):
        return self.start()

    def finish(self):
        """End of the test: it must still be able to end well, and not have ended by itself."""
        if self.process is not None and not self.process.stdout.closed:
            try:
                self.stop()
            finally:
                end(self.process)
        else:
            no_report(self.log(), "the daemon")

    def memory_kb(self, which="VmRSS"):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        for line in text.splitlines():
            if line.startswith(f"{which}:"):
                return int(line.split()[1])
        raise AssertionError(f"no {which}")

    def peak_kb(self):
        return self.memory_kb("VmHWM")

    def cpu_s(self):
        """Processor time that it has used."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2]
        return sum(map(int, fields.split()[11:13])) / os.sysconf("SC_CLK_TCK")

    @staticmethod
    @functools.cache
    def is_sanitized():
        """Whether its memory and speed say nothing."""
        program = pathlib.Path(DAEMON).read_bytes()
        return b"__asan_init" in program or b"__tsan_init" in program

    # ---- its HTTP listener

    @property
    def http(self):
        """(host, port)"""
        url = urllib.parse.urlsplit(next(e for e in self.ready if e.startswith("http://")))
        return url.hostname, url.port

    def http_get(self, path, method="GET"):
        """(status, headers, body)"""
        connection = http.client.HTTPConnection(*self.http, timeout=WAIT_S)
        try:
            connection.request(method, path)
            reply = connection.getresponse()
            return reply.status, reply.headers, reply.read().decode()
        finally:
            connection.close()

    def metrics(self):
        """{name: [(labels, value)]}"""
        found = {}
        for line in self.http_get("/metrics")[2].splitlines():
            if match := METRIC.fullmatch(line):
                labels = dict(LABEL.findall(match[2] or ""))
                found.setdefault(match[1], []).append((labels, float(match[3])))
        return found

    def metric(self, name, **labels):
        """The one that has those labels; 0 where there is none of them yet."""
        values = [value for have, value in self.metrics()[name] if have.items() >= labels.items()]
        assert len(values) <= 1, (name, labels, values)
        return values[0] if values else 0

    def image_path(self, tenant, name):
        return self.data_dir / "images" / str(tenant) / f"{name}.img"


class SharedDaemon(Daemon):
    """One for all tests of a class, in a folder of its own. setUpClass makes it."""

    def __init__(self, **how):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="spb-", dir=SCRATCH))
        (self.folder / "d").mkdir()
        super().__init__(self.folder / "d", **how)
        self.start()

    def finish(self):
        try:
            super().finish()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


class Result:
    def __init__(self, args, done):
        self.args, self.code, self.out = args, done.returncode, done.stdout
        self.err = done.stderr.decode(errors="replace")

    @property
    def text(self):
        return self.out.decode(errors="replace")

    @property
    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"{' '.join(map(str, self.args))!r} -> {self.code}\n{self.text[:2000]}{self.err}"


def run_cli(*args, input=b"", code=DONE, env=None, program=None):
    """Runs the CLI; code: what it must end with, None for anything but a signal."""
    words = [os.fspath(a) if isinstance(a, os.PathLike) else a for a in args]
    words = [w if isinstance(w, bytes) else str(w) for w in words]
    done = subprocess.run([program or CLI, *words], input=input, capture_output=True,
                          env=environment(**(env or {})), timeout=4 * WAIT_S, check=False,
                          preexec_fn=die_with_parent)
    result = Result(words, done)
    no_report(result.err, "the CLI")
    assert result.code >= 0, f"ended by a signal: {result!r}"
    if code is not None:
        assert result.code == code, f"expected exit code {code}: {result!r}"
    return result


class Case(unittest.TestCase):
    maxDiff = 4000

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="spb-", dir=SCRATCH))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def daemon(self, name="d", start=True, **how):
        data_dir = self.dir / name
        data_dir.mkdir(exist_ok=True)
        one = Daemon(data_dir, **how)
        self.addCleanup(one.finish)
        return one.start() if start else one

    def connect(self, daemon, endpoint=None):
        one = daemon.connect(endpoint)
        self.addCleanup(one.close)
        return one

    def eventually(self, condition, what, seconds=WAIT_S):
        """Asks until it is so."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            threading.Event().wait(0.01)

    def file(self, name, data):
        path = self.dir / name
        path.write_bytes(data)
        return path

    def refused(self, code, connection, service, method, fields=None, **how):
        """A call that must fail with that code; gives the Reply. Every error carries its reason."""
        reply = connection.ask(service, method, fields, **how)
        self.assertEqual(reply.code, code, reply)
        self.assertEqual(reply.domain, "spaceblock", reply)
        self.assertIn(f"ERROR_REASON_{reply.reason}", rpc.SCHEMA.enums["ErrorReason"])
        self.assertTrue(reply.message)
        return reply


class SharedCase(Case):
    """Tests of one daemon, which no test ends. Each has a connection, `c`."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.shared, cls.made = SharedDaemon(), 0

    @classmethod
    def tearDownClass(cls):
        cls.shared.finish()
        super().tearDownClass()

    def setUp(self):
        super().setUp()
        self.c = self.connect(self.shared)

    def fresh(self, **how):
        """An image that no other test has; gives its name."""
        type(self).made += 1
        name = f"i{self.made}"
        self.c.create(name, **how)
        return name


def threads(count, work):
    """Runs work(n) in count threads, and raises the first exception of any."""
    failures = []

    def guarded(n):
        try:
            work(n)
        except BaseException as error:  # handed to the caller's thread
            failures.append(error)

    running = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    if failures:
        raise failures[0]


# ---- the independent tool

@functools.cache
def spaceimg():
    """The independent reader and writer as a module; skips where it is absent."""
    path = FIXTURES / "tools" / "spaceimg.py"
    if not path.exists():
        raise unittest.SkipTest("no SPB_FIXTURES_DIR")
    spec = importlib.util.spec_from_file_location("spaceimg", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dump(path, sector_size=None):
    """What the independent reader finds, run as users run it."""
    spaceimg()
    size = ["--sector-size", str(sector_size)] if sector_size else []
    done = subprocess.run([sys.executable, FIXTURES / "tools" / "spaceimg.py", "dump", path, *size],
                          capture_output=True, check=True, timeout=4 * WAIT_S)
    return json.loads(done.stdout)


def main():
    """Runs the module's tests; 77 where every one was skipped."""
    result = unittest.main(exit=False, verbosity=2).result
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(77 if result.skipped and len(result.skipped) >= result.testsRun else 0)
