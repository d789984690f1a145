"""GroupNorm as it goes into ONNX, beside torch's own."""

from __future__ import annotations

import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from msresnet.infer.backends.graph import OPSET, TRANSLATED
from msresnet.infer.backends.openvino import load_core

FREE = torch.export.Dim.DYNAMIC


def translated(layer: nn.Module, like: Tensor) -> bytes:
    """An ONNX model of a layer, its batch and sides free."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own future
        found = torch.onnx.export(
            layer.eval(),
            (like,),
            dynamo=True,
            input_names=["x"],
            dynamic_shapes=({0: FREE, 2: FREE, 3: FREE},),
            opset_version=OPSET,
            custom_translation_table=TRANSLATED,
            verbose=False,
        )
    assert found is not None
    return found.model_proto.SerializeToString()  # type: ignore[no-any-return]


@pytest.mark.parametrize(("groups", "channels", "affine"), [(1, 3, False), (8, 8, True), (4, 32, True)])
def test_onnx_runtime_and_openvino_answer_as_torch_does(groups: int, channels: int, affine: bool) -> None:
    pytest.importorskip("openvino")
    generator = torch.Generator().manual_seed(0)
    layer = nn.GroupNorm(groups, channels, eps=1e-3, affine=affine)
    if affine:
        nn.init.normal_(layer.weight, generator=generator)
        nn.init.normal_(layer.bias, generator=generator)
    contents = translated(layer, torch.zeros(2, channels, 6, 4))
    session = onnxruntime.InferenceSession(contents, providers=["CPUExecutionProvider"])
    core = load_core()
    compiled = core.compile_model(core.read_model(contents), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in [(1, channels, 7, 5), (3, channels, 1, 9), (2, channels, 33, 17)]:
        # Channels of their own size and place, far from nought: where squares of values are subtracted, this shows it.
        size = torch.rand(channels, 1, 1, generator=generator) * 3
        x = torch.randn(shape, generator=generator) * size + 50 * torch.rand(channels, 1, 1, generator=generator)
        want = layer(x).detach().numpy()
        np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], want, atol=2e-4, rtol=1e-4)
        np.testing.assert_allclose(compiled([x.numpy()])[0], want, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_broken_map_gives_no_numbers_as_in_torch(value: float) -> None:
    layer, x = nn.GroupNorm(2, 4), torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    x[0, 0, 2, 2] = value
    session = onnxruntime.InferenceSession(
        translated(layer, torch.zeros(2, 4, 6, 4)), providers=["CPUExecutionProvider"]
    )
    found = session.run(None, {"x": x.numpy()})[0]
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(layer(x).detach().numpy()))


def test_what_is_no_map_is_refused_when_it_is_exported() -> None:
    with pytest.raises(torch.onnx.OnnxExporterError):
        translated(nn.GroupNorm(2, 8), torch.zeros(2, 8, 5, 4, 3))


def test_maps_keep_their_order_from_one_layer_to_the_next() -> None:
    """Joined into rows, as torch's own translation has them, they would be brought into another order and back."""
    import onnx

    layer = nn.Sequential(nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    graph = onnx.load_model_from_string(translated(layer, torch.zeros(2, 4, 9, 9))).graph
    kinds = {node.op_type for node in graph.node}
    assert "InstanceNormalization" not in kinds
    makers = {name: node.op_type for node in graph.node for name in node.output}
    reshaped = {makers.get(node.input[0]) for node in graph.node if node.op_type == "Reshape"}
    assert reshaped <= {"ReduceMean", "Expand", "Div", None}, "only what is left of a map changes its shape"
