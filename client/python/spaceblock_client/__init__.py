"""A client of spaceblockd.

    with Client("unix:/run/spaceblock/spaceblockd.sock") as client:
        client.Params.Put(image=image("probe"), id=42, value=b"3.14159")

It needs python3-protobuf, and the modules that protoc makes of proto/ on the path; README.md says
how. Framing and connections are its own, in framing.py and link.py.
"""
from .client import Client, image
from .crc32c import crc32c
from .errors import Code, DeadlineExceeded, Error, LinkLost, ProtocolError, RpcError
from .products import download, upload

__all__ = ["Client", "Code", "DeadlineExceeded", "Error", "LinkLost", "ProtocolError", "RpcError",
           "crc32c", "download", "image", "upload"]
