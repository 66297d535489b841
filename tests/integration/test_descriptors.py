"""A daemon whose file descriptors run out: it keeps some, does not spin, and comes back."""
import os
import pathlib
import resource
import shutil
import time
import unittest

import harness
import rpc
from harness import limits

NOFILE = 99
RESERVE = 24


@unittest.skipUnless(shutil.which("prlimit"), "no prlimit")
class Descriptors(harness.Case):
    def start(self, nofile=NOFILE, reserve=RESERVE, **values):
        self.d = self.daemon(start=False, args=["--http", "127.0.0.1:0", *limits(
            descriptors_reserve=reserve, **values)])
        self.d.start(["prlimit", f"--nofile={nofile}:{nofile}", *self.d.command()])
        self.c = self.connect(self.d)
        self.c.call("Server", "Ping")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.d.process.pid}/fd"))

    def refusals(self):
        return self.d.metric("spaceblock_refusals_total", reason="descriptors")

    def crowd(self, count):
        """So many peers that connect and wait; their connecting need not be answered."""
        crowd = [rpc.dial(self.d.tcp if n % 2 else self.d.unix, harness.WAIT_S)
                 for n in range(count)]
        for one in crowd:
            self.addCleanup(one.close)
        return crowd

    def does_not_spin(self, work):
        """Much less processor time than wall time while work() goes on."""
        cpu, started = self.d.cpu_s(), time.monotonic()
        work()
        lasted = time.monotonic() - started
        self.assertGreater(lasted, 0.9)
        self.assertLess((self.d.cpu_s() - cpu) / lasted, 0.5)

    def can_connect(self):
        try:
            with self.d.connect() as c:
                c.sock.settimeout(5)
                return c.call("Server", "Ping") is not None
        except (rpc.Closed, OSError):
            return False

    def test_connections_leave_a_reserve(self):
        self.start()
        crowd = self.crowd(NOFILE)
        self.eventually(lambda: self.refusals() > 0, "all were taken")
        self.assertLessEqual(self.descriptors(), NOFILE - RESERVE + 1)
        self.does_not_spin(lambda: self.c.quiet_for(1))
        self.c.create("made-meanwhile")  # the daemon's own work goes on
        self.c.put("made-meanwhile", 1, b"v")
        self.assertEqual(self.d.http_get("/readyz")[0], 200)
        for one in crowd:
            one.close()
        self.eventually(self.can_connect, "no connection after the crowd has left")
        self.assertEqual(self.c.get("made-meanwhile", 1), b"v")

    def open_images(self):
        """Images until descriptors run out; gives how many there are."""
        for n in range(NOFILE):
            reply = self.c.ask("Images", "Create", {"image": f"i{n}", "total_blocks": 64})
            if reply.code:
                return n
        self.fail("descriptors do not run out")

    def test_no_descriptor_at_all(self):
        """Images take the reserve too; who connects then is told by being closed."""
        self.start(reserve=4, accept_rest_ms=50)
        count = self.open_images()
        self.assertGreater(count, 20)
        self.refuses_for_want_of_descriptors()
        self.does_not_spin(lambda: [self.refuses_for_want_of_descriptors() for _ in range(10)])
        self.c.put("i0", 1, b"v")
        for n in range(count // 2):
            self.c.call("Images", "Delete", image=f"i{n}")
        self.eventually(self.can_connect, "no connection after images were deleted")
        self.assertEqual(self.c.call("Images", "Check", image=f"i{count - 1}")["findings"], [])

    def refuses_for_want_of_descriptors(self):
        with self.d.connect() as c:
            c.sock.settimeout(10)
            self.assertTrue(c.at_end())
        self.c.quiet_for(0.1)

    def test_the_spare_comes_back(self):
        """Refused over and over, it never ends up without the descriptor that refusing takes."""
        self.start(reserve=4, accept_rest_ms=10)
        self.open_images()
        for _ in range(30):
            with self.d.connect() as c:
                c.sock.settimeout(10)
                self.assertTrue(c.at_end())
        self.assertLessEqual(self.descriptors(), NOFILE)
        self.assertIn("/dev/null", [os.readlink(p) for p in
                                    pathlib.Path(f"/proc/{self.d.process.pid}/fd").iterdir()])

    def test_too_few_descriptors_to_begin_with(self):
        d = self.daemon(start=False, args=limits(descriptors_reserve=1024))
        d.spawn(["prlimit", "--nofile=512:512", *d.command()])
        _, _ = d.process.communicate(timeout=harness.WAIT_S)
        self.assertEqual(d.process.returncode, 1)
        self.assertIn("512", d.log())
        self.assertIn("descriptors_reserve", d.log())

    def test_http_leaves_half_of_the_reserve(self):
        self.start(http_connections_max=100)
        before = self.descriptors()
        host, port = self.d.http
        crowd = [rpc.dial(f"tcp://{host}:{port}", harness.WAIT_S) for _ in range(NOFILE)]
        for one in crowd:
            self.addCleanup(one.close)
        self.eventually(lambda: self.descriptors() > before + RESERVE // 2, "none is taken")
        self.does_not_spin(lambda: self.c.quiet_for(1))
        self.assertLessEqual(self.descriptors(), NOFILE - RESERVE // 2 + 1)
        self.c.create("made-meanwhile")
        for one in crowd:
            one.close()
        # An image was made.
        self.eventually(lambda: self.descriptors() <= before + 1, "they stay open")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE,
                       (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    harness.main()
