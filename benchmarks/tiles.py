"""Memory and time of prediction by tiles on images of 20,000 x 20,000 pixels: 1.2 GB when decoded, 1.6 GB in Pillow.

Makes a seeded image in each format, runs the command on it in a process of its own, and prints its seconds, its largest
resident memory, and that of the same command on a photograph of ordinary size, which is what the model alone takes.
Weights are random: figures are of reading and computing, not of answers.

Run: python benchmarks/tiles.py [--side 20000] [--tile 1000] [--output benchmarks/results/tiles.md]
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg

from msresnet.bundle import Bundle
from msresnet.data.preprocess import Preprocess
from msresnet.models.factory import create_classifier
from msresnet.runtime import environment
from msresnet.tasks.classification import ClassificationTask

Pixels = npt.NDArray[np.uint8]
STRIP, ORDINARY = 500, 1000


def strips(side: int) -> Iterator[Pixels]:
    """Rows (STRIP, side, 3) of fields of colour with edges, shading and noise."""
    noise = np.random.default_rng(0).normal(60, 6, (STRIP, side)).astype(np.float32)
    columns = np.arange(side, dtype=np.float32)
    for top in range(0, side, STRIP):
        rows = np.arange(top, min(top + STRIP, side), dtype=np.float32)[:, None]
        shade = 60 * np.sin(rows / 97) * np.cos(columns / 131)
        fields = 40 * ((rows // 333 + columns // 457) % 4)
        grey = shade + fields + np.roll(noise, top, 1)[: len(rows)]
        yield np.stack([grey, grey * 0.8 + 20, 200 - grey], 2).clip(0, 255).astype(np.uint8)


def write_png(path: Path, side: int) -> None:
    """By Paeth's filter, which programs choose most often for photographs."""
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)))
        packer, above = zlib.compressobj(1), np.zeros((1, side, 3), np.uint8)
        for strip in strips(side):
            rows = np.concatenate([above, strip]).astype(np.int16)
            left = np.pad(rows, ((0, 0), (1, 0), (0, 0)))[:, :-1]
            a, b, c = left[1:], rows[:-1], left[:-1]
            near = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
            guess = np.where((near[0] <= near[1]) & (near[0] <= near[2]), a, np.where(near[1] <= near[2], b, c))
            filtered = (rows[1:] - guess).astype(np.uint8).reshape(len(strip), -1)
            data = np.concatenate([np.full((len(strip), 1), 4, np.uint8), filtered], 1).tobytes()
            file.write(_chunk(b"IDAT", packer.compress(data)))
            above = strip[-1:]
        file.write(_chunk(b"IDAT", packer.flush()) + _chunk(b"IEND", b""))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_tiff(path: Path, side: int) -> None:
    """By strips of deflated rows."""
    rows, places = 50, list[tuple[int, int]]()
    with path.open("wb") as file:
        file.write(b"II*\0" + bytes(4))
        for strip in strips(side):
            for top in range(0, len(strip), rows):
                data = zlib.compress(strip[top : top + rows].tobytes(), 1)
                places.append((file.tell(), len(data)))
                file.write(data)
        offsets, counts = (struct.pack(f"<{len(places)}I", *part) for part in zip(*places, strict=True))
        at = file.tell()
        file.write(offsets + counts + struct.pack("<3H", 8, 8, 8))
        tags = [
            (256, 4, 1, side), (257, 4, 1, side), (258, 3, 3, at + len(offsets) + len(counts)), (259, 3, 1, 8),
            (262, 3, 1, 2), (273, 4, len(places), at), (277, 3, 1, 3), (278, 4, 1, rows),
            (279, 4, len(places), at + len(offsets)),
        ]  # fmt: skip
        start = file.tell()
        file.write(struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4))
        file.seek(4)
        file.write(struct.pack("<I", start))


def write_jpeg(path: Path, side: int) -> None:
    """One stream of codes, without restart markers; made in memory."""
    pixels = np.concatenate([*strips(side)])
    path.write_bytes(simplejpeg.encode_jpeg(pixels, quality=85, colorsubsampling="420"))


WRITERS: dict[str, Callable[[Path, int], None]] = {"tif": write_tiff, "png": write_png, "jpg": write_jpeg}


def write_model(folder: Path, network: str, size: int) -> Path:
    """A bundle with random weights."""
    model = create_classifier(network, num_classes=10, in_chans=3, img_size=(size, size))
    preprocess = Preprocess((size, size), 3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    task = ClassificationTask([f"class {i}" for i in range(10)])
    return Bundle(model, network, {"num_classes": 10, "in_chans": 3, "img_size": [size, size]}, task, preprocess).save(
        folder
    )


def run(image: Path, model: Path, output: Path, tile: int) -> tuple[float, float]:
    """Seconds, and the largest resident memory in GB, of the command on an image."""
    words = [
        "predict",
        str(image),
        "--model",
        str(model),
        "--device",
        "cpu",
        "--tile",
        str(tile),
        "--output",
        str(output),
    ]
    pid, start = os.fork(), time.perf_counter()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execv(sys.executable, [sys.executable, "-m", "msresnet", *words, "-q"])
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise subprocess.CalledProcessError(status, words)
    return time.perf_counter() - start, _gigabytes(usage)


def _gigabytes(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--tile", type=int, default=1000)
    parser.add_argument("--network", default="msresnet18")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--formats", nargs="+", default=list(WRITERS), choices=list(WRITERS))
    parser.add_argument("--folder", type=Path, default=None, help="where the images are made; some GB")
    parser.add_argument("--output", type=Path, default=None)
    asked = parser.parse_args()
    lines = [f"| image | file, GB | seconds | memory, GB | memory for {ORDINARY} x {ORDINARY}, GB |", "|" + "---|" * 5]
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        model = write_model(folder / "model", asked.network, asked.image_size)
        for form in asked.formats:
            small, large = folder / f"small.{form}", folder / f"large.{form}"
            WRITERS[form](small, ORDINARY)
            WRITERS[form](large, asked.side)
            _, before = run(small, model, folder / "maps", asked.tile)
            seconds, memory = run(large, model, folder / "maps", asked.tile)
            size = large.stat().st_size / 1e9
            lines.append(
                f"| {asked.side} x {asked.side} .{form} | {size:.2f} | {seconds:.0f} | {memory:.2f} | {before:.2f} |"
            )
            print(lines[-1], flush=True)
            large.unlink()
    machine = environment()
    what = f"{asked.network} at {asked.image_size} pixels, tiles of {asked.tile} that overlap by a quarter, float32"
    head = ["# Prediction by tiles", "", f"`python {shlex.join(sys.argv)}`", ""]
    where = (
        f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, Pillow {machine['pillow']}"
    )
    text = "\n".join([*head, f"{what}; {where}.", "", *lines, ""])
    print(text)
    if asked.output is not None:
        asked.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
