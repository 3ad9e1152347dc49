"""Fixtures shared by all rooms."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command import Outcome

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a real Slurm first: they mostly wait, and other files can use the processors meanwhile."""
    items.sort(key=lambda item: item.get_closest_marker("slurm") is None)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of recorded reference data beside the repository; users of the repository alone do not have it."""
    shared = REPOSITORY.parent / "shared"
    if not (shared / "golden").is_dir():
        pytest.skip("reference recordings (../shared/golden) are not part of the repository")
    return shared


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sqlite file with MLflow's schema and no run: its migrations take seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def flowmbpo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `flowmbpo ARGUMENTS...` in this process, through the real entry point."""
    from flowmbpo.cli import app

    monkeypatch.delenv("FLOWMBPO_REGISTRY", raising=False)

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["flowmbpo", *map(str, arguments)])
        code = 0
        try:
            app.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
