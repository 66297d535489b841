"""Builds the Go packages beside this file: offline, and from Debian's packages alone.

Go runs in its old GOPATH mode, where every import comes from /usr/share/gocode or from the messages
that protoc-gen-go makes of proto/. All that is built lies in the build folder, Go's cache too (or
in SPB_GO_CACHE, which several build folders may share), so that a second build takes no time.
"""
import fcntl
import os
import pathlib
import shutil
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
PROTO = HERE.parents[1] / "proto"
GOCODE = pathlib.Path("/usr/share/gocode")
PACKAGES = ("conformance", "peer")  # folders here
LIBRARIES = ("github.com/containerd/ttrpc", "github.com/golang/protobuf/proto",
             "google.golang.org/grpc/health/grpc_health_v1")
BUILD_TIMEOUT_S = 500


class Failure(Exception):
    """A build that failed; the text says what and why."""


def missing():
    """What is not installed here, or None."""
    for program in ("go", "gofmt", "protoc", "protoc-gen-go"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    for library in LIBRARIES:
        if not (GOCODE / "src" / library).is_dir():
            return f"{GOCODE / 'src' / library} is not installed"
    return None


def run(command, **how):
    """Runs a command that must succeed; gives its output."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False,
                          timeout=BUILD_TIMEOUT_S, **how)
    if done.returncode != 0:
        raise Failure(f"{command[0]} {command[1]} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


class Workshop:
    """A folder that the programs are built in. One process at a time builds there."""

    def __init__(self, build_dir):
        self.folder = pathlib.Path(build_dir).resolve() / "tests" / "thirdparty" / "go"
        self.env = dict(os.environ, GO111MODULE="off", GOPATH=f"{self.folder}:{GOCODE}",
                        GOCACHE=os.environ.get("SPB_GO_CACHE", str(self.folder / "cache")),
                        GOFLAGS="", GOPROXY="off", GOTOOLCHAIN="local", CGO_ENABLED="0")

    def __enter__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = open(self.folder / "lock", "w", encoding="ascii")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.generate()
        return self

    def __exit__(self, *unused):
        self.lock.close()

    def generate(self):
        """The messages, as package spaceblock/v1."""
        shutil.rmtree(self.folder / "src", ignore_errors=True)
        (self.folder / "src").mkdir()
        files = sorted(p.relative_to(PROTO) for p in (PROTO / "spaceblock").rglob("*.proto"))
        run(["protoc", f"-I{PROTO}", f"--go_out={self.folder / 'src'}", *files])

    def go(self, package, *words):
        return run(["go", *words], cwd=HERE / package, env=self.env)

    def program(self, package):
        """Builds a program; gives its path."""
        out = self.folder / package
        self.go(package, "build", "-o", out, ".")
        return out

    def tests(self, package):
        """Builds a package's tests; gives the path of the program that runs them."""
        out = self.folder / f"{package}.test"
        self.go(package, "test", "-c", "-o", out, ".")
        return out

    def vet(self, package):
        self.go(package, "vet", ".")


def badly_formatted():
    """Files that gofmt would change."""
    return run(["gofmt", "-l", *(HERE / package for package in PACKAGES)]).split()
