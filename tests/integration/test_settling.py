"""What became of changes that a death cut short: done, completed, not done or unknown, each found
out from what is on the disk, written into the audit once, and answered when the call is repeated.

The daemon is killed at a chosen write or flush. What it had written is in the page cache then, and
its successor finds it.
"""
import signal
import sqlite3
import struct
import uuid

import harness
import rpc
from faults import Faults
from protowire import SCHEMA

PENDING, OUTCOME_DONE, COMPLETED, NOT_DONE, UNKNOWN = range(1, 6)
READY, READ_ONLY, UNAVAILABLE = 1, 2, 4


class Settling(harness.Case):
    def setUp(self):
        super().setUp()
        self.faults = Faults(self.dir)
        self.d = self.daemon(env=self.faults.environment())
        self.c = self.connect(self.d)
        self.c.create("a", blocks=256)
        self.image = "images/1/a.img"

    def call_dies(self, service, method, fields):
        """The daemon ends in the call, as the rules say; gives the fields, to be repeated."""
        fields = dict(fields, request_id=fields.get("request_id", str(uuid.uuid4())))
        with self.assertRaises(rpc.Closed):
            self.c.ask(service, method, fields)
        self.d.wait(-signal.SIGKILL)
        self.faults.clear()
        return fields

    def restart(self):
        self.c = self.connect(self.d.restart())

    def dies(self, where, service, method, fields):
        """The same, and it is started again; where: operation, path, calls to let through. "tear"
        has the bytes to be written instead."""
        if where[0] == "tear":
            self.faults.tear(*where[1:])
        else:
            self.faults.kill(*where)
        fields = self.call_dies(service, method, fields)
        self.restart()
        return fields

    def records(self, **filters):
        reply = self.c.ask("Audit", "List", payload=SCHEMA.encode("ListAuditRequest", filters))
        self.assertEqual(reply.code, rpc.OK, reply)
        return reply.body["records"]

    def outcome(self, fields):
        """Of the one record of a call."""
        request = uuid.UUID(fields["request_id"]).bytes
        found = [r["outcome"] for r in self.records() if r["request_id"] == request]
        self.assertEqual(len(found), 1, found)
        return found[0]

    def settled(self, fields, outcome):
        self.assertEqual(self.outcome(fields), outcome)
        self.assertEqual(self.records(outcome=PENDING), [])
        self.assertEqual(self.d.log().count("event=changes-settled"), 1)
        self.d.stop()
        self.restart()
        self.assertEqual(self.outcome(fields), outcome, "it was settled again")
        self.assertEqual(self.d.log().count("event=changes-settled"), 1)

    def is_sound(self):
        self.assertEqual(self.c.call("Images", "Check", image="a")["findings"], [])


