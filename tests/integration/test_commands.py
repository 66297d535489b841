"""Each command of the CLI, on a file and through a daemon: results, exit codes, JSON, help."""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess

import harness
from harness import ABSENT, CORRUPT, DONE, FAILED, UNREACHABLE, USAGE
from protowire import SOURCE
from targets import EPOCH, UUID, DaemonTarget, FileTarget, OnDaemon, OnFile


def numbers(text):
    return set(re.findall(r"\d+", text))


class Commands:
    """What holds for both targets."""

    def test_params(self):
        t = self.target()
        t.cli("param put 42 3.14")
        t.cli("param put 42", "-3.15")
        t.cli("param put 0xff", "two words")
        self.assertEqual(t.cli("param get 42").text, "-3.15\n")
        self.assertEqual(t.cli("param get 42 --raw").out, b"-3.15")
        self.assertEqual(t.cli("param get 255").text, "two words\n")
        listed = t.json("param list")["params"]
        self.assertEqual([(p["id"], p["generation"], p["value"]) for p in listed],
                         [(42, 2, "-3.15"), (255, 1, "two words")])
        history = t.json("param history 42")["entries"]
        self.assertEqual([(p["generation"], bytes.fromhex(p["value_hex"])) for p in history],
                         [(2, b"-3.15"), (1, b"3.14")])
        self.assertIn("3.14", t.cli("param history 42").text)
        self.assertIn("two words", t.cli("param list").text)
        t.cli("param delete 42")
        for command in ("param get 42", "param history 42", "param delete 42"):
            self.assertIn("42", t.refused(ABSENT, command))
        self.assertEqual(t.json("param put 42 again")["generation"], 1)

    def test_values_from_everywhere(self):
        t = self.target()
        every = bytes(range(240))
        t.cli("param put 1 -", input=every)
        t.cli("param put 2", f"@{self.file('value', every[::-1])}")
        t.cli("param put 3", "")
        t.cli("param put 4 -", input=b"")
        self.assertEqual(t.cli("param get 1 --raw").out, every)
        self.assertEqual(t.cli("param get 2 --raw").out, every[::-1])
        for number in (3, 4):
            self.assertEqual(t.cli(f"param get {number} --raw").out, b"")
        self.assertIn(str(self.dir / "none"), t.refused(FAILED, "param put 5",
                                                        f"@{self.dir / 'none'}"))
        harness.run_cli("param", "put", *t.flags, "--", 6, "--json")
        self.assertEqual(t.cli("param get 6").text, "--json\n")

    def test_value_that_is_no_text_shows_as_hex_and_says_so(self):
        t = self.target()
        for value in (b"\xff\xfe", b"a\0b", b"\x1b[31m", b"line\n", "\u202e".encode()):
            t.cli("param put 1 -", input=value)
            for command in ("param get 1", "param list", "param history 1", "inspect"):
                out = t.cli(command).text
                self.assertIn("hex:" + value.hex(), out, command)
            found = t.json("param get 1")
            self.assertEqual((found["value_hex"], found["encoding"]), (value.hex(), "hex"))
            t.cli("event append - --severity 1 --code 1", input=value)
            self.assertIn("hex:" + value.hex(), t.cli("event list -n 1").text)
        t.cli("param put 1 hex:41")  # text that looks like it is told apart
        self.assertEqual(t.cli("param get 1").text, "hex:" + b"hex:41".hex() + "\n")
        t.cli("param put 1 é€")
        self.assertEqual(t.cli("param get 1").text, "é€\n")
        self.assertEqual(t.json("param get 1")["value"], "é€")

    def test_expected_generation(self):
        t = self.target()
        t.cli("param put 1 a --if-generation 0")
        t.refused(FAILED, "param put 1 b --if-generation 0")
        t.refused(FAILED, "param put 1 b --if-generation 7")
        t.cli("param put 1 b --if-generation 1")
        self.assertEqual(t.json("param get 1")["generation"], 2)

    def test_events(self):
        t = self.target()
        for n, severity in enumerate(("debug", "info", "WARN", "error", "critical", "77")):
            t.cli("event append", f"event {n}", "--severity", severity, "--code", 10 + n,
                  "--time", EPOCH + n)
        t.cli("event append - --severity info --code 10 --time 2023-11-14T22:13:30Z",
              input=b"\0raw")
        found = t.json("event list")
        events = found["events"]
        self.assertEqual([(e["index"], e["severity"], e["code"], e["timestamp"]) for e in events],
                         [(n, n if n < 5 else 77, 10 + n, n) for n in range(6)] + [(6, 1, 10, 10)])
        self.assertEqual(bytes.fromhex(events[6]["payload_hex"]), b"\0raw")

        def indexes(*flags):
            return [e["index"] for e in t.json("event list", *flags)["events"]]

        self.assertEqual(indexes("-n", 2), [5, 6])
        self.assertEqual(indexes("--severity", "info"), [1, 6])
        self.assertEqual(indexes("--severity", "info", "--severity", 77), [1, 5, 6])
        self.assertEqual(indexes("--code", 10), [0, 6])
        self.assertEqual(indexes("--code", 10, "-n", 1), [6])
        self.assertEqual(indexes("--code", 10, "--severity", "error"), [])
        text = t.cli("event list").text
        for word in ("DEBUG", "CRITICAL", "event 3", "77"):
            self.assertIn(word, text)

    def test_products(self):
        t = self.target(blocks=4096)
        data = os.urandom(300000)
        path, out = self.file("data", data), self.dir / "out"
        t.cli("dp put science/é.dat", path, "--class", 3, "--priority", 9)
        t.cli("dp put piped -", input=b"through a pipe")
        t.cli("dp put empty -", input=b"")
        t.cli("dp get science/é.dat", out)
        self.assertEqual(out.read_bytes(), data)
        self.assertEqual(t.cli("dp get science/é.dat").out, data)
        self.assertEqual(t.cli("dp get piped -").out, b"through a pipe")
        self.assertEqual(t.cli("dp get empty -").out, b"")
        listed = {p["name"]: p for p in t.json("dp list --verify")["products"]}
        first = listed["science/é.dat"]
        self.assertEqual((first["class"], first["priority"], first["length"]), (3, 9, 300000))
        self.assertEqual(set(listed), {"science/é.dat", "piped", "empty"})
        self.assertIn("science/é.dat", t.cli("dp list").text)
        self.assertIn("piped", t.refused(FAILED, "dp put piped -", input=b"again"))
        t.cli("dp put piped - --replace", input=b"again")
        self.assertEqual(t.cli("dp get piped").out, b"again")
        found = t.json("dp get piped")
        self.assertEqual(bytes.fromhex(found["data_hex"]), b"again")
        t.cli("dp delete piped")
        for command in ("dp get piped", "dp delete piped"):
            self.assertIn("piped", t.refused(ABSENT, command))
        self.assertIn("none", t.refused(FAILED, "dp put x", self.dir / "none"))

    def test_failed_get_leaves_the_file_as_it_was(self):
        t = self.target()
        out = self.file("out", b"precious")
        t.refused(ABSENT, "dp get nope", out)
        self.assertEqual(out.read_bytes(), b"precious")

    def test_inspect(self):
        t = self.target()
        t.cli("param put 7 seven")
        t.cli("event append happened --severity warn --code 9")
        t.cli("dp put prod -", input=b"data")
        text = t.cli("inspect").text
        for word in ("seven", "happened", "prod", "256", "512", UUID[:8]):
            self.assertIn(word, text)
        plain, full = t.json("inspect"), t.json("inspect --data")
        self.assertNotIn("data_hex", plain["dps"][0])
        self.assertEqual(full["dps"][0]["data_hex"], b"data".hex())

    def test_check_and_defrag(self):
        t = self.target(blocks=33 + 1 + 40)
        for n in range(4):
            t.cli(f"dp put p{n} -", input=b"%d" % n * 4000)
        t.cli("dp delete p0")
        t.cli("dp delete p2")
        self.assertEqual(t.json("check")["findings"], [])
        t.cli("check --repair")
        text = t.refused(FAILED, "dp put big -", input=b"b" * 20 * 512)
        self.assertIn("24", numbers(text))
        done = t.json("defrag")
        self.assertGreaterEqual(done["moved"], 1)
        self.assertEqual((done["free_blocks"], done["largest_free_blocks"]), (24, 24))
        self.assertEqual(t.json("defrag")["moved"], 0)
        for n in (1, 3):
            self.assertEqual(t.cli(f"dp get p{n}").out, b"%d" % n * 4000)
        t.cli("dp put big -", input=b"b" * 20 * 512)

    def test_corrupt_data(self):
        t = self.target()
        t.cli("param put 1 one")
        t.cli("event append first --severity 1 --code 1")
        t.cli("event append second --severity 1 --code 1")
        t.cli('dp put rotté"n -', input=b"r" * 700)
        t.cli("dp put sound -", input=b"s" * 700)
        self.damage(t)
        self.assertIn("1", t.refused(CORRUPT, "param get 1"))
        t.refused(CORRUPT, 'dp get rotté"n')
        self.assertEqual(t.cli("dp get sound").out, b"s" * 700)
        t.cli('dp get rotté"n --padded')
        events = t.json("event list")["events"]
        self.assertEqual([e.get("corrupt", False) for e in events], [True, False])
        seen = t.json("inspect")
        self.assertEqual((seen["corrupt_param_slots"], seen["corrupt_event_indexes"]), ([0], [0]))
        done = t.cli("check", code=CORRUPT)
        for word in ("param", "event", "product"):
            self.assertIn(word, done.text)
        self.assertIn('product rotté"n (', done.text)
        found = {f["kind"]: f["text"] for f in t.cli("check --json", code=CORRUPT).json["findings"]}
        self.assertEqual(set(found), {"param-corrupt", "event-corrupt", "product-rotten"})
        self.assertIn('product rotté"n (', found["product-rotten"])
        t.cli("check --repair")
        self.assertEqual(t.json("check")["findings"], [])
        lost = t.json("event list")["events"][0]
        self.assertEqual((lost["severity"], lost["code"], bytes.fromhex(lost["payload_hex"])),
                         (3, 65535, b"lost"))
        t.refused(ABSENT, "param get 1")
        t.refused(ABSENT, 'dp get rotté"n')

    def damage(self, t):
        """Behind its owner's back where there is none, else while it is away."""
        with open(t.path, "r+b") as f:
            for at in (512 + 10, 18 * 512 + 10):
                f.seek(at)
                f.write(b"\xee")
            data = t.path.read_bytes()
            f.seek(data.index(b"r" * 100) + 5)
            f.write(b"\xee")

    def test_json_of_every_command(self):
        t = self.target()
        for command in ("param put 1 x", "param get 1", "param get 1 --raw", "param list",
                        "param history 1", "event append x --severity 1 --code 1", "event list",
                        "dp put p -", "dp list", "dp list --verify", "dp get p", "inspect",
                        "inspect --data", "check", "check --repair", "defrag", "param delete 1",
                        "dp delete p"):
            if command.endswith("--raw"):
                continue
            self.assertIsInstance(t.json(command), dict, command)
        out = self.dir / "file"
        t.cli("dp put p -")
        self.assertIsInstance(t.json("dp get p", out), dict)

    def test_bad_words_are_usage_errors(self):
        t = self.target()
        for command in ("param put", "param put 1", "param put 1 a b", "param put x a",
                        "param put -1 a", "param put 4294967296 a", "param put 1.5 a",
                        "param get", "param get one", "param history 0x", "param nope 1", "param",
                        "param put 1 a --if-generation 65536", "param put 1 a --if-generation -1",
                        "param get 1 --bogus", "param get 1 --replace", "event append x",
                        "event append x --severity 1", "event append x --code 1",
                        "event append x --severity loud --code 1",
                        "event append x --severity 256 --code 1",
                        "event append x --severity 1 --code 65536",
                        "event append x --severity 1 --code 1 --time yesterday",
                        "event append x --severity 1 --code 1 --time 2023-02-30T00:00:00Z",
                        "event list -n 0", "event list -n x", "dp put a",
                        "dp put a - --class 65536",
                        "dp put a - --priority 256", "dp get", "dp delete", "inspect extra",
                        "check --repair=yes", "frobnicate", ""):
            self.assertTrue(t.cli(command, code=USAGE).err, command)
        self.assertEqual(t.json("param list")["params"], [])
        self.assertEqual(t.json("event list")["events"], [])

    def test_what_the_image_says_cannot_reach_the_terminal(self):
        t = self.target()
        evil = "\x1b]0;owned\x07\x9b31m"
        t.cli("dp put", evil, "-", input=b"x")
        t.cli("param put 1 -", input=evil.encode())
        for command in ("dp list", "inspect", "param list", "check"):
            done = t.cli(command)
            for text in (done.text, done.err):
                self.assertFalse(re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text), command)
        self.assertEqual(t.json("dp list")["products"][0]["name"], evil)


