"""Starting and ending the daemon: its flags, its sockets, one owner of a data directory."""
import os
import pathlib
import pwd
import shutil
import subprocess
import unittest

import harness
import rpc

USAGE = 2


class Start(harness.Case):
    def test_ready_line_says_what_was_bound(self):
        two = self.dir / "second.sock"
        d = self.daemon(listen=[f"unix:{self.dir}/one.sock", f"unix:{two}", "tcp://127.0.0.1:0",
                                "tcp://127.0.0.1:0"])
        self.assertEqual(len(d.ready), 4)
        self.assertEqual(d.ready[:2], [f"unix:{self.dir}/one.sock", f"unix:{two}"])
        self.assertEqual(len(set(d.ready)), 4)
        for endpoint in d.ready:
            self.assertNotRegex(endpoint, ":0$")
            with d.connect(endpoint) as c:
                c.call("Server", "Ping")

    def test_ipv6_loopback(self):
        if not pathlib.Path("/proc/net/if_inet6").exists() or \
                "00000000000000000000000000000001" not in open("/proc/net/if_inet6").read():
            self.skipTest("no IPv6 here")
        d = self.daemon(listen=["tcp://[::1]:0"])
        with d.connect(d.tcp) as c:
            c.call("Server", "Ping")

    def test_plaintext_on_other_addresses_is_refused(self):
        for address in ("0.0.0.0", "192.0.2.1", "10.0.0.1", "[::]", "255.255.255.255"):
            d = self.daemon(name=f"x{len(address)}", start=False, listen=[f"tcp://{address}:0"])
            code, text = d.refuses_to_start()
            self.assertEqual(code, USAGE, text)
            self.assertIn("loopback", text)
            self.assertIn(address.strip("[]"), text)

    def test_bad_flags(self):
        good = ["--data-dir", self.dir / "d"]
        for args in ([], ["--data-dir"], [*good, "--nope"], [*good, "extra"],
                     [*good, "--listen", "nonsense"], [*good, "--listen", "tcp://127.0.0.1"],
                     [*good, "--listen", "tcp://127.0.0.1:65536"],
                     [*good, "--listen", "tcp://127.0.0.1:-1"], [*good, "--listen", "unix:"],
                     [*good, "--listen", "unix:/" + "x" * 200],
                     [*good, "--log-level", "shout"]):
            done = harness.run_cli(*args, program=harness.DAEMON, code=USAGE)
            self.assertEqual(done.out, b"")
            self.assertTrue(done.err.strip(), args)

    def test_help_and_version(self):
        text = harness.run_cli("--help", program=harness.DAEMON).text
        for flag in ("--data-dir", "--listen", "--log-level"):
            self.assertIn(flag, text)
        self.assertTrue(harness.run_cli("--version", program=harness.DAEMON).text.strip())

    def test_data_directory_is_made_and_must_be_one(self):
        d = self.daemon(name="fresh", start=False)
        d.data_dir.rmdir()
        with d.start().connect() as c:
            c.create("a")
        file = self.file("file", b"x")
        done = harness.run_cli("--data-dir", file, "--listen", f"unix:{self.dir}/s",
                               program=harness.DAEMON, code=None)
        self.assertNotEqual(done.code, 0)
        self.assertIn(str(file), done.err)

    def test_one_daemon_per_data_directory(self):
        d = self.daemon()
        with d.connect() as c:
            c.create("a")
            c.put("a", 1, b"v")
            second = harness.Daemon(d.data_dir, listen=[f"unix:{self.dir}/other.sock"])
            second.log_path = self.dir / "second.log"
            code, text = second.refuses_to_start()
            self.assertNotEqual(code, 0)
            self.assertIn(str(d.data_dir), text)
            self.assertEqual(c.get("a", 1), b"v")
            c.put("a", 1, b"w")
        d.kill9()
        with d.restart().connect() as c:  # what a dead one held is free
            self.assertEqual(c.get("a", 1), b"w")
            c.put("a", 1, b"x")

    def test_socket_of_a_living_daemon_is_not_taken(self):
        d = self.daemon()
        code, text = self.daemon("other", start=False,
                                 listen=[f"unix:{d.socket}"]).refuses_to_start()
        self.assertNotEqual(code, 0)
        self.assertIn(d.socket, text)
        with d.connect() as c:
            c.call("Server", "Ping")

    def test_port_that_is_taken(self):
        d = self.daemon()
        code, text = self.daemon("other", start=False, listen=[d.tcp]).refuses_to_start()
        self.assertNotEqual(code, 0)
        self.assertIn(d.tcp.rpartition(":")[2], text)

    def test_ends_with_open_and_idle_connections(self):
        d = self.daemon()
        idle = [self.connect(d, e) for e in d.ready for _ in range(5)]
        idle[0].call("Server", "Ping")
        d.stop()
        for c in idle:
            self.assertTrue(c.at_end())
        with self.assertRaises(OSError):
            d.connect()

    def test_log_is_key_value_and_escaped(self):
        d = self.daemon(args=["--log-level", "debug"])
        with d.connect() as c:
            c.send_frame(1, rpc.request_frame("evil\nlevel=error fake\x1b[31m", "x"))
            c.read_frame()
            c.ask("Images", "Get", {"image": {"name": b"a\nb\x1b[0m\xff"}})
        d.stop()
        lines = d.log().splitlines()
        self.assertTrue(lines)
        for line in lines:
            self.assertRegex(line, r'^([\w-]+=("(\\.|[^"\\])*"|\S*) ?)+$')
            self.assertTrue(line.isprintable(), repr(line))
            self.assertFalse(line.startswith("level=error fake"))
        quiet = self.daemon("quiet", args=["--log-level", "error"])
        quiet.stop()
        self.assertEqual(quiet.log(), "")

    def test_images_are_listed_after_restart(self):
        d = self.daemon()
        with d.connect() as c:
            for image in ("a", "7/b"):
                c.create(image)
        for _ in range(3):
            d.stop()
            with d.restart().connect() as c:
                self.assertEqual(c.call("Server", "Info")["image_count"], 2)