class Changes(Settling):
    def test_put_not_done(self):
        fields = self.dies(("write", self.image), "Params", "Put",
                           {"image": "a", "id": 1, "value": b"x"})
        self.settled(fields, NOT_DONE)
        self.refused(rpc.NOT_FOUND, self.c, "Params", "Get", {"image": "a", "id": 1})
        self.assertEqual(self.c.ask("Params", "Put", fields).body["generation"], 1)
        self.assertEqual(sorted(r["outcome"] for r in self.records(method=b"Params.Put")),
                         [OUTCOME_DONE, NOT_DONE])

    def test_put_done(self):
        self.c.put("a", 1, b"before")
        fields = self.dies(("flush", self.image), "Params", "Put",
                           {"image": "a", "id": 1, "value": b"x"})
        self.settled(fields, OUTCOME_DONE)
        self.assertEqual(self.c.get("a", 1), b"x")
        self.assertEqual(self.c.ask("Params", "Put", fields).body["generation"], 2)
        self.assertEqual(self.c.put("a", 1, b"y", expected_generation=2), 3)

    def test_killed_before_the_audit_knew(self):
        """What was not recorded was not begun: there is no trace of it."""
        self.faults.kill("write", "audit.db-wal")
        fields = self.call_dies("Params", "Put", {"image": "a", "id": 1, "value": b"x"})
        self.restart()
        self.assertEqual(self.records(method=b"Params.Put"), [])
        self.assertEqual(self.c.ask("Params", "Put", fields).body["generation"], 1)

    def test_batch_completed(self):
        puts = [{"id": n, "value": b"%d" % n * 9} for n in range(20)]  # two in a sector
        for n in range(4):
            self.c.put("a", n, b"old")
        fields = self.dies(("tear", self.image, 5 * 512), "Params", "BatchPut",
                           {"image": "a", "puts": puts})
        self.settled(fields, COMPLETED)
        self.assertEqual({p["id"]: p["value"] for p in
                          self.c.call("Params", "List", image="a")["params"]},
                         {p["id"]: p["value"] for p in puts})
        self.assertEqual(self.c.ask("Params", "BatchPut", fields).body["generations"],
                         [2] * 4 + [1] * 16)
        self.is_sound()

    def test_a_call_that_a_completed_one_builds_on_is_completed(self):
        """Three calls in one group: of the second nothing is there, but the third, which takes its
        value further, is there in part. Made anew, the second would undo the third."""
        for number in (6, 7, 9):  # three slots of two in a sector
            self.c.put("a", number, b"old")
        ref = rpc.image_ref("a")
        calls = [("Put", {"image": ref, "id": 9, "value": b"first"}),
                 ("Put", {"image": ref, "id": 7, "value": b"first"}),
                 ("BatchPut", {"image": ref, "puts": [{"id": 7, "value": b"last"},
                                                      {"id": 9, "value": b"last"}]})]
        for _, fields in calls:
            fields["request_id"] = str(uuid.uuid4())
        self.faults.tear(self.image, 512)  # the sector of 9, and not that of 7
        c, frames = self.connect(self.d), b""
        for n, (method, fields) in enumerate(calls):
            request_type = SCHEMA.methods[("Params", method)][0]
            data = rpc.request_frame(rpc.PACKAGE + "Params", method,
                                     SCHEMA.encode(request_type, fields))
            frames += struct.pack(">IIBB", len(data), 2 * n + 1, 1, 0) + data
        c.send_bytes(frames)  # at once, so that they share a group
        self.d.wait(-signal.SIGKILL)
        self.faults.clear()
        self.restart()
        self.assertEqual([self.outcome(fields) for _, fields in calls],
                         [OUTCOME_DONE, COMPLETED, COMPLETED])
        self.assertEqual((self.c.get("a", 7), self.c.get("a", 9)), (b"last", b"last"))
        again = [self.c.ask("Params", method, fields).body for method, fields in calls]
        self.assertEqual([a.get("generation", a.get("generations")) for a in again],
                         [2, 2, [3, 3]])
        self.assertEqual((self.c.get("a", 7), self.c.get("a", 9)), (b"last", b"last"))
        self.is_sound()

    def test_batch_at_every_write(self):
        """All or nothing, wherever the daemon dies; and by the outcome one knows which."""
        outcomes = set()
        for number, size in enumerate((0, 512, 1024, 1536, 2048)):
            with self.subTest(size):
                puts = [{"id": 8 * number + n, "value": b"%d" % n * 100} for n in range(8)]
                if size:
                    self.faults.tear(self.image, size)
                else:
                    self.faults.kill("write", self.image)
                fields = {"image": "a", "puts": puts, "request_id": str(uuid.uuid4())}
                try:
                    answered = self.c.ask("Params", "BatchPut", fields).code == rpc.OK
                    self.faults.clear()
                except rpc.Closed:
                    answered = False
                    self.d.wait(-signal.SIGKILL)
                    self.faults.clear()
                    self.restart()
                outcome = self.outcome(fields)
                outcomes.add(outcome)
                ids = {p["id"] for p in self.c.call("Params", "List", image="a")["params"]}
                there = {p["id"] for p in puts} & ids
                if outcome == NOT_DONE:
                    self.assertFalse(answered)
                    self.assertEqual(there, set())
                else:
                    self.assertIn(outcome, (OUTCOME_DONE, COMPLETED))
                    self.assertEqual(there, {p["id"] for p in puts})
        self.assertEqual(outcomes, {NOT_DONE, COMPLETED, OUTCOME_DONE})

    def test_append_completed(self):
        events = [{"code": n, "payload": b"e%d" % n} for n in range(20)]
        self.c.append("a", b"before")
        fields = self.dies(("flush", self.image, 2), "Events", "Append",
                           {"image": "a", "events": events})
        self.settled(fields, COMPLETED)
        shown = self.c.events("a", limit=100)
        self.assertEqual([e["payload"] for e in shown["events"]],
                         [b"before"] + [e["payload"] for e in events])
        self.assertEqual(self.c.ask("Events", "Append", fields).body["first_index"], 1)
        self.assertEqual(self.c.events("a")["pointer"], 21)

    def test_append_at_every_flush(self):
        expected = []
        for skip in range(10):
            with self.subTest(skip):
                events = [{"code": skip, "payload": b"%d:%d" % (skip, n)} for n in range(13)]
                self.faults.kill("flush", self.image, skip)
                fields = {"image": "a", "events": events, "request_id": str(uuid.uuid4())}
                try:
                    self.c.ask("Events", "Append", fields)
                    self.faults.clear()
                except rpc.Closed:
                    self.d.wait(-signal.SIGKILL)
                    self.faults.clear()
                    self.restart()
                if self.outcome(fields) != NOT_DONE:
                    expected += [e["payload"] for e in events]
                shown = self.c.events("a", limit=16384)["events"]
                self.assertEqual([e["payload"] for e in shown], expected[-len(shown):])
                self.assertEqual(self.c.events("a")["pointer"], len(expected))

    def test_unknown_where_somebody_else_changed_it(self):
        self.c.put("a", 1, b"old")
        self.faults.kill("write", self.image)
        fields = self.call_dies("Params", "Put", {"image": "a", "id": 1, "value": b"new"})
        path = self.d.image_path(1, "a")
        harness.run_cli("param", "put", 1, "offline", "--file", path)
        harness.run_cli("param", "put", 1, "offline again", "--file", path)
        self.restart()
        self.settled(fields, UNKNOWN)
        self.assertEqual(self.c.get("a", 1), b"offline again")
        for _ in range(2):
            reply = self.c.ask("Params", "Put", fields)
            self.assertEqual((reply.code, reply.reason), (rpc.INTERNAL, "OUTCOME_UNKNOWN"), reply)
        self.assertIn("unknown=1", self.d.log())
        self.c.put("a", 1, b"on", request_id=str(uuid.uuid4()))

    def test_part_that_cannot_be_completed_is_unknown(self):
        puts = [{"id": n, "value": b"%d" % n * 100} for n in range(10)]
        self.faults.tear(self.image, 3 * 512)
        fields = self.call_dies("Params", "BatchPut", {"image": "a", "puts": puts})
        harness.run_cli("param", "put", 9, "offline", "--file", self.d.image_path(1, "a"))
        self.restart()
        self.settled(fields, UNKNOWN)
        self.assertEqual(self.c.get("a", 9), b"offline")

    def test_calls_of_one_group_have_each_their_own(self):
        """Four puts share a group, of which some sectors were written."""
        hold = self.faults.hold("flush", self.image)
        first = self.c.start("Params", "Put", {"image": "a", "id": 100, "value": b"first"})
        hold.wait()
        calls = [{"image": "a", "id": n, "value": b"%d" % n * 40, "request_id": str(uuid.uuid4())}
                 for n in range(6)]
        for fields in calls:
            self.c.start("Params", "Put", fields)
        with self.d.connect() as other:
            other.call("Server", "Ping", payload=b"they are queued")
        # The held flush is let go; of the next group's writes two sectors go through.
        self.faults.tear(self.image, 2 * 512)
        hold.release(keep_rules=True)
        with self.assertRaises(rpc.Closed):
            self.c.wait(first)  # which may come before the end, or not
            self.c.read_frame()
        self.d.wait(-signal.SIGKILL)
        self.faults.clear()
        self.restart()
        there = {p["id"] for p in self.c.call("Params", "List", image="a")["params"]}
        outcomes = [self.outcome(fields) for fields in calls]
        self.assertEqual(set(outcomes), {OUTCOME_DONE, NOT_DONE})
        for fields, outcome in zip(calls, outcomes):
            self.assertEqual(fields["id"] in there, outcome == OUTCOME_DONE)
        for fields in calls:
            self.assertEqual(self.c.ask("Params", "Put", fields).body["generation"], 1)
        groups = [r["group"] for r in self.records(method=b"Params.Put")]
        self.assertEqual(groups.count(2), len(calls), groups)

    def test_deleted_product(self):
        self.c.upload("a", b"p", b"p" * 5000)
        fields = self.dies(("write", self.image), "DataProducts", "Delete",
                           {"image": "a", "name": b"p"})
        self.settled(fields, NOT_DONE)
        self.assertEqual(self.c.product("a", b"p"), b"p" * 5000)
        fields = self.dies(("flush", self.image), "DataProducts", "Delete",
                           {"image": "a", "name": b"p"})
        self.assertEqual(self.outcome(fields), OUTCOME_DONE)
        self.refused(rpc.NOT_FOUND, self.c, "DataProducts", "Get", {"image": "a", "name": b"p"})
        self.assertEqual(self.c.ask("DataProducts", "Delete", fields).code, rpc.OK)

    def test_group_numbers_go_on(self):
        for n in range(3):
            self.c.put("a", n, b"x")
        self.dies(("write", self.image), "Params", "Put", {"image": "a", "id": 9, "value": b"x"})
        self.c.put("a", 9, b"y")
        numbers = [r["group"] for r in self.records(image=b"a") if r["group"]]
        self.assertEqual(numbers, [5, 4, 3, 2, 1])


