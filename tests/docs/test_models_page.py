"""docs/models.md and the figures beside the models say what the code says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

from msresnet.models.cost import count, figures
from msresnet.models.factory import MODELS, list_models
from msresnet.models.families import FAMILIES
from msresnet.nn.grammar import OPERATORS

DOCS = Path(__file__).resolve().parents[2] / "docs"

SMALL = [next(iter(family.members)) for family in FAMILIES]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_current(generate: ModuleType) -> None:
    text = generate.PAGE.read_text(encoding="utf-8")
    assert generate.page(text) == text, "make docs"


def test_the_pictures_are_current(generate: ModuleType) -> None:
    drawn = {path.name: path.read_text(encoding="utf-8") for path in generate.PICTURES.glob("*.svg")}
    assert drawn == generate.pictures(), "make docs"


def test_every_picture_is_shown_once() -> None:
    shown = re.findall(r"\]\(pictures/(\w+)\.svg\)", (DOCS / "models.md").read_text(encoding="utf-8"))
    assert len(shown) == len(set(shown))
    assert set(shown) <= set(OPERATORS.names())


def test_every_model_has_figures(generate: ModuleType) -> None:
    lines = generate.FIGURES.read_text(encoding="utf-8").splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == list_models(), "make docs"


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in SMALL else pytest.mark.slow) for n in list_models()])
def test_figures_are_current(name: str) -> None:
    assert figures(name) == count(name), "make docs"


def test_the_code_on_the_page_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(OPERATORS, "_entries", dict(OPERATORS._entries))
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "models.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    assert all(len(block.splitlines()) < 40 for block in blocks[:3])  # operators
    for block in blocks:
        names: dict[str, object] = {}
        exec(compile(block, "models.md", "exec"), names)
        net = names["net"]
        assert isinstance(net, torch.nn.Module)
        chans = 1 if "in_chans=1" in block else 3
        assert net.eval()(torch.randn(1, chans, 64, 64)).shape == (1, 10)
    assert "res2net50_26w_4s" in capsys.readouterr().out
