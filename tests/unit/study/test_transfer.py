"""What other studies found is measured first, and what became of it is told."""

from dataclasses import replace

import pytest
from study_records import DATASET, MACHINE, WORKLOAD, measured_record

from autotune.constants import CARRIED_MAX
from autotune.spec import Decision, LoaderConfig
from autotune.study.transfer import similar_studies
from autotune.units import GIB

ELSEWHERE = MACHINE.replace(cpu_count=4)
FASTEST = LoaderConfig(batch_size=32, num_workers=2, archive="npy").canonical(has_accelerator=False)
ADAPTED = FASTEST.replace(num_workers=1)


def found(**changes):
    fields = {
        "study": "other", "outcome": "gain", "config": FASTEST, "workload": WORKLOAD, "machine": ELSEWHERE,
        "default": LoaderConfig.torch_default(32).canonical(has_accelerator=False), "dataset": DATASET, "why": "it was",
    }  # fmt: skip
    return Decision(**{**fields, **changes})


def leave(bench, decision, rates=()):
    """Save a decision of another study, and what it measured."""
    for config, rate in dict(rates).items():
        circumstances = {"study": decision.study, "machine": decision.machine, "dataset": decision.dataset}
        bench.store.save_record(measured_record(config, rate, **circumstances))
    bench.store.save_decision(decision)


def npy_is_faster(config):
    return (300.0 if config.archive == "npy" else 100.0,)


def priors(bench):
    """Give why each trial was tried, and what it was, in order."""
    return [(trial.user_attrs.get("autotune:prior"), trial.params) for trial in bench.trials()]


def told(summary):
    return [note for note in summary.notes if note.startswith("priors: ")]


def test_what_a_similar_study_found_is_measured_right_after_the_default_and_told(make_bench):
    bench = make_bench(npy_is_faster)
    leave(bench, found(), {FASTEST: 900.0})
    summary = bench.run()
    (default, _), (why, params), *_ = priors(bench)
    assert default == "deployed or default"
    assert why == "study 'other' (similarity 0.87: same class and settings of the dataset; 2 instead of 4 CPUs)"
    assert (params["archive"], params["batch_size"], params["num_workers"]) == ("npy/decoded", 32, 1)
    (note,) = told(summary)
    assert note.startswith(f"priors: {why}: of its 1 tried first, the best came to ")
    (decision,) = bench.store.decisions("s")
    assert note in decision.notes
    assert decision.config != FASTEST


@pytest.mark.parametrize(
    "decision",
    [
        found(outcome="nothing_feasible"),
        found(study="s", machine=MACHINE),
        found(machine=MACHINE.replace(cpu_count=512, accelerator="H100", accelerator_count=8)),
        found(dataset=DATASET.replace(type_name="my.Texts", structure="str[]", declared=True)),
    ],
    ids=["without a result", "this very study", "another kind of machine", "other samples"],
)
def test_what_is_no_prior_is_left_alone(make_bench, decision):
    bench = make_bench(npy_is_faster)
    leave(bench, decision)
    assert similar_studies(bench.setting, None) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": DATASET.replace(length=5000)},
        {"machine": MACHINE.replace(versions={"torch": "1.0"})},
        {"study": "t"},
    ],
    ids=["another length", "another major version", "another name"],
)
def test_a_study_whose_records_do_not_answer_here_is_a_prior(make_bench, changes):
    bench = make_bench(npy_is_faster)
    here = MACHINE.replace(versions={"torch": "2.0"})
    setting = replace(bench.setting, inspection=bench.setting.inspection.replace(machine=here))
    leave(bench, found(**{"study": "s", "machine": here, **changes}))
    (source,) = similar_studies(setting, None)
    assert 0.5 < source.similarity.value <= 1.0


def test_a_batch_beyond_the_memory_limit_is_tried_smaller(make_bench):
    bench = make_bench(npy_is_faster, memory_limit="25MiB", sample_bytes=1024**2, space={
        "batch_size": [16, 32], "num_workers": [0], "cache": ["none"], "archive": ["files", "npy"],
    })  # fmt: skip
    leave(bench, found(config=FASTEST.replace(num_workers=0, prefetch_factor=None, persistent_workers=None)))
    bench.run()
    (params,) = [params for why, params in priors(bench) if why and "similarity" in why]
    assert params["batch_size"] == 16


def test_a_misleading_study_costs_a_few_runs_and_no_gain(make_bench):
    bench = make_bench(lambda config: (100.0 + config.batch_size if config.archive == "npy" else 500.0,))
    npy = [point for point in bench.setting.space.points if point.archive == "npy"]
    leave(bench, found(), {config: 900.0 - number for number, config in enumerate(npy)})
    summary = bench.run()
    assert summary.best.archive == "files"
    assert sum("similarity" in (why or "") for why, _ in priors(bench)) <= CARRIED_MAX
    assert any("of the fastest run of the search" in note for note in told(summary))


def test_the_order_there_is_held_against_the_order_here(make_bench):
    bench = make_bench(lambda config: (100.0 + config.batch_size + 100 * config.num_workers,), noise=0.0)
    rates = {point: 1000.0 / (1 + point.batch_size) for point in bench.setting.space.points if point.archive == "npy"}
    leave(bench, found(machine=MACHINE.replace(memory_bytes=12 * GIB)), rates)
    (note,) = told(bench.run())
    assert "pairs of configurations had the same order there" in note