class Repairs(Settling):
    def damage(self, *slots):
        """Makes the values of some slots corrupt, while nobody serves the image."""
        self.d.stop()
        path = self.d.image_path(1, "a")
        data = bytearray(path.read_bytes())
        for slot in slots:
            data[512 + 256 * slot + 20] ^= 0xff
        path.write_bytes(data)
        self.restart()

    def check(self):
        return {f["index"] for f in self.c.call("Images", "Check", image="a")["findings"]}

    def repaired(self, where, outcome, left):
        for n in range(6):
            self.c.put("a", n, b"value of %d" % n)
        self.damage(0, 2, 4)
        self.assertEqual(self.check(), {0, 2, 4})
        self.d.log_path.unlink()
        fields = self.dies(where, "Images", "Check", {"image": "a", "repair": True})
        self.settled(fields, outcome)
        self.assertEqual(self.check(), left)
        again = self.c.ask("Images", "Check", fields)
        self.assertEqual(again.code, rpc.OK, again)
        self.assertEqual({f["index"] for f in again.body["findings"]}, {0, 2, 4})
        self.assertTrue(again.body["repaired"])
        self.assertEqual(self.check(), set())

    def test_not_done(self):
        self.repaired(("write", self.image), NOT_DONE, {0, 2, 4})

    def test_completed(self):
        self.repaired(("tear", self.image, 512), COMPLETED, set())

    def test_done(self):
        self.repaired(("flush", self.image), OUTCOME_DONE, set())
        record = self.records(method=b"Images.Check")[0]
        self.assertEqual(record["object"].decode().split("\n"),
                         ["param slot 0", "param slot 2", "param slot 4"])


