"""Resizing in numpy, against torch to the byte."""

from __future__ import annotations

import subprocess
import sys
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from msresnet.data.sample import Image
from msresnet.data.triangle import triangle

SIDE = st.integers(1, 90)


def both(image: Image, size: tuple[int, int]) -> Image:
    """What comes out with scipy's matrices and without, which has to be the same."""
    import scipy.sparse  # noqa: F401

    fast = triangle(image, size)
    with patch.dict(sys.modules):
        del sys.modules["scipy.sparse"]
        slow = triangle(image, size)
    assert np.array_equal(fast, slow)
    assert fast.flags.c_contiguous
    assert fast.dtype == np.uint8
    return fast


@settings(max_examples=150, deadline=None)
@given(st.tuples(st.sampled_from([1, 3]), SIDE, SIDE), st.tuples(SIDE, SIDE), st.integers(0, 2**32 - 1))
def test_it_gives_the_bytes_that_torch_gives(shape: tuple[int, int, int], size: tuple[int, int], seed: int) -> None:
    assume(shape[0] == 1 or size != (1, 1))  # torch 2.13 fails to make one pixel of a colour image
    image = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    expected = F.interpolate(torch.from_numpy(image)[None], size=size, mode="bilinear", antialias=True)[0]
    assert np.array_equal(both(image, size), expected.numpy())


def test_extreme_shapes_and_levels() -> None:
    for shape, size in (((1, 1, 5000), (7, 3)), ((3, 700, 2), (5, 300)), ((1, 997, 1013), (224, 224))):
        for level in (0, 255):
            assert (both(np.full(shape, level, np.uint8), size) == level).all()
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        expected = F.interpolate(torch.from_numpy(image)[None], size=size, mode="bilinear", antialias=True)[0]
        assert np.array_equal(both(image, size), expected.numpy())


def test_a_process_without_torch_makes_the_same_input() -> None:
    code = (
        "import sys, hashlib, numpy as np; from msresnet.data.preprocess import Preprocess;"
        "image = np.random.default_rng(3).integers(0, 256, (3, 61, 47), dtype=np.uint8);"
        "made = [Preprocess((24, 20), 1, mode).image(image) for mode in ('squash', 'crop', 'pad')];"
        "assert 'torch' not in sys.modules;"
        "print(hashlib.sha256(b''.join(m.tobytes() for m in made)).hexdigest())"
    )
    with_torch = code.replace("import sys,", "import torch, sys,").replace("assert 'torch' not in", "assert 'torch' in")
    runs = [subprocess.run([sys.executable, "-c", c], capture_output=True, check=True) for c in (code, with_torch)]
    assert runs[0].stdout == runs[1].stdout
