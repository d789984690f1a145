"""The models by name, as rows of data. Each family names its paper; published figures stand in `published.csv`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from msresnet.models.article import ArticleCNN, ArticleSpec
from msresnet.models.base import Config, Family
from msresnet.models.big_little import BIG_LITTLE_ROWS, BigLittleNet
from msresnet.models.dla import DLA, DLA_ROWS
from msresnet.models.hrnet import HRNET_ROWS, HRNet
from msresnet.models.msdnet import MSDNET_CIFAR_ROWS, MSDNET_ROWS, MSDNet
from msresnet.models.octave import OCTAVE_ROWS, OctResNet
from msresnet.models.resnet import MultiScaleResNet, ResNetSpec
from msresnet.nn.grammar import (
    INCEPTION_DEPTHWISE,
    LOW_RESOLUTION,
    MIXED_DEPTHWISE,
    ONLINE,
    ONLINE_LEAN,
    SELECTIVE,
    SELECTIVE_SPLIT,
    pyramid,
    radix,
    res2net,
)

CIFAR = Config(num_classes=10, img_size=(32, 32))
CIFAR100 = CIFAR._replace(num_classes=100)
GREY = Config(num_classes=10, in_chans=1, img_size=(28, 28))

R10 = ResNetSpec((1, 1, 1, 1))
R18 = ResNetSpec((2, 2, 2, 2))
R34 = ResNetSpec((3, 4, 6, 3))
R14, R26, R50 = (replace(row, block="bottleneck") for row in (R10, R18, R34))
R101, R152 = replace(R50, depths=(3, 4, 23, 3)), replace(R50, depths=(3, 8, 36, 3))
D: dict[str, Any] = {"stem": "deep", "projection": "avg_conv"}

RESNET = {
    "resnet18": R18,
    "resnet34": R34,
    "resnet26": R26,
    "resnet50": R50,
    "resnet101": R101,
    "resnet152": R152,
}
RESNET_D = {
    "resnet18d": replace(R18, **D),
    "resnet34d": replace(R34, **D),
    "resnet26d": replace(R26, **D),
    "resnet50d": replace(R50, **D),
    "resnet101d": replace(R101, **D),
    "resnet152d": replace(R152, **D),
}
WIDE = {
    "wide_resnet50_2": replace(R50, base_width=128),
    "wide_resnet101_2": replace(R101, base_width=128),
}
PREACT = {
    "resnetv2_18": replace(R18, block="preact_basic"),
    "resnetv2_34": replace(R34, block="preact_basic"),
    "resnetv2_50": replace(R50, block="preact_bottleneck"),
    "resnetv2_101": replace(R101, block="preact_bottleneck"),
    "resnetv2_152": replace(R152, block="preact_bottleneck"),
}
RESNEXT = {
    "resnext50_32x4d": replace(R50, cardinality=32, base_width=4),
    "resnext50d_32x4d": replace(R50, cardinality=32, base_width=4, **D),
    "resnext101_32x4d": replace(R101, cardinality=32, base_width=4),
    "resnext101_32x8d": replace(R101, cardinality=32, base_width=8),
    "resnext101_64x4d": replace(R101, cardinality=64, base_width=4),
}
SENET = {
    "seresnet18": replace(R18, squeeze=True),
    "seresnet34": replace(R34, squeeze=True),
    "seresnet50": replace(R50, squeeze=True),
    "seresnet101": replace(R101, squeeze=True),
    "seresnet152": replace(R152, squeeze=True),
    "seresnext50_32x4d": replace(R50, cardinality=32, base_width=4, squeeze=True),
    "seresnext101_32x4d": replace(R101, cardinality=32, base_width=4, squeeze=True),
}
BLURPOOL = {
    "resnetblur18": replace(R18, downsampling="blur"),
    "resnetblur50": replace(R50, downsampling="blur"),
    "resnetblur50d": replace(R50, downsampling="blur", **D),
    "resnetblur101d": replace(R101, downsampling="blur", **D),
    "resnetaa34d": replace(R34, downsampling="avg", **D),
    "resnetaa50": replace(R50, downsampling="avg"),
    "resnetaa50d": replace(R50, downsampling="avg", **D),
    "resnetaa101d": replace(R101, downsampling="avg", **D),
}


def _res2(row: ResNetSpec, width: int, scale: int, **more: Any) -> ResNetSpec:
    return replace(row, operator=res2net(scale), base_width=width, scale=scale, **more)


RES2NET = {
    "res2net50_26w_4s": _res2(R50, 26, 4),
    "res2net50_14w_8s": _res2(R50, 14, 8),
    "res2net50_48w_2s": _res2(R50, 48, 2),
    "res2net50_26w_6s": _res2(R50, 26, 6),
    "res2net50_26w_8s": _res2(R50, 26, 8),
    "res2net50_18w_4s": _res2(R50, 18, 4),
    "res2net101_26w_4s": _res2(R101, 26, 4),
    "res2net50d": _res2(R50, 26, 4, **D),
    "res2net101d": _res2(R101, 26, 4, **D),
    "res2next50": _res2(R50, 4, 4, cardinality=8),
}
SKNET = {
    "skresnet18": replace(R18, operator=SELECTIVE_SPLIT),
    "skresnet34": replace(R34, operator=SELECTIVE_SPLIT),
    "skresnet50": replace(R50, operator=replace(SELECTIVE_SPLIT, reduction=1 / 16, divisor=8)),
    "skresnet50d": replace(R50, operator=replace(SELECTIVE_SPLIT, reduction=1 / 16, divisor=8), **D),
    "skresnext50_32x4d": replace(R50, operator=replace(SELECTIVE, divisor=32), cardinality=32, base_width=4),
    "skresnext101_32x4d": replace(R101, operator=replace(SELECTIVE, divisor=32), cardinality=32, base_width=4),
}


def _resnest(row: ResNetSpec, splits: int = 2, **more: Any) -> ResNetSpec:
    return replace(row, operator=radix(splits), **{**D, "downsampling": "avg3", **more})


RESNEST = {
    "resnest14d": _resnest(R14),
    "resnest26d": _resnest(R26),
    "resnest50d": _resnest(R50),
    "resnest101e": _resnest(R101, stem_width=128),
    "resnest200e": _resnest(replace(R50, depths=(3, 24, 36, 3)), stem_width=128),
    "resnest269e": _resnest(replace(R50, depths=(3, 30, 48, 8)), stem_width=128),
    "resnest50d_4s2x40d": _resnest(R50, 4, cardinality=2, base_width=40, downsampling="avg3_before"),
    "resnest50d_1s4x24d": _resnest(R50, 1, cardinality=4, base_width=24, downsampling="avg3_before"),
}


PYCONV_GROUPS = ((1, 4, 8, 16), (1, 4, 8), (1, 4), (1,))
PYCONV_HG_GROUPS = ((32, 32, 32, 32), (32, 64, 64), (32, 64), (32,))


def _pyconv(row: ResNetSpec, groups: tuple[tuple[int, ...], ...] = PYCONV_GROUPS, **more: Any) -> ResNetSpec:
    """Fewer, smaller kernels as the maps get smaller: 9, 7, 5 and 3 pixels at most."""
    operators = tuple(pyramid(each) for each in groups)
    return replace(
        row, operator=operators, stem="unpooled", strides=(2, 2, 2, 2), projection="max_conv", **more
    )  # fmt: skip


PYCONV = {
    "pyconvresnet50": _pyconv(R50),
    "pyconvresnet101": _pyconv(R101),
    "pyconvresnet152": _pyconv(R152),
    "pyconvhgresnet50": _pyconv(R50, PYCONV_HG_GROUPS, base_width=128),
    "pyconvhgresnet101": _pyconv(R101, PYCONV_HG_GROUPS, base_width=128),
}
SCALENET = {
    "scalenet50": replace(R50, operator=LOW_RESOLUTION),
    "scalenet101": replace(R101, operator=LOW_RESOLUTION),
    "scalenet152": replace(R152, operator=LOW_RESOLUTION),
}
ELASTIC = {
    "elastic_resnext50_32x4d": replace(R50, depths=(6, 8, 5, 3), block="elastic", cardinality=32, base_width=4),
    "elastic_resnext101_32x4d": replace(R50, depths=(12, 14, 20, 3), block="elastic", cardinality=32, base_width=4),
}
DEPTHWISE = {
    "mixed_resnet50": replace(R50, operator=MIXED_DEPTHWISE),
    "inception_resnet50": replace(R50, operator=INCEPTION_DEPTHWISE),
}

# Networks for 32-pixel images: three stages, 3x3 stride 1 before them.
_C = ResNetSpec((3, 3, 3), (16, 32, 64), stem="small", stem_width=16, projection="pad")
RESNET_CIFAR = {f"resnet{6 * n + 2}": replace(_C, depths=(n,) * 3) for n in (3, 5, 7, 9, 18)}
_W = replace(_C, block="preact_basic", projection="conv1x1")
WIDE_CIFAR = {
    "wide_resnet16_8": replace(_W, depths=(2, 2, 2), widths=(128, 256, 512)),
    "wide_resnet28_10": replace(_W, depths=(4, 4, 4), widths=(160, 320, 640)),
    "wide_resnet40_4": replace(_W, depths=(6, 6, 6), widths=(64, 128, 256)),
}
_R = replace(_C, projection="conv1x1", shortcut_levels=3, gate="conv")
ROR = {f"ror3_{6 * n + 8}": replace(_R, depths=(n,) * 3) for n in (8, 17, 26)}
_X = ResNetSpec((3, 3, 3), (64, 128, 256), block="bottleneck", stem="small")
RESNEXT_CIFAR = {
    "resnext29_8x64d": replace(_X, cardinality=8),
    "resnext29_16x64d": replace(_X, cardinality=16),
    "resnext29_16x32d": replace(_X, cardinality=16, base_width=32),
}
RES2NEXT_CIFAR = {
    "res2next29_6c_24w_4s": _res2(_X, 24, 4, cardinality=6),
    "res2next29_8c_25w_4s": _res2(_X, 25, 4, cardinality=8),
    "res2next29_6c_24w_6s": _res2(_X, 24, 6, cardinality=6),
    "seres2next29_6c_24w_6s": _res2(_X, 24, 6, cardinality=6, squeeze=True),
}

# The house family: several scales in each block while training, one convolution after folding; the stem follows the
# image's size; bottlenecks are an eighth narrower than ResNet's. What was compared, and what lost, stands in
# docs/decisions.md.
_H = ResNetSpec((1, 1, 1, 1), operator=ONLINE, stem=None)
HOUSE = {
    "msresnet10": _H,
    "msresnet18": replace(_H, depths=R18.depths),
    "msresnet34": replace(_H, depths=R34.depths),
    "msresnet50": replace(_H, depths=R50.depths, block="bottleneck", base_width=56),
    "msresnet101": replace(_H, depths=R101.depths, block="bottleneck", base_width=56),
}
# At most as many parameters as the article's network (110,474), for grey images of 28 pixels.
MICRO = {
    "msresnet_micro": replace(
        _H,
        depths=(1, 1, 1),
        widths=(24, 40, 64),
        strides=(2, 2, 1),
        operator=ONLINE_LEAN,
        stem="small",
        stem_width=16,
        pool="avgmax",
    ),
}

FAMILIES = (
    Family("msresnet", "2204.00826", MultiScaleResNet, HOUSE),
    Family("msresnet", "2204.00826", MultiScaleResNet, MICRO, GREY),
    Family("ResNet", "1512.03385", MultiScaleResNet, RESNET),
    Family("ResNet", "1512.03385", MultiScaleResNet, RESNET_CIFAR, CIFAR),
    Family("ResNet-D", "1812.01187", MultiScaleResNet, RESNET_D),
    Family("Wide ResNet", "1605.07146", MultiScaleResNet, WIDE),
    Family("Wide ResNet", "1605.07146", MultiScaleResNet, WIDE_CIFAR, CIFAR),
    Family("Pre-activation ResNet", "1603.05027", MultiScaleResNet, PREACT),
    Family("ResNeXt", "1611.05431", MultiScaleResNet, RESNEXT),
    Family("ResNeXt", "1611.05431", MultiScaleResNet, RESNEXT_CIFAR, CIFAR),
    Family("SENet", "1709.01507", MultiScaleResNet, SENET),
    Family("Anti-aliased ResNet", "1904.11486", MultiScaleResNet, BLURPOOL),
    Family("Res2Net", "1904.01169", MultiScaleResNet, RES2NET),
    Family("Res2Net", "1904.01169", MultiScaleResNet, RES2NEXT_CIFAR, CIFAR100),
    Family("SKNet", "1903.06586", MultiScaleResNet, SKNET),
    Family("ResNeSt", "2004.08955", MultiScaleResNet, RESNEST),
    Family("PyConvResNet", "2006.11538", MultiScaleResNet, PYCONV),
    Family("ScaleNet", "1904.09460", MultiScaleResNet, SCALENET),
    Family("Elastic", "1812.05262", MultiScaleResNet, ELASTIC),
    Family("Depthwise operators", "1907.09595, 2303.16900", MultiScaleResNet, DEPTHWISE),
    Family("RoR", "1608.02908", MultiScaleResNet, ROR, CIFAR),
    Family("Big-Little Net", "1807.03848", BigLittleNet, BIG_LITTLE_ROWS),
    Family("OctResNet", "1904.05049", OctResNet, OCTAVE_ROWS),
    Family("HRNet", "1908.07919", HRNet, HRNET_ROWS),
    Family("DLA", "1707.06484", DLA, DLA_ROWS),
    Family("MSDNet", "1703.09844", MSDNet, MSDNET_ROWS),
    Family("MSDNet", "1703.09844", MSDNet, MSDNET_CIFAR_ROWS, CIFAR),
    Family("article", "", ArticleCNN, {"article_cnn": ArticleSpec()}, GREY),
)
