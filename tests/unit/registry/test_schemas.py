"""One PostgreSQL database, a schema for each program."""

import pytest
from sqlalchemy import make_url

from autotune.compose import Places
from autotune.registry import check_separate, optuna_url, registry_address
from autotune.registry.engine import place_of, registry_url
from autotune.registry.postgresql import CONNECT, schema_of

SHARED = "postgresql://u:secret@db.host/team"


def test_registry_and_optuna_have_schemas_of_their_own_in_one_database(tmp_path):
    address = registry_url(tmp_path, SHARED)
    optuna = make_url(optuna_url(SHARED))
    assert (schema_of(address), schema_of(optuna)) == ("autotune", "optuna")
    assert (optuna.host, optuna.database, optuna.password) == ("db.host", "team", "secret")
    check_separate(registry_address(tmp_path, SHARED), optuna_url(SHARED), SHARED)


def test_a_search_path_of_the_users_own_is_kept_for_the_registry_and_other_options_for_both(tmp_path):
    url = f"{SHARED}?options=-csearch_path%3Dmine%20-cstatement_timeout%3D9000&sslmode=require"
    address, optuna = registry_url(tmp_path, url), make_url(optuna_url(url))
    assert (schema_of(address), schema_of(optuna)) == ("mine", "optuna")
    for one in (address, optuna):
        assert "-cstatement_timeout=9000" in one.query["options"]
        assert one.query["sslmode"] == "require"


def test_optuna_gives_a_silent_server_up_as_well():
    assert CONNECT.items() <= dict(make_url(optuna_url(SHARED)).query).items()


@pytest.mark.parametrize("url", ["sqlite:////data/far.db"])
def test_optuna_stays_in_the_home_folder_where_the_registry_is_a_file(tmp_path, url):
    assert optuna_url(url) is None
    at = Places(home=tmp_path, registry_url=url, tracking_uri="", lock=tmp_path / "lock")
    assert at.optuna_url == f"sqlite:///{tmp_path}/optuna.db"
    assert Places(home=tmp_path, registry_url=SHARED, tracking_uri="", lock=tmp_path).optuna_url == optuna_url(SHARED)


def test_messages_name_the_schema_and_not_the_password(tmp_path):
    shown = place_of(registry_url(tmp_path, SHARED))
    assert shown == "postgresql://u:***@db.host/team (schema autotune)"
