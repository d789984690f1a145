"""Which set a temperature is fitted on, and what its keeping changes in a bundle."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msresnet.bundle import card, load_bundle
from msresnet.errors import ResourceError, UsageError
from msresnet.files import lock
from msresnet.infer.calibrate import COMMAND, keep, pick_for_fitting
from msresnet.tasks.classification import ClassificationTask
from tiny import contents

MEASURED: dict[str, Any] = {"n": 9, "top1": 0.5, "top1_ci95": [0.2, 0.8], "loss": 0.4, "ece": 0.1}


@pytest.mark.parametrize(
    ("sets", "split", "chosen"),
    [
        (("train", "val", "test"), "auto", "val"),
        (("train", "val", "test"), "train", "train"),
        (("train", "val", "test"), "test", "test"),
        (("given",), "auto", "given"),
        (("train",), "auto", "train"),
    ],
)
def test_the_set_that_is_fitted_on(sets: tuple[str, ...], split: str, chosen: str) -> None:
    assert pick_for_fitting(dict.fromkeys(sets, 0), split) == (chosen, 0)


@pytest.mark.parametrize(
    ("sets", "split"), [(("test",), "auto"), (("train", "test"), "auto"), (("train", "test"), "val")]
)
def test_no_test_set_unasked_and_no_set_that_is_absent(sets: tuple[str, ...], split: str) -> None:
    with pytest.raises(UsageError, match="to calibrate on"):
        pick_for_fitting(dict.fromkeys(sets, 0), split)


def test_keeping_changes_the_temperature_and_the_scores_alone(model: Path, here: Path) -> None:
    folder = Path(shutil.copytree(model, here / "m"))
    old = {"test": MEASURED | {"data": "d", "measured_by": "x"}, "val": MEASURED}
    bundle = load_bundle(folder).with_scores(old)
    bundle.save_config(folder)
    before = contents(folder)
    task = ClassificationTask(bundle.task.class_names, temperature=2.5)
    keep(folder, replace(bundle, task=task), "test", MEASURED | {"loss": 0.3, "ece": 0.05, "aurc": 0.1})

    loaded = load_bundle(folder)
    assert isinstance(loaded.task, ClassificationTask)
    assert loaded.task.temperature == 2.5
    assert loaded.scores["test"] == old["test"] | {"loss": 0.3, "ece": 0.05, "measured_by": COMMAND}
    assert loaded.scores["val"] == {name: MEASURED[name] for name in ("n", "top1", "top1_ci95")}
    assert {name for name, data in contents(folder).items() if before.get(name) != data} == {"config.json"}


@pytest.mark.parametrize("written", [None, "what I know of this model\n"])
def test_a_card_follows_unless_somebody_wrote_it(written: str | None, model: Path, here: Path) -> None:
    folder = Path(shutil.copytree(model, here / "m"))
    load_bundle(folder).with_scores({"test": MEASURED | {"measured_by": "x"}}).save_config(folder)
    if written is not None:
        (folder / "README.md").write_text(written)
    keep(folder, load_bundle(folder), "test", MEASURED | {"top1": 0.75, "aurc": 0.1})
    found = (folder / "README.md").read_text()
    assert found == (written or card(load_bundle(folder)))
    assert load_bundle(folder).scores["test"]["top1"] == 0.75
    assert ("75" in found) == (written is None)


def test_K12_a_folder_that_a_training_holds_is_left_alone(model: Path, here: Path) -> None:
    folder = Path(shutil.copytree(model, here / "m"))
    bundle = load_bundle(folder)
    with lock(folder):
        before = contents(folder)
        with pytest.raises(ResourceError, match="another run"):
            keep(folder, bundle, None, MEASURED)
        assert contents(folder) == before