class OnFileCommands(Commands, OnFile, harness.Case):
    def test_init(self):
        path = self.dir / "new.img"
        t = FileTarget(path)
        made = harness.run_cli("init", "--file", path, "--blocks", "0x40", "--sector-size", 4096,
                               "--tenant-id", 65535, "--uuid", UUID, "--epoch",
                               "2023-11-14T22:13:20Z", "--json").json
        self.assertIsInstance(made, dict)
        seen = t.json("inspect")
        self.assertEqual((seen["total_blocks"], seen["sector_size"], seen["tenant_id"],
                          seen["uuid"], seen["epoch"]), (64, 4096, 65535, UUID, EPOCH))
        self.assertEqual(path.stat().st_size, 64 * 4096)
        before = path.read_bytes()
        done = harness.run_cli("init", "--file", path, "--blocks", 64, code=FAILED)
        self.assertIn("--force", done.err)
        self.assertEqual(path.read_bytes(), before)
        harness.run_cli("init", "--file", path, "--blocks", 40, "--force")
        seen = t.json("inspect")
        self.assertEqual((seen["total_blocks"], seen["sector_size"], seen["tenant_id"]),
                         (40, 512, 1))
        self.assertNotEqual(seen["uuid"], UUID)
        self.assertEqual([p.name for p in self.dir.iterdir()], ["new.img"])

    def test_init_sizes(self):
        for blocks, code in ((0, FAILED), (32, FAILED), (33, DONE), ("4294967296", USAGE),
                             ("99999999999999999999", USAGE), ("-5", USAGE), ("many", USAGE)):
            path = self.dir / f"b{blocks}.img"
            done = harness.run_cli("init", "--file", path, "--blocks", blocks, code=None)
            # fewer than 33 is refused by the library or as a flag's value
            self.assertIn(done.code, (code, USAGE) if code else (code,), done)
            self.assertEqual(path.exists(), code == DONE)
            if code:
                self.assertIn(str(blocks), done.err)
        free = os.statvfs(self.dir).f_bavail * os.statvfs(self.dir).f_frsize
        path = self.dir / "huge.img"
        done = harness.run_cli("init", "--file", path, "--blocks", 4294967295, "--sector-size",
                               65536, code=FAILED)
        self.assertLess(free, 4294967295 * 65536)
        self.assertIn(str(path), done.err)
        self.assertEqual([p.name for p in self.dir.iterdir() if p.name != "b33.img"], [])
        for size in (0, 256, 511, 1000, 131072):
            harness.run_cli("init", "--file", path, "--blocks", 64, "--sector-size", size,
                            code=USAGE)
        harness.run_cli("init", "--blocks", 64, code=USAGE)
        harness.run_cli("init", "--file", path, code=USAGE)
        harness.run_cli("init", "--file", self.dir / "no" / "x.img", "--blocks", 64, code=ABSENT)

    def test_33_blocks_have_no_products(self):
        t = self.target(blocks=33)
        t.cli("param put 1 a")
        t.cli("event append e --severity 1 --code 1")
        t.refused(FAILED, "dp put p -", input=b"x")
        self.assertEqual(t.json("dp list")["products"], [])
        t.cli("check")

    def test_target_must_be_one(self):
        t = self.target()
        for flags in ([], ["--image", "x", *t.flags], ["--endpoint", "unix:/x"],
                      ["--endpoint", "unix:/x", *t.flags]):
            harness.run_cli("param", "list", *flags, code=USAGE)

    def test_missing_file(self):
        t = FileTarget(self.dir / "none.img")
        for command in ("inspect", "param put 1 x", "event list", "check"):
            self.assertIn("none.img", t.refused(ABSENT, command))

    def test_read_only_file_and_folder(self):
        t = self.target()
        t.cli("param put 1 kept")
        os.chmod(t.path, 0o444)
        if os.geteuid() != 0:
            self.assertIn(str(t.path), t.refused(FAILED, "param put 1 x"))
        self.assertEqual(t.cli("param get 1").text, "kept\n")

    def test_output_that_cannot_be_written(self):
        t = self.target()
        t.cli("dp put p -", input=b"p" * 5000)
        with open("/dev/full", "wb") as full:
            for command in ("param list", "inspect", "dp get p", "inspect --json"):
                done = subprocess.run([harness.CLI, *command.split(), *t.flags], stdout=full,
                                      stderr=subprocess.PIPE, check=False)
                self.assertEqual(done.returncode, FAILED, command)
                self.assertIn(b"No space left", done.stderr)


