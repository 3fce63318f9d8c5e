"""TIF loaders in two real processes of a gloo group: shards, one cache for both, one answer for both."""

import multiprocessing
import os
import socket

import numpy as np
import pytest
import rasterio
import torch
import torch.distributed
from registry_values import decision_here

from autotune.data.caches import CachedDataset
from autotune.data.datasets.tif_images import TifPairDataset
from autotune.loaders.tif_pairs import create_ldm_dataloaders
from autotune.registry import open_registry
from autotune.spec import LoaderConfig

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")]

RANKS = 2
COUNT = 24
CONFIG = LoaderConfig(batch_size=4, num_workers=2, prefetch_factor=3, cache="memory")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _epoch(loader):
    return [image.numpy().tobytes() for targets, _ in loader for image in targets]


def _rank(rank, port, base, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_WORLD_SIZE=str(RANKS))
    # only rank 0 has the registry
    os.environ["AUTOTUNE_HOME"] = str(base / ("home" if rank == 0 else "elsewhere"))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=RANKS)
    settings = {"data_base_dir": base, "batch_size": 4, "patch_size": (16, 16), "rank": rank, "world_size": RANKS}
    told = {}
    for name, more in {
        "fixed": {"num_workers": 1, "cache_rate": 0.5},
        "resolved": {"num_workers": None, "cache_rate": None, "augment": True},
    }.items():
        train, val = create_ldm_dataloaders(**settings, distributed=True, **more)
        epochs, validation = [_epoch(train) for _ in range(2)], _epoch(val)
        torch.distributed.barrier()
        told[name] = {
            "epochs": epochs,
            "val": validation,
            "workers": (train.num_workers, val.num_workers),
            "cached": [
                loader.dataset.filled if isinstance(loader.dataset, CachedDataset) else 0 for loader in (train, val)
            ],
        }
    alone, _ = create_ldm_dataloaders(**settings, num_workers=None, cache_rate=None)
    told["alone"] = len(_epoch(alone))
    results.put((rank, told))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    base = tmp_path_factory.mktemp("project")
    paths = {}
    for folder in ("edente", "dente"):
        (base / folder).mkdir()
        paths[folder] = [base / folder / f"{number:02d}.tif" for number in range(COUNT)]
        for number, path in enumerate(paths[folder]):
            image = np.random.default_rng((len(folder), number)).integers(0, 4095, (20, 20)).astype(np.uint16)
            with rasterio.open(path, "w", driver="GTiff", count=1, height=20, width=20, dtype="uint16") as file:
                file.write(image, 1)
    dataset = TifPairDataset(paths["edente"], paths["dente"], patch_size=(16, 16))
    with open_registry(base / "home") as registry:
        registry.save_decision(decision_here(dataset, CONFIG.canonical(has_accelerator=False)))
    context = multiprocessing.get_context("spawn")
    results, port = context.Queue(), _free_port()
    ranks = [context.Process(target=_rank, args=(rank, port, base, results)) for rank in range(RANKS)]
    for rank in ranks:
        rank.start()
    answers = dict(results.get(timeout=180) for _ in ranks)
    for rank in ranks:
        rank.join(timeout=60)
    assert [rank.exitcode for rank in ranks] == [0] * RANKS
    return answers


@pytest.mark.parametrize("name", ["fixed", "resolved"])
def test_each_epoch_is_divided_without_rest_or_overlap(told, name):
    for epoch in range(2):
        shares = [told[rank][name]["epochs"][epoch] for rank in range(RANKS)]
        assert [len(share) for share in shares] == [11, 11]
        assert not set(shares[0]) & set(shares[1])
        assert len({*shares[0], *shares[1]}) == 22
    assert told[0][name]["epochs"][0] != told[0][name]["epochs"][1]
    assert not set(told[0][name]["val"]) & set(told[1][name]["val"])


def test_ranks_share_one_cache(told):
    assert [told[rank]["fixed"]["cached"] for rank in range(RANKS)] == [[11, 2]] * RANKS


def test_every_rank_has_the_answer_of_rank_zero(told):
    assert [told[rank]["resolved"]["workers"] for rank in range(RANKS)] == [(1, 1)] * RANKS
    assert all(told[rank]["resolved"]["cached"][0] == 22 for rank in range(RANKS))


def test_a_rank_that_divides_nothing_has_all_samples(told):
    assert [told[rank]["alone"] for rank in range(RANKS)] == [22] * RANKS
