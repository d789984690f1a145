"""One image file to uint8 (C, H, W), or a DataError that names the file and the reason.

What is done to unusual files: the EXIF orientation is applied; CMYK and palettes become RGB; 16 bits are reduced to
the upper 8; transparency is laid over white; of an animation the first frame counts. Formats outside the list
below are refused before their parser sees a byte, and so are pictures beyond MAX_PIXELS, before they are decoded.
"""

from __future__ import annotations

import io
import os
import shlex
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags
from PIL import Image as Pillow

from msresnet.data.jpeg import decode_frame, read_frame
from msresnet.data.sample import Image
from msresnet.errors import DataError
from msresnet.rows import escaped

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Of the MPO files of some cameras, which the JPEG parser takes, the first picture counts."""
_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}
EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
)
FOREIGN = frozenset((".heic", ".heif", ".avif", ".jxl", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".svg"))
"""How names of pictures end whose formats are not read here; whoever has such files wants to know it."""
MAX_PIXELS = 100_000_000
MAX_BYTES = 512 * 1024 * 1024
PIECE = 1 << 16
MIN_SIDE = 2
"""A side of one pixel holds no picture."""
_LFS = b"version https://git-lfs"
_FAILURES = (
    OSError, ValueError, SyntaxError, NotImplementedError, Pillow.DecompressionBombError, MemoryError, EOFError,
    TypeError, LookupError, ArithmeticError, struct.error, zlib.error,
)  # fmt: skip
"""Everything that Pillow raises on hostile files."""
Turn = tuple[bool, bool, bool]
"""What makes a picture upright: whether rows and columns change places, then rows are reversed, then columns."""
UPRIGHT: Turn = (False, False, False)
TURNS: dict[object, Turn] = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
"""By EXIF orientation. Pillow's `exif_transpose` also rewrites the block, which fails where any of it is malformed."""
Size = tuple[int, int]
T = TypeVar("T")
N = TypeVar("N", np.uint8, np.int64)


class _Silence:
    """No warnings while any thread decodes.

    `catch_warnings` in several threads at once would put the filters back in the wrong order, and silence the program.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.filters = threading.Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.filters = warnings.catch_warnings()
                self.filters.__enter__()
                warnings.simplefilter("ignore")
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.filters.__exit__(None, None, None)


_SILENCE = _Silence()


def decode_file(path: str | Path, at_least: Size | None = None) -> Image:
    """Read and decode an image file to uint8 (C, H, W), C = 1 for grey and 3 for RGB; `at_least` as below.

    Raises DataError, naming the file, for whatever is not a readable image; never waits on a pipe.
    """
    return decode_bytes(read_regular(path), str(path), at_least)


def read_regular(path: str | Path, limit: int = MAX_BYTES, most: int | None = None) -> bytes:
    """The bytes of a regular file. Raises DataError for pipes, folders, absent, unreadable or oversized ones.

    Args:
        path: of the file.
        limit: bytes of the largest file.
        most: bytes to read from its start. None: all.
    """
    where = printable(path)
    handle, size = _opened(path, where)
    try:
        if size > limit:
            raise DataError("the file is too large", where=where, why=f"{size:,} bytes, the limit is {limit:,}")
        return _read_all(handle, size, limit if most is None else most)
    except OSError as error:
        raise DataError("cannot read the file", where=where, why=_reason(error)) from error
    finally:
        os.close(handle)


def open_regular(path: str | Path) -> BinaryIO:
    """A regular file, open for reading, however large. Raises DataError for pipes, folders, absent ones."""
    handle, _ = _opened(path, printable(path))
    return os.fdopen(handle, "rb")


def _opened(path: str | Path, where: str) -> tuple[int, int]:
    """A regular file's handle, and its size in bytes."""
    try:
        # Non-blocking, so that opening a pipe without a writer returns at once.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise DataError("cannot open the file", where=where, why=_reason(error), hint=_way(path, error)) from error
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise DataError("not a regular file", where=where, why="it is a folder, a pipe or a device")
    return handle, status.st_size


def _way(path: str | Path, error: OSError | ValueError) -> str:
    """What to type when a file cannot be opened; '' where nothing is known to help. Cheap: many may be missing."""
    name = Path(os.fsdecode(path))
    there = isinstance(error, PermissionError) or os.path.lexists(name)
    if there and str(name).isprintable() and isinstance(error, PermissionError | FileNotFoundError):
        return f"ls -l -- {shlex.quote(printable(name))}"
    if not isinstance(error, FileNotFoundError):
        return ""
    parent = next(folder for folder in name.parents if folder.is_dir() or folder == folder.parent)
    return f"ls -- {shlex.quote(printable(parent))}"


