"""Videos through a detector and an association: broken ones, empty ones, ones that change; and what is written.

Two detectors: one that finds bright squares without a mistake, and a network that sees the same boxes in any image.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from scipy import ndimage

from following import moving, tracks, truth, write_videos
from msresnet.bundle import Bundle
from msresnet.cli.main import main
from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import Image
from msresnet.data.sources.digit_videos import digit_videos
from msresnet.data.videos import VideoSource
from msresnet.errors import DataError
from msresnet.infer.backend import Backend, Exits, Outputs, Pixels
from msresnet.infer.moving import Frame, frames_of
from msresnet.infer.predictor import Predictor
from msresnet.infer.tracking import follow, measure
from msresnet.infer.video import frames, rate_of
from msresnet.models.factory import create_detector
from msresnet.results import Tracks
from msresnet.tasks.detection import DetectionTask
from msresnet.track.association import Rules
from msresnet.track.figures import figures

pytest.importorskip("trackers")
cv2 = pytest.importorskip("cv2")
SIDE, RATE = 64, 10
PLACES = 12


class Bright(Backend):
    """Finds what is bright: a box around each connected area, with a vector that says how bright."""

    name, precision, threads, reason = "bright", "fp32", 1, "exact"

    def __call__(self, images: Pixels) -> tuple[Outputs, Exits | None]:
        found = np.zeros((len(images), PLACES, 4 + 1 + 2), np.float32)
        found[..., 4] = -9
        for outputs, image in zip(found, np.asarray(images)[:, 0], strict=True):
            areas, count = ndimage.label(image > 60)
            for row, (down, across) in zip(outputs, ndimage.find_objects(areas, count)[:PLACES], strict=False):
                level = image[down, across].max() / 255
                row[:] = across.start, down.start, across.stop, down.stop, 3, np.cos(level), np.sin(level)
        return found, None


def bundle(embedding: int = 0) -> Bundle:
    """A network that answers the same for any image: the squares that its places begin with."""
    arguments: dict[str, Any] = {"num_classes": 2, "in_chans": 1, "img_size": [SIDE, SIDE], "embedding": embedding}
    torch.manual_seed(0)
    model = create_detector("msresnet_micro", **arguments).eval()
    layer = model.head.classifier
    with torch.no_grad():
        layer.weight.zero_()
        model.head.box.weight.zero_()
        layer.bias.copy_(torch.tensor([2.0, -9.0]))
    return Bundle(model, "msresnet_micro", arguments, DetectionTask(["thing", "other"]), Preprocess((SIDE, SIDE), 1))


@pytest.fixture(scope="module")
def exact() -> Predictor:
    """The detector that makes no mistake."""
    whole = bundle()
    known = Bundle(whole.model, whole.architecture, whole.arguments, DetectionTask(["square"]), whole.preprocess)
    return Predictor(known, Bright(), batch_size=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network, as a folder."""
    return bundle().save(tmp_path_factory.mktemp("model") / "m")


def picture(places: dict[int, tuple[float, float, float, float]], size: tuple[int, int] = (SIDE, SIDE)) -> Image:
    """A dark image with a bright square at each place, each object of its own brightness."""
    image = np.full((1, *size), 20, np.uint8)
    for number, (left, top, right, bottom) in places.items():
        image[0, int(top) : int(bottom), int(left) : int(right)] = 120 + 60 * (number % 3)
    return image


APART = [
    {n: (left, top, left + 10, top + 10) for n, (left, top, _, _) in frame.items()}
    for frame in moving([(2, 2), (40, 40)], [(1, 0), (0, 1)], 12)
]
WORDS = ("--device", "cpu", "--threads", "1", "-q")


def answered(given: Iterator[Frame] | list[Frame], exact: Predictor) -> list[Any]:
    return list(follow(given, exact, Rules()))


def test_objects_are_followed_and_frames_come_out_in_order(exact: Predictor) -> None:
    given = [Frame(f"{t}", picture(frame)) for t, frame in enumerate(APART)]
    found = answered(given, exact)
    assert [answer.frame for answer in found] == given
    assert all(answer.frame.name == answer.tracks.ids[0] for answer in found)
    whole = Tracks.joined([answer.tracks for answer in found])
    assert figures({"v": whole}, {"v": truth(APART)}).total == figures({"v": tracks(APART)}, {"v": truth(APART)}).total


