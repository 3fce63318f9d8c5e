"""Walks through the general datasets and loaders on real images, texts and HDF5 files.

    python studies/examples/general_loading.py --data ../shared/data

The folder holds `images/pets`, `text/tinyshakespeare/input.txt` and `hdf5/radar/*.h5`. The four examples are those of
the documentation that the names come from, line by line; only paths and the name of the HDF5 dataset differ. Without
an accelerator batches stay on the CPU, with one warning for each loader that was to bring them there.
"""

from __future__ import annotations

import argparse
import logging
import re
import zlib
from pathlib import Path

import torch

from autotune.loaders import (
    CustomCollateFn,
    DataLoaderConfig,
    DataLoaderFactory,
    EfficientDataLoader,
    HDF5Dataset,
    ImageDataset,
    LoadingMode,
    MemoryEfficientDataset,
    TextDataset,
)


def main() -> None:
    """Run every example and print what it did."""
    arguments = read_arguments()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    load_images(arguments.data / "images" / "pets")
    load_texts(arguments.data / "text" / "tinyshakespeare" / "input.txt")
    load_hdf5(min((arguments.data / "hdf5" / "radar").glob("*.h5")), "dataset1/data1/data")
    load_within_memory(arguments.data / "images" / "pets")


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds images, text and hdf5")
    return parser.parse_args()


def load_images(path: Path) -> None:
    """Run the first example: basic loading of images."""
    print("\nBasic image data loading")
    # Create image dataset
    dataset = ImageDataset(data_path=path, image_size=(224, 224), loading_mode=LoadingMode.LAZY, cache_size=1000)

    # Configure DataLoader
    config = DataLoaderConfig(batch_size=32, num_workers=4, pin_memory=True, persistent_workers=True, prefetch_factor=2)

    # Create efficient DataLoader
    dataloader = DataLoaderFactory.create_dataloader(dataset, config)

    # Use DataLoader
    count = 0
    for batch in dataloader:
        images, targets = batch
        count += len(images)
    print(f"{count} images of classes {dataset.classes}, the last batch {tuple(images.shape)} {images.dtype}")
    print(f"targets {targets.dtype}, mean of the last batch {images.mean():.3f}, standard deviation {images.std():.3f}")
    show_stats(dataloader)


def custom_tokenizer(text: str) -> list[int]:
    """Give each word of a text one of 30,000 numbers, the same in every process."""
    return [zlib.crc32(word.encode()) % 30_000 + 1 for word in re.findall(r"\w+|[^\w\s]", text.lower())]


def load_texts(path: Path) -> None:
    """Run the second example: texts of their own lengths."""
    print("\nAdvanced text data loading")
    # Create text dataset
    dataset = TextDataset(data_path=path, tokenizer=custom_tokenizer, max_length=512, loading_mode=LoadingMode.CACHED)
    ids, target = dataset[0]
    print(f"{len(dataset):,} lines, the first one {ids[: dataset.length_of(0)].tolist()} with target {int(target)}")

    # Configure DataLoader with custom collate function
    config = DataLoaderConfig(
        batch_size=16,
        num_workers=2,
        pin_memory=True,
        collate_fn=CustomCollateFn.variable_length_collate,
        memory_efficient=True,
        max_memory_usage=0.7,
    )

    # Create efficient DataLoader
    dataloader = DataLoaderFactory.create_text_dataloader(path, config, max_length=512)
    texts, targets = next(iter(dataloader))
    print(f"a batch of {len(texts)} texts of {sorted(len(one) for one in texts)} characters, {targets.dtype} targets")

    # The same with padding to the longest of the batch, and the lengths
    config.collate_fn = CustomCollateFn.padded_collate
    padded, _, lengths = next(iter(DataLoaderFactory.create_text_dataloader(path, config, max_length=512)))
    print(f"padded {tuple(padded.shape)}, lengths up to {int(lengths.max())}")


def load_hdf5(path: Path, name: str) -> None:
    """Run the third example: rows of a large file."""
    print("\nHDF5 data loading")
    # Create HDF5 dataset
    dataset = HDF5Dataset(data_path=path, dataset_name=name, loading_mode=LoadingMode.STREAMING)
    print(f"{len(dataset)} rows of {dataset.sample_structure()} in chunks of {dataset.chunk_rows}")

    # Configure DataLoader for large datasets
    config = DataLoaderConfig(
        batch_size=64,
        num_workers=8,
        pin_memory=False,  # May not help with HDF5
        persistent_workers=True,
        memory_efficient=True,
        max_memory_usage=0.6,
    )

    # Create efficient DataLoader
    dataloader = DataLoaderFactory.create_hdf5_dataloader(path, config, dataset_name=name)
    print(f"{sum(len(batch) for batch in dataloader)} rows by index")
    streamed = DataLoaderFactory.create_dataloader(dataset, config)
    print(f"{sum(len(batch) for batch in streamed)} rows streamed")


def load_within_memory(path: Path) -> None:
    """Run the fourth example: loading within a share of the available memory."""
    print("\nMemory-efficient loading")
    # Create memory-efficient dataset
    dataset = MemoryEfficientDataset(data_path=path, max_memory_usage=0.8, loading_mode=LoadingMode.CACHED)

    # Configure DataLoader with memory constraints
    config = DataLoaderConfig(
        batch_size=16, num_workers=2, pin_memory=True, memory_efficient=True, max_memory_usage=0.8,
        enable_monitoring=True,
    )  # fmt: skip

    # Create efficient DataLoader
    dataloader = DataLoaderFactory.create_dataloader(dataset, config)

    # Monitor performance
    total = torch.zeros(())
    for batch in dataloader:
        images, targets = batch
        total += images.sum().cpu() + targets.sum().cpu()

    # Get performance stats
    stats = dataloader.get_stats()
    print(f"Batches per second: {stats['batches_per_second']:.2f}")
    print(f"Average memory usage: {stats['avg_memory_usage']:.1f}%")


def show_stats(dataloader: EfficientDataLoader) -> None:
    """Print the figures of an epoch."""
    print(", ".join(f"{name} {value:.3g}" for name, value in dataloader.get_stats().items()))


if __name__ == "__main__":
    main()
