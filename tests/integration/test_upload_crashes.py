"""A campaign: clients upload, import, export, clone, rename and delete while the daemon is killed
with -9 at random moments. What was acknowledged is there, what was not is there whole or not at
all, nothing is left over, and no space leaks. SPB_CAMPAIGN_S sets how long it runs; the seed is
printed, though the moments themselves cannot be replayed."""
import hashlib
import os
import random
import threading
import time
import uuid

import harness
import rpc
from crc import crc32c
from uploading import KIB, MIB, Case, image_file, noise

SECONDS = float(os.environ.get("SPB_CAMPAIGN_S", "20"))
SEED = int(os.environ.get("SPB_SEED", "0")) or random.SystemRandom().randrange(1 << 32)


class Lost(Exception):
    """The daemon went away for good: the round is over."""


class Client:
    """Calls that are repeated with the same request_id until they are answered."""

    def __init__(self, campaign):
        self.campaign, self.c = campaign, None

    def ask(self, service, method, fields):
        if "request_id" in rpc.SCHEMA.messages[rpc.SCHEMA.methods[service, method][0]]:
            fields.setdefault("request_id", str(uuid.uuid4()))
        while True:
            try:
                if self.c is None:
                    self.c = self.campaign.dial()
                reply = self.c.ask(service, method, fields)
                if reply.reason in ("DRAINING", "STILL_RUNNING"):
                    continue
                return reply
            except (rpc.Closed, OSError):
                if self.c is not None:
                    self.c.close()
                self.c = None

    def call(self, service, method, **fields):
        reply = self.ask(service, method, fields)
        if reply.code:
            raise rpc.RpcError(f"{service}.{method}", reply)
        return reply.body


class Worker(threading.Thread):
    """One client with names of its own; knows what must be there."""

    def __init__(self, campaign, n):
        super().__init__()
        self.campaign, self.n = campaign, n
        self.random = random.Random(SEED * 1000 + n)
        self.client = Client(campaign)
        self.products, self.images, self.artifacts = {}, {}, {}
        self.open_uploads, self.failure, self.steps = [], None, 0

    def run(self):
        try:
            while not self.campaign.over.is_set():
                self.random.choice((self.product, self.product, self.image, self.artifact,
                                    self.clone, self.rename, self.delete, self.backup))()
                self.steps += 1
        except Lost:
            pass
        except BaseException as error:
            self.failure = error
        finally:
            if self.client.c is not None:
                self.client.c.close()

    # ---- uploads

    def upload(self, data, **target):
        """Gives what Finish answered; None where it was given up."""
        started = self.client.ask("Uploads", "Start", {"size": len(data), **target})
        if started.code:
            raise rpc.RpcError("Start", started)
        upload = started.body["upload_id"]
        give_up_at = self.random.choice((None, None, None, self.random.randrange(len(data) + 1)))
        if not self.send(upload, data, give_up_at):
            if self.random.random() < 0.5:
                reply = self.client.ask("Uploads", "Abort", {"upload_id": upload})
                assert reply.code == rpc.OK, reply
            else:
                self.open_uploads.append(upload)
            return None
        return self.finish(upload, data)

    def send(self, upload, data, give_up_at):
        at = 0
        while at < len(data):
            if give_up_at is not None and at >= give_up_at:
                return False
            piece = data[at:at + self.random.choice((64, 128, 500)) * KIB]
            reply = self.client.ask("Uploads", "Write", {
                "upload_id": upload, "offset": at, "data": piece, "crc32c": crc32c(piece)})
            if reply.code == rpc.OK:
                at = reply.body["next_offset"]
            else:  # a daemon that began anew has less
                assert reply.reason == "WRONG_STATE", reply
                at = self.client.call("Uploads", "Status", upload_id=upload)["next_offset"]
        return True

    def finish(self, upload, data):
        fields = {"upload_id": upload, "crc32c": crc32c(data)}
        while True:
            reply = self.client.ask("Uploads", "Finish", dict(fields))
            if reply.code != rpc.PRECONDITION:
                return reply
            self.send(upload, data, None)

    def product(self):
        name = b"w%d.%d" % (self.n, self.random.randrange(3))
        data = noise(self.random.randrange(1, 1500 * KIB), self.random.random())
        reply = self.upload(data, product={"image": rpc.image_ref("a"), "name": name,
                                           "replace": True})
        if reply is not None:
            assert reply.code == rpc.OK, reply
            self.products[name] = data

    def image(self):
        name = f"w{self.n}.{self.random.randrange(3)}"
        if name in self.images:
            return
        value = b"%d" % self.random.randrange(1 << 30)
        reply = self.upload(self.campaign.image_with(value), image={
            "image": rpc.image_ref(name), "new_identity": True})
        if reply is not None:
            assert reply.code == rpc.OK, reply
            self.images[name] = value

    def artifact(self):
        data = noise(self.random.randrange(1, 800 * KIB), self.random.random())
        sha = hashlib.sha256(data).digest()
        reply = self.upload(data, artifact={"sha256": sha, "name": b"w%d" % self.n})
        if reply is not None:
            assert reply.code == rpc.OK, reply
            self.artifacts[sha] = data
        if len(self.artifacts) > 4:
            gone = next(iter(self.artifacts))
            reply = self.client.ask("Artifacts", "Delete", {"sha256": gone})
            assert reply.code == rpc.OK, reply
            del self.artifacts[gone]

    # ---- images

    def clone(self):
        name = f"w{self.n}.c{self.random.randrange(2)}"
        if name in self.images or not self.images:
            return
        source = self.random.choice(list(self.images))
        reply = self.client.ask("Images", "Clone", {"image": source, "to": rpc.image_ref(name)})
        assert reply.code == rpc.OK, reply
        self.images[name] = self.images[source]

    def rename(self):
        if not self.images:
            return
        old = self.random.choice(list(self.images))
        new = f"w{self.n}.r{self.random.randrange(4)}"
        if new in self.images:
            return
        reply = self.client.ask("Images", "Rename", {"image": old, "name": new.encode()})
        assert reply.code == rpc.OK, reply
        self.images[new] = self.images.pop(old)

    def delete(self):
        if len(self.images) < 3:
            return
        name = self.random.choice(list(self.images))
        reply = self.client.ask("Images", "Delete", {"image": name})
        assert reply.code == rpc.OK, reply
        del self.images[name]

    def backup(self):
        reply = self.client.ask("Images", "Backup", {"image": "a"})
        if reply.code == rpc.EXHAUSTED:
            return
        assert reply.code == rpc.OK, reply
        reply = self.client.ask("Images", "EndBackup", {"backup_id": reply.body["backup_id"]})
        assert reply.code in (rpc.OK, rpc.NOT_FOUND), reply  # it ends with the daemon


