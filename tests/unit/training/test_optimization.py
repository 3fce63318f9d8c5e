"""Optimizers, clipping, stochastic depth and normalisation do what they say, each field with its effect."""

import logging
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autotune.errors import SpecError
from autotune.training.config import Config
from autotune.training.optimization.clipping import clip_gradients
from autotune.training.optimization.drop_path import DropPath
from autotune.training.optimization.normalization import (
    adapt_normalization,
    apply_normalization,
    groups_for,
    to_batch_norm,
    to_group_norm,
)
from autotune.training.optimization.optimizers import create_optimizer
from autotune.training.optimization.regularization import CompositeRegularization


def small_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1))


def weights_after(config, updates=3):
    model = small_model()
    optimizer = create_optimizer(model, config)
    images = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(updates):
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


# Optimizers


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adamw", torch.optim.AdamW),
        ("adam", torch.optim.Adam),
        ("sgd", torch.optim.SGD),
        ("rmsprop", torch.optim.RMSprop),
    ],
)
def test_a_configuration_names_its_optimizer(name, kind):
    assert type(create_optimizer(small_model(), Config(optimizer=name))) is kind


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        *((name, "learning_rate", 2e-3) for name in ("adamw", "adam", "sgd", "rmsprop")),
        *((name, "weight_decay", 0.5) for name in ("adamw", "adam", "sgd", "rmsprop")),
        *((name, "momentum", 0.1) for name in ("sgd", "rmsprop")),
    ],
)
def test_every_field_of_an_optimizer_changes_its_updates(name, field, value):
    plain = Config(optimizer=name)
    changed = Config(optimizer=name, **{field: value})
    assert not torch.equal(weights_after(plain), weights_after(changed))


def test_biases_and_normalisation_do_not_decay_and_frozen_weights_are_left_out():
    model = small_model()
    model[3].weight.requires_grad_(False)
    decaying, still = create_optimizer(model, Config(weight_decay=0.1)).param_groups
    assert (decaying["weight_decay"], still["weight_decay"]) == (0.1, 0.0)
    assert [id(one) for one in decaying["params"]] == [id(model[0].weight)]
    assert {id(one) for one in still["params"]} == {
        id(one) for one in (model[0].bias, model[1].weight, model[1].bias, model[3].bias)
    }


def test_a_model_without_parameters_to_train_is_refused():
    with pytest.raises(SpecError, match="got ReLU without"):
        create_optimizer(nn.ReLU(), Config())


# Clipping


def with_gradients(*gradients):
    parameters = []
    for gradient in gradients:
        parameter = nn.Parameter(torch.zeros_like(gradient))
        parameter.grad = gradient.clone()
        parameters.append(parameter)
    return parameters


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=8), st.floats(1e-3, 100))
def test_clipping_is_that_of_torch_and_gives_the_norm_before(values, limit):
    ours, torchs = (with_gradients(torch.tensor(values), torch.tensor([1.0])) for _ in range(2))
    norm = clip_gradients(iter(ours), Config(clip_value=limit))
    assert norm == pytest.approx(nn.utils.clip_grad_norm_(torchs, limit).item(), rel=1e-5)
    for one, other in zip(ours, torchs, strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-5, atol=1e-6)


def test_gradients_within_the_norm_and_without_clipping_stay_as_they_are():
    gradient = torch.tensor([3.0, 4.0])
    for config in (Config(clip_value=5.0), Config(use_gradient_clipping=False, clip_value=0.1)):
        (parameter,) = with_gradients(gradient)
        assert clip_gradients([parameter], config) == 5
        assert torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_norm_that_is_not_finite_is_given_back_with_the_gradients_as_they_were(value):
    gradient = torch.tensor([1.0, value])
    (parameter,) = with_gradients(gradient)
    assert not math.isfinite(clip_gradients([parameter], Config()))
    assert torch.equal(parameter.grad.nan_to_num(7), gradient.nan_to_num(7))


def test_half_precision_gradients_do_not_overflow_in_their_norm_and_none_have_none():
    (parameter,) = with_gradients(torch.full((4,), 6e4, dtype=torch.float16))
    assert clip_gradients([parameter], Config()) == pytest.approx(1.2e5, rel=1e-2)
    assert clip_gradients([nn.Parameter(torch.ones(2))], Config()) == 0


