"""Losses have the values of a reference in numpy and of MONAI, and refuse masks that are none."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from autotune.errors import DatasetError, SpecError
from autotune.training.config import Config
from autotune.training.loss import (
    BinaryCrossEntropyLoss,
    CombinedFocalDiceLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    create_loss_function,
)

BINARY = (BinaryCrossEntropyLoss, FocalLoss, DiceLoss, CombinedFocalDiceLoss)


def maps(*shape, seed=0, soft=False):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    targets = torch.rand(shape, generator=generator, dtype=torch.float64)
    return logits, targets if soft else (targets < 0.3).double()


def reference(logits, targets, valid, *, alpha=0.5, gamma=2.0, smooth=1.0, share=0.5):
    """Each formula as its paper writes it, pixel by pixel, one map at a time."""
    losses = []
    for map_logits, map_targets, map_valid in zip(
        *(part.reshape(-1, part.shape[-2] * part.shape[-1]) for part in (logits, targets, valid)), strict=True
    ):
        z, t = map_logits[map_valid], map_targets[map_valid]
        if not len(z):
            continue
        p = 1 / (1 + np.exp(-z))
        entropy = -t * np.log(p) - (1 - t) * np.log(1 - p)
        p_t = p * t + (1 - p) * (1 - t)
        alpha_t = alpha * t + (1 - alpha) * (1 - t)
        focal = np.mean(alpha_t * (1 - p_t) ** gamma * entropy)
        dice = 1 - (2 * np.sum(p * t) + smooth) / (np.sum(p) + np.sum(t) + smooth)
        losses.append((np.mean(entropy), focal, dice, share * focal + (1 - share) * dice))
    return np.mean(losses, axis=0)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("ignored", [False, True])
def test_losses_are_those_of_the_reference(soft, ignored):
    logits, targets = maps(3, 2, 7, 5, soft=soft)
    valid = torch.ones_like(targets, dtype=torch.bool)
    if ignored:
        valid = torch.rand(targets.shape, generator=torch.Generator().manual_seed(1)) < 0.6
        valid[1, 0] = False
        targets[~valid] = 255
    numbers = {"alpha": 0.3, "gamma": 1.5, "smooth": 0.5, "share": 0.7}
    expected = reference(logits.numpy(), targets.numpy(), valid.numpy(), **numbers)
    ignore = {"ignore_index": 255 if ignored else None}
    losses = (
        BinaryCrossEntropyLoss(**ignore),
        FocalLoss(0.3, 1.5, **ignore),
        DiceLoss(0.5, **ignore),
        CombinedFocalDiceLoss(0.3, 1.5, focal_share=0.7, smooth=0.5, **ignore),
    )
    for loss, value in zip(losses, expected, strict=True):
        assert loss(logits, targets).item() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.25, 0.5])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_is_that_of_monai(alpha, gamma):
    published = pytest.importorskip("monai.losses").FocalLoss(gamma=gamma, alpha=alpha, use_softmax=False)
    logits, targets = maps(4, 1, 9, 9)
    assert FocalLoss(alpha, gamma)(logits, targets).item() == pytest.approx(published(logits, targets).item(), rel=1e-6)


@pytest.mark.parametrize("smooth", [1e-5, 1.0])
def test_dice_loss_is_that_of_monai(smooth):
    published = pytest.importorskip("monai.losses").DiceLoss(sigmoid=True, smooth_nr=smooth, smooth_dr=smooth)
    logits, targets = maps(4, 2, 9, 9)
    assert DiceLoss(smooth)(logits, targets).item() == pytest.approx(published(logits, targets).item(), rel=1e-6)


@pytest.mark.parametrize(("chance", "factor"), [(0.9, 100), (0.9684, 1000)])
def test_focal_loss_lowers_easy_pixels_as_its_paper_says(chance, factor):
    logits = torch.full((1, 1, 2, 2), math.log(chance / (1 - chance)), dtype=torch.float64)
    targets = torch.ones_like(logits)
    entropy = BinaryCrossEntropyLoss()(logits, targets)
    assert (entropy / (2 * FocalLoss(0.5, 2.0)(logits, targets))).item() == pytest.approx(factor, rel=0.01)


def test_cross_entropy_is_that_of_torch_over_the_pixels_that_count():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, 6, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 4, (2, 6, 6), generator=generator)
    expected = functional.cross_entropy(logits, targets).item()
    assert CrossEntropyLoss()(logits, targets).item() == pytest.approx(expected, rel=1e-12)
    assert CrossEntropyLoss()(logits, targets.unsqueeze(1).float()).item() == pytest.approx(expected, rel=1e-12)
    targets[:, :3] = 255
    expected = functional.cross_entropy(logits, targets, ignore_index=255).item()
    assert CrossEntropyLoss(ignore_index=255)(logits, targets).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", BINARY)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.float32])
def test_masks_of_any_type_with_or_without_their_channel_give_the_same_loss(kind, dtype):
    logits, targets = maps(3, 1, 4, 4)
    expected = kind()(logits, targets)
    assert torch.equal(kind()(logits, targets.to(dtype)), expected)
    assert torch.equal(kind()(logits, targets[:, 0].to(dtype)), expected)


@pytest.mark.parametrize("kind", BINARY)
def test_gradients_are_those_of_finite_differences(kind):
    logits, targets = maps(2, 1, 3, 3, soft=True)
    targets[0, 0, 0] = 255
    assert torch.autograd.gradcheck(lambda z: kind(ignore_index=255)(z, targets), logits.requires_grad_())


@pytest.mark.parametrize("kind", BINARY)
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_logits_that_are_sure_give_finite_losses_and_gradients(kind, size):
    logits = (size * torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(1, 1, 2, 2)).requires_grad_()
    targets = torch.tensor([1.0, 0.0, 0.0, 1.0]).reshape(1, 1, 2, 2)
    loss = kind()(logits, targets)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_a_focal_exponent_under_one_has_finite_gradients_where_the_model_is_sure():
    logits = torch.full((1, 1, 2, 2), 1e3, requires_grad=True)
    FocalLoss(0.5, 0.5)(logits, torch.ones(1, 1, 2, 2)).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("kind", BINARY)
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_averaged_in_float32(kind, half):
    logits, targets = maps(2, 1, 64, 64)
    loss = kind()(logits.to(half), targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(kind()(logits.to(half).double(), targets).item(), rel=1e-5)


@pytest.mark.parametrize("kind", BINARY)
def test_an_empty_map_that_is_predicted_empty_has_next_to_no_loss(kind):
    logits = torch.full((1, 1, 8, 8), -30.0)
    assert kind()(logits, torch.zeros_like(logits)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", BINARY)
def test_a_batch_without_a_pixel_that_counts_has_no_loss_and_no_gradient(kind):
    logits = torch.randn(2, 1, 3, 3, requires_grad=True)
    loss = kind(ignore_index=255)(logits, torch.full((2, 3, 3), 255))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("kind", BINARY)
@pytest.mark.parametrize("value", [255, -1, 2, 1.5, math.nan, math.inf])
def test_a_mask_outside_its_range_is_refused_by_value(kind, value):
    logits, targets = maps(2, 1, 3, 3)
    targets[1, 0, 2, 2] = value
    with pytest.raises(DatasetError, match=f"0 to 1, got {value:g}.*ignore_index"):
        kind()(logits, targets)


@pytest.mark.parametrize(("value", "message"), [(3, "0 to 2, got 3"), (-1, "got -1"), (0.5, "whole numbers, got 0.5")])
def test_a_mask_that_holds_no_class_is_refused_by_value(value, message):
    targets = torch.zeros(2, 3, 3)
    targets[0, 1, 1] = value
    with pytest.raises(DatasetError, match=message):
        CrossEntropyLoss()(torch.zeros(2, 3, 3, 3), targets)


@pytest.mark.parametrize("shape", [(2, 4, 4), (2, 2, 3, 3), (3, 1, 3, 3), (2, 9)])
def test_masks_of_another_shape_are_refused_with_both_shapes(shape):
    with pytest.raises(SpecError, match=r"got masks .* for logits \(2, 1, 3, 3\)"):
        BinaryCrossEntropyLoss()(torch.zeros(2, 1, 3, 3), torch.zeros(shape))


def test_cross_entropy_of_one_channel_points_to_the_losses_of_masks():
    with pytest.raises(SpecError, match="loss='bce'"):
        CrossEntropyLoss()(torch.zeros(2, 1, 3, 3), torch.zeros(2, 3, 3))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FocalLoss(alpha=1.5), "alpha is 0 to 1, got 1.5"),
        (lambda: FocalLoss(gamma=-1), "gamma is at least 0, got -1"),
        (lambda: DiceLoss(smooth=0), "smooth is above 0, got 0"),
        (lambda: CombinedFocalDiceLoss(focal_share=2), "focal_share is 0 to 1, got 2"),
        (lambda: CombinedFocalDiceLoss(gamma=-1), "gamma is at least 0, got -1"),
        (lambda: CombinedFocalDiceLoss(threshold_weights={}), "at least one"),
        (lambda: CombinedFocalDiceLoss(threshold_weights={5: 0}), "above 0"),
    ],
)
def test_losses_refuse_what_breaks_a_rule(build, message):
    with pytest.raises(SpecError, match=message):
        build()


@given(st.lists(st.sampled_from([5.0, 10.0, 20.0]), min_size=1, max_size=5), st.integers(0, 1000))
def test_a_weighted_loss_is_the_mean_of_weighted_losses_of_samples(thresholds, seed):
    weights = {5.0: 2.0, 10.0: 0.7, 20.0: 0.3}
    logits, targets = maps(len(thresholds), 1, 4, 4, seed=seed)
    plain, weighted = CombinedFocalDiceLoss(), CombinedFocalDiceLoss(threshold_weights=weights)
    one_by_one = [weights[metres] * plain(logits[[place]], targets[[place]]) for place, metres in enumerate(thresholds)]
    loss = weighted(logits, targets, torch.tensor(thresholds, dtype=torch.float32))
    assert loss.item() == pytest.approx(torch.stack(one_by_one).mean().item(), rel=1e-9)


def test_channels_are_thresholds_in_ascending_order_where_none_are_given():
    logits, targets = maps(2, 2, 4, 4)
    weighted = DiceLoss(threshold_weights={10: 1.0, 5: 3.0})
    each = torch.tensor([[5.0, 10.0], [5.0, 10.0]])
    assert torch.equal(weighted(logits, targets), weighted(logits, targets, each))
    assert not torch.equal(weighted(logits, targets), weighted(logits, targets, each.flip(1)))


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        (None, "need the threshold of each sample"),
        (torch.tensor([5.0, 7.5]), r"got a sample of 7.5 m; add it to Config.thresholds"),
        (torch.tensor([5.0, math.nan]), "got a sample of nan m"),
        (torch.tensor([5.0]), r"got shape \(1,\) for maps \(2, 1\)"),
    ],
)
def test_weights_without_a_threshold_that_they_know_are_refused(thresholds, message):
    logits, targets = maps(2, 1, 4, 4)
    with pytest.raises(SpecError, match=message):
        DiceLoss(threshold_weights={5: 1, 10: 1})(logits, targets, thresholds)


KINDS = {
    "combined": CombinedFocalDiceLoss,
    "bce": BinaryCrossEntropyLoss,
    "focal": FocalLoss,
    "dice": DiceLoss,
    "cross_entropy": CrossEntropyLoss,
}


@pytest.mark.parametrize("name", KINDS)
def test_a_configuration_names_its_loss(name):
    assert type(create_loss_function(Config(loss=name))) is KINDS[name]


@pytest.mark.parametrize(
    ("loss", "field", "value"),
    [
        ("combined", "focal_alpha", 0.9),
        ("combined", "focal_gamma", 0.5),
        ("combined", "focal_share", 0.1),
        ("combined", "dice_smooth", 50.0),
        ("focal", "focal_alpha", 0.9),
        ("focal", "focal_gamma", 0.5),
        ("dice", "dice_smooth", 50.0),
        ("combined", "ignore_index", 1),
        ("bce", "ignore_index", 1),
        ("cross_entropy", "ignore_index", 1),
        *((loss, "use_threshold_weights", True) for loss in KINDS),
    ],
)
def test_every_field_of_a_loss_changes_its_value(loss, field, value):
    logits, targets = maps(2, 2 if loss == "cross_entropy" else 1, 4, 4)
    thresholds = torch.tensor([5.0, 20.0])
    masks = targets[:, 0]
    plain = create_loss_function(Config(loss=loss))(logits, masks, thresholds)
    changed = create_loss_function(Config(loss=loss, **{field: value}))(logits, masks, thresholds)
    assert not torch.equal(plain, changed)


def test_given_threshold_weights_replace_those_by_rarity():
    logits, targets = maps(1, 1, 4, 4)
    plain = create_loss_function(Config())(logits, targets).item()
    ten = torch.tensor([10.0])
    given_weights = Config(use_threshold_weights=True, threshold_weights=(1, 3, 1, 1))
    assert create_loss_function(given_weights)(logits, targets, ten).item() == pytest.approx(3 * plain)
    rare = Config(use_threshold_weights=True, thresholds=(10, 20, 40))
    assert create_loss_function(rare)(logits, targets, ten).item() == pytest.approx(plain * 12 / 7)
