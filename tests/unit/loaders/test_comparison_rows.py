"""Which rows are compared, on small and large machines, and what the tables make of recorded runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_records import DATASET, MACHINE, failed_record, measured_record, measurement, record

from autotune.compose import places
from autotune.loaders.comparison_plots import save_plot
from autotune.loaders.comparison_rows import OURS, Contender, config_contenders, mode_contenders
from autotune.loaders.comparisons import Comparison, StartUp, _filled_on_the_way, _measure, _Runs
from autotune.registry import open_registry
from autotune.resolve.resolution import Resolution
from autotune.spec import ArchiveUse, Failure, Inspection, LoaderConfig, MemoryUse, Phases
from autotune.spec.study_file import spec_from_fields

NAMES = ["Single Process", "Multi-Process", "Optimized", "Memory Efficient", OURS]
GIB = 2**30


def inspection(cores=2, accelerator=None, **changes):
    machine = MACHINE.replace(cpu_count=cores, accelerator=accelerator)
    fields = {"sample_structure": "x", "sample_bytes": 8, "largest_sample_bytes": 8, "fingerprint": "f"}
    return Inspection(dataset=DATASET, machine=machine, **{**fields, **changes})


def resolution(match="exact", **fields):
    return Resolution(config=LoaderConfig(**fields), match=match, why=("it was measured",))


class Runs:
    """Answers from a function of the configuration, as fresh processes would, and remembers what it was asked."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []
        self.expected = 0

    def __call__(self, config):
        self.asked.append(config)
        return self.answer(config)


def test_the_seed_s_rows_are_as_it_wrote_them_on_a_machine_that_can():
    rows = config_contenders(inspection(16, "H100"), resolution(batch_size=64, archive="npy"))
    assert [row.name for row in rows] == NAMES
    assert [row.config.num_workers for row in rows] == [0, 4, 8, 2, 0]
    assert [row.config.pin_memory for row in rows] == [False, True, True, True, False]
    assert [row.config.persistent_workers for row in rows] == [None, True, True, True, None]
    assert {row.config.batch_size for row in rows} == {64}
    assert not any(row.notes for row in rows)


def test_workers_are_at_most_one_for_each_core_and_that_is_said():
    rows = config_contenders(inspection(2), resolution())
    assert [row.config.num_workers for row in rows] == [0, 2, 2, 2, 0]
    assert [any("one for each core" in note for note in row.notes) for row in rows] == [False, True, True, False, False]
    assert all(any("nothing to pin" in note for note in row.notes) for row in rows[1:4])


@given(st.integers(1, 64), st.sampled_from([None, "H100"]))
def test_no_row_has_more_workers_than_cores(cores, accelerator):
    for row in config_contenders(inspection(cores, accelerator), resolution()):
        assert row.config.num_workers <= cores
        assert row.config == row.config.canonical(has_accelerator=accelerator is not None)


def test_a_row_of_ours_that_was_not_tuned_says_so():
    ours = config_contenders(inspection(), resolution("default"))[-1]
    assert ours.notes == ("default: it was measured",)


def test_modes_are_the_four_loading_modes():
    rows = mode_contenders(inspection(), batch_size=16, num_workers=1, archive="webdataset")
    assert [row.name for row in rows] == ["Lazy", "Eager", "Streaming", "Cached"]
    assert [row.config.cache for row in rows] == ["none", "memory", "none", "memory"]
    assert [row.config.order for row in rows] == ["map", "map", "streaming", "map"]
    assert rows[2].config.archive == "webdataset"
    assert [row.fills_on_the_way for row in rows] == [False, False, False, True]


def test_modes_that_would_store_random_samples_are_refused_with_the_reason():
    plain = {"dataset": DATASET.replace(staged=False)}
    random = inspection(random=True).replace(**plain)
    rows = mode_contenders(random, batch_size=16, num_workers=0, archive="tar")
    assert rows[0].refused is None
    assert all("random" in row.refused for row in rows[1:])


def measured(contenders, answer, blocks=2):
    runs = Runs(answer)
    return _measure(contenders, runs, blocks), runs


def test_rows_that_behave_the_same_are_measured_once_and_say_so():
    contenders = config_contenders(inspection(2), resolution())
    rows, runs = measured(contenders, lambda config: measured_record(config, 100.0 * (1 + config.num_workers)))
    assert len(runs.asked) == 2 * 2
    assert runs.expected == 4
    assert [row.same_as for row in rows] == [None, None, "Multi-Process", "Multi-Process", "Single Process"]
    assert [row.samples_per_s for row in rows] == pytest.approx([100, 300, 300, 300, 100])
    assert rows[0].ratio is None
    assert rows[1].ratio.mean == pytest.approx(3)


def test_blocks_alternate_so_that_a_drift_hits_all_rows_alike():
    contenders = config_contenders(inspection(16), resolution())
    _, runs = measured(contenders, lambda config: measured_record(config, 10.0), blocks=2)
    assert runs.asked[4:] == runs.asked[:4][::-1]


def test_a_row_whose_runs_fail_shows_the_failure():
    contenders = config_contenders(inspection(2), resolution())
    rows, _ = measured(
        contenders,
        lambda config: failed_record(config, "shared_memory") if config.num_workers else measured_record(config, 5.0),
    )
    assert [row.failure is None for row in rows] == [True, False, False, False, True]
    assert rows[1].failure.kind == "shared_memory"
    assert rows[1].samples_per_s is None


