"""Metrics count as their definitions say, tell empty classes apart, and add up over batches."""

import json
import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_ranks import count_share, counted

from autotune.errors import DatasetError, MissingExtraError, SpecError
from autotune.training.metrics.classification import ThresholdMetrics
from autotune.training.metrics.segmentation import ClassMetrics, SegmentationMetrics

NAMES = {"iou", "precision", "recall", "f1", "accuracy"}


def figures(predictions, targets, **options):
    metrics = SegmentationMetrics(**options)
    metrics.update(torch.as_tensor(predictions), torch.as_tensor(targets))
    return metrics.compute()


def by_definition(predicted, labels):
    both = sum(p and t for p, t in zip(predicted, labels, strict=True))
    either = sum(p or t for p, t in zip(predicted, labels, strict=True))
    right = sum(p == t for p, t in zip(predicted, labels, strict=True))
    share = {"accuracy": right / len(labels)}
    if not either:
        return {**share, **dict.fromkeys(NAMES - {"accuracy"}, 1.0)}
    precision = both / sum(predicted) if any(predicted) else 0.0
    recall = both / sum(labels) if any(labels) else 0.0
    f1 = 2 * both / (sum(predicted) + sum(labels))
    return {**share, "iou": both / either, "precision": precision, "recall": recall, "f1": f1}


pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


@settings(deadline=None)
@given(pairs, st.integers(1, 5))
def test_figures_are_their_definitions_over_all_batches_together(pixels, parts):
    predicted, labels = zip(*pixels, strict=True)
    metrics = SegmentationMetrics()
    for start in range(0, len(pixels), max(1, len(pixels) // parts)):
        piece = slice(start, start + max(1, len(pixels) // parts))
        metrics.update(
            torch.tensor(predicted[piece]).reshape(1, 1, 1, -1), torch.tensor(labels[piece]).reshape(1, 1, -1)
        )
    assert metrics.compute() == pytest.approx(by_definition(predicted, labels), rel=1e-6)


def test_a_known_case_has_the_figures_worked_out_by_hand():
    found = figures([[[0.9, 0.8, 0.3, 0.6]]], [[[1, 0, 1, 1]]])  # two right gaps, one wrong, one missed
    assert found == pytest.approx({"iou": 0.5, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "accuracy": 0.5})


@pytest.mark.parametrize(
    ("predicted", "labels", "expected"),
    [
        (0.0, 0, 1.0),  # neither there nor predicted: agreement
        (1.0, 0, 0.0),  # predicted alone
        (0.0, 1, 0.0),  # there alone
        (1.0, 1, 1.0),
    ],
)
def test_empty_gaps_agree_where_none_are_predicted_and_count_nothing_otherwise(predicted, labels, expected):
    found = figures(torch.full((2, 1, 3, 3), predicted), torch.full((2, 3, 3), labels))
    assert {found[name] for name in NAMES - {"accuracy"}} == {expected}


def test_the_value_of_empty_gaps_can_be_chosen():
    empty = torch.zeros(1, 1, 3, 3)
    assert figures(empty, empty, empty_value=0.0)["iou"] == 0
    assert math.isnan(figures(empty, empty, empty_value=math.nan)["f1"])
    assert figures(empty, empty, empty_value=0.0)["accuracy"] == 1


@pytest.mark.filterwarnings("error")
def test_without_a_pixel_everything_is_undefined():
    metrics = SegmentationMetrics(ignore_index=255)
    assert set(metrics.compute()) == NAMES
    metrics.update(torch.rand(1, 1, 3, 3), torch.full((1, 3, 3), 255))
    assert all(math.isnan(value) for value in metrics.compute().values())


def test_reset_forgets():
    metrics = SegmentationMetrics()
    metrics.update(torch.ones(1, 1, 2, 2), torch.zeros(1, 2, 2))
    metrics.reset()
    metrics.update(torch.ones(1, 1, 2, 2), torch.ones(1, 2, 2))
    assert set(metrics.compute().values()) == {1.0}


def test_ignored_pixels_change_nothing():
    predictions = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = (predictions[:, 0] > 0.7).long()
    labels[:, ::2] = 255
    assert figures(predictions, labels, ignore_index=255) == figures(predictions[..., 1::2, :], labels[:, 1::2])


def test_the_threshold_is_a_probability_above_which_a_pixel_is_a_gap():
    predictions, labels = torch.tensor([[[[0.5, 0.7, 0.71]]]]), torch.ones(1, 1, 1, 3)
    assert figures(predictions, labels)["recall"] == pytest.approx(2 / 3)
    assert figures(predictions, labels, threshold=0.7)["recall"] == pytest.approx(1 / 3)
    metrics = SegmentationMetrics(threshold=0.7)
    metrics.update(predictions, labels, 0.4)
    assert metrics.compute()["recall"] == 1


@pytest.mark.parametrize("threshold", [0, 1, 10, math.nan])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(SpecError, match=f"between 0 and 1, got {threshold}"):
        SegmentationMetrics(threshold=threshold)
    with pytest.raises(SpecError, match="between 0 and 1"):
        SegmentationMetrics().update(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1), threshold)


@pytest.mark.parametrize("value", [1.5, -0.5, math.nan])
def test_logits_are_refused_by_value_with_the_way_to_probabilities(value):
    with pytest.raises(SpecError, match=rf"got {value:g}; pass torch.sigmoid\(logits\)"):
        figures(torch.full((1, 1, 2, 2), value), torch.zeros(1, 2, 2))


def test_a_mask_outside_its_range_is_refused_by_value():
    with pytest.raises(DatasetError, match=r"got 255; .* ignore_index"):
        figures(torch.zeros(1, 1, 2, 2), torch.full((1, 2, 2), 255))


@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 2, 2, 2), (2, 4), (2, 1, 2, 3)])
def test_other_shapes_than_those_of_the_masks_are_refused(shape):
    with pytest.raises(SpecError, match=r"got predictions .* and masks \(2, 2, 2\)"):
        figures(torch.zeros(shape), torch.zeros(2, 2, 2))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.bfloat16])
