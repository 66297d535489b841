"""The README's section about guests works as written, after its tour."""
import os
import re
import subprocess

import harness
from guests import end_qemus
from machine import SOURCE, boot_files


def commands(section):
    """The sh blocks of a section of the README."""
    text = (SOURCE / "README.md").read_text()
    body = re.search(rf"^## {section}\n(.*?)^## ", text, re.M | re.S).group(1)
    found = re.findall(r"^```sh\n(.*?)^```", body, re.M | re.S)
    assert found, section
    return "".join(found)


class Tour(harness.Case):
    def test_guest(self):
        boot_files()
        build = os.environ.get("SPB_BUILD_DIR", SOURCE / "build")
        bin_dir, tour = self.dir / "bin", self.dir / "tour"
        bin_dir.mkdir()
        tour.mkdir()
        (bin_dir / "spaceblock").symlink_to(os.path.abspath(harness.CLI))
        (bin_dir / "spaceblockd").symlink_to(os.path.abspath(harness.DAEMON))
        self.addCleanup(end_qemus, tour / "data")
        env = harness.environment(PATH=f"{bin_dir}:{os.environ['PATH']}", SRC=str(SOURCE),
                                  SPB_BUILD_DIR=str(build),
                                  SPACEBLOCK_ENDPOINT=f"unix:{tour}/sock")
        # Pipes would be held open by what a failed script leaves behind.
        log = self.dir / "log"
        for section in ("Five minutes", "A guest"):
            with open(log, "wb") as out:
                done = subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", commands(section) + "\nwait\n"], cwd=tour,
                    env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                    timeout=600, check=False, preexec_fn=harness.die_with_parent)
            told = log.read_text(errors="replace")
            self.assertEqual(done.returncode, 0, told)
        for words in ("boot 1", "refused: the guest has it", "IMAGE_IN_USE|g1", "it powered off",
                      "guest g1 deleted"):
            self.assertRegex(told, words)


if __name__ == "__main__":
    harness.main()
