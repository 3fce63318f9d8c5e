"""Which archive `best_loader` reads: what is built, what is to be built, none, or a format by name."""

import gc
import os
import warnings
import weakref

import pytest
import torch
from data_sets import FileDataset, write_files
from registry_values import Numbers, decision_here, record
from torch.utils.data import DataLoader, IterableDataset

from autotune.data.apply import prepare
from autotune.data.archives.listing import list_archives
from autotune.data.archives.pruning import remove_archive
from autotune.data.archives.store import open_or_build
from autotune.data.facts import dataset_facts, samples_equal
from autotune.errors import SpecError
from autotune.machine import machine_facts
from autotune.registry import open_registry
from autotune.resolve.best import best_config, best_loader
from autotune.resolve.explain import explain
from autotune.resolve.resolution import AutotuneWarning
from autotune.spec import LoaderConfig

BEST = LoaderConfig(archive="npy", num_workers=2)
RATES = {
    LoaderConfig(archive="npy", num_workers=2): 200.0,
    LoaderConfig(archive="npy", num_workers=0): 150.0,
    LoaderConfig(archive="hdf5", stored="decoded", num_workers=1): 120.0,
    LoaderConfig(archive="tar", stored="decoded", num_workers=1): 80.0,
    LoaderConfig(num_workers=1): 50.0,
    LoaderConfig(): 10.0,
}


@pytest.fixture(autouse=True)
def _no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", AutotuneWarning)
        yield


class Home:
    """A home folder with a study's decision and measurements, and archives as a test builds them."""

    def __init__(self, folder):
        self.folder, self.root = folder, folder / "archives"

    def study(self, dataset, config, rates=RATES, *, study="s", **changes):
        here = {"machine": machine_facts(), "dataset": dataset_facts(dataset), "study": study}
        with open_registry(self.folder) as registry:
            for place, (measured, rate) in enumerate(rates.items()):
                canonical = measured.canonical(has_accelerator=False)
                registry.save_record(record(f"{study} {place}", rate=rate, config=canonical, **here))
            canonical = config.canonical(has_accelerator=False)
            registry.save_decision(decision_here(dataset, canonical, study=study, samples_per_s=200.0, **changes))

    def build(self, dataset, *formats):
        for name in formats:
            prepare(dataset, LoaderConfig(archive=name, stored="decoded"), archive_root=self.root)

    @property
    def built(self):
        return {entry.name.partition("/")[2] for entry in list_archives(self.root)}


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def reads_from(loader):
    """Name the archive that a loader reads; plain files are the dataset itself."""
    hold = getattr(loader.dataset, "_hold", None)
    return "files" if hold is None else hold._directory.name


def same(loader, dataset):
    plain = DataLoader(dataset, batch_size=32)
    assert samples_equal([tuple(batch) for batch in loader], [tuple(batch) for batch in plain])


def told(dataset, home, **settings):
    """Give the loader and the one warning that came with it."""
    with pytest.warns(AutotuneWarning) as caught:
        loader = best_loader(dataset, home=home.folder, **settings)
    messages = [str(one.message) for one in caught if issubclass(one.category, AutotuneWarning)]
    assert len(messages) == 1, messages
    return loader, messages[0]


def test_the_deployed_archive_is_read_where_it_is_built(home):
    dataset = Numbers()
    home.study(dataset, BEST)
    home.build(dataset, "npy")
    loader = best_loader(dataset, home=home.folder)
    assert (reads_from(loader), loader.num_workers) == ("npy-decoded", 2)
    same(loader, dataset)


def test_without_any_archive_the_best_on_plain_files_is_served_and_what_building_would_bring_is_said(home):
    dataset = Numbers()
    home.study(dataset, BEST)
    loader, message = told(dataset, home)
    assert (loader.dataset, loader.num_workers) == (dataset, 1)
    for part in (
        "archive=files instead of npy-decoded",
        "no archive",
        "4.00 times as fast",
        "200 samples/s",
        "50 samples/s",
        "autotune archive build",
        "archive='build'",
        "(about ",
    ):
        assert part in message
    assert home.built == set()
    same(loader, dataset)


