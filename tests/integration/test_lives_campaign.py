"""Images that are made, copied, renamed and deleted under few names, by clients that try again.

Each client owns the images that it has made, and knows what they hold; all want the same names.
Others watch, read, copy and cancel meanwhile, send half of what they mean and go. The daemon is
killed, or ended and started, again and again. Every call is made with its request_id until its
answer is definite, so at the end each image is there as its owner knows it, and no other one.

  SPB_LIVES_SECONDS=600 SPB_LIVES_SEED=1 ctest -R integration.test_lives_campaign -V
"""
import collections
import os
import random
import signal
import sqlite3
import sys
import threading
import uuid

import harness
import rpc
from crc import crc32c
from uploading import KIB, image_file

SECONDS = float(os.environ.get("SPB_LIVES_SECONDS", "10"))
SEED = int(os.environ.get("SPB_LIVES_SEED", "0")) or random.randrange(1, 1 << 32)
OWNERS, NAMES = 4, [f"n{i}" for i in range(7)]
GONE = (rpc.Closed, ConnectionError, BrokenPipeError, TimeoutError, FileNotFoundError)
FIRST_APPEND = b"the first append was cut off"
# The same call is made again.
PASSING = {"STILL_RUNNING", "DRAINING", "DEADLINE", "CANCELLED", "OUTCOME_UNKNOWN",
           "AUDIT_UNAVAILABLE"}


class Stop(Exception):
    """The campaign is over, and the call at hand was not answered."""


class Peer:
    """One connection after the other to a daemon that dies."""

    def __init__(self, campaign, seed):
        self.campaign, self.rng, self.c, self.failure = campaign, random.Random(seed), None, None
        self.done = collections.Counter()

    def connect(self):
        while self.c is None:
            if self.campaign.dead.is_set():
                raise Stop
            try:
                self.c = self.campaign.d.connect(self.campaign.endpoint)
            except GONE:
                self.campaign.dead.wait(0.01)

    def drop(self):
        if self.c is not None:
            self.c.close()
        self.c = None

    def once(self, service, method, fields, **how):
        """The answer, or None where the link was lost."""
        self.connect()
        try:
            return self.c.ask(service, method, fields, **how)
        except GONE:
            self.drop()
            return None

    def run(self):
        try:
            while not self.campaign.over.is_set():
                self.step()
        except Stop:
            pass
        except BaseException as error:  # pylint: disable=broad-except
            self.failure = error
            self.campaign.over.set()
            self.campaign.dead.set()
        finally:
            self.drop()


