"""Networks in 8 bits and in bfloat16: what is quantised, that runtimes agree, and that sensitive layers are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from msresnet.bundle import Bundle, load_bundle
from msresnet.data.loaders import open_sets
from msresnet.data.preprocess import Preprocess
from msresnet.data.splits import open_data
from msresnet.deploy.compress.bf16 import Rounded, bf16_model, rounded
from msresnet.deploy.compress.int8 import LAYERS, PASSING, Float, Ready, calibrated, quantised
from msresnet.deploy.compress.sensitive import choose, ranked
from msresnet.infer.backends.graph import onnx_model
from msresnet.infer.backends.onnxruntime import OnnxRuntime
from msresnet.infer.backends.openvino import OpenVino
from msresnet.infer.config import Running
from msresnet.models.factory import create_classifier, create_detector
from msresnet.tasks.classification import ClassificationTask
from msresnet.tasks.detection import DetectionTask
from msresnet.train.fit import fit
from tiny import config

HOW = Running(device="cpu", threads=1)
CALIBRATION = 100


class Digits:
    """A model of digits, its test images (N, 1, H, W) and their classes."""

    def __init__(self) -> None:
        settings = config(Path("digits"), epochs=5, batch_size=64, image_size=(12,))
        self.bundle: Bundle = fit(settings).bundle
        sets, _ = open_sets(open_data("digits", settings).named(), self.bundle.preprocess, settings)
        self.images: Ready = np.stack([sets["test"].image(i).numpy() for i in range(len(sets["test"]))])
        self.targets = sets["test"].targets.numpy()
        self.calibration: Ready = np.stack([sets["train"].image(i).numpy() for i in range(CALIBRATION)])
        self.proto = onnx_model(self.bundle)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    torch.manual_seed(0)
    return Digits()


def run(proto: onnx.ModelProto, images: Ready, openvino: bool = False, precision: str = "int8") -> np.ndarray:
    kind = OpenVino if openvino else OnnxRuntime
    outputs, _ = kind(proto.SerializeToString(), precision, "it", HOW)(images)
    return np.asarray(outputs, np.float64)


def values(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def weights(proto: onnx.ModelProto) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The integers and scales of each layer in 8 bits, by its name."""
    found, held = {}, values(proto)
    makers = {name: node for node in proto.graph.node for name in node.output}
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Gemm") and (maker := makers.get(node.input[1])) is not None:
            found[node.name] = held[maker.input[0]], held[maker.input[1]]
    return found


def test_both_runtimes_give_the_answers_of_the_float_network(digits: Digits) -> None:
    exact = run(digits.proto, digits.images, precision="fp32").argmax(1)
    assert (exact == digits.targets).mean() > 0.9
    with calibrated(digits.proto, digits.calibration) as found:
        small = quantised(found, (), 7)
    ours, theirs = (run(small, digits.images, openvino).argmax(1) for openvino in (False, True))
    assert (ours == theirs).mean() >= 0.99
    assert (ours == exact).mean() >= 0.98
    assert len(small.SerializeToString()) < 0.5 * len(digits.proto.SerializeToString())


def test_weights_have_seven_bits_a_scale_each_and_activations_are_unsigned(digits: Digits) -> None:
    with calibrated(digits.proto, digits.calibration) as found:
        seven, eight = (quantised(found, (), bits) for bits in (7, 8))
        assert set(weights(seven)) == set(found.layers)
    for name, (integers, scales) in weights(seven).items():
        assert integers.dtype == np.int8
        assert 60 < np.abs(integers.astype(int)).max() <= 64
        assert np.abs(weights(eight)[name][0].astype(int)).max() > 120
        assert scales.shape in ((integers.shape[0],), (integers.shape[-1],), (1,), ())
        if integers.ndim == 4:
            assert scales.shape == (integers.shape[0],)
    held = values(seven)
    zeros = [held[node.input[2]] for node in seven.graph.node if node.op_type == "QuantizeLinear"]
    assert {zero.dtype for zero in zeros} == {np.dtype(np.uint8)}


def test_pixels_are_normalised_and_answers_given_in_float(digits: Digits) -> None:
    with calibrated(digits.proto, digits.calibration) as found:
        small = quantised(found, (), 7)
    makers = {name: node.op_type for node in small.graph.node for name in node.output}
    assert makers[small.graph.output[0].name] in ("Gemm", "MatMul")
    first = next(node for node in small.graph.node if node.op_type == "QuantizeLinear")
    assert makers[first.input[0]] == "Add"  # after the shift by the mean
    outputs = run(small, digits.images)
    assert len(np.unique(outputs.round(5))) > 300  # 8 bits would leave 256


def test_what_is_kept_stays_in_float(digits: Digits) -> None:
    with calibrated(digits.proto, digits.calibration) as found:
        kept = found.layers[1:3]
        small = quantised(found, kept, 7)
        assert set(weights(small)) == set(found.layers) - set(kept)
        whole = quantised(found, (*found.layers, *found.others), 7)
    assert np.abs(run(whole, digits.images) - run(digits.proto, digits.images)).max() < 1e-3


