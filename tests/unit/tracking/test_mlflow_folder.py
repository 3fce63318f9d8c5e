import configparser
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "mlflow"


def compose():
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())


def test_folder_mlflow_holds_no_python_that_would_hide_the_real_package():
    assert (FOLDER / "README.md").is_file()
    assert [path for path in FOLDER.rglob("*") if path.suffix in {".py", ".pyc", ".pyi", ".so"}] == []


def test_real_package_is_imported_from_the_root_of_the_repository():
    import mlflow

    assert Path(mlflow.__file__).parents[1] != ROOT
    assert mlflow.__version__


def test_project_starts_a_study_with_the_file_and_budget_that_it_is_given(tmp_path, monkeypatch):
    from mlflow.projects._project_spec import load_project

    monkeypatch.chdir(ROOT)
    project = load_project(str(FOLDER))
    command = project.get_entry_point("main").compute_command(
        {"study": "studies/forest_gaps.yaml", "budget": "30s; rm -rf ~"}, str(tmp_path)
    )
    assert shlex.split(command) == [
        "autotune", "tune", str(ROOT / "studies/forest_gaps.yaml"), "--budget", "30s; rm -rf ~",
    ]  # fmt: skip


@pytest.mark.parametrize("entry", ["main", "nightly"])
def test_every_entry_point_runs_a_command_that_exists(entry, tmp_path, monkeypatch):
    from mlflow.projects._project_spec import load_project
    from typer.main import get_command

    from autotune.cli import app

    monkeypatch.chdir(ROOT)
    start = load_project(str(FOLDER)).get_entry_point(entry)
    given = dict.fromkeys((name for name, parameter in start.parameters.items() if parameter.type == "path"), "studies")
    program, command, *_, option, _ = shlex.split(start.compute_command(given, str(tmp_path)))
    assert program == "autotune"
    known = get_command(app).commands[command]
    assert option in {spelling for parameter in known.params for spelling in parameter.opts}


def test_service_is_started_with_options_that_it_has():
    from typer.main import get_command

    from autotune.cli import app

    program, command, *options = compose()["services"]["autotune"]["command"]
    assert program == "autotune"
    known = {spelling for parameter in get_command(app).commands[command].params for spelling in parameter.opts}
    assert {option.partition("=")[0] for option in options} <= known


def test_no_secret_has_a_default_and_each_is_named_in_the_example():
    example = dict(
        line.partition("=")[::2] for line in (FOLDER / ".env.example").read_text().splitlines() if "=" in line[1:]
    )
    text = (FOLDER / "compose.yaml").read_text()
    secrets = {"POSTGRES_PASSWORD", "MLFLOW_ADMIN_PASSWORD", "MLFLOW_SECRET_KEY"}
    for name in secrets:
        assert f"${{{name}:?" in text
        assert f"${{{name}:-" not in text
        assert example[name] == ""
    assert "mlflow/.env" in (ROOT / ".gitignore").read_text().split()


def test_ports_are_bound_to_this_machine_unless_asked_otherwise():
    ports = [port for service in compose()["services"].values() for port in service.get("ports", ())]
    assert len(ports) == 4
    assert all(port.startswith("${BIND:-127.0.0.1}:") for port in ports)


def test_server_asks_for_users_and_checks_its_hosts():
    server = compose()["services"]["mlflow"]
    assert server["command"][server["command"].index("--app-name") + 1] == "basic-auth"
    assert "*" not in server["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"]
    settings = configparser.ConfigParser()
    settings.read(FOLDER / "basic_auth.ini")
    assert "admin_password" not in settings["mlflow"]


def test_mlflow_its_users_and_autotune_have_databases_of_their_own():
    created = (FOLDER / "databases.sql").read_text()
    services = compose()["services"]
    settings = configparser.ConfigParser()
    settings.read(FOLDER / "basic_auth.ini")
    named = [
        services["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"].rpartition("/")[2],
        settings["mlflow"]["database_uri"].rpartition("/")[2],
        services["autotune"]["environment"]["AUTOTUNE_STORAGE"].rpartition("/")[2],
    ]
    assert len(set(named)) == 3
    assert [f"CREATE DATABASE {name};" in created for name in named] == [True, True, False]
    assert services["postgresql"]["environment"]["POSTGRES_DB"] == named[2]
