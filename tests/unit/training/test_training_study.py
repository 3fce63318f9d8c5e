"""The study file of training: generated data out of the box, real data by one setting, and a limit that bites."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import default_collate

from autotune.compose import measure, places
from autotune.data.datasets.factories import forest_gaps
from autotune.data.factory import build_dataset, load_object
from autotune.data.facts import describe_sample
from autotune.data.inspect import inspect_dataset
from autotune.errors import DatasetError
from autotune.machine import machine_facts
from autotune.measure.consumers import make_consumer
from autotune.spec import LoaderConfig
from autotune.spec.study_file import parse_study, read_study
from autotune.training.steps import TrainingStep

PATH = Path(__file__).resolve().parents[3] / "studies" / "forest_gaps_training.yaml"
STRUCTURE = "(float32[1,64,64], uint8[1,64,64])"


def source(**arguments):
    spec = read_study(PATH)
    given = spec.workload.dataset
    return given.model_copy(update={"arguments": {**given.arguments, **arguments}})


def consumer():
    spec = read_study(PATH)
    return make_consumer(spec.consumer, device=torch.device("cpu"), batch_size=4, load=load_object)


def test_study_file_gives_generated_tiles(tmp_path):
    dataset = build_dataset(source(count=5, root=str(tmp_path)))
    assert len(dataset) == 5
    assert describe_sample(dataset[4]) == STRUCTURE
    found = inspect_dataset(dataset, machine_facts(accelerator=False))
    assert (found.random, found.varying, found.augmented) == (False, False, False)


def test_its_step_trains_and_evaluates_on_batches_of_them(tmp_path):
    dataset = build_dataset(source(count=4, root=str(tmp_path)))
    take = consumer()
    assert isinstance(take._step, TrainingStep)
    given = default_collate([dataset[index] for index in range(4)])
    before = take._step._model.head.weight.clone()
    take(given)
    assert not torch.equal(take._step._model.head.weight, before)
    take.evaluate(given)


def test_real_canopy_heights_by_one_setting(real_data):
    if not (real_data / "forest_gaps").is_dir():
        pytest.skip("forest_gaps is absent")
    dataset = build_dataset(source(folder=str(real_data / "forest_gaps")))
    assert describe_sample(dataset[0]) == STRUCTURE
    assert {Path(path).suffix for path in dataset.source_paths()} == {".tif"}
    assert all("chm" in Path(path).name.lower() for path in dataset.source_paths())
    consumer()(default_collate([dataset[index] for index in range(4)]))


def test_a_folder_without_canopy_heights_is_told(tmp_path):
    with pytest.raises(DatasetError, match="no file under"):
        forest_gaps(folder=str(tmp_path))
    with pytest.raises(DatasetError, match="must exist"):
        forest_gaps(folder=str(tmp_path / "nowhere"))


@pytest.mark.slow
def test_its_memory_limit_leaves_small_batches_and_refuses_large_ones(tmp_path):
    text = PATH.read_text().replace("count: 600", f"count: 256\n    root: {tmp_path / 'data'}")
    spec = parse_study(text + "\ntime_cap_s: 0.1\nconfirm_time_cap_s: 0.1\ndevice: cpu\n", str(PATH))
    at = places(tmp_path / "home")
    small, large = (measure(spec, LoaderConfig(batch_size=size), at=at) for size in (16, 256))
    assert small.failure is None
    assert large.failure is not None
    assert large.failure.kind == "device_memory"
