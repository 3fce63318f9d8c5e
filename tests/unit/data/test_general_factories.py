"""What the study files of images, text and HDF5 name: generated data out of the box, real data by one setting."""

from pathlib import Path

import h5py
import pytest
import torch

from autotune.data.datasets.general_factories import hdf5, images, text
from autotune.data.datasets.sample_files import CLASSES, hdf5_features, photographs, text_lines
from autotune.data.factory import build_dataset
from autotune.data.facts import describe_sample, samples_equal
from autotune.data.fingerprint import source_fingerprint
from autotune.data.inspect import inspect_dataset
from autotune.errors import SpecError
from autotune.machine import machine_facts
from autotune.spec.study_file import read_study

STUDIES = Path(__file__).resolve().parents[3] / "studies"
REAL = {
    "images": {"folder": "images/pets"},
    "text": {"path": "text/tinyshakespeare/input.txt"},
    "hdf5": {"path": "hdf5/radar/T_PAZA63_C_LFPW_20230420065041.h5", "dataset_name": "dataset1/data1/data"},
}
STRUCTURES = {
    "images": "(float32[3,224,224], int64[])",
    "text": "(int64[512], int64[])",
    "hdf5": "(float32[64,64], int64[])",
}


def factory_of(name):
    return {"images": images, "text": text, "hdf5": hdf5}[name]


@pytest.mark.parametrize("name", STRUCTURES)
def test_study_file_gives_generated_data(name, tmp_path):
    spec = read_study(STUDIES / f"{name}.yaml")
    assert spec.name == name
    source = spec.workload.dataset
    few = source.model_copy(update={"arguments": {**source.arguments, "count": 9, "root": str(tmp_path)}})
    told = []
    dataset = build_dataset(few, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (9, 9)
    assert len(dataset) == 9
    assert describe_sample(dataset[8]) == STRUCTURES[name]
    found = inspect_dataset(dataset, machine_facts(accelerator=False))
    assert (found.random, found.varying, found.augmented, found.dataset.declared) == (False, False, False, True)
    assert found.fingerprint == source_fingerprint(build_dataset(few))


@pytest.mark.parametrize("name", STRUCTURES)
def test_generated_data_is_the_same_everywhere(name, tmp_path):
    make = factory_of(name)
    first, second, other = (
        make(str(tmp_path / part), count=3, seed=seed) for part, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert samples_equal([first[index] for index in range(3)], [second[index] for index in range(3)])
    assert not samples_equal([first[index] for index in range(3)], [other[index] for index in range(3)])


def test_generated_files_are_drawn_once_and_whole(tmp_path):
    folder = photographs(tmp_path, count=8)
    assert sorted(path.name for path in folder.iterdir()) == sorted(CLASSES)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    assert len(before) == 8
    assert photographs(tmp_path, count=8) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")} == before
    assert len(text_lines(tmp_path, count=20).read_text().splitlines()) == 20
    with h5py.File(hdf5_features(tmp_path, count=40)) as file:
        assert file["features"].chunks == (32, 64, 64)
        assert file["features"].compression == "gzip"
    assert not list(tmp_path.glob("*.drawing-*"))
    with pytest.raises(SpecError, match="count >= 1"):
        photographs(tmp_path, count=0)


@pytest.mark.fault
def test_interrupted_drawing_leaves_nothing(tmp_path):
    def interrupt(done, _):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images(str(tmp_path), count=8, progress=interrupt)
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
    assert len(images(str(tmp_path), count=8)) == 8


def test_home_holds_generated_data_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_HOME", str(tmp_path))
    assert torch.is_tensor(text(count=5)[0][0])
    assert list((tmp_path / "data").glob("text-*/lines.txt"))


@pytest.mark.parametrize("name", STRUCTURES)
def test_real_data_by_one_setting(name, real_data):
    key = "folder" if name == "images" else "path"
    settings = {**REAL[name], key: str(real_data / REAL[name][key])}
    dataset = factory_of(name)(**settings)
    expected = {**STRUCTURES, "hdf5": "uint8[267]"}[name]
    assert describe_sample(dataset[0]) == expected
    commented = (STUDIES / f"{name}.yaml").read_text()
    assert f"# {key}: ../shared/data/{REAL[name][key]}" in commented
