"""The HTTP listener: metrics, health and readiness; what hostile HTTP does to it and to others."""
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time

import harness
import rpc
from faults import Faults
from harness import limits

KIB, MIB = 1 << 10, 1 << 20
SLACK_S = 20


class Base(harness.Case):
    def start(self, env=None, **values):
        self.d = self.daemon(env=env, args=["--http", "127.0.0.1:0", *limits(**values)])
        c = self.connect(self.d)
        c.call("Server", "Ping")
        return c

    @contextlib.contextmanager
    def raw(self, *pieces):
        with socket.create_connection(self.d.http, timeout=SLACK_S) as sock:
            for piece in pieces:
                sock.sendall(piece)
            yield sock

    @staticmethod
    def all_of(sock):
        out = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := sock.recv(1 << 16):
                out += piece
        return out

    def answer_to(self, *pieces):
        try:
            with self.raw(*pieces) as sock:
                return self.all_of(sock)
        except (BrokenPipeError, ConnectionResetError):
            return b""


class Metrics(Base):
    def test_calls_by_method_and_code(self):
        c = self.start()
        c.create("a")
        for n in range(5):
            c.put("a", n, b"v")
        self.refused(rpc.NOT_FOUND, c, "Params", "Get", {"image": "a", "id": 99})
        c.ask("Nope", "Nope", payload=b"")

        def calls(method, code, service="spaceblock.v1.Params"):
            return self.d.metric("spaceblock_rpc_calls_total", service=service, method=method,
                                 code=code)

        self.assertEqual((calls("Put", "OK"), calls("Get", "OK")), (5, 0))
        self.assertEqual(calls("Get", "NOT_FOUND"), 1)
        self.assertEqual(calls("unknown", "UNIMPLEMENTED", "unknown"), 1)
        name = "spaceblock_rpc_duration_seconds"
        self.assertEqual(self.d.metric(f"{name}_count", method="Put",
                                       service="spaceblock.v1.Params"), 5)
        self.assertGreater(self.d.metric(f"{name}_sum", method="Put",
                                         service="spaceblock.v1.Params"), 0)

    def test_histograms(self):
        c = self.start()
        c.create("a")
        for n in range(20):
            c.put("a", 1, b"%d" % n)
        found = self.d.metrics()
        for name in ("spaceblock_rpc_duration_seconds", "spaceblock_group_operations",
                     "spaceblock_group_carry_out_seconds"):
            series = {}
            for labels, value in found[f"{name}_bucket"]:
                bound = labels.pop("le")
                series.setdefault(tuple(sorted(labels.items())), []).append((bound, value))
            for key, buckets in series.items():
                values = [v for _, v in buckets]
                bounds = [float(b) for b, _ in buckets]
                self.assertEqual(bounds, sorted(bounds), key)
                self.assertEqual(values, sorted(values), key)
                self.assertEqual(buckets[-1][0], "+Inf")
                count = [v for labels, v in found[f"{name}_count"]
                         if tuple(sorted(labels.items())) == key]
                self.assertEqual(count, [values[-1]])
        self.assertEqual(self.d.metric("spaceblock_group_operations_count"), 20)

    def test_held_time_shows_in_latency_and_carrying_out(self):
        faults = Faults(self.dir)
        c = self.start(env=faults.environment())
        self.addCleanup(faults.release_all)
        c.create("a")
        hold = faults.hold("flush", "images/1/a.img")
        stream = c.start("Params", "Put", {"image": "a", "id": 1, "value": b"v"})
        hold.wait()
        self.eventually(lambda: self.d.metric("spaceblock_calls_in_flight") == 1, "not counted")
        c.quiet_for(0.5)
        hold.release()
        c.wait(stream)
        for name, labels in (("spaceblock_rpc_duration_seconds_sum",
                              {"method": "Put", "service": "spaceblock.v1.Params"}),
                             ("spaceblock_group_carry_out_seconds_sum", {})):
            self.assertGreater(self.d.metric(name, **labels), 0.5)
            self.assertLess(self.d.metric(name, **labels), SLACK_S)

    def test_images_by_state(self):
        c = self.start()
        for name in "abc":
            c.create(name)
        self.assertEqual(self.d.metric("spaceblock_images", state="ready"), 3)
        self.d.stop()
        path = self.d.image_path(1, "b")
        path.write_bytes(b"X" * 512 + path.read_bytes()[512:])
        self.d.restart()
        self.assertEqual(self.d.metric("spaceblock_images", state="ready"), 2)
        self.assertEqual(self.d.metric("spaceblock_images", state="damaged"), 1)

    def test_images_in_pages(self):
        c = self.start()
        for n in range(520):  # more than are looked at at once
            c.create(f"{n % 3 + 1}/i{n}")
        self.assertEqual(self.d.metric("spaceblock_images", state="ready"), 520)

    def test_bytes_and_connections(self):
        c = self.start()
        payload = b"p" * 50000
        before_in, before_out = (self.d.metric(f"spaceblock_{n}_bytes_total")
                                 for n in ("received", "sent"))
        c.call("Server", "Ping", payload=payload)
        self.assertIn(self.d.metric("spaceblock_received_bytes_total") - before_in,
                      range(50000, 50200))
        self.assertIn(self.d.metric("spaceblock_sent_bytes_total") - before_out,
                      range(50000, 50200))
        self.assertEqual(self.d.metric("spaceblock_connections"), 1)
        with self.d.connect() as other:
            other.call("Server", "Ping")
            self.assertEqual(self.d.metric("spaceblock_connections"), 2)
        self.eventually(lambda: self.d.metric("spaceblock_connections") == 1, "it stays")
        self.assertEqual(self.d.metric("spaceblock_connections_accepted_total"), 2)

    def test_process(self):
        self.start()
        resident = self.d.metric("process_resident_memory_bytes")
        self.assertAlmostEqual(resident / 1024, self.d.memory_kb(), delta=4096)
        fds = len(os.listdir(f"/proc/{self.d.process.pid}/fd"))
        self.assertAlmostEqual(self.d.metric("process_open_fds"), fds, delta=4)
        self.assertGreater(self.d.metric("process_max_fds"), fds)
        self.assertAlmostEqual(self.d.metric("process_start_time_seconds"), time.time(),
                               delta=harness.WAIT_S)
        self.assertGreater(self.d.metric("process_cpu_seconds_total"), 0)

    def test_promtool(self):
        if not shutil.which("promtool"):
            self.skipTest("no promtool")
        c = self.start()
        c.create("a")
        c.put("a", 1, b"v")
        text = self.d.http_get("/metrics")[2]
        done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True,
                              capture_output=True, check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_size_stays_as_it_is(self):
        c = self.start()
        c.create("a")

        def text():
            return self.d.http_get("/metrics")[2]

        c.put("a", 1, b"v")
        c.ask("Nope", "Nope", payload=b"")
        before = text().count("\n")
        for n in range(200):
            c.ask(f"Nope{n}", f"Method{n}", payload=b"")
            c.put("a", n % 9, b"%d" % n)
        self.assertEqual(text().count("\n"), before)


