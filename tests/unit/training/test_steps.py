"""The step of a study trains as `Trainer` does: same weights, same normalisation, same refusals."""

import pickle

import pytest
import torch
from torch import nn
from training_parts import THRESHOLDS, config, gaps, heights, model, pairs, torch_loader

from autotune.errors import DatasetError, NonFiniteLossError, SpecError
from autotune.training import Config, Trainer
from autotune.training.models import ThresholdUNet
from autotune.training.steps import TrainingStep, threshold_unet_step


def batch(count=10, thresholds=THRESHOLDS):
    tall = heights(count)
    return [tall / 30, gaps(tall, thresholds)]


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    "changes",
    [{}, {"loss": "bce", "optimizer": "sgd"}, {"use_gradient_clipping": False}, {"mixed_precision": True}],
    ids=str,
)
@pytest.mark.parametrize("batch_size", [3, 10])
def test_weights_after_an_epoch_of_steps_are_those_of_a_trainer(batch_size, changes):
    """With batches of 3 normalisation is that of groups, with 10 that of batches."""
    settings = config(epochs=1, scheduler_type=None, **changes)
    trained, stepped = model(dropout=0.0), model(dropout=0.0)
    Trainer(trained, settings, torch_loader(batch_size=batch_size), callbacks=()).train()
    step = TrainingStep(stepped, settings)
    for given in torch_loader(batch_size=batch_size):
        step(given)
    assert same(weights(stepped), weights(trained))
    assert any(isinstance(layer, nn.GroupNorm) for layer in stepped.modules()) == (batch_size < 8)


def test_the_learning_rate_stays_and_the_configuration_of_the_caller_too():
    settings = config(epochs=1)
    assert settings.scheduler_type == "cosine_warm"
    one, other = (TrainingStep(model(dropout=0.0), given) for given in (settings, config(scheduler_type=None)))
    for _ in range(3):
        one(batch())
        other(batch())
    assert same(weights(one._model), weights(other._model))
    assert settings.scheduler_type == "cosine_warm"


def test_gradients_of_several_batches_make_one_update():
    step = TrainingStep(model(), config(accumulation_steps=2, normalization="group"))
    before = weights(step._model)
    step(batch())
    after_one = [value for name, value in weights(step._model).items() if name == "head.weight"]
    assert torch.equal(after_one[0], before["head.weight"])
    step(batch())
    assert not torch.equal(weights(step._model)["head.weight"], before["head.weight"])


def test_evaluation_changes_nothing_and_training_goes_on():
    step = TrainingStep(model(), config())
    step(batch())
    before = weights(step._model)
    step.evaluate(batch(4))
    assert same(weights(step._model), before)
    assert step._model.training
    assert all(parameter.grad is None for parameter in step._model.parameters())


def test_evaluation_needs_no_step_before():
    step = TrainingStep(model(), config())
    with torch.no_grad():
        step.evaluate(batch(4))
    step(batch(4))


def test_a_step_is_sent_to_other_processes_before_and_after_its_first_batch():
    step = threshold_unet_step(width=2, depth=1, thresholds=THRESHOLDS)
    for _ in range(2):
        sent = pickle.loads(pickle.dumps(step))
        step(batch())
        sent(batch())
        assert same(weights(sent._model), weights(step._model))


def test_the_factory_seeds_the_weights_and_leaves_the_random_numbers_of_the_caller():
    state = torch.get_rng_state()
    one, same_seed, other = (threshold_unet_step(width=2, depth=1, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert same(weights(one._model), weights(same_seed._model))
    assert not same(weights(one._model), weights(other._model))


def test_arguments_of_the_factory_reach_model_and_configuration():
    step = threshold_unet_step(in_channels=2, width=4, depth=2, thresholds=[5, 12], loss="bce", seed=3)
    assert isinstance(step._model, ThresholdUNet)
    assert (step._model.in_channels, step._model.depth, step._model.code.scale_m) == (2, 2, 12)
    assert (step._config.loss, step._config.thresholds, step._config.seed) == ("bce", (5.0, 12.0), 3)
    with pytest.raises(SpecError, match="no_such_field"):
        threshold_unet_step(no_such_field=1)


def test_any_model_is_stepped_with_the_configuration_of_nobody():
    step = TrainingStep(nn.Conv2d(1, 4, 1))
    before = weights(step._model)
    step(batch(thresholds=Config().thresholds))
    assert not same(weights(step._model), before)


def test_a_loss_that_is_not_finite_is_refused_with_its_batch():
    step = TrainingStep(model(), config())
    step(batch())
    before = weights(step._model)
    broken = batch()
    broken[0][0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteLossError, match=r"batch 1 .*got nan .*fill=0\.0") as caught:
        step(broken)
    assert caught.value.batch == 1
    assert torch.equal(weights(step._model)["head.weight"], before["head.weight"])


def test_gradients_that_are_not_finite_are_refused():
    step = TrainingStep(nn.Conv2d(1, 2, 1), config(loss="bce", normalization="keep"))
    step._model.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NonFiniteLossError, match="gradients must be finite"):
        step(batch())


def test_what_is_no_batch_of_images_and_masks_is_refused():
    step = TrainingStep(model(), config())
    with pytest.raises(DatasetError, match="images, masks"):
        step(torch.zeros(3, 1, 8, 8))
    with pytest.raises(SpecError, match="thresholds"):
        step(batch(thresholds=(5.0, 10.0, 15.0)))


def test_samples_of_a_dataset_come_as_steps_take_them():
    step = TrainingStep(model(), config())
    images, masks = pairs()[0]
    step((images[None], masks[None]))
