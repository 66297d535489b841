"""The audit: what it holds of each change, how it is listed and filtered; and sqlite3 reads it."""
import json
import os
import shutil
import subprocess
import time
import uuid

import harness
import rpc
from protowire import SCHEMA

OUTCOME_DONE = 2


def texts(record):
    """Its changes as (object, before, after)."""
    return list(zip(*(record[k].decode().split("\n") for k in ("object", "before", "after"))))


class Listing(harness.Case):
    def setUp(self):
        super().setUp()
        self.d = self.daemon()
        self.c = self.connect(self.d)

    def list(self, connection=None, **filters):
        reply = (connection or self.c).ask("Audit", "List",
                                           payload=SCHEMA.encode("ListAuditRequest", filters))
        self.assertEqual(reply.code, rpc.OK, reply)
        return reply.body

    def records(self, connection=None, **filters):
        return self.list(connection, **filters)["records"]

    def all(self, **filters):
        """Page by page; and the pages' sizes."""
        found, sizes, before = [], [], 0
        while True:
            page = self.list(before_id=before, **filters)
            found += page["records"]
            sizes.append(len(page["records"]))
            before = page["next_before_id"]
            if not before:
                return found, sizes

    def refuse(self, field, **filters):
        reply = self.c.ask("Audit", "List", payload=SCHEMA.encode("ListAuditRequest", filters))
        self.assertEqual((reply.code, reply.violations()), (rpc.INVALID, [field]), reply)


class Records(Listing):
    def test_every_kind_of_change(self):
        c = self.c
        made = c.create("a", blocks=256)
        c.put("a", 1, b"one")
        c.put("a", 1, b"\xff\0")
        c.call("Params", "BatchPut", image="a", puts=[{"id": 2, "value": b"x"}, {"id": 1}])
        c.call("Params", "Delete", image="a", id=2)
        c.append("a", b"e", code=7, severity=2, time=made["epoch"] + 3)
        c.upload("a", b"p", b"data" * 300, product_class=3, priority=1)
        c.upload("a", b"q", b"more" * 300)
        c.call("DataProducts", "Delete", image="a", name=b"p")
        c.call("Images", "Defrag", image="a")
        c.call("Images", "Delete", image="a")
        shown = {}
        for record in reversed(self.records()):
            who = (record["principal"], record["tenant"], record["image"])
            self.assertEqual(who, (b"uid:%d" % os.getuid(), 1, b"a"))
            if texts(record)[0][2] != "one product moved":  # the last step finds nothing to move
                self.assertEqual(record["outcome"], OUTCOME_DONE, record)
            shown.setdefault(record["method"].decode(), []).append(texts(record))
        self.assertEqual(shown["Params.Put"], [
            [("param 1", "absent", "generation 1 value 0x6f6e65")],
            [("param 1", "generation 1 value 0x6f6e65", "generation 2 value 0xff00")]])
        self.assertEqual(shown["Params.BatchPut"], [
            [("param 2", "absent", "generation 1 value 0x78"),
             ("param 1", "generation 2 value 0xff00", "generation 3 value 0x")]])
        self.assertEqual(shown["Params.Delete"], [
            [("param 2", "generation 1 value 0x78", "absent")]])
        self.assertEqual(shown["Events.Append"], [
            [("events 0..0", "pointer 0", "pointer 1: 3 WARN 7 0x65")]])
        self.assertEqual([t[0][:2] for t in shown["Uploads.Finish"]],
                         [("product p", "absent"), ("product q", "absent")])
        self.assertRegex(shown["Uploads.Finish"][0][0][2], r"^class 3 priority 1 blocks \d+\+\d+ ")
        self.assertEqual(shown["DataProducts.Delete"][0][0][::2], ("product p", "absent"))
        text = f"uuid {uuid.UUID(bytes=made['uuid'])}, 256 blocks of 512 bytes"
        self.assertEqual(shown["Images.Create"], [[("image 1/a", "absent", text)]])
        self.assertEqual(shown["Images.Delete"], [[("image 1/a", text, "absent")]])
        self.assertIn("Images.Defrag", shown)

    def test_what_changes_nothing_leaves_no_record(self):
        c = self.c
        c.create("a")
        c.put("a", 1, b"x")
        before = self.records()
        for service, method, fields in (
                ("Params", "Put", {"id": 1, "value": b"", "expected_generation": 9}),
                ("Params", "Delete", {"id": 2}), ("DataProducts", "Delete", {"name": b"none"}),
                ("Images", "Create", {"total_blocks": 64}), ("Params", "Get", {"id": 1}),
                ("Images", "Check", {}), ("Images", "Check", {"repair": True}),
                ("Images", "Reopen", {}), ("Events", "List", {})):
            c.ask(service, method, dict(fields, image="a"))
        self.assertEqual(self.records(), before)

    def test_request_ids_and_times(self):
        self.c.create("a")
        request, start = str(uuid.uuid4()), time.time() * 1e6
        self.c.put("a", 1, b"x", request_id=request)
        record = self.records()[0]
        self.assertEqual(record["request_id"], uuid.UUID(request).bytes)
        self.assertTrue(start <= record["time_us"] <= time.time() * 1e6)
        self.assertEqual(record["group"], 1)

    def test_outlives_the_daemon_and_the_image(self):
        self.c.create("a")
        self.c.put("a", 1, b"x")
        self.c.call("Images", "Delete", image="a")
        before = self.records()
        for end in (self.d.stop, self.d.kill9):
            end()
            self.c = self.connect(self.d.restart())
            self.assertEqual(self.records(), before)
        self.assertEqual(len(before), 3)


