"""A small U-Net that is told the height under which a pixel is a gap."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from autotune.errors import SpecError
from autotune.training.models.blocks import ConditionedBlock, ThresholdCode

_CODE_WIDTH = 32


class ThresholdUNet(nn.Module):
    """Finds the gaps of any height threshold with one set of weights.

    A U-Net (Ronneberger et al. 2015, arXiv:1505.04597) of residual blocks. The threshold scales and shifts the features
    of every block, and lies beside the image in front of the first and the last layer: normalisation lets go of how
    high a canopy is, which the last layer is to compare with the threshold. Images of any size are filled up by their
    edge pixels to a multiple of `2 ** depth`, and logits cut back.

    With 8 features at first and 3 levels it has about 140 000 parameters. Its `DropPath` and `Dropout2d` layers do
    nothing until `CompositeRegularization` sets them, or the rates below.

    Args:
        in_channels: Bands of the image.
        out_channels: Maps that come out: 1 for gaps, the number of classes with cross-entropy.
        width: Features of the first level; each deeper one has twice as many.
        depth: Levels under the first, which each halve height and width.
        dropout_rate: Rate at which whole channels are set to 0 in each block.
        drop_path_rate: How often each block is left out.
        threshold_scale_m: Height in metres that counts as one; the highest threshold is a good one.

    Raises:
        SpecError: A number breaks its rule.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        width: int = 8,
        depth: int = 3,
        dropout_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        threshold_scale_m: float = 20.0,
    ) -> None:
        super().__init__()
        counts = {"in_channels": in_channels, "out_channels": out_channels, "width": width, "depth": depth}
        for name, count in counts.items():
            if count < 1:
                raise SpecError(f"{name} is at least 1, got {count!r}")
        if not 0 < threshold_scale_m < float("inf"):
            raise SpecError(f"threshold_scale_m is above 0 m, got {threshold_scale_m!r}")
        self.in_channels = in_channels
        self.depth = depth
        widths = [width * 2**level for level in range(depth + 1)]
        ins = [in_channels + 1, *widths[:-1]]

        def block(channels: int, features: int) -> ConditionedBlock:
            rates = {"dropout_rate": dropout_rate, "drop_prob": drop_path_rate}
            return ConditionedBlock(channels, features, code=_CODE_WIDTH, **rates)

        self.code = ThresholdCode(_CODE_WIDTH, threshold_scale_m)
        self.down = nn.ModuleList(block(*channels) for channels in zip(ins, widths, strict=True))
        self.up = nn.ModuleList(
            block(deep + shallow, shallow) for shallow, deep in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.head = nn.Conv2d(width + in_channels + 1, out_channels, kernel_size=1)

    def forward(self, images: Tensor, thresholds: Tensor) -> Tensor:
        """Give logits `(N, out_channels, H, W)`.

        Args:
            images: `(N, in_channels, H, W)` floats of any height and width.
            thresholds: Metres, `(N,)`, or one for all.

        Raises:
            SpecError: The shapes do not fit.
        """
        height, width = self._checked_size(images)
        metres = self._one_each(thresholds, images)
        step = 2**self.depth
        filled = functional.pad(images, (0, -width % step, 0, -height % step), mode="replicate")
        known = torch.cat([filled, self._as_band(metres, filled)], dim=1)
        code = self.code(metres)
        features, kept = known, []
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else functional.max_pool2d(features, 2), code)
            kept.append(features)
        for block, skip in zip(self.up, kept[-2::-1], strict=True):
            wider = functional.interpolate(features, scale_factor=2.0, mode="nearest")
            features = block(torch.cat([wider, skip], dim=1), code)
        logits: Tensor = self.head(torch.cat([features, known], dim=1))
        return logits[..., :height, :width]

    def _as_band(self, metres: Tensor, images: Tensor) -> Tensor:
        """Give the thresholds as a band beside the bands of images, in the scale of the code."""
        return (metres / self.code.scale_m)[:, None, None, None].expand(-1, 1, *images.shape[2:])

    def _checked_size(self, images: Tensor) -> tuple[int, int]:
        if images.ndim != 4 or images.shape[1] != self.in_channels or 0 in images.shape:
            raise SpecError(
                f"images are (N, {self.in_channels}, H, W), got {tuple(images.shape)}; ThresholdUNet(in_channels=...) "
                "sets the bands"
            )
        return images.shape[2], images.shape[3]

    @staticmethod
    def _one_each(thresholds: Tensor, images: Tensor) -> Tensor:
        metres = torch.as_tensor(thresholds, device=images.device, dtype=images.dtype).reshape(-1)
        if len(metres) not in (1, len(images)):
            raise SpecError(f"each image has one threshold, got {len(metres)} for {len(images)} images")
        return metres.expand(len(images))


__all__ = ["ThresholdUNet"]
