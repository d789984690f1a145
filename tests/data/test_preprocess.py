"""From any image to the network's input: against formulas written out, against Pillow, and round trips."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image as Pillow

import hostile
from msresnet.data.options import PreprocessOptions
from msresnet.data.preprocess import Preprocess, look, otsu, plan, to_uint8, with_statistics
from msresnet.data.resize import Resize, batch_of_one, resize, seen_at
from msresnet.data.sample import ArraySource, Subset
from msresnet.errors import DataError, UsageError

GREY = hostile.random_pixels(1, 20, 30)
COLOUR = hostile.random_pixels(3, 20, 30)
images = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def between_variance(grey: hostile.Bytes, level: int) -> float:
    """Otsu's criterion, equation 14 of his paper, from the pixels themselves: w0 w1 (m0 - m1)^2."""
    dark, bright = grey[grey <= level].astype(float), grey[grey > level].astype(float)
    if not len(dark) or not len(bright):
        return 0.0
    return float(len(dark) * len(bright) * (dark.mean() - bright.mean()) ** 2 / grey.size**2)


@settings(deadline=None)
@given(images | images.map(lambda a: (a // 64) * 64))
def test_otsu_has_the_largest_variance_of_all_levels(grey: hostile.Bytes) -> None:
    best = max(between_variance(grey, level) for level in range(256))
    assert between_variance(grey, otsu(grey)) == pytest.approx(best, rel=1e-9, abs=1e-9)


def test_otsu_of_two_peaks_lies_in_the_middle() -> None:
    assert otsu(np.array([[10, 10, 210]], np.uint8)) == 109


@pytest.mark.parametrize("level", [0, 7, 255])
@pytest.mark.parametrize("binary", [False, True])
def test_otsu_of_a_flat_image_lets_nothing_pass(level: int, binary: bool) -> None:
    flat = np.full((1, 8, 8), level, np.uint8)
    assert otsu(flat[0]) == level
    assert not Preprocess((8, 8), 1, threshold="otsu", binary=binary).image(flat).any()


def test_a_fixed_threshold_keeps_or_whitens_what_is_brighter() -> None:
    kept = Preprocess((20, 30), 1, threshold="100").image(GREY)
    white = Preprocess((20, 30), 1, threshold="100", binary=True).image(GREY)
    assert np.array_equal(kept, np.where(GREY > 100, GREY, 0))
    assert np.array_equal(white, np.where(GREY > 100, 255, 0))


def test_adaptive_finds_dots_on_a_slope_that_no_single_level_separates() -> None:
    slope = np.tile(np.linspace(0, 180, 32), (32, 1))
    dots = np.zeros((32, 32), bool)
    dots[4:30:8, 4:30:8] = True
    grey = (slope + 60 * dots).astype(np.uint8)[None]
    found = Preprocess((32, 32), 1, threshold="adaptive", binary=True).image(grey)[0] == 255
    assert np.array_equal(found, dots)
    assert all(not np.array_equal(grey[0] > level, dots) for level in range(256))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(10, 10), (40, 12), (7, 50)])
def test_squash_equals_pillows_resize_within_one_grey_level(channels: int, shape: tuple[int, int]) -> None:
    image = GREY if channels == 1 else COLOUR
    picture = Pillow.fromarray(image[0] if channels == 1 else image.transpose(1, 2, 0))
    expected = np.asarray(picture.resize(shape[::-1], Pillow.Resampling.BILINEAR)).reshape(*shape, channels)
    found = Preprocess(shape, channels).image(image)
    assert np.abs(found.astype(int) - expected.transpose(2, 0, 1)).max() <= 1


def test_crop_keeps_the_middle_and_pad_keeps_all_between_black_bars() -> None:
    crop = Preprocess((20, 20), 1, "crop").image(GREY)
    assert np.array_equal(crop, GREY[:, :, 5:25])
    pad = Preprocess((30, 30), 1, "pad").image(GREY)
    assert np.array_equal(pad[:, 5:25], GREY)
    assert not pad[:, :5].any()
    assert not pad[:, 25:].any()


@settings(deadline=None)
@given(
    st.sampled_from(["squash", "crop", "pad"]),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([None, "otsu", "adaptive", "0"]),
)
def test_any_image_takes_any_size(
    resize: str, given_size: tuple[int, int], size: tuple[int, int], threshold: str | None
) -> None:
    preprocess = Preprocess(size, 3, resize, threshold)  # type: ignore[arg-type]
    assert preprocess.image(np.full((1, *given_size), 200, np.uint8)).shape == (3, *size)


@pytest.mark.parametrize("mode", ["squash", "crop", "pad"])
def test_pixels_are_the_same_however_they_lie_in_memory(mode: Resize) -> None:
    """Decoders lay channels side by side, caches in planes; a crop of either lies between what was cut off."""
    planes = hostile.random_pixels(3, 70, 90)
    beside = np.ascontiguousarray(planes.transpose(1, 2, 0)).transpose(2, 0, 1)
    assert beside.strides[0] == 1
    for cut in (np.s_[:, :, :], np.s_[:, 5:60, 7:80], np.s_[:, ::-1, ::-1], np.s_[:1]):
        found = resize(beside[cut], (32, 24), mode)
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, resize(np.ascontiguousarray(planes[cut]), (32, 24), mode))


