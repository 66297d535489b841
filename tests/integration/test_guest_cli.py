"""The family guest of the CLI against a daemon that the test plays: what is asked for, what comes
of the answers, consoles over lost connections. (tests/guest has real guests.)"""
import json
import os
import pty
import re
import signal
import subprocess
import threading

import harness
import rpc
from harness import ABSENT, CLI, DONE, FAILED, UNREACHABLE, USAGE, run_cli
from protowire import SCHEMA
from stand_in import Cut, Refused, StandIn

STATES, ENDINGS = SCHEMA.enums["GuestState"], SCHEMA.enums["GuestEnding"]
PANIC, REBOOT, STOPPED, QEMU = 6, 7, 8, 9


def state(name):
    return STATES[f"GUEST_STATE_{name.upper()}"]


def guest(name="running", ending="UNSPECIFIED", version=1, **more):
    return {"tenant": 1, "name": "g", "state": state(name), "version": version,
            "ending": ENDINGS[f"GUEST_ENDING_{ending}"], "reason": "as the test says",
            "config": {"images": [{"tenant": 1, "name": "a"}], "memory_mib": 128, "cpus": 1,
                       "accel": 3, "restart": 1}, **more}


class Guests(harness.Case):
    def setUp(self):
        super().setUp()
        self.answers = {"Get": lambda f: {"guest": guest()}, "Ping": lambda f: {}}
        self.peer = StandIn(self.dir / "sock", self.handle)
        self.addCleanup(self.peer.close)
        self.end = ["--endpoint", self.peer.endpoint]

    def handle(self, service, method, fields):
        return self.answers[method](fields)

    def cli(self, *words, **how):
        return run_cli("guest", *words, *self.end, **how)

    def answer(self, method, *answers):
        """These one after the other, the last again and again."""
        left = list(answers)
        self.answers[method] = lambda f: left.pop(0) if len(left) > 1 else left[0]


