"""Fixtures shared by all rooms."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of recorded reference data beside the repository; users of the repository alone do not have it."""
    shared = REPOSITORY.parent / "shared"
    if not (shared / "golden").is_dir():
        pytest.skip("reference recordings (../shared/golden) are not part of the repository")
    return shared


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """A sqlite file with MLflow's schema and no run: its migrations take seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path
