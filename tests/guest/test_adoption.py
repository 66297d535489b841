"""Guests outlive their daemon: it is killed, and the next one finds them as they are."""
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

import harness
import rpc
from guests import BOOT_S, GuestCase, alive
from harness import CLI
from machine import BOOTS, BUTTON, END, EVENTS, INTERVAL_MS

COUNT = 4


def cpu_ticks(pid):
    words = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(words[11]) + int(words[12])


class Adoption(GuestCase):
    def setUp(self):
        super().setUp()
        self.d = self.guest_daemon(args=harness.limits(guest_backoff_ms=50))

    def pointer(self, image):
        """How many events the image has, as anybody can see in its file."""
        with open(self.d.image_path(1, image), "rb") as file:
            return int.from_bytes(os.pread(file.fileno(), 4, 17 * 512), "big")

    def watch(self, image):
        process = subprocess.Popen(
            [CLI, "event", "watch", "--image", image, "--from", "start", "--endpoint", self.d.unix],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=harness.environment(), preexec_fn=harness.die_with_parent)
        self.addCleanup(harness.end, process)
        return process

    def test_the_daemon_is_killed_with_guests_running(self):
        steer = {EVENTS: 100000, INTERVAL_MS: 200, END: "wait"}
        guests = [self.guest(f"g{n}", steer=steer, restart="always") for n in range(COUNT)]
        for guest in guests:
            guest.booted()
        watch, console = self.watch("g0"), self.follow_console("g1")
        pids = [guest.get()["pid"] for guest in guests]
        self.d.kill9()
        seen = [self.pointer(guest.image) for guest in guests]
        self.eventually(lambda: all(self.pointer(g.image) > n + 5 for g, n in zip(guests, seen)),
                        "events without a daemon", BOOT_S)
        self.d.restart()
        for guest, pid in zip(guests, pids):
            guest.reconnect()
            found = guest.wait(lambda g: g["state"] == "running", "adopted")
            self.assertEqual((found["pid"], found["adopted"], found["restarts"]), (pid, True, 0))
            told = self.refused(rpc.PRECONDITION, guest.connection, "Params", "Put",
                                {"image": guest.image, "id": 1, "value": "x"})
            self.assertEqual(told.reason, "IMAGE_IN_USE")
        for guest in guests:
            self.new_events_come(guest)
            guest.call("Stop", timeout_ms=BOOT_S * 1000)
        for guest in guests:
            found = guest.ended()
            self.assertEqual((found["ending"], found["restarts"]), ("poweroff", 0), found)
            self.assertEqual(guest.connection.get(guest.image, BOOTS), b"1")
            self.no_gap([payload for code, payload in guest.events() if code == 2])
        self.all_were_watched(watch, guests[0])
        out, _ = console.communicate(timeout=BOOT_S)
        self.assertEqual(out, guests[1].console())

    def follow_console(self, name):
        process = subprocess.Popen(
            [CLI, "guest", "logs", name, "-f", "--endpoint", self.d.unix],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=harness.environment(), preexec_fn=harness.die_with_parent)
        self.addCleanup(harness.end, process)
        return process

    def new_events_come(self, guest):
        last = guest.events()[-1]
        guest.event(lambda e: e["code"] == 2 and e["payload"].decode() > last[1]
                    and len(e["payload"]) >= len(last[1]), "an event after the adoption")

    def no_gap(self, ticks):
        numbers = [int(re.match(r"tick (\d+) of", tick)[1]) for tick in ticks]
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))))

    def all_were_watched(self, watch, guest):
        """One watch over the daemon's death has shown each event once, in order."""
        lines, deadline = [], time.monotonic() + BOOT_S
        while not lines or "ends: wait" not in lines[-1]:
            self.assertLess(time.monotonic(), deadline, lines[-5:])
            lines.append(watch.stdout.readline().decode())
            self.assertTrue(lines[-1], "the watch ended")
        indexes = [int(line.split()[0]) for line in lines]
        self.assertEqual(indexes, list(range(len(lines))))
        self.assertEqual(len(lines), self.pointer(guest.image))

    def test_what_happened_meanwhile_is_told(self):
        """Guests that ended, or were asked to, while no daemon was there."""
        off = self.guest("off", steer={EVENTS: 20, INTERVAL_MS: 250}, restart="on-failure")
        killed = self.guest("killed", steer={END: "hang"})
        asked = self.guest("asked", steer={END: "hang", BUTTON: "ignore"}, restart="always")
        brief = self.guest("brief", steer={END: "hang"}, ephemeral=True)
        reset, again = (self.guest(name, steer={EVENTS: 20, INTERVAL_MS: 250, END: "reboot"},
                                   restart=restart)
                        for name, restart in (("reset", "on-failure"), ("again", "always")))
        for guest in (off, killed, asked, brief, reset, again):
            guest.booted()
        pids = {guest.name: guest.get()["pid"] for guest in (off, killed, asked, brief, reset)}
        asked.call("Stop", timeout_ms=3000)
        self.d.kill9()
        self.eventually(lambda: not alive(pids["brief"]), "an ephemeral guest ends with its daemon")
        os.kill(pids["killed"], signal.SIGKILL)
        for name in ("off", "reset", "again"):
            self.eventually(lambda name=name: self.pointer(name) >= 22, "its last event", BOOT_S)
        self.eventually(lambda: self.is_idle(pids["reset"]), "the guest's end", BOOT_S)
        self.d.restart()
        for guest in (off, killed, asked, brief, reset, again):
            guest.reconnect()
        found = reset.ended()
        self.assertEqual((found["state"], found["ending"], found["reason"], found["restarts"]),
                         ("stopped", "reboot", "asked for a reboot", 0), found)
        again.booted(2)
        self.assertGreater(again.get()["restarts"], 0)
        again.call("Kill")
        again.ended()
        found = off.ended()
        self.assertEqual((found["state"], found["ending"], found["restarts"]),
                         ("stopped", "poweroff", 0), found)
        for guest in (killed, brief):
            found = guest.ended()
            self.assertEqual((found["state"], found["ending"]), ("lost", "lost"), found)
        found = asked.ended()
        self.assertEqual((found["state"], found["ending"], found["restarts"]),
                         ("stopped", "stopped", 0), found)
        for guest in (off, killed, asked, brief, reset):
            self.assertEqual(guest.connection.get(guest.image, BOOTS), b"1")
            guest.connection.put(guest.image, 5, "ours")
        self.assertEqual([p for p in pids.values() if alive(p)], [])
        self.no_folders_left()

    def is_idle(self, pid):
        """Its guest's processor holds still: it has ended, and QEMU waits."""
        before = cpu_ticks(pid)
        threading.Event().wait(1)
        return cpu_ticks(pid) - before < 5

    def no_folders_left(self):
        left = list(pathlib.Path(self.d.data_dir / "run").glob("*/p"))
        self.assertEqual(left, [])

    def test_a_clean_stop_leaves_guests_alone(self):
        guest = self.guest("stays", steer={END: "wait"})
        guest.booted()
        pid = guest.get()["pid"]
        self.d.stop()
        self.assertTrue(alive(pid))
        self.d.restart()
        guest.reconnect()
        found = guest.wait(lambda g: g["state"] == "running", "adopted")
        self.assertEqual((found["pid"], found["adopted"]), (pid, True))
        done = harness.run_cli("guest", "stop", "stays", "--stop-timeout", BOOT_S, "--json",
                               "--endpoint", self.d.unix)
        self.assertEqual(done.json["ending"], "poweroff")


if __name__ == "__main__":
    harness.main()
