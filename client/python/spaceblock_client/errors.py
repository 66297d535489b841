"""What can go wrong with a call. Every exception that the package raises is an Error."""
import enum

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2


class Code(enum.IntEnum):
    """The canonical codes; docs/PROTOCOL.md says which the daemon uses for what."""
    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Error(Exception):
    """Any failure of a call."""


class LinkLost(Error):
    """The connection ended, or none could be made. The call may or may not have happened."""


class ProtocolError(Error):
    """The server sent what it must not send. The call may or may not have happened."""


class RpcError(Error):
    """The server refused the call, or failed in it.

    code      a Code, or the bare number where it has none
    message   what was tried, found and expected
    reason    a name of ErrorReason without its prefix, such as "NOT_FOUND"; "" where none came
    domain    whose reason it is: "spaceblock"
    metadata  dict, what the error is about
    violations     dict, of INVALID_ARGUMENT: field to what is wrong with it
    retry_after_s  when to try again, where the server tells; else None
    """

    def __init__(self, what, code, message, reason="", details=()):
        self.code = Code(code) if code in set(Code) else code
        self.message, self.reason, self.domain = message, reason, ""
        self.metadata, self.violations, self.retry_after_s = {}, {}, None
        for detail in details:
            self._take(detail)
        name = getattr(self.code, "name", f"code {self.code}")
        super().__init__(f"{what}: {name} {self.reason}: {message}")

    def _take(self, detail):
        """Reads one google.protobuf.Any. What is unknown, or does not parse, is left out."""
        kind = detail.type_url.rpartition("/")[2]
        try:
            if kind == "google.rpc.ErrorInfo":
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                self.reason, self.domain = info.reason, info.domain
                self.metadata = dict(info.metadata)
            elif kind == "google.rpc.BadRequest":
                bad = error_details_pb2.BadRequest.FromString(detail.value)
                self.violations = {v.field: v.description for v in bad.field_violations}
            elif kind == "google.rpc.RetryInfo":
                delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
                self.retry_after_s = max(0.0, delay.seconds + delay.nanos / 1e9)
        except DecodeError:
            pass


class DeadlineExceeded(RpcError):
    """The deadline passed, there or here. The call may or may not have happened."""


def deadline_exceeded(what, text):
    """One that this side found out."""
    return DeadlineExceeded(what, Code.DEADLINE_EXCEEDED, text, "DEADLINE")


def of_status(what, status):
    """The exception for a google.rpc.Status that is not OK."""
    kind = DeadlineExceeded if status.code == Code.DEADLINE_EXCEEDED else RpcError
    return kind(what, status.code, status.message, details=status.details)