def test_decisions_and_masks_of_any_type_count_alike(dtype):
    generator = torch.Generator().manual_seed(0)
    predicted, labels = (torch.randint(0, 2, (2, 1, 5, 5), generator=generator) for _ in range(2))
    assert figures(predicted.to(dtype), labels.to(dtype)) == figures(predicted, labels)


def test_soft_masks_are_gaps_from_a_half_on():
    assert figures(torch.ones(1, 1, 1, 2), torch.tensor([[[[0.5, 0.49]]]]))["accuracy"] == 0.5


def test_without_torchmetrics_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(MissingExtraError, match=r"'dataloader-autotune\[training\]'"):
        SegmentationMetrics()


# By threshold


def test_each_threshold_has_its_own_figures():
    metrics = ThresholdMetrics(thresholds=[5, 10, 15, 20])
    metrics.update(torch.ones(1, 1, 2, 2), torch.ones(1, 2, 2), 0.5, threshold_value=5)
    metrics.update(torch.ones(1, 1, 2, 2), torch.zeros(1, 2, 2), 0.5, threshold_value=10)
    found = metrics.compute()
    assert (found["iou_5m"], found["iou_10m"], found["mean_iou"]) == (1, 0, 0.5)
    assert math.isnan(found["iou_15m"])
    assert set(found) == {f"{name}_{metres}m" for name in NAMES for metres in (5, 10, 15, 20)} | {
        f"mean_{name}" for name in NAMES
    }


