"""Which settings run in which segments, and what is decided from them. Numbers only: no clock, no loader."""

import math
import random
from statistics import fmean

import pytest

from autotune.ratios import pairs_to_resolve, ratio_interval
from autotune.resolve.online_setting import SAFE, Setting
from autotune.resolve.online_trial import Trial
from autotune.resolve.online_verdict import Seen, finalists, judge

ONE, TWO, FOUR = (Setting(num_workers=count, prefetch_factor=2) for count in (1, 2, 4))
RIVALS = [TWO, FOUR, ONE]


def seen(setting, rate, *, wait=0.5, batches=10, futile=False):
    return Seen(setting=setting, samples_per_s=rate, wait_share=wait, batches=batches, futile=futile)


def blocks_of(*rates_of_settings, wait=0.5):
    """Make blocks from lists of rates, one list a setting."""
    settings = [SAFE, TWO, ONE, FOUR][: len(rates_of_settings)]
    return [
        {setting: seen(setting, rate, wait=wait) for setting, rate in zip(settings, rates, strict=True)}
        for rates in zip(*rates_of_settings, strict=True)
    ]


def play(trial, rate_of, *, wait=0.5, futile_under=0.6):
    """Answer every question of a trial, and give the settings that were asked for."""
    asked = []
    while trial.ask is not None:
        ask = trial.ask
        asked.append(ask.setting)
        rate = rate_of(ask.setting)
        futile = ask.give_up_below is not None and rate < ask.give_up_below
        batches = ask.most or ask.lead + 10 + ask.tail
        trial.tell(seen(ask.setting, rate, wait=wait, batches=ask.window_batches or 10, futile=futile), batches=batches)
    return asked


def test_nothing_is_tried_where_the_step_hardly_waits():
    trial = Trial(TWO, [SAFE, FOUR], batches=10_000)
    assert play(trial, lambda _: 100.0, wait=0.04) == [TWO]
    assert (trial.verdict.setting, trial.verdict.outcome) == (TWO, "nothing_to_gain")
    assert "4.0% of the time" in trial.verdict.why


def test_without_rivals_nothing_runs():
    trial = Trial(SAFE, [], batches=10_000)
    assert trial.ask is None
    assert trial.verdict.outcome == "nothing_to_gain"


def test_a_clear_gain_takes_the_fewest_pairs_and_is_promoted():
    rates = {SAFE: 100.0, ONE: 110.0, TWO: 210.0, FOUR: 120.0}
    noise = random.Random(1)
    trial = Trial(SAFE, RIVALS, batches=10_000)
    asked = play(trial, lambda setting: rates[setting] * math.exp(noise.gauss(0, 0.03)))
    assert (trial.verdict.setting, trial.verdict.outcome, trial.verdict.pairs) == (TWO, "gain", 3)
    assert trial.verdict.ratio.low > 1.5
    assert sorted(asked[1:4], key=lambda setting: setting.cost) == [ONE, TWO, FOUR]
    assert set(asked[4:]) == {SAFE, TWO}


def test_pairs_run_forwards_and_backwards():
    trial = Trial(SAFE, [TWO], batches=10_000)
    asked = play(trial, lambda setting: 100.0 + setting.num_workers)
    pairs = [tuple(asked[start : start + 2]) for start in range(1, len(asked), 2)]
    assert all(first == second[::-1] for first, second in zip(pairs[::2], pairs[1::2], strict=False))
    assert all(set(pair) == {SAFE, TWO} for pair in pairs)


def test_a_setting_far_behind_is_given_up_and_never_runs_again():
    rates = {SAFE: 100.0, ONE: 50.0, TWO: 140.0, FOUR: 55.0}
    trial = Trial(SAFE, RIVALS, batches=10_000)
    asked = play(trial, lambda setting: rates[setting])
    assert [asked.count(setting) for setting in (ONE, FOUR)] == [1, 1]
    assert trial.verdict.setting == TWO


