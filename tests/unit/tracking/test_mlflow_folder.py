from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_folder_mlflow_holds_no_python_that_would_hide_the_real_package():
    folder = ROOT / "mlflow"
    assert (folder / "README.md").is_file()
    assert [path for path in folder.rglob("*") if path.suffix in {".py", ".pyc", ".pyi", ".so"}] == []


def test_real_package_is_imported_from_the_root_of_the_repository():
    import mlflow

    assert Path(mlflow.__file__).parents[1] != ROOT
    assert mlflow.__version__
