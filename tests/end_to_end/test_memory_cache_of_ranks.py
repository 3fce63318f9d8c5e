"""Two real processes in a gloo group: one memory cache as large as the machine, and no rank that waits in vain."""

import multiprocessing
import os
import socket
import warnings
from datetime import timedelta

import pytest
import torch
import torch.distributed
from registry_values import Numbers
from torch.utils.data import Dataset

from autotune.data.caches import CachedDataset
from autotune.data.caches.planning import available_bytes
from autotune.errors import SpecError
from autotune.resolve.best import best_loader
from autotune.resolve.resolution import AutotuneWarning
from autotune.units import MIB

pytestmark = pytest.mark.slow

RANKS = 2
SAMPLE_BYTES = 16 * MIB


class Large(Dataset):
    """Large samples, of which few are ever read."""

    def __init__(self, count, name="large"):
        self.count = count
        self._name = name

    def __len__(self):
        return self.count

    def fingerprint(self):
        return self._name

    def __getitem__(self, index):
        return torch.full((SAMPLE_BYTES,), index % 256, dtype=torch.uint8)


class Decoded(Numbers):
    """Offers a decoder, or does not."""

    decoder = "own"

    def __init__(self, decoders):
        super().__init__(40)
        self.decoders = decoders

    def with_decoder(self, _name):
        return self


def served(dataset, **settings):
    """What a loader keeps: how many samples at most, and how many are there; the warnings where it keeps none."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", AutotuneWarning)
        loader = best_loader(dataset, environ={"LOCAL_WORLD_SIZE": str(RANKS)}, num_workers=0, **settings)
    if not isinstance(loader.dataset, CachedDataset):
        return [str(one.message) for one in told]
    return loader


def shared(rank, count, name):
    """Which share of the samples a rank's cache can have, and how many it has once the other rank has read one."""
    loader = served(Large(count, name), batch_size=1, cache="memory", cache_fraction=1.0)
    if isinstance(loader, list):
        return loader
    if rank == 0:
        loader.dataset[0]
    torch.distributed.barrier()
    return [loader.dataset.fraction, loader.dataset.filled]


def refused(rank, **settings):
    """What a rank says where rank 1 alone does not offer the decoder."""
    try:
        served(Decoded(("own", "fast") if rank == 0 else ("own",)), decoder="fast", batch_size=4, **settings)
    except SpecError as error:
        return str(error)
    return "served"


def _rank(rank, port, home, count, results):
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_WORLD_SIZE=str(RANKS), AUTOTUNE_HOME=str(home)
    )
    torch.distributed.init_process_group("gloo", rank=rank, world_size=RANKS, timeout=timedelta(seconds=60))
    told = {
        "together": shared(rank, count, "large"),
        "apart": shared(rank, count, f"large of {rank}"),
        "refused": refused(rank),
        "refused with a cache": refused(rank, cache="memory"),
    }
    results.put((rank, told))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def count():
    """More samples than half of the memory has room for, and fewer than all of it."""
    return int(0.7 * available_bytes()) // SAMPLE_BYTES


@pytest.fixture(scope="module")
def told(tmp_path_factory, count):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (_free_port(), tmp_path_factory.mktemp("home"), count, results)
    ranks = [context.Process(target=_rank, args=(rank, *arguments)) for rank in range(RANKS)]
    for rank in ranks:
        rank.start()
    answers = dict(results.get(timeout=180) for _ in ranks)
    for rank in ranks:
        rank.join(timeout=60)
    assert [rank.exitcode for rank in ranks] == [0] * RANKS
    return answers


def test_the_cache_that_ranks_share_has_the_room_of_all_of_them(told):
    assert [told[rank]["together"] for rank in range(RANKS)] == [[1.0, 1]] * RANKS


def test_caches_of_different_datasets_share_the_room(told):
    for rank in range(RANKS):
        assert any("cache=none instead" in reason for reason in told[rank]["apart"]), told[rank]["apart"]


@pytest.mark.parametrize("case", ["refused", "refused with a cache"])
def test_no_rank_goes_on_where_one_cannot_load(told, case):
    assert told[0][case].startswith("rank 1 cannot load as rank 0 resolved")
    assert "got 'fast'" in told[0][case]
    assert told[1][case].startswith("decoder must be one that the dataset offers (own), got 'fast'")
