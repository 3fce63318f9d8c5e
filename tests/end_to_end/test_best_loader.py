"""`best_loader` hands out plain loaders that give the dataset's samples, whatever was decided."""

import shutil
import subprocess
import sys
import warnings

import pytest
import torch
from registry_values import START, Numbers, Stream, decision_here, record
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, SequentialSampler

from autotune.data.apply import prepare
from autotune.data.facts import dataset_facts
from autotune.errors import RegistryError, SpecError
from autotune.machine import machine_facts
from autotune.registry import open_registry
from autotune.resolve.best import best_config, best_loader
from autotune.resolve.explain import best_of_study, explain
from autotune.resolve.resolution import AutotuneWarning
from autotune.spec import LoaderConfig

CONFIGS = {
    "files": LoaderConfig(),
    "workers": LoaderConfig(num_workers=2, prefetch_factor=3),
    "memory": LoaderConfig(cache="memory"),
    "memory half, workers": LoaderConfig(cache="memory", cache_fraction=0.5, num_workers=2),
    "npy": LoaderConfig(archive="npy"),
    "tar decoded, memory": LoaderConfig(archive="tar", stored="decoded", cache="memory"),
    "npy, workers": LoaderConfig(archive="npy", num_workers=1),
}


@pytest.fixture
def served(tmp_path):
    """Make a home whose registry serves a configuration for a dataset, its archive built."""

    def serve(dataset, config, *, build=True, **changes):
        if build and config.archive != "files":
            prepare(dataset, config, archive_root=tmp_path / "archives")
        with open_registry(tmp_path) as registry:
            registry.save_decision(decision_here(dataset, config.canonical(has_accelerator=False), **changes))
        return tmp_path

    return serve


@pytest.fixture(autouse=True)
def _no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", AutotuneWarning)
        yield


def _same(batches, expected):
    batches, expected = list(batches), list(expected)
    assert len(batches) == len(expected)
    for (values, indices), (values_too, indices_too) in zip(batches, expected, strict=True):
        assert values.dtype == values_too.dtype
        assert torch.equal(values, values_too)
        assert torch.equal(indices, indices_too)


@pytest.mark.parametrize("name", CONFIGS)
def test_samples_and_seeded_order_are_those_of_the_plain_loader(served, name):
    dataset = Numbers(41)
    home = served(dataset, CONFIGS[name])
    loader = best_loader(dataset, home=home, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(3))
    assert type(loader) is DataLoader
    assert loader.num_workers == CONFIGS[name].num_workers
    plain = DataLoader(dataset, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(3))
    for _ in range(2):
        _same(loader, plain)
    _same(best_loader(dataset, home=home, batch_size=8), DataLoader(dataset, batch_size=8))


def test_resolution_tells_what_the_loader_does(served):
    dataset = Numbers()
    home = served(dataset, CONFIGS["workers"])
    resolution = best_config(dataset, home=home)
    loader = best_loader(dataset, home=home)
    assert resolution.match == "exact"
    assert resolution.config == CONFIGS["workers"].canonical(has_accelerator=False)
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (2, 3, True)
    assert loader.batch_size == 32


def test_callers_arguments_are_respected(served):
    dataset = Numbers(41)
    home = served(dataset, CONFIGS["workers"])
    generator = torch.Generator()
    loader = best_loader(
        dataset,
        home=home,
        batch_size=4,
        num_workers=1,
        persistent_workers=False,
        drop_last=True,
        collate_fn=len,
        generator=generator,
        worker_init_fn=_init,
        timeout=60,
    )
    assert (loader.batch_size, loader.num_workers, loader.persistent_workers) == (4, 1, False)
    assert (loader.collate_fn, loader.generator, loader.worker_init_fn, loader.timeout) == (len, generator, _init, 60)
    assert list(loader) == [4] * 10


def _init(number):
    assert number == 0


def test_collate_of_the_caller_gets_a_list_of_samples_behind_archive_and_cache(served):
    dataset = Numbers(10)
    home = served(dataset, LoaderConfig(archive="npy", cache="memory"))
    for batch in best_loader(dataset, home=home, batch_size=5, collate_fn=list):
        assert [int(index) for _, index in batch] in ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9])


@pytest.mark.parametrize("name", ["files", "workers", "npy", "memory"])
def test_sampler_and_batch_sampler_give_the_order(served, name):
    dataset = Numbers(20)
    home = served(dataset, CONFIGS[name])
    backwards = best_loader(dataset, home=home, batch_size=6, sampler=list(range(19, -1, -1)))
    assert torch.cat([indices for _, indices in backwards]).tolist() == list(range(19, -1, -1))
    batches = BatchSampler(SequentialSampler(dataset), batch_size=7, drop_last=True)
    loader = best_loader(dataset, home=home, batch_sampler=batches)
    assert [indices.tolist() for _, indices in loader] == [list(range(7)), list(range(7, 14))]
    assert loader.batch_sampler is batches


