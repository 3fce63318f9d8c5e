"""The calibrator serves what is known, measures once where nothing is, and never stops training."""

import logging
import warnings
from threading import Lock

import pytest
import torch
from registry_values import Numbers, Stream, decision_here
from torch.utils.data import DataLoader, Dataset, TensorDataset

from autotune.errors import SpecError
from autotune.home import lock_file
from autotune.loaders.calibration import (
    DataLoaderCalibrator,
    create_calibrated_dataloader,
    create_calibrated_train_val_dataloaders,
)
from autotune.registry import open_existing, open_registry
from autotune.resolve.resolution import AutotuneWarning
from autotune.spec import LoaderConfig
from autotune.study.lock import machine_lock

QUICK = {
    "budget": "2s",
    "trials": 2,
    "progress": False,
    "time_cap_s": 0.2,
    "confirm_time_cap_s": 0.2,
    "space": {"batch_size": 8, "num_workers": [0, 1], "cache": "none", "archive": "files"},
}
KNOWN = LoaderConfig(num_workers=2, prefetch_factor=3)


@pytest.fixture
def known(tmp_path):
    """Make a home that knows a configuration for a dataset."""

    def know(dataset, config=KNOWN, **changes):
        with open_registry(tmp_path / "home") as registry:
            registry.save_decision(decision_here(dataset, config.canonical(has_accelerator=False), **changes))
        return tmp_path / "home"

    return know


@pytest.fixture
def colab(tmp_path):
    """Lay out a small Colab: one core by the control group's quota."""
    root = tmp_path / "root"
    group, proc = root / "cgroup", root / "proc/self"
    for folder in (group, proc):
        folder.mkdir(parents=True)
    (group / "cpu.max").write_text("100000 100000\n")
    (proc / "cgroup").write_text("0::/\n")
    (proc / "mountinfo").write_text(f"30 20 0:26 / {group} rw - cgroup2 cgroup2 rw\n")
    return root, {"COLAB_RELEASE_TAG": "release"}


def indices(loader):
    return torch.cat([numbers for _, numbers in loader]).tolist()


# What is known


def test_what_is_known_is_served_without_measuring(known):
    dataset = Numbers(40)
    calibrator = DataLoaderCalibrator(dataset, home=known(dataset), environ={})
    outcome = calibrator.calibrate()
    assert (outcome.measured, outcome.resolution.match) == (False, "exact")
    assert outcome.config.num_workers == 2
    assert str(outcome).startswith("configuration: batch 32, workers 2")
    loader = calibrator.create_dataloader(batch_size=8)
    assert type(loader) is DataLoader
    assert (loader.batch_size, loader.num_workers, loader.prefetch_factor) == (8, 2, 3)
    assert indices(loader) == list(range(40))
    assert "match: exact" in str(calibrator.explain())


def test_a_near_match_is_used(known):
    home = known(TensorDataset(torch.zeros(400, 3)))
    outcome = DataLoaderCalibrator(TensorDataset(torch.zeros(40, 3)), home=home, environ={}).calibrate()
    assert (outcome.measured, outcome.resolution.match) == (False, "near")


def test_pins_win(known):
    dataset = Numbers(40)
    loader = create_calibrated_dataloader(dataset, 4, home=known(dataset), num_workers=1, prefetch_factor=5)
    assert (loader.batch_size, loader.num_workers, loader.prefetch_factor) == (4, 1, 5)


def test_workers_that_the_environment_does_not_bear_are_taken_back(known, colab):
    dataset = Numbers(40)
    root, environ = colab
    calibrator = DataLoaderCalibrator(dataset, home=known(dataset), root=root, environ=environ)
    assert (calibrator.environment.name, calibrator.environment.max_workers) == ("colab", 1)
    outcome = calibrator.calibrate()
    assert outcome.limited
    assert outcome.config.num_workers == 1
    assert any("quota" in reason for reason in outcome.resolution.why)
    assert calibrator.create_dataloader().num_workers == 1
    assert calibrator.create_dataloader(num_workers=2).num_workers == 2, "a pin is the caller's own"


