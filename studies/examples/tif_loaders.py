"""Walks through the TIF loaders for VAE and latent diffusion on real pairs, example by example.

    python studies/examples/tif_loaders.py --data ../shared/data/tif_pairs

The folder holds `derived_fly_256_float32/edente` and `.../dente` with files of the same names, and `human_cells` with
images of another origin, for validation. `data_base_dir` alone differs from the loaders' documentation; the examples
for several GPUs run every rank one after the other in this process.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from autotune.data.datasets.tif_images import TifImageDataset
from autotune.loaders import (
    ApplyLocalNormd,
    LocalNormalizeByMask,
    ToTuple,
    create_ldm_dataloaders,
    create_vae_dataloaders,
)

Loaders = tuple[DataLoader[Any], DataLoader[Any]]


def main() -> None:
    """Run every example and print what it did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the pairs")
    data = parser.parse_args().data
    base = str(data / "derived_fly_256_float32")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("autotune.loaders.tif_statistics").setLevel(logging.INFO)
    quick_start(base)
    logging.getLogger("autotune.loaders.tif_statistics").setLevel(logging.WARNING)
    example_1_sources(base)
    example_2_pairs(base)
    example_3_ranks(base)
    example_4_debugging(base)
    example_5_caching(base)
    example_6_external_validation(base, str(data / "human_cells"))
    example_7_split(base)
    resolved(base)
    custom_transforms(base)


def quick_start(base: str) -> None:
    """Both loaders as the documentation introduces them; the first rank logs statistics."""
    train_loader, val_loader = create_vae_dataloaders(
        data_base_dir=base, batch_size=8, patch_size=(256, 256), data_source="edente", rank=0
    )
    show("quick start, VAE", (train_loader, val_loader))
    train_loader, val_loader = create_ldm_dataloaders(
        data_base_dir=base, batch_size=8, patch_size=(256, 256), target="edente", condition="dente", rank=0
    )
    for target_images, condition_images in train_loader:
        print("quick start, LDM: a batch of", tuple(target_images.shape), "and", tuple(condition_images.shape))


def example_1_sources(base: str) -> None:
    """VAE training on one folder, the other, and both."""
    for data_source in ("edente", "dente", "both"):
        loaders = create_vae_dataloaders(
            data_base_dir=base, batch_size=16, patch_size=(512, 512), data_source=data_source
        )
        show(f"example 1, {data_source}", loaders)


def example_2_pairs(base: str) -> None:
    """Latent diffusion in both directions."""
    train_loader, _ = create_ldm_dataloaders(
        data_base_dir=base, batch_size=8, patch_size=(256, 256), target="edente", condition="dente"
    )
    reverse_loader, _ = create_ldm_dataloaders(
        data_base_dir=base, batch_size=8, patch_size=(256, 256), target="dente", condition="edente"
    )
    target_imgs, condition_imgs = next(iter(train_loader))
    print(f"example 2: target shape: {target_imgs.shape}, condition shape: {condition_imgs.shape}")
    reversed_target, reversed_condition = next(iter(reverse_loader))
    swapped = torch.equal(target_imgs, reversed_condition) and torch.equal(condition_imgs, reversed_target)
    print(f"example 2: the reverse direction swaps both: {swapped}")


def example_3_ranks(base: str) -> None:
    """The samples of two ranks: each has its own, and together they are all of them."""
    world_size = 2
    shares = []
    for rank in range(world_size):
        train_loader, _ = create_vae_dataloaders(
            data_base_dir=base,
            batch_size=8,
            patch_size=(256, 256),
            rank=rank,
            distributed=True,
            world_size=world_size,
            seed=42,
        )
        shares.append({image.numpy().tobytes() for batch in train_loader for image in batch})
        pairs, _ = create_ldm_dataloaders(
            data_base_dir=base,
            batch_size=8,
            patch_size=(256, 256),
            target="edente",
            condition="dente",
            rank=rank,
            distributed=True,
            world_size=world_size,
            seed=42,
        )
        print(f"example 3, rank {rank}: {len(shares[-1])} images and {count_of(pairs)} pairs")
    print(f"example 3: {len(shares[0] & shares[1])} images in common, {len(shares[0] | shares[1])} together")


