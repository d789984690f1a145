"""What every network offers, whatever its family: timm's methods, so that code written for timm runs here.

A subclass declares its stages in `feature_info` and gives `forward_stages`; the rest stands here once.
B batch, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from msresnet.errors import UsageError
from msresnet.nn.heads import ExitHead, GlobalPool, Pooling, multiplier


@dataclass(frozen=True)
class StageInfo:
    """One stage's map: channels, how far it divides the resolution, and the module that makes it."""

    num_chs: int
    reduction: int
    module: str

    def __getitem__(self, key: str) -> Any:
        """A field by name, as timm spells it: info['num_chs']."""
        return asdict(self)[key]


class FeatureInfo(Sequence[StageInfo]):
    """A network's stages, fine to coarse, with timm's methods."""

    def __init__(self, stages: Sequence[StageInfo], out_indices: Sequence[int] | None = None) -> None:
        self.stages = tuple(stages)
        self.out_indices = tuple(range(len(self.stages)) if out_indices is None else out_indices)

    def __getitem__(self, index: Any) -> Any:
        return self.stages[index]

    def __len__(self) -> int:
        return len(self.stages)

    def __repr__(self) -> str:
        return f"FeatureInfo({list(self.stages)}, out_indices={self.out_indices})"

    def get_dicts(self) -> list[dict[str, Any]]:
        """The chosen stages as plain dictionaries."""
        return [asdict(self.stages[i]) for i in self.out_indices]

    def channels(self, index: int | None = None) -> Any:
        """Channels of each chosen map, or of one stage."""
        return self._each("num_chs", index)

    def reduction(self, index: int | None = None) -> Any:
        """How far each chosen map, or one stage's, divides the image's resolution."""
        return self._each("reduction", index)

    def module_name(self, index: int | None = None) -> Any:
        """The module that makes each chosen map, or one stage's."""
        return self._each("module", index)

    def _each(self, name: str, index: int | None) -> Any:
        return self.stages[index][name] if index is not None else [self.stages[i][name] for i in self.out_indices]


class Config(NamedTuple):
    """Arguments that all networks share.

    Args:
        num_classes: K; 0 leaves the classifier out.
        in_chans: channels of the image.
        img_size: (H, W) in pixels that the network is meant for; most take any other as well.
        global_pool: how the last map becomes a vector; None is the family's own way.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0.
    """

    num_classes: int = 1000
    in_chans: int = 3
    img_size: tuple[int, int] = (224, 224)
    global_pool: Pooling | None = None
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0


MOST_OUTPUTS = 10**7
"""Classes, or channels of an image: more would only be a mistake."""


def check_config(config: Config) -> None:
    """Raise UsageError for what no network can be."""
    counts = {"num_classes": (config.num_classes, 0), "in_chans": (config.in_chans, 1)}
    for name, (value, least) in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST_OUTPUTS:
            what, why = f"the model argument {name}={value!r}", f"a whole number from {least}"
            raise UsageError(what, why=why, hint=f"{name}={max(least, 3)}")
    for name in ("drop_rate", "drop_path_rate"):
        rate = getattr(config, name)
        if not isinstance(rate, (int, float)) or not 0 <= rate < 1:
            what = f"the model argument {name}={rate!r}"
            raise UsageError(what, why="a probability from 0, under 1", hint=f"{name}=0.1")
    if min(config.img_size) < 1:
        what = f"the model argument img_size={config.img_size}"
        raise UsageError(what, why="pixels, from 1", hint="img_size=[224,224]")


