"""What the page of a decision reads of a study that has been searched for long."""

from reviewed_studies import fill

from autotune.registry import open_registry
from autotune.service.pages import decisions
from autotune.service.pages.decisions import view_of


def test_only_the_newest_trials_are_read_and_the_page_says_how_many_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(decisions, "TRIALS_MAX", 5)
    with open_registry(tmp_path) as registry:
        key = fill(registry)["waiting"].key  # after two searches of twelve trials
        found = view_of(registry, key).found
        read = len(registry.records("forest_gaps", phase="search"))
    assert (found.trials_drawn, found.trials_undrawn, found.trials_left_out) == (5, read - 5, read - 5)
    assert [row.runs for row in found.compared] == [6, 6], "what was compared is all there"
