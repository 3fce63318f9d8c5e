"""What is decided from the figures of segments."""

import pytest

from autotune.ratios import pairs_to_resolve, ratio_interval
from autotune.resolve.online_setting import SAFE, Setting
from autotune.resolve.online_verdict import Seen, finalists, judge

ONE, TWO, FOUR = (Setting(num_workers=count, prefetch_factor=2) for count in (1, 2, 4))


def seen(setting, rate, *, wait=0.5, batches=10, futile=False):
    return Seen(setting=setting, samples_per_s=rate, wait_share=wait, batches=batches, futile=futile)


def blocks_of(*rates_of_settings, wait=0.5):
    """Make blocks from lists of rates, one list a setting."""
    settings = [SAFE, TWO, ONE, FOUR][: len(rates_of_settings)]
    return [
        {setting: seen(setting, rate, wait=wait) for setting, rate in zip(settings, rates, strict=True)}
        for rates in zip(*rates_of_settings, strict=True)
    ]


def test_the_fastest_and_the_cheapest_near_it_are_the_finalists():
    base = seen(SAFE, 100.0)
    assert finalists(base, [seen(FOUR, 200.0), seen(TWO, 190.0), seen(ONE, 120.0)]) == [FOUR, TWO]
    assert finalists(base, [seen(TWO, 200.0), seen(FOUR, 190.0)]) == [TWO]
    assert finalists(base, [seen(TWO, 80.0), seen(FOUR, 85.0)]) == []
    assert finalists(base, [seen(TWO, 300.0, futile=True), seen(FOUR, 95.0)]) == [FOUR]


def test_only_an_interval_above_the_promotion_ratio_is_a_gain():
    steady, faster = [100, 101, 99, 100, 100], [110, 110, 109, 111, 109]
    assert judge(blocks_of(steady, faster), SAFE, [TWO]).outcome == "gain"
    scattered = [150, 90, 120, 80, 130]
    verdict = judge(blocks_of(steady, scattered), SAFE, [TWO])
    assert (verdict.outcome, verdict.setting) == ("undecided", SAFE)
    hardly = [100.5, 101.4, 99.6, 100.4, 100.5]
    assert judge(blocks_of(steady, hardly), SAFE, [TWO]).outcome == "nothing_to_gain"


def test_two_pairs_decide_nothing():
    assert judge(blocks_of([100, 100], [200, 200]), SAFE, [TWO]).outcome == "undecided"


def test_of_equivalent_gains_the_cheapest_is_taken_and_of_others_the_fastest():
    base = [100, 101, 99, 100, 100]
    fast = [200, 202, 199, 200, 201]
    near = [199, 201, 198, 199, 200]
    assert judge(blocks_of(base, fast, near), SAFE, [TWO, ONE]).setting == ONE
    behind = [180, 182, 179, 180, 181]
    assert judge(blocks_of(base, fast, behind), SAFE, [TWO, ONE]).setting == TWO


def test_settings_that_keep_the_step_fed_are_equivalent():
    base, fast, behind = [100, 101, 99], [200, 202, 199], [180, 182, 179]
    assert judge(blocks_of(base, fast, behind, wait=0.03), SAFE, [TWO, ONE]).setting == ONE


def test_an_equivalent_setting_that_takes_less_replaces_the_resolved_one():
    rates = [100.0, 101.0, 99.0, 100.0]
    blocks = [{FOUR: seen(FOUR, rate), ONE: seen(ONE, rate * 0.999)} for rate in rates]
    verdict = judge(blocks, FOUR, [ONE])
    assert (verdict.setting, verdict.outcome) == (ONE, "cheaper")
    assert judge([{ONE: block[ONE], FOUR: block[FOUR]} for block in blocks], ONE, [FOUR]).setting == ONE


@pytest.mark.parametrize(("ratio", "pairs"), [(2.0, 3), (1.2, 5), (1.001, 10), (0.5, 3)])
def test_smaller_gains_take_more_pairs(ratio, pairs):
    assert pairs_to_resolve(ratio, noise=0.05, fewest=3, most=10) == pairs


def test_an_interval_of_less_confidence_is_narrower():
    above, below = [110.0, 112.0, 108.0], [100.0, 101.0, 99.5]
    wide, narrow = ratio_interval(above, below), ratio_interval(above, below, confidence=0.9)
    assert wide.low < narrow.low < narrow.mean == wide.mean < narrow.high < wide.high
