"""Every write, flush, allocation, copy and renaming by the daemon fails once, each in a history of
its own.

A history is a list of changes of each kind: parameters, a batch, events, a deletion, a product and
an artifact that are uploaded, an image made, imported, cloned, renamed and deleted. Its calls to
the disk are counted once for each place (the images, the audit, files of uploads and copies); then
it is made again and again, the nth of them failing with EIO, for want of space, or doing only a
part. What is refused is made again with the same request_id, after the image was opened anew where
it asks for that; in every second history the daemon is killed before that. In the end each change
is there exactly once, with one record that says so, and a check finds nothing.

SPB_NTH_SECONDS (12): how long; in the order of a shuffle by SPB_NTH_SEED, which is printed. With 0
all are made.
"""
import collections
import errno
import hashlib
import os
import random
import shutil
import sqlite3
import time
import uuid

import harness
import rpc
from crc import crc32c
from faults import Faults
from uploading import image_file

SECONDS = float(os.environ.get("SPB_NTH_SECONDS", "12"))
SEED = int(os.environ.get("SPB_NTH_SEED", "0")) or random.randrange(1, 1 << 32)
# Where calls to the disk go, and which part of a path tells it.
PLACES = ("images/1/a.img", "images/1/", "audit.db", "artifacts/", "copies/")
ACTIONS = {"write": (errno.EIO, errno.ENOSPC, "short=100"), "flush": (errno.EIO, errno.ENOSPC),
           "allocate": (errno.EIO, errno.ENOSPC), "copy": (errno.EIO, errno.ENOSPC, "short=100"),
           "rename": (errno.EIO, errno.ENOSPC)}
PRODUCT = random.Random(1).randbytes(300_001)
ARTIFACT = random.Random(2).randbytes(70_000)
TRIES = 6
# What a client may take as "make it again".
PASSING = {"IO_ERROR", "NO_SPACE", "OUTCOME_UNKNOWN", "IMAGE_READ_ONLY", "AUDIT_UNAVAILABLE",
           "STILL_RUNNING"}


def image_ref(name):
    return {"name": name.encode()}


class Change:
    """One changing call, with the request_id that it keeps."""

    def __init__(self, service, method, **fields):
        self.service, self.method = service, method
        self.fields = dict(fields, request_id=str(uuid.uuid4()))
        self.done = False

    def make(self, history):
        reply = history.c.ask(self.service, self.method, self.fields)
        self.done = reply.code == rpc.OK
        return reply


class Sending:
    """An upload, begun anew where the daemon has it no more."""

    def __init__(self, data, target):
        self.data, self.target = data, target
        self.id, self.done = None, False
        self.start_id, self.finish_id = str(uuid.uuid4()), str(uuid.uuid4())

    def make(self, history):
        if self.id is None:
            reply = history.c.ask("Uploads", "Start", dict(
                self.target, size=len(self.data), request_id=self.start_id))
            if reply.code:
                return reply
            self.id = reply.body["upload_id"]
        reply = history.c.ask("Uploads", "Status", {"upload_id": self.id})
        offset = reply.body["next_offset"] if reply.code == rpc.OK else 0
        while reply.code == rpc.OK and offset < len(self.data):
            piece = self.data[offset:offset + 65536]
            reply = history.c.ask("Uploads", "Write", {
                "upload_id": self.id, "offset": offset, "data": piece, "crc32c": crc32c(piece)})
            offset += len(piece)
        if reply.code == rpc.OK or reply.reason == "NOT_FOUND":
            reply = history.c.ask("Uploads", "Finish", {
                "upload_id": self.id, "crc32c": crc32c(self.data), "request_id": self.finish_id})
        self.done = reply.code == rpc.OK
        if reply.reason == "NOT_FOUND":  # it has ended without a product: once more
            self.id, self.start_id, self.finish_id = None, str(uuid.uuid4()), str(uuid.uuid4())
        return reply


class History:
    def __init__(self, daemon, imported):
        self.d, self.c, self.imported = daemon, daemon.connect(), imported

    def prepare(self):
        self.c.create("a", blocks=1024)
        self.c.put("a", 9, b"to be deleted")
        self.c.create("gone")
        self.c.create("old")

    def changes(self):
        a = image_ref("a")
        return [
            Change("Params", "Put", image=a, id=1, value=b"one"),
            Change("Params", "BatchPut", image=a,
                   puts=[{"id": n, "value": b"v%d" % n} for n in range(20, 26)]),
            Change("Events", "Append", image=a, events=[
                {"severity": 1, "code": 7, "payload": b"e%d" % n} for n in range(8)]),
            Change("Params", "Delete", image=a, id=9),
            Sending(PRODUCT, {"product": {"image": a, "name": b"p"}}),
            Sending(ARTIFACT, {"artifact": {"name": b"kernel",
                                            "sha256": hashlib.sha256(ARTIFACT).digest()}}),
            Sending(self.imported, {"image": {"image": image_ref("imported")}}),
            Change("Images", "Create", image=image_ref("new"), total_blocks=64),
            Change("Images", "Clone", image=a, to=image_ref("copy")),
            Change("Images", "Rename", image=image_ref("old"), name=b"renamed"),
            Change("Images", "Delete", image=image_ref("gone")),
        ]

    def reopen(self):
        for image in self.c.call("Images", "List")["images"]:
            if image["state"] != 1:
                self.c.call("Images", "Reopen", image=image["name"].decode())

    def restart(self):
        self.c.close()
        self.d.kill9()
        self.c = self.d.restart().connect()


