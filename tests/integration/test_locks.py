"""One owner at a time, against a real qemu-io that holds an image or wants to."""
import shutil
import subprocess
import unittest

import harness
import rpc
from faults import Faults

READY, UNAVAILABLE = 1, 4


class Qemu:
    """A qemu-io that keeps an image open until it is closed."""

    def __init__(self, path, *flags):
        self.process = subprocess.Popen(
            ["qemu-io", "-f", "raw", *flags, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, preexec_fn=harness.die_with_parent)
        self.say("length")
        # the answer to the command comes once the image is open
        line = self.process.stdout.readline()
        assert b"lock" not in line and b"rror" not in line and line, line

    def say(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def close(self):
        if self.process.poll() is None:
            self.process.communicate(b"quit\n", timeout=harness.WAIT_S)
        harness.end(self.process)


def qemu_write(path):
    """Exit code and words of a qemu-io that writes a sector."""
    done = subprocess.run(["qemu-io", "-f", "raw", "-c", "write 0 512", path],
                          capture_output=True, check=False, timeout=harness.WAIT_S)
    return done.returncode, (done.stdout + done.stderr).decode()


class Locks(harness.Case):
    def setUp(self):
        super().setUp()
        if not shutil.which("qemu-io"):
            raise unittest.SkipTest("no qemu-io (package qemu-utils)")
        self.path = self.dir / "offline.img"
        harness.run_cli("init", "--file", self.path, "--blocks", 128)
        harness.run_cli("param", "put", 1, "mine", "--file", self.path)

    def qemu(self, path, *flags):
        one = Qemu(path, *flags)
        self.addCleanup(one.close)
        return one

    def refuses_qemu(self, path):
        before = path.read_bytes()
        code, words = qemu_write(path)
        self.assertNotEqual(code, 0, words)
        self.assertIn("lock", words)
        self.assertEqual(path.read_bytes(), before)

    def test_daemon_keeps_qemu_out(self):
        d = self.daemon()
        with d.connect() as c:
            c.create("a")
            path = d.image_path(1, "a")
            self.refuses_qemu(path)
            c.put("a", 1, b"v")
            self.refuses_qemu(path)
            d.stop()
        self.assertEqual(qemu_write(path)[0], 0, "the lock outlives its owner")

    def test_killed_daemon_keeps_nothing(self):
        d = self.daemon()
        with d.connect() as c:
            c.create("a")
        d.kill9()
        self.assertEqual(qemu_write(d.image_path(1, "a"))[0], 0)

    def offline_writer(self, faults):
        """A CLI that holds the image in a flush; gives the hold and a way to its end."""
        hold = faults.hold("flush", self.path.name)
        self.addCleanup(faults.release_all)
        process = subprocess.Popen(
            [harness.CLI, "param", "put", "2", "slow", "--file", self.path],
            env=harness.environment(**faults.environment()), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, preexec_fn=harness.die_with_parent)
        self.addCleanup(harness.end, process)
        hold.wait()
        return hold, process

    def test_offline_writer_keeps_everybody_out(self):
        faults = Faults(self.dir)
        hold, process = self.offline_writer(faults)
        self.refuses_qemu(self.path)
        done = harness.run_cli("param", "put", 3, "x", "--file", self.path, code=harness.FAILED)
        self.assertIn(str(self.path), done.err)
        done = harness.run_cli("init", "--file", self.path, "--blocks", 64, "--force",
                               code=harness.FAILED)
        self.assertIn(str(self.path), done.err)
        read = harness.run_cli("param", "get", 1, "--file", self.path, "--raw")
        self.assertEqual(read.out, b"mine")
        self.assertIn("held by", read.err)
        hold.release()
        _, err = process.communicate(timeout=harness.WAIT_S)
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual(qemu_write(self.path)[0], 0)

    def test_daemon_keeps_offline_writers_out(self):
        d = self.daemon()
        with d.connect() as c:
            c.create("a")
            c.put("a", 1, b"daemon's")
            path = d.image_path(1, "a")
            for args in (["param", "put", 1, "x"], ["param", "delete", 1], ["defrag"],
                         ["event", "append", "x", "--severity", 1, "--code", 1],
                         ["dp", "put", "p", path], ["check", "--repair"]):
                done = harness.run_cli(*args, "--file", path, code=harness.FAILED)
                self.assertIn(str(path), done.err)
            read = harness.run_cli("param", "get", 1, "--raw", "--file", path)
            self.assertEqual(read.out, b"daemon's")
            self.assertIn("held by", read.err)
            self.assertEqual(c.get("a", 1), b"daemon's")

    def test_qemu_keeps_offline_writers_out(self):
        qemu = self.qemu(self.path)
        before = self.path.read_bytes()
        for args in (["param", "put", 1, "x"], ["check", "--repair"],
                     ["init", "--blocks", 64, "--force"]):
            done = harness.run_cli(*args, "--file", self.path, code=harness.FAILED)
            self.assertIn(str(self.path), done.err)
            self.assertRegex(done.err, "(?i)qemu|guest")
        self.assertEqual(self.path.read_bytes(), before)
        for args in (["param", "get", 1], ["inspect"], ["param", "list"], ["param", "history", 1]):
            done = harness.run_cli(*args, "--file", self.path)
            self.assertIn("mine", done.text)
            self.assertRegex(done.err, "(?i)held by.*(qemu|guest)")
        for args in (["check"], ["inspect", "--json"], ["event", "list"], ["dp", "list"]):
            done = harness.run_cli(*args, "--file", self.path)
            self.assertRegex(done.err, "(?i)held by.*(qemu|guest)")
        qemu.close()
        harness.run_cli("param", "put", 1, "free", "--file", self.path)

    def test_qemu_that_only_reads_hinders_nobody(self):
        qemu = self.qemu(self.path, "-r")
        harness.run_cli("param", "put", 1, "x", "--file", self.path)
        self.assertEqual(harness.run_cli("param", "get", 1, "--file", self.path).text, "x\n")
        qemu.close()

    def test_daemon_starts_beside_an_image_that_is_held(self):
        d = self.daemon()
        with d.connect() as c:
            for name in ("held", "free"):
                c.create(name)
                c.put(name, 1, name.encode())
        d.stop()
        qemu = self.qemu(d.image_path(1, "held"))
        with d.restart().connect() as c:
            image = c.call("Images", "Get", image="held")["image"]
            self.assertEqual(image["state"], UNAVAILABLE)
            self.assertRegex(image["reason"].decode(), "(?i)qemu|guest")
            reply = self.refused(rpc.PRECONDITION, c, "Params", "Put", {"image": "held", "id": 1})
            self.assertEqual(reply.reason, "IMAGE_IN_USE")
            self.assertEqual(c.get("free", 1), b"free")
            c.put("free", 1, b"again")
            again = c.ask("Images", "Reopen", {"image": "held"})
            if again.code == rpc.OK:
                self.assertEqual(again.body["image"]["state"], UNAVAILABLE)
            done = harness.run_cli("image", "reopen", "held", "--endpoint", d.unix, code=None)
            self.assertNotEqual(done.code, harness.DONE, "it says that it is open")
            self.assertNotEqual(c.ask("Images", "Delete", {"image": "held"}).code, rpc.OK)
            self.assertTrue(d.image_path(1, "held").exists())
            qemu.close()
            opened = c.call("Images", "Reopen", image="held")["image"]
            self.assertEqual(opened["state"], READY)
            self.assertEqual(c.get("held", 1), b"held")
            c.put("held", 1, b"ours")
            self.refuses_qemu(d.image_path(1, "held"))

    def test_daemon_starts_beside_an_offline_writer(self):
        d = self.daemon()
        with d.connect() as c:
            c.create("a")
            c.create("b")
        d.stop()
        faults = Faults(self.dir)
        self.path = d.image_path(1, "a")
        hold, process = self.offline_writer(faults)
        with d.restart().connect() as c:
            image = c.call("Images", "Get", image="a")["image"]
            self.assertEqual(image["state"], UNAVAILABLE)
            self.assertIn("held by", image["reason"].decode())
            c.put("b", 1, b"v")
            hold.release()
            process.communicate(timeout=harness.WAIT_S)
            c.call("Images", "Reopen", image="a")
            self.assertEqual(c.get("a", 2), b"slow")


if __name__ == "__main__":
    harness.main()
