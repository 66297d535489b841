"""The daemon as containerd's ttrpc client for Go sees it: the tests of conformance/, built here
from Debian's packages. Skipped where Go or one of them is not installed.
"""
import os
import pathlib
import subprocess
import sys

sys.path.insert(1, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

import gobuild
import harness

TESTS_TIMEOUT_S = 300


class GoClient(harness.Case):
    @classmethod
    def setUpClass(cls):
        missing = gobuild.missing()
        if missing:
            raise harness.unittest.SkipTest(missing)
        cls.build_dir = os.environ["SPB_BUILD_DIR"]

    def test_packages_are_tidy(self):
        self.assertEqual(gobuild.badly_formatted(), [])
        with gobuild.Workshop(self.build_dir) as workshop:
            for package in gobuild.PACKAGES:
                workshop.vet(package)

    def test_conformance(self):
        with gobuild.Workshop(self.build_dir) as workshop:
            program = workshop.tests("conformance")
        (self.dir / "vmlinuz").touch()
        fake = pathlib.Path(harness.__file__).resolve().parent / "fake_qemu.py"
        daemon = self.daemon(args=["--qemu", str(fake), "--guest-files", str(self.dir),
                                   "--accelerator", "tcg"])
        env = harness.environment(SPB_UNIX=daemon.unix, SPB_TCP=daemon.tcp,
                                  SPB_DAEMON_PID=str(daemon.process.pid))
        done = subprocess.run([program, "-test.v", f"-test.timeout={TESTS_TIMEOUT_S}s"], env=env,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False, timeout=TESTS_TIMEOUT_S + harness.WAIT_S,
                              preexec_fn=harness.die_with_parent)
        print(done.stdout)
        self.assertEqual(done.returncode, 0, "tests of the Go client failed; see above")
        self.assertTrue(daemon.running())


if __name__ == "__main__":
    harness.main()