def test_torch_takes_channels_that_lie_side_by_side_for_what_they_are() -> None:
    """It answers in the layout that it works in; planes would cost twice the time."""
    beside = hostile.random_pixels(70, 90, 3).transpose(2, 0, 1)
    for cut in (beside, beside[:, 5:60, 7:80]):
        batch = batch_of_one(cut)
        np.testing.assert_array_equal(batch[0].numpy(), cut)
        assert F.interpolate(batch, size=(32, 24), mode="bilinear", antialias=True).stride(1) == 1


def test_grey_and_its_colour_copy_give_the_same() -> None:
    for channels in (1, 3):
        preprocess = Preprocess((16, 16), channels, threshold="otsu")
        assert np.array_equal(preprocess.image(GREY), preprocess.image(np.repeat(GREY, 3, axis=0)))


def test_colour_becomes_grey_by_the_weights_of_itu_r_601() -> None:
    grey = Preprocess((20, 30), 1).image(COLOUR)[0]
    luma = np.tensordot([0.299, 0.587, 0.114], COLOUR.astype(float), 1)
    assert np.abs(grey - luma).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_make_mean_0_and_deviation_1(channels: int) -> None:
    data = torch.from_numpy(hostile.random_pixels(50, channels, 6, 7) // 3)
    preprocess = with_statistics(Preprocess((6, 7), channels), data)
    pixels = data.double() / 255
    expected = [torch.std_mean(pixels[:, c], correction=0) for c in range(channels)]
    assert preprocess.std == pytest.approx([float(s) for s, _ in expected], abs=1e-6)
    assert preprocess.mean == pytest.approx([float(m) for _, m in expected], abs=1e-6)
    normal = preprocess.tensor(data)
    assert torch.allclose(normal.mean((0, 2, 3)), torch.zeros(channels), atol=1e-4)
    assert torch.allclose(normal.std((0, 2, 3), correction=0), torch.ones(channels), atol=1e-4)


def test_statistics_of_flat_images_are_finite() -> None:
    preprocess = with_statistics(Preprocess((4, 4), 1), torch.full((5, 1, 4, 4), 9, dtype=torch.uint8))
    assert torch.isfinite(preprocess.tensor(torch.zeros(1, 1, 4, 4, dtype=torch.uint8))).all()


def test_statistics_take_little_memory() -> None:
    data = torch.zeros(2000, 3, 64, 64, dtype=torch.uint8)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        with_statistics(Preprocess((64, 64), 3), data)
    assert max(event.cpu_memory_usage for event in profile.events()) < data.numel()


configurations = st.fixed_dictionaries(
    {
        "size": st.tuples(st.integers(1, 999), st.integers(1, 999)),
        "channels": st.just(3),
        "resize": st.sampled_from(["squash", "crop", "pad"]),
        "threshold": st.sampled_from(["0", "128", "255", "otsu", "adaptive"]),
        "binary": st.booleans(),
        "mean": st.tuples(*[st.floats(0, 1)] * 3),
        "std": st.tuples(*[st.floats(0.001, 1)] * 3),
        "value_range": st.tuples(st.floats(-5, 0), st.floats(1, 5)),
    }
)


@settings(deadline=None)
@given(configurations)
def test_the_dictionary_survives_json(values: dict[str, object]) -> None:
    preprocess = Preprocess(**values)  # type: ignore[arg-type]
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


@pytest.mark.parametrize(
    "values",
    [
        {"size": (0, 5)}, {"size": (5,)}, {"channels": 2}, {"channels": 4}, {"resize": "stretch"}, {"binary": True},
        {"threshold": "256"}, {"threshold": "-1"}, {"threshold": "0.5"}, {"threshold": ""}, {"threshold": "auto"},
        {"mean": (0.5, 0.5)}, {"mean": (0.5,), "std": (0.5, 0.5, 0.5)}, {"std": (0.0,)}, {"std": (float("nan"),)},
        {"mean": (float("inf"),)},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Preprocess(**({"size": (8, 8), "channels": 3} | values))  # type: ignore[arg-type]


def test_arrays_of_other_kinds_become_bytes() -> None:
    deep = np.array([[0, 65535, 257, 128 * 257]], np.uint16)
    assert to_uint8(deep, (0, 65535)).tolist() == [[0, 255, 1, 128]]
    assert to_uint8(np.array([-1.0, 0.0, 0.5, 2.0]), (0, 1)).tolist() == [0, 0, 128, 255]
    assert to_uint8(np.array([True, False]), (0, 1)).tolist() == [255, 0]
    assert to_uint8(np.array([3.0, 3.0]), (3.0, 3.0)).tolist() == [0, 0]
    for bad in (np.nan, np.inf):
        with pytest.raises(DataError, match="NaN or infinity"):
            to_uint8(np.array([0.0, bad]), (0, 1))


Sizes = set[tuple[int, int]]


SIZES = [
    ({(28, 28)}, (28, 28)),
    ({(8, 8)}, (24, 24)),
    ({(400, 400)}, (224, 224)),
    ({(28, 28), (30, 28)}, (224, 224)),
    (set(), (224, 224)),
]


@pytest.mark.parametrize(("sizes", "size"), SIZES)
def test_the_size_follows_the_data_with_a_reason(sizes: Sizes, size: tuple[int, int]) -> None:
    preprocess, reasons = plan(PreprocessOptions(), sizes, grey=True)
    assert preprocess.size == size
    assert preprocess.channels == 1
    assert len(reasons) == 2


def test_a_reason_from_a_sample_says_so() -> None:
    large = ArraySource(np.zeros((1000, 1, 28, 28), np.uint8), np.zeros(1000, np.int64), ["a"])
    _, reasons = plan(PreprocessOptions(), *look(large), len(large))
    assert reasons == [
        "image size 28x28: all images of 334 looked at have it", "grey: no image of 334 looked at has colour",
    ]  # fmt: skip
    few = Subset(large, np.arange(300))
    assert not any("looked at" in reason for reason in plan(PreprocessOptions(), *look(few), len(few))[1])


def test_what_the_user_set_is_never_changed() -> None:
    options = PreprocessOptions(image_size=(7, 9), channels=3, resize="pad", threshold="90", binary=True)
    preprocess, reasons = plan(options, {(28, 28)}, grey=True)
    assert (preprocess.size, preprocess.channels, preprocess.resize) == ((7, 9), 3, "pad")
    assert (preprocess.threshold, preprocess.binary, reasons) == ("90", True, [])
    for bad in ((), (0,), (1, 2, 3)):
        with pytest.raises(UsageError, match="image-size"):
            plan(PreprocessOptions(image_size=bad), set(), grey=True)


def test_a_threshold_makes_colour_images_grey_unless_colour_is_asked_for() -> None:
    made, reasons = plan(PreprocessOptions(threshold="otsu", binary=True), {(8, 8)}, grey=False)
    assert made.channels == 1
    assert "grey: a threshold works on grey levels" in reasons
    assert plan(PreprocessOptions(threshold="otsu", channels=3), {(8, 8)}, grey=False)[0].channels == 3


@pytest.mark.parametrize("mode", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(24, 24), (60, 90), (33, 20)])
def test_a_pixel_of_the_input_is_found_in_the_image(mode: Resize, size: tuple[int, int]) -> None:
    image = np.zeros((1, 40, 61), np.uint8)
    image[0, 18:22, 30:34] = 255
    pixel = np.unravel_index(int(resize(image, size, mode)[0].argmax()), size)
    row, column = seen_at((int(pixel[0]), int(pixel[1])), (40, 61), size, mode)
    assert 17 <= row <= 22
    assert 29 <= column <= 34
    for corner in ((0, 0), (size[0] - 1, size[1] - 1)):
        row, column = seen_at(corner, (40, 61), size, mode)
        assert 0 <= row < 40
        assert 0 <= column < 61