def _read_all(handle: int, size: int, limit: int) -> bytes:
    """What a file holds, up to a limit; `size` is what it should be: a buffer of the limit's size takes its time."""
    pieces = [os.read(handle, min(size, limit))]
    while pieces[-1] and sum(map(len, pieces)) < limit:
        pieces.append(os.read(handle, min(PIECE, limit)))
    return pieces[0] if len(pieces) == 2 and not pieces[1] else b"".join(pieces)


def decode_bytes(data: bytes, where: str, at_least: Size | None = None) -> Image:
    """Decode an image from its bytes to uint8 (C, H, W). Raises DataError.

    Args:
        data: the content of the file.
        where: what to call it in an error.
        at_least: (H, W) in pixels: decode at no less than this where the format can reduce. None: whole.
    """
    return _judged(data, where, lambda name: _decode(data, name, at_least))


def decode_opened(image: Pillow.Image, where: str) -> Image:
    """What `decode_file` gives of the file that Pillow has opened, whole. Raises DataError, calling it `where`."""
    with decoding(where):
        _check_size(image.width, image.height, where)
        return upright(_pixels(image, where), turn_of(image))


def file_size(path: str | Path) -> Size:
    """(H, W) of an image file as `decode_file` gives it whole, from the file's head where that is enough.

    Raises DataError.
    """
    head = read_regular(path, most=PIECE)
    # Only of a JPEG is it known that nothing behind the header turns the picture.
    enough = len(head) < PIECE or read_frame(head) is not None
    return bytes_size(head if enough else read_regular(path), str(path))


def bytes_size(data: bytes, where: str) -> Size:
    """(H, W) of an image from its bytes, as `decode_bytes` gives it whole, from its header alone. Raises DataError."""
    return _judged(data, where, lambda name: _size(data, name))


def decode_values(path: str | Path) -> npt.NDArray[np.int64]:
    """The number of each pixel (H, W) of a mask's file: grey levels as they are, of a palette the indices.

    Raises DataError, naming the file, for what has no such numbers: colours, and JPEG, which changes them.
    """
    data = read_regular(path)
    return _judged(data, str(path), lambda name: _values(data, name))


def image_suffix(data: bytes, where: str) -> str:
    """How names of files of this format end: jpg, png, ... Raises DataError."""

    def read(_: str) -> str:
        with Pillow.open(io.BytesIO(data), formats=FORMATS) as image:
            form = str(image.format)
        return _SUFFIXES.get(form, form.lower())

    return _judged(data, where, read)


def _judged(data: bytes, where: str, read: Callable[[str], T]) -> T:
    """What `read` makes of the bytes, given their name. Raises DataError for all that goes wrong."""
    where = printable(where)
    if not data:
        raise DataError("the image file is empty", where=where)
    refuse_pointer(data, where)
    with decoding(where):
        return read(where)