class Commands(Guests):
    KERNEL = "ab" * 32

    def create(self, *words, code=DONE):
        self.answer("Create", {"guest": guest("created")})
        self.answer("Start", {"guest": guest()})
        self.cli("create", "g", "--image", "a", "--kernel", f"sha256:{self.KERNEL}", *words,
                 code=code)
        return self.peer.asked("Create")[-1] if code == DONE else None

    def test_create_says_all_that_was_given(self):
        made = self.create("--image", "b", "--initrd", "file:initrd.img", "--append", "a=b c,d",
                           "--memory", 256, "--cpus", 2, "--accel", "tcg", "--restart",
                           "on-failure", "--boot-deadline", 20, "--stop-timeout", 5, "--ephemeral",
                           "--label", "role=probe", "--label", "empty=", "--label", "k=a=b")
        config = made["config"]
        self.assertEqual([i["name"] for i in config["images"]], [b"a", b"b"])
        self.assertEqual(config["kernel"]["sha256"].hex(), self.KERNEL)
        self.assertEqual(config["initrd"]["file"], b"initrd.img")
        self.assertEqual([(one["key"], one["value"]) for one in config["labels"]],
                         [(b"role", b"probe"), (b"empty", b""), (b"k", b"a=b")])
        self.assertEqual({k: config[k] for k in ("append", "memory_mib", "cpus", "accel", "restart",
                                                 "boot_deadline_ms", "stop_timeout_ms",
                                                 "ephemeral")},
                         {"append": b"a=b c,d", "memory_mib": 256, "cpus": 2, "accel": 3,
                          "restart": 2, "boot_deadline_ms": 20000, "stop_timeout_ms": 5000,
                          "ephemeral": 1})
        self.assertRegex(made["request_id"].decode(), r"^[0-9a-f-]{36}$")
        self.assertIsNone(made["guest"]["tenant"])
        self.assertFalse(made["start"])

    def test_images_are_of_the_guests_tenant(self):
        self.answer("Create", {"guest": guest("created")})
        self.cli("create", "7/g", "--image", "a", "--image", "8/b", "--kernel", "file:k")
        made = self.peer.asked("Create")[0]
        self.assertEqual(made["guest"]["tenant"], 7)
        self.assertEqual([i["tenant"] for i in made["config"]["images"]], [7, 8])

    def test_bad_words_are_usage_errors_and_ask_nothing(self):
        kernel = ("--kernel", "file:k")
        for words in (("create", "g"), ("create", "g", "--image", "a"), ("create", "g", *kernel),
                      ("create", "--image", "a", *kernel),
                      ("create", "x/g", "--image", "a", *kernel),
                      ("create", "g", "--image", "a", *kernel, "--accel", "warp"),
                      ("create", "g", "--image", "a", *kernel, "--restart", "sometimes"),
                      ("create", "g", "--image", "a", *kernel, "--label", "none"),
                      ("create", "g", "--image", "a", *kernel, "--label", "=x"),
                      ("create", "g", "--image", "a", *kernel, *kernel),
                      ("create", "g", "--image", "a", "--kernel", "sha256:xyz"),
                      ("create", "g", "--image", "a", "--kernel", "/nonexistent/vmlinuz"),
                      ("create", "g", "--image", "a", *kernel, "--memory", 31),
                      ("create", "g", "--image", "a", *kernel, "--stop-timeout", 0),
                      ("wait", "g", "--for", "ever"), ("ls", "x"), ("logs", "g", "-n", 0),
                      ("ls", "--tenant-id", 1, "--all-tenants"), ("nope", "g"), ("stop",)):
            with self.subTest(words=words):
                self.assertTrue(self.cli(*words, code=USAGE).err)
        run_cli("param", "get", 1, "--image", "a", "--image", "b", *self.end, code=USAGE)
        self.assertEqual(self.peer.calls, [])

    def test_a_label_means_one_artifact(self):
        one = {"sha256": b"\x01" * 32, "name": "vmlinuz-6"}
        self.answer("List", {"artifacts": [one, {"sha256": b"\x02" * 32, "name": "twice"},
                                           {"sha256": b"\x03" * 32, "name": "twice"}]})
        self.answer("Create", {"guest": guest("created")})
        for kernel in ("vmlinuz-6", "sha256:010101"):
            self.cli("create", "g", "--image", "a", "--kernel", kernel)
            self.assertEqual(self.peer.asked("Create")[-1]["config"]["kernel"]["sha256"],
                             b"\x01" * 32)
        for kernel, code in (("none", ABSENT), ("twice", FAILED), ("sha256:ffffff", ABSENT)):
            self.assertIn(kernel.rpartition(":")[2],
                          self.cli("create", "g", "--image", "a", "--kernel", kernel,
                                   code=code).err)
        self.assertEqual(len(self.peer.asked("Create")), 2)

    def test_run_makes_and_starts(self):
        self.answer("Create", {"guest": guest("created")})
        self.answer("Start", {"guest": guest()})
        done = self.cli("run", "g", "--image", "a", "--kernel", "file:k")
        self.assertRegex(done.text, "^guest g running")
        self.assertEqual([name for name, _ in self.peer.calls], ["Create", "Start"])
        ids = [f["request_id"] for _, f in self.peer.calls]
        self.assertEqual(len(set(ids)), 2)

    def test_a_guest_that_does_not_start_stays_unless_rm(self):
        def refuse(fields):
            raise Refused(rpc.PRECONDITION, "GUEST_FAILED", "QEMU said: no such machine")

        self.answer("Create", {"guest": guest("created")})
        self.answers["Start"] = refuse
        self.answer("Delete", {})
        done = self.cli("run", "g", "--image", "a", "--kernel", "file:k", code=FAILED)
        self.assertIn("no such machine", done.err)
        self.assertIn("guest rm", done.err)
        self.assertEqual(self.peer.asked("Delete"), [])
        done = self.cli("run", "g", "--image", "a", "--kernel", "file:k", "--rm", "--json",
                        code=FAILED)
        self.assertEqual(json.loads(done.err)["error"]["reason"], "GUEST_FAILED")
        self.assertEqual([f["force"] for f in self.peer.asked("Delete")], [1])

    def test_how_it_ended_is_the_exit_code(self):
        for name, ending, code in (("stopped", "POWEROFF", DONE), ("crashed", "PANIC", PANIC),
                                   ("stopped", "REBOOT", REBOOT), ("stopped", "STOPPED", STOPPED),
                                   ("crashed", "CRASHED", QEMU), ("lost", "LOST", QEMU),
                                   ("crashed", "NOT_STARTED", QEMU)):
            with self.subTest(ending):
                self.answer("Get", {"guest": guest(name, ending)})
                done = self.cli("wait", "g", "--json", code=code)
                self.assertEqual(done.json["state"], name)

    def test_wait_goes_on_from_the_version_it_knows(self):
        self.answer("Get", {"guest": guest("starting", version=3)})
        self.answer("Wait", {"guest": guest(version=4)}, {"guest": guest("backoff", version=8)},
                    {"guest": guest("stopped", "POWEROFF", version=9)})
        self.cli("wait", "g")
        self.assertEqual([f["known_version"] for f in self.peer.asked("Wait")], [3, 4, 8])

    def test_wait_for_running_and_alive(self):
        self.answer("Wait", {"guest": guest(version=2, alive=True)})
        self.cli("wait", "g", "--for", "alive")
        self.assertEqual(len(self.peer.asked("Wait")), 1)
        self.cli("wait", "g", "--for", "running")
        self.assertEqual(len(self.peer.asked("Wait")), 1)
        self.answer("Get", {"guest": guest("crashed", "PANIC")})
        for what in ("alive", "running"):
            self.assertIn("crashed: as the test says",
                          self.cli("wait", "g", "--for", what, code=FAILED).err)

    def test_wait_has_an_end_where_it_is_given_one(self):
        def wait(fields):
            self.peer.wait_for(lambda: False, 2 * harness.WAIT_S)
            raise Cut

        self.answers["Wait"] = wait
        self.assertTrue(self.cli("wait", "g", "--timeout", 1, code=FAILED).err)

    def test_wait_outlives_a_lost_connection(self):
        lost = threading.Event()

        def wait(fields):
            if not lost.is_set():
                lost.set()
                raise Cut
            return {"guest": guest("stopped", "POWEROFF", version=2)}

        self.answers["Wait"] = wait
        self.cli("wait", "g")
        self.assertEqual(len(self.peer.asked("Wait")), 2)

    def test_a_signal_ends_the_waiting_and_rm_the_guest(self):
        def wait(fields):
            self.peer.wait_for(lambda: False, 2 * harness.WAIT_S)
            raise Cut

        self.answer("Create", {"guest": guest("created")})
        self.answer("Start", {"guest": guest()})
        self.answer("Delete", {})
        self.answers["Wait"] = wait
        for words, removed in ((["--wait"], 0), (["--rm"], 1)):
            before = len(self.peer.asked("Wait"))
            process = subprocess.Popen(
                [CLI, "guest", "run", "g", "--image", "a", "--kernel", "file:k", *words, *self.end],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=harness.environment(),
                preexec_fn=harness.die_with_parent)
            self.addCleanup(harness.end, process)
            self.peer.wait_for(lambda: len(self.peer.asked("Wait")) > before)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=harness.WAIT_S)
            self.assertEqual(process.returncode, FAILED, err)
            self.assertEqual(len(self.peer.asked("Delete")), removed)

    def test_stop_and_kill_wait_for_the_end(self):
        ended = {"guest": guest("stopped", "STOPPED", version=5)}
        for command, method in (("stop", "Stop"), ("kill", "Kill")):
            self.answer(method, {"guest": guest("stopping", version=4)})
            self.answer("Wait", ended)
            self.answer("Get", {"guest": guest("stopping", version=4)})
            self.assertRegex(self.cli(command, "g").text, "^guest g stopped")
            asked = len(self.peer.asked("Wait"))
            self.assertRegex(self.cli(command, "g", "--no-wait").text, "^guest g stopping")
            self.assertEqual(len(self.peer.asked("Wait")), asked)
        self.cli("stop", "g", "--stop-timeout", 7)
        self.assertEqual([f["timeout_ms"] for f in self.peer.asked("Stop")], [None, None, 7000])

    def test_rm(self):
        self.answer("Delete", {})
        self.assertEqual(self.cli("rm", "g", "--json").json, {"guest": "g", "deleted": True})
        self.cli("rm", "g", "--force")
        self.assertEqual([f["force"] for f in self.peer.asked("Delete")], [0, 1])

    def test_ls_pages_and_shows_what_is_true(self):
        pages = [{"guests": [guest()], "next_page_token": b"more"},
                 {"guests": [guest("backoff", "PANIC", crash_loop=True, restarts=7)]}]
        self.answer("List", *pages)
        text = self.cli("ls").text
        self.assertRegex(text, r"(?m)^TENANT +NAME +STATE +IMAGE")
        self.assertRegex(text, r"(?m)^1 +g +running +a +")
        self.assertRegex(text, r"(?m)^1 +g +backoff \(crash loop\) .* 7 +as the test says$")
        self.assertEqual([f["page_token"] for f in self.peer.asked("List")], [b"", b"more"])
        self.answer("List", *pages)
        self.assertEqual([g["state"] for g in self.cli("ls", "--json").json["guests"]],
                         ["running", "backoff"])
        self.cli("ls", "--all-tenants")
        self.assertEqual(self.peer.asked("List")[-1]["all_tenants"], 1)

    def test_show_and_stats(self):
        full = guest("crashed", "CRASHED", exit_status=-9, uuid=bytes(16), started_at_ms=1,
                     reason="\x1b[31mred")
        full["config"]["labels"] = [{"key": "role", "value": "probe"}]
        self.answer("Get", {"guest": full})
        shown = self.cli("show", "g", "--json").json
        self.assertEqual((shown["state"], shown["ending"], shown["exit_status"]),
                         ("crashed", "qemu-failed", -9))
        self.assertEqual(shown["config"]["labels"], [{"key": "role", "value": "probe"}])
        text = self.cli("show", "g").text
        for word in ("crashed", "by signal 9", "128 MiB", "role=probe", "\\x1b[31mred"):
            self.assertIn(word, text)
        self.assertNotIn("\x1b", text)
        self.answer("Stats", {"guest": guest(), "cpu_ms": 1500, "resident_bytes": 3 << 20,
                              "disks": [{"write_bytes": 4096, "flush_operations": 2}]})
        stats = self.cli("stats", "g", "--json").json
        self.assertEqual((stats["cpu_ms"], stats["disks"][0]["flush_operations"]), (1500, 2))
        for word in ("1.5 s", "3 MiB", "wrote 4096 bytes"):
            self.assertIn(word, self.cli("stats", "g").text)

    def test_answers_without_a_guest_are_no_answers(self):
        for method, words in (("Get", ["show", "g"]), ("Stats", ["stats", "g"]),
                              ("Stop", ["stop", "g"]), ("Start", ["start", "g"])):
            self.answer(method, {})
            self.assertIn("guest", self.cli(*words, code=FAILED).err)


