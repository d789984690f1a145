"""The house as its plan says: floors, homes, the README's tree, no work at import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "msresnet"


def test_imports_go_down_only() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def listed_files() -> list[str]:
    """The files in the README's tree, from top to bottom."""
    block = re.search(r"```\nsrc/msresnet/\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    listed: list[str] = []
    folders: list[str] = []
    for line in block[1].splitlines():
        found = re.match(r"( *)(\S+)", line)
        assert found is not None
        depth, name = len(found[1]) // 2, found[2]
        folders = folders[: depth - 1]
        if name.endswith("/"):
            folders.append(name)
        else:
            listed.append("".join(folders) + name)
    return listed


def test_the_readme_lists_every_file() -> None:
    present = {str(p.relative_to(SOURCE)) for p in SOURCE.rglob("*") if p.suffix in (".py", ".jinja")}
    assert sorted(listed_files()) == sorted(p for p in present if not p.endswith("__init__.py"))


def test_whoever_asks_for_what_cannot_be_is_told_what_to_type() -> None:
    without = [
        f"{path.relative_to(SOURCE)}:{call.lineno}"
        for path in SOURCE.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "UsageError"
        if not any(word.arg in ("hint", None) for word in call.keywords)
    ]
    assert without == []


def test_a_file_imports_only_from_those_above_it_in_its_folder() -> None:
    order = {name: place for place, name in enumerate(listed_files())}
    wrong = []
    for name, place in order.items():
        folder = name.split("/")[0]
        if not name.endswith(".py") or "/" not in name:
            continue
        text = (SOURCE / name).read_text(encoding="utf-8")
        for found, names in re.findall(rf"from msresnet\.({folder}[\w.]*) import (\w+)", text):
            other = found.replace(".", "/")
            other = f"{other}/{names}.py" if (SOURCE / other).is_dir() else f"{other}.py"
            if order[other] >= place:
                wrong.append(f"{name} imports {other}")
    assert wrong == []


@pytest.mark.parametrize("argv", [[], ["train"], ["predict"], ["evaluate"], ["data", "show"]], ids=" ".join)
def test_help_does_not_wait_for_torch(argv: list[str]) -> None:
    code = (
        "import sys; from msresnet.cli.main import main\n"
        f"assert main([*{argv!r}, '--help']) == 0\n"
        "heavy = {'torch', 'numpy', 'sklearn', 'matplotlib', 'accelerate', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "usage: msresnet" in result.stdout


def test_the_public_names_are_there() -> None:
    import msresnet

    assert sorted(msresnet.__all__) == msresnet.__all__
    assert all(callable(getattr(msresnet, name)) for name in msresnet.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = msresnet.nothing


def test_no_pickle_and_no_eval_in_the_package() -> None:
    forbidden = re.compile(r"\b(pickle|torch\.load|torch\.save|joblib)\b|(?<![.\w])(eval|exec)\(")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in SOURCE.rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if forbidden.search(line.split("#")[0]) and '"' not in line
    ]
    assert found == []
