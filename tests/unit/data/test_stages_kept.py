"""Stored samples are what the dataset gives: stages that do not make up the sample are refused, none is lost."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import rasterio
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from autotune.data.apply import prepare
from autotune.data.datasets.raster import GeoTiffPairDataset
from autotune.data.stages import StagedDataset
from autotune.data.whole_batch import WholeBatch
from autotune.errors import ArchiveError
from autotune.resolve.best import best_loader
from autotune.spec import LoaderConfig

MEMORY = LoaderConfig(batch_size=2, cache="memory")


class LabelOutside(Dataset):
    """Adds its label outside of `decode`, as datasets that know nothing of stages may."""

    def __len__(self):
        return 6

    def read(self, index):
        return bytes([index])

    def decode(self, raw):
        return torch.tensor(list(raw))

    def __getitem__(self, index):
        return self.decode(self.read(index)), index

    def fingerprint(self):
        return "label outside"


class Augmented(StagedDataset):
    """Adds noise that is seeded by epoch and index."""

    def __len__(self):
        return 6

    def read(self, index):
        return (bytes([index]),)

    def decode(self, raw):
        return torch.tensor(list(raw[0])).float()

    def augment(self, sample, generator):
        return sample + torch.rand(1, generator=generator)


class BrokenFirst(Dataset):
    """Fails for a sample that its user leaves out."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if index == 0:
            raise ValueError("no such picture")
        return torch.tensor(index)


@pytest.mark.parametrize("config", [MEMORY, LoaderConfig(batch_size=2, archive="npy")])
def test_dataset_whose_decode_gives_another_sample_is_not_stored(tmp_path, config):
    with pytest.raises(ArchiveError, match="staged = False"):
        prepare(LabelOutside(), config, archive_root=tmp_path)
    assert not list(tmp_path.glob("*/*/manifest.json"))


def test_dataset_that_takes_its_stages_back_is_cached_as_its_index_gives_it():
    dataset = LabelOutside()
    dataset.staged = False
    cached = prepare(dataset, MEMORY).dataset
    assert [cached[index][1] for index in range(6)] == list(range(6))


@pytest.mark.parametrize("around", [lambda cached: Subset(cached, [2, 1, 0]), lambda cached: ConcatDataset([cached])])
def test_augmentation_is_kept_when_a_cached_subset_is_cached_again(around):
    source = Augmented(seed=3)
    again = around(prepare(Subset(source, [5, 4, 3]), MEMORY).dataset)
    cached = prepare(again, MEMORY).dataset
    for index in range(3):
        assert torch.equal(cached[index], again[index])
        assert not torch.equal(cached[index], cached[index].round())


@pytest.mark.parametrize("travel", [copy.copy, lambda batch: pickle.loads(pickle.dumps(batch))])
def test_whole_batch_reaches_another_process_as_a_plain_list(travel):
    arrived = travel(WholeBatch([torch.tensor([1, 2])], lambda: [1, 2]))
    assert type(arrived) is list
    assert arrived == [1, 2]


def test_training_goes_on_when_the_dataset_fails_for_a_sample_that_is_only_probed(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loader = best_loader(BrokenFirst(), batch_size=2, cache="memory", sampler=[1, 2, 3, 4], home=tmp_path)
    assert [batch.tolist() for batch in loader] == [[1, 2], [3, 4]]
    assert any("ValueError: no such picture" in str(one.message) for one in caught)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_invalid_pixels_of_whole_numbers_get_a_fill_that_only_the_wanted_type_holds(tmp_path):
    pixels = np.array([[[7, 9], [8, 9]]], dtype=np.uint16)
    for name in ("image.tif", "mask.tif"):
        options = {"width": 2, "height": 2, "count": 1, "dtype": "uint16", "nodata": 9}
        with rasterio.open(tmp_path / name, "w", driver="GTiff", **options) as file:
            file.write(pixels)
    dataset = GeoTiffPairDataset([tmp_path / "image.tif"], [tmp_path / "mask.tif"], fill=-1.5)
    assert dataset[0][0].tolist() == [[[7.0, -1.5], [8.0, -1.5]]]
