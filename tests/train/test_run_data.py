"""What a run says of its data."""

from __future__ import annotations

from pathlib import Path

import pytest

from msresnet.data.options import DataOptions
from msresnet.errors import UsageError
from msresnet.files import write_text
from msresnet.run_folder import SETTINGS
from msresnet.train.config import TrainConfig
from msresnet.train.fit import to_yaml
from msresnet.train.run_data import OWN, sets_of, settings_of


def test_a_run_is_named_by_its_folder_or_by_a_file_in_it(tmp_path: Path) -> None:
    settings = TrainConfig(data="digits", epochs=3, seed=7)
    write_text(tmp_path / SETTINGS, to_yaml(settings))
    assert settings_of(str(tmp_path)) == settings
    assert settings_of(str(tmp_path / "model.onnx")) == settings


def test_data_of_a_run_are_found_from_anywhere(bars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "runs" / "bars"
    run.mkdir(parents=True)
    (tmp_path / "photos").symlink_to(bars)
    write_text(run / SETTINGS, to_yaml(TrainConfig(data="photos", val_data="none/here")))
    (tmp_path / "runs" / "latest").symlink_to("bars")
    monkeypatch.chdir(tmp_path)
    assert settings_of("runs/bars").data == "photos"
    monkeypatch.chdir(tmp_path / "runs")
    for model in ("bars", "latest", "bars/model.onnx", str(run)):
        assert settings_of(model).data == str(tmp_path / "photos")
        assert settings_of(model).val_data == "none/here"
    write_text(run / SETTINGS, to_yaml(TrainConfig(data="photos")))
    assert sets_of("latest", None, DataOptions())[0]
    write_text(run / SETTINGS, to_yaml(TrainConfig(data="digits")))
    (tmp_path / "digits").mkdir()
    assert settings_of("latest").data == "digits"  # what has a name of its own is no path


@pytest.mark.parametrize("model", ["hf:people/cells", "elsewhere", "elsewhere/model.onnx"])
def test_a_model_that_is_no_run_is_named_as_it_was_typed(model: str) -> None:
    with pytest.raises(UsageError, match="which data it is of") as caught:
        sets_of(model, None, DataOptions())
    assert caught.value.where == model


def test_images_that_a_run_has_learnt_from_are_told(bars: Path, tmp_path: Path) -> None:
    write_text(tmp_path / SETTINGS, to_yaml(TrainConfig(data=str(bars))))
    assert OWN in sets_of(str(tmp_path), f"{bars}/", DataOptions())[1]
    assert OWN not in sets_of(str(tmp_path), "digits", DataOptions())[1]
    (tmp_path / "both").mkdir()
    for split in ("train", "test"):  # its test set was held out already, and is what is measured
        (tmp_path / "both" / split).symlink_to(bars)
    write_text(tmp_path / SETTINGS, to_yaml(TrainConfig(data=str(tmp_path / "both"))))
    assert OWN not in sets_of(str(tmp_path), str(tmp_path / "both"), DataOptions())[1]
    write_text(tmp_path / SETTINGS, to_yaml(TrainConfig(data=str(bars))))
    assert OWN not in sets_of("elsewhere/model.onnx", str(bars), DataOptions())[1]
