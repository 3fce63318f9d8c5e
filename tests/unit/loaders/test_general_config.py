"""`DataLoaderConfig`: fields, defaults, what is refused and what is let go of."""

import dataclasses

import pytest
import torch
from torch.utils.data import BatchSampler, SequentialSampler

from autotune.errors import SpecError
from autotune.loaders.general_config import DataLoaderConfig

DEFAULTS = {
    "batch_size": 32,
    "num_workers": 4,
    "pin_memory": True,
    "persistent_workers": True,
    "prefetch_factor": 2,
    "drop_last": False,
    "shuffle": True,
    "collate_fn": None,
    "memory_efficient": False,
    "max_memory_usage": 0.8,
    "pin_memory_device": "cuda",
    "non_blocking": True,
    "generator_seed": None,
    "custom_sampler": None,
    "custom_batch_sampler": None,
    "enable_monitoring": True,
    "log_loading_stats": True,
}


def test_fields_and_defaults_are_the_documented_ones_in_their_order():
    assert list(dataclasses.asdict(DataLoaderConfig()).items()) == list(DEFAULTS.items())


def test_configuration_can_be_changed_and_is_checked_again():
    config = DataLoaderConfig(batch_size=8)
    config.batch_size = 16
    config.check()
    config.batch_size = 0
    with pytest.raises(SpecError, match="batch_size is a whole number, at least 1, got 0"):
        config.check()


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"batch_size": True},
        {"num_workers": -1},
        {"num_workers": "auto"},
        {"prefetch_factor": 0},
        {"prefetch_factor": None},
        {"generator_seed": 1.5},
        {"generator_seed": 2**64},
        {"generator_seed": -(2**63) - 1},
        {"shuffle": 1},
        {"pin_memory": "yes"},
        {"persistent_workers": None},
        {"drop_last": "no"},
        {"memory_efficient": 0},
        {"non_blocking": None},
        {"enable_monitoring": "on"},
        {"log_loading_stats": 2},
        {"collate_fn": "stack"},
        {"custom_sampler": 3},
        {"custom_batch_sampler": 3},
        {"max_memory_usage": 0},
        {"max_memory_usage": 1.2},
        {"max_memory_usage": "80%"},
        {"pin_memory_device": "gpu7x"},
        {"pin_memory_device": None},
    ],
)
def test_value_that_breaks_a_rule_is_refused_by_its_name(wrong):
    with pytest.raises(SpecError, match=next(iter(wrong))):
        DataLoaderConfig(**wrong)


def test_what_needs_workers_is_let_go_of_without_them():
    config = DataLoaderConfig(num_workers=0, prefetch_factor=7)
    arguments = config.worker_arguments(num_workers=0, prefetch_factor=7, accelerator=True)
    assert arguments == {"num_workers": 0, "pin_memory": True}
    with_workers = config.worker_arguments(num_workers=2, prefetch_factor=7, accelerator=False)
    assert with_workers == {"num_workers": 2, "pin_memory": False, "prefetch_factor": 7, "persistent_workers": True}
    unpinned = DataLoaderConfig(pin_memory=False, persistent_workers=False)
    found = unpinned.worker_arguments(num_workers=1, prefetch_factor=2, accelerator=True)
    assert (found["pin_memory"], found["persistent_workers"]) == (False, False)


def test_order_of_the_callers_own_excludes_what_torch_refuses_beside_it():
    sampler = SequentialSampler(range(9))
    batches = BatchSampler(sampler, 4, drop_last=False)
    plain = DataLoaderConfig(batch_size=5, drop_last=True)
    assert plain.order_arguments(iterable=False) == {"batch_size": 5, "drop_last": True}
    assert (plain.is_ordered, plain.samples_in_batch) == (False, 5)
    by_sampler = DataLoaderConfig(batch_size=5, custom_sampler=sampler)
    assert by_sampler.order_arguments(iterable=False)["sampler"] is sampler
    assert "sampler" not in by_sampler.order_arguments(iterable=True)
    by_batches = DataLoaderConfig(batch_size=5, custom_sampler=sampler, custom_batch_sampler=batches)
    assert by_batches.order_arguments(iterable=False) == {"batch_sampler": batches}
    assert (by_batches.is_ordered, by_batches.samples_in_batch) == (True, 4)
    assert torch.utils.data.DataLoader(range(9), **by_batches.order_arguments(iterable=False)).batch_size is None
