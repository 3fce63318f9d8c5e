"""Arrays of NumPy in folders, and the rows of one file."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from torch.utils.data import DataLoader

from autotune.data.datasets import npy_files
from autotune.data.datasets.npy_files import NpyDataset
from autotune.data.facts import samples_equal
from autotune.errors import DatasetError, SampleError
from autotune.units import TIB


@pytest.fixture
def folder(tmp_path):
    """Two arrays in each of two class folders."""
    for number in range(4):
        place = tmp_path / "arrays" / ("a" if number < 2 else "b") / f"{number}.npy"
        place.parent.mkdir(parents=True, exist_ok=True)
        np.save(place, np.arange(6).reshape(2, 3) + number)
    return tmp_path / "arrays"


def claiming(count):
    """Give a file whose header claims so many numbers of 8 bytes, and that has 8 of them."""
    sink = io.BytesIO()
    np.lib.format.write_array_header_1_0(sink, {"descr": "<f8", "fortran_order": False, "shape": (count,)})
    return sink.getvalue() + bytes(64)


def test_folders_at_the_top_are_the_classes(folder):
    dataset = NpyDataset(folder)
    assert dataset.classes == ("a", "b")
    assert [int(target) for _, target in dataset] == [0, 0, 1, 1]
    flat = NpyDataset(folder / "b")
    assert (flat.classes, [int(target) for _, target in flat]) == ((), [0, 0])


def test_array_beside_class_folders_is_refused(folder):
    np.save(folder / "mean.npy", np.zeros(3))
    with pytest.raises(DatasetError, match=r"arrays lie either.*mean\.npy beside the folder a; move it"):
        NpyDataset(folder)


def test_hidden_files_are_left_out(folder):
    (folder / "a" / "._0.npy").write_bytes(b"made by another system")
    np.save(folder / ".mean.npy", np.zeros(3))
    assert len(NpyDataset(folder)) == 4


def test_ends_of_names_may_be_in_capitals(folder):
    (folder / "a" / "0.npy").rename(folder / "a" / "0.NPY")
    assert len(NpyDataset(folder)) == 4


@pytest.mark.fault(26)
@pytest.mark.parametrize("count", [TIB, 2**62, 2**61 + 1, 9])
def test_size_that_a_header_only_claims_is_not_believed(folder, count):
    (folder / "a" / "1.npy").write_bytes(claiming(count))
    with pytest.raises(SampleError, match=r"a/1\.npy.*declares"):
        NpyDataset(folder)[1]
    left = NpyDataset(folder, on_broken="skip")
    assert sum(len(arrays) for arrays, _ in DataLoader(left, batch_size=4)) == 3
    with pytest.raises(DatasetError, match=r"a/1\.npy"):
        NpyDataset(folder / "a" / "1.npy")


@pytest.mark.fault(26)
def test_file_above_the_limit_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(npy_files, "MAX_ARRAY_BYTES", 100)
    with pytest.raises(SampleError, match=r"a/0\.npy: the file has .* at most"):
        NpyDataset(folder)[0]


@pytest.mark.fault(12)
@pytest.mark.parametrize("gone", [True, False])
def test_one_file_that_goes_away_or_changes_follows_the_policy(tmp_path, gone):
    path = tmp_path / "rows.npy"
    np.save(path, np.arange(10))
    datasets = [NpyDataset(path, on_broken=policy) for policy in ("raise", "skip")]
    path.unlink()
    if not gone:
        np.save(path, np.arange(4))
    with pytest.raises(SampleError, match=r"rows\.npy") as caught:
        list(datasets[0])
    assert caught.value.path == str(path)
    with pytest.raises(SampleError, match="left out"):
        next(iter(DataLoader(datasets[1], batch_size=2)))
    assert datasets[1].broken_files == (str(path),)


def test_files_are_found_from_another_folder(folder, tmp_path, monkeypatch):
    np.save(tmp_path / "rows.npy", np.arange(4))
    monkeypatch.chdir(tmp_path)
    rows, files = NpyDataset("rows.npy"), NpyDataset("arrays")
    monkeypatch.chdir("/")
    assert int(rows[3][0]) == 3
    assert int(files[2][0][0, 0]) == 2
    assert list(rows.source_paths()) == [rows.path_of(0)] == [str(tmp_path / "rows.npy")]


@given(
    arrays_of.arrays(
        st.sampled_from(["<f4", ">f8", "<i2", ">i8", "u1", "?", "<c8"]),
        arrays_of.array_shapes(min_dims=0, max_dims=3, max_side=4),
        elements={"allow_nan": False},
    ),
    st.booleans(),
)
def test_every_array_comes_back_in_native_order(tmp_path_factory, array, fortran):
    path = tmp_path_factory.mktemp("array")
    np.save(path / "a.npy", np.array(array, order="F" if fortran else "C"))
    found, _ = NpyDataset(path)[0]
    expected = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    assert samples_equal(found, expected)
    assert found.is_contiguous()


def array_or_error(path):
    try:
        return NpyDataset(path)[0][0]
    except DatasetError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore")
@given(st.data())
def test_damage_to_a_header_is_told_or_harmless(tmp_path_factory, data):
    sink = io.BytesIO()
    np.save(sink, np.arange(6.0))
    whole = bytearray(sink.getvalue())
    for place in data.draw(st.lists(st.integers(0, 127), min_size=1, max_size=4)):
        whole[place] = data.draw(st.integers(0, 255) | st.sampled_from(list(b"()[]{}'#0L,")))
    path = tmp_path_factory.mktemp("damaged")
    (path / "a.npy").write_bytes(whole)
    for source in (path, path / "a.npy"):
        found = array_or_error(source)
        assert isinstance(found, torch.Tensor) or "a.npy" in found
