"""What the service manager is told: readiness, reloads, stopping, and that the loop turns."""
import errno
import os
import re
import select
import signal
import socket
import subprocess
import time

import harness
from faults import Faults


class Notify(harness.Case):
    def setUp(self):
        super().setUp()
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.settimeout(harness.WAIT_S)
        self.path = str(self.dir / "notify")

    def start(self, address=None, **env):
        self.manager.bind(address or self.path)
        named = "@" + address[1:] if address else self.path
        return self.daemon(env={"NOTIFY_SOCKET": named, **env})

    def next(self):
        """The next message as {name: value}."""
        return dict(line.split("=", 1) for line in self.manager.recv(4096).decode().splitlines())

    def until(self, name):
        """The next message with that name; those before it are passed."""
        while name not in (message := self.next()):
            pass
        return message

    def test_start_and_stop(self):
        d = self.start()
        first = self.next()
        self.assertNotIn("READY", first)
        self.assertTrue(first["STATUS"])
        ready = self.next()
        self.assertEqual((ready["READY"], ready["STATUS"]), ("1", "Serving 0 images"))
        d.terminate()
        stopping = self.next()
        self.assertEqual(stopping["STOPPING"], "1")
        d.wait()

    def test_abstract_socket(self):
        d = self.start(f"\0spaceblock-test-{os.getpid()}")
        self.assertEqual(self.until("READY")["READY"], "1")
        d.stop()
        self.until("STOPPING")

    def test_ready_comes_when_it_serves(self):
        d = self.start()
        with d.connect() as c:
            c.create("a")
            c.create("b")
        self.until("READY")
        d.stop()
        self.until("STOPPING")
        d.spawn()
        self.assertEqual(self.until("READY")["STATUS"], "Serving 2 images")
        with d.connect(f"unix:{d.socket}") as c:
            c.call("Server", "Ping")

    def test_not_ready_where_the_start_fails(self):
        self.manager.bind(self.path)
        one = self.daemon()
        two = self.daemon("x", start=False, env={"NOTIFY_SOCKET": self.path})
        two.data_dir = one.data_dir
        two.refuses_to_start()
        self.manager.settimeout(0.2)
        told = []
        try:
            while True:
                told.append(self.next())
        except TimeoutError:
            pass
        self.assertFalse([m for m in told if "READY" in m])

    def test_reload(self):
        config = self.dir / "c.conf"
        config.write_text("[limits]\nidle_ms = 5000\n")
        self.manager.bind(self.path)
        d = self.daemon(env={"NOTIFY_SOCKET": self.path}, args=["--config", str(config)])
        self.until("READY")
        for text, words in (("idle_ms = 6000", "Serving"), ("idle_ms = no", "could not")):
            config.write_text(f"[limits]\n{text}\n")
            before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            d.process.send_signal(signal.SIGHUP)
            reloading = self.next()
            self.assertEqual(reloading["RELOADING"], "1")
            after_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self.assertLessEqual(before_us, int(reloading["MONOTONIC_USEC"]))
            self.assertLessEqual(int(reloading["MONOTONIC_USEC"]), after_us)
            ready = self.next()
            self.assertEqual(ready["READY"], "1")
            self.assertIn(words, ready["STATUS"])

    def test_a_failed_reload_says_why(self):
        config = self.dir / "c.conf"
        config.write_text("[limits]\nidle_ms = 5000\n")
        self.manager.bind(self.path)
        d = self.daemon(env={"NOTIFY_SOCKET": self.path}, args=["--config", str(config)])
        self.until("READY")
        for value in (b"soon", b"so\xff\xfeon\x1b[1m", b"x" * 60, "spät".encode() * 500):
            config.write_bytes(b"[limits]\n\nidle_ms = " + value + b"\n")
            d.process.send_signal(signal.SIGHUP)
            self.until("RELOADING")
            told = self.next()
            self.assertEqual(sorted(told), ["READY", "STATUS"])
            self.assertRegex(told["STATUS"], r"could not be reloaded and is as it was: \S+")
            self.assertRegex(told["STATUS"], r"^[ -~]{60,500}$")
            self.assertIn("c.conf:3: ", told["STATUS"])
            if value == b"soon":
                self.assertIn('idle_ms: found "soon", expected 100 to', told["STATUS"])
        config.unlink()
        d.process.send_signal(signal.SIGHUP)
        self.until("RELOADING")
        self.assertIn(os.strerror(errno.ENOENT), self.next()["STATUS"])

    def test_watchdog(self):
        self.start(WATCHDOG_USEC="1000000")
        self.until("READY")
        times = []
        for _ in range(5):
            self.until("WATCHDOG")
            times.append(time.monotonic())
        for earlier, later in zip(times, times[1:]):
            self.assertGreater(later - earlier, 0.2)
            self.assertLess(later - earlier, 20)
        self.assertLess(times[-1] - times[0], 4 * 1.0, "less often than it is wanted")

    def test_watchdog_of_another_process(self):
        self.start(WATCHDOG_USEC="100000", WATCHDOG_PID="1")
        self.until("READY")
        self.manager.settimeout(1.5)
        with self.assertRaises(TimeoutError):
            self.next()

    def test_watchdog_stops_with_the_loop(self):
        """A loop that stands still says nothing. A stopped process is the loop standing still."""
        d = self.start(WATCHDOG_USEC="400000")
        self.until("WATCHDOG")
        d.process.send_signal(signal.SIGSTOP)
        self.manager.setblocking(False)
        try:
            while self.next():
                pass
        except BlockingIOError:
            pass
        self.assertFalse(select.select([self.manager], [], [], 1)[0])
        d.process.send_signal(signal.SIGCONT)
        self.manager.settimeout(harness.WAIT_S)
        self.until("WATCHDOG")

    def test_watchdog_goes_on_while_a_disk_stands_still(self):
        faults = Faults(self.dir)
        self.manager.bind(self.path)
        d = self.daemon(env={"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": "600000",
                             **faults.environment()})
        self.addCleanup(faults.release_all)
        with d.connect() as c:
            c.create("a")
            hold = faults.hold("flush", "images/1/a.img")
            stream = c.start("Params", "Put", {"image": "a", "id": 1, "value": b"v"})
            hold.wait()
            for _ in range(4):
                self.until("WATCHDOG")
            hold.release()
            self.assertEqual(c.wait(stream).code, 0)

    def test_a_manager_that_does_not_read_holds_nothing_up(self):
        d = self.start(WATCHDOG_USEC="1000")
        with d.connect() as c:
            for n in range(200):
                d.process.send_signal(signal.SIGHUP)
                c.call("Server", "Ping", payload=b"%d" % n)
        d.stop()

    def test_bad_environment_is_told_and_not_fatal(self):
        for env in ({"NOTIFY_SOCKET": "relative"}, {"NOTIFY_SOCKET": "/" + "x" * 200},
                    {"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": "soon"}):
            d = self.daemon(f"d{len(env)}{len(env['NOTIFY_SOCKET'])}", env=env)
            with d.connect() as c:
                c.call("Server", "Ping")
            self.assertRegex(d.log(), r"event=not-notifying reason=\S+")
            d.stop()

    def test_without_a_manager(self):
        d = self.daemon()
        d.process.send_signal(signal.SIGHUP)
        self.eventually(lambda: "event=reloaded" in d.log(), "no reload")

    def test_it_needs_no_library_of_systemd(self):
        done = subprocess.run(["ldd", harness.DAEMON], capture_output=True, text=True, check=True)
        self.assertIsNone(re.search("libsystemd", done.stdout))


if __name__ == "__main__":
    harness.main()