def test_a_row_that_fails_in_some_blocks_says_how_many_and_why():
    contenders = config_contenders(inspection(2), resolution())
    asked = []

    def answer(config):
        asked.append(config)
        fails = config.num_workers and asked.count(config) > 1
        return failed_record(config, "shared_memory") if fails else measured_record(config, 5.0)

    rows, _ = measured(contenders, answer, blocks=3)
    assert (rows[1].runs, rows[1].failure) == (1, None)
    assert rows[1].notes[-1] == "2 of 3 runs failed: shared memory: it did"
    assert rows[1].ratio is None, "one pair has no interval"
    assert not any("failed" in note for note in rows[0].notes)


class Answers:
    """Runs requests as a runner does, with given failures in their order, and a measurement afterwards."""

    def __init__(self, failures):
        self.failures = list(failures)
        self.ran = 0

    def run(self, request):
        self.ran += 1
        failure = self.failures.pop(0) if self.failures else None
        found = {"measurement": measurement(9.0)} if failure is None else {"failure": failure}
        return record(request.config, **found)


@pytest.mark.parametrize(
    ("retryable", "ran", "note"),
    [
        (True, 3, "1 of 3 runs failed: crashed: gone"),
        (False, 2, "1 of 3 runs failed and 1 were not tried after: crashed: gone"),
    ],
)
def test_what_failed_is_run_again_in_the_next_block_where_that_may_go_well(tmp_path, retryable, ran, note):
    failure = Failure(kind="crashed", phase="measure", message="gone", retryable=retryable)
    spec = spec_from_fields({"name": "s", "dataset": {"type_name": "sent"}, "budget": {"time": "5s"}})
    runner = Answers([None, failure])
    told = []
    with open_registry(tmp_path) as registry:
        runs = _Runs(
            spec, at=places(tmp_path), runner=runner, registry=registry,
            on_run=lambda _record, done, total: told.append((done, total)),
        )  # fmt: skip
        [row] = _measure([Contender(name="Plain", config=LoaderConfig())], runs, 3)
    assert runner.ran == ran
    assert row.runs == ran - 1
    assert row.notes == (note,)
    assert told[-1][0] == ran


def test_figures_are_what_the_runs_say():
    memory = MemoryUse(host_pss_bytes=GIB, host_limit_bytes=8 * GIB)
    phases = Phases(build_s=1.0, cache_fill_s=2.0, first_batch_s=0.5, archive_build_s=0.0)
    result = measurement(50.0, memory=memory, phases=phases, archive=ArchiveUse(size_bytes=1, build_s=4.0))
    contenders = mode_contenders(inspection(), batch_size=32, num_workers=0, archive="tar")
    rows, _ = measured(contenders, lambda config: record(config, measurement=result), blocks=1)
    row = rows[0]
    assert row.batches_per_s == pytest.approx(50 * 19 / 600)  # 600 samples make 18 full batches and one more
    assert (row.memory_bytes, row.memory_share) == (GIB, 0.125)
    assert row.start_up == StartUp(build_s=1.0, archive_build_s=4.0, cache_fill_s=2.0, first_batch_s=0.5)
    assert row.first_epoch_s == pytest.approx(7.5 + 12)
    assert row.interval is None, "one run has no spread"


def test_a_cache_that_fills_on_the_way_starts_and_reads_its_first_epoch_like_the_lazy_one():
    contenders = mode_contenders(inspection(), batch_size=32, num_workers=0, archive="tar")

    def answer(config):
        kept = config.cache == "memory"
        phases = Phases(build_s=1.0, cache_fill_s=6.0 if kept else 0.0, first_batch_s=0.1 if kept else 0.7)
        return record(config, measurement=measurement(600.0 if kept else 100.0, phases=phases))

    rows, _ = measured(contenders, answer, blocks=1)
    lazy, eager, _, cached = _filled_on_the_way(contenders, rows)
    assert eager.start_up.total_s == pytest.approx(7.1)
    assert cached.same_as == "Eager"
    assert cached.start_up.total_s == pytest.approx(1.7)
    assert cached.first_epoch_s == pytest.approx(1.7 + 6.0)
    assert cached.samples_per_s == eager.samples_per_s
    assert "second epoch" in cached.notes[-1]
    assert lazy.first_epoch_s == pytest.approx(1.7 + 6.0)


def test_a_cache_that_fills_on_the_way_has_no_start_of_its_own_where_the_lazy_one_failed():
    contenders = mode_contenders(inspection(), batch_size=32, num_workers=0, archive="tar")
    rows, _ = measured(
        contenders,
        lambda config: measured_record(config, 9.0) if config.cache == "memory" else failed_record(config, "crashed"),
    )
    lazy, eager, _, cached = _filled_on_the_way(contenders, rows)
    assert lazy.failure is not None
    assert eager.start_up is not None
    assert (cached.start_up, cached.first_epoch_s) == (None, None)
    assert cached.samples_per_s == eager.samples_per_s
    assert cached.notes[-1] == "its start and first epoch are those of Lazy, which was not measured"


@pytest.mark.parametrize("kind", ["configs", "modes"])
def test_a_plot_is_a_png_even_where_rows_failed(tmp_path, kind):
    if kind == "configs":
        contenders = config_contenders(inspection(2), resolution())
    else:
        contenders = mode_contenders(inspection(), batch_size=32, num_workers=0, archive="tar")
    rows, _ = measured(
        contenders,
        lambda config: (
            failed_record(config, "crashed") if config.order == "streaming" else measured_record(config, 9.0)
        ),
    )
    table = Comparison(
        kind=kind, study="s", machine=MACHINE, dataset=DATASET, batch_size=32, blocks=2, rows=tuple(rows)
    )
    save_plot(table, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert Comparison.from_json(table.to_json()) == table
