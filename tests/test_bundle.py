"""Bundles: what is saved is what is loaded, and what is damaged or hostile is refused by name."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from msresnet.bundle import Bundle, load_bundle
from msresnet.cli.main import main
from msresnet.data.preprocess import Preprocess
from msresnet.errors import ModelError, MsresnetError
from msresnet.hub import CARD, CONFIG, WEIGHTS
from msresnet.models.factory import create_classifier
from msresnet.tasks.classification import ClassificationTask
from msresnet.tensors import load_tensors, save_tensors
from tiny import contents, same

NAMES = ("cat", "dog", "newt")
SCORES = {"test": {"n": 1234, "top1": 0.9876, "top1_ci95": [0.98, 0.99], "loss": 0.1, "ece": 0.01}}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A bundle of three classes on the disk."""
    arguments = {"num_classes": 3, "in_chans": 1, "img_size": [12, 12]}
    model = create_classifier("msresnet_micro", **arguments)
    with torch.no_grad():
        model(torch.randn(4, 1, 12, 12))  # statistics that are not those of a fresh network
    preprocess = Preprocess((12, 12), 1, mean=(0.25,), std=(0.5,))
    bundle = Bundle(model.eval(), "msresnet_micro", arguments, ClassificationTask(NAMES), preprocess, SCORES, "CC0-1.0")
    return bundle.save(tmp_path / "bundle")


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    change(config)
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The message, after checking that the command line refuses the bundle with 4 and changes nothing."""
    before = contents(folder)
    assert main(["predict", "--model", str(folder), "none.png"]) == 4
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert str(folder) in message
    assert contents(folder) == before
    return message


def test_round_trip_is_bit_identical(saved: Path, tmp_path: Path) -> None:
    first = load_bundle(saved)
    second = load_bundle(first.save(tmp_path / "again"))
    x = torch.randn(5, 1, 12, 12)
    assert torch.equal(first.model(x), second.model(x))
    assert not first.model.training
    for name in (CONFIG, CARD):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert same(load_tensors(saved / WEIGHTS)[0], load_tensors(tmp_path / "again" / WEIGHTS)[0])
    assert (first.task.class_names, first.preprocess) == (NAMES, second.preprocess)
    assert (first.licence, first.scores) == ("CC0-1.0", SCORES)


@pytest.mark.parametrize("name", ["", CONFIG, WEIGHTS])
def test_a_bundle_is_named_by_its_folder_or_its_files(saved: Path, name: str) -> None:
    assert load_bundle(saved / name).architecture == "msresnet_micro"


@pytest.mark.parametrize("name", ["LICENSE", "notes.txt"])
def test_a_file_of_something_else_is_told_so(saved: Path, name: str) -> None:
    (saved / name).write_text("Apache License")
    with pytest.raises(ModelError, match="the file is not a model"):
        load_bundle(saved / name)


def test_the_card_has_the_scores(saved: Path) -> None:
    text = (saved / CARD).read_text(encoding="utf-8")
    for part in ("98.76 %", "98.00 to 99.00 %", "1,234", "cat, dog, newt", "CC0-1.0"):
        assert part in text


def test_C01_zero_bytes(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (saved / WEIGHTS).write_bytes(b"")
    assert "empty" in refused(saved, capsys)


@pytest.mark.parametrize("percent", [10, 50, 99])
def test_C02_truncated(saved: Path, percent: int) -> None:
    data = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(data[: len(data) * percent // 100])
    with pytest.raises(ModelError, match=WEIGHTS):
        load_bundle(saved)


def test_C03_one_flipped_bit(saved: Path) -> None:
    whole, original = (saved / WEIGHTS).read_bytes(), load_tensors(saved / WEIGHTS)[0]
    rng = random.Random(1)
    for place in [rng.randrange(8 * 20_000) for _ in range(10)] + [rng.randrange(8 * len(whole)) for _ in range(10)]:
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        (saved / WEIGHTS).write_bytes(flipped)
        with contextlib.suppress(ModelError):
            assert same(load_tensors(saved / WEIGHTS)[0], original)


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", [WEIGHTS, "weights.pt"])
@pytest.mark.parametrize("form", ["plain", "oldest", "torch"])
def test_C04_a_pickle_is_never_run(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, form: str
) -> None:
    trap, file = tmp_path / "ran", saved / name
    if form == "torch":
        torch.save({"weights": Hostile(trap)}, file)
    else:
        file.write_bytes(pickle.dumps(Hostile(trap), protocol=4 if form == "plain" else 0))
    assert main(["predict", "--model", str(file if name != WEIGHTS else saved), "none.png"]) == 4
    assert "pickle" in capsys.readouterr().err or form == "oldest"
    assert not trap.exists()


def test_C05_a_zip_behind_the_tensors(saved: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", b"x")
    (saved / WEIGHTS).write_bytes((saved / WEIGHTS).read_bytes() + archive.getvalue())
    with pytest.raises(ModelError, match="no whole safetensors file"):
        load_bundle(saved)


@pytest.mark.parametrize(
    ("header", "length"),
    [(b"{}", 1 << 62), (b'{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}', None), (b"[" * 9000, None)],
)
def test_C06_C07_hostile_headers(saved: Path, header: bytes, length: int | None) -> None:
    (saved / WEIGHTS).write_bytes((length or len(header)).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ModelError, match=r"no whole safetensors file|holds no weights"):
        load_bundle(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_C08_weights_that_are_not_finite(saved: Path, value: float, capsys: pytest.CaptureFixture[str]) -> None:
    tensors, meta = load_tensors(saved / WEIGHTS)
    tensors["fc.weight"][1, 2] = value
    save_tensors(saved / WEIGHTS, tensors, meta)
    assert "fc.weight" in refused(saved, capsys)


def test_C09_wrong_class_count_names_both(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [str(i) for i in range(7)]
    edit(saved, lambda c: (c["arguments"].update(num_classes=7), c["task"].update(class_names=names)))
    message = refused(saved, capsys)
    assert "3 classes in the file, 7 in the model" in message
    edit(saved, lambda c: c["arguments"].update(num_classes=3))
    message = refused(saved, capsys)
    assert "3 outputs" in message
    assert "7 class names" in message


def test_C10_wrong_architecture_names_five_keys(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(saved, lambda c: c.update(architecture="msresnet18"))
    message = refused(saved, capsys)
    assert "msresnet18" in message
    missing = message.split("missing: ")[1].split(" and ")[0].split(", ")
    assert len(missing) == 5
    assert set(missing) <= set(create_classifier("msresnet18", num_classes=3, in_chans=1).state_dict())


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "hf:evil/repo"},
        {"arguments": {"num_classes": 3, "pretrained": "/etc/passwd"}},
        {"arguments": {"num_classes": 3, "pretrained": "hf:evil/repo"}},
        {"arguments": {"num_classes": 3, "features_only": True}},
        {"architecture": "msdnet24_cifar", "arguments": {"factors": [1] * 900, "layers": [1] * 900}},
        {"architecture": "resnet50", "arguments": {"base_width": 16384, "cardinality": 16384}},
    ],
)
def test_a_config_fetches_nothing_and_builds_nothing_absurd(
    change: dict[str, Any], saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("msresnet.hub.fetch", never)
    edit(saved, lambda c: c.update(change))
    message = refused(saved, capsys)
    assert "passwd" not in message


def test_a_run_that_has_not_finished_says_how_to_go_on(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (saved / "config.json").unlink()
    (saved / "train.yaml").write_text("epochs: 3\n")
    assert "msresnet train --resume --output" in refused(saved, capsys)


def test_C11_a_newer_format(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(saved, lambda c: c.update(format_version=2))
    message = refused(saved, capsys)
    assert "format 2, this msresnet reads up to 1" in message
    assert "pip install --upgrade" in message


def test_an_unknown_architecture_names_the_nearest(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(saved, lambda c: c.update(architecture="msresnet_mikro"))
    assert "msresnet_micro" in refused(saved, capsys)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 250_000, '{"format_version": 1}', '"x"', "\x00", "1" * 5000])
def test_a_config_of_garbage(saved: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (saved / CONFIG).write_text(text, encoding="utf-8")
    assert str(saved / CONFIG) in refused(saved, capsys)


def test_a_missing_config(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (saved / CONFIG).unlink()
    assert "config.json" in refused(saved, capsys)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("task", {"name": "telepathy"}),
        ("task", {"class_names": "abc"}),
        ("task", {"class_names": [1, 2, 3]}),
        ("preprocess", {"size": "large"}),
        ("preprocess", {"size": [0, 12]}),
        ("preprocess", {"mean": [0.1, 0.2]}),
        ("preprocess", {"std": [0.0]}),
        ("preprocess", {"std": ["x"]}),
        ("preprocess", {"colour": "blue"}),
        ("preprocess", {"channels": 3, "mean": [0.0] * 3, "std": [1.0] * 3}),
        ("arguments", {"num_classes": "three"}),
        ("arguments", {"in_chans": 10**12}),
        ("arguments", {"in_chans": 10**6}),
        ("arguments", {"img_size": [1, 2, 3]}),
        ("arguments", {"depths": "many"}),
        ("arguments", {"unknown": 1}),
    ],
)
def test_a_config_that_says_nonsense(saved: Path, section: str, values: dict[str, Any]) -> None:
    edit(saved, lambda c: c[section].update(values))
    # What could be built, and is not what the weights are of, shows in the weights.
    with pytest.raises(ModelError, match=WEIGHTS if values == {"in_chans": 10**6} else CONFIG):
        load_bundle(saved)


def test_networks_of_one_size_are_fed_that_size(saved: Path, tmp_path: Path) -> None:
    edit(saved, lambda c: c["preprocess"].update(size=[16, 16]))
    assert load_bundle(saved).preprocess.size == (16, 16)  # most take any

    arguments = {"num_classes": 3, "in_chans": 1, "img_size": [28, 28]}
    model = create_classifier("article_cnn", **arguments).eval()
    other = Bundle(
        model, "article_cnn", arguments, ClassificationTask(NAMES), Preprocess((64, 64), 1, mean=(0.0,), std=(1.0,))
    )
    with pytest.raises(ModelError, match=CONFIG):
        load_bundle(other.save(tmp_path / "article"))


def test_an_absent_model_names_the_nearest(saved: Path) -> None:
    with pytest.raises(ModelError, match="bundle"):
        load_bundle(saved.with_name("bundel"))


def test_weights_that_are_a_pipe_do_not_hang(saved: Path) -> None:
    (saved / WEIGHTS).unlink()
    os.mkfifo(saved / WEIGHTS)
    with pytest.raises(ModelError, match="not a file"):
        load_bundle(saved)


def test_weights_of_others_carry_no_digest_and_load(saved: Path) -> None:
    tensors = load_file(saved / WEIGHTS)
    save_file(tensors, saved / WEIGHTS)
    assert same(load_bundle(saved).model.state_dict(), tensors)


def test_a_header_as_long_as_a_pickles_first_byte(tmp_path: Path) -> None:
    """128 and 640 bytes begin like pickles of protocol 0 and 2."""
    path, begins = tmp_path / "a.safetensors", set()
    for length in range(0, 1200, 8):
        save_tensors(path, {"a": torch.arange(3)}, {"text": "x" * length})
        begins.add(path.read_bytes()[:1])
        assert torch.equal(load_tensors(path)[0]["a"], torch.arange(3))
    assert b"\x80" in begins


def test_saving_where_nothing_can_be_written(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(MsresnetError, match="cannot write"):
        load_bundle(saved).save(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"mine"
