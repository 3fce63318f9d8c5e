"""What stands before the studies of a nightly report."""

from datetime import UTC, datetime
from typing import get_args

from report_pages import Page

from autotune.spec import Interval, NightlyReport, StudyNight
from autotune.spec.nightly import NightOutcome, Pruned
from autotune.tracking.report import StudyEvidence, night_preface, render_report
from autotune.tracking.report.night import OUTCOMES

BEGAN = datetime(2030, 5, 1, 2, 0, tzinfo=UTC)


def study(name="forest_gaps", **changes):
    fields = {
        "study": name,
        "file": f"studies/{name}.yaml",
        "task": "check",
        "why": "the deployed configuration is checked every night",
        "outcome": "rolled_back",
        "told": ("it was 0.71 times as fast as what was deployed before",),
        "recorded": Interval(mean=2.8, low=2.6, high=3.0),
        "measured": Interval(mean=1.1, low=1.0, high=1.2),
        "wall_s": 61.0,
    }
    return StudyNight(**{**fields, **changes})


def night(*studies, **changes):
    fields = {
        "machine": "spruce", "started_at": BEGAN, "ended_at": BEGAN.replace(hour=3), "budget_s": 7200.0,
        "spent_s": 3600.0, "studies": studies, "exit_code": 0,
    }  # fmt: skip
    return NightlyReport(**{**fields, **changes})


def test_each_outcome_of_a_night_has_words():
    assert set(OUTCOMES) == set(get_args(NightOutcome))


def test_night_tells_where_when_and_how_much_of_the_budget_was_spent():
    told = night_preface(night(study(), study("text", outcome="kept"), study("images", outcome="kept")))
    assert told.title == "autotune: night of 2030-05-01"
    assert told.sentences[0] == "On spruce: began at 02:00 UTC, ended at 03:00 UTC; 1 h of 2 h were spent."
    assert told.sentences[1] == "3 studies: 2 kept, 1 rolled back."


def test_row_has_both_ratios_and_the_reason_in_whole_sentences():
    (row,) = night_preface(night(study())).rows
    assert row.rate == "1.10 × (1.00 to 1.20) this night, 2.80 × on record"
    assert row.reason == (
        "It was 0.71 times as fast as what was deployed before. The deployed configuration is checked every night."
    )
    assert (row.verdict, row.mood, row.seconds) == ("rolled back", "bad", 61.0)
    assert night_preface(night(study(measured=None, recorded=None))).rows[0].rate == ""


def test_night_without_studies_and_one_that_was_killed_are_told():
    told = night_preface(night(ended_at=None, pruned=Pruned(trials=4, archives=("a/npy",), freed_bytes=2**30)))
    assert "it has not ended" in told.sentences[0]
    assert told.sentences[1:] == (
        "There was no study to look at.",
        "Removed as too old: 4 trials and 1 archive (1 GiB).",
    )
    beside = night_preface(night(ended_at=None, pruned=Pruned(searches=1, reports=2)))
    assert beside.sentences[-1] == "Removed as too old: 1 superseded search and 2 reports of nights."


def test_page_of_a_night_links_to_studies_that_are_on_it_and_only_names_the_others(make_record):
    known = StudyEvidence(study="forest_gaps", decisions=(), records=(make_record(0),))
    preface = night_preface(
        night(
            study(), study("gone", outcome="failed", told=("no such file",), wall_s=0.0, recorded=None, measured=None)
        )
    )
    page = Page(render_report([known], made_at=BEGAN, preface=preface))
    assert page.attribute("href") == ["#study-forest_gaps"]
    assert "study-forest_gaps" in page.attribute("id")
    assert "gone failed No such file." in page.text
