"""The client: services and their methods as Python has them, deadlines, and another try on a link
that was lost.
"""
import functools
import random
import threading
import time
import uuid

from google.protobuf.message import DecodeError

from .errors import Code, LinkLost, ProtocolError, RpcError, deadline_exceeded, of_status
from .link import Link, dial, seconds_left
from .messages import SERVICES, ImageRef, Request, Response, message_class

# The wait before the n-th further try is random, between nothing and the smaller of these two:
BACKOFF_S = 0.05  # times 2^n
BACKOFF_MAX_S = 2.0

CHUNK_MIN = 1 << 16  # bytes that every daemon takes and gives at once


def image(name):
    """The ImageRef of "NAME", or of another tenant's "TENANT/NAME"."""
    tenant, slash, own = name.rpartition("/")
    return ImageRef(tenant=int(tenant), name=own.encode()) if slash else ImageRef(name=own.encode())


class Service:
    """A service: each of its methods is an attribute. Client.call says what they take."""

    def __init__(self, client, descriptor):
        self._client, self._descriptor = client, descriptor

    def __getattr__(self, name):
        method = self._descriptor.methods_by_name.get(name)
        if method is None:
            raise AttributeError(f"{self._descriptor.full_name} has no method {name}")
        return functools.partial(self._client.call, method)


class Client:
    """A client of one daemon. May be used by many threads at once; they share a connection.

    endpoint   unix:PATH or tcp://HOST:PORT; connected to when the first call is made
    timeout_s  of each call that has none of its own

    Services are attributes: client.Params.Get(image=image("probe"), id=42).
    """

    def __init__(self, endpoint, timeout_s=30.0):
        self.endpoint, self.timeout_s = endpoint, timeout_s
        self.connections_made = 0
        self._link = None
        self._chunk_max = None  # as the daemon of this connection told
        self._linking = threading.Lock()
        self._closed = threading.Event()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def __getattr__(self, name):
        if name not in SERVICES:
            raise AttributeError(f"no service {name}")
        return Service(self, SERVICES[name])

    def close(self):
        """Ends the connection; calls that are still running raise LinkLost."""
        self._closed.set()
        with self._linking:
            if self._link:
                self._link.close()

    def chunk_max(self):
        """The longest chunk, in bytes, that the daemon takes and gives; asked once a connection."""
        chunk_max = self._chunk_max
        if not chunk_max:
            chunk_max = self._chunk_max = self.Server.Info().chunk_bytes_max or CHUNK_MIN
        return chunk_max

    def call(self, method, request=None, /, *, timeout_s=None, retry=True, **fields):
        """One call; gives its response, or raises an Error.

        method     a method's descriptor; client.SERVICE.METHOD fills it in
        request    its request message; or the message's fields by name
        timeout_s  until when it must have ended, with all its tries; the daemon is told
        retry      whether to try again where the link is lost, the daemon is about to go, or an
                   earlier try is still at work. That is the same request with the same request_id,
                   which a changing call gets here if it has none, so that the daemon can tell a
                   repeat
        """
        what = f"{method.containing_service.name}.{method.name}"
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        payload = _with_request_id(method, request, fields).SerializeToString()
        tries = 0
        while True:
            try:
                return self._try(what, method, payload, deadline)
            except (LinkLost, RpcError) as error:
                delay = _delay_s(error, tries)
                if not retry or delay is None or delay >= seconds_left(deadline):
                    raise
            tries += 1
            if self._closed.wait(delay):
                raise LinkLost("the client was closed")

    def _try(self, what, method, payload, deadline):
        link = self._linked(what, deadline)
        left = seconds_left(deadline)
        if left <= 0:
            raise deadline_exceeded(what, "it passed before the request was sent")
        envelope = Request(service=method.containing_service.full_name, method=method.name,
                           payload=payload, timeout_nano=max(1, int(left * 1e9)))
        data = link.exchange(what, envelope.SerializeToString(), deadline)
        try:
            answer = Response.FromString(data)
            if answer.status.code != Code.OK:
                raise of_status(what, answer.status)
            return message_class(method.output_type).FromString(answer.payload)
        except DecodeError as error:
            raise ProtocolError(f"{what}: an answer that does not parse: {error}") from error

    def _linked(self, what, deadline):
        """The link in use, or a new one."""
        if not self._linking.acquire(timeout=seconds_left(deadline)):
            raise deadline_exceeded(what, "there was still no connection; it was not sent")
        try:
            if self._closed.is_set():
                raise LinkLost("the client was closed")
            if self._link and self._link.is_used_up():
                self._link.retire()
                self._link = None
            if self._link is None or not self._link.is_open():
                # A timeout of nothing would mean not to block at all.
                self._link = Link(dial(self.endpoint, max(0.001, seconds_left(deadline))))
                self.connections_made += 1
                self._chunk_max = None  # a daemon that was started anew may have other limits
            return self._link
        finally:
            self._linking.release()


def _with_request_id(method, request, fields):
    """The request message to send. The caller's own is not touched: it may be used again."""
    kind = message_class(method.input_type)
    if request is None:
        request = kind(**fields)
    elif fields or not isinstance(request, kind):
        raise TypeError(f"expected a {kind.__name__}, or fields of one, found "
                        f"{type(request).__name__} and {sorted(fields)}")
    if "request_id" in kind.DESCRIPTOR.fields_by_name and not request.request_id:
        copy = kind()
        copy.CopyFrom(request)
        copy.request_id = str(uuid.uuid4())
        return copy
    return request


def _delay_s(error, tries):
    """How long to wait before trying again; None: trying again is of no use."""
    delay = random.uniform(0, min(BACKOFF_MAX_S, BACKOFF_S * 2 ** min(tries, 16)))
    if isinstance(error, LinkLost):
        return delay
    # The second one: an earlier try of ours is still at work, and its result can be had later.
    if error.code == Code.UNAVAILABLE or error.reason == "STILL_RUNNING":
        return max(delay, error.retry_after_s or 0)
    return None
