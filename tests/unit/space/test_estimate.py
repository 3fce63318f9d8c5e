"""Estimated rates: what bounds them, and what should come out faster."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_records import DATASET, MACHINE

from autotune.space import estimate
from autotune.spec import Inspection, Line, LoaderConfig, Profile

INSPECTION = Inspection(
    dataset=DATASET, machine=MACHINE, sample_structure="x", sample_bytes=300_000, largest_sample_bytes=300_000,
    encoded_bytes=100_000,
)  # fmt: skip
DECODING = Profile(
    sample_s=0.002,
    read_s=0.0001,
    decode_s=0.0019,
    decoders={"slow": 0.004},
    collate=Line(per_sample=2e-5),
    gather=Line(per_sample=2.5e-5),
    hand_over=Line(fixed=7e-4, per_sample=5e-6),
    send=Line(fixed=1e-3, per_sample=2e-4),
)
STEP_BOUND = DECODING.replace(consume=Line(per_sample=0.01), consume_cpu_share=0.0)


def config(batch_size=32, **fields):
    return LoaderConfig(batch_size=batch_size, **fields).canonical(has_accelerator=False)


def rate(one, profile=DECODING, **machine):
    return estimate(one, profile, INSPECTION.replace(machine=MACHINE.replace(**machine))).samples_per_s


def test_without_workers_one_thread_does_everything():
    assert rate(config()) == pytest.approx(1 / (0.002 + 2e-5), rel=0.01)


def test_workers_multiply_what_decodes_up_to_the_cores():
    one, two, four = (rate(config(num_workers=count), cpu_count=8) for count in (1, 2, 4))
    assert two / one == pytest.approx(2, rel=0.1)
    assert four / one == pytest.approx(4, rel=0.15)
    crowded = rate(config(num_workers=4), cpu_count=2)
    assert crowded <= rate(config(num_workers=2), cpu_count=2) * 1.1


def test_workers_cost_what_lies_in_memory():
    cached = config(cache="memory")
    assert rate(cached) > 5 * rate(cached.replace(num_workers=2, prefetch_factor=2))


def test_a_decoded_archive_beats_decoding_and_formats_come_in_their_measured_order():
    formats = ("npy", "hdf5", "tar", "tar.gz", "tar.xz")
    rates = [rate(config(archive=name, stored="decoded")) for name in formats]
    assert rates == sorted(rates, reverse=True)
    assert rates[2] > 5 * rate(config())


def test_a_slower_decoder_and_half_a_cache_lie_where_they_should():
    assert rate(config(decoder="slow")) < rate(config())
    assert rate(config()) < rate(config(cache="memory", cache_fraction=0.5)) < rate(config(cache="memory"))


def test_a_slow_step_is_the_bottleneck_whatever_loads():
    for one in (config(num_workers=2), config(cache="memory"), config(archive="npy")):
        found = estimate(one, STEP_BOUND, INSPECTION)
        assert found.bottleneck == "consume"
        assert found.samples_per_s == pytest.approx(100, rel=0.05)


def test_decoding_is_the_bottleneck_where_it_takes_longest():
    assert estimate(config(), DECODING, INSPECTION).bottleneck == "decode"
    with_workers = estimate(config(num_workers=1), DECODING, INSPECTION)
    assert (with_workers.bottleneck, with_workers.limit) == ("decode", "workers")


@given(
    st.integers(1, 512), st.integers(0, 16), st.integers(1, 8), st.sampled_from(["files", "npy", "tar"]),
    st.sampled_from(["none", "memory"]), st.floats(1e-6, 1), st.floats(0, 0.1), st.integers(1, 64),
)  # fmt: skip
def test_every_configuration_has_a_rate_that_its_consumer_allows(
    batch, workers, prefetch, archive, cache, sample_s, consume_s, cores
):
    one = config(
        batch, num_workers=workers, prefetch_factor=prefetch if workers else None, archive=archive,
        stored=None if archive == "files" else "decoded", cache=cache,
    )  # fmt: skip
    profile = Profile(sample_s=sample_s, gather=Line(per_sample=1e-6), consume=Line(per_sample=consume_s))
    found = estimate(one, profile, INSPECTION.replace(machine=MACHINE.replace(cpu_count=cores)))
    assert found.samples_per_s > 0
    if consume_s:
        assert found.samples_per_s <= 1 / consume_s * (1 + 1e-9)
