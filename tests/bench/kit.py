"""What the measuring scripts share: programs of the build, a daemon, figures of /proc."""
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
import harness  # noqa: E402  (found through the line above)


class Failure(Exception):
    """Something that was measured did not work; the text says what."""


def find(build_dir=None):
    """Names the build folder: as told, or $SPB_BUILD_DIR, or build/ of the tree."""
    folder = pathlib.Path(build_dir or os.environ.get("SPB_BUILD_DIR") or HERE.parents[1] / "build")
    find.folder = folder.resolve()
    harness.DAEMON = os.environ.get("SPB_DAEMON", str(find.folder / "server" / "spaceblockd"))
    harness.CLI = os.environ.get("SPB_CLI", str(find.folder / "client" / "cli" / "spaceblock"))
    for path in (harness.DAEMON, harness.CLI):
        if not os.access(path, os.X_OK):
            sys.exit(f"{path} is not there: build first, or name the build folder with --build-dir")


def build_folder():
    return str(find.folder / "tests" / "bench")


def program(name):
    return str(find.folder / "tests" / "bench" / name)


def cli():
    return harness.CLI


def daemon(data_dir, **how):
    return harness.Daemon(data_dir, **how).start()


def generator(*command):
    """Runs a load generator, and returns the figures that it prints."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(words)} ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def pss_kib(pid):
    """Memory that is the process's own, and its share of what it shares with others."""
    for line in open(f"/proc/{pid}/smaps_rollup", encoding="ascii"):
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise Failure("no Pss in smaps_rollup")


def write_json(path, result):
    if path:
        with open(path, "w", encoding="utf-8") as out:
            json.dump(result, out, indent=1)
            out.write("\n")
