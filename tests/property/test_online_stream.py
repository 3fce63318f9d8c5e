"""Whatever is tried while training, the stream of batches is that of a plain DataLoader."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from online_datasets import Drawn
from torch.utils.data import DataLoader

import autotune
from autotune.data.build import make_loader
from autotune.resolve.online_loading import OnlineLoader
from autotune.resolve.online_setting import checked_settings, rivals_of
from autotune.resolve.online_trial import Trial

pytestmark = pytest.mark.filterwarnings("ignore::autotune.resolve.resolution.AutotuneWarning")

SETTINGS = st.lists(
    st.builds(
        lambda workers, prefetch: {"num_workers": workers, **({"prefetch_factor": prefetch} if workers else {})},
        st.integers(0, 2),
        st.integers(1, 3),
    ),
    max_size=3,
)
PLANS = st.fixed_dictionaries(
    {
        "settings": SETTINGS,
        "segments": st.one_of(st.none(), st.integers(1, 9)),
        "segment_batches": st.integers(1, 4),
        "epochs": st.integers(1, 3),
        "seed": st.integers(0, 5),
    }
)
ORDERS = st.fixed_dictionaries({"batch_size": st.integers(1, 6), "shuffle": st.booleans(), "drop_last": st.booleans()})


def generator(seed):
    return torch.Generator().manual_seed(seed)


def tuned(dataset, base, order, plan, *, seed):
    """Make an online loader over one that was resolved to some setting, as a study's decision would be."""
    shuffle, rest = order["shuffle"], {name: order[name] for name in ("batch_size", "drop_last")}
    plain = make_loader(dataset, base, shuffle=shuffle, seed=seed, **rest)

    def trial(resolved, batches, epoch_batches):
        rivals = rivals_of(resolved, checked_settings(plan["settings"], {}), pins={}, has_accelerator=False)
        more = {name: plan[name] for name in ("segments", "segment_batches", "seed")}
        return Trial(resolved, rivals, batches=batches, epoch_batches=epoch_batches, **more)

    return OnlineLoader(plain, trial, epochs=plan["epochs"])


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    count=st.integers(1, 150),
    order=ORDERS,
    plan=PLANS,
    seed=st.integers(0, 2**31),
    base=st.sampled_from(
        [
            {},
            {"num_workers": 1, "persistent_workers": True},
            {"num_workers": 1, "persistent_workers": False},
            {"num_workers": 2, "prefetch_factor": 1, "persistent_workers": True},
        ]
    ),
)
def test_the_stream_is_that_of_the_plain_loader(count, order, plan, seed, base):
    ours, theirs = Drawn(count, seed=seed), Drawn(count, seed=seed)
    online = tuned(ours, base, order, plan, seed=seed)
    plain = DataLoader(theirs, generator=generator(seed), **order)
    assert len(online) == len(plain)
    for epoch in range(3):
        theirs.set_epoch(epoch)
        found, expected = list(online), list(plain)
        assert len(found) == len(expected)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(count=st.integers(1, 80), order=ORDERS, plan=PLANS, seed=st.integers(0, 2**31), taken=st.integers(0, 40))
def test_a_stream_that_is_cut_anywhere_goes_on_as_if_it_were_not(count, order, plan, seed, taken):
    def made(first):
        return autotune.online_loader(Drawn(count), generator=generator(first), **order, **plan)

    plain, dataset = [], Drawn(count)
    loader = DataLoader(dataset, generator=generator(seed), **order)
    for epoch in range(2):
        dataset.set_epoch(epoch)
        plain += list(loader)
    cut = made(seed)
    found, state = [], cut.state_dict()
    for batch in cut:
        if len(found) == taken:
            break
        found.append(batch)
        state = cut.state_dict()
    if len(found) == len(loader):
        state = cut.state_dict()
    resumed = made(seed + 1)
    resumed.load_state_dict(state)
    while len(found) < len(plain):
        found += list(resumed)
    assert len(found) == len(plain)
    assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))
