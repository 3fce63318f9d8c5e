"""The page itself: whole, offline, and unmoved by whatever text it shows."""

import base64
import hashlib
import re
from datetime import UTC, datetime

import pytest
from report_pages import Page

from autotune.registry import open_registry
from autotune.spec import LoaderConfig
from autotune.tracking.report import StudyEvidence, gather, render_report

NOW = datetime(2030, 5, 2, 4, 5, tzinfo=UTC)
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"


@pytest.fixture
def known(tmp_path, make_record, decision, out_of_memory):
    """What a registry gives of a study that was searched, confirmed and decided."""
    best, default = (config.model_dump() for config in (decision.config, decision.default))
    with open_registry(tmp_path) as registry:
        for record in (
            make_record(0, rate=500.0, **default),
            make_record(1, rate=1400.0, **best),
            make_record(2, failure=out_of_memory, batch_size=512),
            make_record(10, rate=1390.0, phase="confirm", **best),
            make_record(11, rate=510.0, phase="confirm", **default),
            make_record(12, rate=505.0, phase="confirm", **default),
            make_record(13, rate=1410.0, phase="confirm", **best),
        ):
            registry.save_record(record)
        registry.save_decision(decision)
        yield gather(registry, decision.study)


def page_of(*studies, **options):
    return Page(render_report(studies, made_at=NOW, **options))


def test_page_tells_verdict_evidence_history_and_circumstances(known, decision):
    text = page_of(known).text
    assert "gain" in text
    assert "2.81 × the chosen configuration over the PyTorch default at the same batch size" in text
    assert "95 % interval 2.64 to 2.97, 6 interleaved pairs of fresh processes" in text
    assert decision.why in text
    assert "This is what is deployed." in text
    assert "1,437 samples/s" in text
    assert "1,390 to 1,410" in text, "the spread of the confirm runs"
    assert "the peak [bold] of 9.2 GiB passed the limit of 8 GiB" in text
    assert "What was deployed when, and why" in text
    assert "Linux x86_64, 8 CPUs, 32 GiB, no accelerator" in text
    assert "Made 2030-05-02 04:05 UTC" in text


def test_page_needs_nothing_but_itself(known):
    page = page_of(known)
    assert page.attribute("src") == []
    assert page.attribute("srcset") == []
    assert [tag for tag, _ in page.elements if tag in ("link", "iframe", "object", "base", "form")] == []
    assert all(address.startswith("#") for address in page.attribute("href"))
    style = render_report([known], made_at=NOW).partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_policy_of_the_page_allows_its_own_two_scripts_alone(known):
    page = page_of(known)
    (policy,) = [attrs["content"] for tag, attrs in page.elements if attrs.get("http-equiv")]
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in page.programs()
    }
    assert len(hashes) == 2
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert set(rules["script-src"].split()) == hashes


def test_every_figure_is_on_the_page_with_a_place_and_a_caption(known):
    page = page_of(known)
    figures = page.figures()
    assert {anchor.removeprefix("study-forest_gaps-0-") for anchor in figures} == {
        "confirm-runs", "throughput-by-parameter", "trial-history", "rate-against-memory", "memory-by-batch-size",
        "phase-breakdown",
    }  # fmt: skip
    assert {attrs["id"] for _, attrs in page.elements if "data-figure" in attrs} == set(figures)
    assert all(figure["data"] and figure["layout"]["title"]["text"] for figure in figures.values())
    assert sum(tag == "figcaption" for tag, _ in page.elements) == len(figures)


