"""One-call forms: forest gaps, TIF images, general loading, calibration, short studies, monitors, archives."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "ApplyLocalNormd": "autotune.data.transforms.local_normalization",
    "BaseDataset": "autotune.data.datasets.base",
    "CustomCollateFn": "autotune.loaders.collating",
    "DataLoaderCalibrator": "autotune.loaders.calibration",
    "DataLoaderConfig": "autotune.loaders.general_config",
    "DataLoaderFactory": "autotune.loaders.general",
    "DataLoaderPerformanceMonitor": "autotune.loaders.monitors",
    "EfficientDataLoader": "autotune.loaders.general",
    "ForestGapDataset": "autotune.data.datasets.forest_gap",
    "HDF5Dataset": "autotune.data.datasets.hdf5_arrays",
    "ImageDataset": "autotune.data.datasets.general_images",
    "IterableTarArchiveDataset": "autotune.loaders.archive",
    "LoadingMode": "autotune.data.modes",
    "LocalNormalizeByMask": "autotune.data.transforms.local_normalization",
    "MemoryEfficientDataset": "autotune.data.datasets.memory_efficient",
    "MemoryMonitor": "autotune.loaders.monitors",
    "TarArchiveDataset": "autotune.loaders.archive",
    "TextDataset": "autotune.data.datasets.texts",
    "ToTuple": "autotune.data.transforms.local_normalization",
    "WebShards": "autotune.data.archives.web_shards",
    "benchmark_dataloader": "autotune.loaders.benchmarking",
    "convert_dataset_to_tar": "autotune.loaders.archive",
    "create_calibrated_dataloader": "autotune.loaders.calibration",
    "create_calibrated_train_val_dataloaders": "autotune.loaders.calibration",
    "create_dataloader": "autotune.loaders.factory",
    "create_dataset": "autotune.loaders.factory",
    "create_ldm_dataloaders": "autotune.loaders.tif_pairs",
    "create_tar_archive": "autotune.loaders.archive",
    "create_train_val_dataloaders": "autotune.loaders.factory",
    "create_vae_dataloaders": "autotune.loaders.tif_pairs",
    "optimize_batch_size": "autotune.loaders.optimization",
    "optimize_dataloader": "autotune.loaders.optimization",
    "optimize_num_workers": "autotune.loaders.optimization",
    "prefetch_data": "autotune.loaders.prefetching",
}
"""Public names and the modules that they are loaded from on first use."""

__all__ = sorted(_HOMES)  # noqa: PLE0605  # one list of names


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