def test_contradicting_arguments_are_refused_as_torch_does(tmp_path):
    dataset = Numbers()
    sampler = RandomSampler(dataset)
    batches = BatchSampler(sampler, 4, drop_last=False)
    with pytest.raises(SpecError, match="excludes shuffle"):
        best_loader(dataset, home=tmp_path, shuffle=True, sampler=sampler)
    with pytest.raises(SpecError, match="excludes batch_size"):
        best_loader(dataset, home=tmp_path, batch_size=3, batch_sampler=batches)
    with pytest.raises(SpecError, match="own order"):
        best_loader(Stream(), home=tmp_path, shuffle=True)


def test_any_loader_class_is_used(served):
    class Mine(DataLoader):
        pass

    dataset = Numbers()
    loader = best_loader(dataset, home=served(dataset, CONFIGS["memory"]), loader_class=Mine)
    assert type(loader) is Mine
    _same(loader, DataLoader(dataset, batch_size=32))


def test_arguments_that_need_workers_do_not_stop_training_when_there_are_none(served):
    dataset = Numbers()
    loader = best_loader(dataset, home=served(dataset, CONFIGS["files"]), timeout=5, multiprocessing_context="fork")
    _same(loader, DataLoader(dataset, batch_size=32))


def test_iterable_dataset_is_served_once_and_repeats_are_warned_of(tmp_path):
    open_registry(tmp_path).close()
    loader = best_loader(Stream(), home=tmp_path, batch_size=6)
    assert torch.cat(list(loader)).tolist() == list(range(20))
    assert torch.cat(list(best_loader(Stream(), home=tmp_path, num_workers=1))).tolist() == list(range(20))
    with pytest.warns(AutotuneWarning, match="more than once"):
        assert best_loader(Stream(), home=tmp_path, num_workers=2).num_workers == 2


def test_archive_that_is_missing_falls_back_to_the_best_measured_without_it(served):
    dataset = Numbers()
    home = served(dataset, LoaderConfig(archive="npy", num_workers=2), build=False)
    here = {"machine": machine_facts(), "dataset": dataset_facts(dataset)}
    with open_registry(home) as registry:
        for workers, rate in ((1, 50.0), (0, 10.0)):
            config = LoaderConfig(num_workers=workers).canonical(has_accelerator=False)
            registry.save_record(record(f"w{workers}", rate=rate, config=config, **here))
    with pytest.warns(AutotuneWarning, match="archive=files instead"):
        loader = best_loader(dataset, home=home)
    assert loader.dataset is dataset
    assert loader.num_workers == 1
    _same(loader, DataLoader(dataset, batch_size=32))
    assert not (home / "archives").exists()


def test_archive_that_is_missing_is_built_when_asked_for(served):
    dataset = Numbers()
    home = served(dataset, LoaderConfig(archive="npy"), build=False)
    loader = best_loader(dataset, home=home, archive="build")
    assert loader.dataset is not dataset
    _same(loader, DataLoader(dataset, batch_size=32))


@pytest.mark.parametrize("unknown", [{"decoder": "fast"}])
def test_training_goes_on_when_the_registry_names_what_is_not_offered_here(served, unknown):
    dataset = Numbers()
    home = served(dataset, LoaderConfig(num_workers=1, **unknown))
    with pytest.warns(AutotuneWarning, match=f"{next(iter(unknown))}=.* instead"):
        loader = best_loader(dataset, home=home)
    assert loader.num_workers == 1
    _same(loader, DataLoader(dataset, batch_size=32))


def test_decoder_of_the_caller_that_is_not_offered_is_refused(served):
    dataset = Numbers()
    with pytest.raises(SpecError, match="decoder must be one"):
        best_loader(dataset, home=served(dataset, CONFIGS["files"]), decoder="fast")


def _flip(home):
    for path in (home / "archives").rglob("*.npy"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)


def _cut(home):
    for path in (home / "archives").rglob("*"):
        if path.is_file() and path.suffix != ".json":
            path.write_bytes(path.read_bytes()[:-5])


def _remove(home):
    shutil.rmtree(home / "archives")


@pytest.mark.fault(23)
@pytest.mark.parametrize("damage", [_flip, _cut, _remove], ids=lambda damage: damage.__name__)
def test_damaged_archive_is_not_read(served, damage):
    dataset = Numbers()
    home = served(dataset, LoaderConfig(archive="npy", cache="memory"))
    damage(home)
    with pytest.warns(AutotuneWarning, match="archive=files"):
        loader = best_loader(dataset, home=home)
    _same(loader, DataLoader(dataset, batch_size=32))


@pytest.mark.fault(32)
def test_stale_archive_is_not_read(served):
    dataset = Numbers()
    home = served(dataset, LoaderConfig(archive="npy"))
    dataset.fingerprint = lambda: "changed"
    with pytest.warns(AutotuneWarning, match="archive=files"):
        loader = best_loader(dataset, home=home)
    assert loader.dataset is dataset


