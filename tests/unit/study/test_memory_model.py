"""What a configuration will need, before it is tried."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_records import DATASET, MACHINE, failed_record, measurement, record

from autotune.constants import DEVICE_HEADROOM_SHARE
from autotune.spec import Inspection, Line, LoaderConfig, MemoryUse, Profile
from autotune.study.memory import MemoryModel
from autotune.units import GIB, KIB, MIB


def config(batch_size=32, **fields):
    return LoaderConfig(batch_size=batch_size, **fields).canonical(has_accelerator=False)


def inspection(sample_bytes=KIB, **machine):
    return Inspection(
        dataset=DATASET, machine=MACHINE.replace(**machine), sample_structure="x", sample_bytes=sample_bytes,
        largest_sample_bytes=sample_bytes,
    )  # fmt: skip


def model(limit=100 * MIB, *, profile=None, sample_bytes=KIB, **machine):
    return MemoryModel(inspection(sample_bytes, **machine), limit_bytes=limit, profile=profile)


def needing(one, peak_bytes, host_bytes=None):
    memory = MemoryUse(device_peak_bytes=peak_bytes, host_pss_bytes=host_bytes)
    return record(one, measurement=measurement(100.0, memory=memory))


def profile(**lines):
    return Profile(sample_s=0.001, **lines)


def test_a_batch_larger_than_the_limit_is_refused():
    breach = model(sample_bytes=MIB).breach(config(128))
    assert breach.kind == "device_memory"
    assert breach.phase == "predict"
    assert breach.infeasible
    assert "128" in breach.message


def test_what_broke_the_limit_is_refused_at_larger_batches_of_the_same_way_of_loading():
    learned = model(GIB)
    learned.learn(failed_record(config(32), "device_memory"))
    assert learned.breach(config(64))
    assert learned.breach(config(32))
    assert not learned.breach(config(16))
    assert not learned.breach(config(64, num_workers=2))
    assert not learned.breach(config(64, archive="npy"))


def test_failures_of_other_kinds_predict_nothing():
    learned = model()
    learned.learn(failed_record(config(32), "crashed"))
    assert learned.breach(config(32)) is None
    assert learned.breach(config(64)) is None


def test_two_batch_sizes_make_a_line_that_larger_ones_are_held_against():
    learned = model(100 * MIB)
    learned.learn(needing(config(8), 18 * MIB))
    assert learned.breach(config(256)) is None
    learned.learn(needing(config(16), 26 * MIB))
    assert learned.device_bytes(config(32)) == pytest.approx(42 * MIB)
    assert learned.breach(config(64)) is None
    breach = learned.breach(config(128))
    assert breach.excess == pytest.approx(138 / 95 - 1, rel=0.01)
    assert learned.breach(config(128, num_workers=2)) is None


def test_the_probe_predicts_before_anything_was_measured_and_measurements_take_its_place():
    learned = model(100 * MIB, profile=profile(memory_workers=Line(fixed=10.0 * MIB, per_sample=2.0 * MIB)))
    assert learned.breach(config(64, num_workers=1))
    assert learned.breach(config(64)) is None
    for size in (8, 16):
        learned.learn(needing(config(size, num_workers=1), size * MIB))
    assert learned.breach(config(64, num_workers=1)) is None


def test_a_prediction_near_the_limit_is_tried():
    near = Line(per_sample=100.0 * MIB * DEVICE_HEADROOM_SHARE / 64 * 1.05)
    assert model(100 * MIB, profile=profile(memory_alone=near)).breach(config(64)) is None


@given(st.integers(1, 2**20), st.integers(0, 2**26), st.integers(2**20, 2**34))
def test_a_linear_consumer_is_never_refused_where_it_fits_nor_let_through_far_above(per_sample, fixed, limit):
    learned = model(limit, sample_bytes=1)
    for size in (8, 16):
        learned.learn(needing(config(size), fixed + size * per_sample))
    for size in (32, 64, 128, 256):
        needed, usable = fixed + size * per_sample, limit * DEVICE_HEADROOM_SHARE
        if needed <= usable:
            assert learned.breach(config(size)) is None
        if needed > usable * 1.11:
            assert learned.breach(config(size)) is not None


def test_shared_memory_is_predicted_before_a_process_is_spent():
    small = model(GIB, sample_bytes=MIB, shm_bytes=64 * MIB)
    breach = small.breach(config(32, num_workers=2))
    assert breach.kind == "shared_memory"
    assert "/dev/shm" in breach.message
    assert small.breach(config(8, num_workers=1)) is None
    assert small.breach(config(32)) is None
    assert model(GIB, sample_bytes=MIB, shm_bytes=None).breach(config(32, num_workers=2)) is None


def test_host_memory_grows_with_the_workers_that_were_seen():
    learned = model(GIB, memory_bytes=4 * GIB, shm_bytes=None)
    learned.learn(needing(config(num_workers=0), MIB, host_bytes=GIB))
    assert learned.breach(config(num_workers=8)) is None
    learned.learn(needing(config(num_workers=1), MIB, host_bytes=2 * GIB))
    assert learned.breach(config(num_workers=2)) is None
    assert learned.breach(config(num_workers=8)).kind == "host_memory"
