"""Videos, made here: which frames are taken, what their ids say, and what is done about broken ones."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msresnet.cli.main import main
from msresnet.errors import DataError, ResourceError
from msresnet.infer.inputs import Allowed, expand
from msresnet.infer.video import frames, is_video

cv2 = pytest.importorskip("cv2")
RATE, FRAMES, SIDE = 10, 30, 64


def film(path: Path, code: str = "MJPG", frames: int = FRAMES) -> Path:
    """Frames of one grey level each, 8 more from frame to frame, with a red border."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), RATE, (SIDE, SIDE))
    assert writer.isOpened()
    for number in range(frames):
        picture = np.full((SIDE, SIDE, 3), 8 * number, np.uint8)
        picture[:8] = (0, 0, 255)  # blue, green, red
        writer.write(picture)
    writer.release()
    return path


def seen(path: Path, every: float) -> list[tuple[str, Any]]:
    items = expand([str(path)], io.BytesIO(), Allowed(every=every))
    return [(item.id.partition("#")[2], item.decode()) for item in items]


@pytest.mark.parametrize(("name", "code"), [("a.avi", "MJPG"), ("a.mp4", "mp4v"), ("a.mkv", "MJPG")])
def test_a_frame_each_time_so_many_seconds_have_passed(name: str, code: str, here: Path) -> None:
    found = seen(film(here / name, code), 0.5)
    assert [when for when, _ in found] == [f"t={0.5 * i:.2f}s" for i in range(6)]
    for number, (_, image) in enumerate(found):
        assert image.shape == (3, SIDE, SIDE)
        assert abs(float(image[:, 20:].mean()) - 8 * 5 * number) < 4
        assert image[0, 2, 30] > 180  # red stays red
        assert image[2, 2, 30] < 80


def test_every_frame_and_the_first_only(here: Path) -> None:
    path = film(here / "a.avi")
    assert len(seen(path, 0.001)) == FRAMES
    assert [when for when, _ in seen(path, 1000)] == ["t=0.00s"]


def test_a_video_that_changes_its_size_goes_on_in_that_of_its_first_frame(here: Path) -> None:
    parts = []
    for name, side in (("a.avi", SIDE), ("b.avi", 2 * SIDE)):
        writer = cv2.VideoWriter(str(here / name), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (side, side))
        for number in range(6):
            writer.write(np.full((side, side, 3), 40 * number, np.uint8))
        writer.release()
        parts.append((here / name).read_bytes())
    (here / "both.avi").write_bytes(b"".join(parts))
    found = [image for _, image in frames(str(here / "both.avi"), None)]
    assert {image.shape for image in found} == {(3, SIDE, SIDE)}
    levels = [round(float(image.mean()) / 40) for image in found]
    assert levels == [0, 1, 2, 3, 4, 5] * 2


def test_a_video_that_breaks_off_gives_what_was_read_and_an_error(model: Path, here: Path, capsys: Any) -> None:
    whole = film(here / "a.avi").read_bytes()
    (here / "cut.avi").write_bytes(whole[: len(whole) // 2])
    words = ["--model", str(model), "--device", "cpu", "--every", "0.2s", "--format", "jsonl"]
    assert main(["predict", "cut.avi", "a.avi", *words]) == 3
    captured = capsys.readouterr()
    ids = [json.loads(line)["id"] for line in captured.out.splitlines()]
    assert ids[:2] == ["cut.avi#t=0.00s", "cut.avi#t=0.20s"]
    assert 2 <= len([name for name in ids if name.startswith("cut")]) < 12
    assert len([name for name in ids if name.startswith("a.avi")]) == 15
    assert captured.err.count("error: ") == 1
    assert "the video breaks off" in captured.err


@pytest.mark.parametrize("data", [b"", b"#EXTM3U\nsecret.mp4\n", b"ffconcat version 1.0\nfile secret\n", bytes(500)])
def test_what_does_not_begin_as_a_video_reaches_no_parser(data: bytes, here: Path) -> None:
    (here / "x.mp4").write_bytes(data)
    ((_, error),) = seen(here / "x.mp4", 1)
    assert "does not begin as videos do" in str(error)


def test_I19_I20_what_is_no_file(here: Path) -> None:
    import os

    os.mkfifo(here / "pipe.mp4")
    (here / "broken.avi").write_bytes(b"RIFF" + bytes(600))
    for name in ("pipe.mp4", "gone.mp4", "broken.avi", "camera:97"):
        ((_, error),) = seen(Path(name) if name.startswith("camera") else here / name, 1)
        assert isinstance(error, DataError)


def test_frames_are_shown_beside_their_answers(model: Path, here: Path) -> None:
    film(here / "a.avi")
    assert main(["predict", "a.avi", "--model", str(model), "--every", "1", "--save-images", "shown"]) == 0
    assert sorted(p.name for p in (here / "shown").iterdir()) == [f"a.avi#t={i}.00s.jpg" for i in range(3)]


def test_without_opencv_its_line_is_printed(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    film(here / "a.avi")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ResourceError, match=r'pip install "msresnet\[video\]"'):
        next(expand(["a.avi"], io.BytesIO()))
    (item,) = expand(["-"], io.BytesIO(b"a.avi"))
    assert "msresnet[video]" in str(item.error)


def test_which_names_are_of_videos() -> None:
    assert all(is_video(name) for name in ("a.mp4", "B.MKV", "camera:0"))
    assert not any(is_video(name) for name in ("a.png", "camera:", "camera:x", "camera:0.png"))