def test_a_video_that_breaks_off_answers_what_came_before_and_raises(exact: Predictor) -> None:
    def broken() -> Iterator[Frame]:
        yield from (Frame(f"{t}", picture(frame)) for t, frame in enumerate(APART[:6]))
        raise DataError("the video breaks off")

    found = list[Any]()
    with pytest.raises(DataError, match="breaks off"):
        found.extend(follow(broken(), exact, Rules()))
    assert [len(answer.tracks.track_ids[0]) for answer in found] == [2] * 6


def test_a_frame_that_cannot_be_read_has_no_tracks_and_ends_none(exact: Predictor) -> None:
    given = [Frame(f"{t}", picture(frame)) for t, frame in enumerate(APART)]
    given[5] = Frame("5", None, DataError("damaged"))
    found = answered(given, exact)
    assert [len(answer.tracks.track_ids[0]) for answer in found] == [2] * 5 + [0] + [2] * 6
    assert Tracks.joined([answer.tracks for answer in found]).objects.tolist() == [1, 2]


def test_where_the_size_changes_new_tracks_begin(exact: Predictor) -> None:
    given = [Frame(f"{t}", picture(frame, (SIDE, SIDE + 20 * (t >= 6)))) for t, frame in enumerate(APART)]
    found = answered(given, exact)
    assert [answer.frame.name for answer in found] == [str(t) for t in range(12)]
    assert {*found[5].tracks.track_ids[0]} == {1, 2}
    assert {*found[6].tracks.track_ids[0]} == {3, 4} == {*found[11].tracks.track_ids[0]}


def test_no_frame_at_all_and_a_thousand_without_objects(exact: Predictor) -> None:
    assert answered([], exact) == []
    found = answered((Frame(f"{t}", picture({})) for t in range(1000)), exact)
    assert len(found) == 1000
    assert all(len(answer.tracks.track_ids[0]) == 0 for answer in found)


def test_labelled_videos_are_measured_one_by_one(exact: Predictor) -> None:
    source = digit_videos()["val"]
    assert isinstance(source, VideoSource)
    answers, found = measure(source, exact, Rules())
    assert list(answers) == list(found.each) == [video.name for video in source.followed.videos]
    assert [len(answer) for answer in answers.values()] == [60] * 4
    assert 0 < found.total["hota"] < 1


