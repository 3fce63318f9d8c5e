"""What clients may write."""

import pytest
from pydantic import ValidationError

from autotune.service.documents import ReasonedReview, Review


@pytest.mark.parametrize("reason", ["stalls", "zu langsam \u2013 n\u00e4chtlich", "two\r\nlines\tand a tab"])
@pytest.mark.parametrize("form", [Review, ReasonedReview])
def test_words_of_any_language_are_a_reason(form, reason):
    assert form(expected_version=1, reason=reason).reason == reason


@pytest.mark.parametrize("odd", ["\x00", "\x1b[2J", "\x07", "\x7f", "\x9b31m"])
@pytest.mark.parametrize("form", [Review, ReasonedReview])
def test_what_a_terminal_would_obey_is_none(form, odd):
    with pytest.raises(ValidationError, match="pattern"):
        form(expected_version=1, reason=f"slow{odd}")


def test_a_reason_that_is_needed_is_more_than_white_space():
    assert Review(expected_version=1).reason == ""
    with pytest.raises(ValidationError, match="pattern"):
        ReasonedReview(expected_version=1, reason=" \t\r\n\u00a0")
