"""Loading modes by name."""

import pytest
import torch
from data_sets import BytesDataset, MixedDataset
from torch.utils.data import IterableDataset

from autotune.data.caches import CachedDataset
from autotune.data.facts import samples_equal
from autotune.data.modes import LoadingMode, load_in_mode, mode_config
from autotune.errors import SpecError


def test_modes_have_the_values_of_old():
    assert {mode.name: mode.value for mode in LoadingMode} == {
        "LAZY": "lazy",
        "EAGER": "eager",
        "STREAMING": "streaming",
        "CACHED": "cached",
    }


def test_lazy_is_the_dataset_itself():
    dataset = MixedDataset()
    assert load_in_mode(dataset, LoadingMode.LAZY) is dataset


@pytest.mark.parametrize("dataset", [MixedDataset(), BytesDataset()])
def test_eager_is_full_at_once_and_cached_fills_as_it_is_read(dataset):
    told = []
    eager = load_in_mode(dataset, "eager", progress=lambda done, total: told.append((done, total)))
    cached = load_in_mode(dataset, "cached")
    count = len(dataset)
    assert isinstance(eager, CachedDataset)
    assert told[-1] == (count, count)
    assert (eager.filled, cached.filled) == (count, 0)
    cached[1]
    assert cached.filled == 1
    for loaded in (eager, cached):
        assert samples_equal([loaded[index] for index in range(count)], [dataset[index] for index in range(count)])


def test_eager_keeps_what_fits():
    whole = load_in_mode(MixedDataset(), LoadingMode.EAGER).size_bytes
    loaded = load_in_mode(MixedDataset(), LoadingMode.EAGER, limit_bytes=whole // 2)
    assert loaded.filled == 11
    assert samples_equal(loaded[22], MixedDataset()[22])


@pytest.mark.parametrize("archive", ["tar", "tar.gz"])
def test_streaming_gives_each_sample_once(archive, tmp_path):
    loaded = load_in_mode(MixedDataset(), LoadingMode.STREAMING, archive_root=tmp_path, archive=archive)
    assert isinstance(loaded, IterableDataset)
    got = sorted(loaded, key=lambda sample: sample["parts"][1][0])
    assert samples_equal(got, [MixedDataset()[index] for index in range(23)])


def test_streaming_needs_a_folder():
    with pytest.raises(SpecError, match="folder"):
        load_in_mode(MixedDataset(), LoadingMode.STREAMING)


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="sluggish"):
        load_in_mode(MixedDataset(), "sluggish")


def test_configurations_of_the_modes():
    configs = {mode: mode_config(mode, batch_size=8, num_workers=2) for mode in LoadingMode}
    assert configs[LoadingMode.LAZY].cache == "none"
    assert configs[LoadingMode.EAGER] == configs[LoadingMode.CACHED]
    assert configs[LoadingMode.CACHED].cache == "memory"
    assert configs[LoadingMode.STREAMING].order == "streaming"
    assert all((config.batch_size, config.num_workers) == (8, 2) for config in configs.values())
    assert torch.is_tensor(load_in_mode(MixedDataset(), "lazy")[0]["image"])
