"""ttrpc frames, without I/O: a header of ten bytes, then the data. See docs/PROTOCOL.md."""
import struct

from .errors import LinkLost, ProtocolError

HEADER = struct.Struct(">IIBB")  # length of the data, stream id, type, flags
REQUEST, RESPONSE = 1, 2
DATA_MAX = 4 << 20
STREAM_MAX = (1 << 31) - 1


def request_frame(stream, data):
    if len(data) > DATA_MAX:
        raise ValueError(f"a request of {len(data)} bytes, expected at most {DATA_MAX}")
    return HEADER.pack(len(data), stream, REQUEST, 0) + data


class FrameReader:
    """Bytes in, frames out. Holds one frame's bytes at most, and what was fed beyond it."""

    def __init__(self):
        self._buffer = bytearray()

    def feed(self, data):
        """Takes what was received; gives each response that is whole now, as (stream, data).

        Raises ProtocolError at the first header that is not one of a response; what comes after it
        has no meaning, and the reader must not be used again.
        """
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            length, stream, kind, _ = HEADER.unpack_from(self._buffer)
            if length > DATA_MAX:
                raise ProtocolError(f"a frame of {length} bytes, expected at most {DATA_MAX}")
            if kind != RESPONSE:
                raise ProtocolError(f"a frame of type {kind}, expected {RESPONSE}, a response")
            end = HEADER.size + length
            if len(self._buffer) < end:
                break
            frame = bytes(self._buffer[HEADER.size:end])
            del self._buffer[:end]
            yield stream, frame

    def finish(self):
        """The stream has ended: raises LinkLost, which says whether that was amid a frame."""
        if self._buffer:
            raise LinkLost("the connection ended in the middle of a frame, "
                           f"after {len(self._buffer)} bytes of it")
        raise LinkLost("the server closed the connection")
