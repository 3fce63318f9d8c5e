"""Measuring a given loader, keeping batches, and short studies with their tables and plots."""

import gc
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from data_sets import write_raster
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import autotune
from autotune.data.facts import samples_equal
from autotune.errors import CapacityError, DatasetError, SampleError, SpecError
from autotune.loaders import optimization_plots
from autotune.loaders.collating import CustomCollateFn
from autotune.loaders.factory import create_dataset
from autotune.loaders.general import DataLoaderConfig, EfficientDataLoader
from autotune.loaders.optimization import (
    OptimizationResult,
    _drawn,
    benchmark_dataloader,
    optimize_batch_size,
    optimize_dataloader,
    optimize_num_workers,
    prefetch_data,
)
from autotune.loaders.optimization_table import TableRow, tabulate
from autotune.registry import open_registry
from autotune.spec import (
    DatasetSource,
    Failure,
    Interval,
    LoaderConfig,
    Measurement,
    TrialRecord,
    Window,
    Workload,
)

SAMPLE_S = 0.004


class Sleepy(Dataset):
    """Takes a known time for each sample, and no CPU."""

    def __init__(self, count=64):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        time.sleep(SAMPLE_S)
        return torch.full((3,), float(index))


class Numbers(IterableDataset):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return iter(torch.arange(self.count))


def make_heights(folder, count=6):
    paths = []
    for number in range(count):
        values = np.random.default_rng(number).uniform(0, 40, (64, 64)).astype(np.float32)
        paths.append(write_raster(folder / f"{number}.tif", values))
    return create_dataset(paths, window=16)


# Measuring


def test_loading_and_processing_are_told_apart():
    loader = DataLoader(Sleepy(), batch_size=4)
    found = benchmark_dataloader(loader, process=lambda _: time.sleep(0.008), time_cap_s=1.0)
    # sleeping takes at least as long as was asked for, and nothing here bounds it from above
    assert found.loading_s >= 4 * SAMPLE_S
    assert found.processing_s >= 0.008
    assert found.samples_per_s.low <= found.samples_per_s.mean <= found.samples_per_s.high
    assert found.samples_per_s.mean <= 4 / (4 * SAMPLE_S + 0.008)
    assert found.loading_share == pytest.approx(found.loading_s / (found.loading_s + found.processing_s))
    assert (found.batch_size, found.num_workers, found.device) == (4, 0, "cpu")
    assert found.samples == 4 * found.batches
    assert type(found).from_json(found.to_json()) == found


def test_processing_is_next_to_nothing_without_a_process():
    found = benchmark_dataloader(DataLoader(Sleepy(), batch_size=8), time_cap_s=0.6)
    assert found.loading_share > 0.9


def test_workers_hide_loading_behind_processing():
    process_s = 12 * SAMPLE_S
    loader = DataLoader(Sleepy(96), batch_size=4, num_workers=2, persistent_workers=True)
    found = benchmark_dataloader(loader, process=lambda _: time.sleep(process_s), time_cap_s=1.0)
    plain = benchmark_dataloader(
        DataLoader(Sleepy(96), batch_size=4), process=lambda _: time.sleep(process_s), time_cap_s=1.0
    )
    assert found.num_workers == 2
    assert found.loading_s < plain.loading_s


def test_a_process_gets_every_batch_of_the_loader():
    seen = []
    found = benchmark_dataloader(DataLoader(Sleepy(8), batch_size=3), process=seen.append, time_cap_s=0.3)
    assert torch.cat(seen[:3])[:, 0].tolist() == list(range(8))
    assert found.whole_epochs
    assert sum(len(batch) for batch in seen) % 8 == 0


def test_a_dataset_is_measured_with_the_loader_that_is_asked_for():
    found = benchmark_dataloader(Sleepy(), batch_size=16, num_workers=1, time_cap_s=0.3)
    assert (found.batch_size, found.num_workers) == (16, 1)


@pytest.mark.parametrize(
    "loader",
    [
        [torch.zeros(5, 2), torch.zeros(3, 2)] * 4,
        DataLoader(Numbers(40), batch_size=8),
        DataLoader(TensorDataset(torch.arange(40)), batch_sampler=[[0, 1], [2, 3, 4]]),
        DataLoader(TensorDataset(torch.arange(40)), batch_size=8, drop_last=True),
        DataLoader(TensorDataset(torch.arange(3)), batch_size=8),
        DataLoader(TensorDataset(torch.arange(40)), batch_size=None),
    ],
)
def test_any_iterable_of_batches_is_measured(loader):
    found = benchmark_dataloader(loader, time_cap_s=0.3)
    assert found.samples_per_s.mean > 0
    assert found.epoch_samples_per_s > 0


