"""Test-time augmentation: the mean over views, by hand; nothing for what looks the same from everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from scipy.special import softmax
from torch import Tensor, nn

import msresnet
from hostile import random_pixels
from msresnet.bundle import load_bundle
from msresnet.cli.main import main
from msresnet.errors import UsageError
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.config import TTA
from msresnet.infer.predictor import Predictor
from msresnet.infer.tta import averaged, moved, views
from msresnet.nn.folding import fold
from msresnet.results import classified
from sharding import NAMES, SIDE, png, rows

ALL: list[TTA] = ["flip", "shifts", "flip+shifts"]


def images(count: int, side: int = SIDE, border: int = 0) -> Tensor:
    """Noise (N, 1, H, W) within a border of one grey level."""
    pixels = torch.full((count, 1, side, side), 7, dtype=torch.uint8)
    inner = side - 2 * border
    pixels[:, :, border : side - border, border : side - border] = torch.from_numpy(
        random_pixels(count, 1, inner, inner)
    )
    return pixels


@pytest.mark.parametrize("side", [32, 64, 28])
def test_shifts_move_by_a_thirty_second_and_reflect_the_border(side: int) -> None:
    picture = torch.arange(side * side, dtype=torch.float32).reshape(1, 1, side, side)
    move = round(side / 32)
    down, up = (view[0, 0].numpy() for view in moved(picture))
    # numpy's own reflection is the truth
    around = np.pad(picture[0, 0].numpy(), move, mode="reflect")
    assert np.array_equal(down, around[:side, :side])
    assert np.array_equal(up, around[2 * move :, 2 * move :])
    assert np.array_equal(down[move:, move:], picture[0, 0, :-move, :-move])


def test_images_of_a_pixel_stay_where_they_are() -> None:
    assert all(torch.equal(view, torch.ones(1, 1, 1, 1)) for view in views(torch.ones(1, 1, 1, 1), "flip+shifts"))


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("flip", 2), ("shifts", 3), ("flip+shifts", 6)])
def test_views_are_different_and_begin_with_the_image(tta: TTA, count: int) -> None:
    given = images(1).float()
    found = views(given, tta)
    assert torch.equal(found[0], given)
    assert len({view.numpy().tobytes() for view in found}) == len(found) == count
    mirrored = {view.flip(3).numpy().tobytes() for view in found}
    assert (mirrored == {view.numpy().tobytes() for view in found}) == ("flip" in tta)


class Symmetric(nn.Module):
    """Kernels that are their own mirror images, then the mean over places."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 5, padding=2))
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                layer.weight.data = (layer.weight.data + layer.weight.data.flip(3)) / 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4)."""
        mean: Tensor = self.layers(x).mean((2, 3))
        return mean


class Histogram(nn.Module):
    """What sees pixels, and not where they are."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 3)."""
        return torch.stack([x.mean((1, 2, 3)), x.square().mean((1, 2, 3)), x.amax((1, 2, 3))], 1)


@pytest.mark.parametrize(("kind", "tta"), [(Symmetric, "flip"), *((Histogram, tta) for tta in ALL)])
def test_what_is_symmetric_by_construction_is_not_changed(kind: type[nn.Module], tta: TTA) -> None:
    network, x = kind().eval(), images(5, border=2).float() / 255
    with torch.inference_mode():
        torch.testing.assert_close(averaged(network, x, tta), network(x))


def chances(predictor: Predictor, pixels: Tensor, names: list[str]) -> npt.NDArray[np.float64]:
    """Probabilities (N, K) for ready images."""
    return classified(predictor.predict_ready(pixels, names)).probabilities


