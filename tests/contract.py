"""What every network promises, as functions of a freshly built one. The registry says which networks there are."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from msresnet.errors import UsageError
from msresnet.models.base import ImageModel
from msresnet.models.factory import MODELS, create_classifier
from msresnet.nn.folding import fold
from msresnet.nn.operators import MultiScaleConv2d
from randomise import randomised, relative_error

SIDE, CHANS, CLASSES = 64, 2, 5
SIZES = ((33, 97), (100, 100), (225, 190), (32, 32))
"""Odd, not square, and the smallest that every family takes."""
Check = Callable[[ImageModel], None]


def fresh(name: str) -> ImageModel:
    """A network for small images of two channels and five classes; ones meant for small images keep their size."""
    torch.manual_seed(0)
    return create_classifier(name, num_classes=CLASSES, in_chans=CHANS, img_size=side(name))


def side(name: str) -> int:
    """Pixels of a test image."""
    return min(SIDE, MODELS[name].family.defaults.img_size[0])


def images(model: ImageModel, batch: int = 2, size: tuple[int, int] | None = None) -> Tensor:
    """Seeded images that the network takes."""
    shape = (batch, model.in_chans, *(size or model.config.img_size))
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def unpadded(model: ImageModel) -> bool:
    """Whether a network loses a border at each step, and so takes images of one size only (the article's does)."""
    return model.min_size > 1


def every_parameter_gets_a_gradient(model: ImageModel) -> None:
    randomised(model).train()
    answers = model(images(model, 4), exits=True)
    assert len(answers) == model.num_exits
    weights = torch.randn(len(answers), 4, CLASSES, generator=torch.Generator().manual_seed(2))
    (torch.stack(answers) * weights).sum().backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []


def samples_do_not_influence_each_other(model: ImageModel) -> None:
    randomised(model)
    x = images(model, 3)
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(x[i : i + 1]) for i in range(3)])
    assert relative_error(alone, together) < 1e-5


def declared_features_are_true(model: ImageModel) -> None:
    randomised(model)
    x = images(model)
    modules = dict(model.named_modules())
    with torch.no_grad():
        maps = model.forward_stages(x)
        assert model.forward_features(x).shape[1] == model.num_features
    assert len(maps) == len(model.feature_info)
    for info, stage in zip(model.feature_info, maps, strict=True):
        assert stage.shape[1] == info.num_chs == info["num_chs"]
        for given, image in zip(stage.shape[2:], x.shape[2:], strict=True):
            expected = -(-image // info.reduction)
            assert given == expected or (given < expected and unpadded(model))
        assert info.module in modules
    assert model.attribution_layer in modules
    assert model.feature_info.channels() == [m.shape[1] for m in maps]


def features_only_gives_the_declared_maps(model: ImageModel) -> None:
    from msresnet.models.base import FeatureExtractor

    randomised(model)
    x = images(model)
    with torch.no_grad():
        maps = model.forward_stages(x)
        last = len(maps) - 1
        picked = FeatureExtractor(copy.deepcopy(model), (0, -1))(x)
        assert torch.equal(picked[0], maps[0])
        assert torch.equal(picked[1], maps[last])
        assert len(FeatureExtractor(copy.deepcopy(model), 2)(x)) == 2


def stages_stop_where_asked(model: ImageModel) -> None:
    """Each further map takes more convolutions; none is computed in vain."""
    randomised(model)
    calls = [0]

    def count(*_: object) -> None:
        calls[0] += 1

    for module in model.modules():
        if isinstance(module, nn.Conv2d | MultiScaleConv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        x, before = images(model), 0
        maps = model.forward_stages(x)
        for last in range(len(maps)):
            calls[0] = 0
            found = model.forward_stages(x, last)
            assert len(found) == last + 1
            assert before < calls[0]
            before = calls[0]
        assert torch.equal(found[-1], maps[-1])
        assert torch.equal(model.forward_stages(x, 0)[0], maps[0])


def classifier_can_be_removed_and_replaced(model: ImageModel) -> None:
    randomised(model)
    x = images(model)
    with torch.no_grad():
        pooled = model.forward_head(model.forward_features(x), pre_logits=True)
        assert pooled.shape == (2, model.head_hidden_size)
        model.reset_classifier(0)
        assert torch.equal(model(x), pooled)
        model.reset_classifier(9)
        assert [a.shape for a in model(x, exits=True)] == [(2, 9)] * model.num_exits
    assert model.get_classifier() is model.get_submodule(model.classifier_name)


def intermediates_are_the_stages(model: ImageModel) -> None:
    randomised(model)
    x = images(model)
    with torch.no_grad():
        final, maps = model.forward_intermediates(x)
        assert torch.equal(final, model.forward_features(x))
        last = model.forward_intermediates(x, indices=1, intermediates_only=True)
        assert torch.equal(last[0], maps[-1])
        early = model.forward_intermediates(x, indices=[0], stop_early=True, intermediates_only=True)
        assert torch.equal(early[0], maps[0])
    with pytest.raises(UsageError, match="does not exist"):
        model.forward_intermediates(x, indices=[99])
    with pytest.raises(UsageError, match="NLC"):
        model.forward_intermediates(x, output_fmt="NLC")


def channels_last_and_bf16_agree(model: ImageModel) -> None:
    randomised(model)
    x = images(model)
    with torch.no_grad():
        plain = model(x)
        swapped = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert relative_error(swapped(x.contiguous(memory_format=torch.channels_last)), plain) < 1e-5
        with torch.autocast("cpu", torch.bfloat16):
            assert relative_error(model(x).float(), plain) < 0.1


def checkpointed_gradients_agree(model: ImageModel) -> None:
    randomised(model).train()
    model.requires_grad_(True)
    grads, states = [], []
    for enable in (False, True):
        network = copy.deepcopy(model)
        network.set_grad_checkpointing(enable)
        network(images(model, 4)).square().sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
        states.append(network.state_dict())
    assert relative_error(grads[1], grads[0]) < 1e-4
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))  # BN counts a batch once


