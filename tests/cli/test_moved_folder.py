"""Working folders that are moved or copied, and folders of any name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest

from flowmbpo.runs.journal import Journal, Status
from flowmbpo.runs.layout import RunFiles
from flowmbpo.tracking.places import current_location
from flowmbpo.tracking.store import resolve_store
from tests.cli.point import REGISTRY
from tests.command import run_process


@pytest.fixture
def trained(flowmbpo, tmp_path, monkeypatch, empty_database) -> Path:
    """`a`, in which a run was trained."""
    folder = tmp_path / "a"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    (folder / "experiments.toml").write_text(REGISTRY)
    monkeypatch.chdir(folder)
    done = flowmbpo("run", "point", "--device", "cpu", "--epochs", "2")
    assert done.code == 0, done.err
    return folder


def run_of(folder: Path) -> RunFiles:
    (root,) = (folder / "runs").iterdir()
    return RunFiles(root)


def test_a_moved_folder_works_as_before_and_the_old_place_stays_empty(trained, flowmbpo, monkeypatch):
    there = trained.with_name("b")
    trained.rename(there)
    monkeypatch.chdir(there)
    done = flowmbpo("eval", "point", "--device", "cpu", "--episodes", "2", "--json")
    assert (done.code, [row["error"] for row in done.json()]) == (0, [None]), done.err
    assert flowmbpo("run", "point", "--device", "cpu", "--epochs", "2", "--seed", "1").code == 0
    run_id = next(row["run_id"] for row in flowmbpo("runs", "--json").json() if row["seed"] == 0)
    shutil.rmtree(there / "runs" / run_id)  # then MLflow's own copy is found beside the store, too
    done = flowmbpo("eval", run_id, "--device", "cpu", "--episodes", "2", "--json")
    assert (done.code, [row["error"] for row in done.json()]) == (0, [None]), done.err
    assert not trained.exists()


@pytest.mark.parametrize("copy", [False, True])
def test_sync_delivers_beside_the_run(trained, flowmbpo, monkeypatch, copy):
    """Killed before the end, then moved or copied: nothing is written where it was."""
    files = run_of(trained)
    journal = Journal(files.journal)
    journal.append(Status("RUNNING", 1))
    journal.close()
    there = trained.with_name("b")
    (shutil.copytree if copy else os.rename)(trained, there)
    before = (trained / "mlflow.db").read_bytes() if copy else None
    monkeypatch.chdir(there)
    done = flowmbpo("sync", "--json")
    assert (done.code, [(row["status"], row["problem"]) for row in done.json()]) == (0, [("KILLED", "")]), done.err
    assert [row["status"] for row in flowmbpo("runs", "--json").json()] == ["KILLED"]
    assert ((trained / "mlflow.db").read_bytes() if trained.exists() else None) == before


def test_a_copied_folder_uses_its_own_files(trained, flowmbpo, monkeypatch):
    there = trained.with_name("b")
    shutil.copytree(trained, there)
    monkeypatch.chdir(there)
    before = sorted(trained.rglob("*"))
    assert flowmbpo("run", "point", "--device", "cpu", "--epochs", "2", "--seed", "1").code == 0
    assert sorted(trained.rglob("*")) == before


def test_what_counts_as_a_stale_place_for_artifacts(tmp_path):
    store = resolve_store(None, tmp_path / "here")
    (tmp_path / "here").mkdir()
    usable = tmp_path / "there" / "mlartifacts"
    usable.mkdir(parents=True)
    own = f"file://{usable}"
    assert current_location(store, own) == own  # nothing beside the store: chosen by the user
    gone = "file:///home/another%20user/mlartifacts"
    assert current_location(store, gone) == store.artifacts
    assert current_location(store, f"{gone}/1/artifacts") == f"{store.artifacts}/1/artifacts"
    (tmp_path / "here" / "mlartifacts").mkdir()
    assert current_location(store, f"{own}/models/m-1/artifacts") == f"{store.artifacts}/models/m-1/artifacts"
    for other in ("s3://bucket/mlartifacts/1", "mlflow-artifacts:/1", "file:///somewhere/else", f"{own}-of-mine/1"):
        assert current_location(store, other) == other


NAMES = ["what? is", "50%20 off", "a#b", "a%3Fb", "ü 'n\" ;&=:@"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_folder_works(name, flowmbpo, tmp_path, monkeypatch, empty_database):
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    (folder / "experiments.toml").write_text(REGISTRY)
    monkeypatch.chdir(folder)
    done = flowmbpo("run", "point", "--device", "cpu", "--epochs", "2", "--json")
    assert done.code == 0, done.err
    (run,) = flowmbpo("runs", "--json").json()
    assert run["status"] == "FINISHED"
    shutil.rmtree(folder / "runs" / run["run_id"] / "checkpoints")
    done = flowmbpo("eval", "point", "--device", "cpu", "--episodes", "2", "--json")
    assert (done.code, [row["error"] for row in done.json()]) == (0, [None]), done.err
    uri = f"sqlite:///{quote(str(folder / 'mlflow.db'))}"
    assert [row["run_id"] for row in flowmbpo("runs", "--json", "--tracking-uri", uri).json()] == [run["run_id"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_a_name_that_is_not_utf_8_is_refused_before_anything_is_written(tmp_path):
    folder = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(folder)
    assert "not UTF-8" in run_process("runs", folder=folder, code=2).err
    assert os.listdir(folder) == []