def test_the_resolved_setting_is_never_given_up():
    trial = Trial(SAFE, [TWO], batches=10_000)
    while trial.ask is not None:
        assert trial.ask.setting == TWO or trial.ask.give_up_below is None
        rate = 20.0 if trial.ask.setting == SAFE else 100.0
        trial.tell(seen(trial.ask.setting, rate), batches=10)
    assert trial.verdict.outcome == "gain"


def test_a_lucky_segment_makes_no_later_one_of_the_same_setting_futile():
    trial = Trial(SAFE, [TWO], batches=10_000)
    lucky = iter([400.0, *[200.0, 210.0, 190.0] * 9])
    play(trial, lambda setting: 100.0 if setting == SAFE else next(lucky))
    assert (trial.verdict.outcome, trial.verdict.setting, trial.verdict.pairs) == ("gain", TWO, 5)


def test_where_everything_else_is_slower_the_resolved_setting_stays():
    trial = Trial(TWO, [SAFE, ONE], batches=10_000)
    asked = play(trial, lambda setting: 100.0 if setting == TWO else 70.0)
    assert len(asked) == 3
    assert (trial.verdict.setting, trial.verdict.outcome) == (TWO, "nothing_to_gain")


def test_too_few_batches_leave_rivals_out_and_then_everything():
    few = Trial(SAFE, RIVALS, batches=150)
    assert set(play(few, lambda setting: 100.0 + 50 * setting.num_workers)) == {SAFE, TWO}
    none = Trial(SAFE, RIVALS, batches=40)
    assert play(none, lambda _: 100.0) == [SAFE]
    assert (none.verdict.outcome, none.verdict.setting) == ("undecided", SAFE)
    assert "too few batches" in none.verdict.why


@pytest.mark.parametrize("most", [1, 6, 7, 12, 40])
def test_no_more_segments_run_than_were_allowed(most):
    trial = Trial(SAFE, RIVALS, batches=100_000, segments=most)
    assert len(play(trial, lambda setting: 100.0 + setting.num_workers)) <= most
    assert trial.verdict is not None


def test_long_epochs_pay_for_longer_windows_unless_they_are_fixed():
    def windows(**plan):
        trial = Trial(SAFE, [TWO], **plan)
        sizes = []
        while trial.ask is not None:
            sizes.append(trial.ask.window_batches)
            trial.tell(seen(trial.ask.setting, 100.0, batches=10), batches=10)
        return set(sizes[1:])

    assert windows(batches=100_000) == {40}
    assert windows(batches=400) == {10}
    assert windows(batches=100_000, segment_batches=7) == {7}


def test_a_failed_setting_and_those_with_more_workers_are_struck_out():
    trial = Trial(SAFE, RIVALS, batches=10_000)
    asked = []
    while trial.ask is not None:
        asked.append(trial.ask.setting)
        if trial.ask.setting in {TWO, FOUR}:
            trial.fail("no shared memory", batches=3)
        else:
            rate = 200.0 if trial.ask.setting == ONE else 100.0
            trial.tell(seen(trial.ask.setting, rate), batches=10)
    assert asked.count(TWO) + asked.count(FOUR) <= 2
    assert TWO in trial.failed or FOUR in trial.failed
    assert trial.verdict.setting == ONE


def test_a_setting_that_fails_in_the_blocks_ends_them_without_a_gain():
    trial = Trial(SAFE, [TWO], batches=10_000)
    trial.tell(seen(SAFE, 100.0), batches=10)
    while trial.ask.setting == SAFE:
        trial.tell(seen(SAFE, 100.0), batches=10)
    trial.fail("a worker died", batches=3)
    assert (trial.ask, trial.verdict.setting, trial.verdict.outcome) == (None, SAFE, "undecided")