# Stochastic depth


@pytest.mark.parametrize("drop_prob", [0.1, 0.5, 0.9])
def test_drop_path_keeps_the_expectation_and_drops_whole_samples(drop_prob):
    torch.manual_seed(0)
    samples = 40_000
    dropped = DropPath(drop_prob)(torch.ones(samples, 2, 2))
    kept = dropped[:, 0, 0] != 0
    assert torch.equal(dropped, kept[:, None, None].expand_as(dropped) / (1 - drop_prob))
    spread = math.sqrt(drop_prob / (1 - drop_prob) / samples)  # of the mean of kept / (1 - p)
    assert dropped.mean().item() == pytest.approx(1, abs=4 * spread)


def test_drop_path_does_nothing_outside_training_or_without_a_probability():
    branch = torch.rand(4, 3, 2, 2)
    assert DropPath(0.9).eval()(branch) is branch
    assert DropPath(0.0)(branch) is branch


@pytest.mark.parametrize("drop_prob", [1.0, -0.1, math.nan])
def test_a_probability_that_leaves_nothing_is_refused(drop_prob):
    with pytest.raises(SpecError, match=f"drop_prob is 0 to under 1, got {drop_prob}"):
        DropPath(drop_prob)
    with pytest.raises(SpecError, match="drop_prob"):
        DropPath().drop_prob = drop_prob


def blocks(count):
    return nn.Sequential(*[nn.Sequential(nn.Linear(2, 2), DropPath(), nn.Dropout(0.3)) for _ in range(count)])


def depths(model):
    return [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]


def test_stochastic_depth_rises_along_lines_over_blocks_and_epochs():
    model = blocks(4)
    regularization = CompositeRegularization(model=model, drop_path_rate=0.2)
    assert depths(model) == pytest.approx([0.05, 0.1, 0.15, 0.2])
    for epoch, part in enumerate((0, 0.25, 0.5, 0.75, 1.0)):
        regularization.set_epoch(epoch, 5)
        assert depths(model) == pytest.approx([0.05 * part, 0.1 * part, 0.15 * part, 0.2 * part])
    regularization.set_epoch(0, 1)
    assert depths(model)[-1] == pytest.approx(0.2)


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(1, 30), st.floats(0, 0.9))
def test_stochastic_depth_never_leaves_its_bounds(epoch, epochs, rate):
    model = blocks(3)
    CompositeRegularization(model=model, drop_path_rate=rate).set_epoch(epoch, epochs)
    assert all(0 <= one <= rate * (1 + 1e-9) for one in depths(model))


def test_dropout_is_set_where_it_is_asked_for_and_left_where_not():
    model = blocks(2)
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    CompositeRegularization(model=model)
    assert {layer.p for layer in dropouts} == {0.3}
    CompositeRegularization(model=model, dropout_rate=0.0)
    assert {layer.p for layer in dropouts} == {0.0}


def test_the_penalty_has_the_gradient_of_plain_weight_decay():
    model = small_model()
    CompositeRegularization(model=model, weight_decay=0.1).penalty().backward()
    assert torch.allclose(model[0].weight.grad, 0.1 * model[0].weight)
    assert model[0].bias.grad is None
    assert model[1].weight.grad is None
    assert CompositeRegularization(model=model).penalty().item() == 0


def test_the_documented_call_runs_on_any_model_and_tells_what_has_no_effect(caplog):
    with caplog.at_level(logging.WARNING, logger="autotune"):
        CompositeRegularization(model=small_model(), dropout_rate=0.2, weight_decay=1e-4, drop_path_rate=0.1)
    assert "dropout_rate=0.2 has no effect" in caplog.text
    assert "drop_path_rate=0.1 has no effect" in caplog.text


@pytest.mark.parametrize(
    "setting", [{"dropout_rate": 1.0}, {"drop_path_rate": -0.1}, {"weight_decay": -1}, {"weight_decay": math.nan}]
)
def test_regularisation_refuses_what_breaks_a_rule(setting):
    (name,) = setting
    with pytest.raises(SpecError, match=name):
        CompositeRegularization(model=small_model(), **setting)
    with pytest.raises(SpecError, match="epoch=-1"):
        CompositeRegularization(model=small_model()).set_epoch(-1, 3)


