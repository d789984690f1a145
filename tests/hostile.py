"""Files as the world has them: seeded images in the real formats, and damaged or hostile ones."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

Bytes = npt.NDArray[np.uint8]
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def random_pixels(*shape: int, seed: int = 0) -> Bytes:
    """Random bytes of a shape."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth_pixels(height: int, width: int) -> Bytes:
    """(H, W, 3): gradients that JPEG keeps nearly as they are, different at every corner."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = 255 * rows / (height - 1), 255 * columns / (width - 1)
    return np.stack([red, green, (red + green) / 2], 2).round().astype(np.uint8)


def encode(image: Bytes | Pillow.Image, form: str, **options: Any) -> bytes:
    """(H, W) or (H, W, C), or a Pillow image, as the bytes of a file."""
    buffer = io.BytesIO()
    picture = image if isinstance(image, Pillow.Image) else Pillow.fromarray(image)
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def laid_down(upright: Bytes, orientation: int) -> Bytes:
    """How a camera of this orientation lays the pixels down, from the EXIF standard's table of row 0 and column 0."""
    tall = upright if orientation < 5 else upright.transpose(1, 0, 2)
    rows_back, columns_back = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}[
        orientation
    ]
    tall = tall[::-1] if rows_back else tall
    return np.ascontiguousarray(tall[:, ::-1] if columns_back else tall)


def truncated_jpeg() -> bytes:
    """Opens, and fails in decoding."""
    whole = encode(random_pixels(64, 64, 3), "JPEG")
    return whole[: len(whole) // 2]


def png_with_a_bad_checksum() -> bytes:
    """The last byte of the pixels' checksum is flipped."""
    data = bytearray(encode(random_pixels(16, 16, 3), "PNG"))
    data[data.index(b"IEND") - 5] ^= 0xFF
    return bytes(data)


def png_claiming(width: int, height: int) -> bytes:
    """A one-bit PNG of a few hundred bytes, with a true header and too few rows."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(bytes(1000)))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def gif_bomb() -> bytes:
    """A screen of 65,535 x 65,535 pixels in a few bytes."""
    data = bytearray(encode(random_pixels(8, 8), "GIF"))
    data[6:10] = struct.pack("<HH", 65535, 65535)
    return bytes(data)


def ico_bomb() -> bytes:
    """An icon whose picture is a PNG of 50,000 x 50,000 pixels."""
    png = png_claiming(50_000, 50_000)
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 1, len(png), 22) + png


def bmp_with_an_absurd_width() -> bytes:
    """2^31 - 1 pixels wide."""
    data = bytearray(encode(random_pixels(8, 8, 3), "BMP"))
    data[18:22] = struct.pack("<i", 2**31 - 1)
    return bytes(data)


def foreign_formats() -> dict[str, bytes]:
    """What Pillow could parse, or a person could try, and the allow-list leaves out."""
    return {
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
        "PDF": encode(random_pixels(8, 8, 3), "PDF"),
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"></svg>',
        "FITS": (b"SIMPLE  =                    T".ljust(80) + b"END".ljust(80)).ljust(2880),
        "ICO": ico_bomb(),
    }


def mutated(data: bytes, seed: int) -> bytes:
    """The bytes with some changed, mostly near the start, and perhaps the end cut off."""
    random = np.random.default_rng(seed)
    copy = bytearray(data)
    for _ in range(random.integers(1, 8)):
        copy[random.integers(0, min(len(copy), random.choice([40, 150, len(copy)])))] = random.integers(0, 256)
    return bytes(copy[: random.integers(1, len(copy))] if random.random() < 0.2 else copy)


def idx(array: Bytes) -> bytes:
    """An array as an IDX file, byte by byte from the format's description."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def idx_header(*shape: int) -> bytes:
    """A header alone, whatever it claims."""
    return bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)


def write_idx_pair(folder: Path, images: Bytes, labels: Bytes, prefix: str = "train", zipped: bool = False) -> Path:
    """The two files under MNIST's names; gives the path of the images."""
    folder.mkdir(parents=True, exist_ok=True)
    end, pack = (".gz", gzip.compress) if zipped else ("", bytes)
    (folder / f"{prefix}-labels-idx1-ubyte{end}").write_bytes(pack(idx(labels)))
    path = folder / f"{prefix}-images-idx3-ubyte{end}"
    path.write_bytes(pack(idx(images)))
    return path


def write_classes(root: Path, counts: dict[str, int], side: int = 8, seed: int = 0) -> Path:
    """Class folders with so many PNG files each, all different."""
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = random_pixels(side, side, seed=seed + 100_000 * number + index)
            (root / name / f"{index:04d}.png").write_bytes(encode(pixels, "PNG"))
    return root


def spoil(root: Path, names: Sequence[str]) -> None:
    """Replace some files below a folder by half a JPEG."""
    for name in names:
        (root / name).write_bytes(truncated_jpeg())