def test_where_the_resolved_setting_fails_loading_goes_on_in_the_process():
    trial = Trial(TWO, [FOUR], batches=10_000)
    trial.fail("a worker died", batches=3)
    assert (trial.verdict.setting, trial.verdict.outcome) == (SAFE, "fallback")
    assert "a worker died" in trial.verdict.why


def test_a_segment_too_short_to_tell_anything_is_no_measurement():
    trial = Trial(SAFE, [TWO], batches=10_000)
    trial.tell(None, batches=3)
    assert (trial.verdict.outcome, trial.verdict.setting) == ("undecided", SAFE)


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


@pytest.mark.parametrize("noise", [0.02, 0.04, 0.06])
@pytest.mark.parametrize("rivals", [[TWO], RIVALS])
def test_equal_settings_are_told_apart_in_at_most_7_percent_of_runs(noise, rivals):
    separated = 0
    for seed in range(500):
        drawn = random.Random(seed)
        trial = Trial(SAFE, rivals, batches=100_000, seed=seed)
        play(trial, lambda _, drawn=drawn: 100 * math.exp(drawn.gauss(0, noise)))
        separated += trial.verdict.outcome == "gain"
    assert separated <= 0.07 * 500


@pytest.mark.parametrize("noise", [0.02, 0.06])
def test_equal_settings_are_not_told_apart_under_drift_either(noise):
    separated = 0
    for seed in range(500):
        drawn, clock = random.Random(seed), iter(range(1000))
        trial = Trial(SAFE, RIVALS, batches=100_000, seed=seed)
        play(trial, lambda _, drawn=drawn, clock=clock: 100 * math.exp(drawn.gauss(0, noise) - 0.01 * next(clock)))
        separated += trial.verdict.outcome == "gain"
    assert separated <= 0.07 * 500


@pytest.mark.parametrize("noise", [0.02, 0.04, 0.06])
def test_a_gain_of_half_is_found_nearly_always_and_its_ratio_is_unbiased(noise):
    rates = {SAFE: 100.0, ONE: 105.0, TWO: 150.0, FOUR: 130.0}
    found, logs = 0, []
    for seed in range(300):
        drawn = random.Random(seed)
        trial = Trial(SAFE, RIVALS, batches=100_000, seed=seed)
        play(trial, lambda setting, drawn=drawn: rates[setting] * math.exp(drawn.gauss(0, noise)))
        found += trial.verdict.setting == TWO
        if trial.verdict.setting == TWO:
            logs.append(math.log(trial.verdict.ratio.mean))
    assert found >= 0.9 * 300
    assert math.exp(fmean(logs)) == pytest.approx(1.5, rel=0.015)


def test_a_worse_setting_is_never_promoted():
    for seed in range(200):
        drawn = random.Random(seed)
        trial = Trial(TWO, [SAFE, ONE, FOUR], batches=100_000, seed=seed)
        play(trial, lambda setting, drawn=drawn: (100 if setting == TWO else 93) * math.exp(drawn.gauss(0, 0.05)))
        assert trial.verdict.outcome != "gain"
        assert trial.verdict.setting == TWO


def test_one_seed_gives_one_order():
    def order(seed):
        return play(Trial(SAFE, RIVALS, batches=100_000, seed=seed), lambda setting: 100.0 + setting.num_workers)

    assert order(5) == order(5)
    assert len({tuple(order(seed)) for seed in range(8)}) > 1


@pytest.mark.parametrize(("ratio", "pairs"), [(2.0, 3), (1.2, 5), (1.001, 10), (0.5, 3)])
def test_smaller_gains_take_more_pairs(ratio, pairs):
    assert pairs_to_resolve(ratio, noise=0.05, fewest=3, most=10) == pairs


def test_an_interval_of_less_confidence_is_narrower():
    above, below = [110.0, 112.0, 108.0], [100.0, 101.0, 99.5]
    wide, narrow = ratio_interval(above, below), ratio_interval(above, below, confidence=0.9)
    assert wide.low < narrow.low < narrow.mean == wide.mean < narrow.high < wide.high
