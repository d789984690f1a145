"""Images in bands of rows: the pixels of whole decoding, whatever the format; damage is told; nothing is too large."""

from __future__ import annotations

import contextlib
import io
import itertools
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import TiffImagePlugin

import hostile
from hostile import Bytes, encode
from msresnet.data.bands import base
from msresnet.data.bands.base import Bands
from msresnet.data.bands.huffman import Table
from msresnet.data.bands.opened import open_bands
from msresnet.data.decode import decode_bytes, upright
from msresnet.errors import DataError

HEIGHT, WIDTH = 203, 149


@pytest.fixture(autouse=True)
def _small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many bands, although the images are small."""
    monkeypatch.setattr(base, "BAND_BYTES", 1024)


def scene(height: int = HEIGHT, width: int = WIDTH) -> Pillow.Image:
    """Shading, edges and noise."""
    rows, columns = np.mgrid[0:height, 0:width]
    shade = 90 + 50 * np.sin(rows / 17) * np.cos(columns / 23) + 40 * ((rows // 31 + columns // 19) % 3)
    grey = shade + np.random.default_rng(0).normal(0, 9, shade.shape)
    return Pillow.fromarray(np.stack([grey, 250 - grey, grey * 0.5 + 60], 2).clip(0, 255).astype(np.uint8))


def opened(data: bytes) -> Bands:
    return open_bands(io.BytesIO(data), "x")


def joined(bands: Bands) -> Bytes:
    return upright(np.concatenate([*bands.rows()], 1), bands.turn)


def check(data: bytes, several: bool = True) -> Bands:
    """The bands joined are what whole decoding gives."""
    bands, whole = opened(data), decode_bytes(data, "x")
    assert np.array_equal(joined(bands), whole)
    assert bands.size == whole.shape[1:]
    assert (bands.note == "") == several
    assert len([*bands.rows()]) > 1 or not several
    return bands


def jpegs() -> Iterator[Any]:
    for quality, sampling, optimised in itertools.product((30, 95), (0, 1, 2), (False, True)):
        options = {"quality": quality, "subsampling": sampling, "optimize": optimised}
        yield pytest.param(options, id=f"{quality}-{sampling}-{'own' if optimised else 'usual'} tables")
    for rows in (1, 2):
        yield pytest.param({"restart_marker_rows": rows}, id=f"restart after {rows} rows")
    for blocks in (2, 5, 10):  # a row has 10 units
        yield pytest.param({"restart_marker_blocks": blocks}, id=f"restart after {blocks} units")


@pytest.mark.parametrize("options", [*jpegs()])
def test_jpeg(options: dict[str, Any]) -> None:
    check(encode(scene(), "JPEG", **options))


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (8, 2000), (2000, 8), (64, 65)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_of_any_size(size: tuple[int, int], mode: str) -> None:
    data = encode(scene(*size).convert(mode), "JPEG")
    assert np.array_equal(joined(opened(data)), decode_bytes(data, "x"))


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (250, 3, 90)])
def test_jpeg_of_one_colour_whose_tables_hold_hardly_a_code(colour: tuple[int, int, int]) -> None:
    check(encode(Pillow.new("RGB", (WIDTH, HEIGHT), colour), "JPEG", optimize=True))


def test_jpeg_of_noise_with_the_largest_coefficients() -> None:
    noise = Pillow.fromarray(hostile.random_pixels(HEIGHT, WIDTH, 3) // 255 * 255)
    for quality in (1, 50, 100):
        check(encode(noise, "JPEG", quality=quality, subsampling=0))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_I14_every_orientation(form: str, orientation: int) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    lying = hostile.laid_down(np.asarray(scene()), orientation)
    bands = check(encode(lying, form, exif=exif))
    assert bands.size == (HEIGHT, WIDTH)


def pngs() -> Iterator[Any]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield pytest.param(scene().convert(mode), {}, id=mode)
    yield pytest.param(Pillow.fromarray(np.asarray(scene().convert("L")).astype(np.uint16) * 257), {}, id="16 bits")
    for bits in (1, 2, 4):
        small = scene().convert("P", palette=Pillow.Palette.ADAPTIVE, colors=2**bits)
        yield pytest.param(small, {"bits": bits, "transparency": 1}, id=f"palette of {bits} bits, one transparent")
    yield pytest.param(scene().convert("L"), {"transparency": 120}, id="a transparent grey")
    yield pytest.param(scene(), {"transparency": (1, 2, 3)}, id="a transparent colour")


@pytest.mark.parametrize(("picture", "options"), [*pngs()])
def test_png(picture: Pillow.Image, options: dict[str, Any]) -> None:
    check(encode(picture, "PNG", **options))


@pytest.mark.parametrize("filters", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_png_of_each_filter(filters: int, colour: int, channels: int) -> None:
    """Random filtered bytes are the rows of some picture, whatever the filter."""
    rows = hostile.random_pixels(50, WIDTH * channels)
    filtered = np.concatenate([np.full((50, 1), filters, np.uint8), rows], 1).tobytes()
    check(png(WIDTH, 50, colour, [zlib.compress(filtered)]))


def png(width: int, height: int, colour: int, pieces: list[bytes]) -> bytes:
    header = hostile._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    chunks = [header, *(hostile._chunk(b"IDAT", piece) for piece in pieces), hostile._chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_png_whose_pixels_are_scattered_over_many_chunks() -> None:
    packed = zlib.compress(np.insert(hostile.random_pixels(HEIGHT, WIDTH), 0, 2, axis=1).tobytes())
    check(png(WIDTH, HEIGHT, 0, [packed[i : i + 7] for i in range(0, len(packed), 7)] + [b""]))


TIFF_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16")


@pytest.mark.parametrize("packing", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd"])
@pytest.mark.parametrize("mode", TIFF_MODES)
def test_tiff(mode: str, packing: str) -> None:
    if packing == "jpeg" and mode in ("1", "P", "LA", "I;16"):
        pytest.skip("JPEG has no such pixels")
    deep = np.asarray(scene().convert("L")).astype(np.uint16) * 201
    picture = Pillow.fromarray(deep) if mode == "I;16" else scene().convert(mode)
    rows = {TiffImagePlugin.ROWSPERSTRIP: 16} if packing != "raw" else {}
    check(encode(picture, "TIFF", compression=packing, tiffinfo=rows))


def tiled_tiff(pixels: Bytes, tile: tuple[int, int], packed: bool, order: str, big: bool) -> bytes:
    """(H, W, C) in tiles, by the specification of TIFF 6.0 and of BigTIFF."""
    height, width, channels = pixels.shape
    down, across = -(-height // tile[0]), -(-width // tile[1])
    padded = np.pad(pixels, ((0, down * tile[0] - height), (0, across * tile[1] - width), (0, 0)))
    parts = []
    for row, column in itertools.product(range(down), range(across)):
        part = padded[row * tile[0] : (row + 1) * tile[0], column * tile[1] : (column + 1) * tile[1]].tobytes()
        parts.append(zlib.compress(part) if packed else part)
    word, entry, count = ("Q", "HHQ", "Q") if big else ("I", "HHI", "H")
    begin = (16 if big else 8) + sum(map(len, parts))
    starts = list(itertools.accumulate(map(len, parts), initial=16 if big else 8))[:-1]
    tables = struct.pack(f"{order}{2 * len(parts)}{word}", *starts, *map(len, parts))
    bits = struct.pack(f"{order}{channels}H", *[8] * channels)
    kind, size = (16, 8) if big else (4, 4)
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, begin + len(tables)),
        (259, 3, 1, 8 if packed else 1),
        (262, 3, 1, 2 if channels == 3 else 1), (277, 3, 1, channels), (322, 4, 1, tile[1]), (323, 4, 1, tile[0]),
        (324, kind, len(parts), begin), (325, kind, len(parts), begin + size * len(parts)),
    ]  # fmt: skip
    directory = struct.pack(f"{order}{count}", len(tags))
    for tag, form, many, value in tags:
        code = {3: "H", 4: "I", 16: "Q"}[form]
        inline = many * struct.calcsize(code) <= struct.calcsize(word)
        short = bits if tag == 258 else struct.pack(order + code, value)
        directory += struct.pack(order + entry, tag, form, many)
        directory += short.ljust(struct.calcsize(word), b"\0") if inline else struct.pack(order + word, value)
    at = begin + len(tables) + len(bits)
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(order + "HHHQ", 43, 8, 0, at) if big else struct.pack(order + "HI", 42, at)
    return b"".join([mark, head, *parts, tables, bits, directory, bytes(8)])


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiff_in_tiles_and_bigtiff(order: str, big: bool, packed: bool, channels: int) -> None:
    pixels = np.asarray(scene())[:, :, :channels]
    data = tiled_tiff(pixels, (32, 48), packed, order, big)
    bands = check(data)
    assert np.array_equal(joined(bands), pixels.transpose(2, 0, 1))


def strip_tiff(width: int, height: int, strips: int, rows: int) -> bytes:
    """One uncompressed strip that holds `rows` rows of black, and says to hold all; so many strips begin there."""
    pixels = bytes(width * rows)
    offsets, counts = (struct.pack(f"<{strips}I", *[value] * strips) for value in (8, width * height % 2**32))
    at = 8 + len(pixels)
    tags = [
        (256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, at), (277, 1), (278, height),
        (279, at + len(offsets)),
    ]  # fmt: skip
    alone = strips == 1  # then the value itself stands in the directory
    values = {273: 8, 279: width * height % 2**32} if alone else {}
    entries = [
        struct.pack("<HHII", tag, 4, strips if tag in (273, 279) else 1, values.get(tag, value)) for tag, value in tags
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)
    start = struct.pack("<I", at + len(offsets) + len(counts))
    return b"II*\0" + start + pixels + offsets + counts + directory


@pytest.mark.parametrize(("height", "strips"), [(3_000, 1_000), (2_000_000_000, 1)])
def test_a_small_tiff_takes_no_memory_whatever_it_claims(height: int, strips: int) -> None:
    data = strip_tiff(16, height, strips, 3_000)
    tracemalloc.start()
    try:
        bands = opened(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert bands.note == ""
    assert peak < 1_000_000
    if height == 3_000:
        assert joined(bands).shape == (1, height, 16)
    else:
        with pytest.raises(DataError, match="cut off"):
            joined(bands)


def whole_ones() -> dict[str, bytes]:
    interlaced = bytearray(png(8, 8, 0, [b""]))
    interlaced[28] = 1
    return {
        "progressive": encode(scene(), "JPEG", progressive=True),
        "restart markers within rows": encode(scene(), "JPEG", restart_marker_blocks=7),
        "CMYK": encode(scene().convert("CMYK"), "JPEG"),
        **{form: encode(scene(), form) for form in ("WEBP", "GIF", "BMP", "PPM")},
    }


@pytest.mark.parametrize("kind", [*whole_ones()])
def test_what_has_no_bands_is_decoded_whole_and_says_why(kind: str) -> None:
    check(whole_ones()[kind], several=False)


def test_interlaced_png_is_decoded_whole() -> None:
    data = bytearray(encode(scene(), "PNG"))
    data[28] = 1  # it says that it is interlaced; that its rows are not is no matter here
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    assert "interlaced" in opened(bytes(data)).note


def large_header(form: str, width: int, height: int) -> bytes:
    """A file that claims to be large, and has no more than its header."""
    if form == "progressive":
        data = bytearray(encode(scene(), "JPEG", progressive=True))
        at = data.index(b"\xff\xc2") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
        return bytes(data)
    return hostile.png_claiming(width, height)


def test_I05_the_limit_for_whole_images_does_not_hold_for_bands_but_another_does() -> None:
    assert opened(large_header("png", 50_000, 50_000)).size == (50_000, 50_000)
    with pytest.raises(DataError, match=r"(?s)too large.*has to be decoded whole.*tiled TIFF"):
        opened(large_header("progressive", 50_000, 50_000))
    with pytest.raises(DataError, match="the limit is 100,000,000,000 pixels"):
        opened(large_header("png", 400_000, 400_000))
    with pytest.raises(DataError, match="too wide"):
        opened(large_header("png", 2**31 - 1, 8))


def test_I16_sides_of_one_pixel_are_refused() -> None:
    for form, shape in itertools.product(("PNG", "TIFF", "JPEG"), [(1, 1), (1, 2000), (2000, 1)]):
        with pytest.raises(DataError, match="too small"):
            opened(encode(hostile.random_pixels(*shape), form))


def sound() -> dict[str, bytes]:
    return {
        "jpeg": encode(scene(), "JPEG"),
        "restart": encode(scene(), "JPEG", restart_marker_rows=1),
        "png": encode(scene(), "PNG"),
        "tiff": encode(scene(), "TIFF", compression="tiff_lzw", tiffinfo={TiffImagePlugin.ROWSPERSTRIP: 16}),
        "raw tiff": encode(scene(), "TIFF"),
    }


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("form", [*sound()])
def test_I03_a_file_that_is_cut_off_is_told(form: str, share: float) -> None:
    data = sound()[form]
    with pytest.raises(DataError):
        joined(opened(data[: int(len(data) * share)]))


def test_I04_a_bad_checksum_is_told() -> None:
    with pytest.raises(DataError, match="checksum"):
        joined(opened(hostile.png_with_a_bad_checksum()))
    header = bytearray(encode(scene(), "PNG"))
    header[18] ^= 1
    with pytest.raises(DataError, match="checksum"):
        opened(bytes(header))


def test_rows_that_end_before_the_picture_does_are_told() -> None:
    with pytest.raises(DataError, match="cut off"):
        joined(opened(png(WIDTH, HEIGHT, 0, [zlib.compress(bytes(10 * (WIDTH + 1)))])))


@pytest.mark.parametrize("form", [*sound()])
@pytest.mark.parametrize("seed", range(15))
def test_F17_a_damaged_file_is_told_or_gives_a_picture_of_its_size(form: str, seed: int) -> None:
    data = hostile.mutated(sound()[form], seed)
    with contextlib.suppress(DataError):
        bands = opened(data)
        if bands.height * bands.width > 1_000_000:
            pytest.skip("the damage made it large")
        assert sum(band.shape[1] for band in bands.rows()) == bands.height


@pytest.mark.parametrize("form", ["EPS", "PDF", "SVG", "FITS", "ICO"])
def test_I09_formats_off_the_list(form: str) -> None:
    with pytest.raises(DataError, match="no image of a known format"):
        opened(hostile.foreign_formats()[form])


def test_I01_D20_nothing_and_a_pointer() -> None:
    with pytest.raises(DataError, match="empty"):
        opened(b"")
    with pytest.raises(DataError, match="Git-LFS"):
        opened(hostile.LFS_POINTER)


@pytest.mark.parametrize("seed", range(20))
def test_a_table_gets_further_codes_and_keeps_those_it_has(seed: int) -> None:
    """Against the definition: no code is the beginning of another, and none is of ones alone."""
    random = np.random.default_rng(seed)
    counts, room = [0] * 16, 1.0
    symbols = random.permutation(16)[: random.integers(1, 12)]
    for _ in symbols:  # any lengths that fit
        length = int(random.integers(1, 12))
        while room - 2.0**-length < 2.0**-15:
            length += 1
        counts[length - 1] += 1
        room -= 2.0**-length
    table = Table(tuple(counts), bytes(symbols.tolist()))
    longer = table.with_all(range(12))
    if longer is None:
        return
    codes = {symbol: format(code, f"0{length}b") for symbol, (length, code) in longer.codes().items()}
    assert set(range(12)) <= codes.keys()
    assert all(longer.codes()[symbol] == code for symbol, code in table.codes().items())
    added = [code for symbol, code in codes.items() if symbol not in table.codes()]
    assert all("0" in code for code in added)
    assert not any(b.startswith(a) for a, b in itertools.permutations(codes.values(), 2))


def test_real_photographs(shared_data: Path) -> None:
    for path in sorted((shared_data / "photos").glob("*.JPEG"))[:12]:
        check(path.read_bytes())
