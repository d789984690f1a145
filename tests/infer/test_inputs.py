"""What arguments mean: each image once, lazily, whatever the files are; and what cannot be read is told one by one."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

import hostile
from hostile import encode, random_pixels
from msresnet.bundle import Bundle, load_bundle
from msresnet.cli.main import main
from msresnet.data.decode import decode_file
from msresnet.data.preprocess import Preprocess
from msresnet.errors import DataError, UsageError
from msresnet.infer import inputs
from msresnet.infer.backends.artefact import refuse_models
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.backends.graph import onnx_model
from msresnet.infer.inputs import Allowed, Input, Named, expand
from msresnet.models.factory import create_network
from msresnet.results import Segmentation
from msresnet.tasks.segmentation import SegmentationTask
from randomise import randomised
from sharding import SIDE, packed, png, rows


def named(*words: str, stdin: bytes = b"") -> list[str]:
    return [item.id for item in expand(words, io.BytesIO(stdin))]


@pytest.fixture
def tree(here: Path) -> Path:
    for name in ("b.png", "a.png", "deep/c.png", "deep/er/d.png", ".hidden.png", "deep/.e.png", "notes.txt"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_bytes(png(1))
    return here


@pytest.mark.usefixtures("tree")
def test_folders_and_patterns_come_in_order() -> None:
    assert named(".") == ["./a.png", "./b.png", "./deep/c.png", "./deep/er/d.png"]
    assert named("*.png") == ["a.png", "b.png"]
    assert named("*/*.png") == ["deep/c.png"]
    assert named("**/*.png") == ["a.png", "b.png", "deep/c.png", "deep/er/d.png"]
    assert named("**") == ["a.png", "b.png", "deep/c.png", "deep/er/d.png"]
    assert named("[ab].png", "no*.png") == ["a.png", "b.png", "no*.png"]


@pytest.mark.usefixtures("tree")
def test_pictures_of_formats_that_are_not_read_are_named_not_left_out() -> None:
    Path("deep/photo.HEIC").write_bytes(b"ftypheic")
    found = {item.id: item.decode() for item in expand(["deep"], io.BytesIO())}
    assert list(found) == ["deep/c.png", "deep/photo.HEIC", "deep/er/d.png"]
    error = found["deep/photo.HEIC"]
    assert isinstance(error, DataError)
    assert "convert it to one of JPEG" in error.hint


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["a.png", "a.png"], 1),
        (["a.png", "./a.png"], 1),
        (["deep", "deep/er", "deep/er/d.png"], 2),
        (["deep/er/d.png", "deep"], 2),
        (["*.png", "a.png", "."], 4),
        (["**/*.png", "deep"], 4),
        (["deep/*.png", "deep/**/d.png", "deep/er/*"], 2),
        (["**", "*/*.png", "b.png"], 4),
        (["deep/*", "deep/"], 2),
    ],
)
@pytest.mark.usefixtures("tree")
def test_what_two_arguments_name_comes_once(words: list[str], count: int, here: Path) -> None:
    found = named(*words)
    assert len(found) == len({os.path.realpath(name) for name in found}) == count
    absolute = [str(here / word) for word in words]
    assert len(named(*absolute)) == len(named(*words, *absolute)) == count


@pytest.mark.usefixtures("tree")
def test_a_list_leaves_out_what_an_argument_names_and_keeps_its_own_order() -> None:
    listed = b"b.png\n\ndeep/c.png\r\n./a.png\nb.png\n"
    assert named("-", stdin=listed) == ["b.png", "deep/c.png", "./a.png", "b.png"]
    assert named("-", "a.png", stdin=listed) == ["b.png", "deep/c.png", "b.png", "a.png"]
    assert named("deep", "-", stdin=listed) == ["deep/c.png", "deep/er/d.png", "b.png", "./a.png", "b.png"]


def test_what_an_argument_would_not_find_is_not_left_out_of_another(tree: Path) -> None:
    """A pattern finds no file without an ending, and a folder nothing behind a link."""
    (tree / "deep/photo").write_bytes(png(2))
    (tree / "far").mkdir()
    (tree / "far/x.png").write_bytes(png(3))
    (tree / "deep/link").symlink_to(tree / "far")
    (tree / "entry").symlink_to(tree / "deep")
    assert named("deep/*", "deep/photo") == ["deep/c.png", "deep/photo"]
    assert named("deep", "deep/link/x.png") == ["deep/c.png", "deep/er/d.png", "deep/link/x.png"]
    assert named("entry", "entry/er/d.png") == ["entry/c.png", "entry/er/d.png"]


def test_patterns_are_understood_as_glob_does(tree: Path) -> None:
    """The standard library's own matches are the truth."""
    everything = [str(p) for p in sorted(tree.rglob("*")) if p.is_file()]
    for pattern in ("*.png", "**/*.png", "d*/**/*.png", "*/??/*", "[!a].*", ".*", "deep/.*", "**", "deep/**"):
        import glob

        truth = {p for p in glob.glob(str(tree / pattern), recursive=True) if os.path.isfile(p)}  # noqa: PTH113, PTH207
        (ours,) = Named([str(tree / pattern)]).patterns
        assert {path for path in everything if ours.fullmatch(path)} == truth, pattern