class UsualSocket(harness.Case):
    """Without --listen the daemon and the CLI meet at the usual place."""

    def ask(self, env, user=None):
        done = subprocess.run([harness.CLI, "server", "ping"], capture_output=True, check=False,
                              env=harness.environment(**env), user=user, timeout=harness.WAIT_S)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_of_a_user(self):
        user = "nobody" if os.geteuid() == 0 else None
        if user:
            self.need_access_for(user)
        runtime = self.dir / "run"
        runtime.mkdir(mode=0o700)
        data = self.dir / "d"
        data.mkdir()
        os.chmod(self.dir, 0o755)
        if user:
            for folder in (runtime, data):
                os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        env = {"XDG_RUNTIME_DIR": str(runtime), "HOME": str(self.dir)}
        d = harness.Daemon(data, listen=[], env=env, user=user)
        self.addCleanup(d.finish)
        d.start()
        self.assertEqual(d.ready, [f"unix:{runtime}/spaceblock/spaceblockd.sock"])
        self.ask(env, user)

    def need_access_for(self, user):
        done = subprocess.run([harness.CLI, "--version"], user=user, check=False, cwd="/",
                              capture_output=True) if self.reachable() else None
        if done is None or done.returncode:
            raise unittest.SkipTest(f"{user} may not run {harness.CLI}")

    def reachable(self):
        return all(os.stat(p).st_mode & 1 for p in pathlib.Path(harness.CLI).resolve().parents)

    def test_of_root(self):
        unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
        if os.geteuid() != 0 or not shutil.which("nsenter") or subprocess.run(
                [*unshare, "mount -t tmpfs none /run"], capture_output=True,
                check=False).returncode:
            self.skipTest("no mount namespace to be had")
        d = self.daemon(start=False, listen=[])
        d.start([*unshare, 'mount -t tmpfs none /run && exec "$0" --data-dir "$1"',
                 harness.DAEMON, str(d.data_dir)])
        self.assertEqual(d.ready, ["unix:/run/spaceblock/spaceblockd.sock"])
        done = subprocess.run(
            ["nsenter", "--mount", f"--target={d.process.pid}", harness.CLI, "server", "ping"],
            capture_output=True, check=False, env=harness.environment(), timeout=harness.WAIT_S)
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    harness.main()
