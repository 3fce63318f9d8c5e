"""What blocks of runs say about differences."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.spec import LoaderConfig
from autotune.study.contrasts import leader, loss, pooled_variance, resolution_share

ONE, TWO, THREE = (LoaderConfig(batch_size=size) for size in (1, 2, 3))


def drawn(draw, means, *, noise=0.05, blocks=4, drift=0.3):
    """Draw logs of a race in which whole blocks are faster or slower."""
    levels = [draw.gauss(0, drift) for _ in range(blocks)]
    return {
        config: [mean + level + draw.gauss(0, noise) for level in levels]
        for config, mean in zip((ONE, TWO, THREE), means, strict=True)
    }


def test_a_drift_that_hits_whole_blocks_is_no_noise():
    draw = random.Random(1)
    variances = [pooled_variance(drawn(draw, (0, -0.1, -0.2), noise=0.02, drift=1.0))[0] for _ in range(300)]
    assert math.sqrt(sum(variances) / 300) == pytest.approx(0.02, rel=0.05)


def test_degrees_of_freedom_are_those_of_a_two_way_layout():
    logs = drawn(random.Random(0), (0, 0, 0), blocks=4)
    assert pooled_variance(logs)[1] == (3 - 1) * (4 - 1)
    dropped = {**logs, THREE: [*logs[THREE][:3], None]}
    assert pooled_variance(dropped)[1] == (3 - 1) * (4 - 1) - 1


def test_the_bounds_of_a_loss_are_wrong_as_rarely_as_they_say():
    draw = random.Random(2)
    below = above = 0
    for _ in range(1000):
        behind = loss(drawn(draw, (0, -0.03, -0.1), blocks=3), TWO, ONE)
        below += behind.lower(0.05) > 0.03
        above += behind.upper(0.95) < 0.03
    assert below <= 70
    assert above <= 70


@given(st.permutations([0.0, -0.5, -1.0]), st.integers(0, 1000))
def test_the_leader_is_the_fastest_whatever_one_disturbed_run_did(means, seed):
    logs = drawn(random.Random(seed), means, noise=0.01, blocks=5)
    fastest = (ONE, TWO, THREE)[means.index(0.0)]
    disturbed = {**logs, fastest: [logs[fastest][0] - 5, *logs[fastest][1:]]}
    assert leader(disturbed, [ONE, TWO, THREE]) == fastest


def test_two_blocks_are_needed_for_a_loss():
    assert loss({ONE: [1.0, None], TWO: [0.9, 0.8]}, TWO, ONE) is None


def test_more_pairs_and_less_noise_resolve_smaller_differences():
    assert resolution_share(0.05, 1) is None
    assert resolution_share(0.05, 3) > resolution_share(0.05, 10) > resolution_share(0.02, 10) > 0
    # 2.262 is Student's t at 9 degrees of freedom
    assert resolution_share(0.05, 10) == pytest.approx(math.exp(2.262 * 0.05 * math.sqrt(0.2)) - 1, rel=1e-3)
