"""A registry that lies where an address of PostgreSQL without a schema leads to."""

import pytest
from registry_values import record

from autotune.errors import RegistryError
from autotune.registry import open_existing, open_registry

PUBLIC = "?options=-csearch_path%3Dpublic"


def test_a_registry_in_the_default_schema_is_not_passed_over_in_silence(postgresql, tmp_path):
    url = postgresql.new_database()
    with open_registry(tmp_path, url + PUBLIC) as registry:
        registry.save_record(record("kept"))
    for opening in (open_registry, open_existing):
        with pytest.raises(RegistryError, match=r"schema public .*csearch_path%3Dpublic to AUTOTUNE_STORAGE"):
            opening(tmp_path, url, wait_s=5)
    with open_registry(tmp_path, url + PUBLIC) as registry:
        assert registry.record("kept") is not None
    with open_registry(tmp_path, url + "?options=-csearch_path%3Dmine") as registry:
        assert registry.studies() == [], "a schema that is named is meant"
