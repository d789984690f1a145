"""Training, predicting, exporting and serving ask no model for its task: what tasks differ in goes through the seam."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest

from msresnet.models.base import ImageModel
from msresnet.results import Results
from msresnet.tasks.base import Task
from msresnet.tasks.known import TASKS
from msresnet.tasks.postprocess.base import Postprocess
from msresnet.tasks.postprocess.known import POSTPROCESSES

SOURCE = Path(__file__).resolve().parents[2] / "src"
BLIND = ("train", "infer", "deploy", "serve")
KINDS = (Task, Postprocess, Results, ImageModel)
HOMES = ({each.__module__ for each in (*TASKS.values(), *POSTPROCESSES.values())}) | {
    "msresnet.models.detector",
    "msresnet.models.segmenter",
}
FILES = sorted(path for name in BLIND for path in (SOURCE / "msresnet" / name).rglob("*.py"))


def asking(tree: ast.Module, names: dict[str, Any]) -> list[str]:
    """The places of a file that ask which task is served, as LINE: WHAT; `names` are those of its module."""
    found = [
        f"{n.lineno}: imports {n.module}" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) if n.module in HOMES
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in TASKS:
            found.append(f"{node.lineno}: {node.value!r}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "classified":
            found.append(f"{node.lineno}: classified")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "type"):
            kinds = [names.get(n.id) for n in ast.walk(node.args[-1]) if isinstance(n, ast.Name)]
            found += [
                f"{node.lineno}: {kind.__name__}"
                for kind in kinds
                if isinstance(kind, type) and issubclass(kind, KINDS)
            ]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE / "msresnet")))
def test_no_file_asks_which_task_it_serves(path: Path) -> None:
    module = importlib.import_module(".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"))
    assert asking(ast.parse(path.read_text(encoding="utf-8")), vars(module)) == []


@pytest.mark.parametrize(
    "line",
    [
        "from msresnet.tasks.postprocess.detection import DetectionPostprocess",
        "from msresnet.models.detector import Detector",
        "if post.task == 'detection': pass",
        "table = {'classification': 1}",
        "found = isinstance(results, Detections)",
        "assert isinstance(results, (int, Detections))",
        "sure = classified(results).confidences",
    ],
)
def test_what_would_be_found(line: str) -> None:
    assert asking(ast.parse(line), {"Detections": importlib.import_module("msresnet.results").Detections})
