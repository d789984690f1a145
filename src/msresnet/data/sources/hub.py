"""Data sets of the Hugging Face hub, and local ones in its forms (Parquet, Arrow, what `save_to_disk` writes).

The library `datasets` finds the files and keeps them as Arrow on the disk, mapped into memory, so any sample can be
read at any time. Images stay encoded and go through the one decoder that reads files too. This is the only file that
knows the library; the extra `hub` installs it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from msresnet.data.decode import decode_bytes, printable, read_regular
from msresnet.data.names import Numbered, class_name
from msresnet.data.options import DataOptions
from msresnet.data.sample import UNLABELLED, Image, Source
from msresnet.data.sources import columns
from msresnet.data.sources.folder import SPLITS
from msresnet.errors import DataError, MsresnetError, ResourceError, UsageError
from msresnet.files import cache_folder
from msresnet.hub import PREFIX, Place, answers, own_cache, place

if TYPE_CHECKING:
    from datasets import Dataset

FORMS = "hf:user/name, hf:user/name:config, hf:user/name@revision, hf:./folder or hf:./file.parquet"
_BUILDERS = {".parquet": "parquet", ".arrow": "arrow"}
_SAVED = ("dataset_dict.json", "state.json")
"""What `save_to_disk` leaves in a folder."""


class HubSource(Source):
    """Rows of which only the images' column is left; a sample's id is its split and row, as in `train[17]`."""

    def __init__(
        self, rows: Dataset, targets: npt.NDArray[np.int64], classes: list[str], split: str, name: str
    ) -> None:
        super().__init__(classes, targets, Numbered(split, len(rows)))
        self.rows, self.column, self.name = rows, rows.column_names[0], name

    def image(self, index: int, at_least: tuple[int, int] | None = None) -> Image:
        """Decode one image (C, H, W)."""
        return decode_bytes(self._data(index), f"{self.name}, {self.ids[index]}", at_least)

    def split_key(self, index: int) -> bytes:
        """The encoded image, so that equal ones never stand on both sides of a split."""
        try:
            return self._data(index)
        except DataError:
            return super().split_key(index)

    def _data(self, index: int) -> bytes:
        value: Any = self.rows[index][self.column]
        data = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(data, bytes):
            return data
        path = value.get("path") if isinstance(value, dict) else None
        if not isinstance(path, str) or not _may_read(Path(path), self.name):
            why = (
                f"it names {printable(path[:200])}, which is not a file of the data set"
                if isinstance(path, str)
                else ""
            )
            raise DataError("the row holds no image", where=f"{self.name}, {self.ids[index]}", why=why)
        return read_regular(path)


def hub(spec: str, options: DataOptions) -> tuple[dict[str, Source], list[str]]:
    """The sets of a data set, by split ('train' for an only one), and what was inferred.

    Args:
        spec: one of `FORMS`.
        options: `path_column` names the images' column, `label_column` the labels'.

    Raises DataError for what is not there or holds no images and labels, ResourceError without the extra, UsageError.
    """
    _need_datasets()
    with _quiet():
        found, licence = _load(spec)
    known = {split: names[0] for split, words in SPLITS.items() if (names := [n for n in found if n in words])}
    if not known and len(found) == 1:
        known = {"train": next(iter(found))}
    if not known:
        raise DataError("no split has a usual name", where=spec, why=f"they are {columns.listed(list(found))}")
    sets: dict[str, Source] = {}
    notes = [licence] if licence else []
    for split, name in known.items():
        sets[split], more = _source(found[name], options, name, spec)
        notes += [note for note in more if note not in notes]
    others = sorted(set(found) - set(known.values()))
    return sets, notes + ([f"splits left aside: {columns.listed(others)}"] if others else [])


def _need_datasets() -> None:
    try:
        import datasets  # noqa: F401 - whether it is there
    except ImportError as error:
        raise ResourceError(
            "data sets of the hub need the library datasets", why=str(error), hint='pip install "msresnet[hub]"'
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's warnings, and without its progress bars where nobody sees them; as it was afterwards."""
    import datasets

    level, bars = datasets.logging.get_verbosity(), datasets.is_progress_bar_enabled()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what fails is in the exception as well
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if bars:
            datasets.enable_progress_bars()


