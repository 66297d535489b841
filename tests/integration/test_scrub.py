"""Images.Scrub: what rotted is found and nothing else, while the image is served; its rate, its
schedule, and every way to end."""
import random
import re
import threading
import time
import urllib.request

import harness
import rpc
from harness import ABSENT, CORRUPT, DONE, FAILED, USAGE, run_cli

MIB = 1 << 20
MEDIUM, ROTTEN = 8, 5  # FindingKind
SLOW = ["--limit", "scrub_bytes_per_s=64KiB"]


class Scrubs(harness.Case):
    def start_daemon(self, *limits, interval_s=0, **how):
        args = ["--http", "127.0.0.1:0", "--limit", f"scrub_interval_s={interval_s}", *limits]
        self.d = self.daemon(args=args, **how)
        self.c = self.connect(self.d)
        return self.d

    def scrub(self, image="a", **more):
        """A whole one; gives its answer."""
        fields = dict({"start": True, "wait_seconds": 60}, **more)
        while True:
            got = self.c.call("Images", "Scrub", image=image, **fields)
            if not got["running"]:
                return got
            fields["start"] = False

    def status(self, image="a", connection=None, **more):
        return (connection or self.c).call("Images", "Scrub", image=image, **more)

    def found(self, got):
        return sorted((f["kind"], f["index"]) for f in got["findings"])

    def write_into(self, image, offset, data):
        with open(self.d.image_path(1, image), "r+b") as f:
            f.seek(offset)
            f.write(data)

    def metric(self, name):
        address = next(e for e in self.d.ready if e.startswith("http://"))
        with urllib.request.urlopen(f"{address}/metrics", timeout=harness.WAIT_S) as answer:
            text = answer.read().decode()
        return float(re.search(rf"^spaceblock_{re.escape(name)} (\S+)$", text, re.M).group(1))

    def logged(self, event, *words):
        return [line for line in self.d.log().splitlines()
                if f"event={event} " in line and all(w in line for w in words)]

    def product_at(self, image, name, size):
        """Byte offset of a product's data in the file."""
        for product in self.c.call("DataProducts", "List", image=image)["products"]:
            if product["name"] == name:
                return (33 + product["block_offset"]) * size
        raise AssertionError("no such product")

    # ---- what it finds

    def test_finds_exactly_what_rotted(self):
        for size in (512, 4096):
            if size == 512:
                self.start_daemon()
            image = f"s{size}"
            self.c.create(image, blocks=4096, sector_size=size)
            self.c.put(image, 1, b"value")
            self.c.append(image, b"event")
            for n in range(4):
                self.c.upload(image, b"p%d" % n, random.Random(n).randbytes(300_000))
            self.assertEqual(self.found(self.scrub(image)), [])
            at = self.product_at(image, b"p2", size)
            self.write_into(image, at + 200_001, b"\xee")
            self.assertEqual([k for k, _ in self.found(self.scrub(image))], [ROTTEN])
            sector = 20 * size // 512  # of the event area, never written
            self.write_into(image, sector * 512 + 5, b"\xee")
            got = self.scrub(image)
            kinds = self.found(got)
            self.assertEqual([k for k, _ in kinds], [ROTTEN, MEDIUM])
            self.assertEqual(kinds[1], (MEDIUM, sector))
            self.assertIn("p2", got["findings"][-1]["text"].decode()
                          + got["findings"][0]["text"].decode())
            self.assertEqual(got["failure"], b"")
            self.assertGreater(got["ended_at"], 0)
            # each is logged once, however often it is found
            self.scrub(image)
            self.assertEqual(len(self.logged("rot-found", f"name={image}")), 2)
        self.assertEqual(self.metric("images_rotten"), 2)
        self.assertEqual(self.metric("scrub_findings_total"), 4)
        self.assertEqual(self.metric('scrubs_total{outcome="done"}'), 8)
        self.c.call("Images", "Delete", image="s512")
        while self.metric("images_rotten") != 1:  # once the last call has let go of it
            pass

    def test_repaired_image_is_clean_again(self):
        self.start_daemon()
        self.c.create("a", blocks=256)
        self.c.upload("a", b"p", b"x" * 5000)
        self.write_into("a", self.product_at("a", b"p", 512), b"\xee")
        self.assertEqual([k for k, _ in self.found(self.scrub())], [ROTTEN])
        self.c.call("Images", "Check", image="a", repair=True,
                    request_id="11111111-2222-4333-8444-555555555555")
        self.assertEqual(self.found(self.scrub()), [])
        self.assertEqual(self.metric("images_rotten"), 0)

    def test_finds_nothing_while_the_image_is_written_to(self):
        self.start_daemon("--limit", "scrub_bytes_per_s=64MiB")
        self.c.create("a", blocks=16384, sector_size=4096)
        for n in range(8):
            self.c.upload("a", b"p%d" % n, random.Random(n).randbytes(MIB))
        over = threading.Event()
        done = [0] * 3

        def change(n):
            rng = random.Random(n)
            with self.d.connect() as c:
                while not over.is_set():
                    if n == 0:
                        c.put("a", rng.randrange(200), rng.randbytes(20))
                    elif n == 1:
                        c.append("a", *[rng.randbytes(30)] * 5)
                    elif rng.randrange(4) == 0:
                        name = b"p%d" % rng.randrange(8)
                        c.ask("DataProducts", "Delete", {"image": "a", "name": name})
                    else:
                        c.upload("a", b"p%d" % rng.randrange(8),
                                 rng.randbytes(rng.randrange(1, 2 * MIB)), replace=True)
                    done[n] += 1

        def scrubs():
            try:
                for _ in range(4):
                    got = self.scrub()
                    self.assertEqual((self.found(got), got["failure"]), ([], b""))
            finally:
                over.set()

        harness.threads(4, lambda n: scrubs() if n == 3 else change(n))
        self.assertTrue(all(done), done)
        self.assertEqual(self.c.call("Images", "Check", image="a")["findings"], [])

    # ---- rate and schedule

    def test_rate_is_bounded(self):
        self.start_daemon("--limit", "scrub_bytes_per_s=4MiB")
        self.c.create("a", blocks=20000)
        self.c.upload("a", b"p", b"x" * (6 * MIB))
        for _ in range(2):
            before = self.metric("scrub_bytes_total")
            started = time.monotonic()
            got = self.scrub()
            took_s = time.monotonic() - started
            self.assertEqual((got["findings"], got["done_bytes"]), ([], got["total_bytes"]))
            self.assertGreaterEqual(got["total_bytes"], 6 * MIB)
            read = self.metric("scrub_bytes_total") - before
            self.assertGreater(read, 5 * MIB)
            # all but the last piece was waited for
            self.assertGreaterEqual(took_s, (read - MIB / 4) / (4 * MIB) * 0.95)

    def test_schedule_runs_by_itself_one_after_the_other(self):
        self.start_daemon(interval_s=1)
        names = ["c", "a", "b"]
        for name in names:
            self.c.create(name)
            self.c.upload(name, b"p", b"x" * 1000)
        self.write_into("b", self.product_at("b", b"p", 512), b"\xee")
        order = self.wait_scrubbed(7)
        for before, after in zip(order, order[1:]):
            self.assertEqual("abc"[("abc".index(before) + 1) % 3], after, order)
        got = self.status("b")
        self.assertEqual(self.found(got), [(ROTTEN, 0)])
        self.assertEqual(len(self.logged("rot-found")), 1)
        # it goes on after a restart where it was
        self.d.stop()
        count = len(self.logged("image-scrubbed"))
        last = self.scrubbed()[-1]
        self.d.restart()
        self.c = self.connect(self.d)
        order = self.wait_scrubbed(count + 1)
        self.assertEqual(order[count], "abc"[("abc".index(last) + 1) % 3])

    def scrubbed(self):
        return [re.search(r"name=(\w+)", line).group(1) for line in self.logged("image-scrubbed")
                if 'ended_early=""' in line]

    def wait_scrubbed(self, count):
        """Until so many scrubs were logged; gives their images in order."""
        deadline = time.monotonic() + harness.WAIT_S
        while len(order := self.scrubbed()) < count:
            self.assertLess(time.monotonic(), deadline, order)
            self.c.call("Server", "Ping")
        return order

    def test_position_that_is_damaged_is_no_hindrance(self):
        for text in (b"", b"x", b"1", b"99999 a 5", b"1 ../../etc 5", b"1 a 99999999999999",
                     b"1 " + b"a" * 500, b"\xff" * 100):
            d = self.daemon("e", start=False, args=["--limit", "scrub_interval_s=1"])
            (d.data_dir / "scrub-position").write_bytes(text)
            d.start()
            with d.connect() as c:
                if not c.call("Images", "List")["images"]:
                    c.create("a")
                while c.call("Images", "Scrub", image="a")["ended_at"] == 0:
                    pass
            d.stop()

    # ---- waiting

    def test_wait_ends_with_the_time_and_tells_of_progress(self):
        self.start_daemon("--limit", "scrub_bytes_per_s=256KiB")
        self.c.create("a", blocks=20000)
        self.c.create("b", blocks=64)
        self.c.upload("a", b"p", b"x" * (4 * MIB))
        self.assertEqual(self.status()["started_at"], 0)
        got = self.status(start=True)
        self.assertTrue(got["running"])
        queued = self.status("b", start=True, wait_seconds=0)
        self.assertEqual((queued["running"], queued["started_at"]), (1, 0))
        started = time.monotonic()
        got = self.status(wait_seconds=2)
        self.assertGreater(time.monotonic() - started, 1.5)
        self.assertTrue(got["running"])
        self.assertTrue(0 < got["done_bytes"] < got["total_bytes"], got)
        self.assertGreater(got["started_at"], 0)
        reply = self.c.wait(self.c.start("Images", "Scrub", {"image": "a", "wait_seconds": 60},
                                         timeout_ns=500_000_000))
        self.assertEqual((reply.code, reply.body["running"]), (rpc.OK, 1), reply)
        # a second one is not begun while it runs
        self.assertEqual(self.status(start=True)["started_at"], got["started_at"])

    def test_refusals(self):
        self.start_daemon()
        self.c.create("a")
        reply = self.refused(rpc.INVALID, self.c, "Images", "Scrub",
                             {"image": "a", "wait_seconds": 61})
        self.assertEqual(reply.violations(), ["wait_seconds"])
        self.refused(rpc.NOT_FOUND, self.c, "Images", "Scrub", {"image": "b", "start": True})
        self.d.stop()
        self.write_into("a", 0, b"\0" * 48)
        self.d.restart()
        with self.d.connect() as c:
            self.refused(rpc.DATA_LOSS, c, "Images", "Scrub", {"image": "a", "start": True})
            self.assertEqual(self.status(connection=c)["started_at"], 0)

    # ---- ends

    def slow_scrub(self):
        """A scrub that would take a minute, and a call that waits for its end."""
        self.start_daemon(*SLOW)
        self.c.create("a", blocks=20000)
        self.c.upload("a", b"p", b"x" * (4 * MIB))
        waiting = self.connect(self.d)
        stream = waiting.start("Images", "Scrub", {"image": "a", "start": True,
                                                   "wait_seconds": 60})
        while self.status()["total_bytes"] == 0:
            pass
        return waiting, stream

    def test_drain_ends_it(self):
        waiting, stream = self.slow_scrub()
        started = time.monotonic()
        self.d.terminate()
        self.assertEqual(waiting.wait(stream).code, rpc.OK)
        self.d.wait(0)
        self.assertLess(time.monotonic() - started, 10)
        self.assertEqual(len(self.logged("image-scrubbed", "shut down meanwhile")), 1)

    def test_delete_ends_it(self):
        waiting, stream = self.slow_scrub()
        started = time.monotonic()
        self.c.call("Images", "Delete", image="a")
        self.assertLess(time.monotonic() - started, 10)
        reply = waiting.wait(stream)
        self.assertEqual((reply.code, reply.body["running"]), (rpc.OK, 0))
        self.assertIn(b"deleted", reply.body["failure"])
        self.refused(rpc.NOT_FOUND, self.c, "Images", "Scrub", {"image": "a", "start": True})

    def test_changes_do_not_wait_for_it(self):
        self.slow_scrub()
        started = time.monotonic()
        for n in range(50):
            self.c.put("a", n % 20, b"v%d" % n)
            self.c.append("a", b"e")
            self.assertEqual(self.c.get("a", n % 20), b"v%d" % n)
        self.c.upload("a", b"q", b"y" * MIB)
        self.c.call("DataProducts", "Delete", image="a", name=b"p")
        self.assertLess(time.monotonic() - started, 20)
        self.assertTrue(self.status()["running"])

    # ---- the command

    def cli(self, *args, **how):
        return run_cli("image", "scrub", *args, "--endpoint", self.d.unix, **how)

    def test_command(self):
        self.start_daemon()
        self.c.create("a", blocks=256)
        self.c.upload("a", b"p", b"x" * 5000)
        self.assertIn("none since", self.cli("a", "--status").text)
        self.assertIn("clean", self.cli("a", "--wait").text)
        got = self.cli("a", "--wait", "--json").json
        self.assertEqual((got["running"], got["findings"], got["failure"]), (False, [], ""))
        self.write_into("a", self.product_at("a", b"p", 512), b"\xee")
        self.assertIn("product-rotten: product p", self.cli("a", "--wait", code=CORRUPT).text)
        got = self.cli("a", "--status", "--json", code=CORRUPT).json
        self.assertEqual([(f["kind"], f["index"], f["repairable"]) for f in got["findings"]],
                         [("product-rotten", 0, True)])
        self.cli("b", code=ABSENT)
        self.cli(code=USAGE)
        self.cli("a", "--repair", code=USAGE)

    def test_command_whose_scrub_ends_early(self):
        self.slow_scrub()
        results = []
        running = threading.Thread(target=lambda: results.append(
            self.cli("a", "--wait", "--json", code=None)))
        running.start()
        self.assertIn("runs since", self.cli("a", "--status").text)
        self.c.call("Images", "Delete", image="a")
        running.join()
        self.assertIn(results[0].code, (FAILED, ABSENT), results)
        self.assertNotEqual(results[0].code, DONE)


if __name__ == "__main__":
    harness.main()
