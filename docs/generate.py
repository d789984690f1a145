"""Write what the documentation takes from the code: figures.csv, the table and the pictures of docs/models.md.

make docs        (python docs/generate.py)
"""

from __future__ import annotations

import re
from pathlib import Path

from msresnet.models.cost import Figures, count, figures, to_csv
from msresnet.models.factory import MODELS, list_models
from msresnet.models.published import published
from msresnet.nn.grammar import OPERATORS
from msresnet.report.operators import operator_picture

DOCS = Path(__file__).resolve().parent
PAGE, PICTURES = DOCS / "models.md", DOCS / "pictures"
FIGURES = DOCS.parent / "src" / "msresnet" / "models" / "figures.csv"
START, END = "<!-- every model, by `make docs` -->\n", "<!-- end -->"


def table() -> str:
    """Every model, family by family, as Markdown."""
    head = "| model | parameters | folded | multiply-adds | at px | maps | published top-1 | weights' licence |"
    lines: list[str] = []
    family = None
    for name in list_models():
        entry = MODELS[name]
        if entry.family.title != family:
            family = entry.family.title
            papers = ", ".join(
                f"[{p.strip()}](https://arxiv.org/abs/{p.strip()})" for p in entry.family.paper.split(",") if p
            )
            lines += ["", f"**{family}** {papers}".rstrip(), "", head, "|---|--:|--:|--:|--:|---|--:|---|"]
        lines.append(_row(figures(name)))
    return "\n".join(lines[1:]) + "\n"


def _row(row: Figures) -> str:
    known = published(row.name)
    top1 = f"{known.top1} @{known.top1_pixels}" if known.top1 else ""
    maps = " ".join(f"{c}x{h}" for c, h, _ in row.maps)
    counts = f"{row.params:,} | {row.folded:,} | {row.macs / 1e9:.3f} G | {row.pixels}"
    return f"| {row.name} | {counts} | {maps} | {top1} | {known.licence} |"


def page(text: str) -> str:
    """The page with its table as it is now."""
    return re.sub(re.escape(START) + ".*?" + re.escape(END), lambda _: START + table() + END, text, flags=re.DOTALL)


def pictures() -> dict[str, str]:
    """The picture of each operator, as SVG, by file name."""
    return {f"{name}.svg": operator_picture(name, OPERATORS[name]) for name in OPERATORS.names()}


def main() -> None:
    """Write everything."""
    FIGURES.write_text(to_csv([count(name) for name in list_models()]), encoding="utf-8")
    PICTURES.mkdir(exist_ok=True)
    for name, picture in pictures().items():
        (PICTURES / name).write_text(picture, encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
