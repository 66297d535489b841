"""A disk held still: what waits for it, what must not, and how the daemon ends meanwhile."""
import signal
import time

import harness
import rpc
from crc import crc32c
from faults import Faults

NOT_SERVING = 2


class Stalls(harness.Case):
    def setUp(self):
        super().setUp()
        self.faults = Faults(self.dir)
        self.d = self.daemon(env=self.faults.environment())
        self.addCleanup(self.faults.release_all)
        self.c = self.connect(self.d)
        for name in "ab":
            self.c.create(name, blocks=1024, sector_size=4096)
            self.c.put(name, 1, b"old")

    def start_put(self, connection, image="a", number=1, value=b"new", **how):
        return connection.start("Params", "Put", {"image": image, "id": number, "value": value},
                                **how)

    def held(self, operation="flush", image="a"):
        """A put that waits in that call, on a connection of its own."""
        hold = self.faults.hold(operation, f"images/1/{image}.img")
        connection = self.connect(self.d)
        stream = self.start_put(connection, image)
        hold.wait()
        return hold, connection, stream

    def test_no_answer_before_the_flush(self):
        hold, connection, stream = self.held()
        self.assertTrue(connection.quiet_for(0.3))
        hold.release()
        self.assertEqual(connection.wait(stream).body["generation"], 2)

    def test_no_answer_of_an_append_or_a_product_before_the_flush(self):
        upload = self.c.call("Uploads", "Start", size=3, product={
            "image": rpc.image_ref("a"), "name": b"p"})["upload_id"]
        self.c.write(upload, 0, b"abc")
        for service, method, fields in (
                ("Events", "Append", {"image": "a", "events": [{"code": 1}]}),
                ("Params", "Delete", {"image": "a", "id": 1}),
                ("Uploads", "Finish", {"upload_id": upload, "crc32c": crc32c(b"abc")}),
                ("DataProducts", "Delete", {"image": "a", "name": b"p"})):
            hold = self.faults.hold("flush", "images/1/a.img")
            stream = self.c.start(service, method, fields)
            hold.wait()
            self.assertTrue(self.c.quiet_for(0.2), method)
            hold.release()
            self.assertEqual(self.c.wait(stream).code, rpc.OK)

    def test_group_commit(self):
        hold, first, stream = self.held()
        crowd = [self.connect(self.d, self.d.tcp if n % 2 else None) for n in range(4)]
        # each asks something after its puts, whose answer says that the puts are queued
        waiting = [(c, [self.start_put(c, number=n, value=b"%d" % n)
                        for n in range(k * 10, k * 10 + 10)]) for k, c in enumerate(crowd)]
        for c in crowd:
            c.call("Server", "Ping", payload=b"queued")
        before = self.faults.count("flush", "images/1/a.img")
        hold.release()
        self.assertEqual(first.wait(stream).code, rpc.OK)
        for c, streams in waiting:
            for one in streams:
                self.assertEqual(c.wait(one).code, rpc.OK)
        flushes = self.faults.count("flush", "images/1/a.img") - before
        self.assertLessEqual(flushes, 4, "40 queued puts take a flush each")
        self.assertGreaterEqual(flushes, 1)
        params = self.c.call("Params", "List", image="a")["params"]
        self.assertEqual({p["id"]: p["value"] for p in params},
                         {n: b"%d" % n for n in range(40)})

    def test_events_of_a_group_share_rounds(self):
        hold, first, stream = self.held()
        streams = [self.c.start("Events", "Append", {"image": "a", "events": [{"code": n}]})
                   for n in range(40)]
        self.c.call("Server", "Ping", payload=b"queued")
        before = self.faults.count("flush", "images/1/a.img")
        hold.release()
        self.assertEqual([self.c.wait(s).body["first_index"] for s in streams], list(range(40)))
        self.assertLessEqual(self.faults.count("flush", "images/1/a.img") - before, 6)
        self.assertEqual(first.wait(stream).code, rpc.OK)

    def test_reads_do_not_wait_and_show_what_is_durable(self):
        self.c.append("a", b"event")
        hold, connection, stream = self.held()
        for endpoint in (self.d.unix, self.d.tcp):
            with self.d.connect(endpoint) as c:
                self.assertEqual(c.get("a", 1), b"old")
                self.assertEqual(len(c.call("Params", "History", image="a", id=1)["entries"]), 1)
                self.assertEqual(c.events("a")["events"][0]["payload"], b"event")
                self.assertEqual(c.call("DataProducts", "List", image="a")["products"], [])
                self.assertEqual(len(c.call("Images", "List")["images"]), 2)
                c.call("Images", "Inspect", image="a")
                self.assertEqual(c.call("Health", "Check")["status"], 1)
        hold.release()
        self.assertEqual(connection.wait(stream).code, rpc.OK)
        self.assertEqual(self.c.get("a", 1), b"new")

    def test_other_images_do_not_wait(self):
        hold, connection, stream = self.held()
        for n in range(10):
            self.c.put("b", n, b"%d" % n)
        hold.release()
        self.assertEqual(connection.wait(stream).code, rpc.OK)

    def test_deadline_passes_in_the_queue(self):
        hold, connection, stream = self.held()
        late = self.start_put(self.c, number=2, timeout_ns=100_000_000)
        patient = self.start_put(self.c, number=3, timeout_ns=600_000_000_000)
        started = time.monotonic()
        with self.d.connect() as c:
            while time.monotonic() < started + 0.2:  # until that deadline has surely passed
                c.call("Server", "Ping")
        hold.release()
        reply = self.c.wait(late)
        self.assertEqual((reply.code, reply.reason), (rpc.DEADLINE, "DEADLINE"))
        self.assertEqual(self.c.wait(patient).code, rpc.OK)
        self.refused(rpc.NOT_FOUND, self.c, "Params", "Get", {"image": "a", "id": 2})
        self.assertEqual(connection.wait(stream).code, rpc.OK)

    def test_more_calls_than_may_be_in_flight(self):
        hold, connection, stream = self.held()
        streams = [self.start_put(self.c, value=b"%d" % n) for n in range(300)]
        hold.release()
        replies = [self.c.wait(s) for s in streams]
        done = [r for r in replies if r.code == rpc.OK]
        self.assertGreaterEqual(len(done), 64)
        for reply in replies:
            self.assertIn(reply.code, (rpc.OK, rpc.EXHAUSTED))
        self.assertEqual([r.body["generation"] for r in done], list(range(3, 3 + len(done))))
        self.assertEqual(connection.wait(stream).code, rpc.OK)

    def test_clients_that_leave_in_mid_call(self):
        hold, connection, stream = self.held()
        crowd = [self.connect(self.d, self.d.tcp if n % 2 else None) for n in range(20)]
        for n, c in enumerate(crowd):
            self.start_put(c, number=100 + n)
            c.start("Images", "Check", {"image": "a"})
            c.call("Server", "Ping")
            c.close()
        connection.close()
        self.assertEqual(self.c.get("a", 1), b"old")
        hold.release()
        self.c.put("a", 2, b"after")  # queued behind all of theirs
        self.assertEqual(self.c.get("a", 1), b"new")
        ids = [p["id"] for p in self.c.call("Params", "List", image="a")["params"]]
        self.assertTrue({1, 2} <= set(ids) <= {1, 2, *range(100, 120)})

    def test_drain(self):
        hold, connection, stream = self.held()
        self.d.terminate()
        while self.c.call("Health", "Check")["status"] != NOT_SERVING:
            pass
        reply = self.refused(rpc.UNAVAILABLE, self.c, "Params", "Put", {"image": "b", "id": 5})
        self.assertEqual(reply.reason, "DRAINING")
        self.assertIn("RetryInfo", reply.details)
        self.assertTrue(self.d.running())
        hold.release()
        self.assertEqual(connection.wait(stream).body["generation"], 2)
        self.assertTrue(connection.at_end())
        self.d.wait(0)
        self.d.restart()
        with self.d.connect() as c:
            self.assertEqual(c.get("a", 1), b"new")

    def test_drain_lets_a_chunk_and_a_finish_end(self):
        data = b"d" * (1 << 20)
        upload = self.c.call("Uploads", "Start", size=len(data), product={
            "image": rpc.image_ref("a"), "name": b"p"})["upload_id"]
        for call in ("Write", "Finish"):
            operation = "write" if call == "Write" else "flush"
            hold = self.faults.hold(operation, "images/1/a.img")
            fields = {"upload_id": upload, "crc32c": crc32c(data)}
            if call == "Write":
                fields.update(data=data, offset=0)
            stream = self.c.start("Uploads", call, fields)
            hold.wait()
            if call == "Finish":
                self.d.terminate()
            hold.release()
            self.assertEqual(self.c.wait(stream).code, rpc.OK)
        self.d.wait(0)
        self.d.restart()
        with self.d.connect() as c:
            self.assertEqual(c.product("a", b"p"), data)

    def test_sigint_drains_too(self):
        self.d.process.send_signal(signal.SIGINT)
        self.d.wait(0)

    def test_second_sigterm_ends_it_at_once(self):
        hold, connection, stream = self.held()
        self.d.terminate()
        while self.c.call("Health", "Check")["status"] != NOT_SERVING:
            pass
        self.d.terminate()
        self.d.wait(1)
        self.faults.clear()
        self.d.restart()
        with self.d.connect() as c:
            self.assertIn(c.get("a", 1), (b"old", b"new"))

    def test_killed_before_the_flush(self):
        self.c.put("a", 7, b"durable")
        hold, connection, stream = self.held()
        self.d.kill9()
        self.faults.clear()
        self.d.restart()
        with self.d.connect() as c:
            self.assertIn(c.get("a", 1), (b"old", b"new"))
            self.assertEqual((c.get("a", 7), c.get("b", 1)), (b"durable", b"old"))
            self.assertEqual(c.call("Images", "Check", image="a")["findings"], [])
        connection.close()
        hold.release()

    def test_killed_between_the_rounds_of_an_append(self):
        self.c.append("a", b"first")
        for rounds in (1, 2):
            hold = self.faults.hold("flush" if rounds == 1 else "write", "images/1/a.img")
            self.c.start("Events", "Append", {"image": "a", "events": [{"payload": b"second"}]})
            hold.wait()
            self.d.kill9()
            self.faults.clear()
            hold.release()
            self.c = self.connect(self.d.restart())
            got = [e["payload"] for e in self.c.events("a")["events"]]
            self.assertEqual(got[0], b"first")
            self.assertTrue(set(got[1:]) <= {b"second"})
            self.assertEqual(self.c.call("Images", "Check", image="a")["findings"], [])


if __name__ == "__main__":
    harness.main()
