"""Requests and answers of the Open Inference Protocol, version 2, with its extension for binary tensors.

An input `images` is UINT8 (N, C, H, W) at the network's size, or BYTES (N,), each the file of an image: in JSON as
base64, in binary behind its length. N images, C channels, H and W pixels.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from msresnet.infer.backend import INPUT
from msresnet.serve.failures import MALFORMED, Refusal

Array = npt.NDArray[Any]
DATATYPES = {"FP32": "float32", "FP64": "float64", "INT32": "int32", "INT64": "int64", "UINT8": "uint8", "BOOL": "bool"}
NAMES = {np.dtype(kind): name for name, kind in DATATYPES.items()} | {np.dtype(object): "BYTES"}
KNOWN = (*DATATYPES, "BYTES", "INT8", "INT16", "UINT16", "UINT32", "UINT64", "FP16", "BF16")
HEADER = "Inference-Header-Content-Length"
JSON, BINARY = "application/json", "application/octet-stream"
SPARE = 10_000
"""Values, lists and texts of a request's JSON besides its images, at most."""


class Wanted(NamedTuple):
    """An output that is asked for, and whether as binary."""

    name: str
    binary: bool


@dataclass(frozen=True)
class Request:
    """What a client asks.

    Args:
        id: that the answer repeats.
        pixels: (N, C, H, W) uint8, or None.
        files: of N images, where there are no pixels.
        outputs: that are wanted; None is all of them.
        binary: whether outputs are binary where nothing else is said.
        timeout: seconds after which the answer is of no use; None where nothing is said.
    """

    id: str | None
    pixels: npt.NDArray[np.uint8] | None
    files: Sequence[bytes]
    outputs: Sequence[Wanted] | None
    binary: bool
    timeout: float | None

    def __len__(self) -> int:
        return len(self.files) if self.pixels is None else len(self.pixels)


def read_request(body: bytes, header: str | None, shape: tuple[int, int, int], most: int) -> Request:
    """A request from its body.

    Args:
        body: JSON, and binary tensors behind it.
        header: the bytes of the JSON, as the client wrote them; None for all.
        shape: (C, H, W) of the network's input.
        most: images in a request.

    Raises Refusal 400 for whatever is not as the protocol says.
    """
    length = _length(header, len(body))
    text = body[:length]
    _check_amount(text, shape, most)
    values = _object(_parsed(text), "the request")
    parameters = _object(values.get("parameters", {}), "parameters")
    inputs = _objects(values.get("inputs"), "inputs")
    if len(inputs) != 1 or inputs[0].get("name") != INPUT:
        raise _malformed("there must be one input", hint=f"'{INPUT}'")
    pixels, files = _images(inputs[0], memoryview(body)[length:], shape, most)
    name = values.get("id")
    if name is not None and not isinstance(name, str):
        raise _malformed("id is not text")
    binary = parameters.get("binary_data_output", False) is True
    return Request(name, pixels, files, _wanted(values.get("outputs"), binary), binary, _timeout(parameters))


def write_answer(
    request: Request, model: str, version: str, arrays: Mapping[str, Array]
) -> tuple[bytes, dict[str, str]]:
    """The answer's body and headers. Raises Refusal 400 for an output that there is not."""
    wanted = request.outputs or [Wanted(name, request.binary) for name in arrays]
    described, tail = [], []
    for name, binary in wanted:
        if name not in arrays:
            raise _malformed(f"there is no output {name[:60]!r}", hint=", ".join(arrays))
        one, data = _tensor(name, arrays[name], binary)
        described.append(one)
        tail.append(data)
    values: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": described}
    if request.id is not None:
        values["id"] = request.id
    text = json.dumps(values).encode()
    if any(binary for _, binary in wanted):
        return b"".join([text, *tail]), {"Content-Type": BINARY, HEADER: str(len(text))}
    return text, {"Content-Type": JSON}


def datatype(array: Array) -> str:
    """What the protocol calls an array's type."""
    return str(NAMES[array.dtype])


def _length(header: str | None, size: int) -> int:
    if header is None:
        return size
    if not (header.isascii() and header.isdecimal() and len(header) < 20 and int(header) <= size):
        raise _malformed(f"{HEADER} does not fit the body", why=f"{header[:40]!r} of {size:,} bytes")
    return int(header)


def _check_amount(text: bytes, shape: tuple[int, int, int], most: int) -> None:
    """Refuse more than images can have: nobody else is answered while it is read."""
    channels, height, width = shape
    rows = most * channels * height
    compound = sum(text.count(mark) for mark in (b"[", b"{", b'"'))
    if text.count(b",") > rows * width + SPARE or compound > 2 * rows + SPARE:
        raise _malformed("the request has more values than its images can have", why=f"at most {most} images")


def _parsed(text: bytes) -> Any:
    fractions = 0

    def fraction(number: str) -> float:
        nonlocal fractions
        fractions += 1
        if fractions > SPARE:
            raise _no_pixels()
        return float(number)

    try:
        return json.loads(text, parse_constant=_no_number, parse_float=fraction)
    except (ValueError, RecursionError) as error:
        raise _malformed("the request is not JSON") from error


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not a JSON number")


