"""Which settings run in which segments, and what is decided from them. Numbers only: no clock, no loader."""

import math
import random
from dataclasses import replace
from statistics import fmean

import pytest

from autotune.resolve.online_setting import SAFE, Setting
from autotune.resolve.online_trial import Trial
from autotune.resolve.online_verdict import Seen

ONE, TWO, FOUR = (Setting(num_workers=count, prefetch_factor=2) for count in (1, 2, 4))
RIVALS = [TWO, FOUR, ONE]


def seen(setting, rate, *, wait=0.5, batches=10, futile=False):
    return Seen(setting=setting, samples_per_s=rate, wait_share=wait, batches=batches, futile=futile)


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
    assert play(trial, lambda _: 100.0, wait=0.04) == [TWO, TWO]
    assert (trial.verdict.setting, trial.verdict.outcome) == (TWO, "nothing_to_gain")
    assert "in two windows at most 4.0% of the time" in trial.verdict.why


def test_one_window_that_hardly_waits_is_not_enough_to_try_nothing():
    trial = Trial(SAFE, [TWO], batches=10_000)
    trial.tell(seen(SAFE, 300.0, wait=0.01), batches=10)
    assert (trial.ask.setting, trial.verdict) == (SAFE, None)
    asked = play(trial, lambda setting: 200.0 if setting == TWO else 100.0)
    assert TWO in asked
    assert (trial.verdict.setting, trial.verdict.outcome) == (TWO, "gain")


def test_where_no_second_window_may_run_nothing_is_claimed():
    trial = Trial(SAFE, [TWO], batches=10_000, segments=1)
    assert play(trial, lambda _: 100.0, wait=0.01) == [SAFE]
    assert (trial.verdict.setting, trial.verdict.outcome) == (SAFE, "undecided")


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


def test_what_is_given_up_in_a_block_is_told_by_the_resolved_setting_of_that_block():
    trial = Trial(SAFE, [TWO], batches=10_000)
    slower = iter(0.8**number for number in range(100))  # everything slows down while settings are tried
    trial.tell(seen(SAFE, 100.0), batches=10)
    beside, number = None, 0
    while trial.ask is not None:
        setting, below = trial.ask.setting, trial.ask.give_up_below
        rate = (100.0 if setting == SAFE else 110.0) * next(slower)
        assert below == (None if setting == SAFE or beside is None else pytest.approx(0.6 * beside))
        assert below is None or rate > below
        trial.tell(seen(setting, rate), batches=10)
        beside = rate if setting == SAFE else beside
        number += 1
        beside = None if number % 2 == 0 else beside
    assert number == 10, "five blocks, and none was cut short"


def test_a_setting_that_nobody_has_seen_runs_behind_the_resolved_one_so_that_it_can_be_given_up():
    for seed in range(8):
        trial = Trial(SAFE, [TWO], batches=10_000, seed=seed)
        assert play(trial, lambda setting: 100.0 if setting == SAFE else 10.0) == [SAFE, SAFE, TWO]
        assert (trial.verdict.setting, trial.verdict.outcome) == (SAFE, "undecided")
        assert "2 workers, prefetch 2 was far behind" in trial.verdict.why


def test_a_lucky_segment_makes_no_later_one_of_the_same_setting_futile():
    trial = Trial(SAFE, [TWO], batches=10_000)
    lucky = iter([400.0, *[200.0, 210.0, 190.0] * 9])
    play(trial, lambda setting: 100.0 if setting == SAFE else next(lucky))
    assert (trial.verdict.outcome, trial.verdict.setting, trial.verdict.pairs) == ("gain", TWO, 5)


def test_where_everything_else_is_slower_the_resolved_setting_stays():
    trial = Trial(TWO, [SAFE, ONE], batches=10_000)
    asked = play(trial, lambda setting: 100.0 if setting == TWO else 70.0)
    assert len(asked) == 4
    assert asked[0] == asked[-1] == TWO
    assert (trial.verdict.setting, trial.verdict.outcome) == (TWO, "nothing_to_gain")


def test_a_lucky_look_at_the_resolved_setting_leaves_no_better_one_out():
    trial = Trial(SAFE, RIVALS, batches=10_000)
    looks = iter([400.0])
    asked = play(trial, lambda setting: next(looks, 100.0) if setting == SAFE else 150.0 + setting.num_workers)
    assert asked[4] == SAFE
    assert trial.verdict.outcome == "gain"
    assert trial.verdict.setting != SAFE