def _load(spec: str) -> tuple[dict[str, Dataset], str]:
    """The splits, by the name they have there, and what is known of the licence ('' for local ones)."""
    text = spec.removeprefix(PREFIX)
    local, config = _local(text)
    if local is not None:
        return _read(spec, lambda: _from_disk(local, config)), ""
    name, _, config = text.partition(":")
    try:
        where = place(PREFIX + name)
    except UsageError as error:
        raise UsageError(f"{spec!r} names no data set", why="nor is there such a path", hint=FORMS) from error
    found = _read(spec, lambda: _from_hub(where, config or None))
    stated = next(iter(found.values())).info.license if found else ""
    card = f"see https://huggingface.co/datasets/{where.repo}"
    return found, f"licence of the data: {printable(str(stated)[:100]) if stated else f'not stated, {card}'}"


def _local(text: str) -> tuple[Path | None, str]:
    """An existing path and a configuration's name, of `path` or `path:config`; None for a name on the hub."""
    head, colon, config = text.rpartition(":")
    for name, rest in ((text, ""), (head, config)) if colon else ((text, ""),):
        try:
            if name and (path := Path(name).expanduser()).exists():
                return path.absolute(), rest
        except (OSError, ValueError, RuntimeError):  # a name that cannot be; the home of a user who is none
            continue
    if text.startswith((".", "/", "~")):
        raise DataError(f"there is no data at {printable(text)!r}", hint=FORMS)
    return None, ""


def _read(spec: str, read: Callable[[], Any]) -> dict[str, Dataset]:
    """What the library reads, by split. Raises DataError for whatever it raises: it hands on what its parsers do."""
    from datasets import Dataset, DatasetDict

    try:
        found = read()
    except MsresnetError:
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, ImportError):
            raise ResourceError("reading the data set needs another package", where=spec, why=str(cause)) from error
        why = (str(error).splitlines() or [type(error).__name__])[0]
        root = (str(cause).splitlines() or [type(cause).__name__])[0]
        why = why if cause is error else f"{why} ({root})"
        raise DataError("the data set cannot be read", where=spec, why=printable(why[:300]), hint=FORMS) from error
    if isinstance(found, Dataset):
        return {"train": found}
    if not isinstance(found, DatasetDict) or not found:
        raise DataError("the data set holds no rows", where=spec)
    return {str(name): rows for name, rows in found.items()}


def _from_disk(path: Path, config: str) -> Any:
    import datasets

    if path.is_dir() and any((path / name).is_file() for name in _SAVED):
        return datasets.load_from_disk(str(path))
    if path.is_dir():
        return datasets.load_dataset(str(path), config or None, cache_dir=_folder())
    if path.suffix.lower() not in _BUILDERS:
        raise DataError("this file is not a known form of data", where=printable(path), hint=FORMS)
    builder = _BUILDERS[path.suffix.lower()]
    return datasets.load_dataset(builder, data_files={"train": str(path)}, cache_dir=_folder())


def _from_hub(where: Place, config: str | None) -> Any:
    """A data set of the hub; without a network the one in the cache. The library would try for half a minute."""
    import datasets

    if answers():
        with own_cache():
            return datasets.load_dataset(where.repo, config, revision=where.revision, cache_dir=_folder())
    from datasets.packaged_modules.cache.cache import Cache

    name = where.repo.rpartition("/")[2]
    try:
        kept = Cache(_folder(), name, config, version="auto", hash="auto", repo_id=where.repo)
    except ValueError as error:
        raise DataError(
            f"{where} is not in the cache and cannot be downloaded",
            where=_folder(),
            why="the hub does not answer",
            hint="with a network, once; or download its Parquet files elsewhere: --data hf:./folder",
        ) from error
    return kept.as_dataset()


def _folder() -> str:
    return str(cache_folder() / "datasets")


def _may_read(path: Path, spec: str) -> bool:
    """Whether a path that a row names belongs to the data set: it is in its folder, or in our cache."""
    local, _ = _local(spec.removeprefix(PREFIX))
    home = cache_folder().absolute() if local is None else local
    return path.is_absolute() and Path(os.path.normpath(path)).is_relative_to(home)


