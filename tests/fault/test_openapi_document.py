"""The OpenAPI document says what the service does: schemathesis sends what it allows, and what it does not (row 29)."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from registry_values import Numbers, decision, decision_here
from service_process import add_token, running_service

from autotune.registry import open_registry
from autotune.resolve.question import Question
from autotune.service.app import create_app
from autotune.service.settings import Settings
from autotune.spec import LoaderConfig

pytestmark = pytest.mark.fault(29)

UNLIMITED = ("--rate", "1000000/second", "--changes", "1000000/second")
ALL = ("read", "tune", "review")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "one.yaml").write_text("name: one\ndataset: pack:make\nbudget: 2m\n")
    token = add_token(home, name="all", scopes=ALL)
    with open_registry(home) as registry:
        registry.save_decision(decision_here(Numbers(), LoaderConfig(num_workers=1)))
        registry.save_decision(decision(study="s2"))
        registry.save_decision(decision(study="s2", minute=1, config=LoaderConfig(num_workers=4)), promotion="review")
    with running_service(
        home, None, "--studies", str(home), "--rate", "1000000/second", "--changes", "1000000/second"
    ) as service:
        yield SimpleNamespace(service=service, token=token)


def _document(folder):
    with open_registry(folder) as registry:
        return create_app(registry, Settings()).openapi()


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    return _document(tmp_path_factory.mktemp("empty"))


def _operations(document):
    return [(path, method, told) for path, ways in document["paths"].items() for method, told in ways.items()]


def test_every_operation_is_described_with_its_refusals_and_its_token(document):
    for path, _, told in _operations(document):
        assert told["description"], path
        assert {"401", "403", "413", "422", "429", "503"} <= set(told["responses"]), path
        assert ("security" in told) == (path != "/healthz"), path
    names = [told["operationId"] for _, _, told in _operations(document)]
    assert len(names) == len(set(names))


def test_what_is_inside_a_question_is_described(document):
    (parameter,) = [one for one in document["paths"]["/v1/best"]["get"]["parameters"] if one["name"] == "question"]
    schema = parameter["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == {"schema_version", *Question.model_fields}
    assert set(schema["properties"]["pins"]["properties"]) == set(LoaderConfig.model_fields)


def test_every_reference_of_the_document_leads_somewhere(document):
    text = json.dumps(document)
    known = document["components"]["schemas"]
    for piece in text.split("#/components/schemas/")[1:]:
        assert piece.partition('"')[0] in known


CONFIGURATION = """
# JSON Schema cannot say which pins exclude each other: there 422 is an answer to a question that it allows
[[operations]]
include-operation-id = "best"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "422"]
"""


@pytest.mark.slow
def test_schemathesis_finds_nothing(site, tmp_path):
    file = tmp_path / "schemathesis.toml"
    file.write_text(CONFIGURATION)
    done = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(file), "run",
            f"{site.service.address}/openapi.json", "--header", f"Authorization: Bearer {site.token}",
            "--max-examples", "20", "--suppress-health-check", "all",
        ],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert site.service.process.poll() is None
