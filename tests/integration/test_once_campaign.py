"""Clients that try again, against a daemon that dies and disks that fail: everything happens once.

Several clients make changes, each with a request_id that stays the same while it is tried again.
The daemon is killed at random moments, and at random writes and flushes of images and audit; in the
second campaign these fail, too. At the end every change that was acknowledged is there exactly once
and has one record that says so, batches are all there or not at all, nothing is pending, and what
was never acknowledged is there with a record, or not there.

  SPB_CAMPAIGN_SECONDS=600 SPB_CAMPAIGN_SEED=1 ctest -R integration.test_once_campaign

runs each campaign for ten minutes from that seed, which is printed otherwise.
"""
import collections
import errno
import os
import random
import signal
import sqlite3
import sys
import threading
import uuid

import harness
import rpc
from faults import Faults

SECONDS = float(os.environ.get("SPB_CAMPAIGN_SECONDS", "8"))
SEED = int(os.environ.get("SPB_CAMPAIGN_SEED", "0")) or random.randrange(1, 1 << 32)
CLIENTS = 5
BATCH = 8
GONE = (rpc.Closed, ConnectionError, BrokenPipeError, TimeoutError, FileNotFoundError)
# What passes: the same call is made again.
PASSING = {"IO_ERROR", "OUTCOME_UNKNOWN", "IMAGE_READ_ONLY", "AUDIT_UNAVAILABLE", "STILL_RUNNING",
           "DRAINING"}


class Stop(Exception):
    """The campaign is over, and the call at hand was not answered."""


class Client:
    """Changes what is its own: a value, a batch of values, events, an image. One call at a time."""

    def __init__(self, number, campaign, seed):
        self.number, self.campaign, self.rng = number, campaign, random.Random(seed)
        self.c = None
        self.calls = []  # (request_id, acknowledged, what the call is about)
        self.value = self.generation = 0
        self.batch = self.batch_generation = 0
        self.deletable = 0  # generation of the value that is put and deleted
        self.events = []  # (first index, payloads) of what was acknowledged
        self.appended = 0
        self.image = None  # uuid, while it is there
        self.open = None  # the call that was never acknowledged
        self.failure = None

    # ---- trying again

    def connect(self):
        while self.c is None:
            if self.campaign.over.is_set():
                raise Stop
            try:
                self.c = self.campaign.d.connect(self.campaign.endpoint)
            except GONE:
                self.campaign.over.wait(0.01)

    def once(self, service, method, fields):
        try:
            self.connect()
            return self.c.ask(service, method, fields)
        except GONE:
            if self.c is not None:
                self.c.close()
            self.c = None
            return None

    def call(self, service, method, about, **fields):
        """The answer's message; tries until there is one."""
        fields = dict(fields, request_id=str(uuid.UUID(int=self.rng.getrandbits(128), version=4)))
        self.open = (fields["request_id"], about)
        while True:
            reply = self.once(service, method, fields)
            if reply is not None and reply.code == rpc.OK:
                break
            if reply is not None and reply.reason not in PASSING:
                raise AssertionError(f"{service}.{method} {about}: {reply!r}")
            if self.campaign.over.wait(0.02 if reply is not None else 0):
                raise Stop
        self.calls.append((fields["request_id"], about))
        self.open = None
        if self.rng.random() < 0.05:  # an answer that was lost on its way
            again = self.once(service, method, fields)
            assert again is None or again.reason in PASSING or again.payload == reply.payload, \
                f"{about}: {again!r} is another answer"
        return reply.body

    def run(self):
        try:
            while not self.campaign.over.is_set():
                self.rng.choice([self.put, self.put, self.put_batch, self.append, self.append,
                                 self.put_or_delete, self.make_or_delete])()
        except Stop:
            pass
        except BaseException as error:
            self.failure = error
            self.campaign.over.set()
        finally:
            if self.c is not None:
                self.c.close()

    # ---- changes

    def put(self):
        number = self.value + 1
        got = self.call("Params", "Put", ("put", number), image="a", id=self.number,
                        value=b"%d" % number)["generation"]
        assert got == self.generation + 1, f"put {number}: {got} after {self.generation}"
        self.value, self.generation = number, got

    def put_batch(self):
        number = self.batch + 1
        got = self.call("Params", "BatchPut", ("batch", number), image="a", puts=[
            {"id": 1000 + self.number * BATCH + n, "value": b"%d" % number}
            for n in range(BATCH)])["generations"]
        assert got == [self.batch_generation + 1] * BATCH, f"batch {number}: {got}"
        self.batch, self.batch_generation = number, got[0]

    def put_or_delete(self):
        number = 5000 + self.number
        if self.deletable:
            self.call("Params", "Delete", ("delete", number), image="a", id=number)
            self.deletable = 0
        else:
            got = self.call("Params", "Put", ("put", number), image="a", id=number, value=b"d",
                            expected_generation=0)["generation"]
            assert got == 1, f"param {number} was deleted, and has generation {got}"
            self.deletable = 1

    def append(self):
        payloads = [b"%d:%d:%d" % (self.number, self.appended, n)
                    for n in range(self.rng.choice((1, 1, 3, 7)))]
        self.appended += 1
        first = self.call("Events", "Append", ("append", payloads), image="e", events=[
            {"code": self.number, "payload": p} for p in payloads])["first_index"]
        self.events.append((first, payloads))

    def make_or_delete(self):
        name = f"own{self.number}"
        if self.image is None:
            made = self.call("Images", "Create", ("create", name), image=name, total_blocks=40)
            self.image = made["image"]["uuid"]
        else:
            self.call("Images", "Delete", ("delete", name), image=name)
            self.image = None