class Moves(Settling):
    def fragment(self):
        for n in range(3):
            self.c.upload("a", b"p%d" % n, b"%d" % n * 3000)
        self.c.call("DataProducts", "Delete", image="a", name=b"p0")

    def steps(self):
        return [r["outcome"] for r in self.records(method=b"Images.Defrag")
                if r["request_id"] == b""]

    def test_step_not_done(self):
        self.fragment()
        self.dies(("flush", self.image), "Images", "Defrag", {"image": "a"})
        self.assertEqual(self.steps(), [NOT_DONE])

    def test_step_done(self):
        self.fragment()
        fields = self.dies(("flush", self.image, 1), "Images", "Defrag", {"image": "a"})
        self.assertEqual(self.steps(), [OUTCOME_DONE])
        reply = self.c.ask("Images", "Defrag", fields)
        self.assertEqual((reply.code, reply.body["done"]), (rpc.OK, True), reply)
        for n in (1, 2):
            self.assertEqual(self.c.product("a", b"p%d" % n), b"%d" % n * 3000)
        self.is_sound()


class Life(Settling):
    def images(self):
        return [i["name"] for i in self.c.call("Images", "List")["images"]]

    def test_create_not_done(self):
        fields = self.dies(("flush", "images/1/.b.img.tmp"), "Images", "Create",
                           {"image": "b", "total_blocks": 64})
        self.settled(fields, NOT_DONE)
        self.assertEqual(self.images(), [b"a"])
        self.assertEqual([p.name for p in self.d.image_path(1, "a").parent.iterdir()], ["a.img"])
        self.assertEqual(self.c.ask("Images", "Create", fields).code, rpc.OK)
        self.assertEqual(self.images(), [b"a", b"b"])

    def test_create_done(self):
        fields = self.dies(("flush", "images/1$"), "Images", "Create",
                           {"image": "b", "total_blocks": 64})
        self.settled(fields, OUTCOME_DONE)
        self.c.put("b", 1, b"x")
        made = self.c.ask("Images", "Create", fields).body["image"]
        self.assertEqual(made, self.c.call("Images", "Get", image="b")["image"])
        self.assertEqual(self.c.get("b", 1), b"x")

    def test_delete_not_done(self):
        """Killed in the flush of the intent itself, which its successor finds whole."""
        self.c.put("a", 1, b"kept")
        self.records()  # so that no outcome waits to be flushed first
        fields = self.dies(("flush", "audit.db"), "Images", "Delete", {"image": "a"})
        self.settled(fields, NOT_DONE)
        self.assertEqual(self.c.get("a", 1), b"kept")
        self.assertEqual(self.c.ask("Images", "Delete", fields).code, rpc.OK)
        self.assertEqual(self.images(), [])

    def test_delete_done(self):
        fields = self.dies(("flush", "images/1$"), "Images", "Delete", {"image": "a"})
        self.settled(fields, OUTCOME_DONE)
        self.assertEqual(self.images(), [])
        self.assertEqual(self.c.ask("Images", "Delete", fields).code, rpc.OK)
        self.c.create("a", blocks=33)
        self.assertEqual(self.c.ask("Images", "Delete", fields).code, rpc.OK)
        self.assertEqual(self.images(), [b"a"], "the new one was not meant")

    def test_delete_of_an_image_that_came_in_its_place(self):
        self.faults.kill("flush", "images/1$")
        fields = self.call_dies("Images", "Delete", {"image": "a"})
        harness.run_cli("init", "--file", self.d.image_path(1, "a"), "--blocks", 64)
        self.restart()
        self.assertEqual(self.outcome(fields), OUTCOME_DONE)
        # Of another uuid than the registry knows by that name.
        image = self.c.call("Images", "Get", image="a")["image"]
        self.assertEqual(image["state"], 5, image)

    def test_reopen(self):
        self.faults.fail("flush", self.image)
        self.c.ask("Params", "Put", {"image": "a", "id": 1, "value": b"x"})
        fields = self.dies(("flush", self.image), "Images", "Reopen", {"image": "a"})
        self.assertEqual(self.outcome(fields), NOT_DONE)
        self.assertEqual(self.c.ask("Images", "Reopen", fields).body["image"]["state"], READY)
        self.assertEqual(self.records(outcome=PENDING), [])


