"""Pages: one HTML file that opens anywhere, offline. A page is a list of sections, a section a list of parts.

Parts say what is shown and hold no markup of their own; `page.html.jinja` draws each kind. All texts are escaped there.
The one script is named in the page's security policy by its hash, so that nothing else runs; without it, everything is
visible and nothing can be sorted.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from msresnet.files import write_text

SHORT = 28
"""Characters of a name where there is little room."""
NUMBER = re.compile(r"(?:< )?([+\-]?)([\d,]*\.?\d+(?:e[+\-]?\d+)?)\W*(?:%|[a-zA-Z/]{1,5})?")


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    kind: ClassVar[str] = "words"
    text: str
    soft: bool = True


@dataclass(frozen=True)
class Notes:
    """Lines, one below the other."""

    kind: ClassVar[str] = "notes"
    lines: Sequence[str]


@dataclass(frozen=True)
class Command:
    """What to type."""

    kind: ClassVar[str] = "command"
    text: str


@dataclass(frozen=True)
class Headline:
    """A number and what it is."""

    value: str
    words: str


@dataclass(frozen=True)
class Headlines:
    """Numbers side by side, the first one large."""

    kind: ClassVar[str] = "headlines"
    headlines: Sequence[Headline]


@dataclass(frozen=True)
class Chart:
    """A drawing (SVG) and what it shows, for those who do not see it."""

    kind: ClassVar[str] = "chart"
    drawing: Markup
    words: str


@dataclass(frozen=True)
class Table:
    """Texts in rows; the first column names the row. Columns of numbers stand right and sort as numbers.

    Args:
        caption: what the table holds.
        columns: their titles.
        rows: as many texts each.
        sort: whether a reader may sort it, with the script.
        shades: for cells, how strongly they are filled (0 to 1), row by row, the first column left out.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    sort: bool = False
    shades: Sequence[Sequence[float]] | None = None

    @cached_property
    def numeric(self) -> list[bool]:
        """Of each column, whether it holds numbers and nothing else."""
        columns = [[row[place] for row in self.rows if row[place]] for place in range(len(self.columns))]
        return [bool(cells) and all(number(cell) is not None for cell in cells) for cells in columns]


@dataclass(frozen=True)
class Picture:
    """An image as a data: URI, what it shows in words, its size in pixels, and whether its pixels are to be seen."""

    source: str
    words: str
    width: int
    height: int
    coarse: bool


@dataclass(frozen=True)
class Line:
    """A line under a picture: what it is about, what is said, how sure, and whether that is 'right' or 'wrong'."""

    words: str
    value: str = ""
    about: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Card:
    """Pictures of one image, and lines about it."""

    pictures: Sequence[Picture]
    lines: Sequence[Line]
    id: str


@dataclass(frozen=True)
class Cards:
    """Images side by side."""

    kind: ClassVar[str] = "cards"
    cards: Sequence[Card]
    small: bool = False


@dataclass(frozen=True)
class Group:
    """Images that belong together. With the script, one group is shown at a time."""

    id: str
    title: str
    cards: Cards


@dataclass(frozen=True)
class Groups:
    """Images by group: what the cells of a matrix lead to."""

    kind: ClassVar[str] = "groups"
    groups: Sequence[Group]


@dataclass(frozen=True)
class Cell:
    """A number of a matrix: how strongly it is filled (0 to 1), and the group of images that it leads to, if any."""

    count: int
    share: float
    group: str = ""


@dataclass(frozen=True)
class Matrix:
    """Counts with the same names down and across; the rows are the truth.

    Args:
        caption: what the counts are.
        names: of rows and columns.
        rows: their cells.
        orders: other orders of the names, by what they are called, as indices.
    """

    kind: ClassVar[str] = "matrix"
    caption: str
    names: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    orders: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """Parts side by side where there is room."""

    kind: ClassVar[str] = "row"
    parts: Sequence[Part]


@dataclass(frozen=True)
class Heading:
    """A title within a section."""

    kind: ClassVar[str] = "heading"
    text: str


Part = Words | Notes | Command | Headlines | Chart | Table | Cards | Groups | Matrix | Row | Heading


@dataclass(frozen=True)
class Section:
    """A titled piece of a page; `id` is where links lead to."""

    id: str
    title: str
    parts: Sequence[Part]


def write_page(path: Path, title: str, lead: str, sections: Sequence[Section]) -> None:
    """Write a page. Raises ResourceError when it cannot be written."""
    write_text(path, page(title, lead, sections))


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """A page as HTML text, without a reference to anything outside."""
    environment = Environment(
        loader=PackageLoader("msresnet.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "number": number}
    environment.policies["json.dumps_kwargs"] = {}  # the orders of a matrix stay in theirs
    script = _asset("page.js")
    values: dict[str, Any] = {
        "title": title,
        "lead": lead,
        "sections": sections,
        "style": Markup(_asset("page.css")),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    # A lone surrogate (a file name that is not text) is not a character, and no file of text can hold it.
    return environment.get_template("page.html.jinja").render(values).strip().encode("utf-8", "replace").decode()


def _asset(name: str) -> str:
    return files("msresnet.report").joinpath(name).read_text(encoding="utf-8")


def short(text: str, most: int = SHORT) -> str:
    """The beginning of a name."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def number(text: str) -> float | None:
    """The number that a text is, with or without a unit; None for other texts."""
    found = NUMBER.fullmatch(text.strip())
    if found is None:
        return None
    size = float(found[2].replace(",", ""))
    return -size if found[1] == "-" else size


def percent(share: float, digits: int = 2) -> str:
    """A share in per cent."""
    return f"{100 * share:.{digits}f}\u202f%"


def span(interval: Sequence[float] | None) -> str:
    """A 95 % interval of a share; nothing where there is none."""
    return "" if interval is None else f"{100 * interval[0]:.2f} to {percent(interval[1])}"
