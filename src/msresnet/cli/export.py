"""`msresnet export`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.deploy.config import ExportConfig
from msresnet.infer.config import which_run

if TYPE_CHECKING:
    from msresnet.bundle import Bundle
    from msresnet.deploy.agreement import Ready

FOLDER, SEED = "exported", 0


def main(words: list[str], common: Common) -> int:
    """Write the package, and print where it lies and how it compares with the model."""
    config = parse("export", ExportConfig, words, common).config
    from msresnet.bundle import load_bundle
    from msresnet.cli.screen import Screen
    from msresnet.deploy.export import export, summary
    from msresnet.deploy.package import check_form

    check_form(config.format)
    screen = Screen(common)
    screen.notes(which_run(config.model))
    bundle = load_bundle(config.model)
    images, ids = sample(config, bundle)
    place = Path(FOLDER) / name_of(config.model) if config.output is None else Path(config.output)
    found = export(bundle, config.format, place, images, ids, max_batch=config.max_batch, nms=config.nms)
    for name, each in found.agreements.items():
        screen.note(f"{name}: {each.words()}")
    screen.note(f"{found.file}: {found.size / 2**20:,.2f} MiB, images of {_sizes(bundle, found.free)}", "bold")
    print(json.dumps(summary(found), indent=2))
    return 0


def sample(config: ExportConfig, bundle: Bundle) -> tuple[Ready, list[str]]:
    """Some images of the set that was not trained on, preprocessed (N, C, H, W) uint8, and their ids."""
    import numpy as np

    from msresnet.data.loaders import open_sets
    from msresnet.data.sample import Subset
    from msresnet.infer.evaluate import pick
    from msresnet.train.run_data import sets_of

    sets, _ = sets_of(config.model, config.data, config)
    _, source = pick(sets, "auto")
    chosen = np.random.default_rng(SEED).permutation(len(source))[: config.images]
    # Answers are only compared: any images do, and one that is broken says nothing of the model.
    options = replace(config, on_bad=config.on_bad or "skip")
    data = open_sets({"": Subset(source, np.sort(chosen))}, bundle.preprocess, options, once=True)[0][""]
    images = np.stack([data.image(i).numpy() for i in range(len(data))])
    return images[:, : bundle.preprocess.channels], list(data.ids)


def name_of(model: str) -> str:
    """What a package of a model is called: after its folder, `runs/latest` after the run that it is."""
    path = Path(model.rpartition("/")[2] if model.startswith("hf:") else model)
    path = path.resolve() if path.exists() else path
    return path.parent.name if path.is_file() else path.name


def _sizes(bundle: Bundle, free: bool) -> str:
    height, width = bundle.preprocess.size
    return "any size" if free else f"{height}x{width}"
