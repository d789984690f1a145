"""Many texts in little memory, and paths that stay below their folder."""

from __future__ import annotations

import posixpath
import unicodedata
from array import array
from collections.abc import Iterable

from msresnet.data.decode import printable
from msresnet.data.sample import Texts


def class_name(text: str) -> str:
    """A class's name as it is told from others: characters that can be printed, accents joined to letters (NFC).

    Macs write the names of files with accents apart (NFD), other systems do not.
    """
    return unicodedata.normalize("NFC", printable(text))


class Names(Texts):
    """Texts in one block of bytes: a million paths take what their letters take, not a million objects."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.block, self.ends = bytearray(), array("q")
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add one at the end."""
        self.block += text.encode("utf-8", "surrogateescape")
        self.ends.append(len(self.block))

    def __len__(self) -> int:
        return len(self.ends)

    def text(self, index: int) -> str:
        """One of them."""
        start = self.ends[index - 1] if index else 0
        return self.block[start : self.ends[index]].decode("utf-8", "surrogateescape")


class Printed(Texts):
    """The same texts in characters that can be printed."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def text(self, index: int) -> str:
        """One of them."""
        name = self.names[index]
        return name if name.isprintable() else printable(name)


class Numbered(Texts):
    """The names of records that have none: `train[0]`, `train[1]` and so on."""

    def __init__(self, name: str, count: int) -> None:
        self.name, self.total = name, count

    def __len__(self) -> int:
        return self.total

    def text(self, index: int) -> str:
        """A record's name."""
        return f"{self.name}[{index}]"


def below(name: str) -> str | None:
    """A relative path in its plain form; None for one that is absolute or leads out of its folder."""
    if "\\" in name:  # as Windows writes it
        name = name.replace("\\", "/")
    if "./" in name or "//" in name or name.endswith("."):
        name = posixpath.normpath(name)
    outside = not name or name == "." or name[0] == "/" or name.startswith("../") or name == ".."
    return None if outside else name


def spread(count: int, most: int) -> list[int]:
    """Up to `most` of the first `count` indices, evenly spaced, the first among them."""
    return list(range(0, count, max(1, -(-count // most))))
