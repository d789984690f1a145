"""Which receptive fields carry the answers, block by block and class by class, as shaded tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from msresnet.bundle import Bundle
from msresnet.errors import ModelError
from msresnet.explain.attribution import device_of
from msresnet.explain.scale_table import scale_table
from msresnet.explain.scales import places
from msresnet.report.looks import MOST_MACS, PASSES
from msresnet.report.page import Row, Section, Table, Words, percent
from msresnet.report.story import Story

Floats = npt.NDArray[np.float64]
MOST_IMAGES, AT_ONCE = 256, 8
"""Images that are asked about at most, as far as MOST_MACS allow, and at once."""
MOST_CLASSES = 30


def scales(story: Story) -> Section | None:
    """The response of each scale over some images of the set; nothing where blocks look at one scale only."""
    bundle = story.trained
    if not isinstance(bundle, Bundle) or not places(bundle.model):
        return None
    try:
        table = scale_table(bundle, _batches(story, bundle))
    except ModelError:  # an output that is not a number has no scale
        return None
    images = int(table.counts.sum())
    text = (
        "A block looks through windows of several sizes, in pixels of its own input. This is how much each moves the "
        f"answer, as a share of all in the block, over {images:,} images of the set (absolute values, to first order)."
    )
    blocks = table.by_operator(table.overall())
    seen = np.argsort(-table.counts, kind="stable")[:MOST_CLASSES]
    seen = np.sort(seen[table.counts[seen] > 0])
    names, by_class = [table.class_names[k] for k in seen], table.by_class()[seen]
    by_block = "By block, from the image's side to the answer's"
    tables = [_shaded(by_block, ("block", *table.branches), table.operators, blocks)]
    if len(names) > 1:
        by_answer = "By the class that was answered, over all blocks"
        tables.append(_shaded(by_answer, ("class", *table.branches), names, by_class))
    return Section("scales", "At which scale it sees", [Words(text), Row(tables)])


def _batches(story: Story, bundle: Bundle) -> Iterator[Tensor]:
    """Some images, drawn from the set."""
    most = min(MOST_IMAGES, max(AT_ONCE, int(MOST_MACS / (PASSES * bundle.macs))))
    chosen = np.random.default_rng(0).permutation(len(story.evaluation.predictions))[:most]
    device = device_of(bundle)
    for start in range(0, len(chosen), AT_ONCE):
        part = chosen[start : start + AT_ONCE]
        yield torch.from_numpy(np.stack([story.image(int(index)) for index in part])).to(device)


def _shaded(caption: str, columns: Sequence[str], names: Sequence[str], shares: Floats) -> Table:
    """Shares (rows, branches), each cell filled by its share; empty where there is no such branch."""
    rows = [
        (name, *("" if np.isnan(share) else percent(share, 1) for share in line))
        for name, line in zip(names, shares, strict=True)
    ]
    return Table(caption, columns, rows, sort=True, shades=np.nan_to_num(shares).tolist())
