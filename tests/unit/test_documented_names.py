"""Every public name of the data systems that autotune carries, and where it lives now."""

import importlib
import inspect

import pytest

from autotune import loaders
from autotune.errors import SpecError

FOREST_GAPS = {
    "ForestGapDataset": "autotune.loaders",
    "create_dataset": "autotune.loaders",
    "create_dataloader": "autotune.loaders",
    "create_train_val_dataloaders": "autotune.loaders",
    "benchmark_dataloader": "autotune.loaders",
    "optimize_batch_size": "autotune.loaders",
    "optimize_num_workers": "autotune.loaders",
    "optimize_dataloader": "autotune.loaders",
    "prefetch_data": "autotune.loaders",
    "DataLoaderCalibrator": "autotune.loaders",
    "create_calibrated_dataloader": "autotune.loaders",
    "create_calibrated_train_val_dataloaders": "autotune.loaders",
    "TarArchiveDataset": "autotune.loaders",
    "IterableTarArchiveDataset": "autotune.loaders",
    "create_tar_archive": "autotune.loaders",
    "convert_dataset_to_tar": "autotune.loaders",
}
KERAS = {
    "DataGenerator": "autotune.integrations.keras",
    "CityscapesDataGenerator": "autotune.integrations.keras",
    "create_data_generators": "autotune.integrations.keras",
}
TIF = {
    "create_vae_dataloaders": "autotune.loaders",
    "create_ldm_dataloaders": "autotune.loaders",
    "LocalNormalizeByMask": "autotune.loaders",
    "ApplyLocalNormd": "autotune.loaders",
    "ToTuple": "autotune.loaders",
}
GENERAL = {
    "BaseDataset": "autotune.loaders",
    "LoadingMode": "autotune.loaders",
    "ImageDataset": "autotune.loaders",
    "TextDataset": "autotune.loaders",
    "HDF5Dataset": "autotune.loaders",
    "MemoryEfficientDataset": "autotune.loaders",
    "DataLoaderConfig": "autotune.loaders",
    "EfficientDataLoader": "autotune.loaders",
    "DataLoaderFactory": "autotune.loaders",
    "CustomCollateFn": "autotune.loaders",
    "MemoryMonitor": "autotune.loaders",
    "DataLoaderPerformanceMonitor": "autotune.loaders",
}
TRAINING = {
    "Trainer": "autotune.training",
    "train_model": "autotune.training",
    "Config": "autotune.training",
    "SegmentationMetrics": "autotune.training.metrics.segmentation",
    "ThresholdMetrics": "autotune.training.metrics.classification",
    "CombinedFocalDiceLoss": "autotune.training.loss.combined",
    "create_loss_function": "autotune.training.loss.factory",
    "Callback": "autotune.training.callbacks.base",
    "LoggingCallback": "autotune.training.callbacks.logging",
    "CheckpointingCallback": "autotune.training.callbacks.checkpointing",
    "VisualizationCallback": "autotune.training.callbacks.visualization",
    "CompositeRegularization": "autotune.training.optimization.regularization",
    "create_scheduler": "autotune.training.optimization.lr_schedulers",
}
NAMES = {**FOREST_GAPS, **KERAS, **TIF, **GENERAL, **TRAINING}

