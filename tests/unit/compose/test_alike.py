"""Which machines of one class measure for the same study."""

import pytest
from study_records import DATASET, MACHINE

from autotune.compose.alike import check_alike
from autotune.errors import ConflictError
from autotune.spec import Inspection
from autotune.spec.study_file import spec_from_fields

SEEN = Inspection(
    dataset=DATASET, machine=MACHINE, sample_structure="x", sample_bytes=1, largest_sample_bytes=1, fingerprint="f"
)


def study(**space):
    return spec_from_fields({"name": "s", "dataset": "my:make", "budget": "5s", "space": space})


def having(**versions):
    return SEEN.replace(machine=MACHINE.replace(host="other", versions=versions))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (SEEN.replace(dataset=DATASET.replace(length=599)), "has 599 as the dataset's length, and host 600"),
        (SEEN.replace(sample_structure="y"), "has y as structure of its samples, and host x"),
    ],
)
def test_machines_with_other_data_do_not_measure_for_the_same_study(other, told):
    with pytest.raises(ConflictError, match=told):
        check_alike(study(), SEEN, other)


def test_of_libraries_that_both_have_minor_versions_may_differ_and_major_ones_may_not():
    check_alike(study(), having(torch="2.6.0", h5py="3.1"), having(torch="2.9.1", rasterio="1.4"))
    with pytest.raises(ConflictError, match=r"torch 3\.0\.0 as versions, and other torch 2\.6\.0"):
        check_alike(study(), having(torch="2.6.0"), having(torch="3.0.0"))


def test_a_library_that_one_of_them_lacks_matters_as_far_as_the_space_needs_it():
    with_hdf5 = SEEN.replace(formats=(*SEEN.formats, "hdf5"))
    needing = study(archive=["files", "hdf5"])
    check_alike(study(), with_hdf5, SEEN)
    check_alike(needing, SEEN, with_hdf5)
    with pytest.raises(ConflictError, match=r"configurations that its packages and files allow \(.*hdf5"):
        check_alike(needing, with_hdf5, SEEN)
