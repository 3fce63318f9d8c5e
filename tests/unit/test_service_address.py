import pytest

from autotune.compose import places
from autotune.errors import SpecError
from autotune.service_address import decision_page, service_address


def test_address_of_the_service_comes_from_the_environment_without_its_last_slash():
    assert service_address({"AUTOTUNE_URL": " https://tuning.example.org/team/ "}) == "https://tuning.example.org/team"
    assert service_address({}) is None
    assert service_address({"AUTOTUNE_URL": ""}) is None


@pytest.mark.parametrize("wrong", ["tuning.example.org", "javascript:alert(1)", "https://", "file:///etc/passwd"])
def test_anything_but_the_address_of_a_web_server_is_refused(wrong):
    with pytest.raises(SpecError, match="AUTOTUNE_URL is an address such as"):
        service_address({"AUTOTUNE_URL": wrong})


def test_a_key_cannot_lead_out_of_the_pages_of_decisions():
    assert decision_page("https://a", "../x?y#z") == "https://a/decisions/..%2Fx%3Fy%23z"


def test_places_know_the_service(tmp_path):
    assert places(tmp_path, environ={"AUTOTUNE_URL": "http://localhost:8642"}).service_url == "http://localhost:8642"
    assert places(tmp_path, environ={}).service_url is None