def _source(rows: Dataset, options: DataOptions, split: str, spec: str) -> tuple[HubSource, list[str]]:
    """One split as a source, and which columns it is of."""
    from datasets import Image as Picture

    where = f"{spec}, {split}"
    if not len(rows):
        raise DataError("the split holds no rows", where=where)
    image = _image_column(rows, options, where)
    label = _label_column(rows, image, options, where)
    targets, classes = _labels(rows, label, where) if label else (np.full(len(rows), UNLABELLED, np.int64), [])
    chosen = rows.select_columns([image])
    if isinstance(rows.features[image], Picture):
        chosen = chosen.cast_column(image, Picture(decode=False))
    note = f"images in {image!r}, " + (f"labels in {label!r}" if label else "no labels")
    return HubSource(chosen, targets, classes, split, spec), [f"{spec}: {note}"]


def _image_column(rows: Dataset, options: DataOptions, where: str) -> str:
    from datasets import Image as Picture

    names: list[str] = list(rows.features)
    if options.path_column != "auto":
        return names[columns.asked("--path-column", options.path_column, names, len(names), where)]
    found: list[str] = [n for n, kind in rows.features.items() if isinstance(kind, Picture)]
    found = found or [n for n, kind in rows.features.items() if _holds_bytes(kind)]
    named = [found[i] for i in columns.guessed(found, columns.PATHS)]
    found = named if len(found) > 1 and named else found
    if len(found) == 1:
        return found[0]
    raise DataError(
        "no column holds images" if not found else "several columns hold images",
        where=where,
        why=f"the columns are {columns.listed(names)}",
        hint="--path-column NAME",
    )


def _holds_bytes(kind: Any) -> bool:
    """Whether a feature that is not declared as an image may be one: bytes, or bytes with a path."""
    kind = kind.get("bytes") if isinstance(kind, dict) else kind
    return getattr(kind, "dtype", None) in ("binary", "large_binary")


def _label_column(rows: Dataset, image: str, options: DataOptions, where: str) -> str | None:
    from datasets import ClassLabel

    names: list[str] = list(rows.features)
    if options.label_column == "none":
        return None
    if options.label_column != "auto":
        return names[columns.asked("--label-column", options.label_column, names, len(names), where)]
    found: list[str] = [n for n, kind in rows.features.items() if isinstance(kind, ClassLabel)]
    named = [n for n in (found or names) if columns.plain(n) in columns.LABELS and n != image]
    found = named or found if len(found) != 1 else found
    if len(found) == 1:
        return found[0]
    raise DataError(
        "no column holds labels" if not found else "several columns may hold the labels",
        where=where,
        why=f"the columns are {columns.listed(names)}",
        hint="--label-column NAME, or none",
    )


def _labels(rows: Dataset, label: str, where: str) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Class index of each row (N,), and the names. Raises DataError for values that are not labels."""
    from datasets import ClassLabel, Value

    kind = rows.features[label]
    if not isinstance(kind, ClassLabel | Value):
        raise DataError(f"the column {label!r} holds no labels", where=where, why=f"it is {str(kind)[:100]}")
    packed = rows.select_columns([label]).with_format("arrow")[:].column(0).dictionary_encode().combine_chunks()
    codes = packed.indices.fill_null(UNLABELLED).to_numpy(zero_copy_only=False).astype(np.int64)
    values = packed.dictionary.to_pylist()
    if isinstance(kind, ClassLabel):
        classes = [class_name(str(name)) for name in kind.names]
        for value in values:
            if not UNLABELLED <= value < len(classes):
                raise DataError(
                    f"the label {value} is not a class", where=where, why=f"there are {len(classes)} classes"
                )
        return np.array([*values, UNLABELLED], np.int64)[codes], classes
    texts = [str(value).strip() for value in values]
    empty = np.flatnonzero(codes < 0) if (codes < 0).any() else _first(codes, texts)
    if len(empty):
        raise DataError("the label is empty", where=f"{where}[{int(empty[0])}]")
    place = {text: index for index, text in enumerate(dict.fromkeys(texts))}  # some may have differed in blanks alone
    codes = np.array([place[text] for text in texts], np.int64)[codes]
    lookup, classes = columns.classes(list(place), lambda index: f"{where}[{int(np.argmax(codes == index))}]")
    return lookup[codes], classes


def _first(codes: npt.NDArray[np.int64], texts: list[str]) -> npt.NDArray[np.int64]:
    """The rows whose label says nothing."""
    bad = [index for index, text in enumerate(texts) if not text or text.casefold() == "nan"]
    return np.flatnonzero(np.isin(codes, bad))