class DaemonCommands(Commands, OnDaemon, harness.Case):
    def damage(self, t):
        self.shared.stop()
        try:
            super().damage(t)
        finally:
            self.shared.restart()
        t.flags = ["--image", t.name, "--endpoint", self.shared.unix]

    def endpoint(self):
        return ["--endpoint", self.shared.unix]

    def test_images(self):
        end = self.endpoint()
        made = harness.run_cli("image", "create", "7/x", "--blocks", 64, "--sector-size", 1024,
                               "--uuid", UUID, "--epoch", EPOCH, *end, "--json").json
        self.assertIsInstance(made, dict)
        harness.run_cli("image", "create", "7/x", "--blocks", 64, *end, code=FAILED)
        seen = harness.run_cli("image", "show", "7/x", *end).text
        for word in ("64", "1024", "7", "ready"):
            self.assertIn(word, seen.lower())
        shown = harness.run_cli("image", "show", "7/x", *end, "--json").json
        self.assertEqual((shown["total_blocks"], shown["sector_size"], shown["epoch"]),
                         (64, 1024, EPOCH))
        listed = harness.run_cli("image", "list", "--tenant-id", 7, *end, "--json").json
        self.assertEqual([(i["tenant"], i["name"]) for i in listed["images"]], [(7, "x")])
        everything = harness.run_cli("image", "list", "--all-tenants", *end)
        self.assertRegex(everything.text, r"(?m)^7 +x +ready")
        one = harness.run_cli("param", "put", 1, "v", "--image", "7/x", *end)
        self.assertEqual(one.code, DONE)
        harness.run_cli("image", "check", "7/x", *end)
        harness.run_cli("image", "check", "7/x", "--repair", "--json", *end)
        harness.run_cli("image", "reopen", "7/x", *end, code=None)
        for command in ("show", "check", "delete", "reopen"):
            done = harness.run_cli("image", command, "x", *end, code=ABSENT)
            self.assertIn("x", done.err)
        harness.run_cli("image", "delete", "7/x", *end, "--json")
        harness.run_cli("image", "show", "7/x", *end, code=ABSENT)

    def test_image_names(self):
        end = self.endpoint()
        harness.run_cli("image", "create", "n" * 64, "--blocks", 33, *end)
        for bad in ("", "n" * 65, "a/b", "1/a/b", ".dot", "a b", "é", b"a\xff", "65536/a", "-1/a",
                    "/a", "1/"):
            done = harness.run_cli("image", "create", "--blocks", 33, *end, "--", bad, code=None)
            self.assertIn(done.code, (FAILED, USAGE), bad)
            self.assertTrue(done.err)
        harness.run_cli("image", "create", "small", "--blocks", 32, *end, code=FAILED)
        harness.run_cli("image", "create", "big", "--blocks", 4294967295, "--sector-size", 65536,
                        *end, code=FAILED)
        harness.run_cli("image", "show", "big", *end, code=ABSENT)

    def test_server(self):
        for end in ([], ["--endpoint", self.shared.tcp], self.endpoint()):
            env = {"SPACEBLOCK_ENDPOINT": self.shared.tcp}
            self.assertTrue(harness.run_cli("server", "ping", *end, env=env).out)
            info = harness.run_cli("server", "info", *end, "--json", env=env).json
            self.assertTrue(info["version"])
            self.assertIn(info["version"], harness.run_cli("server", "info", *end, env=env).text)
            self.assertIsInstance(harness.run_cli("server", "ping", "--json", *end, env=env).json,
                                  dict)

    def test_daemon_that_is_not_there(self):
        port = socket.socket()
        self.addCleanup(port.close)
        port.bind(("127.0.0.1", 0))  # taken, and nobody listens
        runs = [(end, words)
                for end in (f"unix:{self.dir}/none", f"tcp://127.0.0.1:{port.getsockname()[1]}")
                for words in (["server", "ping"], ["param", "get", 1, "--image", "x"],
                              ["image", "list"], ["image", "create", "x", "--blocks", 64],
                              ["dp", "put", "p", "-", "--image", "x"])]

        def run(n):  # each tries for a while
            end, words = runs[n]
            done = harness.run_cli(*words, "--endpoint", end, code=UNREACHABLE)
            self.assertIn(end.rpartition("/")[2], done.err)
            harness.run_cli(*words, env={"SPACEBLOCK_ENDPOINT": end}, code=UNREACHABLE)

        harness.threads(len(runs), run)
        for bad in ("nonsense", "tcp://127.0.0.1", "unix:", "tcp://:1", "tcp://127.0.0.1:99999"):
            harness.run_cli("server", "ping", "--endpoint", bad, code=USAGE)

    def test_daemon_that_does_not_answer(self):
        path = self.dir / "deaf.sock"
        deaf = socket.socket(socket.AF_UNIX)
        self.addCleanup(deaf.close)
        deaf.bind(str(path))
        deaf.listen()
        done = harness.run_cli("server", "ping", "--timeout", 1, "--endpoint", f"unix:{path}",
                               code=None)
        self.assertIn(done.code, (FAILED, UNREACHABLE))

    def test_absent_image(self):
        t = DaemonTarget(self.shared, "7/none")
        for command in ("inspect", "check", "defrag", "param put 1 x", "param get 1", "param list",
                        "param history 1", "param delete 1", "event list", "dp list", "dp get p",
                        "event append x --severity 1 --code 1", "dp put p -", "dp delete p"):
            self.assertIn("none", t.refused(ABSENT, command))

    def test_over_tcp(self):
        t = self.target(blocks=2048)
        t.flags = ["--image", t.name, "--endpoint", self.shared.tcp]
        data = os.urandom(400000)
        t.cli("dp put p", self.file("data", data))
        self.assertEqual(t.cli("dp get p -").out, data)
        t.cli("param put 1 x")
        self.assertEqual(t.cli("param get 1").text, "x\n")

    def test_change_refused_by_sector_size_flag(self):
        """--sector-size is for files: with --image it is a usage error."""
        t = self.target()
        self.assertTrue(t.cli("param list --sector-size 512", code=USAGE).err)


