"""How good a network is on a set while it trains, over all processes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from msresnet.data.sets import Samples
from msresnet.train.plan import Plan
from msresnet.train.processes import Processes

EVALUATION_BATCH = 500


@torch.no_grad()
def score(
    model: nn.Module, data: Samples, plan: Plan, processes: Processes, check: Callable[[], None]
) -> tuple[float, float]:
    """(the figure that chooses, loss) of a network on a set, in the precision of the training.

    Each process answers every world-th image, and all get the answers of all, so the figures are exact whatever their
    number. `check` is called before each batch.
    """
    model.eval()
    together = plan.batch if plan.task.whole else EVALUATION_BATCH  # answers for every pixel fill the memory
    parts = torch.arange(processes.rank, len(data), processes.world).split(together)
    rows, read = [torch.empty(0, plan.task.row_width, device=processes.device)], [torch.empty(0)]
    with processes.autocast():
        for part, batch in zip(parts, data.batches(parts, processes.device), strict=True):
            check()
            images = plan.preprocess.tensor(batch.images).contiguous(memory_format=torch.channels_last)
            rows.append(plan.task.validation_rows(model(images).float(), batch.targets))
            read.append((batch.indices == part).float())
    answers = processes.gather(torch.cat(rows), len(data))
    # What could not be read has another image in its place, which must not count twice.
    kept = processes.gather(torch.cat(read).to(answers.device), len(data)).nonzero()[:, 0]
    figures = plan.task.validation_figures(answers[kept], data.targets[kept.cpu()])
    return figures[plan.chosen_by], figures["loss"]
