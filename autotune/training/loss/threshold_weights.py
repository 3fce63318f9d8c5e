"""How much a map counts in the loss, by the height threshold that its gaps were found under."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from autotune.errors import SpecError
from autotune.training.heights import places_among


class ThresholdWeights(nn.Module):
    """Looks up the weight of each map of a batch.

    Args:
        weights: Weight of each threshold in metres, both above 0.

    Raises:
        SpecError: There is no weight, or one that is not above 0.
    """

    thresholds: Tensor
    weights: Tensor

    def __init__(self, weights: Mapping[float, float]) -> None:
        super().__init__()
        if not weights or not all(metres > 0 and weight > 0 for metres, weight in weights.items()):
            raise SpecError(f"thresholds and their weights are above 0, and there is at least one, got {dict(weights)}")
        ascending = sorted(weights.items())
        for name, values in zip(("thresholds", "weights"), zip(*ascending, strict=True), strict=True):
            # not in the state: weights follow the configuration, not the checkpoint
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64), persistent=False)

    def forward(self, maps: Tensor, thresholds: Tensor | None) -> Tensor:
        """Give the weight of each map, in a shape that `maps` can be multiplied with.

        Args:
            maps: One value for each map, `(N, C)`.
            thresholds: Metres, `(N,)` of samples or `(N, C)` of maps; None where the channels are the thresholds, in
                ascending order.

        Raises:
            SpecError: A threshold has no weight, or the shapes do not fit.
        """
        if thresholds is None:
            return self._of_channels(maps)
        metres = torch.as_tensor(thresholds, device=maps.device, dtype=torch.float64)
        if metres.shape not in (maps.shape, maps.shape[:1]):
            raise SpecError(
                f"thresholds are metres of samples (N,) or of maps (N, C), got shape {tuple(metres.shape)} for maps "
                f"{tuple(maps.shape)}"
            )
        same = places_among(metres, self.thresholds)
        if not bool(same.any(dim=-1).all()):
            unknown = metres[~same.any(dim=-1)][0].item()
            raise SpecError(
                f"there are weights for the thresholds {self.thresholds.tolist()} m, got a sample of {unknown:g} m; "
                "add it to Config.thresholds, or train without use_threshold_weights"
            )
        found = self.weights.to(maps)[same.to(torch.int8).argmax(dim=-1)]
        return found if found.ndim == 2 else found.unsqueeze(1)

    def _of_channels(self, maps: Tensor) -> Tensor:
        if maps.shape[1] != len(self.weights):
            raise SpecError(
                f"threshold weights need the threshold of each sample, or one channel for each of "
                f"{self.thresholds.tolist()} m, got neither and {maps.shape[1]} channels; call "
                "loss(logits, targets, thresholds)"
            )
        return self.weights.to(maps).unsqueeze(0)


def rarity_weights(thresholds: Sequence[float]) -> dict[float, float]:
    """Weigh thresholds by their inverse, with the mean 1.

    A rule of thumb: the lower the threshold, the fewer pixels are gaps, about in proportion where heights are spread
    evenly. Where the shares of gaps are known, their inverses are the better weights.

    Args:
        thresholds: Heights in metres.
    """
    inverse = [1 / metres for metres in thresholds]
    mean = sum(inverse) / len(inverse)
    return {metres: share / mean for metres, share in zip(thresholds, inverse, strict=True)}


__all__ = ["ThresholdWeights", "rarity_weights"]
