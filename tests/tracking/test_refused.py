"""What MLflow refuses is kept, counted, reported and delivered when it can be; a deleted experiment stays deleted."""

from __future__ import annotations

import pytest

from flowmbpo.errors import UserError
from flowmbpo.runs.layout import RunFiles
from flowmbpo.tracking import delivery, recovery
from flowmbpo.tracking.mlflow_reader import MlflowReader
from flowmbpo.tracking.mlflow_writer import MlflowWriter
from flowmbpo.tracking.run_tracker import resume_run, start_run
from flowmbpo.tracking.sqlite_reader import SqliteReader
from flowmbpo.tracking.store import EXPERIMENT
from tests.tracking.mlflow_server import history, wait_for


def test_a_run_that_was_deleted_and_restored_has_everything(store, about, client, tmp_path, monkeypatch):
    monkeypatch.setattr(delivery, "DELIVERY_SECONDS", 0.02)
    runs = tmp_path / "runs"
    with start_run(store, about, runs) as tracker:
        tracker.log({"train/epoch": 1.0}, step=1)
    run_id = tracker.run_id
    client.delete_run(run_id)
    with resume_run(store, run_id, runs) as tracker:
        for step in range(2, 9):
            tracker.log({"train/epoch": float(step)}, step=step)
        (tmp_path / "note.txt").write_text("kept")
        tracker.artifact(tmp_path / "note.txt")
    assert tracker.delivery.undelivered
    assert tracker.delivery.refused >= 4  # RUNNING, tags, points, the file, FINISHED

    (still,) = recovery.sync_runs(runs, None)
    assert f"{tracker.delivery.refused} entries are refused and kept" in still.problem
    client.restore_run(run_id)
    assert recovery.undelivered_runs(runs, None)
    (done,) = recovery.sync_runs(runs, None)
    assert (done.problem, done.status) == ("", "FINISHED")
    assert done.entries >= 4
    assert history(client, run_id, "train/epoch") == [(step, float(step)) for step in range(1, 9)]
    assert "note.txt" in {file.path for file in client.list_artifacts(run_id)}
    assert client.get_run(run_id).info.status == "FINISHED"
    assert not RunFiles(runs / run_id).refused.exists()
    assert recovery.sync_runs(runs, None) == []


def test_only_the_newest_status_is_offered_again(store, about, client, tmp_path):
    runs = tmp_path / "runs"
    with start_run(store, about, runs) as tracker:
        pass
    run_id = tracker.run_id
    client.delete_run(run_id)
    with pytest.raises(RuntimeError), resume_run(store, run_id, runs):
        raise RuntimeError("ends as FAILED, which MLflow refuses")
    client.restore_run(run_id)
    with resume_run(store, run_id, runs) as tracker:
        pass
    assert not tracker.delivery.undelivered
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_deleted_experiment_is_told_and_stays_deleted(store, about, client, tmp_path):
    with start_run(store, about, tmp_path / "runs"):
        pass
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    client.delete_experiment(experiment)
    with pytest.raises(UserError, match=f"deleted in MLflow.*--tracking-uri.*restore -x {experiment}"):
        start_run(store, about, tmp_path / "runs")
    for reader in (SqliteReader, MlflowReader):  # "no runs yet" would not be true
        with pytest.raises(UserError, match=f"deleted in MLflow.*--tracking-uri.*restore -x {experiment}"):
            reader(store).runs()
    assert client.get_experiment_by_name(EXPERIMENT).lifecycle_stage == "deleted"


def test_a_run_that_ends_when_its_server_answers_again_keeps_its_final_status(
    store, about, client, tmp_path, monkeypatch
):
    """The server is held back until the run has ended, in the middle of a turn that began before that."""
    monkeypatch.setattr(delivery, "DELIVERY_SECONDS", 0.02)
    monkeypatch.setattr(delivery, "HEARTBEAT_SECONDS", 0.0)  # every turn gives a sign of life
    write = MlflowWriter.write
    tracker = start_run(store, about, tmp_path / "runs")
    end, held = [], []

    def slow(self, run, entries, folder):
        if end and not held:
            held.append(1)
            journal = RunFiles(tmp_path / "runs" / tracker.run_id).journal
            wait_for(lambda: '"FINISHED"' in journal.read_text())
        write(self, run, entries, folder)

    monkeypatch.setattr(MlflowWriter, "write", slow)
    end.append(1)
    tracker.log({"train/epoch": 1.0}, step=1)
    wait_for(lambda: held)
    tracker.finish("FINISHED")
    assert client.get_run(tracker.run_id).info.status == "FINISHED"


def test_a_run_that_was_called_dead_takes_its_status_back(store, about, client, tmp_path, monkeypatch):
    monkeypatch.setattr(delivery, "DELIVERY_SECONDS", 0.02)
    monkeypatch.setattr(delivery, "HEARTBEAT_SECONDS", 0.02)
    with start_run(store, about, tmp_path / "runs") as tracker:
        tracker.log({"train/epoch": 1.0}, step=1)
        client.set_terminated(tracker.run_id, "KILLED")
        wait_for(lambda: client.get_run(tracker.run_id).info.status == "RUNNING")
    assert client.get_run(tracker.run_id).info.status == "FINISHED"