def test_too_few_batches_leave_rivals_out_and_then_everything():
    few = Trial(SAFE, RIVALS, batches=150)
    assert set(play(few, lambda setting: 100.0 + 50 * setting.num_workers)) == {SAFE, TWO}
    none = Trial(SAFE, RIVALS, batches=40)
    assert play(none, lambda _: 100.0) == [SAFE]
    assert (none.verdict.outcome, none.verdict.setting) == ("undecided", SAFE)
    assert "too few batches" in none.verdict.why


def play_epochs(trial, epochs, epoch_batches, rate_of):
    """Answer questions as an online loader does, which runs no segment across the end of an epoch."""
    asked, left = [], epoch_batches
    while trial.ask is not None:
        ask = trial.ask
        if left < (ask.most or ask.fewest):
            epochs, left = epochs - 1, epoch_batches
            if epochs <= 0:
                trial.stop()
            continue
        asked.append(ask.setting)
        left -= ask.most
        trial.tell(seen(ask.setting, rate_of(ask.setting), batches=ask.window_batches), batches=ask.most)
    return asked


def test_a_setting_whose_pair_is_longer_than_an_epoch_keeps_no_other_from_being_tried():
    """A pair with four workers takes 39 batches, one with two 29, and an epoch has 30."""
    plan = {"batches": 40 * 30, "epoch_batches": 30, "segment_batches": 10}
    trial = Trial(SAFE, [FOUR, TWO, ONE], **plan)
    asked = play_epochs(trial, 40, 30, lambda setting: 100.0 + 50 * setting.num_workers)
    assert set(asked) == {SAFE, ONE, TWO}
    assert (trial.verdict.setting, trial.verdict.outcome) == (TWO, "gain")


def test_what_is_left_at_the_end_of_an_epoch_pays_for_no_pair():
    """Two epochs of 50 batches have one pair of 29 each, though 100 batches are three pairs and a look."""
    trial = Trial(SAFE, [TWO], batches=100, epoch_batches=50, segment_batches=10)
    assert play_epochs(trial, 2, 50, lambda setting: 100.0 + 50 * setting.num_workers) == [SAFE]
    assert "too few batches" in trial.verdict.why
    trial = Trial(SAFE, [TWO], batches=150, epoch_batches=50, segment_batches=10)
    asked = play_epochs(trial, 3, 50, lambda setting: 100.0 + 50 * setting.num_workers)
    assert asked.count(TWO) == 3
    assert trial.verdict.outcome == "gain"


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


@pytest.mark.parametrize("end", ["fails", "is far behind"])
@pytest.mark.parametrize("good", [3, 4])
def test_a_setting_that_ends_badly_in_the_blocks_is_not_promoted_for_its_pairs_before(end, good):
    trial, ran = Trial(SAFE, [TWO], batches=100_000), 0
    trial.tell(seen(SAFE, 100.0), batches=12)
    while trial.ask is not None:
        ran += trial.ask.setting == TWO
        if trial.ask.setting == SAFE:
            trial.tell(seen(SAFE, 100.0 + ran % 2), batches=12)
        elif ran <= good:
            trial.tell(seen(TWO, 150.0 + ran), batches=12)
        elif end == "fails":
            trial.fail("a worker was killed", batches=5)
        else:
            trial.tell(seen(TWO, 40.0, futile=True), batches=5)
    assert ran == good + 1
    assert (trial.verdict.setting, trial.verdict.outcome) == (SAFE, "undecided")
    assert ("failed (a worker was killed)" if end == "fails" else "was far behind") in trial.verdict.why


def test_the_other_finalist_is_promoted_where_one_fails_in_the_blocks():
    trial, fours = Trial(SAFE, RIVALS, batches=100_000), 0
    rates = {SAFE: 100.0, ONE: 115.0, TWO: 90.0, FOUR: 121.0}
    while trial.ask is not None:
        fours += trial.ask.setting == FOUR
        if trial.ask.setting == FOUR and fours == 5:  # it has three pairs by then
            trial.fail("a worker was killed", batches=5)
        else:
            trial.tell(seen(trial.ask.setting, rates[trial.ask.setting] + fours), batches=10)
    assert (trial.verdict.setting, trial.verdict.outcome) == (ONE, "gain")
    assert FOUR in trial.failed


def stopped(seed, noise, *, segments, ratio=1.0):
    """Give the verdict of a trial with one rival that ends for want of epochs after some segments."""
    drawn, trial = random.Random(seed), Trial(SAFE, [TWO], batches=100_000, seed=seed)
    for _ in range(segments):
        setting = trial.ask.setting
        rate = (ratio if setting == TWO else 1.0) * 100 * math.exp(drawn.gauss(0, noise))
        trial.tell(seen(setting, rate), batches=10)
    trial.stop()
    return trial.verdict


def test_a_trial_that_ends_with_the_epochs_decides_by_its_whole_blocks_where_they_are_enough():
    assert (stopped(1, 0.02, segments=6, ratio=1.5).outcome, stopped(1, 0.02, segments=1).outcome) == (
        "undecided",
        "undecided",
    )
    for segments in (7, 8, 9):
        verdict = stopped(1, 0.02, segments=segments, ratio=1.5)
        assert (verdict.setting, verdict.outcome) == (TWO, "gain")
        assert verdict.pairs == 3 + (segments == 9)
        assert f"ended after {verdict.pairs} blocks" in verdict.why


@pytest.mark.parametrize("segments", [7, 9])
def test_equal_settings_are_not_told_apart_by_trials_that_end_with_the_epochs_either(segments):
    gains = sum(stopped(seed, 0.04, segments=segments).outcome == "gain" for seed in range(500))
    assert gains <= 0.07 * 500


def test_batches_that_epochs_no_longer_have_pay_for_nothing():
    trial = Trial(SAFE, RIVALS, batches=100_000)
    trial.keep_within(150)
    assert set(play(trial, lambda setting: 100.0 + 50 * setting.num_workers)) == {SAFE, TWO}
    trial = Trial(SAFE, RIVALS, batches=100_000)
    trial.keep_within(40)
    assert play(trial, lambda _: 100.0) == [SAFE]
    assert trial.verdict.outcome == "undecided"


def test_what_there_is_no_memory_for_is_left_out_with_the_reason():
    def refuses(setting, batch_bytes):
        return f"{batch_bytes} bytes are too many" if setting.num_workers > 1 else None

    trial, asked = Trial(SAFE, RIVALS, batches=10_000, refuses=refuses), set()
    while trial.ask is not None:
        asked.add(trial.ask.setting)
        rate = 200.0 if trial.ask.setting == ONE else 100.0
        trial.tell(replace(seen(trial.ask.setting, rate), batch_bytes=64), batches=10)
    assert asked == {SAFE, ONE}
    assert (trial.verdict.setting, trial.verdict.outcome) == (ONE, "gain")
    assert trial.left_out == dict.fromkeys([TWO, FOUR], "64 bytes are too many")


def test_without_memory_for_any_other_setting_nothing_is_tried():
    trial = Trial(SAFE, RIVALS, batches=10_000, refuses=lambda *_: "no memory")
    assert play(trial, lambda _: 100.0) == [SAFE]
    assert trial.verdict.outcome == "nothing_to_gain"
    assert "that memory has room for" in trial.verdict.why


def test_a_setting_that_memory_runs_out_for_while_it_is_tried_is_not_promoted():
    free = [True]
    trial, ran = Trial(SAFE, [TWO], batches=10_000, refuses=lambda *_: None if free[0] else "memory is used up"), 0
    while trial.ask is not None:
        ran += trial.ask.setting == TWO
        free[0] = ran < 4
        trial.tell(seen(trial.ask.setting, 200.0 if trial.ask.setting == TWO else 100.0), batches=10)
    assert ran == 4
    assert (trial.verdict.setting, trial.verdict.outcome) == (SAFE, "undecided")
    assert "was left out (memory is used up)" in trial.verdict.why


def test_where_the_resolved_setting_fails_loading_goes_on_in_the_process():
    trial = Trial(TWO, [FOUR], batches=10_000)
    trial.fail("a worker died", batches=3)
    assert (trial.verdict.setting, trial.verdict.outcome) == (SAFE, "fallback")
    assert "a worker died" in trial.verdict.why


def test_a_segment_too_short_to_tell_anything_is_no_measurement():
    trial = Trial(SAFE, [TWO], batches=10_000)
    trial.tell(None, batches=3)
    assert (trial.verdict.outcome, trial.verdict.setting) == ("undecided", SAFE)


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
