"""Stores for tests: a fresh sqlite file each (copied, because MLflow's migrations take seconds) and a real server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flowmbpo.data_types import Document
from flowmbpo.tracking.run_tracker import RunDescription
from flowmbpo.tracking.store import Store, resolve_store
from tests.tracking.mlflow_server import Server

if TYPE_CHECKING:
    from mlflow import MlflowClient

SPEC: Document = {
    "name": "quickstart",
    "train": {"horizon": 16, "num_envs": 128, "max_epochs": 100, "adam_betas": [0.7, 0.95]},
    "world_model": {"kind": "flow", "multitask": False, "note": "x" * 7000},
}


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> Store:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return resolve_store(None, tmp_path)


@pytest.fixture
def about() -> RunDescription:
    return RunDescription("quickstart", 3, SPEC, "abc123", "cpu")


@pytest.fixture
def client(store: Store) -> MlflowClient:
    """A plain MLflow client of `store`."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store.uri)


@pytest.fixture
def server(tmp_path: Path, empty_database: Path) -> Iterator[Server]:
    """Not started yet."""
    database = tmp_path / "server.db"
    shutil.copy(empty_database, database)
    server = Server(tmp_path, database)
    yield server
    server.kill()