class Owner(Peer):
    """Makes images, changes them, and knows what they hold."""

    def __init__(self, campaign, seed, number):
        super().__init__(campaign, seed)
        self.number, self.images, self.count = number, {}, 0

    # ---- calls that are made until their answer is definite

    def lose(self):
        """The call is sent, and its answer never read."""
        return self.rng.random() < 0.08

    def until_definite(self, service, method, **fields):
        fields["request_id"] = str(uuid.UUID(int=self.rng.getrandbits(128), version=4))
        self.campaign.ids.append(fields["request_id"])
        while True:
            if self.campaign.dead.is_set():
                raise Stop
            if self.lose():
                self.connect()
                try:
                    self.c.start(service, method, dict(fields))
                except GONE:
                    pass
                self.drop()
            reply = self.once(service, method, dict(fields))
            if reply is None:
                continue
            if reply.code and reply.reason in PASSING:
                self.campaign.dead.wait(0.005)
                continue
            self.campaign.story.append((self.number, method, str(fields)[:240], repr(reply)))
            self.done[f"{service}.{method} {reply.reason or 'ok'}"] += 1
            return reply

    def expect(self, reply, what, *reasons):
        if reply.code and reply.reason not in reasons:
            raise AssertionError(f"{what}: {reply!r}")
        return reply.code == rpc.OK

    # ---- lives

    def free_name(self):
        return self.rng.choice(NAMES)

    def own(self):
        return self.rng.choice(sorted(self.images)) if self.images else None

    def create(self):
        name = self.free_name()
        own = uuid.UUID(int=self.rng.getrandbits(128), version=4).bytes
        if self.expect(self.until_definite("Images", "Create", image=name, total_blocks=160,
                                           uuid=own), f"create {name}", "ALREADY_EXISTS"):
            self.images[name] = {"uuid": own, "params": {}, "products": {}}

    def delete(self):
        name = self.own()
        if name and self.expect(self.until_definite("Images", "Delete", image=name),
                                f"delete {name}"):
            del self.images[name]

    def rename(self):
        name, to = self.own(), self.free_name()
        if name and self.expect(self.until_definite("Images", "Rename", image=name,
                                                    name=to.encode()),
                                f"rename {name} {to}", "ALREADY_EXISTS"):
            self.images[to] = self.images.pop(name)

    def clone(self):
        name, to = self.own(), self.free_name()
        own = uuid.UUID(int=self.rng.getrandbits(128), version=4).bytes
        if name and self.expect(
                self.until_definite("Images", "Clone", image=name, to={"name": to.encode()},
                                    uuid=own),
                f"clone {name} {to}", "ALREADY_EXISTS"):
            self.images[to] = {"uuid": own, "params": dict(self.images[name]["params"]),
                               "products": dict(self.images[name]["products"])}

    def put(self):
        name = self.own()
        if not name:
            return
        number, self.count = self.rng.randrange(1, 9), self.count + 1
        value = b"%d.%d" % (self.number, self.count)
        if self.expect(self.until_definite("Params", "Put", image=name, id=number, value=value),
                       f"put {name}", "NO_SPACE"):
            self.images[name]["params"][number] = value

    def send(self, upload, data):
        """All chunks, from what the daemon has on."""
        at = None
        while at is None or at < len(data):
            if at is None:
                reply = self.ask("Uploads", "Status", upload_id=upload)
                self.expect(reply, "status")
                at = reply.body["next_offset"]
                continue
            piece = data[at:at + 64 * KIB]
            reply = self.once("Uploads", "Write", {"upload_id": upload, "offset": at, "data": piece,
                                                   "crc32c": crc32c(piece)})
            if reply is None or reply.reason in PASSING or reply.reason == "WRONG_STATE":
                at = None
                continue
            self.expect(reply, "write")
            at = reply.body["next_offset"]

    def upload(self, target, data):
        """Start, all chunks, Finish; gives the last answer, None where it came to none."""
        reply = self.until_definite("Uploads", "Start", size=len(data), **target)
        if not self.expect(reply, f"start {target}", "ALREADY_EXISTS", "NO_SPACE"):
            return None
        upload = reply.body["upload_id"]
        while True:
            self.send(upload, data)
            if self.rng.random() < 0.1:
                self.expect(self.until_definite("Uploads", "Abort", upload_id=upload), "abort")
                return None
            reply = self.until_definite("Uploads", "Finish", upload_id=upload, crc32c=crc32c(data))
            if reply.code and reply.reason == "ALREADY_EXISTS":
                self.expect(self.until_definite("Uploads", "Abort", upload_id=upload), "abort")
            # Bytes that were not durable go with the daemon: they are sent again.
            if reply.reason != "WRONG_STATE":
                return reply

    def product(self):
        name = self.own()
        if not name:
            return
        which, size = b"p%d" % self.rng.randrange(3), self.rng.choice((0, 1, 700, 20000))
        data = self.rng.randbytes(size)
        target = {"product": {"image": rpc.image_ref(name), "name": which, "replace": True}}
        reply = self.upload(target, data)
        if reply is not None and self.expect(reply, f"finish {name} {which}", "NO_SPACE"):
            self.images[name]["products"][which] = data

    def take_in(self):
        name = self.free_name()
        target = {"image": {"image": rpc.image_ref(name), "new_identity": True}}
        reply = self.upload(target, self.campaign.file)
        if reply is None:
            return
        if self.expect(reply, f"import {name}", "ALREADY_EXISTS"):
            self.images[name] = {"uuid": reply.body["image"]["uuid"], "params": {1: b"within"},
                                 "products": {b"p": b"within" * 1000}}

    def reopen(self):
        name = self.own()
        if name:
            self.expect(self.until_definite("Images", "Reopen", image=name), f"reopen {name}")

    def defrag(self):
        name = self.own()
        if name:
            self.expect(self.until_definite("Images", "Defrag", image=name), f"defrag {name}")

    # ---- looking

    def ask(self, service, method, **fields):
        """A call that changes nothing: made again at will."""
        while True:
            reply = self.once(service, method, fields)
            if reply is not None and reply.reason not in PASSING:
                return reply
            if self.campaign.dead.is_set():
                raise Stop

    def look(self, name=None):
        name = name or self.own()
        if not name:
            return
        known = self.images[name]
        got = self.ask("Images", "Get", image=name)
        self.expect(got, f"get {name}")
        if got.body["image"]["uuid"] != known["uuid"] or got.body["image"]["state"] != 1:
            raise AssertionError(f"{name} is {got.body}, known as {known['uuid']}")
        listed = self.ask("Params", "List", image=name)
        self.expect(listed, f"list {name}")
        params = {p["id"]: p["value"] for p in listed.body["params"]}
        if params != known["params"]:
            raise AssertionError(f"{name} has {params}, known are {known['params']}")
        listed = self.ask("DataProducts", "List", image=name)
        self.expect(listed, f"products of {name}")
        found = {p["name"]: p["crc32c"] for p in listed.body["products"]}
        if found != {n: crc32c(d) for n, d in known["products"].items()}:
            raise AssertionError(f"{name} has {found}, known are {list(known['products'])}")

    def step(self):
        steps = ((self.create, 3), (self.delete, 2), (self.rename, 4), (self.clone, 3),
                 (self.put, 8), (self.product, 6), (self.take_in, 2), (self.reopen, 1),
                 (self.defrag, 1), (self.look, 3))
        if len(self.images) > 2:
            self.delete()
        self.rng.choices([s for s, _ in steps], [w for _, w in steps])[0]()