def test_a_dataset_smaller_than_a_batch_still_gives_one(known):
    dataset = Numbers(5)
    loader = create_calibrated_dataloader(dataset, home=known(dataset), drop_last=True)
    assert [len(numbers) for _, numbers in loader] == [5]


def test_shuffling_and_collating_are_the_callers(known):
    dataset = Numbers(20)
    generator = torch.Generator().manual_seed(3)
    loader = create_calibrated_dataloader(
        dataset, 4, True, True, home=known(dataset, LoaderConfig()), generator=generator, collate_fn=len
    )
    assert list(loader) == [4] * 5
    again = create_calibrated_dataloader(
        dataset, 4, True, home=known(dataset, LoaderConfig()), generator=torch.Generator().manual_seed(3)
    )
    plain = DataLoader(dataset, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3))
    assert indices(again) == indices(plain)


def test_validation_has_workers_and_batches_of_training_cut_down_to_its_size_and_not_its_cache(known):
    train, val = Numbers(40), Numbers(6)
    home = known(train, LoaderConfig(num_workers=2, prefetch_factor=3, cache="memory"))
    loaders = create_calibrated_train_val_dataloaders(
        train, val, 8, home=home, drop_last=True, generator=torch.Generator().manual_seed(0)
    )
    assert [(one.batch_size, one.num_workers, one.prefetch_factor) for one in loaders] == [(8, 2, 3), (6, 1, 3)]
    assert sorted(indices(loaders[0])) == list(range(40))
    assert indices(loaders[0]) != list(range(40))
    assert indices(loaders[1]) == list(range(6))
    assert [one.drop_last for one in loaders] == [True, False]
    assert [hasattr(one.dataset, "filled") for one in loaders] == [True, False]


def test_validation_without_workers_needs_no_word_on_prefetching(known):
    train, val = Numbers(40), Numbers(38)
    calibrator = DataLoaderCalibrator(train, home=known(train), progress=False)
    training = calibrator.create_dataloader(batch_size=8)
    for given in ({"num_workers": 0}, {"num_workers": 0, "prefetch_factor": None, "persistent_workers": None}):
        loader = calibrator.create_validation_dataloader(val, training, **given)
        assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (0, None, False)
        assert indices(loader) == list(range(38))
    alone = calibrator.create_dataloader(batch_size=8, num_workers=0)
    helped = calibrator.create_validation_dataloader(val, alone, num_workers=1)
    assert (helped.num_workers, helped.persistent_workers) == (1, True)


def test_validation_set_as_large_as_training_keeps_everything(known):
    train, val = Numbers(40), Numbers(38)
    loaders = create_calibrated_train_val_dataloaders(train, val, home=known(train), shuffle=False)
    assert [(one.batch_size, one.num_workers, one.prefetch_factor) for one in loaders] == [(32, 2, 3)] * 2
    assert indices(loaders[1]) == list(range(38))


def test_an_iterable_dataset_is_served(known):
    dataset = Stream(20)
    loader = create_calibrated_dataloader(dataset, 6, home=known(dataset, LoaderConfig()))
    assert torch.cat(list(loader)).tolist() == list(range(20))


# Nothing is known, and nothing can be measured: training goes on


def check_default(loader, count):
    assert (loader.batch_size, loader.num_workers) == (min(32, count), 0)
    assert indices(loader) == list(range(count))


@pytest.mark.fault
def test_another_tuning_job_does_not_stop_training(tmp_path):
    with machine_lock("something else", path=lock_file()), pytest.warns(AutotuneWarning, match="something else"):
        loader = create_calibrated_dataloader(Numbers(40), home=tmp_path, progress=False)
    check_default(loader, 40)


class Held(Numbers):
    """Holds what cannot be sent to another process."""

    def __init__(self):
        super().__init__(40)
        self.lock = Lock()


@pytest.mark.fault
def test_a_dataset_that_cannot_be_sent_does_not_stop_training(tmp_path):
    with pytest.warns(AutotuneWarning, match=r"cannot be sent|pickle"):
        loader = create_calibrated_dataloader(Held(), home=tmp_path, progress=False)
    check_default(loader, 40)