class Console(Guests):
    """What the guest prints is self.printed; self.typed is what was typed on it."""

    def setUp(self):
        super().setUp()
        self.printed, self.typed, self.kept_from, self.state = b"", b"", 0, "running"
        self.cuts = set()  # offsets at which reading loses the connection, once each
        self.writers = {}  # id: bytes that it has sent
        self.type_cut = self.forget = False
        self.answers["ReadConsole"], self.answers["WriteConsole"] = self.read, self.write

    def print(self, data, state="running"):
        with self.peer.changed:
            self.printed += data
            self.state = state
            self.peer.changed.notify_all()

    def read(self, f):
        end = len(self.printed)
        offset = end - min(f["last"], end) if f["last"] is not None else (f["offset"] or 0)
        if f["offset"] is None and f["last"] is None:
            offset = end
        if f["wait_ms"]:
            self.peer.wait_for(lambda: len(self.printed) > offset or self.state == "stopped")
        if offset in self.cuts:
            self.cuts.remove(offset)
            raise Cut
        begin = max(offset, self.kept_from)
        data = self.printed[begin:begin + min(f["limit"] or 65536, 65536)]
        return {"offset": begin, "data": data, "skipped": begin - offset,
                "state": state(self.state), "end": len(self.printed)}

    def write(self, f):
        if self.forget:
            self.forget, self.writers = False, {}
            raise Refused(rpc.PRECONDITION, "WRONG_STATE", "nobody knows this writer")
        sent = self.writers.setdefault(f["writer_id"], 0)
        if len(self.writers) > 1 and not f["takes_over"]:
            raise Refused(rpc.PRECONDITION, "WRONG_STATE", "another types here")
        fresh = f["data"][sent - f["offset"]:]
        with self.peer.changed:
            self.typed += fresh[:3000]  # some of it only, as a full console does
            self.writers[f["writer_id"]] += len(fresh[:3000])
            self.peer.changed.notify_all()
        if self.type_cut:
            self.type_cut = False
            raise Cut
        return {"offset": self.writers[f["writer_id"]]}

    def test_logs(self):
        self.printed = b"".join(b"line %d\r\n" % n for n in range(20000)) + b"no end"
        self.assertEqual(self.cli("logs", "g").out, self.printed)
        self.assertEqual(self.cli("logs", "g", "-n", 3).out, b"line 19998\r\nline 19999\r\nno end")
        self.assertEqual(self.cli("logs", "g", "-n", 19999).out,
                         self.printed[self.printed.index(b"line 2\r"):])
        self.assertEqual(self.cli("logs", "g", "-n", 30000).out, self.printed)
        self.printed += b"\n"
        self.assertEqual(self.cli("logs", "g", "-n", 1).out, b"no end\n")
        lines = [json.loads(x) for x in self.cli("logs", "g", "--json").text.splitlines()]
        self.assertEqual(b"".join(bytes.fromhex(x["data_hex"]) for x in lines), self.printed)
        self.assertEqual([x["offset"] for x in lines],
                         [sum(x["size"] for x in lines[:n]) for n in range(len(lines))])

    def on_terminal(self, *words):
        """What the command prints where standard output is a terminal."""
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        subprocess.run([CLI, *words, *self.end], stdout=slave, stderr=subprocess.PIPE,
                       env=harness.environment(), check=True)
        os.write(slave, b"END")
        out = b""
        while not out.endswith(b"END"):
            out += os.read(master, 4096)
        os.close(slave)
        return out[:-3].replace(b"\r\r\n", b"\n").replace(b"\r\n", b"\n")

    def test_logs_on_a_terminal_are_harmless(self):
        self.printed = b"\x1bc\x1b[2Jcleared\r\n\xc2\x9b31m\xff caf\xc3\xa9\n"
        self.assertEqual(self.on_terminal("guest", "logs", "g").decode(),
                         "\\x1bc\\x1b[2Jcleared\n\\x9b31m\ufffd caf\u00e9\n")
        self.assertEqual(self.on_terminal("guest", "logs", "g", "--raw"),
                         self.printed.replace(b"\r", b""))

    def test_logs_of_which_the_beginning_is_gone(self):
        self.printed, self.kept_from = b"lost\n" * 30000 + b"kept\n" * 10, 150000
        for words in ((), ("-n", 500)):
            done = self.cli("logs", "g", *words)
            self.assertEqual(done.out, b"kept\n" * 10)
        self.assertIn("150000 bytes", self.cli("logs", "g").err)

    def test_following_loses_nothing_over_lost_connections(self):
        self.cuts = {0, 10, 65536 + 10}
        process = subprocess.Popen([CLI, "guest", "logs", "g", "-f", *self.end],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=harness.environment(), preexec_fn=harness.die_with_parent)
        self.addCleanup(harness.end, process)
        self.print(b"0123456789")
        self.assertEqual(process.stdout.read(10), b"0123456789")
        rest = os.urandom(200000)
        self.print(rest[:100000])
        self.assertEqual(process.stdout.read(100000), rest[:100000])
        self.print(rest[100000:], state="stopped")
        out, err = process.communicate(timeout=harness.WAIT_S)
        self.assertEqual((out, process.returncode), (rest[100000:], DONE), err)
        self.assertEqual(self.cuts, set())

    def test_what_comes_on_standard_input_is_typed_once(self):
        keys = os.urandom(20000)
        self.type_cut = True
        done = self.cli("console", "g", "--no-wait", input=keys)
        self.assertEqual(done.code, DONE)
        self.assertEqual(self.typed, keys)
        self.assertEqual(len(self.writers), 1)

    def test_another_writer_is_in_the_way_unless_taken_over(self):
        self.writers[b"other"] = 1
        done = self.cli("console", "g", "--no-wait", input=b"x", code=FAILED)
        self.assertIn("another types here", done.err)
        self.assertEqual(self.typed, b"")
        self.cli("console", "g", "--no-wait", "--take-over", input=b"x")
        self.assertEqual(self.typed, b"x")

    def test_console_begins_now_and_ends_with_the_guest(self):
        self.printed = b"old\nolder\n"
        process = self.console()
        self.peer.wait_for(lambda: len(self.peer.asked("ReadConsole")) == 2)
        self.print(b"new\n", state="stopped")
        out, err = process.communicate(timeout=harness.WAIT_S)
        self.assertEqual((out, process.returncode), (b"new\n", DONE))
        self.assertIn(b"the guest is", err)
        self.assertEqual(self.cli("console", "g", "-n", 2).out, b"older\nnew\n")

    def console(self, stdin=subprocess.DEVNULL, *words):
        process = subprocess.Popen([CLI, "guest", "console", "g", *words, *self.end], stdin=stdin,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=harness.environment(), preexec_fn=harness.die_with_parent)
        self.addCleanup(harness.end, process)
        return process

    def test_keys_of_a_terminal(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        process = self.console(slave)
        os.close(slave)
        self.peer.wait_for(lambda: len(self.peer.asked("ReadConsole")) == 2)
        os.write(master, b"a\x03\x01\x01b")
        self.peer.wait_for(lambda: self.typed == b"a\x03\x01b")
        self.print(b"echo\n")
        self.assertEqual(process.stdout.read(5), b"echo\n")
        os.write(master, b"\x01x")
        out, err = process.communicate(timeout=harness.WAIT_S)
        self.assertEqual((out, process.returncode), (b"", DONE), err)
        self.assertIn(b"goes on", err)

    def test_a_terminal_goes_on_where_typing_is_refused(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        process = self.console(slave)
        os.close(slave)
        self.peer.wait_for(lambda: len(self.peer.asked("ReadConsole")) == 2)
        os.write(master, b"one")
        self.peer.wait_for(lambda: self.typed == b"one")
        self.forget = True  # as a daemon that was started again
        os.write(master, b"two")
        self.peer.wait_for(lambda: self.typed == b"onetwo")
        self.assertEqual(len({f["writer_id"] for f in self.peer.asked("WriteConsole")}), 2)
        self.writers = {b"other": 1}
        os.write(master, b"three")
        self.assertIn(b"another types here", process.stderr.readline())
        self.print(b"still shown\n", state="stopped")
        out, err = process.communicate(timeout=harness.WAIT_S)
        self.assertEqual((out, process.returncode), (b"still shown\n", DONE), err)
        self.assertEqual(self.typed, b"onetwo")

    def test_taking_over_is_done_once(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        self.writers = {b"first": 1}
        process = self.console(slave, "--take-over")
        os.close(slave)
        self.peer.wait_for(lambda: len(self.peer.asked("ReadConsole")) == 2)
        os.write(master, b"one")
        self.peer.wait_for(lambda: self.typed == b"one")
        self.writers = {b"second": 1}  # who takes it over from this one
        os.write(master, b"two")
        # Once as itself and once as a writer that begins anew.
        self.peer.wait_for(lambda: len(self.peer.asked("WriteConsole")) == 3)
        self.assertIn(b"another types here", process.stderr.readline())
        os.write(master, b"three")
        self.peer.wait_for(lambda: len(self.peer.asked("WriteConsole")) == 4)
        self.print(b"still shown\n", state="stopped")
        process.communicate(timeout=harness.WAIT_S)
        self.assertEqual(self.typed, b"one")
        self.assertEqual([bool(f["takes_over"]) for f in self.peer.asked("WriteConsole")],
                         [True, False, False, False])

    def test_leaving_works_while_the_daemon_is_away(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        process = self.console(slave, "--verbose")
        os.close(slave)
        self.peer.wait_for(lambda: len(self.peer.asked("ReadConsole")) == 2)
        self.peer.close()
        self.assertTrue(process.stderr.readline())
        os.write(master, b"\x01x")
        process.communicate(timeout=harness.WAIT_S)
        self.assertEqual(process.returncode, DONE)

    def test_a_signal_ends_it_well(self):
        process = self.console()
        self.peer.wait_for(lambda: len(self.peer.asked("ReadConsole")) == 2)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=harness.WAIT_S)
        self.assertEqual(process.returncode, DONE, err)

    def test_a_daemon_that_never_was(self):
        self.peer.close()
        self.assertTrue(re.search("connect|daemon", self.cli("logs", "g", code=UNREACHABLE).err))
        self.cli("console", "g", code=UNREACHABLE)


if __name__ == "__main__":
    harness.main()