# Normalisation


def norms(model):
    return [type(module) for module in model.modules() if "Norm" in type(module).__name__]


@pytest.mark.parametrize(("batch_size", "expected"), [(1, nn.GroupNorm), (7, nn.GroupNorm), (8, nn.BatchNorm2d)])
def test_small_batches_take_group_normalisation(batch_size, expected):
    assert norms(adapt_normalization(small_model(), batch_size)) == [expected]
    assert norms(adapt_normalization(small_model(), batch_size, below=4)) == [
        nn.GroupNorm if batch_size < 4 else nn.BatchNorm2d
    ]


def test_weights_stay_the_same_parameters_so_that_optimizers_go_on():
    model = small_model()
    weight, bias = model[1].weight, model[1].bias
    model[1].eps = 0.01
    bias.requires_grad_(False)
    changed = adapt_normalization(model.eval(), 2)
    assert changed is model
    assert changed[1].weight is weight
    assert changed[1].bias is bias
    assert not changed[1].bias.requires_grad
    assert not changed[1].training
    assert changed[1].eps == 0.01


def test_group_normalisation_does_what_its_definition_says_with_the_weights_of_before():
    layer = nn.BatchNorm2d(8).double()
    nn.init.uniform_(layer.weight)
    nn.init.uniform_(layer.bias)
    images = torch.rand(3, 8, 4, 4, dtype=torch.float64)
    grouped = images.reshape(3, 2, 4 * 16)
    normal = (grouped - grouped.mean(2, keepdim=True)) / (grouped.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
    expected = normal.reshape(3, 8, 4, 4) * layer.weight[:, None, None] + layer.bias[:, None, None]
    assert torch.allclose(to_group_norm(layer)(images), expected)


def test_every_kind_of_batch_normalisation_is_exchanged_nested_shared_or_without_weights():
    shared = nn.BatchNorm3d(4)
    model = nn.ModuleDict(
        {
            "line": nn.Sequential(nn.BatchNorm1d(4)),
            "first": shared,
            "second": shared,
            "plain": nn.BatchNorm2d(4, affine=False),
            "ranks": nn.SyncBatchNorm(4),
        }
    )
    to_group_norm(model)
    assert set(norms(model)) == {nn.GroupNorm}
    assert model["first"] is model["second"]
    assert model["plain"].weight is None


def test_batch_normalisation_can_be_had_back():
    model = small_model()
    weight = model[1].weight
    to_batch_norm(to_group_norm(model))
    assert norms(model) == [nn.BatchNorm2d]
    assert model[1].weight is weight
    assert model(torch.rand(2, 1, 4, 4)).isfinite().all()


@given(st.integers(1, 2048))
def test_groups_divide_the_channels_and_are_large_enough(channels):
    groups = groups_for(channels)
    assert channels % groups == 0
    assert groups <= 32
    assert groups == 1 or channels // groups >= 4


@pytest.mark.parametrize(
    ("config", "batch_size", "expected"),
    [
        (Config(), 4, nn.GroupNorm),
        (Config(), 16, nn.BatchNorm2d),
        (Config(group_norm_below=32), 16, nn.GroupNorm),
        (Config(normalization="group"), 64, nn.GroupNorm),
        (Config(normalization="keep"), 1, nn.BatchNorm2d),
        (Config(normalization="batch"), 1, nn.BatchNorm2d),
    ],
)
def test_a_configuration_decides_on_normalisation(config, batch_size, expected):
    assert norms(apply_normalization(small_model(), config, batch_size)) == [expected]


def test_a_configuration_makes_batch_normalisation_where_it_is_asked_for():
    grouped = to_group_norm(small_model())
    assert norms(apply_normalization(grouped, Config(normalization="keep"), 64)) == [nn.GroupNorm]
    assert norms(apply_normalization(grouped, Config(normalization="batch"), 2)) == [nn.BatchNorm2d]


def test_a_batch_without_samples_is_refused():
    with pytest.raises(SpecError, match="got batch_size=0"):
        adapt_normalization(small_model(), 0)
