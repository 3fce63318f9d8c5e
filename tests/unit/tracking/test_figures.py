import subprocess
import sys

import pytest

from autotune.tracking.figures import (
    FIGURES,
    figures_page,
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


def test_page_holds_every_figure_and_the_drawing_code_once(records):
    page = figures_page(study_figures(records), title="<forest>")
    assert all(f'id="{identifier}"' in page for identifier in FIGURES)
    assert "<title>&lt;forest&gt;</title>" in page
    assert 'src="http' not in page
    assert len(page) < 8_000_000


def test_neither_plotly_nor_mlflow_is_loaded_until_something_is_drawn_or_sent():
    program = (
        "import sys, autotune.tracking.figures, autotune.tracking.console, autotune.tracking.mlflow_listener;"
        "print({'plotly', 'mlflow', 'torch', 'optuna', 'sqlalchemy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
