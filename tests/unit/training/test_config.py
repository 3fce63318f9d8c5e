"""`Config` refuses what breaks a rule as it is set, names the value, and stays as it was."""

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.errors import SpecError
from autotune.training.config import Config

BAD = {
    "epochs": (0, -1, 1.5, "10", True, None),
    "batch_size": (0, 2.0, True),
    "learning_rate": (0.0, -1e-3, float("nan"), float("inf"), "fast", None),
    "weight_decay": (-1e-4, float("nan"), None),
    "optimizer": ("lion", None, 1),
    "momentum": (1.0, -0.1),
    "scheduler_type": ("cosine_cold", 3),
    "warmup_epochs": (-1, float("inf"), None),
    "min_learning_rate": (-1e-6, 1.0),
    "polynomial_power": (0, -1.0),
    "plateau_patience": (-1, 1.5),
    "plateau_factor": (0.0, 1.0),
    "step_epochs": (0,),
    "step_factor": (0.0, 1.0),
    "use_gradient_clipping": (1, "yes", None),
    "clip_value": (0.0, -1.0, float("nan")),
    "accumulation_steps": (0, 1.5),
    "mixed_precision": ("float16", 1, None),
    "loss": ("mse", None),
    "focal_alpha": (-0.1, 1.1),
    "focal_gamma": (-1.0,),
    "focal_share": (-0.1, 1.1),
    "dice_smooth": (0.0, -1.0),
    "ignore_index": (1.5, "none"),
    "thresholds": ((), (5, 5), (10, 5), (0, 5), (-1,), 5, None),
    "use_threshold_weights": (1,),
    "threshold_weights": ((1.0,), (1, 1, 1, 0), (1, 1, 1, -1)),
    "decision_threshold": (0.0, 1.0),
    "dropout_rate": (1.0, -0.1),
    "use_droppath": (0,),
    "droppath_final_prob": (1.0, -0.1),
    "normalization": ("layer", None),
    "group_norm_below": (0,),
    "seed": (-1, 2**63, 0.5, None),
    "device": ("", "warp drive", None),
    "deterministic": ("no",),
    "early_stopping_patience": (0, 1.5),
    "monitor": ("", None),
    "monitor_mode": ("lowest", None),
    "checkpoint_every_epochs": (0,),
    "keep_checkpoints": (0,),
}


def test_every_field_has_values_that_it_refuses():
    assert set(BAD) == set(Config.model_fields)


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in BAD.items() for value in values])
def test_a_bad_value_is_refused_by_name_on_assignment_and_on_construction(field, value):
    config = Config()
    before = config.model_dump()
    with pytest.raises(SpecError, match=field):
        setattr(config, field, value)
    assert config.model_dump() == before
    with pytest.raises(SpecError, match=field):
        Config(**{field: value})


@pytest.mark.parametrize("field", ["epochs", "plateau_patience", "clip_value", "decision_threshold", "loss"])
def test_the_message_names_the_value(field):
    value = BAD[field][0]
    with pytest.raises(SpecError, match=str(value)):
        Config(**{field: value})


def test_the_documented_configuration_is_accepted_line_by_line():
    config = Config()
    config.epochs = 100
    config.learning_rate = 1e-3
    config.optimizer = "adamw"
    config.scheduler_type = "cosine_warm"
    config.warmup_epochs = 5
    config.use_gradient_clipping = True
    config.clip_value = 1.0
    config.use_threshold_weights = True
    config.use_droppath = True
    config.droppath_final_prob = 0.2
    assert (config.epochs, config.use_droppath, config.warmup_epochs) == (100, True, 5)


def test_an_unknown_field_is_refused_with_the_list_of_fields():
    config = Config()
    with pytest.raises(SpecError, match=r"no field 'epoch'.*epochs"):
        config.epoch = 3
    with pytest.raises(SpecError, match="epoch"):
        Config(epoch=3)


def test_fields_that_belong_together_are_changed_at_once():
    config = Config(use_threshold_weights=True, threshold_weights=(4, 3, 2, 1))
    with pytest.raises(SpecError, match="update"):
        config.thresholds = (5, 10)
    assert config.thresholds == (5, 10, 15, 20)
    config.update(thresholds=[5, 10], threshold_weights=[2, 1])
    assert (config.thresholds, config.threshold_weights) == ((5, 10), (2, 1))


def test_weights_that_would_have_no_effect_are_refused():
    with pytest.raises(SpecError, match=r"threshold_weights needs use_threshold_weights=True.*update\("):
        Config(threshold_weights=(4, 3, 2, 1))
    config = Config()
    with pytest.raises(SpecError, match="needs use_threshold_weights=True"):
        config.threshold_weights = (4, 3, 2, 1)
    config.update(use_threshold_weights=True, threshold_weights=(4, 3, 2, 1))
    with pytest.raises(SpecError, match="needs use_threshold_weights=True"):
        config.use_threshold_weights = False


def test_a_learning_rate_below_its_minimum_is_refused():
    config = Config()
    with pytest.raises(SpecError, match=r"min_learning_rate.*1e-06.*1e-07"):
        config.learning_rate = 1e-7
    assert config.update(learning_rate=1e-7, min_learning_rate=1e-8).learning_rate == 1e-7


def test_an_update_that_fails_changes_nothing():
    config = Config()
    with pytest.raises(SpecError, match="clip_value"):
        config.update(epochs=3, clip_value=0.0)
    assert config == Config()


def test_copies_are_equal_and_change_by_themselves():
    config = Config(epochs=3, thresholds=(5, 10))
    for copied in (copy.deepcopy(config), pickle.loads(pickle.dumps(config)), config.model_copy()):
        assert copied == config
        copied.epochs = 4
        assert config.epochs == 3
        with pytest.raises(SpecError, match="epochs"):
            copied.epochs = 0


@given(
    epochs=st.integers(1, 10**6),
    learning_rate=st.floats(1e-5, 10),
    thresholds=st.sets(st.floats(0.5, 100), min_size=1, max_size=6).map(sorted),
    mixed=st.sampled_from([True, False, "auto"]),
)
def test_a_configuration_survives_its_json_form(epochs, learning_rate, thresholds, mixed):
    config = Config(epochs=epochs, learning_rate=learning_rate, thresholds=thresholds, mixed_precision=mixed)
    assert Config(**json.loads(json.dumps(config.model_dump(mode="json")))) == config
