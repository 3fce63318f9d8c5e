"""Datasets that spawned workers can import, and rasters of every odd kind."""

import os
import random
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from autotune.data.stages import StagedDataset


class MixedDataset(Dataset):
    """Fixed shapes of all kinds: tensors, arrays, numbers, nested structure, NaN and -0.0."""

    def __init__(self, count=23, version="1"):
        self.count = count
        self.version = version

    def __len__(self):
        return self.count

    def fingerprint(self):
        return f"{self.count} {self.version}"

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        image = torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(index))
        image[0, 0, :2] = torch.tensor([float("nan"), -0.0])
        array = np.arange(6, dtype=np.uint16).reshape(2, 3) + index
        return {"image": image, "parts": (array, [index, index / 3]), "flag": index % 2 == 0}


class VaryingDataset(MixedDataset):
    """Plain, with shapes and structures that differ from sample to sample: empty, 0-d, half, text, None."""

    def fingerprint(self):
        return f"varying {self.count}"

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        parts = [
            torch.arange(index, dtype=torch.float32).reshape(-1, 1) / 3,
            np.arange(index % 4, dtype=np.uint16),
            np.float16(index),
            torch.tensor(index % 2 == 0),
            {"text": "x" * (index % 3), "nothing": None, "names": np.array(["a", "bcd"])},
            torch.zeros(0, index),
        ]
        return tuple(parts[: 1 + index % len(parts)])


class SlowDataset(MixedDataset):
    """Takes its time, so that a builder can be killed in the middle."""

    def __getitem__(self, index):
        time.sleep(0.002)
        return super().__getitem__(index)


class BytesDataset(StagedDataset):
    """Staged, with shapes that differ from sample to sample, and no augmentation."""

    def __init__(self, count=19):
        super().__init__()
        self.count = count

    def __len__(self):
        return self.count

    def fingerprint(self):
        return f"bytes {self.count}"

    def read(self, index):
        return np.random.default_rng(index).bytes(40 + 7 * index), b"" if index == 3 else bytes([index])

    def decode(self, raw):
        data = np.frombuffer(raw[0], np.uint8).copy()
        return torch.from_numpy(data), raw[1], len(raw[0]), f"text {len(raw[1])}"


class AugmentedDataset(StagedDataset):
    """Staged, with a random stage."""

    def __init__(self, count=16, seed=7):
        super().__init__(seed=seed)
        self.count = count

    def __len__(self):
        return self.count

    def fingerprint(self):
        return f"augmented {self.count}"

    def read(self, index):
        return (bytes([index]) * 12,)

    def decode(self, raw):
        return torch.frombuffer(bytearray(raw[0]), dtype=torch.uint8).to(torch.float32)

    def augment(self, sample, generator):
        return sample + torch.rand(sample.shape, generator=generator)


class RandomDataset(Dataset):
    """Random in one piece, as most people write it."""

    def __len__(self):
        return 10

    def fingerprint(self):
        return "random"

    def __getitem__(self, index):
        return torch.full((3,), float(index)) + random.random()


class FileDataset(Dataset):
    """One file a sample, as users write it."""

    def __init__(self, paths, scale=1):
        self.paths = [str(path) for path in paths]
        self.scale = scale

    def __len__(self):
        return len(self.paths)

    def source_paths(self):
        return self.paths

    def __getitem__(self, index):
        return torch.tensor(list(Path(self.paths[index]).read_bytes()[:4])) * self.scale


class ShardedNumbers(IterableDataset):
    """Divides itself over workers."""

    def __init__(self, count=40):
        self.count = count

    def __iter__(self):
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        yield from (torch.tensor([number]) for number in range(first, self.count, step))


class RepeatedNumbers(IterableDataset):
    """Does not, and draws at random besides."""

    def __init__(self, count=40):
        self.count = count

    def __iter__(self):
        yield from (torch.rand(3) + number for number in range(self.count))


def support_environment():
    """Give the environment in which a child process finds these datasets."""
    folders = [str(Path(__file__).parent), str(Path.cwd())]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}


def error_of_worker(loader):
    """Give the error that a loader with workers ends with, its workers ended in order.

    An iterator that is left to the garbage collector waits five seconds for workers that it no longer tells.
    """
    iterator = iter(loader)
    try:
        for _ in iterator:
            pass
    except Exception as error:  # noqa: BLE001
        return error.with_traceback(None)
    finally:
        iterator._shutdown_workers()
    raise AssertionError("no error")


def keep_list(samples):
    """Collate nothing."""
    return samples


def write_raster(path, pixels, nodata=None, **options):
    """Write `(bands, H, W)` or `(H, W)` as GeoTIFF."""
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    settings = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_400_000, 2.0, 2.0), **options}
    with rasterio.open(
        path, "w", driver="GTiff", count=len(pixels), height=pixels.shape[1], width=pixels.shape[2],
        dtype=pixels.dtype.name, nodata=nodata, **settings,
    ) as file:  # fmt: skip
        file.write(pixels)
    return path


def write_vast_raster(path):
    """Write a GeoTIFF of a few bytes that claims to have 3.6 TiB of pixels."""
    with rasterio.open(
        path, "w", driver="GTiff", width=1_000_000, height=1_000_000, count=1, dtype="float32", sparse_ok=True,
        bigtiff="yes", tiled=True, blockxsize=16_384, blockysize=16_384,
    ):  # fmt: skip
        return path


def write_files(folder, count=5):
    """Write small files and give their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.bin" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number, 1, 2, 3, 4]))
    return paths
