"""A client of the daemon made for tests: it can send anything, in any order, and half of it.

Connection is used by one thread at a time. Nothing here retries.
"""
import socket
import struct
import uuid

from crc import crc32c
from protowire import SCHEMA, chunk, varint

REQUEST, RESPONSE = 1, 2
PACKAGE = "spaceblock.v1."

OK, INVALID, DEADLINE, NOT_FOUND, EXISTS = 0, 3, 4, 5, 6
EXHAUSTED, PRECONDITION, ABORTED, UNIMPLEMENTED = 8, 9, 10, 12
INTERNAL, UNAVAILABLE, DATA_LOSS = 13, 14, 15


class Closed(Exception):
    """The daemon ended the connection."""


class Reply:
    def __init__(self, data, response_type):
        self.raw = data
        response = SCHEMA.decode("Response", data)
        status = response["status"] or {"code": 0, "message": b"", "details": []}
        self.code, self.message = status["code"], status["message"].decode()
        self.details = {d["type_url"].decode().rpartition(".")[2]: d["value"]
                        for d in status["details"]}
        info = SCHEMA.decode("ErrorInfo", self.details.get("ErrorInfo", b""))
        self.reason, self.domain = info["reason"].decode(), info["domain"].decode()
        self.payload = response["payload"]
        self.body = SCHEMA.decode(response_type, self.payload) if response_type else None

    def violations(self):
        found = SCHEMA.decode("BadRequest", self.details.get("BadRequest", b""))
        return [v["field"].decode() for v in found["field_violations"]]

    def __repr__(self):
        return f"<code {self.code} {self.reason} {self.message!r}>" if self.code else "<ok>"


class RpcError(Exception):
    def __init__(self, what, reply):
        super().__init__(f"{what}: {reply!r}")
        self.reply, self.code, self.reason = reply, reply.code, reply.reason


def image_ref(name):
    """"7/x" or "x", text or bytes; a dict stays."""
    if isinstance(name, dict):
        return name
    if isinstance(name, bytes):
        return {"name": name}
    tenant, slash, rest = name.rpartition("/")
    return {"tenant": int(tenant), "name": rest} if slash else {"name": rest}


def request_frame(service, method, payload=b"", timeout_ns=0, metadata=()):
    """The data of a request frame, by hand: the daemon must take it from any peer."""
    out = chunk(1, service.encode() if isinstance(service, str) else service)
    out += chunk(2, method.encode() if isinstance(method, str) else method)
    if payload:
        out += chunk(3, payload)
    if timeout_ns:
        out += varint(4 << 3) + varint(timeout_ns)
    for key, value in metadata:
        out += chunk(5, chunk(1, key) + chunk(2, value))
    return out


