"""`Config`: everything about a training run that is neither the model nor the loaders."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from autotune.errors import SpecError
from autotune.spec.base import first_message

OptimizerName = Literal["adamw", "adam", "sgd", "rmsprop"]
SchedulerName = Literal["cosine_warm", "cosine", "plateau", "one_cycle", "polynomial", "step"]
LossName = Literal["combined", "bce", "focal", "dice", "cross_entropy"]
NormalizationName = Literal["auto", "batch", "group", "keep"]

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]

_SEED_MAX = 2**63 - 1


class Config(BaseModel):
    """Settings of a training run; each may be changed, and is checked as it is set.

    A change that breaks a rule leaves the configuration as it was. Rules that join two fields are checked at each
    change, too: `update` changes several at once.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Samples in a batch; None takes the tuned value, else that of the loaders that are given.
        learning_rate: The highest of the schedule.
        weight_decay: Decay of weights, not of biases and normalisation; decoupled with `adamw`, else a part of the
            gradient.
        optimizer: `adamw`, `adam`, `sgd` or `rmsprop`.
        momentum: Of `sgd` and `rmsprop`; the others have their own.
        scheduler_type: How the learning rate changes; None keeps it.
        warmup_epochs: Epochs, or parts of one, in which the rate rises, with `cosine_warm` and `one_cycle`; at most
            half of the training.
        min_learning_rate: Where the schedule ends, and what `plateau` and `step` never go below.
        polynomial_power: Exponent of `polynomial`.
        plateau_patience: Epochs without improvement of `monitor` that `plateau` waits for.
        plateau_factor: What `plateau` multiplies the rate by.
        step_epochs: Epochs between two steps of `step`.
        step_factor: What `step` multiplies the rate by.
        use_gradient_clipping: Whether gradients are scaled down to `clip_value`.
        clip_value: Largest norm of all gradients together.
        accumulation_steps: Batches whose gradients make one update.
        mixed_precision: Whether to compute in half precision: float16 with scaled losses on CUDA, bfloat16 on the
            CPU; `auto` does on CUDA alone.
        loss: `combined` is focal and Dice loss; `cross_entropy` is for several classes.
        focal_alpha: Weight of gaps against 1 minus it of the rest, in the focal loss.
        focal_gamma: How much the focal loss turns away from easy pixels; 0 not at all.
        focal_share: Part of the focal loss in `combined`; the rest is Dice loss.
        dice_smooth: What is added above and below the fraction of the Dice loss.
        ignore_index: Value of masks that counts neither in losses nor in metrics. Losses of epochs are those of all
            masks that count, whatever the batch size; within an update, batches and ranks weigh alike.
        thresholds: Heights in metres under which a pixel is a gap, ascending.
        use_threshold_weights: Whether samples weigh by their threshold in the loss.
        threshold_weights: Weight of each threshold, with `use_threshold_weights`; None weighs low thresholds, whose
            gaps are rare, more.
        decision_threshold: Probability above which a pixel is predicted to be a gap.
        dropout_rate: Rate of every dropout layer of the model; None leaves each as it was built.
        use_droppath: Whether blocks are skipped at random in training; None leaves each as it was built.
        droppath_final_prob: How often the last block is skipped in the last epoch; it rises from block to block and
            from epoch to epoch, along straight lines.
        normalization: `auto` makes group of batch normalisation under `group_norm_below` samples in a batch, `group`
            and `batch` make the one of the other always, `keep` leaves the model as it is.
        group_norm_below: Batch size under which `auto` changes.
        seed: Seed of everything random.
        device: Where to train; `auto` is an accelerator where there is one.
        early_stopping_patience: Epochs without improvement of `monitor` after which training ends; None never.
        monitor: Figure of an epoch that decides which is the best.
        monitor_mode: Whether the lowest (`min`) or the highest (`max`) is.
        checkpoint_every_epochs: Epochs between two checkpoints.
        keep_checkpoints: Checkpoints that are kept beside the best and the last.
        deterministic: Whether torch may use deterministic algorithms alone.

    Raises:
        SpecError: A value breaks a rule, or there is no such field.
    """

    model_config = ConfigDict(strict=True, validate_assignment=True, extra="forbid", allow_inf_nan=False)

    epochs: Count = 10
    batch_size: Count | None = None

    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 1e-4
    optimizer: OptimizerName = "adamw"
    momentum: ShareBelowOne = 0.9

    scheduler_type: SchedulerName | None = "cosine_warm"
    warmup_epochs: NotNegative = 5
    min_learning_rate: NotNegative = 1e-6
    polynomial_power: Positive = 0.9
    plateau_patience: Annotated[int, Field(ge=0)] = 5
    plateau_factor: Inside = 0.5
    step_epochs: Count = 10
    step_factor: Inside = 0.1

    use_gradient_clipping: bool = True
    clip_value: Positive = 1.0
    accumulation_steps: Count = 1
    mixed_precision: bool | Literal["auto"] = "auto"

    loss: LossName = "combined"
    focal_alpha: Share = 0.5
    focal_gamma: NotNegative = 2.0
    focal_share: Share = 0.5
    dice_smooth: Positive = 1.0
    ignore_index: int | None = None
    thresholds: Annotated[tuple[Positive, ...], Field(min_length=1, strict=False)] = (5.0, 10.0, 15.0, 20.0)
    use_threshold_weights: bool = False
    threshold_weights: Annotated[tuple[Positive, ...], Field(strict=False)] | None = None
    decision_threshold: Inside = 0.5

    dropout_rate: ShareBelowOne | None = None
    use_droppath: bool | None = None
    droppath_final_prob: ShareBelowOne = 0.2
    normalization: NormalizationName = "auto"
    group_norm_below: Count = 8

    seed: Annotated[int, Field(ge=0, le=_SEED_MAX)] = 0
    device: Annotated[str, Field(min_length=1)] = "auto"
    deterministic: bool = False

    early_stopping_patience: Count | None = None
    monitor: Annotated[str, Field(min_length=1)] = "val_loss"
    monitor_mode: Literal["min", "max"] = "min"
    checkpoint_every_epochs: Count = 1
    keep_checkpoints: Count = 3

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise SpecError(f"Config: {first_message(error)}") from error

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field, or leave everything as it was where a rule is broken."""
        if name not in type(self).model_fields:
            raise SpecError(f"Config has no field {name!r}; its fields are {', '.join(type(self).model_fields)}")
        self.update(**{name: value})

    def update(self, **changes: Any) -> Self:
        """Change several fields at once, or none where a rule is broken.

        Raises:
            SpecError: A value breaks a rule, or there is no such field.
        """
        checked = type(self)(**{**self.model_dump(), **changes})
        for name in changes:
            self.__dict__[name] = getattr(checked, name)
        self.__pydantic_fields_set__.update(changes)
        return self

    @field_validator("device")
    @classmethod
    def _device_is_known(cls, device: str) -> str:
        if device != "auto":
            import torch

            try:
                torch.device(device)
            except RuntimeError as error:
                raise ValueError(f"device is 'auto' or one of torch's (cpu, cuda, cuda:1), got {device!r}") from error
        return device

    @field_validator("thresholds")
    @classmethod
    def _thresholds_ascend(cls, thresholds: tuple[float, ...]) -> tuple[float, ...]:
        if any(low >= high for low, high in pairwise(thresholds)):
            raise ValueError(f"thresholds ascend and differ, got {thresholds}")
        return thresholds

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate is at most learning_rate, got {self.min_learning_rate} and {self.learning_rate}; "
                "update(learning_rate=..., min_learning_rate=...) sets both"
            )
        weights = self.threshold_weights
        if weights is not None and not self.use_threshold_weights:
            raise ValueError(
                f"threshold_weights needs use_threshold_weights=True, got {weights} without it; "
                "update(use_threshold_weights=..., threshold_weights=...) sets both"
            )
        if weights is not None and len(weights) != len(self.thresholds):
            raise ValueError(
                f"each threshold needs one weight, got {len(weights)} weights for thresholds {self.thresholds}; "
                "update(thresholds=..., threshold_weights=...) sets both"
            )
        return self


__all__ = ["Config", "LossName", "NormalizationName", "OptimizerName", "SchedulerName"]
