"""Image files, good, odd and hostile: pixels, or a DataError that names the file and the reason."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

import hostile
from msresnet.data.decode import (
    FORMATS,
    MAX_BYTES,
    MAX_PIXELS,
    PIECE,
    decode_bytes,
    decode_file,
    file_size,
    read_regular,
)
from msresnet.data.jpeg import read_frame
from msresnet.errors import DataError

PIXELS = hostile.random_pixels(6, 9, 3)
MIDDLE = np.clip(hostile.random_pixels(6, 9), 1, 254)


def refused(data: bytes, tmp_path: Path, name: str = "x.jpg") -> str:
    """The message for a file of these bytes, which must name it; the same if little is asked for."""
    (tmp_path / name).write_bytes(data)
    messages = []
    for at_least in (None, (1, 1)):
        with pytest.raises(DataError) as caught:
            decode_file(tmp_path / name, at_least)
        assert caught.value.where == str(tmp_path / name)
        assert caught.value.exit_code == 3
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    return messages[0]


def test_I01_zero_bytes(tmp_path: Path) -> None:
    assert "empty" in refused(b"", tmp_path)


def test_I02_random_bytes_named_png(tmp_path: Path) -> None:
    assert "no image of a known format" in refused(hostile.random_pixels(5000).tobytes(), tmp_path, "x.png")


def test_I03_truncated_jpeg(tmp_path: Path) -> None:
    assert "truncated" in refused(hostile.truncated_jpeg(), tmp_path)


def test_I04_png_with_a_bad_checksum(tmp_path: Path) -> None:
    message = refused(hostile.png_with_a_bad_checksum(), tmp_path, "x.png")
    assert "cannot decode" in message
    assert "why" in message


@pytest.mark.parametrize(
    ("case", "build"),
    [
        ("I05", lambda: hostile.png_claiming(50_000, 50_000)),
        ("I05", lambda: hostile.png_claiming(12_000, 10_000)),
        ("I06", hostile.gif_bomb),
        ("I06", hostile.ico_bomb),
        ("I07", hostile.bmp_with_an_absurd_width),
    ],
)
def test_I05_I06_I07_bombs_are_refused_before_they_are_decoded(
    case: str, build: Callable[[], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail(f"{case} was decoded"))
    assert "why" in refused(build(), tmp_path)


def test_I08_webp_named_jpg_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(hostile.encode(PIXELS, "WEBP", lossless=True))
    assert np.array_equal(decode_file(tmp_path / "x.jpg"), PIXELS.transpose(2, 0, 1))


@pytest.mark.parametrize("form", ["EPS", "PDF", "SVG", "FITS", "ICO"])
def test_I09_formats_off_the_list_never_reach_a_parser(form: str, tmp_path: Path) -> None:
    assert "no image of a known format" in refused(hostile.foreign_formats()[form], tmp_path)


def test_I10_cmyk_becomes_rgb() -> None:
    ink = Pillow.fromarray(np.full((4, 4, 4), (255, 0, 255, 0), np.uint8), "CMYK")
    assert np.array_equal(decode_bytes(hostile.encode(ink, "TIFF"), "x")[:, 0, 0], [0, 255, 0])


def test_I11_sixteen_bits_keep_the_upper_eight() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (6, 9)).astype(np.uint16)
    for form in ("PNG", "TIFF"):
        picture = Pillow.fromarray(deep)
        assert np.array_equal(decode_bytes(hostile.encode(picture, form), "x")[0], deep // 256)
    assert np.array_equal(decode_bytes(hostile.encode(picture, "PNG", transparency=7), "x")[0], deep // 256)


def test_I11_floating_point_is_refused_by_name(tmp_path: Path) -> None:
    message = refused(hostile.encode(Pillow.new("F", (4, 4), 0.5), "TIFF"), tmp_path, "x.tiff")
    assert "floating-point" in message


def test_I12_palette_with_alpha_is_laid_over_white() -> None:
    palette = Pillow.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    array = decode_bytes(hostile.encode(palette, "PNG", transparency=0), "x")
    assert np.array_equal(array.transpose(1, 2, 0)[0], [[255, 255, 255], [40, 50, 60]])


def test_I13_grey_and_grey_with_alpha() -> None:
    assert np.array_equal(decode_bytes(hostile.encode(MIDDLE, "PNG"), "x")[0], MIDDLE)
    half = np.stack([MIDDLE, np.full_like(MIDDLE, 128)], 2)
    array = decode_bytes(hostile.encode(Pillow.fromarray(half, "LA"), "PNG"), "x")
    over_white = MIDDLE * (128 / 255) + 255 * (127 / 255)
    assert array.shape == (1, 6, 9)
    assert np.abs(array[0] - over_white).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_I14_every_orientation_gives_the_upright_pixels(orientation: int) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    for form in ("PNG", "TIFF"):
        data = hostile.encode(hostile.laid_down(PIXELS, orientation), form, exif=exif)
        assert np.array_equal(decode_bytes(data, "x"), PIXELS.transpose(2, 0, 1))
    smooth = hostile.smooth_pixels(16, 32)
    jpeg = hostile.encode(hostile.laid_down(smooth, orientation), "JPEG", exif=exif, quality=98, subsampling=0)
    assert np.abs(decode_bytes(jpeg, "x").astype(int) - smooth.transpose(2, 0, 1)).max() <= 6


def test_I15_malformed_exif_leaves_the_pixels() -> None:
    junk = b"Exif\0\0" + hostile.random_pixels(200).tobytes()
    data = hostile.encode(PIXELS, "PNG", exif=junk)
    assert np.array_equal(decode_bytes(data, "x"), PIXELS.transpose(2, 0, 1))


def test_I15_a_good_orientation_counts_although_another_tag_is_malformed() -> None:
    exif = Pillow.Exif()
    exif[0x0112], exif[0x011A] = 3, 1.5
    block = exif.tobytes()
    spoilt = block.replace(b"\x01\x1a\x00\x05", b"\x01\x1a\x00\x02").replace(b"\x1a\x01\x05\x00", b"\x1a\x01\x02\x00")
    assert spoilt != block
    data = hostile.encode(PIXELS, "PNG", exif=spoilt)
    assert np.array_equal(decode_bytes(data, "x"), PIXELS[::-1, ::-1].transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(1, 1), (1, 20_000), (20_000, 1)])
def test_I16_a_side_of_one_pixel(shape: tuple[int, int], tmp_path: Path) -> None:
    assert "too small" in refused(hostile.encode(hostile.random_pixels(*shape), "PNG"), tmp_path)


@pytest.mark.parametrize("form", ["WEBP", "PNG", "GIF"])
def test_I17_of_an_animation_the_first_frame_counts(form: str) -> None:
    frames = [Pillow.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if form == "WEBP" else {}
    data = hostile.encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(decode_bytes(data, "x")[:, 4, 4], [255, 0, 0])


def test_I18_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(DataError, match="Permission denied"):
        decode_file(tmp_path / "x.jpg")


def test_I19_links_that_lead_nowhere_or_in_circles(tmp_path: Path) -> None:
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "absent")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name, reason in (("nowhere.jpg", "No such file"), ("loop.jpg", "symbolic links")):
        with pytest.raises(DataError, match=reason):
            decode_file(tmp_path / name)


@pytest.mark.timeout(10)
def test_I20_a_pipe_or_a_folder_named_jpg_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("pipe.jpg", "folder.jpg"):
        with pytest.raises(DataError, match="not a regular file"):
            decode_file(tmp_path / name)
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


@pytest.mark.parametrize("name", [b"\xff\xfe.png", b"two\nlines.png", b"a" * 251 + b".png"])
def test_I21_unusual_names(name: bytes, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(hostile.encode(PIXELS, "PNG"))
    assert decode_file(path).shape == (3, 6, 9)
    path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        decode_file(path)
    assert caught.value.where.isprintable()
    caught.value.where.encode("utf-8")


def test_I21_a_null_in_a_name() -> None:
    with pytest.raises(DataError, match="null"):
        decode_file("a\0b.png")


def test_I23_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.jpg").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(DataError, match="too large"):
        read_regular(tmp_path / "x.jpg")


def test_D20_git_lfs_pointer(tmp_path: Path) -> None:
    message = refused(hostile.LFS_POINTER, tmp_path)
    assert "Git-LFS" in message
    assert "git lfs pull" in message


SEEDS = [hostile.encode(PIXELS, form) for form in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM")]


@settings(deadline=None)
@given(st.sampled_from(SEEDS), st.integers(0, 2**32))
def test_F17_mutated_images_decode_or_are_refused(data: bytes, seed: int) -> None:
    try:
        array = decode_bytes(hostile.mutated(data, seed), "x")
    except DataError:
        return
    assert array.dtype == np.uint8
    assert array.shape[0] in (1, 3)


def test_threads_leave_the_warning_filters_as_they_were() -> None:
    bad_exif = hostile.encode(PIXELS, "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        arrays = list(pool.map(lambda _: decode_bytes(bad_exif, "x"), range(400)))
    assert all(np.array_equal(a, arrays[0]) for a in arrays)
    assert list(warnings.filters) == before


def by_pillow(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None:
    """What Pillow alone makes of an image's bytes (H, W) or (H, W, 3), before it is turned upright."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Pillow.open(io.BytesIO(data), formats=FORMATS) as image:
                if min(image.size) < 2 or image.width * image.height > MAX_PIXELS:
                    return None
                return np.array(image if image.mode == "L" else image.convert("RGB"))
        except Exception:
            return None


