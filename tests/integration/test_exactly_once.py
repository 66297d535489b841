"""Calls made again with their request_id: what was done is done once, and answered again."""
import struct
import uuid

import harness
import rpc
from faults import Faults
from protowire import SCHEMA

READY, READ_ONLY = 1, 2


def fresh():
    return str(uuid.uuid4())


def raw(reply):
    """Code and payload, to the byte."""
    return reply.code, reply.payload


class Replay(harness.Case):
    def setUp(self):
        super().setUp()
        self.d = self.daemon()
        self.c = self.connect(self.d)
        self.c.create("a", blocks=256)

    def again(self, service, method, fields, times=2):
        """Makes a call, and again: here, elsewhere, after a restart and after a kill. All answers
        are the same, to the byte."""
        fields = dict(fields, request_id=fresh())
        first = self.c.ask(service, method, fields)
        self.assertEqual(first.code, rpc.OK, first)
        for _ in range(times):
            self.assertEqual(raw(self.c.ask(service, method, fields)), raw(first))
        with self.d.connect(self.d.unix) as other:
            self.assertEqual(raw(other.ask(service, method, fields)), raw(first))
        self.d.stop()
        self.c = self.connect(self.d.restart())
        self.assertEqual(raw(self.c.ask(service, method, fields)), raw(first))
        self.d.kill9()
        self.c = self.connect(self.d.restart())
        self.assertEqual(raw(self.c.ask(service, method, fields)), raw(first))
        return first

    def test_put(self):
        reply = self.again("Params", "Put", {"image": "a", "id": 1, "value": b"one"})
        self.assertEqual(reply.body["generation"], 1)
        self.assertEqual(self.c.put("a", 1, b"two"), 2)

    def test_batch_put(self):
        reply = self.again("Params", "BatchPut", {"image": "a", "puts": [
            {"id": n, "value": b"%d" % n} for n in range(20)]})
        self.assertEqual(reply.body["generations"], [1] * 20)
        self.assertEqual(self.c.put("a", 19, b"again"), 2)

    def test_delete_param(self):
        self.c.put("a", 1, b"gone")
        self.again("Params", "Delete", {"image": "a", "id": 1})
        self.c.put("a", 1, b"new")
        self.refused(rpc.NOT_FOUND, self.c, "Params", "Delete", {"image": "a", "id": 2})
        self.assertEqual(self.c.get("a", 1), b"new")

    def test_append(self):
        reply = self.again("Events", "Append", {"image": "a", "events": [
            {"severity": 1, "code": 2, "payload": b"e%d" % n} for n in range(3)]})
        self.assertEqual((reply.body["first_index"], reply.body["count"]), (0, 3))
        self.assertEqual(self.c.events("a")["pointer"], 3)

    def test_delete_product(self):
        self.c.upload("a", b"p", b"data")
        self.again("DataProducts", "Delete", {"image": "a", "name": b"p"})
        self.c.upload("a", b"p", b"another")

    def test_create_and_delete_image(self):
        made = self.again("Images", "Create", {"image": "b", "total_blocks": 64})
        self.assertEqual(made.body["image"]["uuid"],
                         self.c.call("Images", "Get", image="b")["image"]["uuid"])
        self.again("Images", "Delete", {"image": "b"})
        self.refused(rpc.NOT_FOUND, self.c, "Images", "Get", {"image": "b"})
        self.c.create("b", blocks=33)
        self.assertEqual(self.c.call("Images", "Get", image="b")["image"]["total_blocks"], 33)

    def test_defragment(self):
        for n in range(4):
            self.c.upload("a", b"p%d" % n, b"%d" % n * 5000)
        self.c.call("DataProducts", "Delete", image="a", name=b"p1")
        fields = {"image": "a", "request_id": fresh()}
        first = self.c.ask("Images", "Defrag", fields)
        self.assertGreater(first.body["moved"], 0)
        self.c.call("DataProducts", "Delete", image="a", name=b"p0")
        self.assertEqual(raw(self.c.ask("Images", "Defrag", fields)), raw(first))
        self.assertEqual(raw(self.connect(self.d).ask("Images", "Defrag", fields)), raw(first))

    def test_another_payload_is_refused(self):
        request = fresh()
        self.c.put("a", 1, b"one", request_id=request)
        for fields in ({"id": 1, "value": b"two"}, {"id": 2, "value": b"one"}):
            reply = self.refused(rpc.INVALID, self.c, "Params", "Put",
                                 dict(fields, image="a", request_id=request))
            self.assertEqual(reply.reason, "REQUEST_MISMATCH")
        self.assertEqual(self.c.put("a", 1, b"one", request_id=request), 1)
        self.assertEqual(self.c.put("a", 2, b"x", expected_generation=0), 1)

    def test_the_same_id_in_another_method_is_another_call(self):
        request = fresh()
        self.c.put("a", 1, b"one", request_id=request)
        for _ in range(2):
            self.c.call("Events", "Append", image="a", events=[{"code": 1}], request_id=request)
        self.c.call("Params", "Delete", image="a", id=1, request_id=request)
        self.c.call("Params", "Delete", image="a", id=1, request_id=request)
        self.assertEqual(self.c.events("a")["pointer"], 1)

    def test_what_changed_nothing_runs_again(self):
        fields = {"image": "a", "id": 1, "value": b"x", "expected_generation": 1,
                  "request_id": fresh()}
        for _ in range(2):
            reply = self.refused(rpc.ABORTED, self.c, "Params", "Put", fields)
            self.assertEqual(reply.reason, "GENERATION_MISMATCH")
        self.c.put("a", 1, b"first")
        self.assertEqual(self.c.ask("Params", "Put", fields).body["generation"], 2)
        self.assertEqual(self.c.ask("Params", "Put", fields).body["generation"], 2)
        self.assertEqual(self.c.put("a", 1, b"y", expected_generation=2), 3)
        missing = {"image": "nowhere", "id": 1, "value": b"", "request_id": fresh()}
        self.refused(rpc.NOT_FOUND, self.c, "Params", "Put", missing)
        self.c.create("nowhere")
        self.assertEqual(self.c.ask("Params", "Put", missing).body["generation"], 1)

    def test_principals_do_not_share_ids(self):
        request = fresh()
        self.c.put("a", 1, b"unix", request_id=request)
        with self.d.connect(self.d.tcp) as c:
            self.assertEqual(c.put("a", 1, b"tcp", request_id=request), 2)
        self.assertEqual(self.c.get("a", 1), b"tcp")

    def test_the_server_says_so(self):
        features = self.c.call("Server", "Info")["features"]
        self.assertIn(b"request-replay", features)
        self.assertIn(b"audit", features)