class ImageModel(nn.Module, ABC):
    """A network from images (B, C, H, W) to logits (B, K).

    Attributes:
        spec: the row of data it was built from.
        feature_info: its stages, fine to coarse.
        num_features: channels of the last map.
        min_size: the smallest image side in pixels.
        num_exits: places where an answer can be had; the last is the whole network.
        strides: where answers are given at places of maps, how far each map divides the resolution, fine to coarse.
    """

    spec: Any
    feature_info: FeatureInfo
    num_features: int
    min_size: int = 1
    num_exits: int = 1
    strides: tuple[int, ...] = ()
    classifier_name: ClassVar[str] = "fc"
    """Name of the last linear layer, in the module and in the state dict."""
    convolutional_classifier: bool = False
    """Whether that layer is a 1x1 convolution, as in some published weights."""
    unused_weights: str = ""
    """Pattern of published tensors that stand in some files and that the network has no use for."""
    optional_weights: str = ""
    """Pattern of tensors that a network may lack: they start untrained where weights have none, else are left."""
    tail: tuple[str, ...] = ()
    """Modules that only logits need, beside pooling and classifier: the stages' maps do without them."""
    attribution_layer: str = ""
    """Path of the module whose map explains the decision best (Grad-CAM's layer)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        check_config(config)
        self.config = config
        self.num_classes, self.in_chans = config.num_classes, config.in_chans
        self.drop_rate = config.drop_rate
        self.grad_checkpointing = False

    def add_classifier(self) -> None:
        """The pooling, the dropout and the last layer, as `config` asks; call it when `num_features` is set."""
        self.global_pool = GlobalPool("avg" if self.config.global_pool is None else self.config.global_pool)
        self.drop = nn.Dropout(self.drop_rate)
        self.add_module(self.classifier_name, self._linear(self.num_classes))

    def _linear(self, num_classes: int) -> nn.Module:
        if not num_classes:
            return nn.Identity()
        if self.global_pool.kind == "" and not self.convolutional_classifier:
            raise UsageError("global_pool='' leaves a map, which this classifier cannot read", hint="num_classes=0")
        if self.convolutional_classifier:
            return nn.Conv2d(self.head_hidden_size, num_classes, 1)
        return nn.Linear(self.head_hidden_size, num_classes)

    def classify(self, x: Tensor) -> Tensor:
        """The pooled vector (B, C') -> logits (B, K); a 1x1 convolution takes an unpooled map (B, C, h, w) as well."""
        classifier = self.get_classifier()
        if isinstance(classifier, nn.Conv2d) and x.ndim == 2:
            return classifier(x[..., None, None]).flatten(1)  # type: ignore[no-any-return]
        return classifier(x)  # type: ignore[no-any-return]

    @property
    def head_hidden_size(self) -> int:
        """Length of the pooled vector."""
        return self.num_features * multiplier(self.global_pool.kind)

    @abstractmethod
    def forward_stages(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        """The map of each stage, fine to coarse, up to and with index `last` (None: all)."""

    def stage_module(self, index: int) -> str:
        """Path of a module on the way to the answer that makes a stage's map, or the parts that it is joined from."""
        return self.feature_info[index].module  # type: ignore[no-any-return]

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the last map, before pooling (B, num_features, h, w)."""
        return self.forward_stages(x)[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map (B, C, h, w) -> logits (B, K), or the pooled vector (B, C')."""
        x = self.drop(self.global_pool(x))
        return x if pre_logits else self.classify(x)

    def forward(self, x: Tensor, exits: bool = False) -> Tensor | list[Tensor]:
        """(B, C, H, W) -> (B, K); with `exits` the answers at every exit, the last one last."""
        return self.forward_exits(x) if exits else self.forward_head(self.forward_features(x))

    def forward_exits(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> the logits (B, K) of each exit."""
        state, answers = [x], []
        for i in range(self.num_exits):
            state, logits = self.advance(state, i)
            answers.append(logits)
        return answers

    def advance(self, state: list[Tensor], exit_index: int) -> tuple[list[Tensor], Tensor]:
        """Run on to an exit: what the next one needs, and this one's logits (B, K).

        `state` is [images] for exit 0, then what the call before gave. Each of its tensors begins with the batch, so
        samples that are answered can be taken out of it.
        """
        return [], self.forward_head(self.forward_features(state[0]))

    def forward_intermediates(  # noqa: PLR0917 - in the order of timm
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Chosen stages' maps, and the last one unless `intermediates_only`.

        Args:
            x: (B, C, H, W).
            indices: which of `feature_info`; None all, an int the last n, negatives count from the end.
            norm: must be False: the last map's norm belongs to `forward_features`.
            stop_early: do not run what comes after the last chosen stage.
            output_fmt: 'NCHW', the only one.

        Raises UsageError for a stage that does not exist, and for a norm or an output_fmt that are not available.
        """
        if norm or output_fmt != "NCHW":
            why = "maps are (B, C, H, W), as their stages give them; forward_features gives the normalised last one"
            raise UsageError(f"norm={norm}, output_fmt={output_fmt!r}", why=why, hint="leave both out")
        if stop_early and not intermediates_only:
            raise UsageError("stop_early leaves no last map", hint="intermediates_only=True")
        chosen = self.feature_indices(indices)
        maps = self.forward_stages(x, max(chosen) if stop_early else None)
        picked = [maps[i] for i in chosen]
        return picked if intermediates_only else (self._final(maps), picked)

    def _final(self, maps: list[Tensor]) -> Tensor:
        """What `forward_features` gives, from the stages' maps."""
        return maps[-1]

    @property
    def used_stages(self) -> int:
        """How many stages the answer depends on, from the image on."""
        return len(self.feature_info)

    @property
    def default_indices(self) -> list[int]:
        """The stages that `features_only` gives unless told otherwise."""
        return list(range(len(self.feature_info)))

    def feature_indices(self, indices: int | Sequence[int] | None) -> list[int]:
        """Plain indices into `feature_info`. Raises UsageError for one that does not exist."""
        n = len(self.feature_info)
        if indices is None:
            return list(range(n))
        wanted = range(n - indices, n) if isinstance(indices, int) else indices
        plain = [i + n if isinstance(i, int) and i < 0 else i for i in wanted]
        if not plain or not all(isinstance(i, int) and 0 <= i < n for i in plain):
            why, hint = f"the network has stages 0 to {n - 1}", "out_indices=(1, -1), or an int: the last n"
            raise UsageError(f"stage {indices!r} does not exist", why=why, hint=hint)
        return plain

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.get_submodule(self.classifier_name)

    def reset_classifier(self, num_classes: int, global_pool: Pooling | None = None) -> None:
        """A fresh classifier for other classes (0: none), perhaps with another pooling."""
        if global_pool is not None:
            self.global_pool = GlobalPool(global_pool)
        check_config(self.config._replace(num_classes=num_classes))
        self.num_classes = num_classes
        self.config = self.config._replace(num_classes=num_classes, global_pool=self.global_pool.kind)
        self.add_module(self.classifier_name, self._linear(num_classes))
        for module in self.modules():
            if isinstance(module, ExitHead):
                module.reset(num_classes)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory: compute each stage again in the backward pass instead of keeping its maps."""
        self.grad_checkpointing = enable

    def run_stage(self, stage: nn.Module, x: Any) -> Any:
        """A stage's map, or its maps where several resolutions run side by side; checkpointed when asked for."""
        if self.grad_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(stage, x, use_reentrant=False, context_fn=partial(_contexts, stage))
        return stage(x)

    @abstractmethod
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameter names into layers, first to last (timm's layer-wise decay)."""


def _contexts(stage: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What a checkpointed stage runs in, the first time and again in the backward pass."""
    return nullcontext(), _statistics_kept(stage)


@contextmanager
def _statistics_kept(stage: nn.Module) -> Iterator[None]:
    """While a checkpointed stage runs again, its BN statistics must not count the batch a second time."""
    norms = [m for m in stage.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [(norm.momentum, int(norm.num_batches_tracked or 0)) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.fill_(count)


@dataclass(frozen=True)
class Family:
    """Networks of one paper: a class, and a row of data for each of its published members.

    Args:
        title: the family's name for people.
        paper: arXiv number.
        network: called with a row and a `Config`.
        members: a row for each name; a row is a frozen dataclass whose fields `create_model` takes as arguments, and
            which refuses with a UsageError what cannot be built.
        defaults: what the members' `Config` starts from (for networks meant for small images).
    """

    title: str
    paper: str
    network: Callable[[Any, Config], ImageModel]
    members: Mapping[str, Any]
    defaults: Config = field(default_factory=Config)


class FeatureExtractor(nn.Module):
    """A network that returns its stages' maps instead of logits (`features_only=True`); tensors keep their names."""

    def __init__(self, model: ImageModel, out_indices: int | Sequence[int] | None) -> None:
        super().__init__()
        model.reset_classifier(0)
        self.model = model
        chosen = model.default_indices if out_indices is None else out_indices
        self.indices = model.feature_indices(chosen)
        self.feature_info = FeatureInfo(model.feature_info, self.indices)
        self.register_state_dict_post_hook(_without_owner)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_owner)  # type: ignore[no-untyped-call]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """As the network's own."""
        self.model.set_grad_checkpointing(enable)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> one (B, C_i, H_i, W_i) for each chosen stage."""
        maps = self.model.forward_stages(x, max(self.indices))
        return [maps[i] for i in self.indices]


def _without_owner(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    """Tensors by the names that they have in the network itself."""
    own = f"{prefix}model."
    for name in [name for name in state if name.startswith(own)]:
        state[prefix + name.removeprefix(own)] = state.pop(name)


def _with_owner(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """What `_without_owner` did, undone."""
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}model.{name.removeprefix(prefix)}"] = state.pop(name)