class Filters(Listing):
    def setUp(self):
        super().setUp()
        for name in ("a", "b", "7/x"):
            self.c.create(name)
        for n in range(6):
            self.c.put("a" if n % 2 else "b", n, b"%d" % n)
        with self.d.connect(self.d.tcp) as tcp:
            tcp.append("a", b"tcp")
        self.c.put("7/x", 1, b"seven")

    def test_each(self):
        everything = self.records(all_tenants=True)
        self.assertEqual(len(everything), 11)
        ids = [r["id"] for r in everything]
        self.assertEqual(ids, sorted(ids, reverse=True))
        self.assertEqual([r for r in everything if r["tenant"] == 1], self.records())
        self.assertEqual({r["tenant"] for r in self.records(tenant=7)}, {7})
        self.assertEqual(self.records(tenant=8), [])
        for name in (b"a", b"b"):
            self.assertEqual(self.records(image=name),
                             [r for r in everything if r["image"] == name])
        self.assertEqual([r["method"] for r in self.records(principal=b"local")],
                         [b"Events.Append"])
        self.assertEqual(len(self.records(method=b"Params.Put")), 6)
        self.assertEqual(self.records(method=b"Params.Pu"), [])
        self.assertEqual(len(self.records(outcome=OUTCOME_DONE)), 9)
        self.assertEqual(self.records(outcome=1), [])
        self.assertEqual(len(self.records(image=b"a", method=b"Params.Put",
                                          outcome=OUTCOME_DONE)), 3)

    def test_times(self):
        everything = self.records()
        for n, record in enumerate(everything):
            at = record["time_us"]
            since, until = self.records(since_us=at), self.records(until_us=at)
            self.assertEqual([r["id"] for r in since if r["time_us"] >= at],
                             [r["id"] for r in since])
            self.assertEqual({r["id"] for r in since} & {r["id"] for r in until}, set())
            self.assertEqual(len(since) + len(until), len(everything))
            self.assertIn(record["id"], {r["id"] for r in since})
            self.assertLessEqual(n + 1, len(since))
        self.assertEqual(self.records(since_us=2**62), [])

    def test_pages(self):
        everything = self.records()
        for size in (1, 2, 3, 8, 9, 10, 1000):
            found, sizes = self.all(page_size=size)
            self.assertEqual(found, everything)
            self.assertLessEqual(max(sizes), size)
            self.assertEqual(len(sizes), -(-len(everything) // size))
        puts, _ = self.all(page_size=2, method=b"Params.Put", image=b"b")
        self.assertEqual(puts, self.records(method=b"Params.Put", image=b"b"))

    def test_pages_go_on_while_changes_are_made(self):
        first = self.list(page_size=4)
        self.c.put("a", 50, b"later")
        rest, _ = self.all(page_size=3)
        rest = [r for r in rest if r["id"] < first["next_before_id"]]
        everything = self.records()
        self.assertEqual(first["records"] + rest, everything[1:])

    def test_bad_fields(self):
        self.refuse("tenant", tenant=65536)
        self.refuse("all_tenants", tenant=1, all_tenants=True)
        self.refuse("image", image=b"../a")
        self.refuse("image", image=b"a" * 65)
        self.refuse("principal", principal=b"\xff")
        self.refuse("principal", principal=b"a" * 64)
        self.refuse("method", method=b"a\0b")
        self.refuse("outcome", outcome=6)
        self.refuse("page_size", page_size=1001)
        self.refuse("before_id", before_id=2**63)
        self.refuse("since_us", since_us=2**63)


class Large(Listing):
    def test_answers_fit_a_frame(self):
        """Records whose texts are long: a page ends where the frame is full."""
        self.c.create("a", blocks=64, sector_size=65536)
        events = [{"code": n, "payload": b"p" * 64} for n in range(700)]
        for _ in range(50):
            self.c.call("Events", "Append", image="a", events=events)
        found, sizes = self.all(page_size=1000)
        self.assertEqual(len(found), 51)
        self.assertGreater(len(sizes), 1)
        self.assertEqual(len(texts(found[0])[0][2].split("; ")), 700)


class Outside(Listing):
    """The CLI, and sqlite3."""

    def setUp(self):
        super().setUp()
        self.c.create("a", blocks=64)
        self.c.create("7/b", blocks=64)
        self.c.put("a", 1, b"one")
        self.c.call("Params", "BatchPut", image="a",
                    puts=[{"id": n, "value": b"v%d" % n} for n in range(1, 4)])
        self.end = ["--endpoint", self.d.unix]

    def cli(self, *words, **how):
        return harness.run_cli("audit", "list", *words, *self.end, **how)

    def test_table(self):
        lines = self.cli().text.splitlines()
        self.assertEqual(lines[0].split(), ["TIME", "PRINCIPAL", "IMAGE", "METHOD", "OUTCOME",
                                            "OBJECT", "BEFORE", "AFTER"])
        self.assertEqual(len(lines), 1 + 3 + 1 + 1)
        self.assertIn("Params.BatchPut", lines[1])
        self.assertNotIn("Params.BatchPut", lines[2])
        self.assertIn("param 3", lines[3])
        self.assertIn("1/a", lines[4])
        self.assertIn("done", lines[4])
        self.assertIn("7/b", self.cli("--all-tenants").text)
        self.assertIn("7/b", self.cli("--image", "7/b").text)

    def test_json(self):
        result = self.cli("--json").json
        self.assertFalse(result["more"])
        batch, put, _ = result["records"]
        self.assertEqual((put["method"], put["outcome"], put["image"], put["tenant"], put["group"]),
                         ("Params.Put", "done", "a", 1, 1))
        self.assertEqual(put["changes"], [{"object": "param 1", "before": "absent",
                                           "after": "generation 1 value 0x6f6e65"}])
        self.assertEqual([c["object"] for c in batch["changes"]],
                         ["param 1", "param 2", "param 3"])
        self.assertRegex(put["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")
        self.assertEqual(str(uuid.UUID(put["request_id"])), put["request_id"])

    def test_filters(self):
        def methods(*words):
            return [r["method"] for r in self.cli(*words, "--json").json["records"]]

        self.assertEqual(methods("--limit", 1), ["Params.BatchPut"])
        self.assertTrue(self.cli("--limit", 1, "--json").json["more"])
        self.assertIn("older", self.cli("--limit", 1).err)
        self.assertEqual(methods("--method", "Params.Put"), ["Params.Put"])
        self.assertEqual(methods("--principal", "nobody"), [])
        self.assertEqual(methods("--outcome", "unknown"), [])
        self.assertEqual(len(methods("--outcome", "done")), 3)
        self.assertEqual(len(methods("--since", "2h")), 3)
        self.assertEqual(methods("--until", "2h"), [])
        self.assertEqual(methods("--since", "2100-01-01"), [])
        self.assertEqual(methods("--tenant-id", 7), ["Images.Create"])
        times = [r["time"] for r in self.cli("--json").json["records"]]
        self.assertEqual(methods("--since", times[1], "--until", times[0]), ["Params.Put"])

    def test_usage(self):
        for words in (("--since", "yesterday"), ("--until", "2026-13-01"), ("--outcome", "good"),
                      ("--limit", 0), ("--tenant-id", 1, "--all-tenants"),
                      ("--image", "7/b", "--all-tenants"), ("word",), ("--file", "x")):
            result = self.cli(*words, code=harness.USAGE)
            self.assertEqual(result.out, b"")
        self.assertEqual(self.cli("--image", "a b", code=None).code, harness.FAILED)

    def test_sqlite_reads_it(self):
        if shutil.which("sqlite3") is None:
            self.skipTest("no sqlite3")
        self.cli()  # outcomes are durable by then
        done = subprocess.run(
            ["sqlite3", "-json", "-readonly", self.d.data_dir / "audit.db",
             "SELECT principal, tenant, image, group_number, method, outcome, object, before, "
             "after FROM audit ORDER BY id"], capture_output=True, check=True)
        rows = json.loads(done.stdout)
        self.assertEqual([(r["method"], r["outcome"], r["image"]) for r in rows], [
            ("Images.Create", "done", "a"), ("Images.Create", "done", "b"),
            ("Params.Put", "done", "a"), ("Params.BatchPut", "done", "a")])
        self.assertEqual((rows[2]["object"], rows[2]["before"], rows[2]["after"]),
                         ("param 1", "absent", "generation 1 value 0x6f6e65"))


if __name__ == "__main__":
    harness.main()