SMOOTH, NOISE = hostile.smooth_pixels(61, 83), hostile.random_pixels(40, 57, 3)
JPEGS = {
    "4:4:4": hostile.encode(NOISE, "JPEG", subsampling=0, quality=95),
    "4:2:2": hostile.encode(NOISE, "JPEG", subsampling=1, optimize=True),
    "4:2:0": hostile.encode(SMOOTH, "JPEG", subsampling=2),
    "progressive": hostile.encode(SMOOTH, "JPEG", progressive=True),
    "restarts": hostile.encode(NOISE, "JPEG", restart_marker_blocks=4),
    "comment": hostile.encode(NOISE, "JPEG", comment=b"of a kind"),
    "grey": hostile.encode(SMOOTH[:, :, 0], "JPEG"),
    "RGB": hostile.encode(NOISE, "JPEG", keep_rgb=True),
    "CMYK": hostile.encode(Pillow.fromarray(NOISE).convert("CMYK"), "JPEG"),
    "profile": hostile.encode(NOISE, "JPEG", icc_profile=bytes(200)),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_a_whole_jpeg_is_what_pillow_makes_of_it(kind: str) -> None:
    expected = by_pillow(JPEGS[kind])
    assert expected is not None
    found = decode_bytes(JPEGS[kind], "x")
    assert np.array_equal(found, expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("marker", "payload"),
    [(0xE2, b"ICC_PROFILE\0"), (0xE2, b"ICC_PROFILE\0\1"), (0xEE, b"Adobe"), (0xED, b"Photoshop 3.0\x008BIM\x03\xed")],
)
def test_a_segment_that_pillow_refuses_is_refused(marker: int, payload: bytes) -> None:
    data = JPEGS["4:2:0"]
    end = 4 + int.from_bytes(data[4:6], "big")  # of the first segment
    spoilt = data[:end] + bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload + data[end:]
    assert by_pillow(spoilt) is None
    with pytest.raises(DataError):
        decode_bytes(spoilt, "x")


def test_only_a_colour_profile_is_no_reason_to_ask_pillow() -> None:
    frame = read_frame(JPEGS["profile"])
    assert frame is not None
    assert not frame.described


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(JPEGS)), st.integers(0, 2**32), st.booleans())
def test_I03_a_damaged_jpeg_is_taken_or_refused_as_pillow_does_at_any_scale(kind: str, seed: int, deep: bool) -> None:
    data = JPEGS[kind]
    if deep:  # among the pixels
        random, changed = np.random.default_rng(seed), bytearray(data)
        for place in random.integers(len(data) // 2, len(data), 3):
            changed[place] = random.integers(0, 256)
        data = bytes(changed[: len(changed) - random.integers(0, 9)])
    else:
        data = hostile.mutated(data, seed)
    expected = by_pillow(data)
    for at_least in (None, (5, 5)):
        try:
            found = decode_bytes(data, "x", at_least)
        except DataError:
            assert expected is None
            continue
        assert expected is not None
        if at_least is None:
            assert sorted(found.tobytes()) == sorted(expected.tobytes())  # it may have been turned


@pytest.mark.parametrize("kind", ["4:4:4", "4:2:0", "progressive", "grey"])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_reduced_jpeg_is_what_pillow_drafts(kind: str, factor: int) -> None:
    with Pillow.open(io.BytesIO(JPEGS[kind])) as image:
        size = (image.width // factor, image.height // factor)
        image.draft(None, size)
        expected = np.array(image)
    found = decode_bytes(JPEGS[kind], "x", expected.shape[:2])
    assert found.shape[1:] == expected.shape[:2]
    difference = np.abs(found.astype(int) - (expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1)))
    assert difference.max() <= 2


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 8))
def test_a_reduced_jpeg_is_no_smaller_than_asked_for_and_upright(height: int, width: int, orientation: int) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    smooth = hostile.smooth_pixels(64, 80)
    data = hostile.encode(hostile.laid_down(smooth, orientation), "JPEG", exif=exif, quality=98, subsampling=0)
    found = decode_bytes(data, "x", (height, width))
    rows, columns = found.shape[1:]
    assert (rows, columns) == (64, 80) or (rows >= height and columns >= width)
    if 2 * height <= 64 and 2 * width <= 80:
        assert 2 * rows <= 64
    expected = Pillow.fromarray(smooth).resize((columns, rows), Pillow.Resampling.BOX)
    assert np.abs(found.astype(int) - np.array(expected).transpose(2, 0, 1)).max() <= 24


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_other_formats_are_whole_however_little_is_asked_for(form: str) -> None:
    data = hostile.encode(PIXELS, form)
    assert np.array_equal(decode_bytes(data, "x", (1, 1)), decode_bytes(data, "x"))


