import io
import threading

import pytest
from rich.console import Console

from autotune.spec import Counts, Interval, MemorySummary, StudyEnded, StudyStarted, TrialFinished
from autotune.tracking.console import ConsoleListener, summary_table, trial_text

RUN = "c" * 32


@pytest.fixture
def plain():
    return Console(file=io.StringIO(), width=100, force_terminal=False)


@pytest.fixture
def terminal():
    return Console(file=io.StringIO(), width=100, height=30, force_terminal=True, legacy_windows=False)


def finished(record, **fields):
    return TrialFinished(
        **{"run_key": RUN, "phase": "search", "record": record, "budget_s": 120.0, "elapsed_s": 45.0, **fields}
    )


def rendered(summary, width=100):
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(summary_table(summary))
    return console.export_text()


def test_plain_output_begins_with_study_dataset_and_machine(plain, spec, inspection):
    listener = ConsoleListener(plain)
    listener.on_start(StudyStarted(run_key=RUN, spec=spec, resumed=3))
    listener.on_inspected(inspection)
    assert plain.file.getvalue().splitlines() == [
        "forest_gaps  tuning for 2 m, goes on after 3 finished trials",
        "my_package.ForestGaps: 1,200 samples, 320 KiB each, (float32[1,256,256], uint8[1,256,256])",
        "Linux x86_64, 8 CPUs, 32 GiB, no accelerator",
    ]


def test_plain_output_has_one_line_for_each_trial_however_long(plain, make_record, out_of_memory, crashed):
    listener = ConsoleListener(plain)
    listener.on_trial(finished(make_record(0, rate=1437.0, batch_size=32), counts=Counts(complete=1)))
    listener.on_trial(finished(make_record(1, failure=out_of_memory, batch_size=512), counts=Counts(infeasible=1)))
    listener.on_trial(finished(make_record(2, failure=crashed), counts=Counts(failed=1), elapsed_s=130.0))
    first, second, third = plain.file.getvalue().splitlines()
    assert first == "search 0: batch 32, workers 0, files: 1,437 samples/s ±3 % [1 measured; 1 m 15 s left]"
    assert second.startswith("search 1: batch 512, workers 0, files: infeasible (device memory): the peak [bold] of")
    assert second.endswith("passed the limit of 8 GiB [0 measured, 1 infeasible; 1 m 15 s left]")
    assert third.endswith("failed (crashed): a worker was ended by signal 9 [0 measured, 1 failed; no time left]")


def test_terminal_shows_phase_running_best_with_noise_and_time_left(terminal, spec, make_record):
    listener = ConsoleListener(terminal)
    listener.on_start(StudyStarted(run_key=RUN, spec=spec))
    best = make_record(4, rate=1437.0, batch_size=32, num_workers=4)
    listener.on_trial(finished(make_record(7, rate=900.0), best=best, counts=Counts(complete=8)))
    listener.close()
    shown = terminal.file.getvalue()
    assert "8 measured; 1 m 15 s left" in shown
    assert "best 1,437 samples/s ±3 %, batch 32, workers 4, prefetch 2, files" in shown
    assert "last search 7: batch 32, workers 0, files: 900 samples/s ±3 %" in shown


def test_terminal_shows_the_running_ratio_in_the_confirm_phase(terminal, spec, make_record):
    listener = ConsoleListener(terminal)
    listener.on_start(StudyStarted(run_key=RUN, spec=spec))
    ratio = Interval(mean=1.52, low=1.31, high=1.77)
    listener.on_trial(finished(make_record(1, phase="confirm"), phase="confirm", ratio=ratio))
    listener.close()
    assert "1.52 x the default so far (95 % interval 1.31 to 1.77)" in terminal.file.getvalue()


def test_nothing_is_drawn_and_no_thread_runs_between_events(terminal, spec, make_record):
    threads = threading.active_count()
    listener = ConsoleListener(terminal)
    listener.on_start(StudyStarted(run_key=RUN, spec=spec))
    listener.on_trial(finished(make_record(0)))
    assert threading.active_count() == threads
    assert not listener._live.auto_refresh
    listener.close()


def test_terminal_gets_its_cursor_back_when_the_display_is_closed_twice(terminal, spec):
    listener = ConsoleListener(terminal)
    listener.on_start(StudyStarted(run_key=RUN, spec=spec))
    listener.close()
    listener.close()
    shown = terminal.file.getvalue()
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")


def test_end_shows_the_summary_unless_it_is_turned_off(plain, summary):
    ConsoleListener(plain).on_end(StudyEnded(run_key=RUN, summary=summary))
    assert "2.81 x the default" in plain.file.getvalue()
    silent = Console(file=io.StringIO())
    ConsoleListener(silent, show_summary=False).on_end(StudyEnded(run_key=RUN, summary=summary))
    assert silent.file.getvalue() == ""


def test_summary_has_rates_ratio_memory_headroom_trials_and_reasons(summary):
    text = rendered(summary.replace(trials=Counts(complete=30, infeasible=5, failed=1, stopped_early=4)))
    for words in (
        "faster than the PyTorch default, beyond noise",
        "batch 32, workers 0, files: 512 samples/s",
        "batch 32, workers 4, prefetch 2, npy: 1,437 samples/s",
        "2.81 x the default (95 % interval 2.64 to 2.97, 6 pairs)",
        "1.14 x the same configuration at batch 32",
        "1 GiB of 8 GiB (12%)",
        "80% of what any loader could reach here (1,800 samples/s)",
        "won back after 2.4 epochs",
        "40 run, 30 complete, 4 stopped early, 5 infeasible, 1 failed",
        "1 m 59 s, 41 processes, 12% of trial time is overhead",
        "Four workers and arrays [on disk] read 2.8 times as fast.",
        "- 2 windows were set aside.",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    ("outcome", "words", "not_words"),
    [
        (
            "undecided",
            ("no gain over the PyTorch default can be shown", "a larger budget narrows it"),
            "nothing to gain",
        ),
        ("nothing_to_gain", ("the default is as fast", "below a gain that would be worth"), "noise"),
        ("nothing_feasible", ("no configuration kept within the limits",), "noise"),
    ],
)
def test_summary_says_whether_it_is_noise(summary, outcome, words, not_words):
    text = rendered(summary.replace(outcome=outcome, why=""))
    assert all(word in text for word in words)
    assert not_words not in text


def test_summary_leaves_out_what_was_not_measured(summary):
    bare = type(summary)(
        study="s", decision_key="k", outcome="nothing_feasible", best=summary.default, default=summary.default
    )
    text = rendered(bare)
    assert "not measured" in text
    labels = [line.split("  ")[1] for line in text.splitlines() if line.startswith("  ")]
    assert [label for label in labels if label] == ["PyTorch default", "best", "trials", "time"]


def test_summary_keeps_its_words_on_a_narrow_terminal(summary):
    text = rendered(summary.replace(memory=MemorySummary(peak_bytes=1, limit_bytes=2)), width=40)
    assert "infeasible" in text
    assert max(map(len, text.splitlines())) <= 40


def test_line_of_a_trial_marks_what_was_stopped_early(make_record):
    assert trial_text(make_record(3, stopped="futility")).endswith("±3 %, stopped early")