def test_maps_between_layers_in_float_make_no_detour_through_8_bits() -> None:
    """Group normalisation computes in float: its maps come as they are, and only the next layer's input is rounded."""
    network = create_detector(
        "msresnet_micro", num_classes=2, in_chans=1, img_size=(32, 32), pyramid_width=16, operator="plain"
    )
    task = DetectionTask(("a", "b"), size=(32, 32), strides=network.strides)
    bundle = Bundle(network.eval(), "msresnet_micro", {}, task, Preprocess((32, 32), 1))
    images = np.random.default_rng(0).integers(0, 256, (8, 1, 32, 32), dtype=np.uint8)
    proto = onnx_model(bundle)
    with calibrated(proto, images) as found:
        small = quantised(found, (), 7)
    makers = {name: node for node in small.graph.node for name in node.output}
    backs = {name for name, node in makers.items() if node.op_type == "DequantizeLinear"}
    readers = [node for node in small.graph.node if backs & set(node.input)]
    assert {node.op_type for node in readers} <= {*LAYERS, *PASSING}
    # The sum at the end of a normalisation takes what was multiplied as it comes.
    sums = [node for node in small.graph.node if node.op_type == "Add"]
    scaled = [node for node in sums if any(makers[name].op_type == "Mul" for name in node.input if name in makers)]
    assert len(scaled) > 3
    read = {name for node in small.graph.node for name in node.input}
    assert all(tensor.name in read for tensor in small.graph.initializer)
    exact, rounded_, other = run(proto, images), run(small, images), run(small, images, openvino=True)
    assert np.corrcoef(exact.ravel(), rounded_.ravel())[0, 1] > 0.98
    # OpenVINO moves scales of channels through what follows a layer; it must come to the same.
    assert np.abs(other - exact).mean() < 2 * np.abs(exact - rounded_).mean()


@pytest.mark.parametrize("name", ["skresnet18", "resnest14d"])
def test_a_relu_that_is_the_lower_bound_of_a_range_stays(name: str) -> None:
    """In blocks with attention a reshape follows a ReLU."""
    torch.manual_seed(0)
    network = create_classifier(name, num_classes=3, img_size=(32, 32)).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # the last of each block begins at zero, and hides the block
    bundle = Bundle(network, name, {}, ClassificationTask(("a", "b", "c")), Preprocess((32, 32), 3))
    images = np.random.default_rng(0).integers(0, 256, (16, 3, 32, 32), dtype=np.uint8)
    proto = onnx_model(bundle)
    with calibrated(proto, images) as found:
        small = quantised(found, (), 7)
    exact, rounded_ = (outputs - outputs.mean(0) for outputs in (run(proto, images), run(small, images)))
    assert np.corrcoef(exact.ravel(), rounded_.ravel())[0, 1] > 0.95


def spoilt(bundle: Bundle) -> Bundle:
    """The same function, with one channel inside a block 500 times as large as the others: hard to quantise."""
    bundle = load_copy(bundle)
    block = bundle.model.get_submodule("layer2.0")
    norm = block.get_submodule("bn1")
    assert isinstance(norm, nn.BatchNorm2d)
    loudest = int(norm.weight.abs().argmax())
    with torch.no_grad():
        norm.weight[loudest] *= 500
        norm.bias[loudest] *= 500
        for parameter in block.get_submodule("conv2").parameters():
            parameter[:, loudest] /= 500
    return bundle


def load_copy(bundle: Bundle) -> Bundle:
    return load_bundle(bundle.save(Path("copy").resolve()))


def test_the_sensitive_layer_is_found_and_kept(digits: Digits) -> None:
    proto = onnx_model(spoilt(digits.bundle))
    exact = run(digits.proto, digits.images).argmax(1)
    assert (run(proto, digits.images).argmax(1) == exact).all()

    def drop(network: onnx.ModelProto) -> float:
        return 1 - float((run(network, digits.images).argmax(1) == exact).mean())

    with calibrated(proto, digits.calibration) as found:
        everything = drop(quantised(found, (), 7))
        assert everything > 0.05
        first = ranked(found, 7, digits.calibration[:32])[0]
        assert _reads(found, first, "layer2.0.conv2") or _reads(found, first, "layer2.0.conv1")
        best = choose(found, 7, digits.calibration[:32], drop, 0.02)
        assert best.drop == drop(best.proto) <= 0.02
        assert 1 <= len(best.kept) < len(found.layers) // 2
        assert choose(found, 7, digits.calibration[:32], drop, 1.0).kept == ()


def _reads(found: Float, layer: str, weight: str) -> bool:
    """Whether a layer has a weight of this name."""
    node = next(n for n in onnx.load_model(found.file).graph.node if n.name == layer)
    return any(weight in name for name in node.input)


def test_bfloat16_is_rounded_as_torch_does() -> None:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.cat([
        torch.randn(10_000, generator=generator) * 10 ** torch.randint(-30, 30, (10_000,), generator=generator),
        torch.tensor([0.0, -0.0, 1.0, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, float("inf"), 1e-40, 3.3895e38]),
    ])  # fmt: skip
    expected = numbers.bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(rounded(numbers.numpy()), expected)


def test_weights_in_bfloat16_take_half_the_room_and_compute_as_torch_would(digits: Digits) -> None:
    small = bf16_model(digits.proto)
    assert len(small.SerializeToString()) < 0.6 * len(digits.proto.SerializeToString())
    outputs = run(small, digits.images, openvino=True, precision="bf16")
    emulated, _ = Rounded(digits.bundle)(digits.images)
    reference = run(digits.proto, digits.images)
    for answers in (outputs, emulated):
        assert (answers.argmax(1) == reference.argmax(1)).mean() > 0.99
        assert 0 < np.abs(answers - reference).max() < 0.03 * np.abs(reference).max()