class OnFaultyDisk(harness.Case):
    """With a disk that waits or fails on demand."""

    def setUp(self):
        super().setUp()
        self.faults = Faults(self.dir)
        self.d = self.daemon(env=self.faults.environment())
        self.addCleanup(self.faults.release_all)
        self.c = self.connect(self.d)
        self.c.create("a", blocks=256, sector_size=4096)
        self.c.put("a", 1, b"before")
        self.image = "images/1/a.img"

    def fields(self, number=2, **more):
        return dict({"image": "a", "id": number, "value": b"x", "request_id": fresh()}, **more)

    def put_held(self, fields):
        """A put that has reached the image's flush; gives its stream on self.c."""
        hold = self.faults.hold("flush", self.image)
        stream = self.c.start("Params", "Put", fields)
        hold.wait()
        return hold, stream

    def generation(self, number):
        found = self.c.ask("Params", "Get", {"image": "a", "id": number})
        return found.body["param"]["generation"] if found.code == rpc.OK else 0


class Held(OnFaultyDisk):
    def test_a_repeat_of_one_that_runs_waits_for_it(self):
        fields = self.fields()
        hold, stream = self.put_held(fields)
        others = [self.connect(self.d) for _ in range(3)]
        streams = [o.start("Params", "Put", fields) for o in others]
        for other in others:
            other.call("Server", "Ping", payload=b"it was taken")
            self.assertEqual(other.order, [3])
        hold.release()
        first = self.c.wait(stream)
        self.assertEqual(first.code, rpc.OK, first)
        for other, waiting in zip(others, streams):
            self.assertEqual(raw(other.wait(waiting)), raw(first))
        self.assertEqual(self.c.put("a", 2, b"y", expected_generation=1), 2)

    def test_a_repeat_whose_first_connection_is_gone(self):
        fields = self.fields()
        hold, _ = self.put_held(fields)
        self.c.close()
        self.c = self.connect(self.d)
        stream = self.c.start("Params", "Put", fields)
        self.c.call("Server", "Ping", payload=b"it was taken")
        hold.release()
        self.assertEqual(self.c.wait(stream).body["generation"], 1)
        self.assertEqual(self.c.ask("Params", "Put", fields).body["generation"], 1)
        self.assertEqual(self.c.put("a", 2, b"y", expected_generation=1), 2)

    def test_waiting_ends_with_the_deadline(self):
        fields = self.fields()
        hold, stream = self.put_held(fields)
        other = self.connect(self.d)
        reply = other.ask("Params", "Put", fields, timeout_ns=700_000_000)
        self.assertEqual((reply.code, reply.reason), (rpc.ABORTED, "STILL_RUNNING"), reply)
        delay = SCHEMA.decode("RetryInfo", reply.details["RetryInfo"])["retry_delay"]
        self.assertTrue(delay["seconds"] or delay["nanos"])
        hold.release()
        self.assertEqual(self.c.wait(stream).code, rpc.OK)
        self.assertEqual(other.ask("Params", "Put", fields).code, rpc.OK)

    def test_who_waits_runs_where_the_first_changed_nothing(self):
        hold, stream = self.put_held(self.fields(3))
        fields = self.fields(2, expected_generation=7)
        streams = [self.c.start("Params", "Put", fields)]
        others = [self.connect(self.d) for _ in range(2)]
        waiting = [o.start("Params", "Put", fields) for o in others]
        for other in others:
            other.call("Server", "Ping", payload=b"it was taken")
        hold.release()
        self.assertEqual(self.c.wait(stream).code, rpc.OK)
        for connection, one in zip([self.c, *others], streams + waiting):
            self.assertEqual(connection.wait(one).reason, "GENERATION_MISMATCH")

    def test_one_that_may_have_happened_is_settled_by_reopening(self):
        for skip, operation in ((0, "write"), (0, "flush")):
            with self.subTest(operation):
                fields = self.fields(value=operation.encode())
                self.faults.fail(operation, self.image, skip=skip)
                reply = self.c.ask("Params", "Put", fields)
                self.assertEqual((reply.code, reply.reason), (rpc.INTERNAL, "IO_ERROR"), reply)
                for connection in (self.c, self.connect(self.d)):
                    again = connection.ask("Params", "Put", fields)
                    self.assertEqual((again.code, again.reason),
                                     (rpc.INTERNAL, "OUTCOME_UNKNOWN"), again)
                self.faults.clear()
                generation = self.generation(2)
                self.c.call("Images", "Reopen", image="a")
                settled = self.c.ask("Params", "Put", fields)
                self.assertEqual(settled.body["generation"], generation + 1)
                self.assertEqual(raw(self.c.ask("Params", "Put", fields)), raw(settled))
                self.assertEqual(self.generation(2), generation + 1)

    def test_one_that_may_have_happened_is_settled_by_a_restart(self):
        fields = self.fields()
        self.faults.fail("flush", self.image)
        self.assertEqual(self.c.ask("Params", "Put", fields).reason, "IO_ERROR")
        self.d.kill9()
        self.faults.clear()
        self.c = self.connect(self.d.restart())
        self.assertEqual(self.c.ask("Params", "Put", fields).body["generation"], 1)
        self.assertEqual(self.c.put("a", 2, b"y", expected_generation=1), 2)

    def test_a_failing_audit_changes_nothing(self):
        for operation in ("flush", "write"):
            with self.subTest(operation):
                fields = self.fields()
                self.faults.fail(operation, "audit.db")
                reply = self.c.ask("Params", "Put", fields)
                self.assertEqual((reply.code, reply.reason),
                                 (rpc.UNAVAILABLE, "AUDIT_UNAVAILABLE"), reply)
                self.assertIn("not made", reply.message)
                self.assertIn("RetryInfo", reply.details)
                self.assertNotIn(str(self.dir), reply.message)
                for service, method, more in (
                        ("Images", "Create", {"image": "new", "total_blocks": 64}),
                        ("Images", "Delete", {"image": "a"})):
                    self.assertEqual(self.c.ask(service, method, more).reason,
                                     "AUDIT_UNAVAILABLE", method)
                image = self.c.call("Images", "Get", image="a")["image"]
                self.assertEqual((image["state"], image["reason"]), (READY, b""))
                self.assertEqual(self.generation(2), 0)
                self.faults.clear()
                self.assertEqual(self.c.ask("Params", "Put", fields).body["generation"], 1)
                self.c.call("Params", "Delete", image="a", id=2)
        self.assertEqual(self.c.get("a", 1), b"before")
        self.refused(rpc.NOT_FOUND, self.c, "Images", "Get", {"image": "new"})

    def test_answers_leave_after_the_audit_is_durable(self):
        before = self.faults.count("write", self.image)
        hold = self.faults.hold("flush", "audit.db")
        stream = self.c.start("Params", "Put", self.fields())
        hold.wait()
        with self.d.connect() as other:
            other.call("Server", "Ping", payload=b"x")
            self.refused(rpc.NOT_FOUND, other, "Params", "Get", {"image": "a", "id": 2})
        self.assertEqual(self.faults.count("write", self.image), before, "too early")
        hold.release()
        self.assertEqual(self.c.wait(stream).code, rpc.OK)
        self.assertGreater(self.faults.count("write", self.image), before)


    def test_all_workers_waiting_for_the_audit(self):
        """More images than there are workers: readers are served, and all goes on."""
        names = [f"i{n}" for n in range(40)]
        for name in names:
            self.c.create(name, blocks=33)
            self.c.put(name, 1, b"before")
        hold = self.faults.hold("flush", "audit.db")
        streams = [self.c.start("Params", "Put", {"image": name, "id": 1, "value": b"after"})
                   for name in names]
        hold.wait()
        with self.d.connect() as other:
            self.assertEqual([other.get(name, 1) for name in names], [b"before"] * len(names))
        hold.release()
        self.assertEqual([self.c.wait(s).code for s in streams], [rpc.OK] * len(names))
        self.assertEqual([self.c.get(name, 1) for name in names], [b"after"] * len(names))


