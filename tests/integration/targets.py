"""An image to work on with the CLI: a file, or one that a daemon serves."""
import json
import zlib

import harness

EPOCH = 1700000000
UUID = "00112233445566778899aabbccddeeff"


class Target:
    """cli("param put 1", "x") runs the command on the image; words of the first are split."""

    def cli(self, command, *words, **how):
        return harness.run_cli(*command.split(), *words, *self.flags, **how)

    def json(self, command, *words, **how):
        return self.cli(command, *words, "--json", **how).json

    def refused(self, code, command, *words, **how):
        """Must end with that code, an explanation and nothing on standard output."""
        result = self.cli(command, *words, code=code, **how)
        assert result.out == b"", f"a result beside a failure: {result!r}"
        assert result.err.startswith("spaceblock: "), result
        again = self.cli(command, *words, "--json", code=code, **how)
        lines = [json.loads(line) for line in again.err.splitlines()]
        assert any(line.get("error", {}).get("message") for line in lines), again
        return result.err


class FileTarget(Target):
    uuid = UUID

    def __init__(self, path, *flags):
        self.path, self.flags = path, ["--file", str(path), *flags]

    def make(self, blocks=256, size=512, **how):
        return harness.run_cli("init", "--blocks", blocks, "--sector-size", size, "--epoch", EPOCH,
                               "--uuid", UUID, "--tenant-id", 1, *self.flags, **how)

    def bytes(self):
        return self.path.read_bytes()


class DaemonTarget(Target):
    def __init__(self, daemon, name):
        self.name, self.daemon = name, daemon
        # A daemon serves one image of a uuid.
        self.uuid = f"{UUID[:24]}{zlib.crc32(name.encode()):08x}"
        self.flags = ["--image", name, "--endpoint", daemon.unix]
        tenant, _, bare = name.rpartition("/")
        self.path = daemon.image_path(tenant or 1, bare)

    def make(self, blocks=256, size=512, **how):
        return harness.run_cli("image", "create", self.name, "--blocks", blocks, "--sector-size",
                               size, "--epoch", EPOCH, "--uuid", self.uuid, *self.flags[2:],
                               **how)

    def bytes(self):
        return self.path.read_bytes()


class OnFile:
    """Mixed into a test class: self.target(name) is a fresh image file."""

    def target(self, name="image", **how):
        one = FileTarget(self.dir / f"{name}.img")
        one.make(**how)
        return one


class OnDaemon:
    """The same through a daemon, which all tests of the class share."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.shared, cls.made = harness.SharedDaemon(), 0

    @classmethod
    def tearDownClass(cls):
        cls.shared.finish()
        super().tearDownClass()

    def target(self, name="image", **how):
        type(self).made += 1
        one = DaemonTarget(self.shared, f"{name}{self.made}")
        one.make(**how)
        return one
