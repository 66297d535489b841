"""One connection, which any number of threads may call over at once.

A thread of its own reads, and hands each answer to the caller that waits for it. Once the link
has ended, for whatever reason, every caller gets that reason, now and later; the client makes a new
one.

Two locks: `_sending` is held while a frame goes out, so that frames are whole and stream ids rise
on the wire; `_state` guards what the reader and the callers share, and is never held over I/O.
"""
import concurrent.futures
import select
import socket
import threading
import time

from .errors import Error, LinkLost, ProtocolError, deadline_exceeded
from .framing import STREAM_MAX, FrameReader, request_frame

IN_FLIGHT_MAX = 64  # calls that the daemon takes at once on a connection
PIECE = 1 << 18
UNACKNOWLEDGED_MS = 30_000  # then the kernel gives a TCP connection up


def seconds_left(deadline):
    return max(0.0, deadline - time.monotonic())


def dial(endpoint, timeout_s):
    """Connects to unix:PATH or tcp://HOST:PORT."""
    kind, _, rest = endpoint.partition(":")
    host, _, port = rest.removeprefix("//").rpartition(":")
    if not (kind == "unix" and rest or kind == "tcp" and host and port.isdecimal()):
        raise ValueError(f"endpoint {endpoint!r}, expected unix:PATH or tcp://HOST:PORT")
    try:
        sock = (_connect_unix(rest, timeout_s) if kind == "unix"
                else _connect_tcp(host.strip("[]"), int(port), timeout_s))
    except OSError as error:
        raise LinkLost(f"connecting to {endpoint}: {error}") from error
    sock.settimeout(None)
    return sock


def _connect_unix(path, timeout_s):
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(timeout_s)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_tcp(host, port, timeout_s):
    sock = socket.create_connection((host, port), timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
    return sock


def again(error):
    """The same exception for another caller: each adds a traceback of its own."""
    return type(error)(*error.args)


class Link:
    def __init__(self, sock):
        self._sock = sock
        self._sending = threading.Lock()
        self._state = threading.Condition()
        self._pending = {}  # stream id to the Future of its answer; cancelled: nobody waits
        self._next_stream = 1
        self._ended = None  # the exception that says why
        self._retired = False
        threading.Thread(target=self._read, name="spaceblock-link", daemon=True).start()

    def is_open(self):
        with self._state:
            return self._ended is None

    def is_used_up(self):
        """Have the stream ids run out? Calls that wait for an answer still get it."""
        return self._next_stream > STREAM_MAX

    def exchange(self, what, data, deadline):
        """Sends one request and waits for its answer: the data of the response's frame."""
        if not self._sending.acquire(timeout=seconds_left(deadline)):
            raise deadline_exceeded(what, "other calls were still being sent; this one was not")
        try:
            stream, answer = self._register(what, deadline)
            self._send(what, request_frame(stream, data), deadline)
        finally:
            self._sending.release()
        try:
            return answer.result(seconds_left(deadline))
        except concurrent.futures.TimeoutError:
            if answer.cancel():
                raise deadline_exceeded(what, "no answer came in time") from None
            return answer.result()  # it came just now

    def retire(self):
        """No further calls: ends the link once the last one has its answer."""
        with self._state:
            self._retired = True
            idle = not self._pending
        if idle:
            self.close()

    def close(self):
        self._end(LinkLost("the client closed the connection"))

    def _register(self, what, deadline):
        """Waits until the daemon takes one more call; gives its stream id and Future."""
        with self._state:
            if not self._state.wait_for(lambda: self._ended or len(self._pending) < IN_FLIGHT_MAX,
                                        seconds_left(deadline)):
                raise deadline_exceeded(what, f"{IN_FLIGHT_MAX} calls were still unanswered; this "
                                              "one was not sent")
            if self._ended:
                raise again(self._ended)
            stream, self._next_stream = self._next_stream, self._next_stream + 2
            answer = self._pending[stream] = concurrent.futures.Future()
            return stream, answer

    def _send(self, what, frame, deadline):
        left = memoryview(frame)
        writable = select.poll()
        writable.register(self._sock, select.POLLOUT)
        try:
            while left:
                try:
                    left = left[self._sock.send(left, socket.MSG_DONTWAIT):]
                except BlockingIOError:
                    if not writable.poll(seconds_left(deadline) * 1000):
                        # Half a frame is out, and there is no way to take it back.
                        self._end(LinkLost("the server did not read a request in time"))
                        raise deadline_exceeded(what, "the server did not read it") from None
        except OSError as error:
            self._end(LinkLost(f"sending: {error}"))
            raise LinkLost(f"sending: {error}") from error

    def _read(self):
        frames = FrameReader()
        reason = LinkLost("the reading thread ended")
        try:
            while data := self._sock.recv(PIECE):
                for stream, answer in frames.feed(data):
                    self._settle(stream, answer)
            frames.finish()
        except Error as error:
            reason = error
        except OSError as error:
            reason = LinkLost(f"receiving: {error}")
        finally:
            self._end(reason)
            with self._sending:  # or the descriptor's number may be another's when it is sent on
                self._sock.close()

    def _settle(self, stream, answer):
        with self._state:
            future = self._pending.pop(stream, None)
            self._state.notify()
            idle = self._retired and not self._pending
        if future is None:
            raise ProtocolError(f"an answer on stream {stream}, where no call waits for one")
        try:
            future.set_result(answer)
        except concurrent.futures.InvalidStateError:
            pass  # it was given up
        if idle:
            self.close()

    def _end(self, reason):
        with self._state:
            if self._ended:
                return
            self._ended = reason
            pending, self._pending = self._pending, {}
            self._state.notify_all()
        try:
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes the reader, and who is sending
        except OSError:
            pass  # it is not connected any more
        for future in pending.values():
            try:
                future.set_exception(again(reason))
            except concurrent.futures.InvalidStateError:
                pass