def test_the_next_best_archive_that_is_built_is_served(home):
    dataset = Numbers()
    home.study(dataset, BEST)
    home.build(dataset, "tar", "hdf5")
    loader, message = told(dataset, home)
    assert (reads_from(loader), loader.num_workers) == ("hdf5-decoded", 1)
    assert "archive=hdf5 instead of npy-decoded" in message
    assert "1.67 times as fast" in message
    same(loader, dataset)


def test_what_is_built_is_found_behind_any_number_of_runs_of_what_is_not(home):
    dataset = Numbers()
    home.study(dataset, BEST)
    home.build(dataset, "tar")
    with open_registry(home.folder) as registry:
        for place in range(250):  # as a year of nightly runs leaves them
            npy = record(
                f"again {place}",
                rate=200.0,
                config=BEST.canonical(has_accelerator=False),
                machine=machine_facts(),
                dataset=dataset_facts(dataset),
            )
            registry.save_record(npy)
    loader, message = told(dataset, home)
    assert (reads_from(loader), loader.num_workers) == ("tar-decoded", 1)
    assert "2.50 times as fast" in message


@pytest.mark.parametrize("pins", [{}, {"archive": "npy"}, {"num_workers": 2, "multiprocessing_context": "fork"}])
def test_a_cache_that_cannot_be_had_is_given_up_and_the_archive_below_it_stays(home, pins):
    dataset = Numbers()
    home.study(dataset, BEST)
    home.build(dataset, "npy")
    loader, message = told(dataset, home, cache="device", **pins)
    assert (reads_from(loader), loader.num_workers) == ("npy-decoded", 2)
    assert message.startswith("cache=none instead: cache 'device' needs an accelerator")
    assert "archive build" not in message
    same(loader, dataset)


def test_an_archive_that_was_measured_slower_is_not_recommended(home):
    dataset = Numbers()
    home.study(dataset, BEST, {**RATES, LoaderConfig(num_workers=4): 260.0})
    _, message = told(dataset, home)
    assert "times as fast" not in message


def test_explain_says_whether_the_archive_is_built(home):
    dataset = Numbers()
    home.build(dataset, "npy")
    (entry,) = list_archives(home.root)
    home.study(dataset, BEST, fingerprint=entry.name.partition("/")[0])
    assert "archive: npy-decoded is built" in str(explain(dataset, home=home.folder))
    remove_archive(home.root, entry.name)
    assert "archive: npy-decoded is not built, so best_loader takes" in str(explain(dataset, home=home.folder))
    assert "archive: " not in str(explain(dataset, home=home.folder, archive="files"))


def test_archives_of_another_dataset_are_not_taken_for_built(home):
    dataset = Numbers()
    home.study(dataset, BEST)
    home.build(Numbers(scale=3), "npy", "tar")
    loader, _ = told(dataset, home)
    assert loader.dataset is dataset


def test_building_makes_the_best_archive_and_says_nothing(home):
    dataset = Numbers()
    home.study(dataset, BEST)
    home.build(dataset, "tar")
    loader = best_loader(dataset, home=home.folder, archive="build")
    assert reads_from(loader) == "npy-decoded"
    assert home.built == {"npy-decoded", "tar-decoded"}
    same(loader, dataset)
    assert reads_from(best_loader(dataset, home=home.folder)) == "npy-decoded"


def test_ignoring_archives_takes_the_best_on_plain_files(home):
    dataset = Numbers()
    home.study(dataset, BEST)
    home.build(dataset, "npy", "tar")
    loader = best_loader(dataset, home=home.folder, archive="ignore")
    assert (loader.dataset, loader.num_workers) == (dataset, 1)


def test_a_format_by_name_is_a_pin(home):
    dataset = Numbers()
    home.study(dataset, BEST)
    home.build(dataset, "npy", "tar")
    loader = best_loader(dataset, home=home.folder, archive="tar")
    assert (reads_from(loader), loader.num_workers) == ("tar-decoded", 1)
    missing, message = told(dataset, home, archive="hdf5")
    assert missing.dataset is dataset
    assert "archive=files instead of hdf5-decoded" in message


