"""Training, predicting, exporting and serving ask no model for its task: what tasks differ in goes through the seam."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from msresnet.tasks.known import TASKS

SOURCE = Path(__file__).resolve().parents[2] / "src" / "msresnet"
FILES = sorted(path for name in ("train", "infer", "deploy", "serve") for path in (SOURCE / name).rglob("*.py"))
OF_ALL_TASKS = {
    *("base", "known", "palette", "postprocess.base", "postprocess.known", "postprocess.rules"),
    *("tiling.grid", "tiling.merge", "words"),
}
"""The files of `tasks/` that belong to no task; all others belong to one."""
OF_ONE_TASK = {
    *(f"msresnet.results.{name}" for name in ("Classification", "Detections", "Segmentation", "classified")),
    *(f"msresnet.results.{name}" for name in ("classification", "detections", "segmentation")),
    *(f"msresnet.models.{name}" for name in ("detector", "segmenter")),
    *(f"msresnet.models.factory.create_{name}" for name in ("classifier", "detector", "segmenter")),
}
WORDS = {*TASKS, *(task.head for task in TASKS.values())}
OF_BOXES = {"infer/tracking.py", "deploy/suppression.py"}
"""What is for boxes alone and begins by asking for the postprocess's `rules`: they may name boxes, not ask for them."""


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What is imported anywhere in a file, with the line: modules, and names as parts of theirs."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def belongs_to_a_task(name: str) -> bool:
    """Whether what is imported is of one task alone."""
    part = name.removeprefix("msresnet.tasks.")
    if part != name:
        while part and not (SOURCE / "tasks" / f"{part.replace('.', '/')}.py").is_file():
            part = part.rpartition(".")[0]  # a name in a file, or a folder, of which the files are looked at
        return bool(part) and part not in OF_ALL_TASKS
    return any(name == kind or name.startswith(f"{kind}.") for kind in OF_ONE_TASK)


def asking(text: str, of_boxes: bool = False) -> list[str]:
    """The places of a file that ask which task is served, as LINE: WHAT."""
    tree = ast.parse(text)
    boxes = {"msresnet.results.Detections"} if of_boxes else set()
    found = [f"{line}: {name}" for line, name in imported(tree) if belongs_to_a_task(name) and name not in boxes]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name.startswith("msresnet") for alias in node.names):
            found.append(f"{node.lineno}: a whole package")
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "msresnet"
            and {"results", "tasks"} & {alias.name for alias in node.names}
        ):
            found.append(f"{node.lineno}: a whole package")
        if isinstance(node, ast.Constant) and node.value in WORDS:
            found.append(f"{node.lineno}: {node.value!r}")
        if isinstance(node, ast.Attribute) and node.attr == "__class__":
            found.append(f"{node.lineno}: __class__")
        if isinstance(node, ast.Compare | ast.Match) or called(node, "isinstance", "issubclass"):
            line = getattr(node, "lineno", 0)
            inside = list(ast.walk(node))
            kinds = [n.id for n in inside if isinstance(n, ast.Name) and n.id == "Detections"]
            kinds += ["type" for n in inside if called(n, "type")] if isinstance(node, ast.Compare) else []
            found += [f"{line}: {kind}" for kind in kinds]
    return found


def called(node: ast.AST, *names: str) -> bool:
    """Whether this calls one of some functions."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_file_asks_which_task_it_serves(path: Path) -> None:
    of_boxes = str(path.relative_to(SOURCE)) in OF_BOXES
    assert asking(path.read_text(encoding="utf-8"), of_boxes) == []


@pytest.mark.parametrize(
    "text",
    [
        "from msresnet.tasks.postprocess.detection import DetectionPostprocess",
        "from msresnet.tasks.postprocess import detection",
        "from msresnet.tasks import detection",
        "from msresnet import results",
        "import msresnet.tasks.detection",
        "import msresnet.results as r",
        "from msresnet.tasks.tiling.boxes import BoxMerge",
        "from msresnet.tasks.tiling import boxes",
        "from msresnet.tasks.detection_loss import giou",
        "from msresnet.models.detector import Detector",
        "from msresnet.models.factory import create_detector",
        "def f():\n    from msresnet.results import Segmentation\n    return Segmentation",
        "from msresnet.results.detections import counted",
        "from msresnet.results import classified",
        "if post.task == 'detection': pass",
        "table = {'classification': 1}",
        "if task.head == 'detector': pass",
        "if type(x) is type(y): pass",
        "if type(x).__name__ == 'D': pass",
        "if x.__class__ is y: pass",
    ],
)
def test_what_would_be_found(text: str) -> None:
    assert asking(text)


@pytest.mark.parametrize(
    "text",
    [
        "found = isinstance(results, Detections)",
        "assert isinstance(results, (int, Detections))",
        "if type(x) is Detections: pass",
        "match x:\n    case Detections(): pass",
        "from msresnet.results import Segmentation",
    ],
)
def test_what_would_be_found_where_boxes_may_be_named(text: str) -> None:
    assert asking(text, of_boxes=True)
    assert asking("from msresnet.results import Detections\nx = Detections((), (), (), (), ())", of_boxes=True) == []


def test_what_belongs_to_all_may_be_imported() -> None:
    names = ["base import Task", "known import TASKS", "postprocess.base import Postprocess", "tiling.grid import Grid"]
    for name in names:
        assert asking(f"from msresnet.tasks.{name}") == []
    assert asking("from msresnet.results import DIGITS, Results, Tracks") == []
