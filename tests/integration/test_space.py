"""The space of image files: they have all of it, whatever guests give back."""
import ctypes
import errno
import shutil
import subprocess

import harness
import lending
from faults import Faults
from lending import GUEST, READY

MIB = 1 << 20
PUNCH_HOLE = 3  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE


def is_whole(path):
    """Whether the file has all its space."""
    found = path.stat()
    return found.st_blocks * 512 >= found.st_size


def punch(path, offset=8 * 4096, size=MIB):
    """Gives back space of a file, as a discard does."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(path, "r+b") as file:
        if libc.fallocate64(file.fileno(), PUNCH_HOLE, ctypes.c_int64(offset),
                            ctypes.c_int64(size)):
            raise OSError(ctypes.get_errno(), "fallocate")


class Space(lending.Case):
    def setUp(self):
        super().setUp()
        self.faults = Faults(self.dir)
        self.d = self.lender(env=self.faults.environment())
        self.c = self.connect(self.d)
        self.c.create("a", blocks=16384)
        self.path = self.d.image_path(1, "a")
        self.assertTrue(is_whole(self.path))

    def through_a_guest(self):
        self.d.attach("a")
        punch(self.path)
        self.assertFalse(is_whole(self.path))
        return self.d.detach("a")

    def test_it_is_taken_back_after_a_guest(self):
        self.c.put("a", 1, b"before")
        self.assertEqual(self.through_a_guest(), "")
        self.assertTrue(is_whole(self.path))
        self.assertEqual(self.state(self.c, "a"), (READY, ""))
        self.assertEqual(self.c.get("a", 1), b"before")
        self.assertEqual(self.c.call("Images", "Check", image="a")["findings"], [])

    def test_what_a_qemu_discards(self):
        if not shutil.which("qemu-io"):
            self.skipTest("no qemu-io (package qemu-utils)")
        self.d.attach("a")
        subprocess.run(["qemu-io", "-f", "raw", "-d", "unmap", "-c", "discard 1M 2M", self.path],
                       capture_output=True, check=True, timeout=harness.WAIT_S)
        self.assertFalse(is_whole(self.path))
        self.assertEqual(self.d.detach("a"), "")
        self.assertTrue(is_whole(self.path))

    def test_no_room_is_told_and_the_image_is_served(self):
        self.faults.fail("allocate", "images/1/a.img", errno.ENOSPC)
        self.assertRegex(self.through_a_guest(), "lacks .* bytes.*No space left")
        self.assertRegex(self.d.log(), "level=warn event=image-lacks-space .*No space left")
        state, reason = self.state(self.c, "a")
        self.assertEqual(state, READY)
        self.assertRegex(reason, "^cannot give 1/a all its space: it lacks 10.* bytes of 8388608")
        self.c.put("a", 1, b"served")
        shown = harness.run_cli("image", "show", "a", "--endpoint", self.d.unix)
        self.assertIn("lacks", shown.text)
        self.c.call("Images", "Reopen", image="a")
        self.assertIn("lacks", self.state(self.c, "a")[1])
        self.faults.clear()
        self.c.call("Images", "Reopen", image="a")
        self.assertEqual(self.state(self.c, "a"), (READY, ""))
        self.assertTrue(is_whole(self.path))
        self.assertEqual(self.c.get("a", 1), b"served")

    def test_it_is_taken_back_at_the_start(self):
        self.d.stop()
        punch(self.path)
        self.c = self.connect(self.d.restart())
        self.assertTrue(is_whole(self.path))
        self.assertEqual(self.state(self.c, "a"), (READY, ""))

    def test_it_is_taken_back_where_a_failed_image_recovers(self):
        punch(self.path)
        self.faults.fail("flush", "images/1/a.img")
        self.assertEqual(self.c.ask("Params", "Put", {"image": "a", "id": 1, "value": b"x"}).reason,
                         "IO_ERROR")
        self.faults.fail("allocate", "images/1/a.img", errno.ENOSPC)
        self.assertIn(b"lacks", self.c.call("Images", "Reopen", image="a")["image"]["reason"])
        self.faults.clear()
        self.c.call("Images", "Reopen", image="a")
        self.assertTrue(is_whole(self.path))
        self.assertEqual(self.state(self.c, "a"), (READY, ""))

    def test_it_is_taken_back_after_a_guest_that_died_meanwhile(self):
        self.d.attach("a")
        self.d.kill9()
        punch(self.path)
        self.d.expect((1, "a", GUEST))
        self.c = self.connect(self.d.restart())
        self.assertEqual(self.d.detach("a"), "")
        self.assertTrue(is_whole(self.path))
        self.assertEqual(self.state(self.c, "a"), (READY, ""))

    def test_another_image_gets_nothing(self):
        self.d.attach("a")
        punch(self.path)
        with open(self.path, "r+b") as file:
            file.write(b"nothing")
        self.assertRegex(self.d.detach("a"), "damaged")
        self.assertFalse(is_whole(self.path))


if __name__ == "__main__":
    harness.main()
