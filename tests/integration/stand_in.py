"""A daemon that a test plays: answers what the test says, loses connections where it says so."""
import os
import socket
import struct
import threading

import rpc
from protowire import SCHEMA, chunk, varint


class Refused(Exception):
    def __init__(self, code, reason, message="refused by the test"):
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


class Cut(Exception):
    """The connection is closed instead of an answer."""


def failure(refused):
    info = chunk(1, refused.reason.encode()) + chunk(2, b"spaceblock")
    details = chunk(1, b"type.googleapis.com/google.rpc.ErrorInfo") + chunk(2, info)
    status = varint(1 << 3) + varint(refused.code) + chunk(2, refused.message.encode())
    return chunk(1, status + chunk(3, details))


class StandIn:
    """handle(service, method, fields) gives the answer's fields, or raises one of the above. It is
    called on a thread for each call, so it may wait. `calls` has what was asked, in order."""

    def __init__(self, path, handle):
        self.handle, self.calls, self.connections = handle, [], []
        self.changed = threading.Condition()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(os.fspath(path))
        self.socket.listen(16)
        self.endpoint = f"unix:{path}"
        self.ended = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.ended = True
        with self.changed:
            self.changed.notify_all()
        for one in (self.socket, *self.connections):  # a thread may wait in accept
            self._shut(one)

    @staticmethod
    def _shut(one):
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        one.close()

    def _accept(self):
        while True:
            try:
                one, _ = self.socket.accept()
            except OSError:
                return
            self.connections.append(one)
            threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, one):
        reader, lock = one.makefile("rb"), threading.Lock()
        try:
            while header := reader.read(10):
                size, stream, _, _ = struct.unpack(">IIBB", header)
                data = reader.read(size)
                threading.Thread(target=self._answer, args=(one, lock, stream, data),
                                 daemon=True).start()
        except OSError:
            pass

    def _answer(self, one, lock, stream, data):
        request = SCHEMA.decode("Request", data)
        service = request["service"].decode().rpartition(".")[2]
        method = request["method"].decode()
        kinds = SCHEMA.methods[service, method]
        fields = SCHEMA.decode(kinds[0], request["payload"])
        with self.changed:
            self.calls.append((method, fields))
            self.changed.notify_all()
        try:
            out = chunk(2, SCHEMA.encode(kinds[1], self.handle(service, method, fields)))
        except Refused as refused:
            out = failure(refused)
        except Cut:
            self._shut(one)
            return
        try:
            with lock:
                one.sendall(struct.pack(">IIBB", len(out), stream, rpc.RESPONSE, 0) + out)
        except OSError:
            pass

    def wait_for(self, condition, seconds=60):
        """Until it holds; looked at whenever a call came, or the test said that it changed."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.ended or condition(), seconds), self.calls

    def change(self):
        with self.changed:
            self.changed.notify_all()

    def asked(self, method):
        return [fields for name, fields in self.calls if name == method]