def example_4_debugging(base: str) -> None:
    """The first images and pairs only (of the 18 that there are)."""
    loaders = create_vae_dataloaders(
        data_base_dir=base, batch_size=4, patch_size=(256, 256), subset_size=5, data_source="edente"
    )
    show("example 4, VAE", loaders)
    loaders = create_ldm_dataloaders(
        data_base_dir=base, batch_size=4, patch_size=(256, 256), subset_size=5, target="edente", condition="dente"
    )
    show("example 4, LDM", loaders)


def example_5_caching(base: str) -> None:
    """Half of training in memory, and all of validation."""
    vae = create_vae_dataloaders(data_base_dir=base, batch_size=8, patch_size=(256, 256), cache_rate=0.5, num_workers=8)
    ldm = create_ldm_dataloaders(
        data_base_dir=base,
        batch_size=8,
        patch_size=(256, 256),
        target="edente",
        condition="dente",
        cache_rate=0.5,
        num_workers=8,
    )
    for name, (train_loader, val_loader) in {"VAE": vae, "LDM": ldm}.items():
        for _ in range(2):
            count_of(train_loader)
            count_of(val_loader)
        train, val = train_loader.dataset, val_loader.dataset
        print(f"example 5, {name}: kept {train.filled} of {len(train)} for training")
        print(f"example 5, {name}: kept {val.filled} of {len(val)} for validation")


def example_6_external_validation(base: str, validation: str) -> None:
    """All of the base trains, images from elsewhere validate."""
    loaders = create_vae_dataloaders(
        data_base_dir=base, val_dir=validation, batch_size=8, patch_size=(256, 256), data_source="edente"
    )
    show("example 6", loaders)


def example_7_split(base: str) -> None:
    """85 % train."""
    vae = create_vae_dataloaders(
        data_base_dir=base, batch_size=8, patch_size=(256, 256), train_split=0.85, data_source="edente"
    )
    show("example 7, VAE", vae)
    ldm = create_ldm_dataloaders(
        data_base_dir=base,
        batch_size=8,
        patch_size=(256, 256),
        target="edente",
        condition="dente",
        train_split=0.85,
    )
    show("example 7, LDM", ldm)


def resolved(base: str) -> None:
    """Workers and cache as they were measured best for this data here, with augmentation."""
    loaders = create_ldm_dataloaders(
        data_base_dir=base, batch_size=8, patch_size=(256, 256), augment=True, num_workers=None, cache_rate=None
    )
    show(f"resolved, {loaders[0].num_workers} workers", loaders)


def custom_transforms(base: str) -> None:
    """The transforms by themselves."""
    paths = sorted(Path(base, "edente").glob("*.tif"))[:2]
    img1, img2 = TifImageDataset(paths, patch_size=(256, 256))
    normalizer = LocalNormalizeByMask()
    normalized_image = normalizer(img1)
    print(f"transforms: mean {normalized_image.mean():.4f}, deviation {normalized_image.std():.4f}")
    dict_normalizer = ApplyLocalNormd(keys=["image", "condition"])
    data = dict_normalizer({"image": img1, "condition": img2})
    to_tuple = ToTuple(keys=["image", "condition"])
    image_tuple = to_tuple(data)
    print("transforms: a tuple of", [tuple(image.shape) for image in image_tuple])


def show(name: str, loaders: Loaders) -> None:
    """Load an epoch of both loaders and print how much there was."""
    train, val = loaders
    first = next(iter(train))
    shapes = [tuple(part.shape) for part in ([first] if isinstance(first, torch.Tensor) else first)]
    print(f"{name}: {count_of(train)} for training and {count_of(val)} for validation, batches of {shapes}")


def count_of(loader: DataLoader[Any]) -> int:
    """Count the samples of an epoch."""
    return sum(len(batch if isinstance(batch, torch.Tensor) else batch[0]) for batch in loader)


if __name__ == "__main__":
    main()