def by_hand(predictor: Predictor, pixels: Tensor, tta: TTA) -> npt.NDArray[np.float64]:
    """Probabilities (N, K) from the plain predictor's on views that numpy makes of the bytes."""
    plain = pixels.numpy()
    around = np.pad(plain, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    found = [plain]
    if "shifts" in tta:
        found += [around[:, :, :-2, :-2], around[:, :, 2:, 2:]]
    if "flip" in tta:
        found += [view[..., ::-1] for view in found]
    names = [str(i) for i in range(len(plain))]
    answers = [chances(predictor, torch.from_numpy(view.copy()), names) for view in found]
    # The logarithm of a probability is its logit up to a constant, which softmax takes away again.
    return softmax(np.mean(np.log(answers), 0), 1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("tta", ALL)
def test_a_predictor_gives_the_mean_computed_by_hand(tta: TTA, model: Path) -> None:
    pixels, names = images(7), [str(i) for i in range(7)]
    plain = predictor_of(load_bundle(model), "cpu")
    found = chances(predictor_of(load_bundle(model), "cpu", batch_size=3, tta=tta), pixels, names)
    assert np.allclose(found, by_hand(plain, pixels, tta), atol=1e-5)
    assert not np.allclose(found, chances(plain, pixels, names), atol=1e-3)
    alone = [chances(predictor_of(load_bundle(model), "cpu", tta=tta), p[None], ["0"]) for p in pixels]
    assert np.array_equal(found, np.concatenate(alone))


@pytest.mark.parametrize(("tta", "count"), [("scales", 3), ("flip+scales", 6)])
def test_scales_are_the_image_at_other_sizes(tta: TTA, count: int) -> None:
    """Pillow's filter, on floating-point pixels, is the truth."""
    picture = torch.rand(1, 1, 40, 28)
    found = views(picture, tta)
    assert [tuple(view.shape[2:]) for view in found[:3]] == [(40, 28), (32, 22), (50, 35)]
    assert len(found) == count
    for view in found[:3]:
        size = (view.shape[3], view.shape[2])
        truth = np.asarray(Image.fromarray(picture[0, 0].numpy()).resize(size, Image.Resampling.BILINEAR))
        assert np.allclose(view[0, 0], truth, atol=1e-5)
    assert all(torch.equal(a.flip(3), b) for a, b in zip(found[:3], found[3:], strict=False))


def test_scales_change_nothing_for_what_looks_the_same_at_any_size() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    flat = torch.rand(5, 1, 1, 1).expand(5, 1, SIDE, SIDE)
    with torch.inference_mode():
        torch.testing.assert_close(averaged(network, flat, "flip+scales"), network(flat))


@pytest.mark.parametrize("tta", ["scales", "flip+scales"])
def test_a_predictor_averages_over_scales(tta: TTA, model: Path) -> None:
    pixels, names = images(5), [str(i) for i in range(5)]
    bundle = load_bundle(model)
    predictor = predictor_of(bundle, "cpu", batch_size=2, tta=tta)
    found = classified(predictor.predict_ready(pixels, names)).probabilities
    with torch.inference_mode():
        ready = predictor.trained.preprocess.tensor(pixels)
        outputs = torch.stack([fold(bundle.model)(view) for view in views(ready, tta)]).mean(0)
    assert np.allclose(found, softmax(outputs.double().numpy(), 1), atol=1e-5)
    plain = classified(predictor_of(load_bundle(model), "cpu").predict_ready(pixels, names)).probabilities
    assert not np.allclose(found, plain, atol=1e-4)


def labelled(folder: Path) -> Path:
    for number, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            (folder / name / f"{i}.png").write_bytes(png(10 * number + i))
    return folder


def test_every_door_gives_the_same_and_says_so(model: Path, here: Path, capsys: Any) -> None:
    data, flags = labelled(here / "data"), ["--model", str(model), "--device", "cpu", "--tta", "flip+shifts"]
    assert main(["evaluate", "--data", str(data), *flags, "--output", "measured"]) == 0
    assert "outputs averaged over views (flip+shifts)" in capsys.readouterr().err
    metrics = json.loads((here / "measured" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["tta"] == "flip+shifts"
    assert main(["predict", str(data), *flags, "--format", "json"]) == 0
    printed = [row["probability"] for row in json.loads(capsys.readouterr().out)]
    assert main(["predict", str(data), *flags, "--output", "sharded", "-q"]) == 0
    written = [float(row["probability"]) for row in rows(here / "sharded" / "data.csv")]
    classifier = msresnet.load(model)
    assert isinstance(classifier, msresnet.Classifier)
    door = classifier.predict(str(data), tta="flip+shifts").confidences.round(4).tolist()
    assert printed == written == door
    assert printed != classifier.predict(str(data)).confidences.round(4).tolist()
    measured = classifier.evaluate(str(data), tta="flip+shifts").metrics
    assert measured["loss"] == metrics["loss"] != classifier.evaluate(str(data)).metrics["loss"]
    assert "tta" not in classifier.evaluate(str(data)).metrics


def test_views_and_a_budget_are_refused(model: Path, capsys: Any) -> None:
    assert main(["predict", "a.png", "--model", str(model), "--tta", "flip", "--budget", "0.9"]) == 2
    assert "--tta flip and a budget contradict each other" in capsys.readouterr().err
    with pytest.raises(UsageError, match="contradict each other"):
        predictor_of(load_bundle(model), "cpu", budget="0.9", tta="flip")
    with pytest.raises(UsageError, match="unknown views 'flips'"):
        predictor_of(load_bundle(model), "cpu", tta="flips")  # type: ignore[arg-type]