class Others(Settling):
    def test_image_that_is_gone(self):
        self.faults.kill("write", self.image)
        fields = self.call_dies("Params", "Put", {"image": "a", "id": 1, "value": b"x"})
        self.d.image_path(1, "a").unlink()
        self.restart()
        self.settled(fields, UNKNOWN)
        self.assertIn("event=image-vanished", self.d.log())
        self.c.create("a")
        self.assertEqual(self.c.ask("Params", "Put", fields).reason, "OUTCOME_UNKNOWN")

    def test_deleting_a_failed_image(self):
        fields = {"image": "a", "id": 1, "value": b"x", "request_id": str(uuid.uuid4())}
        self.faults.fail("flush", self.image)
        self.assertEqual(self.c.ask("Params", "Put", fields).reason, "IO_ERROR")
        self.assertEqual(self.outcome(fields), PENDING)
        self.faults.clear()
        self.c.call("Images", "Delete", image="a")
        self.assertEqual(self.outcome(fields), UNKNOWN)
        self.c.create("a")
        self.assertEqual(self.c.ask("Params", "Put", fields).reason, "OUTCOME_UNKNOWN")

    def test_image_that_cannot_be_opened_waits(self):
        self.faults.kill("flush", self.image)
        fields = self.call_dies("Params", "Put", {"image": "a", "id": 1, "value": b"x"})
        path, aside = self.d.image_path(1, "a"), self.dir / "aside"
        path.rename(aside)
        path.write_bytes(b"\0" * aside.stat().st_size)  # no superblock: damaged
        self.restart()
        self.assertEqual(self.outcome(fields), PENDING)
        reply = self.c.ask("Params", "Put", fields)
        self.assertIn(reply.reason, ("OUTCOME_UNKNOWN",), reply)
        path.unlink()
        aside.rename(path)
        self.c.call("Images", "Reopen", image="a")
        self.assertEqual(self.outcome(fields), OUTCOME_DONE)
        self.assertEqual(self.c.ask("Params", "Put", fields).body["generation"], 1)

    def database(self, *statements):
        with sqlite3.connect(self.d.data_dir / "audit.db") as db:
            for statement in statements:
                self.assertGreater(db.execute(statement).rowcount, 0, statement)
        db.close()

    def test_act_of_an_unknown_method(self):
        self.faults.kill("flush", "images/1/.b.img.tmp")
        fields = self.call_dies("Images", "Create", {"image": "b", "total_blocks": 64})
        self.database("UPDATE methods SET name = 'Images.Bend' WHERE name = 'Images.Create'")
        self.restart()
        self.assertEqual(self.outcome(fields), UNKNOWN)

    def test_statement_that_is_damaged(self):
        self.faults.kill("flush", self.image)
        fields = self.call_dies("Params", "Put", {"image": "a", "id": 1, "value": b"x"})
        self.database("UPDATE groups SET changes = x'00ff' WHERE outcome = 0")
        self.restart()
        self.settled(fields, UNKNOWN)
        self.assertEqual(self.c.call("Images", "Get", image="a")["image"]["state"], READY)


if __name__ == "__main__":
    harness.main()
