"""A network as a tree of its modules, with the shapes that pass through them. Counted on the meta device."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from msresnet.models.base import ImageModel
from msresnet.nn.folding import fold
from msresnet.nn.operators import CascadeConv2d, MultiScaleConv2d, RadixConv2d


@dataclass
class Node:
    """A module: its name in its parent, its class, the shape it gives (C, H, W), its parameters, and its parts."""

    name: str
    kind: str
    shape: str
    params: int
    parts: list[Node] = field(default_factory=list)

    def line(self) -> str:
        """The node in one line."""
        return "  ".join(text for text in (self.name, self.kind, self.shape, f"{self.params:,}") if text)

    def same_as(self, other: Node) -> bool:
        """Whether another node differs by name alone."""
        mine, theirs = (self.kind, self.shape, self.params), (other.kind, other.shape, other.params)
        pairs = zip(self.parts, other.parts, strict=False)
        return mine == theirs and len(self.parts) == len(other.parts) and all(a.same_as(b) for a, b in pairs)


def tree(name: str, model: ImageModel, size: tuple[int, int], folded: bool = False) -> Node:
    """The modules of a network that have weights, in their order, for an image of (H, W) pixels."""
    model = copy.deepcopy(model).to("meta").eval()
    if folded:
        model = fold(model)
    shapes: dict[nn.Module, str] = {}

    def note(module: nn.Module, _given: Any, output: Any) -> None:
        shapes[module] = _shape(output)

    handles = [module.register_forward_hook(note) for module in model.modules()]
    with torch.no_grad():
        model(torch.empty(1, model.in_chans, *size, device="meta"), exits=model.num_exits > 1)
    for handle in handles:
        handle.remove()
    root = _node(name, model, shapes)
    assert root is not None
    return root


def _node(name: str, module: nn.Module, shapes: dict[nn.Module, str]) -> Node | None:
    params = sum(p.numel() for p in module.parameters())
    if not params:
        return None
    # An operator's branches stand in its own line.
    children = () if isinstance(module, MultiScaleConv2d) else module.named_children()
    parts = [_node(child_name, child, shapes) for child_name, child in children]
    return Node(name, _kind(module), shapes.get(module, ""), params, _grouped([p for p in parts if p is not None]))


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.Conv2d):
        text = f"Conv2d {module.kernel_size[0]}x{module.kernel_size[1]}"
        text += f" /{module.stride[0]}" if module.stride[0] > 1 else ""
        return text + (f" groups {module.groups}" if module.groups > 1 else "")
    if isinstance(module, MultiScaleConv2d | CascadeConv2d | RadixConv2d):
        stride = module.geometry.stride
        return " + ".join(branch.label for branch in module.branches) + (f" /{stride}" if stride > 1 else "")
    return "" if isinstance(module, nn.Sequential | nn.ModuleList) else type(module).__name__


def _shape(output: Any) -> str:
    """(C, H, W), or (C,); several maps side by side."""
    if isinstance(output, Tensor):
        return "x".join(map(str, output.shape[1:]))
    return ", ".join(_shape(part) for part in output if part is not None)


def _grouped(nodes: list[Node]) -> list[Node]:
    """Equal neighbours as one: 1 to 3."""
    grouped: list[Node] = []
    first: Node | None = None
    for node in nodes:
        if first is not None and node.same_as(first):
            grouped[-1] = replace(first, name=f"{first.name} to {node.name}", kind=f"each {first.kind}".rstrip())
            continue
        first = node
        grouped.append(node)
    return grouped
