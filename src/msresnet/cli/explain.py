"""`msresnet explain`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.errors import DataError, UsageError, nearest
from msresnet.infer.config import which_run
from msresnet.infer.explain_config import ExplainConfig

if TYPE_CHECKING:
    from msresnet.bundle import Bundle
    from msresnet.cli.screen import Screen
    from msresnet.data.sets import Samples
    from msresnet.explain.explanation import Explanation
    from msresnet.explain.scale_table import ScaleTable
    from msresnet.infer.inputs import Input
    from msresnet.tasks.base import Subject

MOST = 50
"""Images in one picture; more would be a picture that nothing opens."""
OBJECTS = 3
ROW, SET = {"id", "explained", "maps", "scales"}, {"split", "n", "images", "scales"}
"""What the figures say of each image, and of a set."""


def main(words: list[str], common: Common) -> int:
    """Write a picture of the heat maps and of the scales' responses, and print the figures."""
    config = parse("explain", ExplainConfig, words, common).config
    path = Path(config.output)
    if path.suffix.lower() != ".png":
        hint = f"--output {path.stem or 'explanation'}.png"
        raise UsageError(f"--output {path}", why="the picture is a PNG", hint=hint)
    if not config.inputs and config.data is None and config.split == "auto":
        hint = "msresnet explain photo.jpg, a folder, 'photos/*.jpg', or -; --split test for the scales of a whole set"
        raise UsageError("no image was named", hint=hint)
    from msresnet.cli.screen import Screen
    from msresnet.files import check_output

    methods = _methods(config.method)
    if config.stage is not None and "grad-cam" not in methods:
        raise UsageError("--stage has no effect here", why="only grad-cam looks at a stage", hint="--method grad-cam")
    check_output(path, folder=False)
    _check_free(path)
    bundle = _bundle(config)
    screen = Screen(common)
    screen.notes(which_run(config.model))
    if not config.inputs:
        return _set(config, bundle, screen)
    return _images(config, bundle, methods, screen)


def _check_free(path: Path) -> None:
    """Raise UsageError where the picture or its figures would take the place of a file that is not of this verb."""
    figures = path.with_suffix(".json")
    others = [] if _is_made(figures) else [str(p) for p in (path, figures) if p.exists()]
    if others:
        why = "nothing that is not of such a command is to be overwritten"
        raise UsageError("--output would replace another file", where=others[-1], why=why, hint="--output elsewhere")


