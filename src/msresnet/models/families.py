"""The models by name, as rows of data. Published sources stand with each family."""

from __future__ import annotations

from dataclasses import replace

from msresnet.models.resnet import ResNetSpec
from msresnet.nn.grammar import ONLINE, ONLINE_LEAN, res2net

# ResNet, arXiv 1512.03385
RESNET = {
    "resnet18": ResNetSpec((2, 2, 2, 2)),
    "resnet34": ResNetSpec((3, 4, 6, 3)),
    "resnet50": ResNetSpec((3, 4, 6, 3), block="bottleneck"),
}

# Res2Net, arXiv 1904.01169: 26 channels in each of 4 scales
RES2NET = {
    "res2net50_26w_4s": replace(RESNET["resnet50"], operator=res2net(4), base_width=26, scale=4),
}

# The house family: several scales in each block while training, one convolution after folding; the stem follows the
# image's size. What was compared, and what lost, stands in docs/decisions.md.
_HOUSE = ResNetSpec((1, 1, 1, 1), operator=ONLINE, stem=None)
HOUSE = {
    "msresnet10": _HOUSE,
    "msresnet18": replace(_HOUSE, depths=(2, 2, 2, 2)),
    "msresnet34": replace(_HOUSE, depths=(3, 4, 6, 3)),
    "msresnet50": replace(_HOUSE, depths=(3, 4, 6, 3), block="bottleneck"),
    # At most as many parameters as the article's network (110,474), for grey images of 28 pixels.
    "msresnet_micro": replace(
        _HOUSE,
        depths=(1, 1, 1),
        widths=(24, 40, 64),
        strides=(2, 2, 1),
        operator=ONLINE_LEAN,
        stem="small",
        stem_width=16,
        pool="avgmax",
    ),
}