def test_an_unknown_word_is_refused_with_those_that_are_known(home):
    with pytest.raises(SpecError, match="if_built, build, ignore or one of the formats"):
        best_loader(Numbers(), home=home.folder, archive="zip")


def test_a_limit_that_leaves_no_room_steps_back_and_removes_nothing_deployed(home):
    dataset, other = Numbers(), Numbers(scale=5)
    home.study(dataset, BEST)
    home.build(other, "npy")
    (entry,) = list_archives(home.root)
    home.study(other, BEST, study="other", fingerprint=entry.name.partition("/")[0])
    environ = {**os.environ, "AUTOTUNE_ARCHIVE_LIMIT": f"{int(entry.size_bytes * 1.5)}B"}
    loader, message = told(dataset, home, archive="build", environ=environ)
    assert loader.dataset is dataset
    assert "deployed" in message
    assert [one.name for one in list_archives(home.root)] == [entry.name]


@pytest.mark.fault(23)
@pytest.mark.parametrize("damage", ["truncate", "flip", "drop", "manifest"])
def test_a_damaged_archive_is_not_read_and_the_next_best_is(home, damage):
    dataset = Numbers()
    home.study(dataset, BEST)
    home.build(dataset, "npy", "tar")
    (folder,) = home.root.glob("*/npy-decoded")
    path = max(folder.glob("*.npy"), key=lambda file: file.stat().st_size)
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(data[:-1])
    elif damage == "flip":
        data[-1] ^= 1
        path.write_bytes(data)
    elif damage == "drop":
        path.unlink()
    else:
        (folder / "manifest.json").write_text("[]")
    loader, message = told(dataset, home)
    assert reads_from(loader) == "tar-decoded"
    assert "archive=tar instead of npy-decoded" in message
    assert "build" in message
    same(loader, dataset)
    rebuilt = best_loader(dataset, home=home.folder, archive="build")
    assert reads_from(rebuilt) == "npy-decoded"
    same(rebuilt, dataset)


@pytest.mark.fault(23)
def test_several_damaged_archives_lead_down_to_plain_files(home):
    dataset = Numbers()
    home.study(dataset, BEST)
    home.build(dataset, "npy", "hdf5", "tar")
    for path in home.root.glob("*/*-decoded/*"):
        if path.name not in ("manifest.json", "checked.json"):
            path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(AutotuneWarning) as caught:
        loader = best_loader(dataset, home=home.folder)
    assert loader.dataset is dataset
    messages = [str(one.message) for one in caught if issubclass(one.category, AutotuneWarning)]
    assert [message.partition(":")[0] for message in messages] == [
        "archive=hdf5 instead of npy-decoded",
        "archive=tar instead of hdf5-decoded",
        "archive=files instead of tar-decoded",
    ]


@pytest.mark.parametrize("built", [(), ("tar",)])
def test_a_loader_after_a_step_back_goes_with_its_last_name_and_not_at_some_collection(home, built):
    dataset = Numbers()
    home.study(dataset, BEST)
    home.build(dataset, *built)
    gc.collect()
    gc.disable()
    try:
        loader, _ = told(dataset, home)
        gone = weakref.ref(loader)
        del loader
        assert gone() is None
    finally:
        gc.enable()


class TwoFields(FileDataset):
    """Files with their numbers, as a batch of two tensors."""

    def __getitem__(self, index):
        return super().__getitem__(index), index


@pytest.mark.fault(32)
@pytest.mark.parametrize("change", ["touch", "add", "remove"])
def test_an_archive_of_a_changed_source_is_not_read_and_it_is_said(home, change, tmp_path):
    paths = write_files(tmp_path / "source")
    home.study(TwoFields(paths), BEST)
    home.build(TwoFields(paths), "npy")
    if change == "touch":
        os.utime(paths[1], ns=(1, 1))
    elif change == "add":
        paths = [*paths, *write_files(tmp_path / "more", 1)]
    else:
        paths = paths[:-1]
    dataset = TwoFields(paths)
    loader, message = told(dataset, home)
    assert loader.dataset is dataset
    assert "the source has changed" in message
    same(best_loader(dataset, home=home.folder, archive="build"), dataset)


