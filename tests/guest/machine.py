"""A kernel and an initial RAM disk to boot guests from, made once a run; or a skip."""
import atexit
import functools
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ.get("SPB_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
ACCEL = os.environ.get("SPB_ACCEL", "tcg")
# The guest's parameters (deploy/guest/README.md).
BOOTS, END, EVENTS, INTERVAL_MS, PRODUCT_SIZE, PRODUCT_NAME, CONSOLE, BUTTON, SPOIL = (
    1, 10, 11, 12, 13, 14, 15, 16, 17)


@functools.cache
def boot_files():
    """(kernel, initrd) as paths."""
    built = pathlib.Path(os.environ.get("SPB_BUILD_DIR", "build")) / "deploy" / "guest" / "init"
    init = pathlib.Path(os.environ.get("SPB_GUEST_INIT", built))
    if shutil.which("qemu-system-x86_64") is None:
        raise unittest.SkipTest("no qemu-system-x86_64")
    if not init.exists():
        raise unittest.SkipTest(f"no {init}")
    if not list(pathlib.Path("/boot").glob("vmlinuz-*-cloud-amd64")):
        raise unittest.SkipTest("no cloud kernel in /boot")
    out = tempfile.mkdtemp(prefix="spb-guest-")
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    subprocess.run([SOURCE / "deploy" / "guest" / "build", "--init", init, out], check=True,
                   capture_output=True)
    return pathlib.Path(out) / "vmlinuz", pathlib.Path(out) / "initrd.img"


def product_bytes(size):
    """What the guest's product holds: the low bytes of xorshift32."""
    state, out = 2463534242, bytearray()
    for _ in range(size):
        state ^= (state << 13) & 0xFFFFFFFF
        state ^= state >> 17
        state ^= (state << 5) & 0xFFFFFFFF
        out.append(state & 0xFF)
    return bytes(out)
