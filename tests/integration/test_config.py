"""The configuration: file and command line, what is wrong in them, reload, and its documents."""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import unittest

import harness
import rpc

USAGE = 2
ROOT = pathlib.Path(os.environ.get("SPB_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
EXAMPLE = ROOT / "deploy" / "spaceblockd.conf"
HELP_LIMIT = re.compile(r"^  (\w+)\s+(.+)\. (\d+) \((\d+) to (\d+)\)$", re.M)


def run(*args, env=None, code=0):
    done = subprocess.run([harness.DAEMON, *map(str, args)], capture_output=True, text=True,
                          env=harness.environment(**(env or {})), check=False,
                          timeout=harness.WAIT_S)
    harness.no_report(done.stderr, "the daemon")
    assert done.returncode == code, (args, done)
    return done.stdout if code == 0 else done.stderr


def keys(text):
    """[(section, name, value)] of a configuration as --check-config prints it."""
    found, section = [], None
    for line in text.splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = match[1]
        elif match := re.fullmatch(r"(\w+) = (.*)", line):
            found.append((section, match[1], match[2]))
        else:
            assert not line, line
    return found


def limits_of_help():
    """{name: (text, default, min, max)} as --help tells them."""
    text = re.sub(r"\n {23}", " ", run("--help"))
    return {m[1]: (m[2].strip(), int(m[3]), int(m[4]), int(m[5]))
            for m in HELP_LIMIT.finditer(text)}


class Config(harness.Case):
    def config(self, text, name="c.conf"):
        return self.file(name, text.encode() if isinstance(text, str) else text)

    def check(self, text, *args, code=0):
        path = self.config(text)
        told = run("--config", path, "--check-config", *args, code=code)
        return told if code else {(s, n): v for s, n, v in keys(told)}

    def test_file(self):
        found = self.check("""
            # a comment
            ; another
            [server]
            data_dir = /some/where   ; not part of it
            listen = tcp://127.0.0.1:7001
            listen = unix:/tmp/x.sock
            http=127.0.0.1:9000
            log_level : debug
            [limits]
            connections_max = 7
            chunk_max_bytes = 128KiB
            buffers_max_bytes = 64 MiB
            idle_ms = 1500
            """.replace("            ", ""))
        self.assertEqual(found["server", "data_dir"], "/some/where")
        self.assertEqual(found["server", "http"], "127.0.0.1:9000")
        self.assertEqual(found["server", "log_level"], "debug")
        self.assertEqual(found["limits", "connections_max"], "7")
        self.assertEqual(found["limits", "chunk_max_bytes"], "131072")
        self.assertEqual(found["limits", "buffers_max_bytes"], str(64 << 20))
        self.assertEqual(found["limits", "idle_ms"], "1500")
        self.assertEqual(found["limits", "calls_in_flight_max"], "64")

    def test_repeated_endpoints_keep_their_order(self):
        path = self.config("[server]\ndata_dir = /d\nlisten = tcp://127.0.0.1:7001\n"
                           "listen = unix:/tmp/x.sock\n")
        told = keys(run("--config", path, "--check-config"))
        self.assertEqual([v for _, n, v in told if n == "listen"],
                         ["tcp://127.0.0.1:7001", "unix:/tmp/x.sock"])

    def test_command_line_wins(self):
        path = self.config("[server]\ndata_dir = /file\nlisten = tcp://127.0.0.1:7001\n"
                           "log_level = debug\nhttp = 127.0.0.1:9000\n"
                           "[limits]\nidle_ms = 1000\nframe_ms = 1000\n")
        told = keys(run("--listen", "unix:/one", "--config", path, "--listen", "unix:/two",
                        "--limit", "idle_ms=2000", "--log-level", "warn", "--http", "off",
                        "--data-dir", "/line", "--check-config"))
        self.assertEqual([v for _, n, v in told if n == "listen"], ["unix:/one", "unix:/two"])
        found = {n: v for _, n, v in told}
        self.assertEqual((found["data_dir"], found["log_level"], found["http"]),
                         ("/line", "warn", "off"))
        self.assertEqual((found["idle_ms"], found["frame_ms"]), ("2000", "1000"))

    def test_what_is_printed_can_be_read_again(self):
        for folder in ("/d", "relative"):
            text = run("--data-dir", folder, "--listen", "unix:/x", "--limit", "idle_ms=777",
                       "--check-config")
            self.assertEqual(run("--config", self.config(text), "--check-config"), text)

    def test_errors_name_file_line_and_what_was_found(self):
        good = "[server]\ndata_dir = /d\n"
        for text, line, words in (
                (good + "nonsense = 1\n", 3, ["nonsense", "server"]),
                (good + "connections_max = 1\n", 3, ["connections_max", "server"]),
                (good + "[limits]\ndata_dir = /x\n", 4, ["data_dir", "limits"]),
                (good + "\n\n[limit]\nidle_ms = 1\n", 6, ["[limit]", "[limits]"]),
                ("data_dir = /d\n", 1, ["data_dir", "before any section"]),
                (good + "log_level = loud\n", 3, ["log_level", "loud", "debug"]),
                (good + "listen = tcp://10.0.0.1:1\n", 3, ["10.0.0.1", "loopback"]),
                (good + "http = 0.0.0.0:9000\n", 3, ["http", "0.0.0.0", "loopback"]),
                (good + "http = 9000\n", 3, ["9000"]),
                (good + "http = unix:/x\n", 3, ["unix:/x"]),
                (good + "data_dir = /e\n", 3, ["data_dir", "again", "2"]),
                ("[server]\ndata_dir =\n", 2, ["data_dir"]),
                ("[server]\ndata_dir =; /d\n", 2, ["comment"]),
                (good + "listen = unix:/a\n  unix:/b ; c\n", 4, ["comment", "goes on"]),
                (good + "just words\n", 3, ["NAME = VALUE"]),
                (good + "[limits\n", 3, ["[section]"]),
                (good + "log_level = info" + " " * 300 + "\n", 3, ["too long"]),
                ((good + "log_level = in").encode() + b"\0fo\n", 3, ["NUL"]),
                (good + "[limits]\nidle_ms = 5\n", 4, ["idle_ms", '"5"', "100", "86400000", "ms"]),
                (good + "[limits]\nidle_ms = 1e3\n", 4, ["1e3"]),
                (good + "[limits]\nidle_ms = -1\n", 4, ["-1"]),
                (good + "[limits]\nidle_ms =\n", 4, ['""']),
                (good + "[limits]\nidle_ms = 500 KiB\n", 4, ["500 KiB"]),
                (good + "[limits]\nidle_ms = 99999999999999999999999\n", 4, ["9999"]),
                (good + "[limits]\nchunk_max_bytes = 2 MiB\n", 4, ["2 MiB", "1048576", "bytes"]),
                (good + "[limits]\nchunk_max_bytes = 64 kb\n", 4, ["64 kb"]),
                (good + "[limits]\nidle_ms = 500\nframe_ms = 500\nidle_ms = 600\n", 6,
                 ["idle_ms", "again", "4"])):
            with self.subTest(text=text[-60:]):
                told = self.check(text, code=USAGE)
                self.assertIn(f"c.conf:{line}: ", told)
                for word in words:
                    self.assertIn(word, told)

    def test_limits_have_to_fit_each_other(self):
        told = self.check("[server]\ndata_dir = /d\n[limits]\noutput_max_bytes = 65536\n",
                          code=USAGE)
        self.assertIn("output_pause_bytes", told)

    def test_files_that_cannot_be_read(self):
        for path in (self.dir / "absent", self.dir):
            told = run("--config", path, "--check-config", code=USAGE)
            self.assertIn(str(path), told)
        self.assertIn("1 MiB", self.check("# comment\n" * 200000, code=USAGE))

    def test_bad_command_lines(self):
        for args, word in ((["--limit", "idle_ms"], "NAME=NUMBER"),
                           (["--limit", "nope=1"], "nope"), (["--limit", "=1"], "NAME=NUMBER"),
                           (["--limit", "idle_ms=x"], "idle_ms"), (["--limit"], "--limit"),
                           (["--http", "1.2.3.4:1"], "loopback"), (["--http"], "--http"),
                           (["--config"], "--config"), (["--config", ""], "--config"),
                           (["--http", "127.0.0.1:" + "9" * 300], "HOST:PORT"),
                           (["--log-level", "loud"], "loud"), (["extra"], "extra")):
            with self.subTest(args=args):
                told = run("--data-dir", self.dir / "d", *args, code=USAGE)
                self.assertIn(word, told)
                self.assertFalse((self.dir / "d").exists())

    def test_checking_touches_nothing(self):
        run("--data-dir", self.dir / "d", "--listen", f"unix:{self.dir}/s", "--check-config")
        self.assertEqual(list(self.dir.iterdir()), [])

    def test_a_daemon_runs_on_a_file(self):
        path = self.config(f"[server]\ndata_dir = {self.dir}/d\nlisten = unix:{self.dir}/s\n"
                           "http = 127.0.0.1:0\n[limits]\nconnections_max = 3\n")
        d = harness.Daemon(self.dir / "d")
        self.addCleanup(d.finish)
        d.start([harness.DAEMON, "--config", str(path)])
        with d.connect() as c:
            self.assertEqual(c.call("Server", "Info")["connections_max"], 3)
        self.assertEqual(d.http_get("/readyz")[0], 200)

    def test_usual_file(self):
        """Read where it is there; in a mount namespace, for it is of the machine."""
        unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
        script = ('mount -t tmpfs none /etc && mkdir /etc/spaceblock && '
                  '{ [ -z "$1" ] || echo "$1" >/etc/spaceblock/spaceblockd.conf; } && '
                  'exec "$0" --data-dir /d --listen unix:/x --check-config')
        if os.geteuid() != 0 or subprocess.run([*unshare, "mount -t tmpfs none /etc"],
                                               capture_output=True, check=False).returncode:
            self.skipTest("no mount namespace to be had")

        def ask(text):
            return subprocess.run([*unshare, script, harness.DAEMON, text], capture_output=True,
                                  text=True, check=False)

        self.assertIn("idle_ms = 120000", ask("").stdout)
        self.assertIn("idle_ms = 4321", ask("[limits]\nidle_ms = 4321").stdout)
        bad = ask("[limits]\nidle_ms = no")
        self.assertEqual(bad.returncode, USAGE)
        self.assertIn("/etc/spaceblock/spaceblockd.conf:2: ", bad.stderr)


class Reload(harness.Case):
    def setUp(self):
        super().setUp()
        self.path = self.dir / "c.conf"
        self.write("")
        self.d = self.daemon(args=["--config", str(self.path), "--http", "127.0.0.1:0"])

    def write(self, limits, server=""):
        self.path.write_text(f"[server]\n{server}\n[limits]\n{limits}\n")

    def reload(self, outcome="done"):
        def count():
            return self.d.metric("spaceblock_config_reloads_total", outcome=outcome)

        before = count()
        self.d.process.send_signal(signal.SIGHUP)
        self.eventually(lambda: count() == before + 1, "no reload")

    def limit(self, name):
        with self.d.connect() as c:
            info = c.call("Server", "Info")
        return {e["name"].decode(): e["value"] for e in info["limits"]}[name]

    def test_limits_change_for_what_comes(self):
        with self.d.connect() as c:
            c.call("Server", "Ping", payload=b"p" * 5000)
            self.write("control_max_bytes = 4096\nconnections_max = 2")
            self.reload()
            reply = c.ask("Server", "Ping", {"payload": b"p" * 5000})
            self.assertEqual(reply.code, rpc.EXHAUSTED)
            with self.d.connect() as other, self.d.connect() as third:
                other.call("Server", "Ping")
                self.assertTrue(third.at_end())
            self.write("")
            self.reload()
            c.call("Server", "Ping", payload=b"p" * 5000)
            self.assertEqual(self.limit("connections_max"), 1024)
        self.assertRegex(self.d.log(), r"limit-changed name=connections_max from=1024 to=2")

    def test_idle_time_changes_for_open_connections(self):
        with self.d.connect() as c:
            c.call("Server", "Ping")
            self.write("idle_ms = 200")
            self.reload()
            c.sock.settimeout(20)
            self.assertTrue(c.at_end())

    def test_log_level_changes(self):
        self.assertNotIn("connection-taken", self.d.log())
        self.write("", "log_level = debug")
        self.reload()
        with self.d.connect() as c:
            c.call("Server", "Ping")
        self.eventually(lambda: "connection-taken" in self.d.log(), "no debug lines")

    def test_what_needs_a_restart_is_named_and_kept(self):
        self.write("idle_ms = 5000", f"data_dir = {self.dir}/other\nlisten = unix:{self.dir}/n\n"
                                     "http = 127.0.0.1:1")
        self.d.stop()
        # on the command line they would win over the file
        self.write("", f"data_dir = {self.d.data_dir}\nlisten = unix:{self.d.socket}\n"
                       "http = 127.0.0.1:0")
        self.d.start([harness.DAEMON, "--config", str(self.path)])
        self.write("idle_ms = 5000", f"data_dir = {self.dir}/other\nlisten = unix:{self.dir}/n\n"
                                     "http = 127.0.0.1:1")
        self.reload()
        log = self.d.log()
        for name in ("data_dir", "listen", "http"):
            self.assertRegex(log, f"level=warn event=option-kept name={name} ")
        self.assertEqual(self.limit("idle_ms"), 5000)
        self.assertFalse((self.dir / "other").exists())

    def test_a_broken_file_keeps_all(self):
        self.write("idle_ms = 5000")
        self.reload()
        self.write("idle_ms = 6000\nnope = 1", "log_level = debug")
        self.reload("failed")
        self.assertEqual(self.limit("idle_ms"), 5000)
        self.assertRegex(self.d.log(), r'level=error event=reload-failed reason="\S+c.conf:5: ')
        self.path.unlink()
        self.reload("failed")
        self.assertEqual(self.limit("idle_ms"), 5000)
        self.write("idle_ms = 7000")
        self.reload()
        self.assertEqual(self.limit("idle_ms"), 7000)

    def test_the_command_line_still_wins(self):
        self.d.stop()
        self.d.args += harness.limits(idle_ms=3000)
        self.d.start()
        self.write("idle_ms = 5000\nframe_ms = 5000")
        self.reload()
        self.assertEqual((self.limit("idle_ms"), self.limit("frame_ms")), (3000, 5000))

    def test_many_reloads_under_load(self):
        with self.d.connect() as c:
            c.create("a")
            for n in range(100):
                self.write(f"idle_ms = {5000 + n}\ncall_memory_max_bytes = {1 + n % 3} MiB")
                self.d.process.send_signal(signal.SIGHUP)
                c.put("a", 1, b"%d" % n)
                c.call("Server", "Ping", payload=b"p" * 60000)
        self.reload()

    def test_a_reload_does_not_end_it_while_it_drains(self):
        self.d.process.send_signal(signal.SIGHUP)
        self.d.terminate()
        self.d.process.send_signal(signal.SIGHUP)
        self.d.wait()


class Documents(harness.Case):
    """What documents options and limits names all of them, with their defaults."""

    def limits(self):
        found = limits_of_help()
        printed = keys(run("--data-dir", "/d", "--check-config"))
        self.assertEqual(list(found), [n for s, n, _ in printed if s == "limits"])
        return found

    def test_help_tells_what_is_in_force(self):
        printed = {n: v for s, n, v in keys(run("--data-dir", "/d", "--check-config"))}
        for name, (_, default, low, high) in self.limits().items():
            self.assertEqual(printed[name], str(default))
            self.assertTrue(low <= default <= high, name)
            for value, code in ((low, 0), (high, 0), (high + 1, USAGE)):
                more = ["--limit", "output_max_bytes=268435456"] \
                    if name == "output_pause_bytes" else \
                    ["--limit", "output_pause_bytes=65536"] if name == "output_max_bytes" else []
                run("--data-dir", "/d", *more, "--limit", f"{name}={value}", "--check-config",
                    code=code)
            if low > 0:
                run("--data-dir", "/d", "--limit", f"{name}={low - 1}", "--check-config",
                    code=USAGE)

    def test_example_configuration(self):
        text = EXAMPLE.read_text()
        lines = re.findall(r"^(#?)(\w+) = (.*)$", text, re.M)
        printed = keys(run("--config", EXAMPLE, "--check-config"))
        self.assertEqual([name for _, name, _ in lines], [name for _, name, _ in printed])
        found = self.limits()
        for mark, name, value in lines:
            if name in found:
                self.assertEqual((mark, value), ("#", str(found[name][1])), name)
        flat, wrapped = text.lower(), 1
        while wrapped:
            flat, wrapped = re.subn(r"^(# .*)\n# ", r"\1 ", flat, flags=re.M)
        for name, (words, default, low, high) in found.items():
            self.assertIn(f"# {words.lower()} ({low} to {high}).\n#{name} = {default}\n", flat)

    def test_example_with_every_key_set(self):
        text = re.sub(r"^#(\w+ = )", r"\1", EXAMPLE.read_text(), flags=re.M)
        path = self.file("all.conf", text.encode())
        self.assertEqual(run("--config", path, "--check-config"),
                         run("--config", EXAMPLE, "--check-config"))

    def test_manual_pages(self):
        page = (ROOT / "docs/man/spaceblockd.conf.5").read_text()
        found = self.limits()
        told = re.findall(r"^\.It Ic (\w+) = Ar (\S+)", page, re.M)
        self.assertEqual([n for n, _ in told],
                         [n for _, n, _ in keys(run("--data-dir", "/d", "--check-config"))])
        for name, value in told:
            if name in found:
                self.assertEqual(value, str(found[name][1]), name)
        daemon = (ROOT / "docs/man/spaceblockd.8").read_text()
        for option in re.findall(r"^  --([a-z-]+)", run("--help"), re.M):
            self.assertRegex(daemon, rf"\.It Fl -{option}\b", option)

    def test_manual_pages_are_well_formed(self):
        if not shutil.which("mandoc"):
            self.skipTest("no mandoc")
        for name in ("spaceblockd.8", "spaceblockd.conf.5"):
            done = subprocess.run(
                ["mandoc", "-T", "lint", "-W", "warning", ROOT / "docs/man" / name],
                capture_output=True, text=True, check=False)
            self.assertEqual((done.stdout, done.returncode), ("", 0))

    def test_operations_names_each_limit_in_force(self):
        text = (ROOT / "docs/OPERATIONS.md").read_text()
        for name in self.limits():
            self.assertIn(f"`{name}`", text)

    def test_completion_knows_options_and_limits(self):
        script = ('source "$1"; COMP_WORDS=("$2" "${@:3}"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); '
                  'compopt() { :; }; _spaceblockd; printf "%s\\n" "${COMPREPLY[@]}"')

        def complete(*words):
            return subprocess.run(
                ["bash", "-c", script, "-", ROOT / "deploy/completion/spaceblockd.bash",
                 harness.DAEMON, *words], capture_output=True, text=True, check=True,
                env=harness.environment()).stdout.split()

        options = {f"--{o}" for o in re.findall(r"^  --([a-z-]+)", run("--help"), re.M)}
        self.assertEqual(set(complete("--")), options)
        self.assertEqual(set(complete("--limit", "")), {f"{n}=" for n in self.limits()})
        self.assertEqual(complete("--limit", "idle"), ["idle_ms="])
        self.assertEqual(complete("--log-level", "d"), ["debug"])


@unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd-analyze")
class Units(harness.Case):
    SYSTEMD = ROOT / "deploy/systemd"

    def test_service(self):
        text = (self.SYSTEMD / "spaceblockd.service").read_text()
        text = text.replace("/usr/sbin/spaceblockd", harness.DAEMON)
        self.assertIn(harness.DAEMON, text)
        path = self.file("spaceblockd.service", text.encode())
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", path],
                              capture_output=True, text=True, check=False)
        mine = [line for line in done.stderr.splitlines() if "spaceblockd" in line]
        self.assertEqual((mine, done.returncode), ([], 0), done.stderr)
        for line in ("Type=notify", "KillMode=process", "RuntimeDirectoryPreserve=yes",
                     "OOMPolicy=continue"):
            self.assertIn(f"\n{line}\n", text)
        self.assertRegex(text, r"\nLimitNOFILE=\d+\n")

    def test_user_and_folders(self):
        if os.geteuid() != 0:
            self.skipTest("not root")
        root = self.dir / "root"
        (root / "etc").mkdir(parents=True)
        for tool, name in (("systemd-sysusers", "spaceblock.sysusers"),
                           ("systemd-tmpfiles", "spaceblock.tmpfiles")):
            create = ["--create"] if tool == "systemd-tmpfiles" else []
            done = subprocess.run([tool, f"--root={root}", *create, self.SYSTEMD / name],
                                  capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("spaceblock:", (root / "etc/passwd").read_text())
        self.assertEqual((root / "var/lib/spaceblock").stat().st_mode & 0o777, 0o700)
        self.assertEqual((root / "run/spaceblock").stat().st_mode & 0o777, 0o755)
        self.assertEqual((root / "run/spaceblock").stat().st_uid,
                         (root / "var/lib/spaceblock").stat().st_uid)


if __name__ == "__main__":
    harness.main()