class Campaign(harness.Case):
    def setUp(self):
        super().setUp()
        self.seed = SEED
        self.rng = random.Random(self.seed)
        self.over = threading.Event()
        self.faults = Faults(self.dir)
        self.faults.trace_path = self.dir / "none"
        environment = self.faults.environment()
        del environment["SPB_FAULT_TRACE"]  # which would grow
        self.d = self.daemon(env=environment, listen=[f"unix:{self.dir}/s"])
        self.endpoint = self.d.unix
        with self.d.connect() as c:
            c.create("a", blocks=64, sector_size=4096)
            c.create("e", blocks=64, sector_size=65536)
        print(f"seed {self.seed}, {SECONDS:g} s", file=sys.stderr, flush=True)

    def campaign(self, disturb):
        clients = [Client(n, self, self.rng.randrange(1 << 32)) for n in range(CLIENTS)]
        running = [threading.Thread(target=c.run) for c in clients]
        timer = threading.Timer(SECONDS, self.over.set)
        timer.start()
        for one in running:
            one.start()
        deaths = 0
        try:
            while not self.over.is_set():
                deaths += disturb()
        finally:
            self.over.set()
            timer.cancel()
            for one in running:
                one.join()
        for client in clients:
            if client.failure is not None:
                raise client.failure
        self.faults.clear()
        self.settle()
        self.verify(clients)
        done = sum(len(c.calls) for c in clients)
        print(f"{done} calls acknowledged, {deaths} deaths", file=sys.stderr, flush=True)
        self.assertGreater(done, 50)
        return deaths

    # ---- disturbances

    def place(self):
        return self.rng.choice(("write", "write", "flush")), self.rng.choice(
            ("images/1/a.img", "images/1/e.img", "images/1/own", "images/1$", "audit.db",
             "audit.db-wal", "audit.db-wal"))

    def die(self):
        """Ends the daemon: at some moment, or at some write or flush. Starts it again."""
        if self.rng.random() < 0.4:
            self.over.wait(self.rng.uniform(0.02, 0.5))
            self.d.process.kill()
        else:
            operation, path = self.place()
            self.faults.kill(operation, path, self.rng.randrange(0, 120))
            for _ in range(100):
                if self.d.process.poll() is not None or self.over.wait(0.02):
                    break
            if self.d.process.poll() is None:  # there were not so many
                self.d.process.kill()
        self.faults.clear()
        self.d.wait(-signal.SIGKILL)
        self.d.restart()
        return 1

    def fail(self):
        """Lets some writes or flushes fail for a while, then mends and reopens; or dies over it."""
        operation, path = self.place()
        self.faults.fail(operation, path, errno.EIO, self.rng.randrange(0, 60))
        self.over.wait(self.rng.uniform(0.05, 0.3))
        if self.rng.random() < 0.3:
            return self.die()
        self.faults.clear()
        self.reopen()
        return self.die() if self.rng.random() < 0.3 else 0

    def reopen(self):
        with self.d.connect() as c:
            for image in c.call("Images", "List")["images"]:
                if image["state"] != 1:
                    reply = c.ask("Images", "Reopen", {"image": image["name"].decode()})
                    self.assertIn(reply.reason, ("", "NOT_FOUND"), reply)

    def settle(self):
        """All is settled by a last clean start."""
        self.d.stop()
        self.d.restart()
        with self.d.connect() as c:
            for image in c.call("Images", "List")["images"]:
                self.assertEqual((image["state"], image["reason"]), (1, b""), image["name"])
                self.assertEqual(c.call("Images", "Check", image=image["name"].decode())
                                 ["findings"], [])

    # ---- what is there

    def verify(self, clients):
        with self.d.connect() as c:
            self.params = {p["id"]: (p["generation"], p["value"])
                           for p in c.call("Params", "List", image="a")["params"]}
            self.shown = c.events("e", limit=16384)
            self.images = {i["name"].decode(): i["uuid"]
                           for i in c.call("Images", "List")["images"]}
        self.d.stop()
        self.read_audit()
        for client in clients:
            with self.subTest(client=client.number, seed=self.seed):
                self.verify_records(client)
                self.verify_client(client)
        self.verify_events(clients)

    def read_audit(self):
        """Outcomes by request_id."""
        self.outcomes = collections.defaultdict(collections.Counter)
        db = sqlite3.connect(f"file:{self.d.data_dir}/audit.db?mode=ro", uri=True)
        try:
            for request, outcome in db.execute("SELECT request_id, outcome FROM audit"):
                self.assertIn(outcome, ("done", "completed", "not done"))
                if request is not None:
                    self.outcomes[request][outcome != "not done"] += 1
        finally:
            db.close()

    def verify_records(self, client):
        for request, about in client.calls:
            self.assertEqual(self.outcomes[request][True], 1, about)
        self.assertEqual(len({request for request, _ in client.calls}), len(client.calls))

    def happened(self, client, kind, what=None):
        """Did the client's unanswered call, of that kind, happen? As its record says."""
        if client.open is None or client.open[1][0] != kind or what not in (None,
                                                                            client.open[1][1]):
            return 0
        times = self.outcomes[client.open[0]][True]
        self.assertLessEqual(times, 1)
        return times

    def verify_client(self, client):
        extra = self.happened(client, "put", client.value + 1)
        expected = (client.generation + extra, b"%d" % (client.value + extra))
        self.assertEqual(self.params.get(client.number, (0, b"0")), expected)
        extra = self.happened(client, "batch")
        expected = (client.batch_generation + extra, b"%d" % (client.batch + extra))
        for n in range(BATCH):
            self.assertEqual(self.params.get(1000 + client.number * BATCH + n, (0, b"0")),
                             expected)
        number = 5000 + client.number
        there = client.deletable + self.happened(client, "put", number) \
            - self.happened(client, "delete", number)
        self.assertEqual(number in self.params, bool(there))
        name = f"own{client.number}"
        there = (client.image is not None) + self.happened(client, "create") \
            - self.happened(client, "delete", name)
        self.assertEqual(name in self.images, bool(there))
        if name in self.images and client.image is not None:
            self.assertEqual(self.images[name], client.image)

    def verify_events(self, clients):
        """Every one once, in the order and at the place that was answered."""
        expected = {}
        for client in clients:
            for first, payloads in client.events:
                for n, payload in enumerate(payloads):
                    self.assertNotIn(first + n, expected)
                    expected[first + n] = payload
        loose = {p for c in clients if self.happened(c, "append") for p in c.open[1][1]}
        self.assertEqual(len(expected) + len(loose), self.shown["pointer"])
        for event in self.shown["events"]:
            if event["index"] in expected:
                self.assertEqual(event["payload"], expected[event["index"]])
            else:
                self.assertIn(event["payload"], loose)
                loose.remove(event["payload"])

    def test_deaths(self):
        self.assertGreater(self.campaign(self.die), 0)

    def test_faults_and_deaths(self):
        self.campaign(self.fail)


if __name__ == "__main__":
    harness.main()