@pytest.mark.parametrize("batch_size", [4, 16])
def test_samples_of_texts_in_a_list_are_counted_and_not_their_letters(batch_size):
    texts = [(torch.zeros(7 + number % 3), number) for number in range(40)]
    collate = CustomCollateFn.variable_length_collate
    seen = []
    found = benchmark_dataloader(
        DataLoader(texts, batch_size=batch_size, collate_fn=collate), process=seen.append, time_cap_s=0.2
    )
    assert found.whole_epochs
    assert found.samples % 40 == 0
    assert found.samples / found.batches == 40 / -(-40 // batch_size)


def test_things_that_nobody_can_count_are_one_sample_each():
    found = benchmark_dataloader(DataLoader(list(range(40)), batch_size=None), time_cap_s=0.2)
    assert found.samples == found.batches


def test_a_loader_around_a_dataloader_tells_its_settings():
    config = DataLoaderConfig(batch_size=4, num_workers=1, prefetch_factor=3, pin_memory_device="cpu")
    loader = EfficientDataLoader(TensorDataset(torch.arange(40)), config)
    found = benchmark_dataloader(loader, time_cap_s=0.2)
    assert (found.batch_size, found.num_workers) == (4, 1)
    assert found.samples == 4 * found.batches


def test_a_loader_without_batches_is_refused():
    for loader in (
        DataLoader(TensorDataset(torch.arange(3)), batch_size=8, drop_last=True),
        DataLoader(TensorDataset(torch.empty(0))),
        [],
        [torch.zeros(0, 2)] * 40,
    ):
        with pytest.raises(DatasetError, match="no batch"):
            benchmark_dataloader(loader)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: benchmark_dataloader(iter([torch.zeros(2)])), "again and again"),
        (lambda: benchmark_dataloader(7), "again and again"),
        (lambda: benchmark_dataloader([torch.zeros(2)], batch_size=4), "got batch_size beside one"),
        (lambda: benchmark_dataloader([torch.zeros(2)], time_cap_s=0), "above 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, told):
    with pytest.raises(SpecError, match=told):
        call()


@pytest.mark.fault(12)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_raster_is_named_while_measuring(tmp_path, workers):
    dataset = make_heights(tmp_path)
    path = Path(dataset.path_of(40))
    with path.open("r+b") as file:
        file.truncate(200)
    with pytest.raises(SampleError, match=path.name):
        benchmark_dataloader(dataset, batch_size=4, num_workers=workers, time_cap_s=0.3)


# Keeping batches


def test_prefetched_batches_are_those_of_the_loader_as_often_as_wanted():
    loader = DataLoader(Sleepy(20), batch_size=4)
    batches = prefetch_data(loader)
    assert len(batches) == 5
    assert batches.size_bytes == 20 * 3 * 4
    assert samples_equal(list(batches), list(loader))
    assert samples_equal(list(batches), list(batches))
    assert torch.equal(batches[1], list(loader)[1])
    assert len(prefetch_data(loader, num_batches=2)) == 2
    assert len(prefetch_data(loader, num_batches=50)) == 5


@pytest.mark.parametrize("pass_over", [list, lambda batches: [batches[number] for number in range(len(batches))]])
def test_work_in_place_changes_no_later_pass(pass_over):
    batches = prefetch_data([{"image": torch.ones(2, 3), "names": ["a", "b"], "other": np.ones(3)}])
    for batch in pass_over(batches):
        batch["image"].zero_()
        batch["other"][:] = 0
        batch["names"].clear()
    [again] = pass_over(batches)
    assert again["image"].sum() == 6
    assert again["other"].sum() == 3
    assert again["names"] == ["a", "b"]


def test_no_more_samples_are_read_than_are_kept():
    read = []

    class Counting(TensorDataset):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    prefetch_data(DataLoader(Counting(torch.arange(40)), batch_size=4), num_batches=3)
    assert read == list(range(12))


def test_batches_of_workers_hold_no_file_descriptors():
    before = psutil.Process().num_fds()
    loader = DataLoader(TensorDataset(torch.arange(400), torch.arange(400)), batch_size=2, num_workers=1)
    batches = prefetch_data(loader)
    del loader
    gc.collect()
    assert len(batches) == 200
    assert psutil.Process().num_fds() < before + 50
    assert not any(part.is_shared() for batch in batches for part in batch)


def test_nested_batches_are_kept_as_they_are():
    loader = [{"image": torch.ones(2, 3), "names": ["a", "b"], "pair": (np.arange(4), 1)}]
    batches = prefetch_data(loader)
    loader[0]["image"].zero_()
    assert batches[0]["image"].sum() == 6
    assert (batches[0]["names"], batches[0]["pair"][1]) == (["a", "b"], 1)


def test_what_does_not_fit_is_refused_at_the_first_batch():
    asked = []

    class Vast(Dataset):
        def __len__(self):
            return 10**7

        def __getitem__(self, index):
            asked.append(index)
            return torch.zeros(100_000)

    with pytest.raises(CapacityError, match="lower num_batches or raise memory_share") as caught:
        prefetch_data(DataLoader(Vast(), batch_size=2))
    assert caught.value.needed_bytes == 10**7 * 400_000
    assert asked == [0, 1]
    with pytest.raises(CapacityError):
        prefetch_data((torch.zeros(1000) for _ in range(10)), memory_share=1e-12)


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"num_batches": 0}, "at least 1"), ({"memory_share": 0}, "above 0"), ({"memory_share": 1.5}, "at most 1")],
)
def test_senseless_prefetching_is_refused(settings, told):
    with pytest.raises(SpecError, match=told):
        prefetch_data([torch.zeros(2)], **settings)
    with pytest.raises(DatasetError, match="no batch"):
        prefetch_data([])


