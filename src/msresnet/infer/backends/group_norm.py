"""GroupNorm in ONNX as sums and products of maps as they are.

Written the usual way, with the channels of a group joined into one row, runtimes that keep channels last bring every
map into another order and back, which took an eighth of a detector's time in int8. Here only what is left of a map, one
number for each channel, changes its shape.
"""

from __future__ import annotations

import math
from typing import Any


def group_norm(  # noqa: PLR0917 - as torch calls it
    input: Any,  # noqa: A002 - the exporter hands over by name what torch calls so
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    """The graph of `torch.nn.functional.group_norm` (arXiv 1803.08494) for a map (B, C, H, W), whose C is known.

    Raises NotImplementedError for what is not a map, which the exporter passes on as its own.
    """
    from onnx import TensorProto
    from onnxscript import opset18 as op

    if len(input.shape) != 4:
        raise NotImplementedError(f"GroupNorm of {len(input.shape)} dimensions, and not of a map's 4")

    def whole(*numbers: int) -> Any:
        return op.Constant(value_ints=list(numbers))

    def of_group(values: Any) -> Any:
        """The mean over each group, for each of its channels: (B, C, 1, 1) of both."""
        means = op.ReduceMean(op.Reshape(values, whole(0, num_groups, -1, 1)), whole(2))
        return op.Reshape(op.Expand(means, whole(1, 1, input.shape[1] // num_groups, 1)), whole(0, -1, 1, 1))

    # The larger of a number and of what none is below is the number. OpenVINO would pull the scales of a convolution in
    # 8 bits, one of each channel, through what follows; it loses them there, and gives other answers without a word
    # (2026.4). Through this it does not, and unlike a Clip it is not brought to 8 bits itself.
    x = op.Max(input, op.Constant(value_float=-math.inf))
    # The length of distances from the mean, not of the values: a difference of large squares would lose small ones.
    centred = op.Sub(x, of_group(op.ReduceMean(x, whole(2, 3))))
    length = op.ReduceL2(centred, whole(2, 3))
    area = op.Cast(op.ReduceProd(op.Shape(input, start=2)), to=TensorProto.FLOAT)
    variance = of_group(op.Div(op.Mul(length, length), area))
    factor = op.Reciprocal(op.Sqrt(op.Add(variance, op.Constant(value_float=eps))))
    if weight is not None:
        factor = op.Mul(factor, op.Reshape(weight, whole(1, -1, 1, 1)))
    normalised = op.Mul(centred, factor)
    return normalised if bias is None else op.Add(normalised, op.Reshape(bias, whole(1, -1, 1, 1)))