def _images(
    tensor: Mapping[str, Any], tail: memoryview, shape: tuple[int, int, int], most: int
) -> tuple[npt.NDArray[np.uint8] | None, list[bytes]]:
    """The pixels, or the files, of the one input."""
    kind, size = tensor.get("datatype"), _shape(tensor.get("shape"))
    if kind not in ("UINT8", "BYTES"):
        what = f"{INPUT} cannot be {kind}" if kind in KNOWN else "the datatype is not known"
        raise _malformed(what, hint="UINT8 pixels, or BYTES with files of images")
    wanted = shape if kind == "UINT8" else ((), (1,))[len(size) == 2]
    if not size or tuple(size[1:]) != wanted:
        hint = f"{kind} {['N', *wanted]}".replace("'", "")
        raise _malformed(f"{INPUT} has the wrong shape", why=str(size)[:60], hint=hint)
    if not 1 <= size[0] <= most:
        raise _malformed("too many images in a request, or none", why=f"1 to {most}")
    count = math.prod(size)
    binary = _object(tensor.get("parameters", {}), "parameters").get("binary_data_size")
    if binary is None:
        if tail:
            raise _malformed("bytes follow the JSON, and no input says that they are its own")
        data = tensor.get("data")
        return (_numbers(data, count).reshape(size), []) if kind == "UINT8" else (None, _texts(data, count))
    if "data" in tensor:
        raise _malformed(f"{INPUT} has data in the JSON and in binary")
    if isinstance(binary, bool) or binary != len(tail):
        raise _malformed("binary_data_size does not fit the body", why=f"{len(tail):,} bytes follow the JSON")
    if kind == "BYTES":
        return None, _split(tail, count)
    if len(tail) != count:
        raise _malformed("the binary tensor does not fit its shape", why=f"{len(tail):,} bytes for {count:,} values")
    return np.frombuffer(tail, np.uint8).reshape(size), []


def _shape(values: Any) -> list[int]:
    if not isinstance(values, list) or not 1 <= len(values) <= 8:
        raise _malformed("the shape is not a list of numbers")
    if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 31 for n in values):
        raise _malformed("the shape is not possible", why=str(values)[:60])
    return values


def _numbers(data: Any, count: int) -> npt.NDArray[np.uint8]:
    """Whole numbers from 0 to 255, flat or nested, as (count,) uint8."""
    if not isinstance(data, list):
        raise _malformed("the input has no data")
    values = _values(data)
    try:
        pixels = bytes(values)
    except (TypeError, ValueError):
        if list in map(type, values):
            raise _no_tensor() from None
        pixels = b""
    if len(values) != count:
        raise _malformed("the data does not fit its shape", why=f"{len(values):,} values, not {count:,}")
    if not pixels or all(isinstance(value, bool) for value in values):
        raise _no_pixels()
    return np.frombuffer(pixels, np.uint8)


def _values(data: list[Any]) -> list[Any]:
    """What the innermost lists hold, in one list.

    numpy would first make an array of whatever it is: of texts one that gives each the room of the longest.
    """
    while data and isinstance(data[0], list):
        if set(map(type, data)) != {list} or len(set(map(len, data))) > 1:
            raise _no_tensor()
        data = list(chain.from_iterable(data))
    return data


def _texts(data: Any, count: int) -> list[bytes]:
    """The files of images from base64, flat or one to a row."""
    if not isinstance(data, list):
        raise _malformed("the input has no data")
    flat = [item for row in data for item in (row if isinstance(row, list) else [row])]
    if len(flat) != count:
        raise _malformed("the data does not fit its shape", why=f"{len(flat):,} values, not {count:,}")
    try:
        return [base64.b64decode(text, validate=True) for text in flat]
    except (TypeError, ValueError, binascii.Error) as error:
        raise _malformed("the files of images are not in base64", hint="or send them as binary tensors") from error


def _split(tail: memoryview, count: int) -> list[bytes]:
    """The elements of a binary BYTES tensor, each behind its length in four bytes, the lowest first."""
    found = list(_elements(tail))
    if len(found) != count:
        raise _malformed("the binary tensor does not fit its shape", why=f"{len(found):,} elements, not {count:,}")
    return found


def _elements(tail: memoryview) -> Iterator[bytes]:
    place = 0
    while place < len(tail):
        size = int.from_bytes(tail[place : place + 4], "little")
        end = place + 4 + size
        if place + 4 > len(tail) or end > len(tail):
            raise _malformed("the binary tensor ends within an element")
        yield bytes(tail[place + 4 : end])
        place = end


def _wanted(values: Any, binary: bool) -> list[Wanted] | None:
    if values is None:
        return None
    found = []
    for value in _objects(values, "outputs"):
        name = value.get("name")
        if not isinstance(name, str):
            raise _malformed("an output has no name")
        parameters = _object(value.get("parameters", {}), "parameters")
        found.append(Wanted(name, parameters.get("binary_data", binary) is True))
    return found or None


def _timeout(parameters: Mapping[str, Any]) -> float | None:
    """Seconds from the microseconds that clients write."""
    value = parameters.get("timeout")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 50:
        raise _malformed("the timeout is not a whole number of microseconds")
    return value / 1e6


def _tensor(name: str, array: Array, binary: bool) -> tuple[dict[str, Any], bytes]:
    """An output as JSON, and what follows it as binary."""
    values: dict[str, Any] = {"name": name, "datatype": datatype(array), "shape": list(array.shape)}
    if not binary:
        return values | {"data": array.ravel().tolist()}, b""
    if array.dtype == object:
        texts = [str(text).encode() for text in array.ravel()]
        data = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    else:
        data = np.ascontiguousarray(array).tobytes()
    return values | {"parameters": {"binary_data_size": len(data)}}, data


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed(f"{name} is not a JSON object")
    return value


def _objects(value: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or len(value) > 64:
        raise _malformed(f"{name} is not a list")
    return [_object(one, f"one of {name}") for one in value]


def _no_tensor() -> Refusal:
    return _malformed("the data is not a tensor")


def _no_pixels() -> Refusal:
    return _malformed("the data are not whole numbers from 0 to 255")


def _malformed(what: str, why: str = "", hint: str = "") -> Refusal:
    return Refusal(MALFORMED, what, why=why, hint=hint)