@contextmanager
def decoding(where: str) -> Iterator[None]:
    """Turn everything that decoders raise into a DataError that names the image; their warnings are not shown."""
    try:
        with _SILENCE:
            yield
    except _FAILURES as error:
        if isinstance(error, DataError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        hint = "" if isinstance(error, MemoryError | NotImplementedError) else "fetch it again, or leave it out"
        if "cannot identify" in reason:
            reason, hint = "no image of a known format", f"if it is an image: convert it to one of {', '.join(FORMATS)}"
        raise DataError("cannot decode the image", where=where, why=reason, hint=hint) from error


def decode_part(data: bytes, form: str) -> Image:
    """Pixels (C, h, W) of some rows of an image, which were made a file of their own, as they lie in it.

    They equal what `decode_bytes` gives for these rows. Raises what decoders raise, within `decoding`.
    """
    frame = read_frame(data)
    if frame is not None and (pixels := decode_frame(data, frame.channels, None)) is not None:
        return pixels.transpose(2, 0, 1)
    with Pillow.open(io.BytesIO(data), formats=(form,)) as image:
        return _pixels(image, "")


def _pixels(image: Pillow.Image, where: str) -> Image:
    image.load()
    if image.mode == "F":
        raise DataError(
            "a floating-point image has no known range of values", where=where, hint="save it with 8 or 16 bits"
        )
    return to_array(image)


def refuse_pointer(start: bytes, where: str) -> None:
    """Raise DataError when a file's first bytes are those of a Git-LFS pointer."""
    if start.startswith(_LFS):
        raise DataError("a Git-LFS pointer stands in place of the data", where=where, hint="git lfs pull")


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def printable(path: str | Path) -> str:
    """A path that can be printed: control characters and bytes that are not text are escaped."""
    return escaped(os.fsdecode(path))


def _decode(data: bytes, where: str, at_least: Size | None) -> Image:
    frame = read_frame(data)
    if frame is not None and not frame.described:
        _check_size(frame.width, frame.height, where)
        if (pixels := decode_frame(data, frame.channels, at_least)) is not None:
            return pixels.transpose(2, 0, 1)
    with Pillow.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_size(image.width, image.height, where)
        turn = turn_of(image)
        if frame is not None and image.format in ("JPEG", "MPO"):
            low = at_least[::-1] if at_least is not None and turn[0] else at_least
            if (pixels := decode_frame(data, frame.channels, low)) is not None:
                return upright(pixels.transpose(2, 0, 1), turn)
        if image.format == "PNG":  # decoding alone skips the checksums of the pixels
            Pillow.open(io.BytesIO(data), formats=("PNG",)).verify()
        return upright(_pixels(image, where), turn)


def _values(data: bytes, where: str) -> npt.NDArray[np.int64]:
    with Pillow.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_size(image.width, image.height, where)
        if image.format in ("JPEG", "MPO", "WEBP"):
            why = f"{image.format} changes the values of pixels"
            raise DataError("this is not a file for masks", where=where, why=why, hint="PNG")
        image.load()
        grey = image.convert("L") if image.mode == "1" else image
        values = np.asarray(grey)
        if values.ndim == 3 and (values == values[:, :, :1]).all():
            values = values[:, :, 0]
        if values.ndim != 2 or values.dtype.kind not in "ui":
            hint = "a grey or palette PNG whose values are the classes"
            raise DataError("the mask's pixels are not numbers", where=where, why=f"mode {image.mode}", hint=hint)
        turned: npt.NDArray[np.int64] = upright(values[None].astype(np.int64), turn_of(image))[0]
        return turned


def _size(data: bytes, where: str) -> Size:
    frame = read_frame(data)
    if frame is not None and not frame.described:
        _check_size(frame.width, frame.height, where)
        return frame.height, frame.width
    with Pillow.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_size(image.width, image.height, where)
        return image.size if turn_of(image)[0] else (image.height, image.width)


def _check_size(width: int, height: int, where: str) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(
            "the image is too large", where=where, why=f"{width}x{height}, the limit is {MAX_PIXELS:,} pixels"
        )
    if min(width, height) < MIN_SIDE:
        raise DataError("the image is too small", where=where, why=f"{width}x{height} pixels hold no picture")


def turn_of(image: Pillow.Image) -> Turn:
    """What makes a picture upright."""
    if image.format == "TIFF":  # Pillow does it itself
        return UPRIGHT
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except _FAILURES:  # a malformed EXIF block says nothing; the pixels are good
        return UPRIGHT
    return TURNS.get(orientation, UPRIGHT)


def upright(pixels: npt.NDArray[N], turn: Turn) -> npt.NDArray[N]:
    """(C, H, W) turned."""
    swapped, rows_back, columns_back = turn
    pixels = pixels.transpose(0, 2, 1) if swapped else pixels
    pixels = pixels[:, ::-1] if rows_back else pixels
    return np.ascontiguousarray(pixels[:, :, ::-1] if columns_back else pixels) if any(turn) else pixels


def to_array(image: Pillow.Image) -> Image:
    """A Pillow image of integers as uint8 (C, H, W), C = 1 for grey and 3 for RGB."""
    if image.mode.startswith("I"):  # before transparency, which Pillow lays under 8 bits only
        return _deep(np.asarray(image))[None]
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        grey = image.mode in ("LA", "La", "L", "1")
        layer = image.convert("RGBA")
        white = Pillow.new("RGBA", layer.size, (255, 255, 255, 255))
        image = Pillow.alpha_composite(white, layer).convert("L" if grey else "RGB")
    if image.mode == "1":
        image = image.convert("L")
    array = np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    # (H, W) or (H, W, 3) -> (C, H, W), a view
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _deep(array: npt.NDArray[np.int32] | npt.NDArray[np.uint16]) -> Image:
    """16-bit or wider grey (H, W) to its upper 8 bits."""
    upper: Image = np.clip(array.astype(np.int64) >> 8, 0, 255).astype(np.uint8)
    return upper
