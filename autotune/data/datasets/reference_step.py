"""A small training step for studies that want one: what a batch size costs in memory shows only there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn


class SmallUNet(nn.Module):
    """Two levels down and up again with skip connections: `(N, channels, H, W)` to `(N, classes, H, W)`."""

    def __init__(self, channels: int = 1, classes: int = 1, width: int = 8) -> None:
        super().__init__()
        self.first = _block(channels, width)
        self.second = _block(width, 2 * width)
        self.deepest = _block(2 * width, 4 * width)
        self.up_second = _block(6 * width, 2 * width)
        self.up_first = _block(3 * width, width)
        self.head = nn.Conv2d(width, classes, kernel_size=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give logits for each pixel."""
        first = self.first(image)
        second = self.second(nn.functional.max_pool2d(first, 2))
        deepest = self.deepest(nn.functional.max_pool2d(second, 2))
        second = self.up_second(torch.cat([_resized(deepest, second), second], dim=1))
        logits: torch.Tensor = self.head(self.up_first(torch.cat([_resized(second, first), first], dim=1)))
        return logits


def small_unet_step(
    device: str = "cpu", *, channels: int = 1, classes: int = 1, width: int = 8, seed: int = 0
) -> Callable[[Sequence[torch.Tensor]], None]:
    """Give a training step (forward, loss, backward, update) on batches of image and mask.

    Args:
        device: Where the model lies; batches are moved there.
        channels: Bands of the image, `(N, channels, H, W)` float32.
        classes: Channels of the mask, `(N, classes, H, W)` of zeros and ones.
        width: Features of the first level.
        seed: Seed of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SmallUNet(channels, classes, width).to(device)
    return TrainingStep(model, device)


class TrainingStep:
    """One update of a model for each batch of image and mask.

    Args:
        model: The model.
        device: Where it lies.
    """

    def __init__(self, model: nn.Module, device: str) -> None:
        self._model = model
        self._device = device
        self._optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def __call__(self, batch: Sequence[torch.Tensor]) -> None:
        """Train on a batch."""
        self._optimizer.zero_grad(set_to_none=True)
        self._loss(batch).backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        self._optimizer.step()

    def evaluate(self, batch: Sequence[torch.Tensor]) -> None:
        """Compute the loss of a batch, as an evaluation pass does."""
        self._loss(batch)

    def _loss(self, batch: Sequence[torch.Tensor]) -> torch.Tensor:
        image, mask = (part.to(self._device, non_blocking=True) for part in batch[:2])
        return nn.functional.binary_cross_entropy_with_logits(self._model(image.float()), mask.float())


def _block(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
    )


def _resized(small: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    resized: torch.Tensor = nn.functional.interpolate(small, size=like.shape[-2:], mode="nearest")
    return resized