def dial(endpoint, timeout_s):
    if endpoint.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        address = endpoint[5:]
    else:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        sock = socket.socket(socket.AF_INET6 if "[" in host else socket.AF_INET)
        address = (host.strip("[]"), int(port))
    sock.settimeout(timeout_s)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Connection:
    def __init__(self, endpoint, timeout_s=60):
        self.sock = dial(endpoint, timeout_s)
        self.next_stream = 1
        self.types, self.replies, self.order = {}, {}, []
        self.buffer = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def close(self):
        self.sock.close()

    # ---- frames

    def send_bytes(self, data):
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed(str(error)) from error

    def send_frame(self, stream, data, kind=REQUEST, flags=0):
        self.send_bytes(struct.pack(">IIBB", len(data), stream, kind, flags) + data)

    def read_exactly(self, n):
        while len(self.buffer) < n:
            try:
                piece = self.sock.recv(1 << 20)
            except ConnectionResetError as error:
                raise Closed(str(error)) from error
            if not piece:
                raise Closed(f"end of stream with {len(self.buffer)} bytes of {n}")
            self.buffer += piece
        out = bytes(self.buffer[:n])
        del self.buffer[:n]
        return out

    def read_frame(self):
        size, stream, kind, flags = struct.unpack(">IIBB", self.read_exactly(10))
        assert size <= 4 << 20, f"a frame of {size} bytes"
        assert kind == RESPONSE and flags == 0, (kind, flags)
        return stream, self.read_exactly(size)

    def at_end(self):
        """Has the daemon closed, and sent nothing before?"""
        try:
            self.read_exactly(1)
        except Closed:
            return True
        return False

    # ---- calls

    def start(self, service, method, fields=None, payload=None, timeout_ns=0, metadata=()):
        """Sends a request; gives its stream. request_id is filled in where it is missing."""
        request_type, response_type = SCHEMA.methods.get((service, method), (None, None))
        if payload is None:
            fields = dict(fields or {})
            if "request_id" in SCHEMA.messages[request_type]:
                fields.setdefault("request_id", str(uuid.uuid4()))
            if "image" in fields:
                fields["image"] = image_ref(fields["image"])
            payload = SCHEMA.encode(request_type, fields)
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        self.types[stream] = response_type
        name = service if "." in service else PACKAGE + service
        self.send_frame(stream, request_frame(name, method, payload, timeout_ns, metadata))
        return stream

    def wait(self, stream):
        while stream not in self.replies:
            got, data = self.read_frame()
            self.order.append(got)
            self.replies[got] = Reply(data, self.types.pop(got, None))
        return self.replies.pop(stream)

    def ask(self, service, method, fields=None, **how):
        """One call; gives the Reply, be it an error."""
        return self.wait(self.start(service, method, fields, **how))

    def call(self, service, method, **fields):
        """One call that must succeed; gives the decoded message."""
        reply = self.ask(service, method, fields)
        if reply.code:
            raise RpcError(f"{service}.{method}", reply)
        return reply.body

    def quiet_for(self, seconds):
        """True where nothing comes within that time. For what must not happen."""
        if self.buffer:
            return False
        before = self.sock.gettimeout()
        self.sock.settimeout(seconds)
        try:
            self.buffer += self.sock.recv(1)
            return False
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(before)

    # ---- what tests do often

    def create(self, image, blocks=64, **more):
        return self.call("Images", "Create", image=image, total_blocks=blocks, **more)["image"]

    def put(self, image, number, value, **more):
        return self.call("Params", "Put", image=image, id=number, value=value,
                         **more)["generation"]

    def get(self, image, number):
        return self.call("Params", "Get", image=image, id=number)["param"]["value"]

    def append(self, image, *payloads, code=1, severity=1, **more):
        events = [dict({"severity": severity, "code": code, "payload": p}, **more)
                  for p in payloads]
        return self.call("Events", "Append", image=image, events=events)["first_index"]

    def events(self, image, **more):
        return self.call("Events", "List", image=image, **more)

    def upload(self, image, name, data, chunk=1 << 20, replace=False, **more):
        """A whole product; gives it as published."""
        target = {"image": image_ref(image), "name": name, "replace": replace, **more}
        started = self.call("Uploads", "Start", product=target, size=len(data))
        for offset in range(0, len(data), chunk):
            self.write(started["upload_id"], offset, data[offset:offset + chunk])
        return self.call("Uploads", "Finish", upload_id=started["upload_id"],
                         crc32c=crc32c(data))["product"]

    def write(self, upload, offset, data):
        return self.call("Uploads", "Write", upload_id=upload, offset=offset, data=data,
                         crc32c=crc32c(data))["next_offset"]

    def product(self, image, name, piece=1 << 20):
        """A product's bytes, read in pieces of one identity."""
        found = self.call("DataProducts", "Get", image=image, name=name)["product"]
        out = bytearray()
        while len(out) < found["length"]:
            out += self.call("DataProducts", "Read", image=image, name=name, offset=len(out),
                             identity=found["identity"], length=piece)["data"]
        return bytes(out)