def test_I11_sixteen_bits_are_the_same_however_little_is_asked_for() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (6, 9)).astype(np.uint16)
    assert np.array_equal(decode_bytes(hostile.encode(Pillow.fromarray(deep), "PNG"), "x", (1, 1))[0], deep // 256)


def test_I05_a_jpeg_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simplejpeg.decode_jpeg", lambda *_, **__: pytest.fail("it was decoded"))
    data = bytearray(JPEGS["4:4:4"])
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (50_000).to_bytes(2, "big") * 2
    with pytest.raises(DataError, match="too large"):
        decode_bytes(bytes(data), "x", (8, 8))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_the_size_of_a_file_is_that_of_its_decoded_image(form: str, orientation: int, tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    (tmp_path / "x").write_bytes(hostile.encode(SMOOTH, form, exif=exif))
    assert file_size(tmp_path / "x") == decode_file(tmp_path / "x").shape[1:]
    (tmp_path / "x").write_bytes(b"no image")
    with pytest.raises(DataError, match="no image of a known format"):
        file_size(tmp_path / "x")


def large(**how: Any) -> bytes:
    """A JPEG or PNG whose pixels take more than the head of a file that is read for its size."""
    data = hostile.encode(hostile.random_pixels(300, 400, 3), **how)
    assert len(data) > PIECE
    return data


def test_the_size_of_a_jpeg_is_read_from_its_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    (tmp_path / "x").write_bytes(large(form="JPEG", exif=exif))
    taken, real = list[int](), os.read

    def read(handle: int, count: int) -> bytes:
        taken.append(count)
        return real(handle, count)

    monkeypatch.setattr("os.read", read)
    assert file_size(tmp_path / "x") == (400, 300)
    assert sum(taken) == PIECE


@pytest.mark.parametrize("kind", ["a long comment", "the turn behind the pixels"])
def test_where_the_head_is_not_enough_the_whole_file_says_the_size(kind: str, tmp_path: Path) -> None:
    if kind == "a long comment":
        whole = large(form="JPEG")
        filling = b"\xff\xfe" + struct.pack(">H", 60_002) + bytes(60_000)
        data = whole[:2] + 2 * filling + whole[2:]
    else:
        exif = Pillow.Exif()
        exif[0x0112] = 6
        chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
        end = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        whole = large(form="PNG")
        data = whole[:-12] + end + whole[-12:]
    (tmp_path / "x").write_bytes(data)
    assert file_size(tmp_path / "x") == decode_file(tmp_path / "x").shape[1:]
    assert file_size(tmp_path / "x") == ((300, 400) if kind == "a long comment" else (400, 300))


def test_a_file_that_is_not_there_comes_with_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "broken").symlink_to(tmp_path / "gone")

    def hint(path: Path) -> str:
        with pytest.raises(DataError) as error:
            read_regular(path)
        return error.value.hint

    assert hint(tmp_path / "zebra.png") == f"ls -- {tmp_path}"
    assert hint(tmp_path / "no where" / "b" / "a.png") == f"ls -- {tmp_path}"
    assert hint(tmp_path / "broken") == f"ls -l -- {tmp_path}/broken"
    assert hint(tmp_path / "a\0b") == ""


def test_a_file_that_cannot_be_decoded_comes_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"%PDF-1.4")
    with pytest.raises(DataError) as error:
        decode_file(tmp_path / "a.jpg")
    assert "JPEG, PNG, WEBP" in error.value.hint
    (tmp_path / "b.jpg").write_bytes(hostile.truncated_jpeg())
    with pytest.raises(DataError) as error:
        decode_file(tmp_path / "b.jpg")
    assert "again" in error.value.hint