class Campaign(Case):
    def dial(self):
        while not self.stopped.is_set():
            try:
                return rpc.Connection(f"unix:{self.d.socket}", harness.WAIT_S)
            except OSError:
                self.up.wait(0.05)
        raise Lost

    def image_with(self, value):
        """A whole image that holds a value, patched from one that was made once."""
        path = self.dir / f"i{threading.get_ident()}.img"
        path.write_bytes(self.pattern)
        harness.run_cli("param", "put", 7, "-", "--file", path, input=value)
        return path.read_bytes()

    def test_nothing_acknowledged_is_lost(self):
        print(f"seed {SEED}, {SECONDS} s", flush=True)
        self.over, self.stopped, self.up = (threading.Event() for _ in range(3))
        moments = random.Random(SEED)
        self.pattern = image_file(self.dir / "pattern.img", 200, 512)
        self.serve("upload_sync_bytes=256 KiB", "uploads_max=4096", "uploads_principal_max=4096",
                   listen=[f"unix:{self.dir}/d.sock"])
        self.c.call("Images", "Delete", image="a")
        self.c.create("a", blocks=65536, sector_size=4096)
        before = self.free_blocks()
        workers = [Worker(self, n) for n in range(4)]
        for one in workers:
            one.start()
        kills = self.kill_often(moments, time.monotonic() + SECONDS)
        self.over.set()
        for one in workers:
            one.join(harness.WAIT_S)
        self.stopped.set()
        for one in workers:
            one.join()
            if one.failure is not None:
                raise one.failure
        print(f"{kills} kills, {sum(w.steps for w in workers)} steps", flush=True)
        self.assertGreater(kills, 2)
        self.c = self.connect(self.d)
        for kill in (None, True):
            if kill:
                self.again(kill=True)
            self.all_is_there(workers)
        self.nothing_else(workers, before)

    def kill_often(self, moments, until):
        kills = 0
        while time.monotonic() < until:
            self.stopped.wait(moments.uniform(0.02, 0.8))
            self.d.kill9()
            kills += 1
            self.d.restart()
            self.up.set()
            self.up.clear()
        return kills

    def all_is_there(self, workers):
        c = self.c
        for one in workers:
            for name, data in one.products.items():
                self.assertEqual(c.product("a", name), data, name)
            for name, value in one.images.items():
                self.assertEqual(c.get(name, 7), value, name)
            for sha, data in one.artifacts.items():
                path = self.d.data_dir / "artifacts" / "1" / sha.hex()
                self.assertEqual(path.read_bytes(), data)
        for image in c.call("Images", "List")["images"]:
            self.assertEqual(image["state"], 1, image)
            checked = c.call("Images", "Check", image=image["name"])
            self.assertEqual(checked["findings"], [], image)

    def nothing_else(self, workers, before):
        c = self.c
        for one in workers:
            for upload in one.open_uploads:
                reply = c.ask("Uploads", "Abort", {"upload_id": upload})
                self.assertEqual(reply.code, rpc.OK, reply)
        names = {i["name"].decode() for i in c.call("Images", "List")["images"]}
        self.assertEqual(names, {"a"}.union(*[w.images for w in workers]))
        shas = {a["sha256"] for a in c.call("Artifacts", "List")["artifacts"]}
        self.assertEqual(shas, set().union(*[w.artifacts for w in workers]))
        folder = self.d.data_dir / "artifacts" / "1"
        self.assertEqual({bytes.fromhex(n) for n in os.listdir(folder)}, shas)
        products = {p["name"] for p in c.call("DataProducts", "List", image="a")["products"]}
        self.assertEqual(products, set().union(*[w.products for w in workers]))
        for name in products:
            c.call("DataProducts", "Delete", image="a", name=name)
        self.assertEqual(self.free_blocks(), before)
        self.assertEqual(self.stray(), [])
        self.d.stop()
        self.assertEqual(self.rows(), 0)
        self.c = self.connect(self.d.restart())
        self.assertEqual(self.free_blocks(), before)


if __name__ == "__main__":
    harness.main()
