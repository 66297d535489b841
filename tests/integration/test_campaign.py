"""A good client beside 64 hostile peers: it is served, nearly as fast, and memory stays bounded.

SPB_CAMPAIGN_SECONDS (10): how long. The peers are held still for a part of each round, in which the
good client's quiet latency is measured, so that what else the machine does falls on both. The load
generator is the benchmarks', in C: its latencies are the daemon's and not the interpreter's.
"""
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import unittest

import harness
import rpc

SECONDS = int(os.environ.get("SPB_CAMPAIGN_SECONDS", "10"))
HOSTILE = 64
ROUNDS = 5
RATIO_MAX = 5.0
# Below this a p99 says more of the scheduler than of the daemon: good client and daemon share the
# processors here.
FLOOR_US = 1000.0
MEMORY_MAX_KB = 256 * 1024
BENCH = pathlib.Path(os.environ.get("SPB_BUILD_DIR", "/nonexistent")) / "tests/bench/bench_rpc"
HERE = pathlib.Path(__file__).parent
PRODUCT = "large"


def step_back():
    """Hostile peers have machines of their own: here they yield the processors to the daemon."""
    harness.die_with_parent()
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


class Campaign(harness.Case):
    def setUp(self):
        super().setUp()
        if not BENCH.exists():
            self.skipTest("no bench_rpc in SPB_BUILD_DIR")
        self.d = self.daemon(listen=["tcp://127.0.0.1:0"], args=["--http", "127.0.0.1:0"])
        self.c = self.connect(self.d, self.d.tcp)
        self.c.create("good", blocks=4096)
        self.c.create("theirs", blocks=40960, sector_size=4096)
        self.c.upload("theirs", PRODUCT.encode(), b"L" * (4 << 20))

    def measure(self, operation, seconds):
        """p99 in microseconds of one caller; every call must succeed."""
        done = subprocess.run(
            [BENCH, "--endpoint", self.d.tcp, "--image", "good", "--op", operation,
             "--seconds", f"{seconds:.2f}"], capture_output=True, text=True, check=False,
            timeout=seconds + harness.WAIT_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)["p99_us"]

    def start_hostile(self, seconds):
        process = subprocess.Popen(
            [sys.executable, "-B", "hostile.py", self.d.tcp, "theirs", PRODUCT, str(seconds),
             str(HOSTILE)], cwd=HERE, stdout=subprocess.PIPE, preexec_fn=step_back)
        self.addCleanup(harness.end, process)
        return process

    def rounds(self, hostile):
        """{operation: [(quiet p99, p99 beside them)]}"""
        found = {"put": [], "get": []}
        piece = max(SECONDS / ROUNDS / 4, 0.4)
        for _ in range(ROUNDS):
            for operation, pairs in found.items():
                hostile.send_signal(signal.SIGSTOP)
                quiet = self.measure(operation, piece)
                hostile.send_signal(signal.SIGCONT)
                pairs.append((quiet, self.measure(operation, piece)))
        return found

    def judge(self, found):
        for operation, pairs in found.items():
            ratios = [loud / max(quiet, FLOOR_US) for quiet, loud in pairs]
            told = ", ".join(f"{quiet:.0f}/{loud:.0f}" for quiet, loud in pairs)
            print(f"{operation}: p99 quiet/beside them, us: {told}; "
                  f"median ratio {statistics.median(ratios):.2f}")
            if not self.d.is_sanitized():
                self.assertLess(statistics.median(ratios), RATIO_MAX, f"{operation}: {told}")

    def test_good_client_beside_hostile_ones(self):
        hostile = self.start_hostile(SECONDS * 4 + 60)
        self.assert_all_there()
        self.judge(self.rounds(hostile))
        hostile.kill()
        hostile.wait()
        peak_kb = self.d.peak_kb()
        print(f"peak resident memory: {peak_kb} kB; refused: {self.refusals()}")
        if not self.d.is_sanitized():
            self.assertLess(peak_kb, MEMORY_MAX_KB)
        self.assert_all_gone()
        self.assertEqual(self.c.call("Images", "Check", image="good")["findings"], [])

    def assert_all_there(self):
        self.eventually(lambda: self.d.metric("spaceblock_connections") >= HOSTILE / 2,
                        "the hostile peers do not connect")

    def assert_all_gone(self):
        self.eventually(lambda: self.d.metric("spaceblock_connections") == 1, "connections stay")
        self.eventually(lambda: self.d.metric("spaceblock_buffers_bytes") < 64 << 10,
                        "memory is still counted as theirs")

    def refusals(self):
        return {labels["reason"]: int(value) for labels, value in
                self.d.metrics()["spaceblock_refusals_total"] if value}


if __name__ == "__main__":
    harness.main()