def film(path: Path, count: int = 30, code: str = "mp4v") -> Path:
    """A video of a bright square that moves."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), RATE, (SIDE, SIDE))
    assert writer.isOpened()
    for number in range(count):
        writer.write(np.repeat(picture({1: (number, 20, number + 12, 32)})[0][..., None], 3, 2))
    writer.release()
    return path


def folder(root: Path, count: int = 12) -> Path:
    """A folder of frames whose names have numbers without zeros in front."""
    root.mkdir()
    for number in range(count):
        Pillow.fromarray(picture({1: (number, 20, number + 12, 32)})[0]).save(root / f"frame{number}.png")
    (root / "notes.txt").write_text("no frame")
    return root


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = main(["track", *map(str, words), *WORDS])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_real_video_in_every_form(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, shown = film(tmp_path / "a.mp4"), tmp_path / "shown"
    words = (path, "--model", model, "--save-video", tmp_path / "out.mp4", "--save-images", shown)
    code, lines, _ = run(capsys, *words, "--output", tmp_path / "a.txt", "--format", "jsonl")
    rows = [json.loads(line) for line in lines.splitlines()]
    assert (code, [row["frame"] for row in rows]) == (0, [*range(1, 31)])
    assert len({tuple(track["track"] for track in row["tracks"]) for row in rows}) == 1  # always the same boxes
    text = (tmp_path / "a.txt").read_text()
    assert text.count("\n") == sum(row["count"] for row in rows) > 30
    assert re.fullmatch(r"1,1,[-\d.]+,[-\d.]+,[-\d.]+,[-\d.]+,0\.\d+,-1,-1,-1", text.splitlines()[0])
    drawn = [image for _, image in frames(str(tmp_path / "out.mp4"), None)]
    assert len(drawn) == 30
    assert drawn[0].shape == (3, 3 * SIDE, 3 * SIDE)  # small frames are enlarged
    assert rate_of(str(tmp_path / "out.mp4")) == pytest.approx(RATE)
    assert drawn[0].std(0).max() > 20  # there is colour
    assert sorted(file.name for file in shown.iterdir()) == [f"{number:06d}.jpg" for number in range(1, 31)]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", "a.txt", "out.mp4", "shown"]


def test_lines_for_people_and_for_programs(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder(tmp_path / "in")
    code, lines, _ = run(capsys, path, "--model", model)
    names = [line.rpartition("/")[2].partition(":")[0] for line in lines.splitlines()]
    assert (code, names) == (0, [f"frame{number}.png" for number in range(12)])
    assert " thing 0.88" in lines
    code, text, _ = run(capsys, path, "--model", model, "--format", "mot")
    assert {line.split(",")[0] for line in text.splitlines()} == {str(number) for number in range(1, 13)}
    code, text, _ = run(capsys, path, "--model", model, "--output", tmp_path / "a.jsonl")
    assert (code, text) == (0, "")
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 12


def test_a_cut_video_and_a_damaged_frame(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = film(tmp_path / "a.avi", code="MJPG").read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    code, _, said = run(capsys, tmp_path / "cut.avi", "--model", model, "--output", tmp_path / "cut.jsonl")
    assert code == 3
    assert "the video breaks off" in said
    assert 5 < len((tmp_path / "cut.jsonl").read_text().splitlines()) < 30
    path = folder(tmp_path / "in")
    (path / "frame5.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    code, lines, said = run(capsys, path, "--model", model, "--format", "jsonl")
    rows = [json.loads(line) for line in lines.splitlines()]
    assert (code, len(rows), rows[5]["count"]) == (3, 12, 0)
    assert "error" in rows[5]
    assert "frame5.png" in said


def test_what_cannot_be_followed(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("#EXTM3U\nhttp://example.org/a.ts\n")
    (tmp_path / "a.png").write_bytes(b"")
    for name, code in (("empty", 3), ("text.mp4", 3), ("a.png", 2), ("absent.mp4", 3), ("absent", 3), ("camera:7", 3)):
        found, out, said = run(capsys, tmp_path / name if "camera" not in name else name, "--model", model)
        assert (found, out) == (code, ""), name
        assert said.startswith("error: ")
        assert "Traceback" not in said
    for name in ("absent.mp4", "absent", "empty", "text.mp4"):  # told before anything is opened that takes long
        _, _, said = run(capsys, tmp_path / name, "--model", tmp_path / "no-model")
        assert name in said
        assert "no-model" not in said


@pytest.mark.parametrize("text", ["clip.mp4", "./clip.mp4", "link.mp4"])
def test_the_input_is_not_written_over(
    text: str, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = film(tmp_path / "clip.mp4", 3)
    before = path.read_bytes()
    (tmp_path / "link.mp4").symlink_to(path)
    code, _, said = run(capsys, text, "--model", model, "--save-video", "clip.mp4")
    assert (code, path.read_bytes()) == (2, before)
    assert "--save-video is the place of the input" in said


def test_pictures_do_not_come_among_the_frames(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "video").mkdir()
    frames = folder(tmp_path / "video" / "img1", 3)
    before = sorted(path.name for path in frames.iterdir())
    for given, place in (("video", "video/img1"), ("video/img1", "video/img1/"), ("video", "video")):
        code, _, said = run(capsys, given, "--model", model, "--save-images", place)
        assert code == 2
        assert "--save-images is the place of the input" in said
    assert sorted(path.name for path in frames.iterdir()) == before
    assert run(capsys, "video", "--model", model, "--save-images", "video/shown")[0] == 0


@pytest.mark.parametrize("name", ["clip.mp4", "frames.txt"])
def test_a_folder_of_frames_may_be_called_anything(
    name: str, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines, _ = run(capsys, folder(tmp_path / name, 3), "--model", model, "--save-video", "out.avi")
    assert (code, len(lines.splitlines())) == (0, 3)


def test_the_kind_of_a_file_is_told_by_its_ending_in_any_case(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, folder(tmp_path / "in", 3), "--model", model, "--output", "A.TXT")[0] == 0
    assert (tmp_path / "A.TXT").read_text().startswith("1,1,")


def test_a_score_decides_what_is_looked_for(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All boxes of this network have a score of 0.88 or of 0.0001; the note says what new objects need."""
    frames, counts = folder(tmp_path / "in", 3), []
    for score in ("0.0001", "0.3", "0.85", "0.95"):
        code, lines, _ = run(capsys, frames, "--model", model, "--score", score, "--format", "jsonl")
        assert code == 0
        counts.append(json.loads(lines.splitlines()[-1])["count"])
    assert counts[0] == counts[1] > 0 == counts[2] == counts[3]
    words = ["track", str(frames), "--model", str(model), "--device", "cpu", "--threads", "1"]
    assert main([*words, "--score", "0.3"]) == 0
    assert "bytetrack, objects from a score of 0.3, new ones of 0.4, kept for 30 frames" in capsys.readouterr().err
    assert main([*words, "--score", "0.3", "--tracker", "ocsort"]) == 0
    assert "ocsort, objects from a score of 0.3, kept for 30 frames" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["a.mp4", "--data", "digit-videos"],
        ["a.mp4", "--output", "tracks"],
        ["a.mp4", "--save-video", "out.gif"],
        ["a.mp4", "--fail-under", "hota=0.5"],
        ["a.mp4", "--format", "json"],
        ["a.mp4", "--score", "2"],
        ["a.mp4", "--keep", "-1"],
        ["a.mp4", "--tracker", "magic"],
        ["a.mp4", "--tracker", "cbiou", "--appearance", "learnt"],
        ["a.mp4", "--weight", "0.2", "--appearance", "none"],
        ["a.mp4", "--weight", "0.2", "--tracker", "cbiou"],
        ["--data", "digit-videos", "--answers", "out", "--tracker", "sort"],
        ["--data", "digit-videos", "--answers", "out", "--keep", "2"],
        ["--data", "digit-videos", "--save-video", "a.mp4"],
        ["--data", "digit-videos", "--format", "jsonl"],
        ["--data", "digit-videos", "--output", "a.txt"],
        ["--data", "digit-videos", "--output", "a.TXT"],
        ["digit-videos", "--fail-under", "hota=2"],
    ],
)
def test_settings_that_contradict_each_other(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["track", *words]) == 2
    assert capsys.readouterr().out == ""