def test_hostile_text_from_anywhere_stays_text(tmp_path, make_record, decision, crashed):
    plain = "some words"

    def page(words):
        folder = tmp_path / str(len(words))
        hostile = decision.replace(
            why=words,
            notes=(words,),
            decided_by=words,
            machine=decision.machine.replace(host=words, versions={"torch": words}),
            dataset=decision.dataset.replace(structure=words),
        )
        record = make_record(0, failure=crashed.replace(message=words), decoder=words)
        with open_registry(folder) as registry:
            registry.save_record(record.replace(dataset=hostile.dataset, machine=hostile.machine))
            registry.save_decision(hostile)
            deployment = registry.deployments()[0]
            registry.pin(hostile.key, actor=words, reason=words, expected_version=deployment.version)
            return page_of(gather(registry, decision.study))

    benign, attacked = page(plain), page(HOSTILE)
    assert [tag for tag, _ in attacked.elements] == [tag for tag, _ in benign.elements]
    assert [sorted(attrs) for _, attrs in attacked.elements] == [sorted(attrs) for _, attrs in benign.elements]
    assert attacked.programs() == benign.programs()
    assert attacked.text.count(HOSTILE) == benign.text.count(plain) >= 8
    assert set(attacked.figures()) == set(benign.figures())


def test_study_without_decision_says_so_and_shows_its_trials(make_record):
    records = (make_record(0, rate=500.0), make_record(1, rate=700.0, num_workers=2))
    page = page_of(StudyEvidence(study="running", decisions=(), records=records))
    assert "No decision was come to yet" in page.text
    assert "All 2 trials of the search" in page.text
    assert len(page.figures()) == 5


def test_study_without_anything_is_said_to_be_empty_and_needs_no_script():
    page = page_of(StudyEvidence(study="new", decisions=(), records=()))
    assert "Nothing has been measured yet." in page.text
    assert page.scripts == []


def test_several_studies_have_places_that_links_lead_to(known, decision):
    other = StudyEvidence(study="a.b-c", decisions=(), records=())
    page = page_of(known, other)
    places = set(page.attribute("id"))
    assert {address[1:] for address in page.attribute("href")} <= places
    assert len(page.attribute("id")) == len(places), "no place twice"
    assert page.text.startswith("autotune: forest_gaps, a.b-c")


def test_decision_links_to_its_page_where_a_service_is_known(known, decision):
    page = page_of(known, address="https://tuning.example.org")
    assert page.attribute("href") == [f"https://tuning.example.org/decisions/{decision.key}"]


def test_trials_that_are_in_no_figure_are_told_of(known, decision):
    page = page_of(StudyEvidence(study="s", decisions=(decision,), records=known.records, unread=4321))
    drawn = sum(record.phase == "search" for record in known.records)
    assert (
        f"The figures show the newest {drawn} trials of the search; 4,321 older ones are in the registry." in page.text
    )
    assert f"All {drawn + 4321} trials of the search" in page.text
    assert "older ones" not in page_of(known).text


def test_long_lists_of_trials_are_cut_to_the_newest_and_say_so(make_record):
    records = tuple(make_record(number, rate=500.0 + number) for number in range(305))
    page = page_of(StudyEvidence(study="s", decisions=(), records=records))
    assert "All 305 trials of the search" in page.text
    assert "The newest 300 are listed." in page.text
    listed = re.findall(r"\b(\d{3,4}) ±", page.text)
    assert listed[0] == "505"
    assert listed[-1] == "804"


def test_what_was_kept_though_no_gain_was_shown_is_told_as_such(known, decision):
    kept = decision.replace(outcome="undecided", config=decision.default, key="f" * 32)
    page = page_of(StudyEvidence(study="s", decisions=(kept,), records=known.records))
    assert "undecided" in page.text
    assert "the fastest other configuration over the PyTorch default" in page.text


def test_decision_without_figures_of_its_own_is_still_a_page(decision):
    bare = decision.replace(
        outcome="nothing_feasible", ratio=None, pairs=0, samples_per_s=None, default_samples_per_s=None,
        config=LoaderConfig(batch_size=1), default=LoaderConfig(batch_size=1),
    )  # fmt: skip
    page = page_of(StudyEvidence(study="s", decisions=(bare,), records=()))
    assert "nothing feasible" in page.text
    assert "interleaved pairs" not in page.text
