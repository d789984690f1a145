"""How faithful explanations are: deletion and insertion of each method, beside maps that know nothing of the model.

Two models: the micro network after an epoch of MNIST, asked about test images; and a small network that has learnt a
folder of photographs by heart, one class each, asked about those. What is explained is the model's own answer. The
areas are means over images with 95 % intervals; seconds are those of the processor.

Run: python -m benchmarks.explanations --mnist mnist --photos FOLDER [--images 100]

N images, C channels, H and W pixels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from benchmarks.tables import interval, publish, use_threads
from torch import Tensor

from msresnet.bundle import Bundle
from msresnet.data.decode import decode_file
from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import ArraySource
from msresnet.data.sources.folder import is_image
from msresnet.data.splits import Splits
from msresnet.explain.attribution import METHODS, attribute, blurred, full_size, heat_maps
from msresnet.explain.faithfulness import BLUR as INSERTED_INTO
from msresnet.explain.faithfulness import CONTROLS, faithfulness
from msresnet.train.config import TrainConfig
from msresnet.train.fit import fit

SIDE, AT_ONCE = 96, 8
Maps = Callable[[Bundle, Tensor, Tensor], Tensor]
"""(bundle, images (N, C, H, W), classes (N,)) -> the importance of each pixel (N, H, W)."""


def digits(data: str, count: int) -> tuple[Bundle, Tensor]:
    """The micro network after an epoch, and evenly spaced test images (N, C, H, W) uint8."""
    fitted = fit(TrainConfig(data=data, model="msresnet_micro", epochs=1))
    test = fitted.sets["test"]
    chosen = torch.linspace(0, len(test) - 1, count).long().tolist()
    return fitted.bundle, torch.stack([test.image(i) for i in chosen])


def photographs(folder: Path, count: int, epochs: int) -> tuple[Bundle, Tensor]:
    """A network that knows the photographs and their mirror images, and the photographs (N, C, H, W) uint8."""
    paths = sorted(path for path in folder.iterdir() if is_image(path))[:count]
    made = Preprocess((SIDE, SIDE), 3)
    images = np.stack([made.image(decode_file(path, made.at_least)) for path in paths])
    source = ArraySource(np.concatenate([images, images[..., ::-1]]), np.tile(np.arange(len(paths)), 2), _names(paths))
    config = TrainConfig(
        model="msresnet10", epochs=epochs, image_size=(SIDE,), batch_size=32, augment="none", label_smoothing=0.0
    )
    return fit(config, Splits(source, source)).bundle, torch.from_numpy(images)


def _names(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


def by_method(method: str, stage: int | None = None, drawn: bool = False) -> Maps:
    """A method's order of the pixels; with `drawn` that of the picture, which is smoothed and has no negatives."""

    def maps(bundle: Bundle, images: Tensor, targets: Tensor) -> Tensor:
        size = (images.shape[-2], images.shape[-1])
        parts = zip(images.split(AT_ONCE), targets.split(AT_ONCE), strict=True)
        found = (attribute(bundle, part, asked, method, stage) for part, asked in parts)
        return torch.cat([heat_maps(a, size) if drawn else full_size(a, size) for a in found])

    return maps


def without_model(control: Callable[[Tensor], Tensor]) -> Maps:
    """An order that does not ask the model."""
    return lambda _bundle, images, _targets: control(images)


CONTESTANTS: dict[str, Maps] = {
    **{name: by_method(name) for name in METHODS},
    "grad-cam of the first stage": by_method("grad-cam", 1),
    "integrated-gradients as drawn": by_method("integrated-gradients", drawn=True),
    **{name: without_model(control) for name, control in CONTROLS.items()},
}


def rows(bundle: Bundle, raw: Tensor) -> list[str]:
    """A table of all contestants on some images (N, C, H, W) uint8."""
    images = bundle.preprocess.tensor(raw)
    with torch.no_grad():
        first = torch.cat([bundle.model(part) for part in images.split(AT_ONCE)]).softmax(1)
        plain = torch.cat([bundle.model(part) for part in blurred(images, INSERTED_INTO).split(AT_ONCE)]).softmax(1)
    targets = first.argmax(1)
    start, end = (float(p.gather(1, targets[:, None]).mean()) for p in (plain, first))
    lines = [
        f"{len(raw)} images; the class's probability is {end:.3f} on average, {start:.3f} where they are blurred.",
        "",
    ]
    lines += ["| map | deletion | insertion | difference | seconds an image |", "|---|--:|--:|--:|--:|"]
    for name, contestant in CONTESTANTS.items():
        began = time.process_time()
        maps = contestant(bundle, images, targets)
        spent = (time.process_time() - began) / len(raw)
        deletion, insertion = faithfulness(bundle, images, targets, maps).areas()
        cells = ["{:.3f} ± {:.3f}".format(*interval(v.tolist())) for v in (deletion, insertion, insertion - deletion)]
        lines.append(f"| {name} | {' | '.join(cells)} | {spent:.3f} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Train both models, measure all maps, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", default="mnist", help="MNIST as msresnet takes it")
    parser.add_argument("--photos", type=Path, default=None, help="a folder of photographs")
    parser.add_argument("--images", type=int, default=100, help="of each")
    parser.add_argument("--epochs", type=int, default=30, help="of the photographs")
    parser.add_argument("--threads", type=int, default=None, help="of torch")
    parser.add_argument("--output", type=Path, default=None, help="a file for the tables")
    args = parser.parse_args()
    use_threads(args.threads)
    body = ["## MNIST, msresnet_micro after an epoch", "", *rows(*digits(args.mnist, args.images))]
    if args.photos is not None:
        title = f"## Photographs of {SIDE} x {SIDE} pixels, msresnet10 that knows them by heart"
        body += ["", title, "", *rows(*photographs(args.photos, args.images, args.epochs))]
    publish("How faithful explanations are", body, args.output)


if __name__ == "__main__":
    main()
