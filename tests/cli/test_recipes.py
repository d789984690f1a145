"""Recipes: where their settings stand among the others, and what is said of them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from msresnet.cli.main import main
from msresnet.models.factory import list_models
from msresnet.train.config import TrainConfig
from msresnet.train.recipes import RECIPES


def origins(text: str) -> dict[str, tuple[object, str]]:
    """Each setting's value and where it came from, as --print-config says."""
    rows = [line.partition("  # ") for line in text.splitlines()]
    return {key: (value, where) for row, _, where in rows for key, value in yaml.safe_load(row).items()}


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, tuple[object, str]]:
    assert main(["train", *words, "--print-config"]) == 0
    return origins(capsys.readouterr().out)


@pytest.mark.parametrize("name", RECIPES)
def test_settings_are_real_ones_and_the_text_gives_the_command(name: str) -> None:
    recipe = RECIPES[name]
    assert set(recipe.settings) <= {field.name for field in fields(TrainConfig)}
    TrainConfig(**recipe.settings)
    assert f"--recipe {name}" in recipe.text
    assert recipe.settings.get("model", "auto") in ["auto", *list_models()]


def test_defaults_recipe_file_environment_flags_in_this_order(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = RECIPES["mnist-fast"].settings
    shown = printed(capsys, "--recipe", "mnist-fast")
    assert shown["model"] == (settings["model"], "recipe mnist-fast")
    assert shown["seed"] == (0, "default")
    (tmp_path / "c.yaml").write_text("recipe: mnist-fast\nepochs: 7\nmodel: resnet18\nseed: 5\n")
    monkeypatch.setenv("MSRESNET_TRAIN_SEED", "6")
    shown = printed(capsys, "--config", str(tmp_path / "c.yaml"), "epochs=8")
    assert shown["epochs"] == (8, "flag")
    assert shown["seed"] == (6, "environment")
    assert shown["model"] == ("resnet18", str(tmp_path / "c.yaml"))
    assert shown["schedule"] == (settings["schedule"], "recipe mnist-fast")


def test_unknown_recipes_name_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--recipe", "minst-fast"]) == 2
    assert "--recipe mnist-fast" in capsys.readouterr().err


def test_the_list_says_what_each_costs_and_gives(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--recipe", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in RECIPES)
