"""What is recorded of guests where that fails, or they are deleted meanwhile."""
import errno
import os
import resource
import signal
import threading

import harness
import lending
import rpc
from faults import Faults
from guestcase import ALWAYS, GuestCase, NEVER, ON_FAILURE, STATES, alive, qemus


class Records(GuestCase):
    def setUp(self):
        super().setUp()
        self.faults = Faults(self.dir)
        self.addCleanup(self.faults.release_all)
        self.env = self.faults.environment()

    def full(self):
        self.faults.fail("write", "audit.db", errno.ENOSPC)

    def change(self, pid, name):
        """Something about it that is recorded."""
        before = self.get(name)["version"]
        os.kill(pid, signal.SIGUSR1)
        self.eventually(lambda: self.get(name)["version"] > before, "it did not change")

    def test_deleted_while_a_start_waits_for_its_record(self):
        self.start()
        self.c.create("other")
        starter, deleter, writer = (self.connect(self.d) for _ in range(3))
        for n in range(5):
            name = f"g{n}"
            pid = self.create(name, "full=0", images=(name,), start=True)["pid"]
            self.wait_for("paused", name=name)
            start = starter.start("Guests", "Start", {"guest": {"name": name}})
            self.wait_for("running", name=name)  # the call is answered a second later
            self.eventually(lambda: self.recorded() == "running", "not recorded")
            hold = self.faults.hold("flush", "audit.db-wal")
            writer.start("Params", "Put", {"image": "other", "id": 1, "value": b"x"})
            hold.wait()
            delete = deleter.start("Guests", "Delete", {"guest": {"name": name}, "force": True})
            self.change(pid, name)
            self.change(pid, name)
            threading.Event().wait(1.2)  # until the call waits for nothing but its record
            hold.release()
            self.assertEqual(deleter.wait(delete).code, 0)
            reply = starter.wait(start)
            self.assertIn(reply.code, (0, rpc.NOT_FOUND), reply)
            if reply.code != 0:
                self.assertEqual(reply.message, f"guest 1/{name} was started, and then deleted")
        self.d.stop()

    def test_an_end_is_recorded_once_it_can_be(self):
        self.start()
        self.create(words="end=poweroff after=500", restart=ON_FAILURE, start=True)
        self.eventually(lambda: self.recorded() == "running", "not recorded")
        self.full()
        self.wait_for("stopped")
        self.eventually(lambda: "event=guest-not-recorded guest=1/g" in self.d.log(), "no failure")
        self.assertNotEqual(self.recorded(), "stopped")
        self.faults.clear()
        self.eventually(lambda: self.recorded() == "stopped", "not recorded")
        self.assertEqual(self.d.log().count("event=guest-not-recorded"), 1)
        self.assertIn("event=guest-recorded guest=1/g", self.d.log())
        cpu = self.d.cpu_s()
        threading.Event().wait(1)
        self.assertLess(self.d.cpu_s() - cpu, 0.1)
        self.d.kill9()
        self.again()
        guest = self.get()
        self.assertEqual((STATES[guest["state"]], guest["restarts"]), ("stopped", 0))

    def test_an_end_is_recorded_before_the_daemon_ends(self):
        self.start()
        self.create(words="end=poweroff after=500", restart=ON_FAILURE, start=True)
        self.eventually(lambda: self.recorded() == "running", "not recorded")
        self.full()
        self.wait_for("stopped")
        self.eventually(lambda: "event=guest-not-recorded" in self.d.log(), "no failure")
        tried = self.faults.count("write", "audit.db")
        self.eventually(lambda: self.faults.count("write", "audit.db") > tried, "not tried again")
        self.faults.clear()  # the next time would be two seconds later
        self.d.stop()
        self.assertEqual(self.recorded(), "stopped")
        self.again()
        guest = self.get()
        self.assertEqual((STATES[guest["state"]], guest["restarts"]), ("stopped", 0))

    def test_a_start_that_is_not_recorded(self):
        """It is told so, and what is told to run afterwards is recorded."""
        self.start()
        self.create(words="late=1000", restart=NEVER)
        start = self.c.start("Guests", "Start", {"guest": {"name": "g"}})
        self.eventually(lambda: qemus(self.d.data_dir), "not spawned")
        self.eventually(lambda: self.recorded() == "starting", "not recorded")
        self.full()
        reply = self.c.wait(start)
        self.assertEqual(reply.reason, "IO_ERROR", reply)
        self.assertIn("guest 1/g was started, and that is not recorded: ", reply.message)
        self.assertEqual(self.state(), "running")
        self.refused(rpc.EXHAUSTED, self.c, "Guests", "Start", {"guest": {"name": "g"}})
        self.faults.clear()
        guest = self.guest("Start")
        self.assertEqual((STATES[guest["state"]], self.recorded()), ("running", "running"))

    def test_a_deletion_that_fails(self):
        """What the guest is then is recorded: it is not started again."""
        self.start()
        self.create(restart=ALWAYS, start=True)
        hold = self.faults.hold("flush", "a.img")
        delete = self.c.start("Guests", "Delete", {"guest": {"name": "g"}, "force": True})
        hold.wait()
        self.full()
        hold.release(keep_rules=True)
        reply = self.c.wait(delete)
        self.assertEqual((reply.code, reply.reason), (rpc.EXHAUSTED, "NO_SPACE"), reply)
        self.assertEqual(self.state(), "stopped")
        self.assertEqual(self.recorded(), "stopping")
        self.faults.clear()
        self.eventually(lambda: self.recorded() == "stopped", "not recorded")
        self.c.call("Guests", "Delete", guest={"name": "g"})

    def test_a_deletion_that_the_daemon_does_not_live_to_see(self):
        """Its guest was killed, and is not started again."""
        self.start(drain_ms=500)
        self.create(restart=ALWAYS)
        unseen = f"watch pidfd {errno.ENOSPC} 0"
        self.faults.rules(unseen)
        pid = self.guest("Start")["pid"]
        hold = self.faults.hold("flush", "audit.db-wal")
        self.c.start("Guests", "Delete", {"guest": {"name": "g"}, "force": True})
        hold.wait()
        self.faults.rules(unseen, f"write audit.db {errno.ENOSPC} 0")
        hold.release(keep_rules=True)
        self.eventually(lambda: "event=guest-not-recorded guest=1/g" in self.d.log(), "no failure")
        self.faults.rules(unseen)
        self.d.terminate()
        self.d.wait(1)  # the call was cut off
        self.assertFalse(alive(pid))
        self.assertEqual(self.recorded(), "stopping")
        self.faults.clear()
        self.again()
        guest = self.wait_for("stopped", "lost")
        self.assertEqual(guest["restarts"], 0)


