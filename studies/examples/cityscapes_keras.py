"""Walks through the Keras data generators on real street scenes, from arrays in files to `model.fit` on Cityscapes.

    KERAS_BACKEND=torch python studies/examples/cityscapes_keras.py --data ../shared/data/street_scenes

The folder holds `leftImg8bit` and `gtFine` as Cityscapes has them. The arrays of the first part are cut from these
scenes and written to a temporary folder. What Keras 3 does otherwise than the older Keras that the examples were
written for is said where it happens.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import albumentations
import numpy as np

from autotune.data.datasets.cityscapes import CityscapesDataset
from autotune.data.datasets.cityscapes_labels import CATEGORIES, LABELS
from autotune.integrations.keras import DataGenerator, create_data_generators, keras

TILE = 32
"""Side of the cubes of the first part, in pixels and in tiles."""
N_CLASSES = 6


def main() -> None:
    """Run every example and print what it did."""
    arguments = read_arguments()
    keras.utils.set_random_seed(0)
    print(f"Keras {keras.__version__} on {keras.config.backend()}")
    with tempfile.TemporaryDirectory() as temporary:
        partition, labels = cut_arrays(arguments.data, Path(temporary))
        show_data_generator(partition, labels, Path(temporary), arguments)
    show_labels(arguments.data)
    show_cityscapes(arguments)


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds leftImg8bit and gtFine")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each training")
    parser.add_argument("--size", type=int, default=512, help="side that scenes are resized to")
    parser.add_argument("--batch-size", type=int, default=16, help="scenes in a batch")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the examples that set them")
    return parser.parse_args()


def cut_arrays(data: Path, folder: Path) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Write cubes of 32 tiles of 32 x 32 grey pixels, and give `partition` and `labels` as the examples have them.

    The class of a cube is the category that most of its pixels have; people and vehicles are one.
    """
    partition: dict[str, list[str]] = {"train": [], "validation": []}
    labels: dict[str, int] = {}
    for part, split in (("train", "train"), ("validation", "val")):
        scenes = CityscapesDataset(data, split, size=(352, 480), channels="last", normalize=True)
        for number in range(len(scenes)):
            image, mask = scenes[number]
            grey, categories = _tiles(image.numpy().mean(axis=2)), _tiles(mask.numpy())
            for start in range(0, len(grey) - TILE + 1, 24):
                name = f"id-{len(labels) + 1}"
                np.save(folder / f"{name}.npy", grey[start : start + TILE].astype(np.float16))
                counts = np.bincount(categories[start : start + TILE].ravel(), minlength=len(CATEGORIES))
                partition[part].append(name)
                labels[name] = min(int(counts[1:].argmax()), N_CLASSES - 1)
    print(f"partition: {len(partition['train'])} train, {len(partition['validation'])} validation")
    print(f"labels: {', '.join(f'{name}: {labels[name]}' for name in list(labels)[:4])} ...")
    return partition, labels


def _tiles(pixels: Any) -> Any:
    rows, columns = pixels.shape[0] // TILE, pixels.shape[1] // TILE
    return pixels.reshape(rows, TILE, columns, TILE).swapaxes(1, 2).reshape(rows * columns, TILE, TILE)


def show_data_generator(
    partition: dict[str, list[str]], labels: dict[str, int], folder: Path, arguments: argparse.Namespace
) -> None:
    """Train on arrays in files."""
    print("\n== DataGenerator ==")
    # Parameters
    params: dict[str, Any] = {
        "dim": (32, 32, 32),
        "batch_size": 64,
        "n_classes": 6,
        "n_channels": 1,
        "shuffle": True,
    }
    # Keras 3 takes these where the generator is made; they were arguments of fit_generator().
    queue: dict[str, Any] = {"use_multiprocessing": True, "workers": arguments.workers, "data_dir": folder}

    # Generators
    training_generator = DataGenerator(partition["train"], labels, **params, **queue)
    validation_generator = DataGenerator(partition["validation"], labels, **params, **queue)
    samples, one_hot = training_generator[0]
    print(f"{len(training_generator)} batches an epoch, X {samples.shape} {samples.dtype}, y {one_hot.shape}")

    model = keras.Sequential(
        [
            keras.Input((32, 32, 32, 1)),
            keras.layers.Conv3D(4, 3, strides=4, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(N_CLASSES, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    # fit() in place of fit_generator(generator=...)
    model.fit(training_generator, validation_data=validation_generator, epochs=arguments.epochs, verbose=2)


def show_labels(data: Path) -> None:
    """Show the 34 label ids as 8 categories on one scene."""
    print("\n== 34 label ids to 8 categories ==")
    for category in CATEGORIES:
        names = [f"{label.id} {label.name}" for label in LABELS if label.category == category and label.id >= 0]
        print(f"  {category}: {', '.join(names)}")
    scenes = CityscapesDataset(data, "train")
    _, mask = scenes[0]
    shares = np.bincount(mask.numpy().ravel(), minlength=len(CATEGORIES)) / mask.numel()
    shown = ", ".join(f"{name} {share:.1%}" for name, share in zip(CATEGORIES, shares, strict=True))
    print(f"{tuple(scenes.ids[0].tolist())}: {shown}")


def show_cityscapes(arguments: argparse.Namespace) -> None:
    """Train on street scenes, plainly, with augmentation, and with workers."""
    size = (arguments.size, arguments.size)
    print("\n== create_data_generators: what was measured for this dataset, else Keras's own process ==")
    train_gen, val_gen = create_data_generators(
        train_split="train",
        val_split="val",
        batch_size=arguments.batch_size,
        dim=size,
        normalize=True,
        data_dir=arguments.data,
    )
    images, masks = train_gen[0]
    print(f"{len(train_gen)} + {len(val_gen)} batches, workers={train_gen.workers}")
    print(f"images {images.shape} {images.dtype} from {images.min():.3f} to {images.max():.3f}, masks {masks.shape}")
    segmentation_model(size).fit(train_gen, validation_data=val_gen, epochs=1, verbose=2)

    print("\n== with augmentation, and workers (Keras 3 takes them here, not in fit) ==")
    train_aug = albumentations.Compose(
        [
            albumentations.HorizontalFlip(p=0.5),
            albumentations.RandomBrightnessContrast(p=0.2),
        ]
    )
    train_gen_aug, val_gen = create_data_generators(
        train_split="train",
        val_split="val",
        batch_size=arguments.batch_size,
        dim=size,
        augmentation=train_aug,
        normalize=True,
        data_dir=arguments.data,
        use_multiprocessing=True,
        workers=arguments.workers,
    )
    segmentation_model(size).fit(train_gen_aug, validation_data=val_gen, epochs=arguments.epochs, verbose=2)


def segmentation_model(size: tuple[int, int]) -> Any:
    """Make a small network that gives each pixel one of the 8 categories."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((*size, 3)),
            layers.Conv2D(8, 3, strides=4, padding="same", activation="relu"),
            layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2DTranspose(len(CATEGORIES), 8, strides=8),
        ]
    )
    # logits: the gradient of a softmax over the last axis fails on torch 2.13, "grad_input must be contiguous"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    return model


if __name__ == "__main__":
    main()
