"""Bad input through the CLI, on a file and through a daemon: refused, and nothing changes."""
import harness
from harness import FAILED, USAGE
from targets import EPOCH, OnDaemon, OnFile


class BadInput:
    def unchanged(self, t, code, command, *words, **how):
        """Free blocks aside, which may hold data that was never published."""
        before = t.bytes()[:34 * 512], t.json("inspect --data")
        text = t.refused(code, command, *words, **how)
        after = t.bytes()[:34 * 512], t.json("inspect --data")
        self.assertEqual(after, before, f"{command} changed the image")
        return text

    def invalid(self, t, command, *words, **how):
        """Refused as a failure or as misuse; the text tells."""
        before = t.bytes()
        done = t.cli(command, *words, code=None, **how)
        self.assertIn(done.code, (FAILED, USAGE), done)
        self.assertEqual(done.out, b"")
        self.assertEqual(t.bytes(), before)
        return done.err

    def test_values_of_240_and_241_bytes(self):
        t = self.target()
        t.cli("param put 1", "v" * 240)
        for words, how in ((["v" * 241], {}), (["-"], {"input": b"v" * 241}),
                           ([f"@{self.file('v', b'v' * 241)}"], {}),
                           (["-"], {"input": b"v" * 10**6})):
            text = self.invalid(t, "param put 1", *words, **how)
            self.assertIn("240", text)
        self.assertEqual(t.cli("param get 1 --raw").out, b"v" * 240)

    def test_payloads_of_64_and_65_bytes(self):
        t = self.target()
        t.cli("event append", "p" * 64, "--severity", 1, "--code", 1)
        for words, how in ((["p" * 65], {}), (["-"], {"input": b"p" * 65}),
                           (["-"], {"input": b"p" * 10**6})):
            text = self.invalid(t, "event append --severity 1 --code 1", *words, **how)
            self.assertIn("64", text)
        self.assertEqual(len(t.json("event list")["events"]), 1)

    def test_times(self):
        t = self.target()
        append = "event append x --severity 1 --code 1 --time"
        for bad in (EPOCH - 1, 0, -1, EPOCH + (1 << 32), "1970-01-01T00:00:00Z", (1 << 63) - 1):
            text = self.invalid(t, append, bad)
            self.assertTrue("epoch" in text or "--time" in text, text)
        t.cli(append, EPOCH)
        t.cli(append, EPOCH + (1 << 32) - 1)
        self.assertEqual([e["timestamp"] for e in t.json("event list")["events"]],
                         [0, (1 << 32) - 1])

    def test_product_names(self):
        t = self.target()
        for good in ("n" * 64, "é" * 32, "a/b", "."):
            t.cli("dp put", good, "-", input=b"x")
            self.assertEqual(t.cli("dp get", good).out, b"x")
        for bad in ("", "n" * 65, "é" * 33, b"\xff", b"a\xc3", b"\xed\xa0\x80"):
            for command in (["dp put", "--", bad, "-"], ["dp get", "--", bad],
                            ["dp delete", "--", bad]):
                first, *rest = command
                before = t.bytes()
                done = harness.run_cli(*first.split(), *t.flags, *rest, input=b"x", code=None)
                self.assertIn(done.code, (FAILED, USAGE), done)
                self.assertIn("name", done.err.lower())
                self.assertEqual(t.bytes(), before)

    def test_full_parameter_store(self):
        t = self.target()
        for n in range(32):
            t.cli("param put", n, f"v{n}")
        text = self.unchanged(t, FAILED, "param put 32 x")
        self.assertIn("32", text)
        for n in (0, 31):
            t.cli("param put", n, "again")
        seen = harness.dump(t.path) if harness.FIXTURES.exists() else None
        if seen:
            self.assertEqual(len(seen["latest_params"]), 32)
        t.cli("param delete 3")
        t.cli("param put 32 x")
        self.unchanged(t, FAILED, "param put 33 x")

    def test_full_catalog(self):
        t = self.target()
        for n in range(6):
            t.cli(f"dp put p{n} -", input=b"x" * n)
        text = self.unchanged(t, FAILED, "dp put p6 -", input=b"x")
        self.assertIn("6", text)
        t.cli("dp put p5 - --replace", input=b"new")
        t.cli("dp delete p0")
        t.cli("dp put p6 -", input=b"x")
        self.assertEqual(t.cli("dp get p5").out, b"new")

    def test_no_free_extent(self):
        t = self.target(blocks=33 + 1 + 20)
        t.cli("dp put a -", input=b"a" * 4 * 512)
        t.cli("dp put b -", input=b"b" * 4 * 512)
        t.cli("dp delete a")
        largest = max(t.json("inspect").get("largest_free_blocks", 12), 1)
        text = self.unchanged(t, FAILED, "dp put big -", input=b"x" * 14 * 512)
        self.assertIn("16", text)  # free in all
        self.assertIn(str(largest), text)
        self.unchanged(t, FAILED, "dp put huge -", input=b"x" * 10**6)
        self.assertEqual(t.cli("dp get b").out, b"b" * 4 * 512)

    def test_unknown_ids(self):
        t = self.target()
        for command, name in (("param get 9", "9"), ("param history 9", "9"),
                              ("param delete 9", "9"), ("dp get nine", "nine"),
                              ("dp delete nine", "nine")):
            self.assertIn(name, self.unchanged(t, harness.ABSENT, command))


class OnFiles(BadInput, OnFile, harness.Case):
    pass


class ThroughDaemon(BadInput, OnDaemon, harness.Case):
    pass


if __name__ == "__main__":
    harness.main()