class Folders(GuestCase):
    def limit(self, soft):
        was = resource.prlimit(self.d.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.d.process.pid, resource.RLIMIT_NOFILE, (soft, was[1]))
        return was[0]

    def folders(self):
        return sorted(p.name for p in (self.d.data_dir / "run").glob("g*"))

    def test_one_that_could_not_be_removed(self):
        """It goes when there are descriptors again, also if its guest has been deleted."""
        self.start()
        for name in ("kept", "deleted"):
            self.create(name, images=(name,))
        for n, name in enumerate(("kept", "deleted"), 1):
            pid = self.guest("Start", name)["pid"]
            was = self.limit(10)
            os.kill(pid, signal.SIGKILL)
            self.wait_for("crashed", name=name)
            self.assertEqual(self.folders(), [f"g{n}-1"])
            self.assertIn("event=run-folder-not-removed", self.d.log())
            if name == "deleted":
                self.c.call("Guests", "Delete", guest={"name": name})
            self.limit(was)
            self.eventually(lambda: not self.folders(), "it stays")


class Images(GuestCase):
    """What was short when a guest ended keeps its image from no later one."""

    def crash(self, pid):
        before = self.get()["restarts"]
        os.kill(pid, signal.SIGKILL)
        self.eventually(lambda: "event=image-detached" in self.d.log(), "it was not taken back")
        self.assertNotEqual(self.c.call("Images", "Get", image="a")["image"]["state"], 1)
        return before

    def goes_on(self, before):
        self.eventually(lambda: self.get()["restarts"] > before and self.state() == "running",
                        "it is not started again")
        self.guest("Kill")
        self.wait_for("stopped")
        self.c.put("a", 1, b"mine again")

    def test_a_full_disk(self):
        faults = Faults(self.dir)
        self.env = faults.environment()
        self.start()
        pid = self.create(words="print=hi", restart=ALWAYS, start=True)["pid"]
        self.eventually(lambda: self.recorded() == "running", "not recorded")
        faults.fail("write", "audit.db", errno.ENOSPC)
        writer = lending.Guest(self.d.image_path(1, "a"))
        writer.do("append", 1, 7)  # so that the registry is to know of it
        writer.end()
        before = self.crash(pid)
        self.assertIn("(full)", self.d.log())
        faults.clear()
        self.goes_on(before)

    def test_no_descriptors(self):
        self.start()
        pid = self.create(restart=ALWAYS, start=True)["pid"]
        was = resource.prlimit(self.d.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.d.process.pid, resource.RLIMIT_NOFILE, (10, was[1]))
        before = self.crash(pid)
        resource.prlimit(self.d.process.pid, resource.RLIMIT_NOFILE, was)
        self.goes_on(before)


if __name__ == "__main__":
    harness.main()
