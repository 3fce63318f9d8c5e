"""The augmentation of grey, normalised TIF images: movements that invent no value and keep background at 0."""

from __future__ import annotations

from autotune.data.extras import needed
from autotune.data.transforms.augmentation import SeededAugmentation

SHIFT_SHARE = 1 / 16
"""Farthest shift as a share of the side."""

_NEAREST = 0
_CONSTANT_BORDER = 0


def tif_augmentation(patch_size: tuple[int, int], *, shift_share: float = SHIFT_SHARE) -> SeededAugmentation:
    """Give flips, quarter turns and small shifts, each for one sample in two.

    Every pixel of a result is a pixel of the image, or 0 where the image was shifted away: normalised values stay
    as they are, and so does background. Patches that are no squares are not turned by a quarter.

    Args:
        patch_size: Height and width of the images.
        shift_share: Farthest shift as a share of the side, in whole pixels.

    Raises:
        MissingExtraError: Albumentations is not installed.
    """
    albumentations = needed("albumentations", "augment=True")
    height, width = patch_size
    steps = [albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)]
    if height == width:
        steps.append(albumentations.RandomRotate90(p=0.5))
    farthest = {"x": round(width * shift_share), "y": round(height * shift_share)}
    if any(farthest.values()):
        steps.append(
            albumentations.Affine(
                translate_px={axis: (-pixels, pixels) for axis, pixels in farthest.items()},
                interpolation=_NEAREST,
                border_mode=_CONSTANT_BORDER,
                fill=0,
                p=0.5,
            )
        )
    return SeededAugmentation(steps)


__all__ = ["SHIFT_SHARE", "tif_augmentation"]