class Broken(Dataset):
    """Has samples, none of which can be read in a measuring process."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        raise OSError(5, "Input/output error", f"/drive/{index}.tif")


@pytest.mark.fault(12)
@pytest.mark.slow
def test_a_dataset_that_cannot_be_read_is_served_and_fails_with_its_own_error(tmp_path):
    with pytest.warns(AutotuneWarning, match="Input/output error"):
        loader = create_calibrated_dataloader(Broken(), home=tmp_path, progress=False)
    with pytest.raises(OSError, match="Input/output error"):
        next(iter(loader))


@pytest.mark.fault(30)
def test_an_empty_dataset_gives_no_batch(tmp_path):
    with pytest.warns(AutotuneWarning, match="empty"):
        loader = create_calibrated_dataloader(TensorDataset(torch.zeros(0, 3)), home=tmp_path, progress=False)
    assert list(loader) == []


@pytest.mark.fault
def test_ranks_without_a_process_group_do_not_measure_each_other(tmp_path):
    environ = {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    calibrator = DataLoaderCalibrator(Numbers(40), home=tmp_path, environ=environ, progress=False)
    with pytest.warns(AutotuneWarning, match="process group"):
        loader = calibrator.create_dataloader()
    assert indices(loader) == list(range(1, 40, 2))
    assert not (tmp_path / "registry.db").exists()


@pytest.mark.fault
def test_a_study_that_found_nothing_feasible_is_not_repeated(known):
    dataset = Numbers(40)
    home = known(dataset, study="Numbers-calibration", outcome="nothing_feasible", ratio=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AutotuneWarning)
        outcome = DataLoaderCalibrator(dataset, home=home, environ={}).calibrate()
    assert (outcome.measured, outcome.resolution.match) == (False, "default")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"budget": "soon"}, "soon"),
        ({"budget": 30}, "30"),
        ({"trials": 0}, "trials"),
        ({"space": {"num_workers": [-1]}}, "num_workers"),
        ({"page_cache": "hot"}, "page_cache"),
        ({"memory_limit": "lots"}, "lots"),
        ({"nmae": "x"}, "nmae"),
    ],
)
def test_settings_that_break_a_rule_are_refused_at_once(tmp_path, settings, told):
    with pytest.raises(SpecError, match=told):
        DataLoaderCalibrator(Numbers(), home=tmp_path, **settings)


def test_pins_that_contradict_each_other_are_refused(known):
    dataset = Numbers(40)
    with pytest.raises(SpecError, match="num_workers"):
        create_calibrated_dataloader(dataset, home=known(dataset), num_workers=0, prefetch_factor=2)


# Data on a network mount


class Files(Numbers):
    """Numbers that lie in a file."""

    def __init__(self, path):
        super().__init__(40)
        self.path = path

    def source_paths(self):
        return [self.path]


@pytest.fixture
def on_drive(tmp_path):
    """Give a dataset on a Drive mount, and the root that says so."""
    drive, proc = tmp_path / "drive", tmp_path / "root/proc/self"
    for folder in (drive, proc):
        folder.mkdir(parents=True)
    (drive / "numbers.bin").write_bytes(b"numbers")
    (proc / "mountinfo").write_text(f"30 20 0:26 / {drive} rw - fuse.drive drive rw\n")
    return Files(str(drive / "numbers.bin")), tmp_path / "root"


def test_a_local_archive_is_proposed_for_data_on_a_drive_mount_and_read_once_it_is_there(known, on_drive, caplog):
    dataset, root = on_drive
    calibrator = DataLoaderCalibrator(dataset, home=known(dataset), root=root, environ={})
    with caplog.at_level(logging.WARNING):
        outcome = calibrator.calibrate()
    assert len(outcome.proposals) == 1
    assert "Google Drive" in outcome.proposals[0]
    assert outcome.proposals[0] in caplog.text
    folder = calibrator.copy_to_local_disk()
    assert folder.is_relative_to(calibrator.home)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AutotuneWarning)
        loader = calibrator.create_dataloader()
    assert loader.dataset is not dataset, "it is read from the archive"
    assert indices(loader) == list(range(40))
    later = DataLoaderCalibrator(dataset, home=calibrator.home, root=root, environ={})
    assert (later.calibrate().proposals, later.calibrate().local_copy) == ((), "tar-decoded")
    assert later.create_dataloader(archive="ignore").dataset is dataset


def test_a_home_on_a_network_mount_is_told_too(on_drive, known):
    dataset, root = on_drive
    home = known(dataset)
    mounts = root / "proc/self/mountinfo"
    mounts.write_text(mounts.read_text() + f"31 20 0:27 / {home} rw - nfs4 server:/ rw\n")
    proposals = DataLoaderCalibrator(dataset, home=home, root=root, environ={}).calibrate().proposals
    assert len(proposals) == 2
    assert "AUTOTUNE_HOME" in proposals[1]


def test_nothing_is_proposed_where_the_configuration_reads_an_archive(known, on_drive):
    dataset, root = on_drive
    home = known(dataset, LoaderConfig(archive="npy"))
    assert DataLoaderCalibrator(dataset, home=home, root=root, environ={}).calibrate().proposals == ()


@pytest.mark.parametrize("archive", ["files", "zip"])
def test_a_local_copy_is_an_archive(tmp_path, archive):
    with pytest.raises(SpecError, match=f"got '{archive}'"):
        DataLoaderCalibrator(Numbers(), home=tmp_path).copy_to_local_disk(archive)


# Real quick studies


@pytest.mark.slow
@pytest.mark.long
def test_what_nobody_knows_is_measured_once_and_again_when_asked_to(tmp_path):
    dataset = TensorDataset(torch.arange(64.0).reshape(64, 1), torch.arange(64))
    decisions = []
    for expected, force in ((True, False), (False, False), (True, True)):
        calibrator = DataLoaderCalibrator(dataset, home=tmp_path, **QUICK)  # anew, as in another run of the script
        outcome = calibrator.calibrate(force=force)
        assert outcome.measured is expected
        assert outcome.resolution.match != "default"
        assert outcome.resolution.study == "TensorDataset-calibration"
        assert outcome.config.num_workers in (0, 1)
        decisions.append(outcome.resolution.decision_key)
    assert decisions[0] == decisions[1] != decisions[2]
    assert indices(calibrator.create_dataloader(batch_size=8)) == list(range(64))


@pytest.mark.long
def test_a_quick_study_measures_at_the_batch_size_that_is_served(tmp_path):
    dataset = TensorDataset(torch.arange(64.0).reshape(64, 1))
    space = {"num_workers": 0, "cache": ["none", "memory"], "archive": "files"}
    calibrator = DataLoaderCalibrator(dataset, home=tmp_path, **{**QUICK, "space": space})
    assert calibrator.create_dataloader(batch_size=4).batch_size == 4
    with open_existing(tmp_path) as registry:
        sizes = {record.config.batch_size for record in registry.records("TensorDataset-calibration")}
    assert sizes == {4}


@pytest.mark.long
def test_a_training_step_calibrates_the_batch_size_too(tmp_path):
    dataset = TensorDataset(torch.arange(64.0).reshape(64, 1))
    step = torch.nn.Linear(1, 1)
    calibrator = DataLoaderCalibrator(dataset, home=tmp_path, step=lambda batch: step(batch[0]), **QUICK)
    assert calibrator.calibrate().measured
    assert calibrator.create_dataloader().batch_size == 8, "the space has no other"


@pytest.mark.long
def test_a_quick_study_tries_no_more_workers_than_the_environment_bears(tmp_path, colab):
    root, environ = colab
    dataset = TensorDataset(torch.arange(64.0).reshape(64, 1))
    space = {"batch_size": 8, "cache": "none", "archive": "files"}
    calibrator = DataLoaderCalibrator(dataset, home=tmp_path, root=root, environ=environ, **{**QUICK, "space": space})
    assert calibrator.calibrate().measured
    with open_existing(tmp_path) as registry:
        workers = {record.config.num_workers for record in registry.records("TensorDataset-calibration")}
    assert workers <= {0, 1}