class Stranger(Peer):
    """Reads, watches, copies, cancels, and goes without a word."""

    def ask(self, service, method, **fields):
        return self.once(service, method, fields,
                         timeout_ns=self.rng.choice((0, 0, 10**6, 10**8)))

    def watch(self):
        fields = {"image": self.rng.choice(NAMES), "start": 1,
                  "wait_ms": self.rng.choice((0, 50, 60000))}
        self.connect()
        try:
            for _ in range(self.rng.randrange(1, 20)):
                self.c.start("Events", "Watch", dict(fields))
        except GONE:
            self.drop()
        if self.rng.random() < 0.5:
            self.drop()

    def backup(self):
        reply = self.ask("Images", "Backup", image=self.rng.choice(NAMES))
        if reply is None or reply.code:
            return
        data, size = b"", reply.body["size"]
        while len(data) < size:
            piece = self.ask("Images", "ReadBackup", backup_id=reply.body["backup_id"],
                             offset=len(data), length=1 << 20)
            if piece is None or piece.code:
                break
            data += piece.body["data"]
        if len(data) == size and crc32c(data) != reply.body["crc32c"]:
            raise AssertionError("a backup with another CRC than it was promised with")
        self.ask("Images", "EndBackup", backup_id=reply.body["backup_id"])

    def cancel(self):
        if self.campaign.ids:
            self.ask("Server", "Cancel", request_id=self.rng.choice(self.campaign.ids[-30:]))

    def read(self):
        name = self.rng.choice(NAMES)
        for service, method, more in (
                ("Images", "Inspect", {}), ("Images", "Check", {}), ("Params", "List", {}),
                ("Events", "List", {}), ("DataProducts", "List", {}),
                ("DataProducts", "Read", {"name": b"p1", "length": 1000}),
                ("Images", "List", {"all_tenants": True}), ("Audit", "List", {"page_size": 50})):
            if method != "List" or service in ("Params", "Events", "DataProducts"):
                more = dict(more, image=name)
            reply = self.ask(service, method, **more)
            if reply is not None and reply.code in (rpc.INTERNAL, rpc.DATA_LOSS):
                raise AssertionError(f"{service}.{method} {more}: {reply!r}")

    def scrub(self):
        self.ask("Images", "Scrub", image=self.rng.choice(NAMES), start=True)

    def half(self):
        """Part of a frame; or calls whose answers nobody reads."""
        self.connect()
        try:
            self.c.send_bytes(bytes(self.rng.randrange(10)) + self.rng.randbytes(30))
            for _ in range(30):
                self.c.start("Images", "Inspect", {"image": self.rng.choice(NAMES)})
        except GONE:
            pass
        self.drop()

    def append(self):
        self.ask("Events", "Append", image=self.rng.choice(NAMES),
                 events=[{"severity": 1, "code": 1, "payload": b"x"}])

    def step(self):
        self.rng.choice((self.watch, self.backup, self.cancel, self.read, self.scrub, self.half,
                         self.append))()


