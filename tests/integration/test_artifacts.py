"""Artifacts whose files are not what they were."""
import hashlib
import os

import harness
import rpc


class Rotten(harness.Case):
    def setUp(self):
        super().setUp()
        self.d = self.daemon()
        self.c = self.connect(self.d)

    def put(self, path):
        return harness.run_cli("artifact", "put", path, "--endpoint", self.d.unix)

    def rotten(self, path):
        """The artifact's file, each time with another thing wrong."""
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        yield "a bit"
        path.write_bytes(whole[:1000])
        yield "the end"
        path.unlink()
        yield "the file"
        path.unlink()
        path.symlink_to("/nonexistent")
        yield "the name"

    def test_a_bad_file_is_healed_by_the_same_content(self):
        data = os.urandom(300000)
        sha = hashlib.sha256(data)
        self.put(self.file("kernel", data))
        path = self.d.data_dir / "artifacts" / "1" / sha.hexdigest()
        for n, wrong in enumerate(self.rotten(path)):
            with self.subTest(wrong):
                reply = self.c.ask("Artifacts", "Get", {"sha256": sha.digest(), "verify": True})
                self.assertIn(reply.reason, ("CORRUPT_DATA", "IO_ERROR"))
                if n == 0:
                    self.assertEqual(reply.code, rpc.DATA_LOSS)
                    self.assertIn("holds other bytes than its name says", reply.message)
                self.c.call("Artifacts", "Get", sha256=sha.digest())
                told = self.put(self.dir / "kernel")
                self.assertIn("stored", told.text)
                self.assertIn("sent again", told.err)
                self.assertEqual(path.read_bytes(), data)
                self.c.call("Artifacts", "Get", sha256=sha.digest(), verify=True)
        self.assertRegex(self.d.log(), "level=warn event=artifact-replaced .*other bytes")
        self.assertIn("was there", self.put(self.dir / "kernel").text)
        self.assertEqual(os.listdir(path.parent), [sha.hexdigest()])


if __name__ == "__main__":
    harness.main()
