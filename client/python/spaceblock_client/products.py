"""Data products as a whole: in chunks, each with its CRC-32C, and going on after a lost link."""
import io

from .client import CHUNK_MIN
from .crc32c import crc32c
from .errors import Error, RpcError

CHUNK = 1 << 20


def upload(client, image, name, source, *, product_class=0, priority=0, replace=False):
    """Stores a product; gives it as the daemon lists it. Nothing of it shows before it is whole.

    source: bytes, or a binary file that can seek.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(source)
    size = source.seek(0, io.SEEK_END)
    started = client.Uploads.Start(size=size, product={
        "image": image, "name": name.encode(), "product_class": product_class,
        "priority": priority, "replace": replace})
    try:
        crc = _send_chunks(client, started, source, size)
        return client.Uploads.Finish(upload_id=started.upload_id, crc32c=crc).product
    except RpcError:
        _abort(client, started.upload_id)
        raise


def _send_chunks(client, started, source, size):
    """Writes all chunks; gives the CRC of all bytes."""
    offset = hashed = whole = 0
    while offset < size:
        source.seek(offset)
        chunk = source.read(min(started.chunk_size_max, size - offset))
        if not chunk:
            raise Error(f"the source ended at {offset} bytes of {size}")
        # After a step back, some of the bytes are in the CRC already.
        new = chunk[hashed - offset:]
        whole, hashed = crc32c(new, whole), hashed + len(new)
        offset = _send_chunk(client, started.upload_id, offset, chunk)
    return whole


def _send_chunk(client, upload_id, offset, chunk):
    """Writes one chunk; gives the offset of the next."""
    try:
        return client.Uploads.Write(upload_id=upload_id, offset=offset, data=chunk,
                                    crc32c=crc32c(chunk)).next_offset
    except RpcError as error:
        if error.reason != "WRONG_STATE":
            raise
        # The daemon has less than it had: it was started anew, and lost what was not durable.
        next_offset = client.Uploads.Status(upload_id=upload_id).next_offset
        if next_offset >= offset:
            raise
        return next_offset


def _abort(client, upload_id):
    """Gives the reserved space back. Where that fails too, the daemon does it after a day."""
    try:
        client.Uploads.Abort(upload_id=upload_id)
    except Error:
        pass


def download(client, image, name, sink=None):
    """Reads a product and checks it, piece by piece and as a whole.

    sink: a binary file that the bytes are written to; None: they are returned. An Error raised
    after the first bytes were written means that they are not to be relied on.
    """
    out = io.BytesIO() if sink is None else sink
    product = client.DataProducts.Get(image=image, name=name.encode()).product
    offset = whole = 0
    while offset < product.length:
        length = min(product.length - offset, CHUNK)
        if length > CHUNK_MIN:
            length = min(length, client.chunk_max())
        piece = client.DataProducts.Read(image=image, name=name.encode(), offset=offset,
                                         identity=product.identity, length=length)
        if not piece.data or crc32c(piece.data) != piece.crc32c:
            raise Error(f"{name}: {len(piece.data)} bytes at {offset} came without their CRC")
        out.write(piece.data)
        whole, offset = crc32c(piece.data, whole), offset + len(piece.data)
    if offset != product.length or whole != product.crc32c:
        raise Error(f"{name}: found {offset} bytes with CRC {whole:08x}, expected {product.length} "
                    f"with {product.crc32c:08x}")
    return out.getvalue() if sink is None else None
