"""What optuna-dashboard shows, asked of its real server."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import timedelta

import pytest
from optuna.trial import TrialState
from optuna_dashboard._note import get_note_from_system_attrs

from autotune.compose.storytelling import show_in_dashboard
from autotune.spec import StudySummary
from autotune.study.dashboard import story, tell_story
from autotune.study.optuna_store import KEY
from autotune.tracking.figures import study_figures

ANSWERS_WITHIN_S = 60


def npy_is_faster(config):
    return (300.0 if config.archive == "npy" else 100.0,)


@pytest.fixture
def told(make_bench):
    """A study that has run, with its story told."""
    bench = make_bench(npy_is_faster)
    summary = bench.run()
    records = [record for record in bench.store.records("s") if record.phase == "search"]
    best_key = next(record.key for record in records if record.config == summary.best)
    figures = study_figures(records)
    tell_story(bench.study, summary, best_key=best_key, figures=figures)
    return bench, summary, best_key, figures


def test_the_note_tells_outcome_both_configurations_and_the_interval(told):
    bench, summary, _, _ = told
    note = get_note_from_system_attrs(bench.study._storage.get_study_system_attrs(bench.study._study_id), None)["body"]
    assert note == story(summary)
    assert note.startswith("# s: gain")
    assert summary.best.label() in note
    assert summary.default.label() in note
    assert f"{summary.ratio.mean:.2f}, 95 % interval {summary.ratio.low:.2f} to {summary.ratio.high:.2f}" in note
    assert f"{summary.pairs} fresh interleaved pairs" in note


def test_the_chosen_trial_alone_bears_a_note(told):
    bench, summary, best_key, _ = told
    attrs = bench.study._storage.get_study_system_attrs(bench.study._study_id)
    noted = {
        trial.user_attrs[KEY]: get_note_from_system_attrs(attrs, trial._trial_id)["body"]
        for trial in bench.trials(TrialState.COMPLETE)
        if KEY in trial.user_attrs and get_note_from_system_attrs(attrs, trial._trial_id)["body"]
    }
    assert list(noted) == [best_key]
    assert summary.best.label() in noted[best_key]


def test_notes_link_to_the_decision_where_a_service_is_known(told):
    bench, summary, best_key, figures = told
    page = "https://tuning.example.org/decisions/abc"
    tell_story(bench.study, summary, best_key=best_key, figures=figures, page=page)
    attrs = bench.study._storage.get_study_system_attrs(bench.study._study_id)
    link = f"[Evidence, history and review of this decision]({page})"
    assert link in get_note_from_system_attrs(attrs, None)["body"]
    (chosen,) = [trial for trial in bench.trials(TrialState.COMPLETE) if trial.user_attrs.get(KEY) == best_key]
    assert link in get_note_from_system_attrs(attrs, chosen._trial_id)["body"]
    assert "](" not in story(summary)


def test_telling_again_replaces_figures_instead_of_adding_them(told):
    bench, summary, best_key, figures = told
    assert figures
    assert saved_figures(bench.study) == set(figures)
    tell_story(bench.study, summary, best_key=best_key, figures=figures)
    assert saved_figures(bench.study) == set(figures)


def saved_figures(study):
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    attrs = study._storage.get_study_system_attrs(study._study_id)
    return set(get_plotly_graph_objects(attrs))


def test_a_story_without_ratio_and_rates_is_still_told(told):
    _, summary, _, _ = told
    bare = StudySummary(
        study="s", decision_key="d", outcome="nothing_feasible", best=summary.default, default=summary.default, why="w"
    )
    assert story(bare).startswith("# s: nothing feasible")
    assert "–" in story(bare)
    assert "Ratio" not in story(bare)


def test_the_dashboard_command_serves_the_study_on_loopback(told, tmp_path):
    bench, summary, _, figures = told
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from autotune.cli import main; main()", "dashboard"]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--home", str(tmp_path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    try:
        (listed,) = ask(process, f"http://127.0.0.1:{port}/api/studies")["study_summaries"]
        assert listed["study_name"] == "s"
        detail = ask(process, f"http://127.0.0.1:{port}/api/studies/{listed['study_id']}?after=0")
        assert detail["note"]["body"] == story(summary)
        assert len(detail["trials"]) == len(bench.trials())
        assert {plot["id"] for plot in detail["plotly_graph_objects"]} == set(figures)
        assert b"<html" in fetch(f"http://127.0.0.1:{port}/dashboard").lower()
        host = {listening.laddr.ip for listening in listening_sockets(process.pid)}
        assert host == {"127.0.0.1"}
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert b"no login" in errors


def listening_sockets(pid):
    import psutil

    return [found for found in psutil.Process(pid).net_connections("inet") if found.status == psutil.CONN_LISTEN]


def fetch(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def ask(process, url):
    end = time.monotonic() + ANSWERS_WITHIN_S
    while True:
        try:
            return json.loads(fetch(url))
        except urllib.error.URLError:
            assert process.poll() is None, "the dashboard ended"
            assert time.monotonic() < end, "the dashboard does not answer"
            time.sleep(0.2)


def test_a_run_is_told_by_its_own_decision_whatever_another_host_decided_meanwhile(make_bench):
    bench = make_bench(npy_is_faster)
    summary = bench.run()
    (mine,) = bench.store.decisions("s")
    theirs = mine.replace(
        key="e" * 32, machine=mine.machine.replace(host="there"), decided_at=mine.decided_at + timedelta(seconds=1)
    )
    bench.store.save_decision(theirs)
    show_in_dashboard(bench.study, summary, setting=bench.setting, service_url="http://service")
    note = get_note_from_system_attrs(bench.study._storage.get_study_system_attrs(bench.study._study_id), None)["body"]
    assert mine.key in note
    assert theirs.key not in note
