"""What version 0.1.0 wrote is still read: two runs of `pointmass` over six epochs, with store, journals, checkpoints.

Left out of the fixture for its size: resumable states, replays, and the store's own copies of the checkpoints.
"""

import sqlite3
import tarfile
from pathlib import Path

import pytest

from flowmbpo.runs import checkpoint
from flowmbpo.runs.layout import RunFiles

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "store-0.1.0.tar.xz"
MADE_IN = "/home/ada/work"
EVALUATED = {0: 38.735366821289062, 1: 40.395973205566406}  # R by seed, as 0.1.0 measured it


@pytest.fixture
def old(tmp_path, monkeypatch):
    """The working directory of then; the store's absolute paths lead to where it is now."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    with sqlite3.connect(tmp_path / "mlflow.db") as db:
        columns = {"tags": "value", "logged_model_tags": "tag_value", "runs": "artifact_uri"}
        for table, column in columns.items():
            db.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (MADE_IN, str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    return tmp_path


def test_its_runs_are_listed_and_compared(old, flowmbpo):
    listed = flowmbpo("runs", "--json").json()
    assert {(run["name"], run["seed"], run["status"], run["epoch"]) for run in listed} == {
        ("pointmass", 0, "FINISHED", 6),
        ("pointmass", 1, "FINISHED", 6),
    }
    (row,) = flowmbpo("compare", "pointmass", "--json").json()["rows"]
    assert (row["seed_list"], row["env_steps"]) == ([0, 1], 3072)
    assert row["eval_reward"] == sum(EVALUATED.values()) / 2


def test_its_policies_are_evaluated_and_rendered(old, flowmbpo):
    rows = flowmbpo("eval", "--rerun-all", "--episodes", 32, "--json").json()
    assert [row["skipped"] for row in rows] == [True, True]  # the evaluation of today is that of then
    rows = flowmbpo("eval", "pointmass", "--episodes", 32, "--json").json()
    assert {row["seed"]: row["mean_reward"] for row in rows} == pytest.approx(EVALUATED, rel=1e-4)
    done = flowmbpo("render", rows[0]["run_id"], "--out", "replay.html")
    assert done.code == 0, done.text
    assert (old / "replay.html").stat().st_size > 100_000


def test_its_folders_are_read(old, flowmbpo):
    folders = [RunFiles(folder) for folder in (old / "runs").iterdir()]
    assert [checkpoint.select(checkpoint.evaluated(files), "best")[0].epoch for files in folders] == [6, 6]
    assert all(checkpoint.verify(files.checkpoint(6), "checkpoint").env_steps == 3072 for files in folders)
    assert flowmbpo("sync").err == "Everything is in MLflow already.\n"
