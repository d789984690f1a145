"""Sets in memory, and how sets are held; one answer for a file through every door."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import hostile
from msresnet.bundle import Bundle
from msresnet.cli.main import main
from msresnet.data import loaders
from msresnet.data.lazy import Lazy
from msresnet.data.loaders import decode, learn_statistics, open_sets
from msresnet.data.options import DataOptions
from msresnet.data.order import epoch_order
from msresnet.data.preprocess import Preprocess, with_statistics
from msresnet.data.sample import ArraySource, Source
from msresnet.data.sets import Decoded, Samples
from msresnet.data.sources.folder import folder
from msresnet.errors import ResourceError, UsageError
from msresnet.estimator import Classifier, load
from msresnet.models.factory import create_classifier
from msresnet.tasks.classification import ClassificationTask

CPU = torch.device("cpu")


def decoded(count: int = 23) -> Decoded:
    """Random images of three classes."""
    images = torch.from_numpy(hostile.random_pixels(count, 1, 4, 4))
    return Decoded(images, torch.arange(count) % 3, [f"x[{i}]" for i in range(count)])


def test_batches_hold_the_samples_that_their_indices_name() -> None:
    samples = decoded()
    parts = epoch_order(23, 0, 0).split(5)
    batches = list(samples.batches(parts, CPU))
    assert [b.indices.tolist() for b in batches] == [p.tolist() for p in parts]
    for batch in batches:
        assert torch.equal(batch.images, samples.images[batch.indices])
        assert torch.equal(batch.targets, samples.targets[batch.indices])


def test_the_fingerprint_changes_with_pixels_labels_names_and_shape() -> None:
    first, pixel, label = decoded(), decoded(), decoded()
    pixel.images[7, 0, 2, 2] += 1
    label.targets[7] = (label.targets[7] + 1) % 3
    name = Decoded(first.images, first.targets, ["y", *first.ids[1:]])
    shape = Decoded(first.images.reshape(23, 1, 2, 8), first.targets, first.ids)
    others = [data.fingerprint() for data in (pixel, label, name, shape, decoded(22))]
    assert first.fingerprint() == decoded().fingerprint()
    assert len({first.fingerprint(), *others}) == 6


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_decoding_keeps_the_order_across_chunks_with_any_number_of_workers(workers: int) -> None:
    images = hostile.random_pixels(2500, 1, 3, 3)
    data = decode(ArraySource(images, np.arange(2500) % 7, "abcdefg"), Preprocess((3, 3), 1), workers)
    assert np.array_equal(data.images, images)
    assert np.array_equal(data.targets, np.arange(2500) % 7)
    assert (data.ids[2499], data.bad) == ("array[2499]", [])


def test_images_that_need_no_work_are_not_copied() -> None:
    images = hostile.random_pixels(5, 1, 3, 3)
    source = ArraySource(images, np.arange(5) % 2, "ab")
    assert decode(source, Preprocess((3, 3), 1)).images.data_ptr() == images.ctypes.data
    assert decode(source, Preprocess((3, 3), 1, threshold="9")).images.data_ptr() != images.ctypes.data
    images.flags.writeable = False
    assert np.array_equal(decode(source, Preprocess((3, 3), 1)).images, images)


def files(root: Path, count: int = 10) -> Source:
    """So many images of two classes, as files."""
    return folder(hostile.write_classes(root, {"cat": count // 2, "dog": count - count // 2}))[0]


def opened(source: Source, **options: object) -> tuple[Samples, str]:
    """The set as `open_sets` opens it, and the reason it gives."""
    sets, (note,) = open_sets({"train": source}, Preprocess((8, 8), 1), DataOptions(**options))  # type: ignore[arg-type]
    return sets["train"], note


def test_how_a_set_is_held_follows_from_its_size_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = files(tmp_path / "data")
    data, note = opened(source)
    assert isinstance(data, Decoded)
    assert "in memory" in note
    monkeypatch.setattr(loaders, "free_memory", lambda: 2 * 640 - 1)
    data, note = opened(source)
    assert isinstance(data, Lazy)
    assert data.store is not None
    assert "more than half of the free memory" in note
    monkeypatch.setattr(loaders, "free_disk", lambda: 2 * 640 - 1)
    data, note = opened(source)
    assert isinstance(data, Lazy)
    assert data.store is None
    assert "decoded in every epoch" in note
    monkeypatch.undo()
    monkeypatch.setattr(loaders, "MOST_FILES", 9)
    data, note = opened(source)
    assert isinstance(data, Lazy)
    assert "10 files" in note


def test_what_the_user_says_about_holding_a_set_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = files(tmp_path / "data")
    monkeypatch.setattr(loaders, "free_memory", lambda: 0)
    assert isinstance(opened(source, cache="ram")[0], Decoded)
    for cache, kept in (("disk", True), ("none", False)):
        data, note = opened(source, cache=cache)
        assert isinstance(data, Lazy)
        assert (data.store is not None) is kept
        assert "as asked" in note
    with pytest.raises(UsageError, match="--cache disk"):
        opened(ArraySource(hostile.random_pixels(4, 1, 8, 8), np.arange(4) % 2, "ab"), cache="disk")


def test_f03_a_cache_that_cannot_be_made_is_an_error_when_asked_for_and_else_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = files(tmp_path / "data")
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(ResourceError):
        opened(source, cache="disk")
    monkeypatch.setattr(loaders, "free_memory", lambda: 0)
    monkeypatch.setattr(loaders, "free_disk", lambda: 10**12)
    data, note = opened(source)
    assert isinstance(data, Lazy)
    assert data.store is None
    assert "decoded in every epoch" in note


def test_statistics_of_a_set_are_those_of_its_images(tmp_path: Path) -> None:
    source, preprocess = files(tmp_path / "data"), Preprocess((8, 8), 1)
    images = decode(source, preprocess).images
    expected = with_statistics(preprocess, images)
    assert learn_statistics(preprocess, Lazy(source, preprocess)) == expected
    assert expected.mean[0] == pytest.approx(float(images.double().mean() / 255), abs=1e-6)


def tiny_bundle(folder: Path, size: tuple[int, int] = (16, 16), chans: int = 1) -> Path:
    """A network that was never trained, as a bundle."""
    arguments = {"num_classes": 2, "in_chans": chans, "img_size": [*size]}
    model = create_classifier("msresnet_micro", **arguments).eval()
    task = ClassificationTask(("cat", "dog"))
    preprocess = Preprocess(size, chans, mean=(0.5,) * chans, std=(0.5,) * chans)
    return Bundle(model, "msresnet_micro", arguments, task, preprocess).save(folder)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", ["0", "2"])
def test_I03_predict_names_the_bad_image_and_answers_for_the_good(
    workers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_bundle(tmp_path / "model")
    (tmp_path / "bad.jpg").write_bytes(hostile.truncated_jpeg())
    (tmp_path / "good.png").write_bytes(hostile.encode(hostile.random_pixels(16, 16), "PNG"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    words = ["predict", "bad.jpg", "good.png", "--model", "model", "--device", "cpu", "--workers", workers]
    assert main(words) == 3
    out, err = capsys.readouterr()
    assert out.startswith("good.png: ")
    assert len(out.splitlines()) == 1
    assert "error: cannot decode the image" in err
    assert "where: bad.jpg" in err
    assert "why: " in err
    assert "Traceback" not in err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.timeout(60)
def test_I14_predict_gives_every_orientation_the_same_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_bundle(tmp_path / "model")
    upright = hostile.random_pixels(16, 24, 3)
    for orientation in range(1, 9):
        exif = Pillow.Exif()
        exif[0x0112] = orientation
        turned = hostile.laid_down(upright, orientation)
        (tmp_path / f"{orientation}.png").write_bytes(hostile.encode(turned, "PNG", exif=exif))
    assert main(["predict", "*.png", "--model", "model", "--device", "cpu", "--format", "csv"]) == 0
    answers = [line.partition(",")[2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(answers) == 8
    assert len(set(answers)) == 1


@pytest.mark.timeout(60)
def test_a_large_photograph_gets_one_answer_from_every_door(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is decoded at reduced scale, which no two doors may do differently."""
    tiny_bundle(tmp_path / "model", (16, 24), 3)
    exif = Pillow.Exif()
    exif[0x0112] = 6
    for name, options in (("cat", {"subsampling": 2}), ("dog", {"exif": exif, "progressive": True})):
        (tmp_path / "data" / name).mkdir(parents=True)
        data = hostile.encode(hostile.random_pixels(150, 130, 3), "JPEG", **options)
        (tmp_path / "data" / name / "1.jpg").write_bytes(data)
    common = ["--model", "model", "--device", "cpu"]
    assert main(["predict", "data", *common, "--format", "json", "--top", "2"]) == 0
    told = [{t["label"]: t["probability"] for t in row["top"]} for row in json.loads(capsys.readouterr().out)]
    for cache in ("ram", "none"):
        assert main(["evaluate", "--data", "data", *common, "--output", cache, "--cache", cache]) == 0
        rows = [line.split(",") for line in (tmp_path / cache / "predictions.csv").read_text().splitlines()[1:]]
        assert [float(row[3]) for row in rows] == [max(answer.values()) for answer in told]
    door = load(tmp_path / "model")
    assert isinstance(door, Classifier)
    shown = door.predict(str(tmp_path / "data"))
    assert [round(float(p), 4) for p in shown.probabilities[:, 0]] == [round(t["cat"], 4) for t in told]
    capsys.readouterr()
    assert main(["explain", "data", "--model", "model", "--format", "json", "--output", "x.png"]) == 0
    explained = [{t["label"]: t["probability"] for t in row["top"]} for row in json.loads(capsys.readouterr().out)]
    assert [e["cat"] for e in explained] == [t["cat"] for t in told]