class Cancel(OnFaultyDisk):
    def cancel(self, request):
        with self.d.connect() as other:
            return other.call("Server", "Cancel", request_id=request)["found"]

    def test_nobody_is_found(self):
        self.assertFalse(self.cancel(fresh()))
        fields = self.fields()
        self.c.ask("Params", "Put", fields)
        self.assertFalse(self.cancel(fields["request_id"]), "it does not run any more")
        for bad in ("", "x", fresh() + "0"):
            reply = self.refused(rpc.INVALID, self.c, "Server", "Cancel", {"request_id": bad})
            self.assertEqual(reply.violations(), ["request_id"])

    def test_one_that_waits_in_the_queue_ends(self):
        hold, stream = self.put_held(self.fields(3))
        fields = self.fields(2)
        queued = self.c.start("Params", "Put", fields)
        other = self.connect(self.d)
        waiting = other.start("Params", "Put", fields)
        other.call("Server", "Ping", payload=b"it was taken")
        self.assertTrue(self.cancel(fields["request_id"]))
        for connection, one in ((self.c, queued), (other, waiting)):
            reply = connection.wait(one)
            self.assertEqual((reply.code, reply.reason), (1, "CANCELLED"), reply)
        hold.release()
        self.assertEqual(self.c.wait(stream).code, rpc.OK)
        self.assertEqual(self.generation(2), 0)
        self.assertEqual(self.c.ask("Params", "Put", fields).body["generation"], 1)

    def test_one_that_is_decided_goes_on(self):
        fields = self.fields()
        hold, stream = self.put_held(fields)
        other = self.connect(self.d)
        waiting = other.start("Params", "Put", fields)
        other.call("Server", "Ping", payload=b"it was taken")
        self.assertTrue(self.cancel(fields["request_id"]))
        reply = other.wait(waiting)
        self.assertEqual(reply.reason, "CANCELLED")
        self.assertNotIn("nothing was done", reply.message)
        hold.release()
        self.assertEqual(self.c.wait(stream).body["generation"], 1)

    def test_one_that_takes_the_place_of_another_ends(self):
        """The first is refused on a worker, and the second, which waited for it, is to run: the
        loop hears of the cancellation before it gets there."""
        fields = dict(self.fields(), expected_generation=7777)
        for pings in [n % 40 for n in range(600)]:
            fields["request_id"] = fresh()
            frames, send = [], self.c.send_bytes
            self.c.send_bytes = frames.append
            streams = [self.c.start("Params", "Put", fields) for _ in range(2)]
            others = [self.c.start("Server", "Ping") for _ in range(pings)]
            others.append(self.c.start("Server", "Cancel", {"request_id": fields["request_id"]}))
            self.c.send_bytes = send
            self.c.send_bytes(b"".join(frames))
            self.assertEqual({self.c.wait(s).code for s in others}, {rpc.OK})
            for stream in streams:
                self.assertIn(self.c.wait(stream).reason, ("CANCELLED", "GENERATION_MISMATCH"))

    def test_anothers_call_is_not_found(self):
        hold, stream = self.put_held(self.fields(3))
        fields = self.fields(2)
        queued = self.c.start("Params", "Put", fields)
        self.c.call("Server", "Ping", payload=b"it was taken")
        with self.d.connect(self.d.tcp) as other:
            self.assertFalse(other.call("Server", "Cancel",
                                        request_id=fields["request_id"])["found"])
        hold.release()
        self.assertEqual([self.c.wait(s).code for s in (stream, queued)], [rpc.OK] * 2)


class Flood(harness.Case):
    def test_many_repeats_at_once(self):
        """Sixty-four connections make the same calls again and again: each happens once."""
        d = self.daemon()
        with d.connect() as c:
            c.create("a", blocks=256)
        calls = [{"image": "a", "events": [{"code": n, "payload": struct.pack(">I", n)}],
                  "request_id": fresh()} for n in range(30)]
        answers = [set() for _ in calls]

        def client(_):
            with d.connect() as c:
                for _ in range(2):
                    streams = [c.start("Events", "Append", fields) for fields in calls]
                    for n, stream in enumerate(streams):
                        reply = c.wait(stream)
                        self.assertEqual(reply.code, rpc.OK, reply)
                        answers[n].add(reply.payload)

        harness.threads(64, client)
        self.assertEqual([len(a) for a in answers], [1] * len(calls))
        with d.connect() as c:
            events = c.events("a", limit=1000)["events"]
            self.assertEqual(sorted(e["code"] for e in events), list(range(len(calls))))


if __name__ == "__main__":
    harness.main()
