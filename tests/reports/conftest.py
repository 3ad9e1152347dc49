"""Synthetic stores for the tests of this room."""

import shutil
from pathlib import Path

import pytest

from tests.reports.synthetic import SyntheticStore, make_database, write_registry


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow needs seconds to make a database; a copy takes none."""
    return make_database(tmp_path_factory.mktemp("empty"))


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A small registry with one group and two references."""
    return write_registry(tmp_path)


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> SyntheticStore:
    """A store without runs."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return SyntheticStore(tmp_path)