class Unanswered(harness.Case):
    """A daemon that takes calls and does not answer them."""

    def setUp(self):
        super().setUp()
        self.d = self.daemon()
        self.cli("image", "create", "a", "--blocks", 64)
        self.cli("param", "put", 1, "first", "--image", "a")
        self.d.process.send_signal(signal.SIGSTOP)
        self.addCleanup(self.d.process.send_signal, signal.SIGCONT)

    def cli(self, *words, **how):
        return harness.run_cli(*words, "--endpoint", self.d.unix, **how)

    def unanswered(self, *words):
        done = self.cli(*words, "--timeout", 1, code=FAILED)
        self.assertIn("no answer within 1000 ms", done.err)
        return done.err

    def test_a_change(self):
        for said, words in (("param put 1, image a: ", ("param", "put", 1, "x", "--image", "a")),
                            ("event append boot, image a: ",
                             ("event", "append", "boot", "--severity", 1, "--code", 1,
                              "--image", "a")),
                            ("image rename a: ", ("image", "rename", "a", "b"))):
            err = self.unanswered(*words)
            self.assertTrue(err.startswith(f"spaceblock: {said}"), err)
            self.assertIn("not known whether this was done", err)
            self.assertIn('"spaceblock audit list --image a" tells', err)
        done = self.cli("param", "delete", 2, "--image", "a", "--timeout", 1, "--json",
                        code=FAILED)
        error = json.loads(done.err)["error"]
        self.assertEqual((error["code"], error["outcome"]), ("deadline", "unknown"))
        self.d.process.send_signal(signal.SIGCONT)
        self.assertIn("Params.Put", self.cli("audit", "list", "--image", "a").text)

    def test_a_question(self):
        err = self.unanswered("param", "get", 1, "--image", "a")
        self.assertTrue(err.startswith("spaceblock: param get 1, image a: "), err)
        self.assertNotIn("not known", err)
        done = self.cli("param", "get", 1, "--image", "a", "--timeout", 1, "--json",
                        code=FAILED)
        self.assertNotIn("outcome", json.loads(done.err)["error"])

    def test_a_change_whose_connection_is_lost(self):
        path = self.dir / "peer"
        words = ("param", "put", "1", "x", "--image", "a", "--endpoint", f"unix:{path}")
        for how in (["--retries", "0"], ["--timeout", "2"]):
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
                listener.listen()
                command = subprocess.Popen([harness.CLI, *words, *how], stderr=subprocess.PIPE,
                                           env=harness.environment(),
                                           preexec_fn=harness.die_with_parent)
                self.addCleanup(harness.end, command)
                with listener.accept()[0] as peer:
                    self.assertTrue(peer.recv(1000))
                    path.unlink()
            _, said = command.communicate(timeout=harness.WAIT_S)
            self.assertEqual(command.returncode, UNREACHABLE, said)
            self.assertIn(b"not known whether this was done", said)
            done = harness.run_cli(*words, *how, code=UNREACHABLE)  # nobody is there to do it
            self.assertNotIn("not known", done.err)


