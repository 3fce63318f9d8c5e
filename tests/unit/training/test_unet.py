"""`ThresholdUNet` takes images of any size, follows the threshold, and learns."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autotune.errors import SpecError
from autotune.training.config import Config
from autotune.training.loss import create_loss_function
from autotune.training.metrics import ThresholdMetrics
from autotune.training.models import ThresholdUNet
from autotune.training.optimization import (
    CompositeRegularization,
    DropPath,
    adapt_normalization,
    create_optimizer,
    create_scheduler,
)


def unet(seed=0, **settings_):
    torch.manual_seed(seed)
    return ThresholdUNet(**settings_)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(1, 3), st.integers(1, 2))
def test_logits_have_the_size_of_the_images_whatever_it_is(samples, height, width, depth, bands):
    model = unet(width=2, depth=depth, in_channels=bands, out_channels=2).eval()
    logits = model(torch.rand(samples, bands, height, width), torch.full((samples,), 10.0))
    assert logits.shape == (samples, 2, height, width)
    assert logits.isfinite().all()


def test_a_size_that_fits_is_not_filled_up_and_others_by_their_edges():
    model = unet().eval()
    image, metres = torch.rand(1, 1, 16, 16), torch.tensor([10.0])
    edged = image[..., :13, :11]
    filled = torch.cat([edged, edged[..., -1:].expand(-1, -1, -1, 5)], dim=3)
    filled = torch.cat([filled, filled[..., -1:, :].expand(-1, -1, 3, -1)], dim=2)
    assert torch.allclose(model(edged, metres), model(filled, metres)[..., :13, :11], atol=1e-6)


def test_samples_do_not_depend_on_their_batch_in_evaluation():
    model = unet().eval()
    images, metres = torch.rand(3, 1, 16, 16), torch.tensor([5.0, 10.0, 20.0])
    together = model(images, metres)
    for place in range(3):
        assert torch.allclose(model(images[[place]], metres[[place]]), together[[place]], atol=1e-5)


def test_one_threshold_stands_for_all_samples():
    model = unet().eval()
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(model(images, torch.tensor(5.0)), model(images, torch.tensor([5.0, 5.0])))


def test_gradients_are_those_of_finite_differences():
    model = unet(width=2, depth=1).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)  # conditioning begins at 0, where half of it would go unseen
    images = torch.rand(2, 1, 5, 3, dtype=torch.float64, requires_grad=True)
    metres = torch.tensor([5.0, 15.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, (images, metres))


def test_every_parameter_takes_a_gradient():
    model = unet()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    model(torch.rand(2, 1, 16, 16), torch.tensor([5.0, 20.0])).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("batch_size", [4, 8])
def test_it_learns_the_gaps_of_every_threshold_with_one_set_of_weights(batch_size):
    config = Config(learning_rate=1e-2, thresholds=(5, 15), epochs=4, warmup_epochs=1)
    model = adapt_normalization(unet(width=4, depth=2), batch_size)
    loss, optimizer = create_loss_function(config), create_optimizer(model, config)
    schedule = create_scheduler(optimizer, config, 30)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        heights = 25 * torch.rand(batch_size, 1, 16, 16, generator=generator)
        metres = torch.tensor(config.thresholds)[torch.randint(0, 2, (batch_size,), generator=generator)]
        optimizer.zero_grad()
        loss(model(heights / 25, metres), heights < metres[:, None, None, None], metres).backward()
        optimizer.step()
        schedule.step()
    heights = 25 * torch.rand(8, 1, 16, 16, generator=generator)
    metrics = ThresholdMetrics(config.thresholds)
    model.eval()
    for metres in config.thresholds:
        chances = torch.sigmoid(model(heights / 25, torch.tensor(metres)))
        metrics.update(chances, heights < metres, threshold_value=metres)
    found = metrics.compute()
    assert min(found["iou_5m"], found["iou_15m"]) > 0.8


def test_it_has_layers_for_every_kind_of_regularisation(caplog):
    model = unet()
    with caplog.at_level(logging.WARNING, logger="autotune"):
        CompositeRegularization(model=model, dropout_rate=0.2, weight_decay=1e-4, drop_path_rate=0.1)
    assert not caplog.text
    rates = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.1)
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout2d)} == {0.2}


def test_its_own_rates_drop_in_training_and_not_in_evaluation():
    images, metres = torch.rand(2, 1, 8, 8), torch.tensor([5.0, 10.0])
    for rates in ({"dropout_rate": 0.5}, {"drop_path_rate": 0.5}):
        model = unet(**rates)
        assert not torch.equal(model(images, metres), model(images, metres))
        model.eval()
        assert torch.equal(model(images, metres), model(images, metres))


def test_a_batch_of_one_pixel_a_map_trains_with_group_normalisation():
    model = adapt_normalization(unet(), 1)
    assert model(torch.rand(1, 1, 1, 1), torch.tensor([5.0])).isfinite().all()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"width": 0}, "width is at least 1, got 0"),
        ({"depth": 0}, "depth is at least 1, got 0"),
        ({"in_channels": 0}, "in_channels"),
        ({"out_channels": -1}, "out_channels"),
        ({"threshold_scale_m": 0}, "threshold_scale_m is above 0 m, got 0"),
        ({"drop_path_rate": 1.0}, "drop_prob"),
    ],
)
def test_numbers_that_make_no_network_are_refused(setting, message):
    with pytest.raises(SpecError, match=message):
        ThresholdUNet(**setting)


@pytest.mark.parametrize(
    ("shape", "metres", "message"),
    [
        ((2, 3, 8, 8), [5.0, 5.0], r"images are \(N, 1, H, W\), got \(2, 3, 8, 8\)"),
        ((2, 8, 8), [5.0, 5.0], r"got \(2, 8, 8\)"),
        ((2, 1, 0, 8), [5.0, 5.0], r"got \(2, 1, 0, 8\)"),
        ((3, 1, 8, 8), [5.0, 5.0], "got 2 for 3 images"),
    ],
)
def test_inputs_of_another_shape_are_refused(shape, metres, message):
    with pytest.raises(SpecError, match=message):
        unet()(torch.zeros(shape), torch.tensor(metres))
