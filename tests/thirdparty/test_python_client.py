"""The Python client and its example against the daemon, over a unix socket and TCP."""
import concurrent.futures
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading

import pyclient
import harness
from spaceblock_client import (Client, Code, DeadlineExceeded, Error, LinkLost, RpcError, crc32c,
                               download, image, upload)

EXAMPLE = pyclient.SOURCE / "example.py"
TOUR = """\
parameter 42: 3.14159, generation {0}
parameter 42: not put, GENERATION_MISMATCH
event 0: severity 1, code 100, boot
event 1: severity 2, code 7, battery at 20 %
product science/thermal: 100000 bytes, the same: True
"""


class PythonClient(harness.Case):
    def client(self, daemon, endpoint=None, **how):
        client = Client(endpoint or daemon.unix, **{"timeout_s": harness.WAIT_S, **how})
        self.addCleanup(client.close)
        return client

    def image(self, client, name="a", blocks=64, **more):
        client.Images.Create(image=image(name), total_blocks=blocks, **more)
        return image(name)

    def refusal(self, call, *args, **fields):
        """The RpcError of a call that must fail, with what each of the daemon's has."""
        with self.assertRaises(RpcError) as caught:
            call(*args, **fields)
        self.assertEqual(caught.exception.domain, "spaceblock")
        self.assertTrue(caught.exception.message)
        return caught.exception

    # ---- the example

    def run_example(self, *words):
        env = harness.environment(PYTHONPATH=os.pathsep.join(pyclient.PATH))
        return subprocess.run([sys.executable, "-B", EXAMPLE, *words], env=env, check=False,
                              capture_output=True, text=True, timeout=harness.WAIT_S)

    def test_example(self):
        daemon = self.daemon()
        for generation, (endpoint, first) in enumerate(
                ((daemon.unix, "created"), (daemon.tcp, "there already")), 1):
            done = self.run_example(endpoint, "probe")
            self.assertEqual(done.stderr, "")
            self.assertEqual(done.stdout, f"image: {first}\n" + TOUR.format(generation))

    def test_example_says_what_failed(self):
        daemon = self.daemon()
        done = self.run_example(daemon.unix, ".bad")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("INVALID_ARGUMENT", done.stderr)
        done = self.run_example()
        self.assertEqual(done.returncode, 2)
        self.assertIn("ENDPOINT IMAGE", done.stderr)

    def test_readme(self):
        """What it says works as written, but for the endpoint."""
        daemon = self.daemon()
        for folder in ("proto", "client/python"):
            shutil.copytree(pyclient.ROOT / folder, self.dir / folder)
        self.file("thermal.dat", b"data")
        text = (pyclient.SOURCE / "README.md").read_text().replace("unix:/tmp/sock", daemon.unix)
        shell, program = (re.search(f"^```{kind}\n(.*?)^```", text, re.M | re.S)[1]
                          for kind in ("sh", "python"))
        script = f"""{shell}
export PYTHONPATH=client/python:build/python
{sys.executable} - <<'END'
{program}
assert data == b"data"
END"""
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=self.dir, check=False,
                              capture_output=True, text=True, timeout=harness.WAIT_S,
                              env=harness.environment())
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(done.stdout.endswith("NOT_FOUND {'image': '1/probe'}\n"), done.stdout)

    # ---- errors and deadlines

    def test_errors(self):
        client = self.client(self.daemon())
        probe = self.image(client)
        error = self.refusal(client.Params.Get, image=image("absent"), id=1)
        self.assertEqual((error.code, error.reason), (Code.NOT_FOUND, "NOT_FOUND"))
        self.assertEqual(error.metadata, {"image": "1/absent"})
        error = self.refusal(client.Params.Put, image=probe, value=b"v" * 241)
        self.assertEqual((error.code, list(error.violations)), (Code.INVALID_ARGUMENT, ["value"]))
        error = self.refusal(client.Params.Put, image=probe, request_id="mine")
        self.assertEqual(list(error.violations), ["request_id"])
        error = self.refusal(client.Images.Create, image=probe, total_blocks=64)
        self.assertEqual(error.code, Code.ALREADY_EXISTS)
        error = self.refusal(client.Server.Ping, payload=bytes(2 << 20))
        self.assertEqual((error.code, error.reason), (Code.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED"))
        self.assertEqual(client.connections_made, 1)

    def test_deadline(self):
        daemon = self.daemon()
        for endpoint in daemon.ready:
            client = self.client(daemon, endpoint)
            client.Server.Ping()
            daemon.process.send_signal(signal.SIGSTOP)
            try:
                with self.assertRaises(DeadlineExceeded):
                    client.Server.Ping(payload=b"late", timeout_s=0.05)
            finally:
                daemon.process.send_signal(signal.SIGCONT)
            self.assertEqual(client.Server.Ping(payload=b"next").payload, b"next")
            self.assertEqual(client.connections_made, 1)

    # ---- many callers, and a daemon that comes and goes

    def test_concurrent_calls_over_one_connection(self):
        daemon = self.daemon()
        for n, endpoint in enumerate(daemon.ready):
            client = self.client(daemon, endpoint)
            probe = self.image(client, f"a{n}", sector_size=4096)

            def work(caller):
                for turn in range(20):
                    text = f"{caller}, {turn}".encode()
                    self.assertEqual(client.Server.Ping(payload=text).payload, text)
                    client.Params.Put(image=probe, id=caller, value=text)
                    got = client.Params.Get(image=probe, id=caller).param
                    self.assertEqual((got.value, got.generation), (text, turn + 1))

            harness.threads(40, work)
            self.assertEqual(client.connections_made, 1)

    def test_goes_on_after_a_restart(self):
        daemon = self.daemon()
        client = self.client(daemon)
        probe = self.image(client)
        client.Params.Put(image=probe, id=1, value=b"before")
        daemon.stop()
        with self.assertRaises(LinkLost):
            client.Params.Get(image=probe, id=1, retry=False)
        with self.assertRaises(LinkLost):
            client.Params.Get(image=probe, id=1, timeout_s=0.2)
        daemon.start()
        self.assertEqual(client.Params.Get(image=probe, id=1).param.value, b"before")

        daemon.kill9()
        waiting = threading.Thread(target=client.Params.Put, kwargs={
            "image": probe, "id": 1, "value": b"after"})
        waiting.start()  # finds nobody, and keeps trying
        daemon.restart()
        waiting.join()
        self.assertEqual(client.Params.Get(image=probe, id=1).param.value, b"after")

    def test_calls_in_the_air_when_the_daemon_dies(self):
        daemon = self.daemon()
        client = self.client(daemon)
        probe = self.image(client, sector_size=4096)
        callers, back = 8, threading.Event()
        busy = threading.Barrier(callers + 1)

        def work(caller):
            turn = 0
            while not back.is_set():
                turn += 1
                client.Params.Put(image=probe, id=caller, value=b"%d" % turn)
                if turn == 1:
                    busy.wait(harness.WAIT_S)
            self.assertEqual(client.Params.Get(image=probe, id=caller).param.value, b"%d" % turn)

        with concurrent.futures.ThreadPoolExecutor(callers) as pool:
            working = [pool.submit(work, caller) for caller in range(callers)]
            try:
                busy.wait(harness.WAIT_S)
                daemon.kill9()
                daemon.restart()
            finally:
                back.set()
            for one in working:
                one.result()
        self.assertGreater(client.connections_made, 1)

    # ---- products

    def test_products(self):
        daemon = self.daemon()
        for n, endpoint in enumerate(daemon.ready):
            client = self.client(daemon, endpoint)
            probe = self.image(client, f"p{n}", blocks=16384)
            for size in (0, 1, 511, 65536, (1 << 20) - 1, (1 << 20) + 1, 2_500_000):
                with self.subTest(size=size):
                    data = random.Random(size).randbytes(size)
                    file = self.file("product", data)
                    with open(file, "rb") as source:
                        product = upload(client, probe, "p", source, product_class=3, priority=4,
                                         replace=True)
                    self.assertEqual((product.length, product.crc32c), (size, crc32c(data)))
                    self.assertEqual((product.product_class, product.priority), (3, 4))
                    sink = io.BytesIO()
                    self.assertIsNone(download(client, probe, "p", sink))
                    self.assertEqual(sink.getvalue(), data)
            self.assertEqual(self.refusal(upload, client, probe, "p", b"x").code,
                             Code.ALREADY_EXISTS)

    def test_products_of_a_daemon_that_gives_less_at_once(self):
        daemon = self.daemon(args=harness.limits(chunk_max_bytes=1 << 18))
        client = self.client(daemon)
        probe = self.image(client, blocks=16384)
        data = random.Random(1).randbytes(1_500_000)
        upload(client, probe, "p", data)
        self.assertEqual(download(client, probe, "p"), data)
        daemon.finish()
        daemon.args = harness.limits(chunk_max_bytes=1 << 16)
        daemon.start()
        self.assertEqual(download(client, probe, "p"), data)

    def test_product_that_changes_while_it_is_read(self):
        client = self.client(self.daemon())
        probe = self.image(client, blocks=16384)
        upload(client, probe, "p", bytes(1_500_000))

        class Sink(io.BytesIO):
            def write(self, data):
                upload(client, probe, "p", b"new", replace=True)

        error = self.refusal(download, client, probe, "p", Sink())
        self.assertEqual((error.code, error.reason), (Code.ABORTED, "PRODUCT_CHANGED"))

    def test_upload_that_fails_leaves_nothing(self):
        client = self.client(self.daemon())
        probe = self.image(client)
        error = self.refusal(upload, client, probe, "p", bytes(1 << 20))
        self.assertEqual((error.code, error.reason), (Code.RESOURCE_EXHAUSTED, "NO_SPACE"))

        class Short(io.BytesIO):
            def read(self, size):
                return b""

        with self.assertRaisesRegex(Error, "source ended"):
            upload(client, probe, "p", Short(bytes(5000)))
        self.assertEqual(list(client.DataProducts.List(image=probe).products), [])
        for name in "bc":  # the space of neither is held
            upload(client, probe, name, bytes(5000))


if __name__ == "__main__":
    harness.main()
