"""Copies that are read in a dataset's stead leave its files as they are, wherever it keeps them."""

import enum
import gc
import tempfile

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from autotune.data.apply import prepare
from autotune.data.build import make_loader
from autotune.data.randomness import why_random
from autotune.data.stages import apart
from autotune.spec import LoaderConfig

COUNT = 2048
WORDS = 512


class Kind(enum.Enum):
    """Compared by identity."""

    ROWS = 1


class Reader:
    """Opens a file on first use; processes that share it move one position."""

    def __init__(self, path):
        self.path = path
        self.file = None

    def row(self, index):
        if self.file is None:
            self.file = open(self.path, "rb", buffering=0)  # noqa: PTH123, SIM115  # unbuffered, as careless readers
        self.file.seek(index * WORDS * 8)
        return torch.frombuffer(bytearray(self.file.read(WORDS * 8)), dtype=torch.int64)


class Rows(Dataset):
    """Rows of a file through a reader, which is kept as an attribute, in a list, or in a dataset inside."""

    def __init__(self, path, *, kept="attribute"):
        self.path = str(path)
        self.kind = Kind.ROWS
        reader = Reader(self.path)
        self._kept = {"attribute": reader, "list": [reader], "dataset": Inner(reader)}[kept]

    @property
    def reader(self):
        if isinstance(self._kept, list):
            return self._kept[0]
        return getattr(self._kept, "reader", self._kept)

    def source_paths(self):
        return [self.path]

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        if self.kind is not Kind.ROWS:
            raise AssertionError("a member of an enumeration was copied")
        return self.reader.row(index)


class Inner(Dataset):
    """Holds the reader."""

    def __init__(self, reader):
        self.reader = reader


class Closing(Dataset):
    """Opens in the constructor and closes when it goes, as many datasets over one file do."""

    def __init__(self, path):
        self.path = str(path)
        self.file = open(path, "rb", buffering=0)  # noqa: PTH123, SIM115  # closed below

    def __del__(self):
        self.file.close()

    def fingerprint(self):
        return self.path

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        self.file.seek(index * WORDS * 8)
        return torch.frombuffer(bytearray(self.file.read(WORDS * 8)), dtype=torch.int64)


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.bin"
    np.repeat(np.arange(COUNT, dtype=np.int64), WORDS).tofile(path)
    return path


@pytest.mark.parametrize("kept", ["attribute", "list", "dataset"])
@pytest.mark.parametrize("config", [{"archive": "tar"}, {"cache": "memory"}], ids=lambda config: next(iter(config)))
@pytest.mark.parametrize("build_workers", [0, 2])
def test_reader_inside_a_dataset_is_not_opened_before_workers_start(rows, kept, config, build_workers, tmp_path):
    dataset = Rows(rows, kept=kept)
    chosen = LoaderConfig(batch_size=32, num_workers=2, **config)
    prepared = prepare(dataset, chosen, archive_root=tmp_path, build_workers=build_workers)
    assert dataset.reader.file is None
    loaded = torch.cat(list(make_loader(prepared.dataset, prepared.arguments, seed=0)))
    assert loaded.equal(torch.arange(COUNT)[:, None].expand(COUNT, WORDS))


@pytest.mark.parametrize("config", [{"archive": "tar"}, {"cache": "memory"}], ids=lambda config: next(iter(config)))
def test_dataset_that_closes_its_file_when_it_goes_keeps_it_open(rows, config, tmp_path):
    dataset = Closing(rows)
    prepared = prepare(dataset, LoaderConfig(batch_size=64, **config), archive_root=tmp_path)
    loaded = torch.cat(list(make_loader(prepared.dataset, prepared.arguments, seed=0)))
    gc.collect()
    assert loaded[:, 0].equal(torch.arange(COUNT))
    assert dataset[7][0] == 7


def test_copies_of_a_dataset_that_closes_its_file_go_with_it(rows):
    dataset = Closing(rows)
    copied = apart(dataset)
    file = copied.file
    del copied
    gc.collect()
    assert not file.closed
    del dataset
    gc.collect()
    assert file.closed


def test_objects_of_libraries_and_long_containers_stay_shared(rows):
    dataset = Rows(rows)
    dataset.many = [Reader("a") for _ in range(1000)]
    dataset.around = {"self": dataset}
    dataset.model = torch.nn.Linear(2, 2)
    with tempfile.NamedTemporaryFile() as dataset.temporary:
        copied = apart(dataset)
        assert copied.temporary is dataset.temporary
        del copied.temporary
    assert copied.around["self"] is copied
    assert copied.model is dataset.model
    assert copied.many is not dataset.many
    assert copied.many[0] is dataset.many[0]


def test_looking_for_randomness_leaves_generators_of_accelerators_as_they_are(rows):
    def seeded_later():
        # Before there is a context, torch notes what to seed once there is one.
        return list(torch.cuda._lazy_seed_tracker.get_calls())

    if torch.cuda.is_available():
        torch.cuda.manual_seed(11)
        before = torch.cuda.get_rng_state()
        assert why_random(Rows(rows)) is None
        assert torch.cuda.get_rng_state().equal(before)
        return
    before = seeded_later()
    assert why_random(Rows(rows)) is None
    assert seeded_later() == before