MEMBERS = {
    "BaseDataset": ("__len__", "__getitem__"),
    "Callback": ("on_epoch_end",),
    "CityscapesDataGenerator": ("__len__", "__getitem__", "on_epoch_end"),
    "CustomCollateFn": ("image_collate", "text_collate", "variable_length_collate", "padded_collate"),
    "DataGenerator": ("__len__", "__getitem__", "on_epoch_end"),
    "DataLoaderCalibrator": ("calibrate", "create_dataloader"),
    "DataLoaderFactory": ("create_dataloader", "create_text_dataloader", "create_hdf5_dataloader"),
    "DataLoaderPerformanceMonitor": ("start_iteration", "update_batch", "get_stats"),
    "EfficientDataLoader": ("__iter__", "__len__", "get_stats"),
    "LoadingMode": ("LAZY", "EAGER", "STREAMING", "CACHED"),
    "MemoryMonitor": ("start_monitoring", "update", "get_memory_stats", "check_memory_constraint"),
    "SegmentationMetrics": ("update", "compute"),
    "ThresholdMetrics": ("update", "compute"),
    "Trainer": ("train", "test", "predict", "save_checkpoint", "load_checkpoint"),
}
ARGUMENTS = {
    "BaseDataset": ("data_path", "transform", "target_transform", "loading_mode"),
    "ImageDataset": ("data_path", "image_size", "transform", "loading_mode", "cache_size"),
    "TextDataset": ("data_path", "tokenizer", "max_length", "loading_mode"),
    "HDF5Dataset": ("data_path", "dataset_name", "loading_mode"),
    "MemoryEfficientDataset": ("data_path", "max_memory_usage", "loading_mode"),
    "DataGenerator": ("list_IDs", "labels", "dim", "batch_size", "n_classes", "n_channels", "shuffle"),
    "create_data_generators": ("train_split", "val_split", "batch_size", "dim", "augmentation", "normalize"),
    "create_vae_dataloaders": (
        *("data_base_dir", "batch_size", "patch_size", "augment", "rank", "data_source", "val_dir", "train_split"),
        *("num_workers", "seed", "subset_size", "cache_rate", "distributed", "world_size"),
    ),
    "create_ldm_dataloaders": (
        *("data_base_dir", "batch_size", "patch_size", "augment", "rank", "target", "condition", "val_dir"),
        *("train_split", "num_workers", "seed", "subset_size", "cache_rate", "distributed", "world_size"),
    ),
    "create_dataset": ("input_paths", "mask_paths"),
    "convert_dataset_to_tar": ("dataset", "output_path", "compression"),
    "create_calibrated_dataloader": ("dataset", "shuffle", "drop_last"),
    "Trainer": ("model", "config", "train_loader", "val_loader", "test_loader", "callbacks"),
    "train_model": ("model", "config", "train_loader", "val_loader", "test_loader"),
    "SegmentationMetrics": ("device",),
    "ThresholdMetrics": ("thresholds",),
    "CombinedFocalDiceLoss": ("alpha", "gamma"),
    "create_loss_function": ("config",),
    "LoggingCallback": ("log_dir",),
    "CheckpointingCallback": ("checkpoint_dir",),
    "CompositeRegularization": ("model", "dropout_rate", "weight_decay", "drop_path_rate"),
    "create_scheduler": ("optimizer", "config", "steps_per_epoch"),
}
FIELDS = (
    *("epochs", "learning_rate", "optimizer", "scheduler_type", "warmup_epochs", "use_gradient_clipping"),
    *("clip_value", "use_threshold_weights", "use_droppath", "droppath_final_prob"),
)
"""Fields of a training's configuration that are set one by one."""
BY_POSITION = ("DataGenerator", "create_data_generators", "create_scheduler")
"""Those whose arguments are documented in the order in which they may be given."""
DEFAULTS = {
    "ImageDataset": {"image_size": (224, 224), "cache_size": 1000},
    "TextDataset": {"max_length": 512},
    "HDF5Dataset": {"dataset_name": "data"},
    "MemoryEfficientDataset": {"max_memory_usage": 0.8},
    "create_vae_dataloaders": {
        "augment": False,
        "rank": 0,
        "data_source": "edente",
        "val_dir": None,
        "train_split": 0.9,
        "num_workers": 4,
        "seed": 42,
        "subset_size": None,
        "cache_rate": 0.0,
        "distributed": False,
        "world_size": 1,
    },
    "create_ldm_dataloaders": {"target": "edente", "condition": "dente", "num_workers": 4, "cache_rate": 0.0},
    "create_data_generators": {"dim": (512, 512), "augmentation": None, "normalize": True},
}


def named(name, monkeypatch):
    """Import a name from its home; Keras chooses its backend when it is imported."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    return getattr(importlib.import_module(NAMES[name]), name)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_documented_name_is_importable_and_documented(name, monkeypatch):
    assert named(name, monkeypatch).__doc__


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_every_documented_member_is_there(name, monkeypatch):
    owner = named(name, monkeypatch)
    assert [member for member in MEMBERS[name] if not hasattr(owner, member)] == []


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_every_documented_argument_is_taken(name, monkeypatch):
    taken = inspect.signature(named(name, monkeypatch)).parameters
    assert [argument for argument in ARGUMENTS[name] if argument not in taken] == []


@pytest.mark.parametrize("name", BY_POSITION)
def test_documented_arguments_are_taken_by_position(name, monkeypatch):
    taken = list(inspect.signature(named(name, monkeypatch)).parameters.values())[: len(ARGUMENTS[name])]
    assert [(one.name, one.kind) for one in taken] == [
        (argument, inspect.Parameter.POSITIONAL_OR_KEYWORD) for argument in ARGUMENTS[name]
    ]


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_documented_defaults_hold(name, monkeypatch):
    taken = inspect.signature(named(name, monkeypatch)).parameters
    assert {argument: taken[argument].default for argument in DEFAULTS[name]} == DEFAULTS[name]


def test_documented_fields_of_a_training_are_set_and_checked():
    config = importlib.import_module("autotune.training").Config()
    for name in FIELDS:
        setattr(config, name, getattr(config, name))
        with pytest.raises(SpecError, match=name):
            setattr(config, name, object())


def test_packages_of_training_give_the_names_of_their_modules():
    for name, home in TRAINING.items():
        package = importlib.import_module(home if home == "autotune.training" else home.rpartition(".")[0])
        assert name in package.__all__
        assert getattr(package, name) is getattr(importlib.import_module(home), name)


def test_the_list_of_loaders_is_whole():
    documented = {name for name, home in NAMES.items() if home == "autotune.loaders"}
    assert documented <= set(loaders.__all__)
    assert all(getattr(loaders, name) is not None for name in loaders.__all__)