# Tables and plots


def record_of(config, *rates, phase="search", failure=None):
    """Make records of a configuration, one a rate."""
    shared = {
        "study": "s",
        "phase": phase,
        "workload": Workload(dataset=DatasetSource(factory="a:b")),
        "config": config,
    }
    if failure:
        return [
            TrialRecord(
                key=f"{config.label()} f", failure=Failure(kind="crashed", phase="warm", message=failure), **shared
            )
        ]
    return [
        TrialRecord(
            key=f"{config.label()} {phase} {number}",
            measurement=Measurement(
                samples_per_s=rate,
                steady=Interval(mean=2 * rate, low=1.8 * rate, high=2.2 * rate),
                windows=(Window(seconds=1, samples=10, batches=1, wait_s=0.5),),
                whole_epochs=False,
                epoch_samples=10,
                wait_p50_s=0,
                wait_p95_s=0,
                data_wait_share=0.5,
                stopped="precise",
            ),
            **shared,
        )
        for number, rate in enumerate(rates)
    ]


def table_of(rates):
    return tabulate(
        [record for workers, found in rates.items() for record in record_of(LoaderConfig(num_workers=workers), *found)]
    )


def test_table_puts_the_runs_of_a_configuration_together_fastest_first():
    slow, fast, broken = (LoaderConfig(num_workers=workers) for workers in (0, 1, 2))
    records = [
        *record_of(slow, 100.0, 110.0), *record_of(slow, 90.0, phase="race"), *record_of(broken, failure="it broke"),
        *record_of(fast, 200.0), *record_of(slow, 1e6, phase="probe"),
    ]  # fmt: skip
    table = tabulate(records)
    assert [row.configuration for row in table] == [fast, slow, broken]
    assert (table[0].samples_per_s.low, table[0].samples_per_s.high) == pytest.approx((180, 220))
    assert table[1].samples_per_s.mean == pytest.approx(100)
    assert table[1].runs == 3
    # Student's t at 2 degrees: 4.303 * 10 / sqrt(3)
    assert table[1].samples_per_s.high - 100 == pytest.approx(24.84, rel=1e-3)
    assert (table[2].failure, table[2].samples_per_s) == ("it broke", None)


@pytest.mark.parametrize("dimension", ["num_workers", "batch_size", "all"])
def test_plots_are_drawn_to_png_for_every_dimension(tmp_path, dimension):
    table = table_of({0: [100.0, 104.0, 98.0], 1: [180.0], 2: [200.0, 190.0]})
    path = optimization_plots.save_plot(
        table, table[0].configuration, dimension=dimension, path=tmp_path / "deep" / "plot.png"
    )
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size[0] == 960
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert (pixels == (0x1B, 0x78, 0x37)).all(axis=1).any(), "the chosen configuration does not stand out"
    assert (pixels == (0x5A, 0x7F, 0xA6)).all(axis=1).any()


def test_plots_need_a_png_and_something_measured(tmp_path):
    config = LoaderConfig()
    with pytest.raises(SpecError, match=r"end in \.png"):
        optimization_plots.save_plot(table_of({0: [1.0]}), config, dimension="all", path=tmp_path / "plot.pdf")
    failed = (TableRow(configuration=config, failure="broken"),)
    with pytest.raises(SpecError, match="look at the failures"):
        optimization_plots.save_plot(failed, config, dimension="all", path=tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())


