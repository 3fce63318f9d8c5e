import subprocess
import sys

import pytest

from autotune.spec import Bottleneck
from autotune.tracking.figures import (
    DECISION_FIGURES,
    FIGURES,
    memory_by_batch_size,
    phase_breakdown,
    rate_against_memory,
    study_figures,
    throughput_by_parameter,
    trial_history,
)


@pytest.fixture
def records(make_record, out_of_memory, crashed):
    return [
        make_record(1, rate=800.0, batch_size=8, num_workers=2),
        make_record(0, rate=500.0, batch_size=32),
        make_record(2, rate=90.0, stopped="futility", batch_size=16),
        make_record(3, failure=out_of_memory, batch_size=512),
        make_record(4, failure=crashed, batch_size=64),
        make_record(5, rate=700.0, batch_size=32, num_workers=10),
    ]


def trace(figure, name):
    (found,) = [trace for trace in figure.data if trace.name == name]
    return found


def test_history_has_trials_in_order_with_noise_and_a_best_that_never_falls(records):
    figure = trial_history(records)
    measured = trace(figure, "measured")
    assert list(measured.x) == [1, 2, 6]
    assert list(measured.y) == [500.0, 800.0, 700.0]
    assert list(measured.error_y.array) == pytest.approx([15.0, 24.0, 21.0])
    assert list(trace(figure, "stopped early").x) == [3]
    assert list(trace(figure, "best so far").y) == [500.0, 800.0, 800.0, 800.0]
    assert list(trace(figure, "infeasible").x) == [4]
    assert list(trace(figure, "failed").x) == [5]


def test_throughput_is_drawn_against_the_varied_parameters_alone_in_numeric_order(records):
    figure = throughput_by_parameter(records)
    assert [note.text for note in figure.layout.annotations] == ["batch_size", "num_workers"]
    assert list(figure.data[0].x) == ["8", "16", "32", "32"]
    assert list(figure.data[1].x) == ["0", "0", "2", "10"]


def test_memory_has_the_limit_and_marks_what_passed_it(records):
    figure = memory_by_batch_size(records)
    assert figure.layout.shapes[0].y0 == 8 * 1024
    over = trace(figure, "infeasible")
    assert (list(over.x), list(over.y)) == ([512], [9 * 1024])
    assert list(trace(figure, "failed").x) == []
    assert list(trace(figure, "measured").x) == [32, 8, 16, 32]


def test_phases_of_a_trial_add_up_to_its_wall_time(records):
    figure = phase_breakdown(records)
    assert sum(bar.y[0] for bar in figure.data) == pytest.approx(3.5)


def test_front_of_rate_and_memory_holds_what_nothing_beats(records):
    front = trace(rate_against_memory(records), "nothing is faster with less")
    assert list(front.y) == [500.0, 800.0]


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_drawn_when_there_is_nothing_or_only_failures_to_draw(name, crashed, make_record):
    assert FIGURES[name]([]).to_json()
    assert FIGURES[name]([make_record(0, failure=crashed)]).to_json()


def test_text_of_a_failure_cannot_become_markup(make_record, crashed):
    hostile = crashed.replace(message="<script>alert(1)</script>")
    figure = trial_history([make_record(0, failure=hostile)])
    assert "&lt;script&gt;" in trace(figure, "failed").text[0]


def test_a_decision_adds_its_runs_and_where_the_time_of_a_batch_goes(records, make_record, decision):
    best, default = decision.config, decision.default
    confirm = [
        make_record(number, rate=rate, phase="confirm", **config.model_dump())
        for number, (config, rate) in enumerate([(best, 1400.0), (default, 500.0), (default, 510.0), (best, 1450.0)], 9)
    ]
    stages = {
        best.label(): Bottleneck(
            config=best.label(), stage="gather", limit="workers", stages={"gather": 8.0, "consume": 2.0}
        ),
        default.label(): Bottleneck(
            config=default.label(), stage="decode", limit="cores", stages={"decode": 30.0, "consume": 2.0}
        ),
    }
    figures = study_figures([*records, *confirm], decision.replace(bottlenecks=tuple(stages.values())))
    assert set(figures) == {*FIGURES, *DECISION_FIGURES}
    chosen, usual = figures["confirm-runs"].data
    assert chosen.name.startswith("chosen: batch 32, workers 4")
    assert (list(chosen.x), list(chosen.y)) == ([1, 2], [1400.0, 1450.0])
    assert (usual.name, list(usual.y)) == (f"PyTorch default: {default.label()}", [500.0, 510.0])
    bars = {bar.name: list(bar.x) for bar in figures["stage-breakdown"].data}
    assert bars == {"gather": [8.0, 0.0], "consume": [2.0, 2.0], "decode": [0.0, 30.0]}


def test_runs_that_confirm_are_no_trials_of_the_search(records, make_record):
    confirm = make_record(9, rate=5000.0, phase="confirm", batch_size=8)
    history = study_figures([*records, confirm])["trial-history"]
    assert 5000.0 not in trace(history, "measured").y


def test_neither_plotly_nor_mlflow_is_loaded_until_something_is_drawn_or_sent():
    program = (
        "import sys, autotune.tracking.figures, autotune.tracking.console, autotune.tracking.mlflow_listener;"
        "print({'plotly', 'mlflow', 'torch', 'optuna', 'sqlalchemy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
