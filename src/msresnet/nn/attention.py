"""Weights that a network computes from its own maps: over channels, or over branches.

B batch, K branches, C channels, H and W pixels.
"""

from __future__ import annotations

from torch import Tensor, nn

from msresnet.nn.fusion import make_divisible


class SqueezeExcite(nn.Module):
    """Each channel weighted by a sigmoid of all channels' means (SENet, arXiv 1709.01507). Keys are timm's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = make_divisible(channels / 16, 8)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.act = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        weights: Tensor = self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()
        return x * weights


class SoftmaxFusion(nn.Module):
    """Sum of branches weighted per channel by a softmax over the branches (SKNet, arXiv 1903.06586, eq. 1-6).

    Takes (B, K, C, H, W), gives (B, C, H, W).
    """

    fold_pairs = (("fc_reduce", "bn"),)

    def __init__(self, channels: int, branches: int, reduction: float = 1 / 16, divisor: int = 8) -> None:
        super().__init__()
        hidden = make_divisible(channels * reduction, divisor)
        self.branches = branches
        self.fc_reduce = nn.Conv2d(channels, hidden, 1, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.act = nn.ReLU(inplace=True)
        self.fc_select = nn.Conv2d(hidden, channels * branches, 1, bias=False)

    def weights(self, x: Tensor) -> Tensor:
        """(B, K, C, H, W) -> each branch's weight (B, K, C, 1, 1)."""
        pooled = x.sum(1).mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        logits = self.fc_select(self.act(self.bn(self.fc_reduce(pooled))))
        return logits.view(x.shape[0], self.branches, x.shape[2], 1, 1).softmax(1)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, C, H, W) -> (B, C, H, W)."""
        return (x * self.weights(x)).sum(1)
