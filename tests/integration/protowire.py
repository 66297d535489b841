"""Messages of proto/, encoded and decoded from the text of the .proto files themselves.

Shares nothing with the generated C, so that a field that both peers of the project got wrong in the
same way still shows. Only what those files use is understood: proto3 messages, enums, oneofs, maps
of strings, services with unary methods.
"""
import os
import pathlib
import re

INTEGERS = {"uint32", "uint64", "int32", "int64", "bool"}
TOKEN = re.compile(r'"[^"]*"|[A-Za-z_][\w.]*|-?\d+|[{}=;<>,()]')


class Field:
    def __init__(self, number, kind, repeated, in_oneof):
        self.number, self.kind, self.repeated, self.in_oneof = number, kind, repeated, in_oneof


class Schema:
    """All messages by their last name, and (service, method) -> (request, response)."""

    def __init__(self, root):
        self.messages = {"MapEntry": {"key": Field(1, "string", False, False),
                                      "value": Field(2, "string", False, False)}}
        self.enums, self.methods = {}, {}
        for path in sorted(pathlib.Path(root).rglob("*.proto")):
            text = re.sub(r"//[^\n]*", "", path.read_text())
            self.tokens = iter(TOKEN.findall(text))
            for token in self.tokens:
                self._top(token)

    def _next(self):
        return next(self.tokens)

    def _until(self, end):
        while self._next() != end:
            pass

    def _top(self, token):
        if token == "message":
            self._message(self._next())
        elif token == "enum":
            self._enum(self._next())
        elif token == "service":
            self._service(self._next())
        else:
            self._until(";")

    def _enum(self, name):
        values = {}
        self._next()
        while (token := self._next()) != "}":
            self._next()
            values[token] = int(self._next())
            self._until(";")
        self.enums[name] = values

    def _service(self, name):
        self._next()
        while self._next() == "rpc":
            method, _, request = self._next(), self._next(), self._next()
            self._next(), self._next(), self._next()
            self.methods[name, method] = (request, self._next())
            self._until(";")

    def _message(self, name):
        fields = self.messages[name] = {}
        self._next()
        in_oneof = False
        while True:
            token = self._next()
            if token == "}" and in_oneof:
                in_oneof = False
            elif token == "}":
                return
            elif token == "oneof":
                self._next(), self._next()
                in_oneof = True
            elif token in ("message", "enum"):
                self._top(token)
            else:
                self._field(fields, token, in_oneof)

    def _field(self, fields, token, in_oneof):
        repeated = token == "repeated"
        kind = self._next() if repeated else token
        if kind == "map":
            self._until(">")
            kind, repeated = "MapEntry", True
        name, _, number = self._next(), self._next(), int(self._next())
        self._until(";")
        fields[name] = Field(number, kind.split(".")[-1], repeated, in_oneof)

    def encode(self, message, values):
        fields, out = self.messages[message], bytearray()
        unknown = set(values) - set(fields)
        assert not unknown, f"{message} has no field {unknown}"
        for name, field in sorted(fields.items(), key=lambda item: item[1].number):
            value = values.get(name)
            if value is None:
                continue
            for one in value if field.repeated else [value]:
                out += self._encode_field(field, one)
        return bytes(out)

    def _encode_field(self, field, value):
        if field.kind in INTEGERS or field.kind in self.enums:
            return varint(field.number << 3) + varint(int(value))
        if field.kind in self.messages:
            value = self.encode(field.kind, value)
        elif isinstance(value, str):
            value = value.encode()
        return chunk(field.number, value)

    def decode(self, message, data):
        fields = self.messages[message]
        by_number = {field.number: (name, field) for name, field in fields.items()}
        out = {name: self._default(field) for name, field in fields.items()}
        for number, value in parse(data):
            if number in by_number:
                name, field = by_number[number]
                self._take(out, name, field, value)
        return out

    def _default(self, field):
        if field.repeated:
            return []
        if field.in_oneof or field.kind in self.messages:
            return None
        return 0 if field.kind in INTEGERS or field.kind in self.enums else b""

    def _take(self, out, name, field, value):
        if field.kind in self.messages:
            value = self.decode(field.kind, value)
        elif field.kind not in ("string", "bytes") and isinstance(value, bytes):
            out[name] += packed(value)
            return
        if field.kind in ("int32", "int64") and value >= 1 << 63:
            value -= 1 << 64
        if field.repeated:
            out[name].append(value)
        else:
            out[name] = value


def varint(n):
    n &= (1 << 64) - 1
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def chunk(number, data):
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def take_varint(data, at):
    n = shift = 0
    while True:
        n |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return n & (1 << 64) - 1, at


def packed(data):
    out, at = [], 0
    while at < len(data):
        n, at = take_varint(data, at)
        out.append(n)
    return out


def parse(data):
    """Pairs of field number and int or bytes."""
    at = 0
    while at < len(data):
        tag, at = take_varint(data, at)
        if tag & 7 == 0:
            value, at = take_varint(data, at)
        elif tag & 7 == 2:
            size, at = take_varint(data, at)
            assert at + size <= len(data), "field longer than its message"
            value, at = data[at:at + size], at + size
        else:
            raise AssertionError(f"wire type {tag & 7} in an answer")
        yield tag >> 3, value


SOURCE = os.environ.get("SPB_SOURCE_DIR") or str(pathlib.Path(__file__).resolve().parents[2])
SCHEMA = Schema(os.path.join(SOURCE, "proto"))
