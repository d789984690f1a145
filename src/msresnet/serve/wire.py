"""What the server and a worker process say to each other: a header of JSON, then the bytes of an array."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Header = dict[str, Any]
_LENGTHS = struct.Struct("<IQ")
Array = npt.NDArray[Any]


def pack(header: Header, array: Array | None = None) -> list[bytes | memoryview]:
    """A message in parts; an array's dtype and shape go into the header."""
    if array is None:
        text = json.dumps(header).encode()
        return [_LENGTHS.pack(len(text), 0), text]
    array = np.ascontiguousarray(array)
    text = json.dumps(header | {"dtype": str(array.dtype), "shape": list(array.shape)}).encode()
    return [_LENGTHS.pack(len(text), array.nbytes), text, array.data.cast("B") if array.size else b""]


def unpack(text: bytes, data: bytes | bytearray) -> tuple[Header, Array | None]:
    """The header and the array of a message. Raises ValueError when they disagree."""
    header: Header = json.loads(text)
    if "shape" not in header:
        return header, None
    shape: Sequence[int] = header["shape"]
    dtype = np.dtype(header["dtype"])
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes for {header['dtype']} {shape}")
    return header, np.frombuffer(data, dtype).reshape(shape)


async def read(reader: asyncio.StreamReader) -> tuple[Header, Array | None]:
    """The next message. Raises IncompleteReadError when the other side is gone."""
    head, body = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
    text = await reader.readexactly(head)
    return unpack(text, await reader.readexactly(body))


async def write(writer: asyncio.StreamWriter, header: Header, array: Array | None = None) -> None:
    """Send a message. Raises ConnectionError when the other side is gone."""
    writer.writelines(pack(header, array))
    await writer.drain()


def receive(connection: socket.socket) -> tuple[Header, Array | None]:
    """The next message, blocking. Raises EOFError when the other side is gone."""
    head, body = _LENGTHS.unpack(_exactly(connection, _LENGTHS.size))
    text = bytes(_exactly(connection, head))
    return unpack(text, _exactly(connection, body))


def send(connection: socket.socket, header: Header, array: Array | None = None) -> None:
    """Send a message, blocking. Raises OSError when the other side is gone."""
    for part in pack(header, array):
        connection.sendall(part)


def _exactly(connection: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        read = connection.recv_into(view)
        if read == 0:
            raise EOFError("the other side is gone")
        view = view[read:]
    return data