class Health(Base):
    def test_paths(self):
        self.start()
        for path, words in (("/healthz", "alive"), ("/readyz", "ready")):
            status, headers, body = self.d.http_get(path)
            self.assertEqual((status, body.strip()), (200, words))
            self.assertEqual(headers["Connection"], "close")
        status, headers, body = self.d.http_get("/metrics")
        self.assertEqual(headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
        self.assertEqual(len(body), int(headers["Content-Length"]))
        for path in ("/", "/metrics/", "/nope", "/../etc/passwd"):
            self.assertEqual(self.d.http_get(path)[0], 404, path)
        self.assertEqual(self.d.http_get("/healthz?x=1")[0], 200)

    def test_head_has_no_body(self):
        self.start()
        for path in ("/metrics", "/healthz"):
            told = self.answer_to(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head, _, body = told.partition(b"\r\n\r\n")
            self.assertTrue(head.startswith(b"HTTP/1.1 200 "), told)
            self.assertEqual(body, b"")
            self.assertNotIn(b"Content-Length: 0", head)

    def test_off_without_configuration(self):
        d = self.daemon()
        self.assertFalse([e for e in d.ready if e.startswith("http")])

    def test_a_port_in_use_is_an_error(self):
        self.start()
        host, port = self.d.http
        other = self.daemon("other", start=False, args=["--http", f"{host}:{port}"])
        code, log = other.refuses_to_start()
        self.assertEqual(code, 1)
        self.assertIn(f"{host}:{port}", log)

    def test_ipv6(self):
        interfaces = pathlib.Path("/proc/net/if_inet6")
        if not interfaces.exists() or \
                "00000000000000000000000000000001" not in interfaces.read_text():
            self.skipTest("no IPv6 here")
        self.d = self.daemon(args=["--http", "[::1]:0"])
        self.assertEqual(self.d.http_get("/readyz")[0], 200)

    def test_not_ready_while_it_starts_and_drains(self):
        faults = Faults(self.dir)
        c = self.start(env=faults.environment())
        self.addCleanup(faults.release_all)
        c.create("a")
        hold = faults.hold("flush", "images/1/a.img")
        stream = c.start("Params", "Put", {"image": "a", "id": 1, "value": b"v"})
        hold.wait()
        self.d.terminate()
        self.eventually(lambda: self.d.http_get("/readyz")[0] == 503, "still ready")
        self.assertEqual(self.d.http_get("/readyz")[2].strip(), "draining")
        self.assertEqual(self.d.http_get("/healthz")[0], 200)
        self.assertEqual(self.d.metric("spaceblock_draining"), 1)
        hold.release()
        self.assertEqual(c.wait(stream).code, rpc.OK)
        self.d.wait()
        hold = faults.hold("flush", "images/1/a.img")  # its recovery, as it is opened
        port = self.d.http[1]
        self.d.args = ["--http", f"127.0.0.1:{port}"]
        self.d.spawn()
        hold.wait()
        self.d.ready = [f"http://127.0.0.1:{port}"]
        self.assertEqual(self.d.http_get("/readyz")[0], 503)
        self.assertEqual(self.d.http_get("/readyz")[2].strip(), "starting")
        self.assertEqual(self.d.http_get("/healthz")[0], 200)
        hold.release()
        self.eventually(lambda: self.d.http_get("/readyz")[0] == 200, "never ready")

    def test_a_stuck_loop_shows(self):
        """The loop's thread alone is stopped, by a debugger's means."""
        self.start()
        if not shutil.which("strace"):
            self.skipTest("no strace")
        # Whenever the loop's thread is about to wait, it is held for so many microseconds.
        tracer = subprocess.Popen(
            ["strace", "-qq", "-o", "/dev/null", "-e", "trace=epoll_wait,epoll_pwait2",
             "-e", "inject=epoll_wait,epoll_pwait2:delay_enter=15000000",
             "-p", str(self.d.process.pid)], stderr=subprocess.PIPE,
            preexec_fn=harness.die_with_parent)
        self.addCleanup(harness.end, tracer)
        if tracer.poll() is not None:
            self.skipTest("strace may not attach")
        try:
            self.eventually(lambda: self.d.http_get("/healthz")[0] == 503, "not seen")
            self.assertEqual(self.d.http_get("/readyz")[0], 503)
            self.assertIn("stuck", self.d.http_get("/readyz")[2])
        finally:
            tracer.send_signal(signal.SIGTERM)
            harness.end(tracer)
        self.eventually(lambda: self.d.http_get("/healthz")[0] == 200, "not well again")


class Hostile(Base):
    def fine(self, connection):
        self.assertEqual(self.d.http_get("/readyz")[0], 200)
        connection.call("Server", "Ping")

    def test_methods(self):
        c = self.start(http_connection_ms=1000)
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "BREW"):
            told = self.answer_to(f"{method} /metrics HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            self.assertNotRegex(told[:20], rb"HTTP/1.1 2", method)
        told = self.answer_to(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000"
                              b"\r\n\r\n" + b"x" * 10000)
        self.assertNotIn(b" 200 ", told)
        self.fine(c)

    def test_large_headers(self):
        c = self.start(http_headers_max_bytes=1024, http_connection_ms=1000)
        before = self.d.peak_kb()
        for pieces in ([b"GET /metrics HTTP/1.1\r\n"] + [b"X: " + b"y" * 60000] * 100,
                       [b"GET /" + b"a" * 60000] * 100,
                       [b"GET /metrics HTTP/1.1\r\n"] + [b"X-%d: y\r\n" % n for n in range(9999)]):
            self.assertNotIn(b" 200 ", self.answer_to(*pieces))
        if not self.d.is_sanitized():
            self.assertLess(self.d.peak_kb() - before, 4 * KIB)
        self.fine(c)

    def test_garbage(self):
        c = self.start(http_connection_ms=1000)
        for data in (b"\0" * 1000, b"\xff" * 100000, b"GET\r\n\r\n", b"\r\n" * 10000,
                     b"GET /metrics HTTP/9.9\r\n\r\n", b"GET http://[::1 HTTP/1.1\r\n\r\n",
                     b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                     b"ffffffffffffff\r\n",
                     b"GET /metrics HTTP/1.1\r\nContent-Length: -5\r\n\r\n"):
            self.answer_to(data)
        self.fine(c)

    def test_slow_ones_end_whatever_they_do(self):
        c = self.start(http_connection_ms=700)
        for data in (b"", b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 5000):
            with self.raw() as sock:
                sock.settimeout(0.05)
                started = time.monotonic()
                pieces = iter(data)
                while True:
                    try:
                        byte = next(pieces, None)
                        if byte is not None:
                            sock.sendall(bytes([byte]))
                        if not sock.recv(1):
                            break
                    except TimeoutError:
                        self.assertLess(time.monotonic() - started, SLACK_S)
                    except (BrokenPipeError, ConnectionResetError):
                        break
                self.assertGreater(time.monotonic() - started, 0.6)
        self.fine(c)

    def test_who_does_not_read_ends(self):
        c = self.start(http_connection_ms=700)
        fds = f"/proc/{self.d.process.pid}/fd"
        before = len(os.listdir(fds))
        with contextlib.ExitStack() as stack:
            for _ in range(10):
                sock = stack.enter_context(socket.socket())
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                sock.connect(self.d.http)
                sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
            answered = "spaceblock_http_requests_total"
            self.eventually(lambda: self.d.metric(answered) >= 10, "none is taken")
            self.eventually(lambda: len(os.listdir(fds)) <= before, "they stay open")
        self.fine(c)

    def test_many_connections_do_not_keep_a_scraper_out(self):
        c = self.start(http_connections_max=5, http_connection_ms=60000)
        fds = f"/proc/{self.d.process.pid}/fd"
        before = len(os.listdir(fds))
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(self.raw(b"GET /met"))
            for _ in range(20):
                self.assertEqual(self.d.http_get("/readyz")[0], 200)
            self.eventually(lambda: len(os.listdir(fds)) <= before + 2 * 6, "more than may be")
        self.eventually(lambda: len(os.listdir(fds)) <= before, "they stay open")
        self.fine(c)

    def test_descriptors_and_memory_do_not_grow(self):
        c = self.start()
        self.d.http_get("/metrics")
        fds = f"/proc/{self.d.process.pid}/fd"
        before, memory = len(os.listdir(fds)), self.d.memory_kb()
        for _ in range(300):
            self.d.http_get("/metrics")
        self.eventually(lambda: len(os.listdir(fds)) <= before, "they stay open")
        if not self.d.is_sanitized():
            self.assertLess(self.d.memory_kb() - memory, 4 * KIB)
        self.fine(c)

    def test_scrapers_do_not_slow_calls(self):
        c = self.start()
        for n in range(50):
            c.create(f"i{n}")
        over = threading.Event()

        def scrape(_):
            while not over.is_set():
                self.d.http_get("/metrics")

        def call(_):
            slowest = 0.0
            started = time.monotonic()
            while time.monotonic() - started < 3:
                before = time.monotonic()
                c.call("Server", "Ping", payload=b"x")
                slowest = max(slowest, time.monotonic() - before)
            over.set()
            self.assertLess(slowest, 2)

        harness.threads(4, lambda n: call(n) if n == 0 else scrape(n))

    def test_ends_with_connections_open(self):
        self.start()
        with self.raw(b"GET /metr") as one, self.raw() as two:
            self.d.stop()
            self.assertEqual((self.all_of(one), self.all_of(two)), (b"", b""))


if __name__ == "__main__":
    harness.main()
