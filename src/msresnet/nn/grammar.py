"""The grammar of multi-scale operators: what mixes receptive fields inside a block, as data.

An operator is four choices (branches, split, connection, merge), held by `Operator`. Most of the literature is a row:

    plain, ResNeXt      one 3x3
    Res2Net             channels split, cascade with adds, concatenation         arXiv 1904.01169
    PyConv              parallel kernels with growing groups, concatenation      arXiv 2006.11538
    MixConv             channels split, depthwise kernels, concatenation         arXiv 1907.09595
    InceptionNeXt       channels split, identity and depthwise 3x3, 1x11, 11x1   arXiv 2303.16900
    SKNet               parallel receptive fields, softmax-weighted sum          arXiv 1903.06586
    ResNeSt             radix groups, softmax-weighted sum                       arXiv 2004.08955
    ScaleNet, Elastic   branches at lower resolution, concatenation or sum       arXiv 1904.09460, 1812.05262
    re-parameterised    linear branches, each with BN, summed: one convolution   arXiv 2101.03697, 2103.13425
    online              linear branches, one BN after them: one convolution      arXiv 2204.00826
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from msresnet.errors import UsageError
from msresnet.registry import Registry


def check_choices(kind: str, data: Any, allowed: dict[str, tuple[str, ...]]) -> None:
    """Raise UsageError for a field that holds none of its words."""
    for name, words in allowed.items():
        if getattr(data, name) not in words:
            raise UsageError(f"{kind}({name}={getattr(data, name)!r})", hint=f"one of {', '.join(words)}")


@dataclass(frozen=True)
class Branch:
    """One receptive field: a convolution, an identity, or a 1x1 convolution that is then averaged."""

    kernel: int | tuple[int, int] = 3
    dilation: int = 1
    groups: int | Literal["depthwise"] = 1
    share: int = 1
    """Share of the channels, relative to the other branches (only where channels are split or joined)."""
    down: int = 1
    """The branch works at 1/down of the resolution."""
    pool: Literal["avg", "max"] = "avg"
    """How it gets there."""
    kind: Literal["conv", "identity", "avg_pool"] = "conv"

    def __post_init__(self) -> None:
        """Refuse, with a UsageError, what is not a branch."""
        check_choices("Branch", self, {"pool": ("avg", "max"), "kind": ("conv", "identity", "avg_pool")})
        numbers = {"kernel": self.size, "dilation": (self.dilation,), "share": (self.share,), "down": (self.down,)}
        for name, values in numbers.items():
            odd = name == "kernel"
            if not all(isinstance(v, int) and v > 0 and (v % 2 or not odd) for v in values):
                why = "kernels have odd sides, so that a map keeps its size" if odd else "a whole number from 1"
                raise UsageError(f"Branch({name}={getattr(self, name)!r})", why=why, hint=f"Branch({name}=3)")
        if self.groups != "depthwise" and not (isinstance(self.groups, int) and self.groups > 0):
            raise UsageError(f"Branch(groups={self.groups!r})", hint="a whole number from 1, or 'depthwise'")

    @property
    def size(self) -> tuple[int, int]:
        """Kernel height and width in pixels, before dilation."""
        return self.kernel if isinstance(self.kernel, tuple) else (self.kernel, self.kernel)

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width in pixels that the branch looks at."""
        if self.kind == "identity":
            return (1, 1)
        return tuple(((k - 1) * self.dilation + 1) * self.down for k in self.size)  # type: ignore[return-value]

    @property
    def label(self) -> str:
        """Name for pictures and tables, such as '3x3' or '3x3 at 1/2'."""
        if self.kind == "identity":
            return "identity"
        text = f"{self.size[0]}x{self.size[1]}"
        text += " average" if self.kind == "avg_pool" else ""
        text += f" dilated {self.dilation}" if self.dilation > 1 else ""
        return text + (f" at 1/{self.down}" if self.down > 1 else "")