def test_thresholds_of_samples_and_of_channels_count_as_one_by_one():
    generator = torch.Generator().manual_seed(0)
    predictions = torch.rand(3, 2, 6, 6, generator=generator)
    masks = (torch.rand(3, 2, 6, 6, generator=generator) < 0.4).to(torch.uint8)
    one_by_one, by_sample, by_channel = (ThresholdMetrics([5, 7.5]) for _ in range(3))
    for channel, metres in enumerate((5, 7.5)):
        one_by_one.update(predictions[:, [channel]], masks[:, [channel]], 0.4, threshold_value=metres)
    by_channel.update(predictions, masks, 0.4)
    samples = torch.tensor([5, 7.5]).repeat(3)
    by_sample.update(predictions.reshape(6, 1, 6, 6), masks.reshape(6, 6, 6), 0.4, threshold_value=samples)
    assert one_by_one.compute() == by_sample.compute() == by_channel.compute()
    assert "f1_7.5m" in by_channel.compute()


def test_metrics_by_threshold_ignore_pixels_and_are_reset():
    metrics = ThresholdMetrics([5], ignore_index=255, empty_value=0.25)
    metrics.update(torch.zeros(1, 1, 1, 2), torch.tensor([[[[0, 255]]]]), threshold_value=5)
    assert metrics.compute()["mean_iou"] == 0.25
    metrics.reset()
    assert math.isnan(metrics.compute()["mean_iou"])


@pytest.mark.parametrize("thresholds", [[], [5, 5], [0], [-5], [math.nan]])
def test_thresholds_that_are_no_heights_are_refused(thresholds):
    with pytest.raises(SpecError, match="different heights above 0 m"):
        ThresholdMetrics(thresholds)


@pytest.mark.parametrize(
    ("shape", "metres", "message"),
    [
        ((2, 1, 2, 2), 7, r"thresholds \[5.0, 10.0\] m, got 7 m"),
        ((2, 1, 2, 2), torch.tensor([5.0, 7.0]), "got 7 m"),
        ((3, 1, 2, 2), torch.tensor([5.0, 10.0]), "got 2 for 3 samples"),
        ((2, 1, 2, 2), None, "give the metres of the samples as threshold_value"),
    ],
)
def test_heights_without_metrics_are_refused(shape, metres, message):
    with pytest.raises(SpecError, match=message):
        ThresholdMetrics([5, 10]).update(torch.zeros(shape), torch.zeros(shape), threshold_value=metres)


# Several classes


def test_classes_are_averaged_over_those_that_occur():
    metrics = ClassMetrics(4, ignore_index=255)
    labels = torch.tensor([[[0, 0, 1, 1, 255]]])
    scores = torch.nn.functional.one_hot(torch.tensor([[[0, 1, 1, 1, 3]]]), 4).permute(0, 3, 1, 2).float()
    metrics.update(scores, labels)
    found = metrics.compute()
    assert (found["iou_class_0"], found["iou_class_1"]) == pytest.approx((1 / 2, 2 / 3))
    assert math.isnan(found["iou_class_2"])
    assert math.isnan(found["iou_class_3"])
    assert found["iou"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["accuracy"] == pytest.approx(3 / 4)
    assert found["precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["recall"] == pytest.approx((1 / 2 + 1) / 2)
    metrics.reset()
    assert all(math.isnan(value) for value in metrics.compute().values())


def test_classes_refuse_other_channels_and_masks_that_hold_none():
    with pytest.raises(SpecError, match="at least two classes, got 1"):
        ClassMetrics(1)
    with pytest.raises(SpecError, match=r"each of 3 classes, got \(1, 2, 4, 4\)"):
        ClassMetrics(3).update(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4))
    with pytest.raises(DatasetError, match="0 to 2, got 7"):
        ClassMetrics(3).update(torch.zeros(1, 3, 4, 4), torch.full((1, 4, 4), 7))


# Several processes


@pytest.mark.parametrize("shares", [pytest.param((0, 2, 4), marks=pytest.mark.long), (0, 4, 4)])
def test_figures_are_those_of_all_processes_together_even_of_one_that_saw_nothing(shares, tmp_path):
    torch.multiprocessing.spawn(count_share, (shares, str(tmp_path)), nprocs=2)
    alone = [metrics.compute() for metrics in counted(0, 4)]
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone
