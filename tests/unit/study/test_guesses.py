"""What is expected before measuring, and what measuring makes of it."""

import math

import numpy as np
import pytest
from study_records import DATASET, MACHINE

from autotune.constants import GUESS_SHARE
from autotune.space import Space
from autotune.spec import Bound, Inspection, Line, LoaderConfig, Profile, SpaceSpec
from autotune.study.forecast import Forecast
from autotune.study.guesses import Guesses
from autotune.study.memory import MemoryModel
from autotune.study.preparation import Preparation
from autotune.study.surrogate import Surrogate
from autotune.units import GIB, KIB

INSPECTION = Inspection(
    dataset=DATASET, machine=MACHINE, sample_structure="x", sample_bytes=1000, largest_sample_bytes=1000,
    fingerprint="f" * 16,
)  # fmt: skip
SPACE = Space(SpaceSpec(batch_size=(16, 32, 64), num_workers=(0, 1, 2), archive=("files", "npy", "tar")), INSPECTION)
DECODING = Profile(
    sample_s=0.002, gather=Line(per_sample=1e-6), hand_over=Line(fixed=5e-4), send=Line(fixed=1e-3),
    collate=Line(per_sample=1e-6),
    bounds=(Bound(batch_size=16, samples_per_s=1000.0), Bound(batch_size=64, samples_per_s=2000.0)),
)  # fmt: skip


def guessed(profile, limit_bytes=GIB, budget_s=3600.0, space=SPACE):
    memory = MemoryModel(INSPECTION, limit_bytes=limit_bytes, profile=profile)
    forecast = Forecast(
        memory=memory, preparation=Preparation(space, profile, budget_s=budget_s, samples=DATASET.length)
    )
    return Guesses(space, profile, forecast)


def test_without_a_probe_nothing_is_guessed():
    guesses = guessed(None)
    assert guesses.first() == []
    assert guesses.highest_bound() is None
    assert guesses.bottleneck(LoaderConfig()) is None


def test_the_best_guess_comes_first_and_others_store_samples_in_other_ways():
    guesses = guessed(DECODING)
    first = guesses.first()
    assert guesses.rates[first[0]] == max(guesses.rates.values())
    assert {(one.archive, one.cache) for one in first} == {("files", "memory"), ("npy", "none")}
    # what is estimated far behind is left to the search
    assert all(guesses.rates[one] >= GUESS_SHARE * guesses.rates[first[0]] for one in first)
    assert any(rate < GUESS_SHARE * guesses.rates[first[0]] for rate in guesses.rates.values())


def test_where_the_step_decides_the_cheapest_comes_among_the_first():
    slow_step = DECODING.replace(sample_s=1e-5, consume=Line(per_sample=0.01), consume_cpu_share=0.0)
    cheapest = LoaderConfig.torch_default(64).canonical(has_accelerator=False)
    first = guessed(slow_step).first()[:2]
    assert any(one.replace(batch_size=64) == cheapest for one in first)


def test_the_best_few_read_from_different_places_once_the_first_epoch_is_over():
    first = guessed(DECODING).first()
    places = [one.cache if one.cache_fraction == 1 else (one.archive, one.stored, one.cache) for one in first]
    kinds = [(place, one.num_workers > 0) for place, one in zip(places, first, strict=True)]
    assert len(kinds) == len(set(kinds))


def test_batch_sizes_beyond_those_that_the_probe_took_are_left_to_the_search():
    growing = DECODING.replace(gather=Line(fixed=1e-3), collate=Line(fixed=1e-3))
    short = growing.replace(bounds=(Bound(batch_size=16, samples_per_s=1e3), Bound(batch_size=32, samples_per_s=2e3)))
    assert 64 in {one.batch_size for one in guessed(growing).first()}
    assert {one.batch_size for one in guessed(short).first()} <= {16, 32}


def test_what_takes_too_much_of_the_budget_to_prepare_is_no_guess():
    # 600 samples of 2 ms fill a memory cache in 1.2 s, five times over; an archive is built once, and fills it faster
    def cached_files(guesses):
        return [one for one in guesses.first() if one.cache == "memory" and one.archive == "files"]

    assert cached_files(guessed(DECODING))
    assert not cached_files(guessed(DECODING, budget_s=2.0))


def test_a_cache_of_a_part_is_no_guess_where_the_whole_may_be_cached():
    fractions = {one.cache_fraction for one in SPACE.points}
    assert fractions > {None, 1.0}
    assert {one.cache_fraction for one in guessed(DECODING).first()} <= {None, 1.0}


def test_a_part_is_a_guess_where_the_whole_takes_too_much_of_the_budget():
    # 600 samples of 2 ms, in five runs: 6 s for the whole, 3 s for the half
    files = Space(SpaceSpec(batch_size=(32,), num_workers=(0,), archive=("files",)), INSPECTION)
    short, long = guessed(DECODING, budget_s=8.0, space=files), guessed(DECODING, budget_s=60.0, space=files)
    assert short.first()[0].cache_fraction == 0.5
    assert long.first()[0].cache_fraction == 1.0


def test_of_sizes_that_the_estimate_holds_for_equal_the_usual_one_comes_first():
    even = DECODING.replace(collate=Line(), send=Line(fixed=1.0), hand_over=Line())
    guesses = guessed(even)
    best = guesses.first()[0]
    assert len({guesses.rates[one] for one in guesses.points if one.replace(batch_size=32) == best}) == 1
    assert best.batch_size == 32


def test_neighbours_are_one_batch_size_beside_the_best_of_the_two_best_places():
    guesses = guessed(DECODING)
    cached = LoaderConfig(batch_size=32, num_workers=0, cache="memory", cache_fraction=1.0)
    points = {one.label(): one for one in guesses.points}
    plain = next(one for one in guesses.points if (one.batch_size, one.num_workers, one.archive) == (16, 0, "npy"))
    slow = next(one for one in guesses.points if (one.batch_size, one.num_workers, one.archive) == (64, 2, "files"))
    cached = points[cached.canonical(has_accelerator=False).label()]
    found = guesses.neighbours({cached: 300.0, plain: 200.0, slow: 10.0})
    assert {one.batch_size for one in found if one.replace(batch_size=32) == cached} == {16, 64}
    assert {one.batch_size for one in found if one.replace(batch_size=16) == plain} == {32}
    assert len(found) == 3
    assert guesses.neighbours({}) == []


def test_a_neighbour_that_will_break_the_memory_limit_is_none():
    small = guessed(DECODING, limit_bytes=60 * KIB)
    best = next(one for one in small.points if (one.batch_size, one.num_workers, one.archive) == (32, 0, "files"))
    assert {one.batch_size for one in small.neighbours({best: 1.0})} == {16}


def test_the_highest_bound_is_over_all_batch_sizes_of_the_space():
    assert guessed(DECODING).highest_bound() == 2000.0


def test_what_will_break_the_memory_limit_is_no_guess_and_no_bound():
    # a sample is 1,000 bytes, so that 60 of them are too many
    small = guessed(DECODING, limit_bytes=60 * KIB)
    assert {one.batch_size for one in small.first()} <= {16, 32}
    assert set(small.bounds()) == {16, 32}
    assert small.highest_bound() < 2000.0
    measured = [one for one in small.points if one.batch_size == 16][:8]
    found, gain = small.promising(dict.fromkeys(measured, 100.0))
    assert found.batch_size in {16, 32}
    assert found not in measured
    assert gain > 0
    assert small.promising({}) is None
    assert small.promising(dict.fromkeys((one for one in small.points if one.batch_size < 64), 100.0)) == (None, 0.0)


def test_a_bottleneck_says_where_the_milliseconds_go():
    found = guessed(DECODING).bottleneck(LoaderConfig.torch_default(32).canonical(has_accelerator=False))
    assert found.stage == "decode"
    assert found.stages["decode"] == pytest.approx(64.0)
    assert found.limit == "consuming process"


# The surrogate


def truth(config):
    """A landscape in which workers help plain files and harm everything else."""
    stored = 5.0 if config.archive == "npy" else 2.0 if config.archive == "tar" else 0.0
    workers = 0.5 * config.num_workers if not stored else -0.7 * (config.num_workers > 0)
    return math.exp(stored + workers + 0.1 * math.log2(config.batch_size))


def test_expected_gains_point_at_the_best_configuration_and_fade_once_it_is_known():
    points = sorted(SPACE.points, key=LoaderConfig.label)
    surrogate = Surrogate(points, {})
    draw = np.random.default_rng(0)
    known = {points[place]: truth(points[place]) for place in draw.choice(len(points), 12, replace=False)}
    best = max(points, key=truth)
    known.pop(best, None)
    for _ in range(25):
        gains = surrogate.gains(known)
        assert set(gains) == set(points) - set(known)
        assert all(gain >= 0 for gain in gains.values())
        chosen = max(gains, key=gains.get)
        known[chosen] = truth(chosen)
        if max(known.values()) >= 0.97 * truth(best):
            break
    assert max(known.values()) >= 0.97 * truth(best)
    everything_but_one = {config: truth(config) for config in points if config != points[0]}
    assert max(surrogate.gains(everything_but_one).values()) < 0.02


def test_a_good_estimate_is_a_head_start():
    points = sorted(SPACE.points, key=LoaderConfig.label)
    estimates = {config: 0.7 * truth(config) for config in points}
    known = {config: truth(config) for config in points[:6]}
    gains = Surrogate(points, estimates).gains(known)
    chosen = max(gains, key=gains.get)
    assert truth(chosen) >= 0.9 * max(map(truth, points))