def test_large_folders_are_not_kept_in_memory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "SORTED", 5)
    for number in range(12):
        (here / f"{number:02d}.png").write_bytes(b"")
    asked: list[str] = []

    def entries(folder: str) -> Iterator[os.DirEntry[str]]:
        with os.scandir(folder) as found:
            for entry in found:
                asked.append(entry.name)
                yield entry

    monkeypatch.setattr(inputs, "_entries", entries)
    stream = expand([str(here)], io.BytesIO())
    assert next(stream).id
    assert len(asked) <= 5
    assert len([*stream]) == 11


def test_a_list_is_read_line_by_line() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            line = b"photo.png\n" * (len(buffer) // 10)
            buffer[: len(line)] = line
            Endless.given += len(line)
            return len(line)

    stream = expand(["-"], io.BufferedReader(Endless(), 1 << 16))
    assert [next(stream).id for _ in range(50_000)] == ["photo.png"] * 50_000
    assert Endless.given < 1_000_000


@pytest.mark.parametrize("cut", range(65_530, 65_540))
def test_lines_and_letters_over_the_border_of_pieces(cut: int) -> None:
    names = ["ä" * 100 + str(i) for i in range(700)]
    start = "x" * (cut % 20)
    listed = "\n".join([start, *names]).encode()
    assert named("-", stdin=listed) == ([start] if start else []) + names


def test_standard_input_is_a_list_or_one_image(here: Path) -> None:
    (here / "a.png").write_bytes(png(3))
    (image,) = expand(["-"], io.BytesIO(png(3)))
    assert image.id == "standard input"
    (listed,) = expand(["-"], io.BytesIO(b"a.png"))
    assert (image.decode() == listed.decode()).all()  # type: ignore[union-attr]
    (nothing,) = expand(["-"], io.BytesIO(b" \n"))
    assert "standard input is empty" in str(nothing.error)
    large = encode(random_pixels(300, 300, 3), "PNG")
    assert len(large) > inputs.MOST_LINE
    (image,) = expand(["-"], io.BytesIO(large))
    assert image.decode().shape == (3, 300, 300)  # type: ignore[union-attr]


def test_a_model_among_the_images_is_refused_before_another_answers(model: Path, here: Path, capsys: Any) -> None:
    for text in (str(model), "exported/m/1/model.onnx"):
        with pytest.raises(UsageError, match="that is a model, no image"):
            refuse_models(["a.png", "x" * 300, text])
    assert main(["predict", str(model), "a.png", "--model", str(model)]) == 2
    assert f"--model {model}" in capsys.readouterr().err
    (here / "a.png").write_bytes(png(1))
    outputs = []
    for words in ([str(model), "a.png"], ["a.png", "--model", str(model)]):
        assert main(["predict", *words]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["predict", "x.png"], 0),
        (["predict", "-"], 3),
        (["explain", "x.png"], 0),
        (["predict", "x.tar", "--output", "out"], 0),
    ],
)
def test_standard_input_may_be_closed(words: list[str], code: int, model: Path, here: Path) -> None:
    (here / "x.png").write_bytes(png(1))
    packed(here / "x.tar", {"x.png": png(1)})
    command = ["bash", "-c", 'exec "$@" <&-', "bash", sys.executable, "-m", "msresnet", *words, "--model", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert ("standard input is empty" in done.stderr) == (words == ["predict", "-"])


def test_nothing_and_addresses_without_permission_are_refused() -> None:
    with pytest.raises(UsageError, match="no image was named"):
        named()
    with pytest.raises(UsageError, match=r"(?s)addresses are not fetched.*--allow-urls"):
        named("https://example.com/x.jpg")
    (item,) = expand(["-"], io.BytesIO(b"https://name:secret@example.com/x.jpg\n"))
    assert "--allow-urls" in str(item.error)
    assert "secret" not in str(item.error) + item.id


def bad_files(here: Path) -> list[str]:
    """Files that cannot be read, by the case's id; what a person might name."""
    data = {
        "I01.png": b"",
        "I02.png": random_pixels(500).tobytes(),
        "I03.jpg": hostile.truncated_jpeg(),
        "I04.png": hostile.png_with_a_bad_checksum(),
        "I05.png": hostile.png_claiming(50_000, 50_000),
        "I06.gif": hostile.gif_bomb(),
        "I07.bmp": hostile.bmp_with_an_absurd_width(),
        "I09.jpg": hostile.foreign_formats()["EPS"],
        "I09.png": hostile.foreign_formats()["SVG"],
        "I16.png": encode(random_pixels(1, 1), "PNG"),
        "D20.png": hostile.LFS_POINTER,
    }
    for name, content in data.items():
        (here / name).write_bytes(content)
    (here / "I19.png").symlink_to(here / "nowhere")
    (here / "I19-loop.png").symlink_to(here / "I19-loop.png")
    os.mkfifo(here / "I20.png")
    return [*data, "I19.png", "I19-loop.png", "I20.png", "I22-gone.png"]


def test_I01_to_I22_bad_files_are_named_and_the_others_answered(model: Path, here: Path, capsys: Any) -> None:
    bad = bad_files(here)
    (here / "I08.jpg").write_bytes(encode(random_pixels(20, 20, 3), "WEBP"))
    (here / "I15.png").write_bytes(encode(random_pixels(20, 20, 3), "PNG", exif=b"Exif\0\0" + bytes(range(200))))
    frames = [Pillow.fromarray(random_pixels(20, 20, 3, seed=i)) for i in range(3)]
    frames[0].save(here / "I17.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(here / "I17.png", save_all=True, append_images=frames[1:])
    good = ["I08.jpg", "I15.png", "I17.webp", "I17.png"]
    words = ["--model", str(model), "--device", "cpu", "--format", "csv"]
    assert main(["predict", *bad, *good, *words]) == 3
    captured = capsys.readouterr()
    answers = list(csv.DictReader(io.StringIO(captured.out)))
    assert [row["id"] for row in answers] == good
    assert answers[2]["probability"] == answers[3]["probability"]  # both are the first frame
    assert captured.err.count("error: ") == len(bad)
    assert all(f"where: {name}" in captured.err for name in bad)
    assert "Traceback" not in captured.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_I18_a_file_that_may_not_be_read(model: Path, here: Path, capsys: Any) -> None:
    (here / "x.png").write_bytes(png(1))
    (here / "x.png").chmod(0)
    assert main(["predict", "x.png", "--model", str(model)]) == 3
    assert "Permission denied" in capsys.readouterr().err


def test_I21_names_that_are_no_text_or_very_long(model: Path, here: Path, capsys: Any) -> None:
    folder = here / "data"
    folder.mkdir()
    for raw in (b"\xff.png", b"a\nb.png", b"n" * 251 + b".png", b"=1+1.png"):
        (folder / os.fsdecode(raw)).write_bytes(png(1))
    assert main(["predict", "data", "--model", str(model), "--save-images", "shown", "--format", "jsonl"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert len([*(here / "shown").iterdir()]) == 4
    assert all(p.name.isascii() and len(p.name) < 130 for p in (here / "shown").iterdir())
    parquet = pytest.importorskip("pyarrow.parquet")
    assert main(["predict", "data", "--model", str(model), "--output", "x.parquet"]) == 0
    assert parquet.read_table("x.parquet")["id"].to_pylist()[:2] == ["data/=1+1.png", "data/a\\nb.png"]


def test_I23_what_is_read_is_what_is_there_when_its_turn_comes(here: Path) -> None:
    (here / "x.png").write_bytes(png(1))
    (item,) = expand(["x.png"], io.BytesIO())
    (here / "x.png").write_bytes(encode(random_pixels(90, 80), "PNG"))
    assert item.decode().shape == (1, 90, 80)  # type: ignore[union-attr]


def test_answers_in_a_file_are_those_on_the_screen(model: Path, here: Path, capsys: Any) -> None:
    for number in range(5):
        (here / f"{number}.png").write_bytes(png(number))
    (here / "bad.png").write_bytes(b"no image")
    flags = ["--model", str(model), "--device", "cpu"]
    assert main(["predict", "*.png", *flags, "--format", "jsonl"]) == 3
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for form in ("csv", "jsonl", "parquet"):
        assert main(["predict", "*.png", *flags, "--output", f"out/answers.{form}"]) == 3
    assert sorted(p.name for p in Path("out").iterdir()) == ["answers.csv", "answers.jsonl", "answers.parquet"]
    assert capsys.readouterr().out == ""
    from pyarrow import parquet

    table = parquet.read_table(here / "out" / "answers.parquet").to_pylist()
    lines = [json.loads(line) for line in (here / "out" / "answers.jsonl").read_text().splitlines()]
    written = rows(here / "out" / "answers.csv")
    assert [row["id"] for row in table] == [row["id"] for row in lines] == [row["id"] for row in written]
    assert [row for row in lines if "error" not in row] == printed
    assert [row["top"] for row in table if row["error"] is None] == [row["top"] for row in printed]
    assert [(r["id"], bool(r["error"])) for r in written if r["error"]] == [("bad.png", True)]
    assert len(table) == 6


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_the_order_of_a_file_is_that_of_the_images_whatever_the_batch(form: str, model: Path, here: Path) -> None:
    for number in range(6):
        (here / f"{number}.png").write_bytes(b"no image" if number in (0, 2, 3) else png(number))
    written = []
    for size in (1, 4, 64):
        words = ["--model", str(model), "--device", "cpu", "--batch-size", str(size), "--output", f"{size}.{form}"]
        assert main(["predict", "*.png", *words]) == 3
        written.append((here / f"{size}.{form}").read_bytes())
    assert written[0] == written[1] == written[2]
    if form == "csv":
        assert [row["id"] for row in rows(here / "64.csv")] == [f"{number}.png" for number in range(6)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "x.csv", "--format", "jsonl"], "the file's ending says its format"),
        (["--format", "parquet"], "--output answers.parquet"),
        (["--every", "0"], "--every 0.5s"),
        (["--every", "soon"], "--every 0.5s"),
        (["--output", "out", "--save-images", "p"], "--save-images with --output"),
        (["--output", "out", "--allow-urls"], "--allow-urls with --output"),
    ],
)
def test_K_what_contradicts_itself(words: list[str], message: str, model: Path, capsys: Any) -> None:
    assert main(["predict", "x.png", "--model", str(model), *words]) == 2
    assert message in capsys.readouterr().err


def test_K06_an_output_that_cannot_be_written(model: Path, here: Path, capsys: Any) -> None:
    (here / "x.png").write_bytes(png(1))
    (here / "taken.csv").mkdir()
    (here / "file").write_bytes(b"mine")
    for words in (["--output", "taken.csv"], ["--save-images", "file"], ["--output", "file/x.csv"]):
        assert main(["predict", "x.png", "--model", str(model), *words]) == 2
        assert "Traceback" not in capsys.readouterr().err
    assert (here / "file").read_bytes() == b"mine"


def test_the_array_of_json_is_whole_whatever_happens(model: Path, here: Path, capsys: Any) -> None:
    (here / "x.png").write_bytes(png(1))
    (here / "bad.png").write_bytes(b"")
    for words, count, code in ((["x.png", "x.png", "bad.png"], 1, 3), (["bad.png"], 0, 3), (["x.png"], 1, 0)):
        assert main(["predict", *words, "--model", str(model), "--format", "json"]) == code
        assert len(json.loads(capsys.readouterr().out)) == count


def test_saved_images_never_take_the_place_of_a_file(model: Path, here: Path, capsys: Any) -> None:
    (here / "a").mkdir()
    (here / "a" / "b.png").write_bytes(encode(random_pixels(30, 40, 3), "PNG"))
    (here / "a_b.png").write_bytes(encode(random_pixels(2000, 1500, 3), "PNG"))
    (here / "shown").mkdir()
    (here / "shown" / "a_b.png.jpg").write_bytes(b"mine")
    for _ in range(2):
        assert main(["predict", "a/b.png", "a_b.png", "--model", str(model), "--save-images", "shown"]) == 0
    names = sorted(p.name for p in (here / "shown").iterdir())
    assert names == ["a_b.png-2.jpg", "a_b.png-3.jpg", "a_b.png-4.jpg", "a_b.png-5.jpg", "a_b.png.jpg"]
    assert (here / "shown" / "a_b.png.jpg").read_bytes() == b"mine"
    with Pillow.open(here / "shown" / "a_b.png-3.jpg") as large, Pillow.open(here / "shown" / "a_b.png-2.jpg") as small:
        assert 1024 <= large.height <= 1100
        assert small.height >= 120


def test_saved_images_change_no_answer(model: Path, here: Path, capsys: Any) -> None:
    (here / "x.jpg").write_bytes(encode(hostile.smooth_pixels(900, 700), "JPEG"))
    assert main(["predict", "x.jpg", "--model", str(model)]) == 0
    plain = capsys.readouterr().out
    assert main(["predict", "x.jpg", "--model", str(model), "--save-images", "shown"]) == 0
    assert capsys.readouterr().out == plain


def test_which_run_is_the_latest_is_told(model: Path, here: Path, capsys: Any) -> None:
    (here / "x.png").write_bytes(png(1))
    (here / "runs").mkdir()
    (here / "runs" / "first").symlink_to(model)
    (here / "runs" / "latest").symlink_to("first")
    assert main(["predict", "x.png"]) == 0
    assert "runs/latest is runs/first" in capsys.readouterr().err
    assert main(["predict", "x.png", "--model", str(model)]) == 0
    assert "latest" not in capsys.readouterr().err
    assert main(["predict", "x.png", "-q"]) == 0
    assert capsys.readouterr().err == ""


def test_what_runs_the_model_is_told_and_why(model: Path, here: Path, capsys: Any) -> None:
    (here / "x.png").write_bytes(png(1))
    onnx = here / "m.onnx"
    onnx.write_bytes(onnx_model(load_bundle(model)).SerializeToString())
    for words, text in (
        (["--model", str(model)], "· torch, fp32, on cpu ("),
        (["--model", str(onnx)], "(one for each core): the fastest that is installed"),
        (["--model", str(onnx), "--backend", "onnxruntime", "--threads", "2"], "fp32, 2 threads (as asked)\n"),
    ):
        assert main(["predict", "x.png", *words]) == 0
        assert text in capsys.readouterr().err


@pytest.mark.parametrize("way", ["list", pytest.param("folder", marks=pytest.mark.slow), "tar"])
def test_D11_many_images_need_no_more_memory_than_few(way: str, model: Path, here: Path) -> None:
    """Resident memory of a process that has seen ten times as many."""
    memory = [_peak(_many(way, here / str(count), count), model, here) for count in (2_000, 20_000)]
    assert memory[1] - memory[0] < 30_000, f"{memory} kB"


def _many(way: str, folder: Path, count: int) -> tuple[list[str], bytes]:
    """Arguments and standard input that name so many images."""
    folder.mkdir()
    (folder / "x.png").write_bytes(encode(random_pixels(SIDE, SIDE), "PNG"))
    if way == "list":
        return ["-"], f"{folder}/x.png\n".encode() * count
    if way == "folder":
        for number in range(count):
            os.link(folder / "x.png", folder / f"{number}.png")
        return [str(folder)], b""
    path = packed(folder / "x.tar", {f"{i}.png": (folder / "x.png").read_bytes() for i in range(count)})
    return [str(path)], b""


def _peak(asked: tuple[list[str], bytes], model: Path, here: Path) -> int:
    words = ["predict", *asked[0], "--model", str(model), "--device", "cpu", "--workers", "2", "--format", "json"]
    code = (
        "import resource, sys; from msresnet.cli.main import main; code = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    with (here / "out.json").open("wb") as out:
        command = [sys.executable, "-c", code, *words]
        done = subprocess.run(command, input=asked[1], stdout=out, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stderr.split()[-1])


def test_frames_are_no_files(here: Path) -> None:
    with pytest.raises(Exception, match="a frame of a video"):
        Input("clip#t=1s", pixels=random_pixels(3, 8, 8)).open()
    assert Allowed().urls is False


def test_masks_are_told_alike_by_every_door(here: Path, capsys: Any) -> None:
    network = create_network("pyramid", "msresnet_micro", num_classes=2, in_chans=1, img_size=(16, 16))
    randomised(network)
    preprocess = Preprocess((16, 16), 1, mean=(0.5,), std=(0.2,), whole=True)
    arguments = {"num_classes": 2, "in_chans": 1, "img_size": [16, 16]}
    bundle = Bundle(network, "msresnet_micro", arguments, SegmentationTask(["=a", "b"]), preprocess)
    bundle.save(here / "masks")
    (here / "data").mkdir()
    for number, size in enumerate([(30, 20), (16, 16), (8, 50)]):
        (here / "data" / f"{number}.png").write_bytes(encode(random_pixels(*size), "PNG"))
    words = ["predict", "data", "--model", "masks", "--device", "cpu"]
    assert main([*words, "--format", "csv", "--save-images", "shown"]) == 0
    printed = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["height"], row["width"]) for row in printed] == [("30", "20"), ("16", "16"), ("8", "50")]
    for output, file in (("one.csv", "one.csv"), ("sharded", "sharded/data.csv")):
        assert main([*words, "--output", output, "-q"]) == 0
        assert [{k: v for k, v in row.items() if k != "error"} for row in rows(here / file)] == printed
    assert main([*words, "--output", "one.parquet"]) == 0
    predictor = predictor_of(load_bundle(here / "masks"), "cpu")
    for row, path in zip(printed, sorted((here / "shown").iterdir()), strict=True):
        answer = predictor.predict([decode_file(here / "data" / path.stem.removeprefix("data_"))], ["x"])
        assert isinstance(answer, Segmentation)
        with Pillow.open(path) as mask:
            assert np.array_equal(np.asarray(mask), answer.masks[0])
            share = float(np.mean(np.asarray(mask) == 1))
        shares = row["shares"].removeprefix("'").split("; ")
        told = {text.rpartition(" ")[0]: float(text.rpartition(" ")[2]) for text in shares}
        assert told.get("b", 0.0) == pytest.approx(share, abs=1e-4)


def test_what_is_refused_prints_no_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--format", "json"]) == 2
    assert capsys.readouterr().out == ""


def test_every_is_refused_where_nothing_can_move(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "photo.jpg", "--every", "1s"]) == 2
    assert "--every has no effect here" in capsys.readouterr().err
