"""Stochastic depth: whole blocks left out at random in training."""

from __future__ import annotations

from torch import Tensor, nn

from autotune.errors import SpecError


class DropPath(nn.Module):
    """Leaves the branch of a block out for some samples, and scales it up for the rest (Huang et al. 2016).

    `x + DropPath(p)(branch(x))` has the expectation of `x + branch(x)`, so nothing is to change for evaluation
    (arXiv:1603.09382, with the scaling in training as dropout has it).

    Args:
        drop_prob: How often a sample's branch is left out, 0 to under 1.

    Raises:
        SpecError: The probability lies outside.
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    @property
    def drop_prob(self) -> float:
        """How often a sample's branch is left out."""
        return self._drop_prob

    @drop_prob.setter
    def drop_prob(self, drop_prob: float) -> None:
        if not 0 <= drop_prob < 1:
            raise SpecError(f"drop_prob is 0 to under 1, got {drop_prob!r}")
        self._drop_prob = float(drop_prob)

    def forward(self, branch: Tensor) -> Tensor:
        """Give the branch `(N, ...)`, 0 for samples that leave it out; as it is outside training."""
        if not self.training or self.drop_prob == 0:
            return branch
        kept = 1 - self.drop_prob
        mask = branch.new_empty(len(branch), *([1] * (branch.ndim - 1))).bernoulli_(kept)
        return branch * (mask / kept)

    def extra_repr(self) -> str:
        """Show the probability."""
        return f"drop_prob={self.drop_prob:g}"


__all__ = ["DropPath"]