@pytest.mark.fault(30)
def test_best_from_other_hardware_is_never_served(served):
    dataset = Numbers()
    other = machine_facts().replace(accelerator="H100", accelerator_count=8, cpu_count=192)
    home = served(dataset, LoaderConfig(num_workers=64), machine=other)
    resolution = best_config(dataset, home=home)
    assert (resolution.match, resolution.config) == ("default", LoaderConfig())
    assert resolution.why[0].startswith("measured on another machine")
    assert best_loader(dataset, home=home).num_workers == 0


@pytest.mark.fault(30)
def test_empty_dataset_and_dataset_smaller_than_a_batch_are_loaded(served):
    home = served(Numbers(3), CONFIGS["files"])
    assert [len(indices) for _, indices in best_loader(Numbers(3), home=home)] == [3]
    assert list(best_loader(Numbers(0), home=home)) == []
    assert "empty" in best_config(Numbers(0), home=home).why[0]


def test_storage_address_of_the_environment_is_used(served, tmp_path):
    dataset = Numbers()
    home = served(dataset, CONFIGS["workers"])
    environ = {"AUTOTUNE_STORAGE": f"sqlite:///{home / 'registry.db'}"}
    assert best_config(dataset, home=tmp_path / "empty", environ=environ).match == "exact"
    with pytest.warns(AutotuneWarning, match="SQLite file or a PostgreSQL"):
        assert best_config(dataset, home=home, environ={"AUTOTUNE_STORAGE": "mysql://h/db"}).match == "default"


def test_processes_that_share_a_machine_divide_the_workers(served):
    dataset = Numbers()
    home = served(dataset, LoaderConfig(num_workers=2))
    resolution = best_config(dataset, home=home, environ={"LOCAL_WORLD_SIZE": "2"})
    assert (resolution.config.num_workers, resolution.match) == (1, "near")
    assert best_config(dataset, home=home, environ={"LOCAL_WORLD_SIZE": "nonsense"}).config.num_workers == 2


def test_explanation_says_what_was_measured_against_what_and_how_far_to_trust_it(served):
    dataset = Numbers()
    home = served(dataset, LoaderConfig(num_workers=2), decided_at=START)
    here = {"machine": machine_facts(), "dataset": dataset_facts(dataset)}
    with open_registry(home) as registry:
        registry.save_record(record("a", rate=150.0, config=LoaderConfig(num_workers=1), **here))
        registry.save_record(record("b", failure="device_memory", config=LoaderConfig(batch_size=512), **here))
    for explanation in (explain(dataset, home=home), explain("s", home=home)):
        text = str(explanation)
        for part in (
            "configuration: batch 32, workers 2",
            "match: exact",
            "200 samples/s",
            "against: 100 samples/s",
            "2.00 times, 95 % interval 1.90 to 2.10, 5 interleaved pairs",
            machine_facts().machine_class,
            f"torch {machine_facts().versions['torch']}",
            "trust: it was measured on this class of machine",
            "alternative: 150 samples/s (1 run): batch 32, workers 1",
            "not possible: batch 512, workers 0, files: device memory",
        ):
            assert part in text
    assert best_of_study("s", home=home).config.num_workers == 2
    assert "match: default" in explain(Numbers(scale=7), home=home).lines
    assert "no registry" in str(explain(dataset, home=home / "absent"))
    with pytest.raises(RegistryError, match="has no decision"):
        explain("unknown", home=home)


def test_best_loader_loads_torch_and_sqlalchemy_alone_of_the_heavy_libraries(served):
    home = served(Numbers(9), LoaderConfig(num_workers=1, archive="npy", cache="memory"))
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from registry_values import Numbers; from autotune.resolve.best import best_loader\n"
        "dataset = Numbers(9); loader = best_loader(dataset, home=sys.argv[1], batch_size=4)\n"
        "assert loader.dataset is not dataset and loader.num_workers == 1\n"
        "assert [len(batch[0]) for batch in loader] == [4, 4, 1]\n"
        "heavy = {'optuna', 'mlflow', 'alembic', 'rasterio', 'scipy', 'plotly', 'pandas', 'optuna_dashboard'}\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "assert 'sqlalchemy' in loaded\n"
        "assert not heavy & loaded, heavy & loaded\n"
    )
    subprocess.run([sys.executable, "-c", script, str(home), *sys.path], check=True, timeout=120)


class _Reversed(Sampler):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return iter(range(self.count - 1, -1, -1))

    def __len__(self):
        return self.count


def test_samplers_without_a_batch_size_leave_it_to_the_sampler(served):
    dataset = Numbers(4)
    home = served(dataset, CONFIGS["memory"])
    loader = best_loader(dataset, home=home, batch_sampler=[[0, 1], [2, 3]])
    assert [indices.tolist() for _, indices in loader] == [[0, 1], [2, 3]]
    assert [indices.tolist() for _, indices in best_loader(dataset, home=home, sampler=_Reversed(4))] == [[3, 2, 1, 0]]