def result_of(table):
    config = LoaderConfig()
    return OptimizationResult(
        dimension="all", study="s", outcome="nothing_to_gain", configuration=config, default=config, table=table,
        notes=("earlier",),
    )  # fmt: skip


def test_a_folder_that_cannot_be_written_costs_the_plot_and_not_the_result(tmp_path):
    (tmp_path / "file").touch()
    found = _drawn(result_of(table_of({0: [1.0]})), tmp_path / "file" / "plot.png")
    assert found.plot_path is None
    assert found.table
    assert found.notes[0] == "earlier"
    assert "was not drawn" in found.notes[1]


# Short studies


FAST = {"progress": False, "time_cap_s": 0.2, "confirm_time_cap_s": 0.2, "trial_timeout_s": 60.0}


@pytest.mark.long
def test_optimize_num_workers_varies_the_workers_alone_and_draws_them(tmp_path):
    dataset = make_heights(tmp_path)
    found = optimize_num_workers(
        dataset, [0, 1], budget="4s", trials=2, batch_size=8, plot_path=tmp_path / "plot.png", home=tmp_path / "home",
        **FAST,
    )  # fmt: skip
    assert (found.dimension, found.study) == ("num_workers", "HeightGapDataset-num_workers")
    assert found.outcome in {"gain", "nothing_to_gain", "undecided"}
    tried = [row.configuration for row in found.table]
    assert {config.num_workers for config in tried} <= {0, 1}
    assert {(config.batch_size, config.cache, config.archive) for config in tried if config.batch_size == 8} == {
        (8, "none", "files")
    }
    assert {config.decoder for config in tried} == {None}
    assert found.configuration in tried
    assert found.num_workers == found.configuration.num_workers
    assert found.samples_per_s > 0
    assert found.plot_path == tmp_path / "plot.png"
    assert found.plot_path.stat().st_size > 5000
    assert OptimizationResult.from_json(found.to_json()) == found
    assert autotune.best_config(dataset, batch_size=8, home=tmp_path / "home").match in {"exact", "near"}


@pytest.mark.long
def test_a_study_in_which_nothing_is_feasible_gives_its_table_without_a_plot(tmp_path):
    found = optimize_dataloader(
        TensorDataset(torch.zeros(64, 1 << 16)), budget="2s", trials=1, memory_limit="1MiB", plot=True,
        plot_path=tmp_path / "plot.png", home=tmp_path / "home",
        space={"batch_size": 32, "num_workers": 0, "cache": "none", "archive": "files"}, **FAST,
    )  # fmt: skip
    assert found.outcome == "nothing_feasible"
    assert found.plot_path is None
    assert all(row.failure is not None for row in found.table)
    assert "at least one measured configuration" in found.notes[-1]
    assert not (tmp_path / "plot.png").exists()


@pytest.mark.long
def test_optimize_batch_size_and_everything_take_the_steps_of_a_study(tmp_path):
    dataset = make_heights(tmp_path)
    sizes = optimize_batch_size(dataset, [4, 16], budget="4s", trials=2, num_workers=0, home=tmp_path / "home", **FAST)
    assert sizes.batch_size in {4, 16, 32}
    assert {row.configuration.num_workers for row in sizes.table} == {0}
    space = {"batch_size": 8, "num_workers": [0, 1]}
    runs = []
    for _ in range(2):
        every = optimize_dataloader(dataset, budget="4s", trials=2, space=space, home=tmp_path / "home", **FAST)
        runs.append(sum(row.runs for row in every.table))
    assert every.study == "HeightGapDataset-all"
    assert every.plot(tmp_path / "every.png").exists()
    with open_registry(tmp_path / "home", None) as registry:
        records = registry.records("HeightGapDataset-all")
    assert sum(runs) == sum(record.measurement is not None and record.phase != "probe" for record in records)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda d, h: optimize_batch_size(d, [], home=h), "at least one value"),
        (lambda d, h: optimize_batch_size(d, [0], home=h), "batch_size"),
        (lambda d, h: optimize_num_workers(d, [-1], home=h), "num_workers"),
        (lambda d, h: optimize_num_workers(d, [0], batch_size=0, home=h), "batch_size"),
        (lambda d, h: optimize_num_workers(d, [0], space={}, home=h), "leave it out"),
        (lambda d, h: optimize_dataloader(d, budget="soon", home=h), "soon"),
        (lambda d, h: optimize_dataloader(d, plot_path="plot.pdf", home=h), r"end in \.png"),
    ],
)
def test_senseless_studies_are_refused_before_anything_is_measured(tmp_path, call, told):
    with pytest.raises(ValueError, match=told):
        call(Sleepy(), tmp_path)
    assert not (tmp_path / "registry.db").exists()