class Lives(harness.Case):
    endpoint = None

    def begin(self):
        self.rng, self.ids = random.Random(SEED), []
        self.story = collections.deque(maxlen=100)  # for who asks why
        self.over, self.dead = threading.Event(), threading.Event()
        self.file = image_file(self.dir / "given.img", blocks=64, size=512)
        self.endpoint = f"unix:{self.dir}/d.sock"
        self.d = self.daemon(args=["--http", "127.0.0.1:0", *harness.limits(backup_life_s=1)])
        self.peers = [Owner(self, SEED + i, i) for i in range(OWNERS)]
        self.peers += [Stranger(self, SEED - 1 - i) for i in range(2)]

    def work_until(self, deadline_s):
        threads = [threading.Thread(target=p.run, daemon=True) for p in self.peers]
        for thread in threads:
            thread.start()
        left = deadline_s
        while left > 0 and not self.over.is_set():
            pause = self.rng.uniform(0.2, 3)
            self.over.wait(pause)
            left -= pause
            way = self.rng.random()
            self.story.append(("-", way))
            if way < 0.15:
                self.d.process.send_signal(signal.SIGHUP)
            elif way < 0.7:
                self.d.kill9()
                self.d.restart()
            else:
                self.d.stop()
                self.d.restart()
        self.over.set()
        for thread in threads:
            thread.join(harness.WAIT_S)
            self.assertFalse(thread.is_alive(), "a client hangs")
        failures = [p.failure for p in self.peers if p.failure is not None]
        self.assertEqual(failures, [],
                         "\n".join(map(str, self.story)) + self.d.log()[-9000:])

    def compare(self):
        owned = {}
        for owner in self.peers[:OWNERS]:
            for name in owner.images:
                self.assertNotIn(name, owned, "an image has two owners")
                owned[name] = owner
        with self.connect(self.d) as c:
            there = {i["name"].decode() for i in c.call("Images", "List")["images"]}
            self.assertEqual(there, set(owned))
            for name in there:
                found = c.call("Images", "Check", image=name)["findings"]
                # Nobody knows what a stranger's append came to that met the daemon's end.
                self.assertEqual([f for f in found if FIRST_APPEND not in f["text"]], [], name)
        for name, owner in owned.items():
            owner.look(name)

    def test_lives(self):
        sys.stderr.write(f"seed {SEED}, {SECONDS:g} s\n")
        self.begin()
        self.work_until(SECONDS)
        self.compare()
        total = collections.Counter()
        for peer in self.peers:
            total += peer.done
            peer.drop()
        sys.stderr.write("".join(f"  {n:6} {k}\n" for k, n in sorted(total.items())))
        self.eventually(lambda: self.d.metric("spaceblock_calls_in_flight") == 0, "calls stay")
        self.eventually(lambda: self.d.metric("spaceblock_buffers_bytes") == 0, "buffers stay")
        self.d.stop()
        db = sqlite3.connect(self.d.data_dir / "audit.db")
        self.addCleanup(db.close)
        rows = {n for (n,) in db.execute("SELECT name FROM image_rows")}
        files = {p.name[:-4] for p in (self.d.data_dir / "images/1").glob("*.img")}
        self.assertEqual(rows, files)


if __name__ == "__main__":
    harness.main()
