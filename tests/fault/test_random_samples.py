"""Random samples never get into an archive or a cache (faults 33)."""

import pytest
import random_data_sets as kinds
import torch
from data_sets import AugmentedDataset, RandomDataset

from autotune.data.archives.store import open_or_build
from autotune.data.caches import CACHE_MODES
from autotune.errors import RandomSamplesError
from autotune.spec import LoaderConfig

pytestmark = pytest.mark.fault(33)

DATASETS = (RandomDataset, *kinds.RANDOM)


@pytest.mark.parametrize("kind", DATASETS)
@pytest.mark.parametrize("archive", ["npy", "tar"])
def test_archive_of_random_samples_is_refused_with_the_staged_form(kind, archive, tmp_path):
    with pytest.raises(RandomSamplesError, match=r"archived would freeze .*augment\(sample, generator\)"):
        open_or_build(kind(), LoaderConfig(archive=archive, stored="decoded"), tmp_path)
    assert not list(tmp_path.rglob("manifest.json"))


@pytest.mark.parametrize("kind", DATASETS)
def test_cache_of_random_samples_is_refused_with_the_staged_form(kind):
    with pytest.raises(RandomSamplesError, match=r"cached would freeze .*augment\(sample, generator\)"):
        CACHE_MODES["memory"].wrap(kind(), fraction=1.0)


@pytest.mark.parametrize("kind", kinds.STEADY)
def test_samples_that_are_the_same_each_time_are_stored(kind, tmp_path):
    plain = kind()
    opened = open_or_build(plain, LoaderConfig(archive="npy"), tmp_path).dataset
    cached = CACHE_MODES["memory"].wrap(plain, fraction=1.0)
    for index in range(len(plain)):
        assert torch.equal(opened[index], plain[index])
        assert torch.equal(cached[index], plain[index])


def test_staged_dataset_is_stored_before_its_random_part(tmp_path):
    plain = AugmentedDataset()
    opened = open_or_build(plain, LoaderConfig(archive="npy"), tmp_path).dataset
    for epoch in (0, 1):
        plain.set_epoch(epoch)
        opened.set_epoch(epoch)
        assert torch.equal(opened[3], plain[3])
    assert torch.equal(opened.base_sample(3), plain.base_sample(3))
