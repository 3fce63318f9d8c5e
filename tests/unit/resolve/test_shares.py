"""Samples are divided by rank and world size, given or told by `torchrun`, without a process group."""

import warnings

import pytest
import torch
from registry_values import Numbers, Stream, decision_here

from autotune.data.apply import prepare
from autotune.errors import SpecError
from autotune.registry import open_registry
from autotune.resolve.best import best_config, best_loader
from autotune.resolve.distributed import Share, share_of
from autotune.resolve.resolution import AutotuneWarning
from autotune.spec import LoaderConfig

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3"}


@pytest.fixture(autouse=True)
def _no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", AutotuneWarning)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Make a home that knows two workers for Numbers, and holds a tar of them."""
    folder = tmp_path_factory.mktemp("home")
    dataset = Numbers(42)
    prepare(dataset, LoaderConfig(archive="tar"), archive_root=folder / "archives")
    with open_registry(folder) as registry:
        registry.save_decision(decision_here(dataset, LoaderConfig(num_workers=2).canonical(has_accelerator=False)))
    return folder


def epoch(loader):
    return torch.cat([indices for _, indices in loader]).tolist()


def check_divided(shares, count=42):
    assert sorted(index for share in shares for index in share) == list(range(count))


# Rank and world size


def test_given_ranks_divide_the_samples_and_shuffle_anew_each_epoch(home):
    arguments = {"home": home, "environ": {}, "batch_size": 4, "shuffle": True, "num_workers": 0, "world_size": 3}
    loaders = [best_loader(Numbers(42), rank=rank, **arguments) for rank in range(3)]
    epochs = [[epoch(loader) for loader in loaders] for _ in range(3)]
    for shares in epochs:
        check_divided(shares)
        assert {len(share) for share in shares} == {14}
    assert epochs[0] != epochs[1] != epochs[2]
    again = best_loader(Numbers(42), rank=0, **arguments)
    assert [epoch(again) for _ in range(3)] == [shares[0] for shares in epochs], "the seed is shared without talking"


def test_generator_of_the_caller_is_the_seed_of_the_shared_order(home):
    def shares(seed):
        generator = torch.Generator().manual_seed(seed)
        arguments = {"home": home, "environ": {}, "shuffle": True, "num_workers": 0, "generator": generator}
        return [epoch(best_loader(Numbers(42), rank=rank, world_size=2, **arguments)) for rank in range(2)]

    assert shares(3) == shares(3) != shares(4)
    check_divided(shares(3))


def test_torchrun_tells_rank_and_world_size(home):
    loader = best_loader(Numbers(42), home=home, environ=TORCHRUN)
    assert epoch(loader) == list(range(1, 42, 3))
    assert loader.num_workers == 1, "two workers are divided by three processes"
    resolution = best_config(Numbers(42), home=home, environ=TORCHRUN, batch_size=8)
    assert (resolution.world_size, resolution.global_batch_size) == (3, 24)
    assert "24 over all" in resolution.why[-1]


def test_the_global_batch_grows_with_the_world_where_none_is_pinned(home):
    sizes = [best_config(Numbers(42), home=home, environ=environ).global_batch_size for environ in ({}, TORCHRUN)]
    assert sizes == [32, 96]


def test_given_ranks_win_over_torchrun_and_a_world_of_one_divides_nothing(home):
    arguments = {"home": home, "environ": TORCHRUN, "num_workers": 0}
    assert epoch(best_loader(Numbers(42), rank=0, world_size=2, **arguments)) == list(range(0, 42, 2))
    assert epoch(best_loader(Numbers(42), rank=0, world_size=1, **arguments)) == list(range(42))


def test_one_process_has_a_global_batch_of_its_own_size(home):
    resolution = best_config(Numbers(42), home=home, environ={}, batch_size=8)
    assert (resolution.world_size, resolution.global_batch_size) == (1, 8)
    assert not any("ranks" in reason for reason in resolution.why)


def test_sampler_of_the_caller_and_iterable_datasets_are_left_alone(home):
    arguments = {"home": home, "environ": {}, "rank": 1, "world_size": 2, "num_workers": 0}
    assert epoch(best_loader(Numbers(42), sampler=[5, 3], **arguments)) == [5, 3]
    assert torch.cat(list(best_loader(Stream(20), **arguments))).tolist() == list(range(20))


def test_an_archive_in_streaming_order_is_divided_too(home):
    arguments = {"home": home, "environ": {}, "order": "streaming", "archive": "tar", "num_workers": 0}
    arguments["stored"] = "decoded"
    loaders = [best_loader(Numbers(42), rank=rank, world_size=3, shuffle=True, **arguments) for rank in range(3)]
    for _ in range(2):
        check_divided([epoch(loader) for loader in loaders])
    assert epoch(best_loader(Numbers(42), **arguments)) == list(range(42))


@pytest.mark.parametrize(
    ("rank", "world_size"), [(0, None), (None, 2), (2, 2), (-1, 2), (0, 0), ("0", 2), (0, 2.0), (True, 2)]
)
def test_a_share_that_makes_no_sense_is_refused(home, rank, world_size):
    with pytest.raises(SpecError, match=r"rank|world_size"):
        best_loader(Numbers(42), home=home, rank=rank, world_size=world_size)


@pytest.mark.parametrize(
    "changed",
    [{"TORCHELASTIC_RUN_ID": ""}, {"RANK": "x"}, {"RANK": "3"}, {"WORLD_SIZE": ""}, {"RANK": ""}],
)
def test_variables_of_other_launchers_divide_nothing(changed):
    assert share_of(None, None, environ={**TORCHRUN, **changed}) == Share(0, 1)
