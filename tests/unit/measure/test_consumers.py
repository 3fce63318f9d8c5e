"""What takes the batches."""

import time
from typing import Any, NamedTuple

import pytest
import torch

from autotune.data.factory import load_object
from autotune.errors import SpecError
from autotune.measure.batches import move_batch, resolve_device
from autotune.measure.consumers import DeviceTransformFailedError, StepFailedError, make_consumer
from autotune.spec import Consumer

CPU = torch.device("cpu")
META = torch.device("meta")


class Pair(NamedTuple):
    image: Any
    mask: Any


def consumer(spec, *, device=CPU, payload=None, device_transform=None):
    return make_consumer(
        spec, device=device, batch_size=8, load=load_object, payload=payload, device_transform=device_transform
    )


KINDS = (Consumer(), Consumer(kind="emulated", step_ms=0.1), Consumer(kind="step"))


def test_every_tensor_of_a_nested_batch_is_moved_and_the_nesting_kept():
    tensor = torch.zeros(2)
    moved = move_batch({"a": [tensor, (tensor, "name")], "b": Pair(tensor, 3)}, META)
    assert moved["a"][0].device == META
    assert moved["a"][1][0].device == META
    assert moved["a"][1][1] == "name"
    assert moved["b"].image.device == META
    assert moved["b"].mask == 3


def test_an_emulated_step_sleeps_without_burning_cpu():
    take = consumer(Consumer(kind="emulated", step_ms=20, step_ms_per_sample=10))
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    take(torch.zeros(4, 1))
    assert time.perf_counter() - wall_s >= 0.06
    assert time.process_time() - cpu_s < 0.03


def test_a_step_comes_from_a_dotted_factory_with_arguments(tmp_path):
    path = tmp_path / "noted"
    spec = Consumer(kind="step", step="trial_datasets:make_counting_step", step_arguments={"path": str(path)})
    consumer(spec)(torch.zeros(5, 1))
    assert path.read_text() == "5\n"


def test_a_step_comes_from_the_objects_that_were_sent():
    seen = []
    consumer(Consumer(kind="step"), payload={"step": seen.append}, device=META)(torch.zeros(3))
    assert seen[0].device == META


def test_a_step_that_raises_is_told_apart_from_the_loader():
    with pytest.raises(StepFailedError, match="does not like") as caught:
        consumer(Consumer(kind="step", step="trial_datasets:make_failing_step"))(torch.zeros(1))
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.kind)
@pytest.mark.parametrize("device", [CPU, META], ids=str)
def test_the_device_transform_runs_on_what_has_arrived_before_every_consumer(spec, device):
    seen, stepped = [], []
    take = consumer(spec, device=device, payload={"step": stepped.append}, device_transform=seen.append)
    take([torch.zeros(3), 4])
    assert [(batch[0].device, batch[1]) for batch in seen] == [(device, 4)]
    assert stepped == ([None] if spec.kind == "step" else [])


def test_training_and_evaluating_get_what_the_device_transform_gives():
    class Step:
        def __init__(self):
            self.seen = []

        def __call__(self, batch):
            self.seen.append(("step", batch.item()))

        def evaluate(self, batch):
            self.seen.append(("evaluate", batch.item()))

    step = Step()
    take = consumer(Consumer(kind="step"), payload={"step": step}, device_transform=lambda batch: batch + 1)
    take(torch.tensor(1.0))
    take.evaluate(torch.tensor(5.0))
    assert step.seen == [("step", 2.0), ("evaluate", 6.0)]


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.kind)
def test_a_device_transform_that_raises_is_told_apart_from_loader_and_step(spec):
    def transform(batch):
        raise ValueError("of three bands")

    take = consumer(spec, payload={"step": print}, device_transform=transform)
    with pytest.raises(DeviceTransformFailedError, match="device_transform of the dataset raised ValueError: of three"):
        take(torch.zeros(1))


def test_a_step_that_is_not_there_is_refused():
    with pytest.raises(SpecError, match="callable step"):
        consumer(Consumer(kind="step"))


def test_auto_is_the_cpu_where_there_is_no_accelerator():
    assert resolve_device("cpu") == CPU
    if not torch.cuda.device_count() and not torch.backends.mps.is_available():
        assert resolve_device("auto") == CPU
