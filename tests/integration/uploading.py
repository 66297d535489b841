"""What tests of uploads share: the three kinds of targets, and a client that sends in pieces."""
import hashlib
import random
import socket
import sqlite3

import harness
import rpc
from crc import crc32c

KIB, MIB = 1024, 1 << 20
KINDS = ("product", "image", "artifact")


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


def image_file(path, blocks=64, size=4096, tenant=1, value=b"within"):
    """An image made offline, with a parameter and a product; gives its bytes."""
    harness.run_cli("init", "--file", path, "--blocks", blocks, "--sector-size", size,
                    "--tenant-id", tenant)
    if value:
        harness.run_cli("param", "put", 1, "-", "--file", path, input=value)
        harness.run_cli("dp", "put", "p", "-", "--file", path, input=value * 1000)
    return path.read_bytes()


class Upload:
    """One upload, of any kind, over a connection that a test may exchange."""

    def __init__(self, connection, data, target, **how):
        self.c, self.data = connection, data
        self.id = self.c.call("Uploads", "Start", size=len(data), **target, **how)["upload_id"]

    @classmethod
    def product(cls, connection, data, image="a", name=b"p", how=None, **more):
        target = {"image": rpc.image_ref(image), "name": name, **more}
        return cls(connection, data, {"product": target}, **(how or {}))

    @classmethod
    def image(cls, connection, data, image="new", how=None, **more):
        return cls(connection, data, {"image": {"image": rpc.image_ref(image), **more}},
                   **(how or {}))

    @classmethod
    def artifact(cls, connection, data, name=b"kernel", how=None, **more):
        target = {"name": name, "sha256": hashlib.sha256(data).digest(), **more}
        return cls(connection, data, {"artifact": target}, **(how or {}))

    def status(self):
        return self.c.call("Uploads", "Status", upload_id=self.id)

    def send(self, start=0, end=None, chunk=64 * KIB):
        end = len(self.data) if end is None else end
        while start < end:
            piece = self.data[start:min(start + chunk, end)]
            start = self.c.write(self.id, start, piece)
        return start

    def resume(self, **how):
        """From where the daemon says."""
        return self.send(self.status()["next_offset"], **how)

    def finish(self, **how):
        return self.c.call("Uploads", "Finish", upload_id=self.id, crc32c=crc32c(self.data), **how)

    def abort(self):
        self.c.call("Uploads", "Abort", upload_id=self.id)

    def ask(self, method, **fields):
        return self.c.ask("Uploads", method, {"upload_id": self.id, **fields})

    def write(self, offset, piece):
        """One chunk, which may be refused."""
        return self.ask("Write", offset=offset, data=piece, crc32c=crc32c(piece))

    def is_gone(self):
        """Absent for every method."""
        piece = self.data[:64 * KIB]
        codes = {self.ask("Status").code, self.ask("Abort").code, self.ask("Finish").code,
                 self.ask("Write", data=piece, crc32c=crc32c(piece)).code}
        return codes == {rpc.NOT_FOUND}


class Case(harness.Case):
    """A daemon with an image "a" that has room for products of some megabytes."""

    def serve(self, *limits, start=True, **how):
        args = [word for limit in limits for word in ("--limit", limit)]
        self.d = self.daemon(args=args, start=False, **how)
        if start:
            self.c = self.connect(self.d.start())
            self.c.create("a", blocks=2048, sector_size=4096)
        return self.d

    def again(self, kill=False, *limits):
        """Ends the daemon and starts it anew."""
        if kill:
            self.d.kill9()
        else:
            self.d.stop()
        if limits:
            self.d.args = [word for limit in limits for word in ("--limit", limit)]
        self.c = self.connect(self.d.restart())
        return self.c

    def source(self, kind, size=3 * MIB):
        """Data for an upload of that kind; an image's is a whole image."""
        if kind != "image":
            return noise(size)
        path = self.dir / f"source{len(list(self.dir.glob('source*')))}.img"
        return image_file(path, blocks=size // 4096)

    def begin(self, kind, data, **how):
        return getattr(Upload, kind)(self.c, data, **how)

    def landed(self, kind, upload):
        """The upload's target is there and right."""
        if kind == "product":
            self.assertEqual(self.c.product("a", b"p"), upload.data)
        elif kind == "image":
            self.assertEqual(self.c.get("new", 1), b"within")
            self.assertEqual(self.c.product("new", b"p"), b"within" * 1000)
            self.assertEqual(self.c.call("Images", "Check", image="new")["findings"], [])
        else:
            sha = hashlib.sha256(upload.data).digest()
            found = self.c.call("Artifacts", "Get", sha256=sha)["artifact"]
            self.assertEqual((found["size"], found["name"]), (len(upload.data), b"kernel"))
            self.assertEqual((self.d.data_dir / "artifacts" / "1" / sha.hex()).read_bytes(),
                             upload.data)

    def free_blocks(self, image="a"):
        return self.c.call("Images", "Inspect", image=image)["free_blocks"]

    def stray(self):
        """Files of the data directory that are no image, no artifact and not the daemon's own."""
        root = self.d.data_dir
        return [str(p.relative_to(root)) for folder in ("images", "artifacts", "copies")
                for p in (root / folder).rglob("*")
                if p.is_file() and (p.name.startswith(".") or folder == "copies")]

    def rows(self, table="upload_rows"):
        """How many the database has. The daemon must not run."""
        with sqlite3.connect(self.d.data_dir / "audit.db") as db:
            return db.execute(f"select count(*) from {table}").fetchone()[0]

    def until(self, condition, what):
        """Waits for what the daemon does by itself, without taking its time."""
        quiet, other = socket.socketpair()
        with quiet, other:
            quiet.settimeout(0.02)
            for _ in range(50 * harness.WAIT_S):
                if condition():
                    return
                try:
                    quiet.recv(1)
                except TimeoutError:
                    pass
        self.fail(f"waited in vain: {what}")

    def at_least(self, kind, offset, wanted):
        """All that was wanted is durable, but for a product's last block, which may change yet."""
        self.assertLessEqual(offset, wanted)
        self.assertGreaterEqual(offset, wanted - 4096 if kind == "product" else wanted)