def weights_move_between_two_of_a_kind(model: ImageModel) -> None:
    randomised(model)
    other = type(model)(model.spec, model.config).eval()  # type: ignore[call-arg]
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(other(images(model)), model(images(model)))


def any_size_from_32_pixels_works(model: ImageModel) -> None:
    if unpadded(model):
        return
    randomised(model)
    small = model.config.img_size[0] < SIDE  # at full resolution, a large image takes seconds
    with torch.no_grad():
        for size in SIZES[:: 3 if small else 1]:
            assert model(images(model, 1, size)).shape == (1, CLASSES)


def folding_is_exact(model: ImageModel) -> None:
    """The same answers; no linear operator is left in pieces, and no BN that a convolution could have taken."""
    randomised(model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    folded = fold(model)
    with torch.no_grad():
        x = images(model)
        for ours, theirs in zip(folded(x, exits=True), model(x, exits=True), strict=True):
            assert relative_error(ours, theirs) < 1e-5
    assert not [m for m in folded.modules() if isinstance(m, MultiScaleConv2d) and m.spec.linear]
    left = {n for n, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert left == {n for n in left if no_convolution_can_take_it(n, folded)}
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def no_convolution_can_take_it(name: str, model: ImageModel) -> bool:
    """Pre-activation blocks begin with BN, networks of them end with one; a gate normalises what was not projected."""
    parent, _, last = name.rpartition(".")
    if parent.endswith("shortcut"):
        return isinstance(model.get_submodule(f"{parent}.conv"), nn.Identity)
    block = model.get_submodule(parent)
    kind = type(block).__name__
    operator = dict(block.named_children()).get(last.replace("bn", "conv"))
    if isinstance(operator, MultiScaleConv2d) and any(b.kind == "identity" for b in operator.branches):
        return True  # what passes through has no weights to scale
    return (kind.startswith("PreAct") and last == "bn1") or kind == "ElasticBottleneck" or name == "norm.0"


def dropping_paths_is_random_and_only_in_training(model: ImageModel) -> None:
    config = model.config._replace(drop_path_rate=0.5)
    try:
        dropped = type(model)(model.spec, config)  # type: ignore[call-arg]
    except UsageError:
        return  # said, not ignored
    randomised(dropped)
    model.load_state_dict(dropped.state_dict())
    with torch.no_grad():
        x = images(model)
        assert torch.equal(dropped(x), model.eval()(x))
        dropped.train()
        assert not torch.equal(dropped(x), dropped(x))


def groups_cover_the_body(model: ImageModel) -> None:
    """A pattern for the stem and one or several for the blocks, as timm's layer-wise decay reads them."""
    names = [n for n, _ in model.named_parameters()]
    for coarse in (False, True):
        groups = model.group_matcher(coarse)
        blocks = groups["blocks"] if isinstance(groups["blocks"], list) else [(groups["blocks"], None)]
        patterns = [groups["stem"], *(pattern for pattern, _ in blocks)]
        assert sum(any(re.match(p, n) for p in patterns) for n in names) > len(names) // 2


def traced_agrees(model: ImageModel) -> None:
    """What torch.compile captures computes the same; the code that it makes of it is compiled_agrees' matter."""
    compiled_agrees(model, "aot_eager")


def compiled_agrees(model: ImageModel, backend: str = "inductor") -> None:
    torch._dynamo.reset()
    randomised(model)
    x = images(model)
    with torch.no_grad():
        compiled = torch.compile(model, dynamic=False, fullgraph=True, backend=backend)
        assert relative_error(compiled(x), model(x)) < 1e-4


def exported_to_onnx_agrees(model: ImageModel) -> None:
    """With another batch than the one that was exported."""
    import onnxruntime

    randomised(model)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.onnx.export(
        model, (images(model),), dynamo=True, dynamic_shapes=({0: batch},), input_names=["image"], verbose=False
    )
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x = images(model, 3)
    with torch.no_grad():
        expected = model(x)
    (given,) = session.run(None, {"image": np.asarray(x)})
    assert relative_error(torch.from_numpy(given), expected) < 1e-4


CHECKS: tuple[Check, ...] = (
    every_parameter_gets_a_gradient,
    samples_do_not_influence_each_other,
    declared_features_are_true,
    features_only_gives_the_declared_maps,
    stages_stop_where_asked,
    classifier_can_be_removed_and_replaced,
    intermediates_are_the_stages,
    channels_last_and_bf16_agree,
    checkpointed_gradients_agree,
    weights_move_between_two_of_a_kind,
    any_size_from_32_pixels_works,
    folding_is_exact,
    dropping_paths_is_random_and_only_in_training,
    groups_cover_the_body,
)
TOOL_CHECKS: tuple[Check, ...] = (traced_agrees, exported_to_onnx_agrees)
"""What torch's own tools make of a network; seconds each."""
