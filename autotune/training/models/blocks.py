"""Residual blocks whose features a height threshold shifts and scales."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autotune.training.optimization.drop_path import DropPath


class ThresholdCode(nn.Module):
    """Turns heights in metres into a code that every block reads.

    Args:
        width: Numbers of the code.
        scale_m: Height that counts as one: thresholds come near 1, where small networks learn well.
    """

    def __init__(self, width: int, scale_m: float) -> None:
        super().__init__()
        self.scale_m = scale_m
        self.layers = nn.Sequential(nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, thresholds: Tensor) -> Tensor:
        """Give the codes `(N, width)` of thresholds `(N,)` in metres."""
        share = thresholds / self.scale_m
        # the logarithm beside it tells low thresholds apart as well as high ones
        code: Tensor = self.layers(torch.stack([share, share.log1p()], dim=1))
        return code


class ConditionedBlock(nn.Module):
    """Two convolutions beside a shortcut, their features scaled and shifted by a code.

    `shortcut(x) + DropPath(conv(relu(film(norm(conv(x))))))` and a last activation, with `film(z) = (1 + a) z + b` and
    `a`, `b` linear in the code (Perez et al. 2018, arXiv:1709.07871). It begins at the identity, `a = b = 0`.

    Args:
        channels: Channels that come in.
        width: Channels that go out.
        code: Numbers of the code.
        dropout_rate: Rate at which whole channels of the branch are set to 0.
        drop_prob: How often the branch is left out.
    """

    def __init__(
        self, channels: int, width: int, *, code: int, dropout_rate: float = 0.0, drop_prob: float = 0.0
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.film = nn.Linear(code, 2 * width)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        self.dropout = nn.Dropout2d(dropout_rate)
        self.second = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.drop_path = DropPath(drop_prob)
        self.shortcut = nn.Identity() if channels == width else nn.Conv2d(channels, width, kernel_size=1)

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        """Give features `(N, width, H, W)` of features `(N, channels, H, W)` and codes `(N, code)`."""
        scale, shift = self.film(code)[:, :, None, None].chunk(2, dim=1)
        branch = torch.relu(self.first_norm(self.first(features)) * (1 + scale) + shift)
        branch = self.second_norm(self.second(self.dropout(branch)))
        return torch.relu(self.shortcut(features) + self.drop_path(branch))


__all__ = ["ConditionedBlock", "ThresholdCode"]
