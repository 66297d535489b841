"""What surrounds the daemon and the CLI goes wrong: streams, logs, files taken away."""
import os
import subprocess

import harness
import rpc
from harness import run_cli


class Edges(harness.Case):
    def test_a_log_that_nobody_reads_holds_up_nothing(self):
        d = self.daemon(start=False, args=["--log-level", "debug"])
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        d.process = subprocess.Popen(d.command(), stdin=subprocess.DEVNULL, stderr=writer,
                                     stdout=subprocess.PIPE, preexec_fn=harness.die_with_parent,
                                     env=harness.environment())
        os.close(writer)
        d.ready = d.process.stdout.readline().decode().split()[1:]
        c = self.connect(d)
        # Far more lines than a pipe holds (64 KiB).
        for _ in range(400):
            c.create("x" * 60, blocks=33)
            c.call("Images", "Delete", image=rpc.image_ref("x" * 60))
            self.connect(d).close()
        self.assertEqual(c.call("Server", "Ping", payload=b"x")["payload"], b"x")
        c.close()
        d.stop()

    def test_closed_standard_streams_are_not_files_of_its_own(self):
        d = self.daemon(start=False)
        command = " ".join(d.command())
        d.process = subprocess.Popen(["sh", "-c", f"exec {command} 2>&- <&-"],
                                     stdout=subprocess.PIPE, preexec_fn=harness.die_with_parent,
                                     env=harness.environment())
        d.ready = d.process.stdout.readline().decode().split()[1:]
        self.connect(d).create("a", blocks=33)
        d.stop()
        self.assertEqual((d.data_dir / "lock").read_bytes(), b"")

    def test_a_file_taken_away_takes_no_more_changes(self):
        d = self.daemon()
        c = self.connect(d)
        for name in "ab":
            c.create(name, blocks=64)
            c.put(name, 1, b"one")
        os.unlink(d.image_path(1, "a"))
        os.truncate(d.image_path(1, "b"), 512 * 40)
        for name in "ab":
            put = {"image": name, "id": 1, "value": b"two"}
            self.assertEqual(self.refused(rpc.INTERNAL, c, "Params", "Put", put).reason,
                             "IO_ERROR")
            self.assertEqual(self.refused(rpc.PRECONDITION, c, "Params", "Put", put).reason,
                             "IMAGE_READ_ONLY")
        c.create("other", blocks=64)
        c.put("other", 1, b"goes on")

    def test_check_reads_the_medium(self):
        d = self.daemon()
        c = self.connect(d)
        c.create("a", blocks=64)
        c.put("a", 1, b"one")
        c.append("a", b"event")
        with open(d.image_path(1, "a"), "r+b") as image:
            image.write(b"\xff" * 512 * 33)
        args = ("--image", "a", "--endpoint", d.unix)
        self.assertIn("medium", run_cli("check", *args, code=harness.CORRUPT).text)
        run_cli("check", "--repair", *args)
        d.stop()
        path = str(d.image_path(1, "a"))
        self.assertEqual(run_cli("param", "get", "1", "--file", path).text.strip(), "one")
        run_cli("check", "--file", path)

    def test_a_product_never_replaces_an_image(self):
        image = self.dir / "i.img"
        run_cli("init", "--file", image, "--blocks", "64")
        run_cli("dp", "put", "p", "-", "--file", image, input=b"data")
        before = image.read_bytes()
        run_cli("dp", "get", "p", image, "--file", image, code=harness.FAILED)
        self.assertEqual(image.read_bytes(), before)


if __name__ == "__main__":
    harness.main()
