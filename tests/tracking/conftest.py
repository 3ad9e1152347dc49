"""Stores for tests: a fresh sqlite file each (copied, because MLflow's migrations take seconds) and a real server."""

import shutil

import pytest
from mlflow_server import Server

from flowmbpo.tracking.run_tracker import RunDescription
from flowmbpo.tracking.store import Store, resolve_store

SPEC = {
    "name": "quickstart",
    "train": {"horizon": 16, "num_envs": 128, "max_epochs": 100, "adam_betas": [0.7, 0.95]},
    "world_model": {"kind": "flow", "multitask": False, "note": "x" * 7000},
}


@pytest.fixture
def store(tmp_path, empty_database) -> Store:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return resolve_store(None, tmp_path)


@pytest.fixture
def about() -> RunDescription:
    return RunDescription("quickstart", 3, SPEC, "abc123", "cpu")


@pytest.fixture
def client(store):
    """A plain MLflow client of `store`."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store.uri)


@pytest.fixture
def server(tmp_path, empty_database):
    """Not started yet."""
    database = tmp_path / "server.db"
    shutil.copy(empty_database, database)
    server = Server(tmp_path, database)
    yield server
    server.kill()
