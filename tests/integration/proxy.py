"""A link that fails on demand, between a client and the daemon: at any byte of either direction.

A Proxy listens on a unix socket or on loopback TCP and passes bytes on to the daemon's endpoint.
Each connection may have one Fault, which happens when so many bytes have gone in a direction.
"""
import os
import selectors
import socket
import struct
import threading

import rpc

UP, DOWN = 0, 1  # to the daemon, to the client
PIECE = 65536

KINDS = {
    "cut": "both ends see an orderly end",
    "reset": "both ends see a reset (an end, on unix sockets)",
    "truncate": "the receiver sees the end; what the sender still sends is lost; back all goes on",
    "half-close": "the sender sees the end of what comes back; in this direction all goes on",
    "delay": "nothing goes in this direction for a moment",
    "blackhole": "nothing goes either way, for good, and nobody is told",
    "hold": "as blackhole, until release()",
}


class Fault:
    def __init__(self, kind, direction=UP, offset=0, delay_s=0.004):
        assert kind in KINDS, kind
        self.kind, self.direction, self.offset, self.delay_s = kind, direction, offset, delay_s

    def __repr__(self):
        return f"{self.kind} {('up', 'down')[self.direction]} at {self.offset}"


def end(sock, reset=False):
    if reset and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Line:
    """One connection through the proxy; runs on a thread of its own."""

    def __init__(self, proxy, client, daemon, fault):
        self.proxy, self.fault = proxy, fault
        self.ends = [client, daemon]  # bytes of direction d come from ends[d], go to ends[1 - d]
        self.passed = [0, 0]
        self.open = [True, True]  # does the direction still go on?
        self.lost = [False, False]  # is what comes read and dropped?
        self.selector = selectors.DefaultSelector()
        self.happened = threading.Event()

    def run(self):
        for sock in self.ends:
            sock.setblocking(True)
        for direction in (UP, DOWN):
            self.selector.register(self.ends[direction], selectors.EVENT_READ, direction)
        self.selector.register(self.proxy.waker, selectors.EVENT_READ, None)
        try:
            if self.fault and self.fault.offset == 0 and not self.strike():
                return
            self.pass_on()
        except OSError:
            pass  # an end went away
        finally:
            for sock in self.ends:
                sock.close()
            self.selector.close()

    def pass_on(self):
        while any(self.open):
            for key, _ in self.selector.select():
                if key.data is None or not self.pass_piece(key.data):
                    return

    def pass_piece(self, direction):
        """False: it is over."""
        data = self.ends[direction].recv(PIECE)
        if not data:
            self.finish(direction)
            return True
        fault = self.fault
        if fault and fault.direction == direction:
            left = fault.offset - self.passed[direction]
            if len(data) >= left:
                self.send(direction, data[:left])
                if not self.strike():
                    return False
                data = data[left:]
        self.send(direction, data)
        return True

    def send(self, direction, data):
        if data and self.open[direction] and not self.lost[direction]:
            self.passed[direction] += len(data)  # before whoever gets them goes on
            self.proxy.passed[direction] += len(data)
            self.ends[1 - direction].sendall(data)

    def finish(self, direction):
        """The end of the stream in a direction, passed on."""
        if self.open[direction]:
            self.open[direction] = False
            self.selector.unregister(self.ends[direction])
            if not self.lost[direction]:
                self.ends[1 - direction].shutdown(socket.SHUT_WR)

    def strike(self):
        """The fault happens. False: the connection is over."""
        fault, self.fault = self.fault, None
        self.happened.set()
        if fault.kind in ("cut", "reset"):
            for sock in self.ends:
                end(sock, fault.kind == "reset")
            return False
        if fault.kind == "truncate":
            self.ends[1 - fault.direction].shutdown(socket.SHUT_WR)
            self.lost[fault.direction] = True
        elif fault.kind == "half-close":
            self.ends[fault.direction].shutdown(socket.SHUT_WR)
            self.lost[1 - fault.direction] = True
        elif fault.kind == "delay":
            self.proxy.ending.wait(fault.delay_s)
        elif fault.kind == "hold":
            self.proxy.released.wait()
        else:
            self.wait_for_ends()
            return False
        return not self.proxy.ending.is_set()

    def wait_for_ends(self):
        """Until the client or the daemon has had enough; what they send is read and dropped."""
        while True:
            for key, _ in self.selector.select():
                if key.data is None or not self.ends[key.data].recv(PIECE):
                    return


class Proxy:
    """upstream: the daemon's endpoint. plan() says what happens to the connections to come."""

    def __init__(self, upstream, path=None):
        self.upstream, self.path = upstream, path
        if path:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(path))
            self.endpoint = f"unix:{path}"
        else:
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.endpoint = "tcp://127.0.0.1:%d" % self.listener.getsockname()[1]
        self.listener.listen(64)
        self.waker, self.waking = socket.socketpair()
        self.ending, self.released = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.faults, self.every = [], None
        self.lines, self.threads = [], []
        self.connections, self.passed = 0, [0, 0]
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    # ---- what is to happen

    def plan(self, *faults, every=None):
        """These happen to the next connections, one each (None: no fault); `every` to all after
        them. Counters begin at 0."""
        with self.lock:
            self.faults, self.every = list(faults), every
            self.connections, self.passed[:] = 0, [0, 0]
            self.lines.clear()
            self.released.clear()

    def line(self, number):
        """A connection since plan(), or None."""
        with self.lock:
            return self.lines[number] if number < len(self.lines) else None

    def wait_for_fault(self, timeout_s):
        """Returns once a fault has happened."""
        deadline = threading.Event()
        for _ in range(int(timeout_s / 0.01)):
            with self.lock:
                if any(line.happened.is_set() for line in self.lines):
                    return
            deadline.wait(0.01)
        raise AssertionError("the fault never happened")

    def release(self):
        self.released.set()

    # ---- connections

    def _next_fault(self):
        return self.faults.pop(0) if self.faults else self.every

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if client.family != socket.AF_UNIX:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connect(client)

    def _connect(self, client):
        with self.lock:
            self.connections += 1
            fault = self._next_fault()
        try:
            daemon = rpc.dial(self.upstream, 10)
        except OSError:
            client.close()
            return
        line = Line(self, client, daemon, fault)
        thread = threading.Thread(target=line.run, daemon=True)
        with self.lock:
            self.lines.append(line)
            self.threads = [t for t in self.threads if t.is_alive()] + [thread]
        thread.start()

    def close(self):
        self.ending.set()
        self.released.set()
        self.waking.close()
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.thread.join()
        for thread in self.threads:
            thread.join()
        self.waker.close()
        if self.path and os.path.exists(self.path):
            os.unlink(self.path)