class Help(harness.Case):
    def commands(self):
        text = harness.run_cli("--help").text
        return re.findall(
            r"^  ((?:image|artifact|guest|param|event|dp|audit|server) [a-z]+"
            r"|init|launch|inspect|check|defrag)\b", text, re.M)

    def test_every_command_has_help(self):
        commands = self.commands()
        self.assertGreaterEqual(len(set(commands)), 46)
        for command in commands:
            words = command.split()
            text = harness.run_cli(*words, "--help").text
            self.assertRegex(text, rf"^Usage: spaceblock {command}")
            self.assertIn("--json", text)
            self.assertIn("Example", text)
            self.assertIn("Exit codes", text)
            self.assertEqual(harness.run_cli("help", *words, code=DONE).text, text)
        for family in ("image", "artifact", "guest", "param", "event", "dp", "audit", "server"):
            self.assertIn(f"spaceblock {family}", harness.run_cli(family, "--help").text)

    def test_completion_knows_every_command_and_its_options(self):
        script = ('source "$1"; COMP_WORDS=("$2" "${@:3}"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); '
                  'compopt() { :; }; _spaceblock; printf "%s\\n" "${COMPREPLY[@]}"')
        path = pathlib.Path(SOURCE) / "deploy/completion/spaceblock.bash"

        def complete(*words):
            return set(subprocess.run(["bash", "-c", script, "-", path, harness.CLI, *words],
                                      capture_output=True, text=True, check=True,
                                      env=harness.environment()).stdout.split())

        families = {}
        for command in self.commands():
            words = command.split()
            families.setdefault(words[0], set()).update(words[1:])
            told = harness.run_cli(*words, "--help").text.partition("\nOptions")[2]
            options = set(re.findall(r"^  (--[a-z-]+)", told, re.M))
            self.assertEqual(complete(*words, "--"), options, command)
        self.assertEqual(complete(""), set(families) | {"help"})
        for family, names in families.items():
            if names:
                self.assertEqual(complete(family, ""), names)

    def test_exit_codes_are_told(self):
        told = harness.run_cli("--help").text.partition("Exit codes:")[2]
        words = ("done", "failed", "usage", "daemon", "not found", "corrupt")
        for number, word in enumerate(words):
            self.assertRegex(told, rf"{number}[^,]*{word}")

    def test_version(self):
        self.assertRegex(harness.run_cli("--version").text, r"^spaceblock \d")

    def test_nothing_and_nonsense(self):
        for words in ([], ["frobnicate"], ["param", "frobnicate"], ["--nope"], ["--file"],
                      ["help", "frobnicate"]):
            done = harness.run_cli(*words, code=USAGE)
            self.assertEqual(done.out, b"")

    def test_errors_are_json_too(self):
        done = harness.run_cli("inspect", "--file", self.dir / "none", "--json", code=ABSENT)
        error = json.loads(done.err)["error"]
        self.assertEqual(error["code"], "not-found")
        done = harness.run_cli("inspect", "--json", code=USAGE)
        self.assertTrue(json.loads(done.err)["error"]["message"])


if __name__ == "__main__":
    harness.main()