def _is_made(figures: Path) -> bool:
    """Whether figures are those of an explanation, of images or of a set."""
    try:
        found = json.loads(figures.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    rows, keys = (found, ROW) if isinstance(found, list) else ([found], SET)
    return bool(rows) and all(isinstance(row, dict) and keys <= row.keys() for row in rows)


def _check_inputs(path: Path, inputs: Sequence[Input]) -> None:
    """Raise UsageError where the picture or its figures would take the place of an image that is explained."""
    written = {path.resolve(), path.with_suffix(".json").resolve()}
    for item in inputs:
        if item.file is not None and Path(item.file).resolve() in written:
            why = "it is one of the images that are explained"
            raise UsageError(f"--output {path}", why=why, hint="--output elsewhere")


def _bundle(config: ExplainConfig) -> Bundle:
    """The model on its device. Raises UsageError for one that cannot be explained so, or does not know the target."""
    from msresnet.infer.backends.opened import bundle_at
    from msresnet.runtime import choose_device

    device, _ = choose_device(config.device)
    bundle = bundle_at(config.model, "explain")
    why = f"{config.model} is for {bundle.task.name}"
    if not bundle.task.explained:
        raise UsageError("explain needs a classifier or a detector", why=why, hint="msresnet predict, evaluate")
    if bundle.task.located and not config.inputs:
        raise UsageError(
            "scales over a whole set are those of a classifier", why=why, hint="msresnet explain photo.jpg"
        )
    pairs = {"scores": config.scores, "neighbours": config.neighbours > 0}
    useless = [name for name, given in pairs.items() if given and bundle.task.located]
    useless += ["objects"] if config.objects is not None and not bundle.task.located else []
    if useless:
        raise UsageError(f"--{useless[0]} has no effect here", why=why, hint="leave it out")
    names = bundle.task.class_names
    if config.target is not None and config.target not in names:
        hint = nearest(config.target, names) or ", ".join(names)
        raise UsageError(f"the model has no class {config.target!r}", hint=hint)
    bundle.model.to(device)
    return bundle


def _methods(text: str | None) -> tuple[str, ...]:
    """The methods that are meant. Raises UsageError, with the nearest, for an unknown one."""
    from msresnet.explain.attribution import DEFAULT, METHODS, check_method

    if text is None:
        return (DEFAULT,)
    if text == "all":
        return tuple(METHODS)
    return tuple(dict.fromkeys(check_method(name.strip()) for name in text.split(",")))


def _images(config: ExplainConfig, bundle: Bundle, methods: tuple[str, ...], screen: Screen) -> int:
    """Explain single images; those that cannot be read are named and left out. Returns the exit code."""
    from msresnet.data.decode import bytes_size, printable
    from msresnet.explain.explanation import Wanted, explain, subjects
    from msresnet.infer.backends.artefact import refuse_models
    from msresnet.infer.backends.eager import predictor_of
    from msresnet.infer.inputs import expand, standard_input
    from msresnet.report.explanation import explanation_picture

    refuse_models(config.inputs)
    inputs = list(islice(expand(config.inputs, standard_input()), MOST + 1))
    if len(inputs) > MOST:
        hint = "fewer images, or --split and --data for the scales of a whole set"
        raise UsageError(f"more than {MOST} images in one picture", hint=hint)
    _check_inputs(Path(config.output), inputs)
    pool = _pool(config, bundle, screen) if config.neighbours else None
    wanted = Wanted(methods, config.stage, config.scores)
    predictor = predictor_of(bundle, config.device)
    asked, code = [], 0
    for item in inputs:
        image = item.decode(bundle.preprocess.at_least)
        if isinstance(image, DataError):
            print(f"error: {image}", file=sys.stderr)
            code = DataError.exit_code
            continue
        size = (image.shape[1], image.shape[2]) if item.read is None else bytes_size(item.read(), item.id)
        results = predictor.predict([image], [item.id])
        chosen = _chosen(config, bundle, subjects(bundle, image, results))
        if not chosen:
            screen.note(f"{printable(item.id)}: nothing was found that could be explained", "yellow")
        asked += [(image, results, subject, size) for subject in chosen]
    if len(asked) > MOST:
        raise UsageError(
            f"{len(asked)} objects in one picture", why=f"at most {MOST}", hint="--objects 1, fewer images"
        )
    if not asked:
        print("[]" if config.format == "json" else "nothing to explain: no picture was written")
        return code
    explained = [explain(bundle, image, results, subject, wanted, size=size) for image, results, subject, size in asked]
    if pool is not None:
        explained = _with_neighbours(explained, bundle, pool, config)
    rows = [e.to_dict() for e in explained]
    text = "\n".join(line for e in explained for line in e.lines())
    _write(config, screen, lambda part: explanation_picture(explained, part), rows)
    print(json.dumps(rows, indent=2) if config.format == "json" else text)
    return code


def _chosen(config: ExplainConfig, bundle: Bundle, found: Sequence[Subject]) -> Sequence[Subject]:
    """What is explained of an answer: the class that is asked for or answered, or the surest objects."""
    names = bundle.task.class_names
    wanted = [s for s in found if config.target is None or names[s.target] == config.target]
    return wanted[: (config.objects or OBJECTS) if bundle.task.located else 1]


def _pool(config: ExplainConfig, bundle: Bundle, screen: Screen) -> Samples:
    """The set that neighbours are looked for in."""
    from msresnet.data.options import DataOptions
    from msresnet.infer.evaluate import pick, prepare
    from msresnet.train.run_data import reading_of, sets_of

    options = reading_of(config.model, config.data, DataOptions())
    sets, notes = sets_of(config.model, config.data, options)
    wanted = "train" if config.split == "auto" and "train" in sets else config.split
    split, source = pick(sets, wanted)
    screen.notes([*notes, f"neighbours from the {split} set, {len(source):,} images"])
    return prepare(bundle, source, options)


def _with_neighbours(
    explained: Sequence[Explanation], bundle: Bundle, pool: Samples, config: ExplainConfig
) -> list[Explanation]:
    import numpy as np
    import torch

    from msresnet.explain.neighbours import nearest_images

    images = torch.from_numpy(np.stack([e.picture for e in explained]))
    found = nearest_images(bundle, images, pool, config.neighbours)
    return [replace(e, neighbours=near) for e, near in zip(explained, found, strict=True)]


def _set(config: ExplainConfig, bundle: Bundle, screen: Screen) -> int:
    """The response of the scales over a whole set."""
    from msresnet.data.options import DataOptions
    from msresnet.explain.attribution import device_of, rows_at_once
    from msresnet.explain.scale_table import scale_table
    from msresnet.explain.scales import check_scales
    from msresnet.infer.evaluate import pick, prepare
    from msresnet.report.explanation import save, scale_table_figure
    from msresnet.train.run_data import reading_of, sets_of

    check_scales(bundle.model)
    options = reading_of(config.model, config.data, DataOptions())
    sets, notes = sets_of(config.model, config.data, options)
    split, source = pick(sets, config.split)
    screen.notes([*notes, f"looking at the {split} set, {len(source):,} images"])
    data = prepare(bundle, source, options)
    target = None if config.target is None else bundle.task.class_names.index(config.target)
    at_once = rows_at_once(bundle.preprocess.size)
    batches = (batch.images for batch in data.in_order(at_once, device_of(bundle)))
    table = scale_table(bundle, batches, target)
    found = {"split": split, **table.to_dict()}
    _write(config, screen, lambda part: save(scale_table_figure(table), part), found)
    if config.format == "json":
        print(json.dumps(found, indent=2))
    else:
        _print_table(table, screen)
    return 0


def _write(config: ExplainConfig, screen: Screen, draw: Any, figures: Any) -> None:
    """The picture, and the figures beside it."""
    from msresnet.files import write_atomic, write_json

    path = Path(config.output)
    write_atomic(path, draw)
    write_json(path.with_suffix(".json"), figures)
    screen.note(f"picture: {path}")


def _print_table(table: ScaleTable, screen: Screen) -> None:
    """Shares in percent: of each block's scales over all images, then of all blocks' scales for each class."""
    import numpy as np
    from rich.markup import escape
    from rich.table import Table

    def rows(first: str, names: Sequence[str], shares: Any, counts: Sequence[str] | None) -> Table:
        grid = Table()
        for name in (first, *table.branches, *(("images",) if counts is not None else ())):
            grid.add_column(name, justify="left" if name == first else "right")
        for i, name in enumerate(names):
            cells = ["" if np.isnan(share) else f"{100 * share:.1f} %" for share in shares[i]]
            grid.add_row(escape(name), *cells, *([counts[i]] if counts is not None else []))
        return grid

    screen.table(rows("block", table.operators, table.by_operator(table.overall()), None))
    screen.table(rows("class", table.class_names, table.by_class(), [f"{n:,}" for n in table.counts]))