@dataclass(frozen=True)
class Operator:
    """What to look at and how to join it."""

    branches: tuple[Branch, ...] = (Branch(),)
    split: Literal["none", "channels", "radix"] = "none"
    connect: Literal["parallel", "cascade"] = "parallel"
    merge: Literal["concat", "sum", "softmax"] = "concat"
    norm: Literal["after", "branch"] = "after"
    """One BN after the merge (the block's own), or one inside each branch. A linear operator with its BN after the
    merge runs as one convolution from the first training step on: its kernels are summed before the image is touched
    (arXiv 2204.00826)."""
    act: bool = False
    """A ReLU inside each branch (after its BN)."""
    reduction: float = 1 / 16
    """Hidden channels of the attention behind a softmax merge, as a share of the merged ones."""
    divisor: int = 8
    """What the number of those hidden channels is rounded to a multiple of."""
    place: Literal["every", "first", "second"] = "every"
    """Which convolution of a basic block it stands for. One that keeps the width cannot stand first, where the number
    of channels changes; what is costly stands once."""
    module: Callable[[Operator, Any], Any] | None = None
    """Builds the network part from the operator and its geometry, where these choices are not enough to say it."""

    def __post_init__(self) -> None:
        """Refuse, with a UsageError, what is not an operator."""
        if not isinstance(self.branches, tuple) or not self.branches:
            raise UsageError(
                f"Operator({self.branches!r})", hint="a tuple of branches: Operator((Branch(3), Branch(5)))"
            )
        allowed = {
            "split": ("none", "channels", "radix"),
            "connect": ("parallel", "cascade"),
            "merge": ("concat", "sum", "softmax"),
            "norm": ("after", "branch"),
            "place": ("every", "first", "second"),
        }
        check_choices("Operator", self, allowed)

    @property
    def linear(self) -> bool:
        """Whether the whole operator is one convolution in disguise."""
        plain = (self.split, self.connect, self.merge, self.act) == ("none", "parallel", "sum", False)
        return plain and self.module is None and all(b.down == 1 for b in self.branches)

    def with_groups(self, groups: int) -> Operator:
        """The same operator with every full branch split into `groups` (ResNeXt's cardinality)."""
        if groups == 1:
            return self
        return replace(self, branches=tuple(replace(b, groups=groups) if b.groups == 1 else b for b in self.branches))

    def halved(self) -> Operator:
        """The same operator for half the channels: half the groups, so that each keeps its width."""
        fewer = (replace(b, groups=max(1, b.groups // 2)) if isinstance(b.groups, int) else b for b in self.branches)
        return replace(self, branches=tuple(fewer))


PLAIN = Operator()
MIXED_DEPTHWISE = Operator(tuple(Branch(k, groups="depthwise") for k in (3, 5, 7)), split="channels", place="second")
INCEPTION_DEPTHWISE = Operator(
    (Branch(kind="identity", share=5), *(Branch(k, groups="depthwise") for k in (3, (1, 11), (11, 1)))),
    split="channels",
    place="second",
)
SELECTIVE = Operator((Branch(3), Branch(3, dilation=2)), merge="softmax", norm="branch", act=True)
SELECTIVE_SPLIT = replace(SELECTIVE, split="channels", reduction=1 / 8, divisor=16, place="first")
ONLINE = Operator((Branch(3), Branch((1, 3)), Branch((3, 1)), Branch(1)), merge="sum")
ONLINE_LEAN = Operator((Branch(3), Branch(1)), merge="sum")
LOW_RESOLUTION = Operator((Branch(3, share=2), *(Branch(3, down=d, pool="max") for d in (2, 4))))
REPARAMETERISED = Operator(
    (Branch(3), Branch(1), Branch((1, 3)), Branch((3, 1)), Branch(3, kind="avg_pool"), Branch(kind="identity")),
    merge="sum",
    norm="branch",
)


def res2net(scale: int = 4) -> Operator:
    """Res2Net's cascade: `scale` groups of channels, the last of which passes through."""
    branches = (*(Branch(3) for _ in range(max(1, scale - 1))), Branch(kind="identity"))
    cascade = Operator(branches, "channels", "cascade", "concat", "branch", act=True, place="second")
    return cascade if scale > 1 else replace(cascade, branches=branches[:1])


def pyramid(groups: tuple[int, ...] = (1, 4, 8, 16)) -> Operator:
    """PyConv: kernels of 3, 5, 7 and 9 pixels, as many as there are group counts; the largest takes what is left."""
    branches = [Branch(3 + 2 * i, groups=g) for i, g in enumerate(groups)]
    if len(branches) == 3:
        branches[-1] = replace(branches[-1], share=2)  # 1/4, 1/4, 1/2: shares stay powers of two
    return Operator(tuple(branches))


def radix(splits: int = 2) -> Operator:
    """ResNeSt's split attention over `splits` maps of one grouped convolution."""
    return Operator((Branch(3),) * splits, split="radix", merge="softmax", norm="branch", act=True)


OPERATORS: Registry[Operator] = Registry("operator")
for _name, _operator in {
    "plain": PLAIN,
    "res2net": res2net(),
    "pyramid": pyramid(),
    "mixed_depthwise": MIXED_DEPTHWISE,
    "inception_depthwise": INCEPTION_DEPTHWISE,
    "selective": SELECTIVE,
    "selective_split": SELECTIVE_SPLIT,
    "radix": radix(),
    "low_resolution": LOW_RESOLUTION,
    "reparameterised": REPARAMETERISED,
    "online": ONLINE,
    "online_lean": ONLINE_LEAN,
}.items():
    OPERATORS.add(_name, _operator)


def allocate(channels: int, branches: tuple[Branch, ...]) -> list[int]:
    """Channels of each branch, in proportion to their shares; the first takes what is left over.

    Raises UsageError when a branch would get none.
    """
    total = sum(b.share for b in branches)
    widths = [channels * b.share // total for b in branches]
    widths[0] += channels - sum(widths)
    if min(widths) < 1:
        raise UsageError(f"{channels} channels cannot be shared among {len(branches)} branches", hint="a wider model")
    return widths


def receptive_fields(spec: Operator) -> list[tuple[int, int]]:
    """(height, width) in pixels that each branch of an operator sees; a cascade sees more with each step."""
    if spec.connect == "parallel":
        return [b.extent for b in spec.branches]
    seen = [(1, 1)]
    for branch in spec.branches:
        height, width = branch.extent
        seen.append((seen[-1][0] + height - 1, seen[-1][1] + width - 1) if branch.kind == "conv" else (1, 1))
    return seen[1:]
