"""Calls over a link that fails at every byte, in either direction and in every way.

The client library is driven in one process (link_driver.c) through proxy.py. Each call succeeds, or
fails with a reason within its deadline; afterwards the image holds what was acknowledged. That a
call whose answer was lost is carried out once needs a daemon that knows duplicates: that part bites
where the daemon says so among its features (request-replay).
"""
import os
import subprocess
import unittest
import uuid

import harness
import rpc
from crc import crc32c
from protowire import SCHEMA
from proxy import DOWN, UP, Fault, Proxy

DRIVER = os.environ.get("SPB_LINK_DRIVER", "")
KEEPALIVE_MS = 25
RETRIES_MAX = 65  # the library's default budget, and what a call earns
DEADLINE_MS = 20000
SHORT_MS = 120  # for links that stay bad
KINDS = ("cut", "reset", "truncate", "half-close", "delay", "blackhole")
IMAGE = "image"


class Driver:
    """Calls by the client library, each over a client of its own."""

    def __init__(self, endpoint):
        if not os.path.exists(DRIVER):
            raise unittest.SkipTest("no SPB_LINK_DRIVER")
        self.process = subprocess.Popen(
            [DRIVER, endpoint, str(KEEPALIVE_MS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, preexec_fn=harness.die_with_parent, env=harness.environment())

    def call(self, call, timeout_ms=DEADLINE_MS):
        """("ok", message) or ("failed", [code, rpc_code, reason, text])."""
        self.process.stdin.write(
            b"%d %s %s %s\n" % (timeout_ms, (rpc.PACKAGE + call.service).encode(),
                                call.method.encode(), call.payload.hex().encode()))
        self.process.stdin.flush()
        line = self.process.stdout.readline().decode()
        outcome, _, rest = line.rstrip("\n").partition(" ")
        assert outcome in ("ok", "failed"), f"the driver said {line!r}"
        if outcome == "failed":
            return outcome, rest.split(" ", 3)
        return outcome, SCHEMA.decode(SCHEMA.methods[call.service, call.method][1],
                                      bytes.fromhex(rest))

    def finish(self):
        _, said = self.process.communicate(timeout=harness.WAIT_S)
        harness.no_report(said.decode(), "the driver")
        assert self.process.returncode == 0, said


class Call:
    def __init__(self, service, method, **fields):
        self.service, self.method = service, method
        request = SCHEMA.methods[service, method][0]
        if "request_id" in SCHEMA.messages[request]:
            fields["request_id"] = str(uuid.uuid4())
        if "image" in fields:
            fields["image"] = rpc.image_ref(fields["image"])
        self.payload = SCHEMA.encode(request, fields)


class BadLink(harness.Case):
    """Subclasses say over what; the daemon and the driver serve all tests of one."""
    n = 0  # calls so far; no two have the same payload

    @classmethod
    def setUpClass(cls):
        # Its own connection may be quiet for long.
        cls.shared = harness.SharedDaemon(args=harness.limits(idle_ms=3600000))
        cls.addClassCleanup(cls.shared.finish)
        cls.proxy = cls.make_proxy()
        cls.addClassCleanup(cls.proxy.close)
        cls.driver = Driver(cls.proxy.endpoint)
        cls.addClassCleanup(cls.driver.finish)
        with cls.shared.connect() as c:
            c.create(IMAGE, blocks=4096, sector_size=512)
            c.put(IMAGE, 1, b"to be read")
            c.put(IMAGE, 7, b"first")
            c.append(IMAGE, b"first")
            features = c.call("Server", "Info")["features"]
        cls.knows_duplicates = b"request-replay" in features

    def setUp(self):
        super().setUp()
        self.c = self.connect(self.shared, self.proxy.upstream)  # the same principal
        self.c.call("Server", "Ping")  # the next call may come late
        self.unsure = set()

    # ---- one call and what it does: begin() gives the Call, end(outcome, value) looks at the image

    def mine(self):
        return b"call %06d" % self.n

    def happened(self, found, outcome):
        """found: the payloads on the image, newest first. A call that ended without an answer may
        still be carried out, and without a memory of duplicates so may each of its attempts."""
        times = found.count(self.mine())
        self.assertGreaterEqual(times, 1 if outcome == "ok" else 0)
        self.assertLessEqual(times, 1 if self.knows_duplicates else RETRIES_MAX + 1)
        if outcome != "ok":
            self.unsure.add(self.mine())
        if outcome == "ok" and self.knows_duplicates:
            self.assertEqual(next(p for p in found if p not in self.unsure), self.mine())

    def begin_put(self):
        type(self).n += 1
        return Call("Params", "Put", image=IMAGE, id=7, value=self.mine())

    def end_put(self, outcome, value):
        found = self.c.call("Params", "History", image=IMAGE, id=7)["entries"]
        self.happened([p["value"] for p in found], outcome)

    def begin_append(self):
        type(self).n += 1
        return Call("Events", "Append", image=IMAGE,
                    events=[{"severity": 1, "code": 5, "payload": self.mine()}])

    def end_append(self, outcome, value):
        seen = self.c.events(IMAGE, limit=2 * RETRIES_MAX)
        self.happened([e["payload"] for e in reversed(seen["events"])], outcome)
        if outcome == "ok":
            at = value["first_index"] - seen["pointer"]
            self.assertEqual(seen["events"][at]["payload"], self.mine())

    def begin_get(self):
        return Call("Params", "Get", image=IMAGE, id=1)

    def end_get(self, outcome, value):
        if outcome == "ok":
            self.assertEqual(value["param"]["value"], b"to be read")

    def begin_write(self):
        type(self).n += 1
        self.data = b"%04d bytes" % self.n * 20
        started = self.c.call("Uploads", "Start", size=len(self.data), product={
            "image": rpc.image_ref(IMAGE), "name": b"w", "replace": True})
        self.upload = started["upload_id"]
        return Call("Uploads", "Write", upload_id=self.upload, offset=0, data=self.data,
                    crc32c=crc32c(self.data))

    def end_write(self, outcome, value):
        status = self.c.call("Uploads", "Status", upload_id=self.upload)
        if outcome == "ok":
            self.assertEqual(value["next_offset"], len(self.data))
            self.assertEqual(status["next_offset"], len(self.data))
        else:
            self.assertIn(status["next_offset"], (0, len(self.data)))
        if self.n % 40 == 0 and status["next_offset"]:
            self.c.call("Uploads", "Finish", upload_id=self.upload, crc32c=crc32c(self.data))
            self.assertEqual(self.c.product(IMAGE, b"w"), self.data)
        else:
            self.c.call("Uploads", "Abort", upload_id=self.upload)

    # ---- the faults

    def measure(self, name):
        """Bytes up and down of the call without a fault."""
        self.proxy.plan()
        call = getattr(self, f"begin_{name}")()
        outcome, value = self.driver.call(call)
        self.assertEqual(outcome, "ok", value)
        getattr(self, f"end_{name}")(outcome, value)
        return list(self.proxy.passed)

    def every_byte(self, name):
        """The first connection fails at that byte, later ones are good: the call succeeds."""
        for direction, size in zip((UP, DOWN), self.measure(name)):
            self.assertGreater(size, 10)
            for n, kind in enumerate(KINDS):
                # With sanitizers, which know nothing of offsets, fewer of them.
                step = self.steps.get(kind, 1) * (5 if harness.Daemon.is_sanitized() else 1)
                for offset in range(n % step, size, step):
                    fault = Fault(kind, direction, offset)
                    with self.subTest(fault=fault):
                        self.proxy.plan(fault)
                        call = getattr(self, f"begin_{name}")()
                        outcome, value = self.driver.call(call)
                        self.assertEqual(outcome, "ok", f"{fault}: {value}")
                        getattr(self, f"end_{name}")(outcome, value)

    def stays_bad(self, name):
        """Every connection fails at that byte: the call ends in time, with a reason."""
        for direction, size in zip((UP, DOWN), self.measure(name)):
            for n, offset in enumerate(range(0, size, 7)):
                fault = Fault(KINDS[n % len(KINDS)], direction, offset)
                if fault.kind == "delay":
                    continue
                with self.subTest(fault=fault):
                    self.proxy.plan(every=fault)
                    call = getattr(self, f"begin_{name}")()
                    started = os.times().elapsed
                    outcome, value = self.driver.call(call, SHORT_MS)
                    self.assertLess(os.times().elapsed - started, 10)
                    getattr(self, f"end_{name}")(outcome, value)
                    if outcome == "ok":  # a fault of the way up that comes after the request
                        continue
                    code, rpc_code, reason, text = value
                    self.assertIn(code, ("unreachable", "deadline"), value)
                    self.assertEqual((rpc_code, reason), ("-1", "-"))
                    self.assertIn(f"{call.service}/{call.method}", text)

    def test_put(self):
        self.every_byte("put")

    def test_append(self):
        self.every_byte("append")

    def test_get(self):
        self.every_byte("get")

    def test_write(self):
        self.every_byte("write")

    def test_link_that_stays_bad(self):
        for name in ("put", "append", "get", "write"):
            self.stays_bad(name)

    def test_carried_out_once(self):
        """What the tests above assert of a daemon that knows duplicates is asserted at all."""
        if not self.knows_duplicates:
            self.skipTest("the daemon's features do not name request-replay: a call whose answer "
                          "is lost may be carried out twice")
        for name in ("put", "append"):
            _, down = self.measure(name)
            for faults in (1, 3):
                self.proxy.plan(*[Fault("cut", DOWN, n % down) for n in range(faults)])
                call = getattr(self, f"begin_{name}")()
                outcome, value = self.driver.call(call)
                self.assertEqual(outcome, "ok", value)
                getattr(self, f"end_{name}")(outcome, value)

    def tearDown(self):
        self.proxy.plan()
        self.assertEqual(self.c.call("Images", "Check", image=IMAGE)["findings"], [])


class OverTcp(BadLink):
    steps = {}

    @classmethod
    def make_proxy(cls):
        return Proxy(cls.shared.tcp)


class OverUnix(BadLink):
    steps = {"blackhole": 9, "delay": 9}  # which take their time, and know nothing of sockets

    @classmethod
    def make_proxy(cls):
        return Proxy(cls.shared.unix, f"{cls.shared.folder}/proxy.sock")


del BadLink

if __name__ == "__main__":
    harness.main()