class EveryCall(harness.Case):
    def setUp(self):
        super().setUp()
        self.imported = image_file(self.dir / "imported.img", size=512)

    def begin(self, name):
        faults_dir = self.dir / name
        faults_dir.mkdir()
        faults = Faults(faults_dir)
        daemon = self.daemon(name + "/d", env=faults.environment())
        history = History(daemon, self.imported)
        history.prepare()
        return history, faults

    def count(self):
        """{(operation, place): calls to the disk}"""
        history, faults = self.begin("counted")
        before = {(o, p): faults.count(o, p) for o in ACTIONS for p in PLACES}
        changes = history.changes()
        for change in changes:
            reply = change.make(history)
            self.assertTrue(change.done, reply)
        self.verify(history, changes)
        return {where: faults.count(*where) - n for where, n in before.items()}

    def cases(self):
        for (operation, place), calls in self.count().items():
            for action in ACTIONS[operation]:
                # Timing makes the audit's commits more or fewer: a little beyond.
                for nth in range(calls + 2):
                    yield operation, place, action, nth

    def run_case(self, number, operation, place, action, nth):
        history, faults = self.begin(f"c{number}")
        changes = history.changes()
        faults.strike(operation, place, action, nth)
        for change in changes:
            reply = change.make(history)
            if not change.done:
                self.assertIn(reply.reason, PASSING, reply)
                self.assertTrue(reply.message)
        self.refused += not all(change.done for change in changes)
        faults.clear()
        if number % 2:
            history.restart()
        history.reopen()
        self.make_the_rest(history, changes)
        self.verify(history, changes)
        shutil.rmtree(self.dir / f"c{number}", ignore_errors=True)

    def make_the_rest(self, history, changes):
        """As a client would: again, until it is told what became of it."""
        for change in changes:
            for _ in range(TRIES):
                if change.done:
                    break
                reply = change.make(history)
                if reply.reason == "OUTCOME_UNKNOWN" or reply.reason == "IMAGE_READ_ONLY":
                    history.restart()
                    history.reopen()
            self.assertTrue(change.done, (change.__dict__, change.done or reply))

    def verify(self, history, changes):
        c = history.c
        params = {p["id"]: (p["generation"], p["value"])
                  for p in c.call("Params", "List", image="a")["params"]}
        expected = {1: (1, b"one"), **{n: (1, b"v%d" % n) for n in range(20, 26)}}
        self.assertEqual(params, expected)
        self.assertEqual([e["payload"] for e in c.events("a")["events"]],
                         [b"e%d" % n for n in range(8)])
        self.assertEqual(c.product("a", b"p"), PRODUCT)
        images = sorted(i["name"] for i in c.call("Images", "List")["images"])
        self.assertEqual(images, [b"a", b"copy", b"imported", b"new", b"renamed"])
        self.assertEqual(c.get("imported", 1), b"within")
        for name in images:
            self.assertEqual(c.call("Images", "Check", image=name.decode())["findings"], [])
        found = c.call("Artifacts", "List")["artifacts"]
        self.assertEqual([a["sha256"] for a in found], [hashlib.sha256(ARTIFACT).digest()])
        c.close()
        history.d.stop()
        self.verify_records(history, changes)

    def verify_records(self, history, changes):
        happened = collections.Counter()
        db = sqlite3.connect(f"file:{history.d.data_dir}/audit.db?mode=ro", uri=True)
        try:
            for request, outcome in db.execute("SELECT request_id, outcome FROM audit"):
                self.assertIn(outcome, ("done", "completed", "not done"))
                happened[request] += outcome != "not done"
        finally:
            db.close()
        for change in changes:
            if isinstance(change, Change):
                self.assertEqual(happened[change.fields["request_id"]], 1, change.fields)

    def test_every_call_once(self):
        cases = list(self.cases())
        random.Random(SEED).shuffle(cases)
        end, made, self.refused = time.monotonic() + SECONDS, 0, 0
        for number, case in enumerate(cases):
            if SECONDS and time.monotonic() > end:
                break
            with self.subTest(case=case, number=number, seed=SEED):
                self.run_case(number, *case)
            made += 1
        print(f"seed {SEED}: {made} of {len(cases)} histories, calls refused in {self.refused}")
        self.assertGreater(self.refused, made / 10, "faults that nobody felt")


if __name__ == "__main__":
    harness.main()