@pytest.mark.fault(31)
@pytest.mark.parametrize("damage", ["absent", "truncated"])
def test_without_a_registry_the_default_is_served_whatever_is_built(home, damage):
    dataset = Numbers()
    home.study(dataset, BEST)
    home.build(dataset, "npy")
    path = home.folder / "registry.db"
    for extra in home.folder.glob("registry.db-*"):
        extra.unlink()
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:1000])
    for policy in ("if_built", "build"):
        loader, message = told(dataset, home, archive=policy)
        assert "default configuration" in message
        assert (loader.dataset, loader.num_workers) == (dataset, 0)
    assert home.built == {"npy-decoded"}


# Streaming: another way of sampling, never swapped in

STREAMED = LoaderConfig(archive="tar", stored="decoded", order="streaming", num_workers=1)


def test_a_decision_that_streams_is_not_served_unless_asked_for(home):
    dataset = Numbers()
    home.study(dataset, STREAMED, {**RATES, STREAMED: 900.0})
    home.build(dataset, "tar", "npy")
    loader = best_loader(dataset, home=home.folder, shuffle=True)
    assert not isinstance(loader.dataset, IterableDataset)
    assert reads_from(loader) == "npy-decoded"
    assert best_config(dataset, home=home.folder).config.order == "map"


def test_a_decision_that_does_not_stream_is_preferred_to_a_newer_one_that_does(home):
    dataset = Numbers()
    home.study(dataset, BEST, study="by index")
    home.study(dataset, STREAMED, {STREAMED: 900.0}, study="streamed", minute=9)
    home.build(dataset, "tar", "npy")
    assert best_config(dataset, home=home.folder).study == "by index"
    assert best_config(dataset, home=home.folder, order="streaming").study == "streamed"


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_is_served_and_said_where_it_is_asked_for(home, workers):
    dataset = Numbers(41)
    home.study(dataset, STREAMED, {STREAMED: 900.0})
    home.build(dataset, "tar")
    loader = best_loader(dataset, home=home.folder, shuffle=True, order="streaming", num_workers=workers)
    assert isinstance(loader.dataset, IterableDataset)
    assert loader.num_workers == workers
    for _ in range(2):
        assert sorted(torch.cat([indices for _, indices in loader]).tolist()) == list(range(41))
    why = best_config(dataset, home=home.folder, order="streaming").why
    assert any("through a shuffle buffer" in reason for reason in why)


def test_streaming_from_an_archive_that_is_not_built_steps_back_to_samples_by_index(home):
    dataset = Numbers()
    home.study(dataset, STREAMED, {**RATES, STREAMED: 900.0})
    loader, message = told(dataset, home, order="streaming")
    assert loader.dataset is dataset
    assert "archive=files, order=map instead of tar-decoded" in message


def test_streaming_excludes_a_sampler(home):
    with pytest.raises(SpecError, match="excludes sampler"):
        best_loader(Numbers(), home=home.folder, order="streaming", sampler=[0, 1])


def test_an_iterable_dataset_cannot_be_streamed_from_an_archive(home):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(3))

    with pytest.raises(SpecError, match="leave order out"):
        best_loader(Stream(), home=home.folder, order="streaming")


def test_an_opened_archive_survives_a_prune_while_the_loader_lives(home):
    dataset = Numbers()
    home.study(dataset, BEST)
    home.build(dataset, "npy")
    loader = best_loader(dataset, home=home.folder)
    (size,) = {entry.size_bytes for entry in list_archives(home.root)}
    open_or_build(Numbers(scale=9), LoaderConfig(archive="npy"), home.root, limit_bytes=3 * size)
    open_or_build(Numbers(scale=8), LoaderConfig(archive="npy"), home.root, limit_bytes=3 * size)
    same(loader, dataset)
