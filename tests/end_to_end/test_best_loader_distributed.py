"""Two real processes in a gloo group: one answer for both, samples divided between them."""

import multiprocessing
import os
import socket
import warnings

import pytest
import torch
import torch.distributed
from registry_values import Numbers, Stream, decision_here

from autotune.data.apply import prepare
from autotune.errors import SpecError
from autotune.registry import open_registry
from autotune.resolve.best import best_loader
from autotune.resolve.resolution import AutotuneWarning
from autotune.spec import LoaderConfig

pytestmark = pytest.mark.slow

RANKS = 2
CONFIG = LoaderConfig(num_workers=2, prefetch_factor=3, archive="npy")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _rank(rank, port, home, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_WORLD_SIZE=str(RANKS))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=RANKS)
    warnings.simplefilter("error", AutotuneWarning)
    # only rank 0 has the registry; the archive is there for both, as on one machine
    own_home = home if rank == 0 else home.parent / "other"
    environ = {"LOCAL_WORLD_SIZE": str(RANKS)}
    dataset = Numbers(40)
    torch.manual_seed(rank)
    loader = best_loader(dataset, home=own_home, environ=environ, batch_size=5, shuffle=True)
    epochs = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        epochs.append(torch.cat([indices for _, indices in loader]).tolist())
    beside = best_loader(dataset, home=own_home, environ={})  # started by no launcher that tells
    own = best_loader(dataset, home=own_home, environ=environ, sampler=[3, 1])
    stream = best_loader(Stream(), home=own_home, environ=environ, batch_size=20)
    refused = None
    if rank == 0:
        (home / "registry.db").unlink()
        warnings.simplefilter("ignore", AutotuneWarning)
    torch.distributed.barrier()
    default = best_loader(dataset, home=own_home, environ=environ)
    try:
        # all ask alike, and rank 0 alone finds out before the broadcast that there is no such decoder
        best_loader(dataset, home=own_home, environ=environ, decoder="fast")
    except SpecError as error:
        refused = str(error)
    results.put(
        (
            rank,
            {
                "loader": (loader.num_workers, loader.prefetch_factor, loader.batch_size),
                "beside": beside.num_workers,
                "archived": loader.dataset is not dataset,
                "epochs": epochs,
                "own": torch.cat([indices for _, indices in own]).tolist(),
                "stream": torch.cat(list(stream)).tolist(),
                "default": (default.num_workers, default.batch_size, len(default.sampler)),
                "refused": refused,
            },
        )
    )
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    home = tmp_path_factory.mktemp("distributed") / "home"
    dataset = Numbers(40)
    for folder in (home, home.parent / "other"):
        prepare(dataset, CONFIG, archive_root=folder / "archives")
    with open_registry(home) as registry:
        registry.save_decision(decision_here(dataset, CONFIG.canonical(has_accelerator=False)))
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    port = _free_port()
    ranks = [context.Process(target=_rank, args=(rank, port, home, results)) for rank in range(RANKS)]
    for rank in ranks:
        rank.start()
    answers = dict(results.get(timeout=120) for _ in ranks)
    for rank in ranks:
        rank.join(timeout=60)
    assert [rank.exitcode for rank in ranks] == [0] * RANKS
    return answers


def test_every_rank_has_the_answer_of_rank_zero_and_its_share_of_the_workers(told):
    assert [told[rank]["loader"] for rank in range(RANKS)] == [(1, 3, 5)] * RANKS
    assert all(told[rank]["archived"] for rank in range(RANKS))


def test_workers_are_divided_where_no_launcher_tells_how_many_ranks_are_here(told):
    assert [told[rank]["beside"] for rank in range(RANKS)] == [1] * RANKS


def test_samples_are_divided_and_shuffled_anew_each_epoch(told):
    for epoch in range(2):
        shares = [told[rank]["epochs"][epoch] for rank in range(RANKS)]
        assert sorted(shares[0] + shares[1]) == list(range(40))
        assert not set(shares[0]) & set(shares[1])
    assert told[0]["epochs"][0] != told[0]["epochs"][1]
    assert told[0]["epochs"][0] != sorted(told[0]["epochs"][0])


def test_sampler_of_the_caller_and_an_iterable_dataset_are_left_alone(told):
    for rank in range(RANKS):
        assert told[rank]["own"] == [3, 1]
        assert told[rank]["stream"] == list(range(20))


def test_every_rank_goes_on_with_the_default_when_rank_zero_has_no_registry(told):
    assert [told[rank]["default"] for rank in range(RANKS)] == [(0, 32, 20)] * RANKS


def test_no_rank_waits_for_ever_when_rank_zero_refuses(told):
    assert all("decoder" in told[rank]["refused"] for rank in range(RANKS))