def test_a_classifier_cannot_follow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sharding import make_model

    other = make_model(tmp_path / "m")
    for looks in ("auto", "features"):
        code, _, said = run(capsys, film(tmp_path / "a.avi", 3, "MJPG"), "--model", other, "--appearance", looks)
        assert code == 2
        assert "cannot follow objects" in said


@pytest.mark.parametrize("looks", ["learnt", "features", "none"])
def test_looks_of_every_kind(looks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = bundle(embedding=8).save(tmp_path / "m")
    code, lines, _ = run(
        capsys, folder(tmp_path / "in", 4), "--model", place, "--appearance", looks, "--format", "jsonl"
    )
    assert code == 0
    assert len({line.partition("count")[2] for line in lines.splitlines()}) == 1


def test_learnt_looks_of_a_model_that_has_none(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = run(capsys, folder(tmp_path / "in", 3), "--model", model, "--appearance", "learnt")
    assert code == 2
    assert "has learnt no vectors" in said


def test_measuring_writes_answers_that_measure_the_same(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = digit_videos()["val"]
    assert isinstance(source, VideoSource)
    write_videos(source, tmp_path / "data")
    words = ("--data", tmp_path / "data", "--split", "train", "--format", "json")
    known = bundle().task.class_names
    assert known == ("thing", "other")  # classes differ, objects are objects
    code, first, _ = run(capsys, *words, "--model", model, "--output", tmp_path / "out")
    assert code == 0
    assert json.loads(first) == json.loads((tmp_path / "out" / "metrics.json").read_text())
    code, _, said = run(capsys, *words, "--answers", tmp_path / "out", "--output", tmp_path / "out")
    assert code == 2
    assert "--output is the place of the input" in said
    code, second, _ = run(capsys, *words, "--answers", tmp_path / "out")
    for name in ("hota", "mota", "idf1", "id_switches"):
        assert json.loads(second)[name] == pytest.approx(json.loads(first)[name], abs=1e-3)


@pytest.mark.slow
def test_a_signal_leaves_whole_files(tmp_path: Path, model: Path) -> None:
    path = film(tmp_path / "a.avi", 3000, "MJPG")
    words = ["track", str(path), "--model", str(model), "--output", "a.jsonl", "--device", "cpu", "--threads", "1"]
    process = subprocess.Popen([sys.executable, "-m", "msresnet", *words], cwd=tmp_path, env=os.environ)
    for _ in range(600):
        if list(tmp_path.glob(".a.jsonl*")) and next(tmp_path.glob(".a.jsonl*")).stat().st_size:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == [*range(1, len(rows) + 1)]
    assert 0 < len(rows) < 3000


def test_names_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    path = folder(tmp_path / "in", 12)
    assert [frame.name.rpartition("frame")[2] for frame in frames_of(str(path))] == [f"{n}.png" for n in range(12)]
