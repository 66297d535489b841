"""Makes client/python and its generated messages importable, and a server that does as it is told.

Ends the process with 77, which means skipped, where python3-protobuf is not installed.
"""
import atexit
import importlib
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = ROOT / "client" / "python"

try:
    importlib.import_module("google.protobuf")
except ImportError:
    print("python3-protobuf is not installed")
    sys.exit(77)


def generate():
    """The messages, in a folder that goes with the process."""
    out = tempfile.mkdtemp(prefix="spb-py-")
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    proto = ROOT / "proto"
    files = sorted(str(path.relative_to(proto)) for path in proto.rglob("*.proto"))
    subprocess.run(["protoc", f"-I{proto}", f"--python_out={out}", *files], check=True)
    return out


MESSAGES = generate()
PATH = [MESSAGES, str(SOURCE), str(ROOT / "tests" / "integration")]
sys.path[1:1] = PATH

from spaceblock_client import framing
from spaceblock_client.messages import Request, Response


class Peer:
    """The server's side of one connection."""

    def __init__(self, sock):
        self.sock = sock

    def read(self, size):
        data = b""
        while len(data) < size:
            piece = self.sock.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def request(self):
        """The next request: its stream id and its envelope."""
        size, stream, kind, flags = framing.HEADER.unpack(self.read(framing.HEADER.size))
        assert (kind, flags) == (framing.REQUEST, 0), (kind, flags)
        return stream, Request.FromString(self.read(size))

    def send(self, data):
        self.sock.sendall(data)

    def answer(self, stream, payload=b"", **status):
        response = Response(payload=payload)
        if status:
            response.status.MergeFrom(type(response.status)(**status))
        self.send(frame(stream, response.SerializeToString()))

    def echo(self):
        """Answers one call, which must be a ping, as the daemon does."""
        stream, request = self.request()
        self.answer(stream, request.payload)

    def echo_all(self):
        while True:
            self.echo()


def frame(stream, data, kind=framing.RESPONSE, size=None):
    return framing.HEADER.pack(len(data) if size is None else size, stream, kind, 0) + data


class Server:
    """Listens; the n-th connection is given to the n-th script, and any further one to the last.

    A script is a function of a Peer; when it returns, the connection is closed.
    """

    def __init__(self, *scripts):
        self.scripts, self.count, self.failures = scripts, 0, []
        self.folder = tempfile.mkdtemp(prefix="spb-py-")
        self.endpoint = f"unix:{self.folder}/s"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f"{self.folder}/s")
        self.listener.listen()
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            script = self.scripts[min(self.count, len(self.scripts) - 1)]
            self.count += 1
            self.threads.append(threading.Thread(target=self.serve, args=(sock, script)))
            self.threads[-1].start()

    def serve(self, sock, script):
        with sock:
            try:
                script(Peer(sock))
            except (EOFError, BrokenPipeError, ConnectionResetError):
                pass  # the client is gone, which is its right
            except Exception as error:
                self.failures.append(error)

    def close(self):
        """Ends when every connection has. The clients must be closed before."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.failures:
            raise self.failures[0]
