"""Real processes: killed without warning, eight at once, on other machines."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flowmbpo.errors import UserError
from flowmbpo.runs.lock import SILENCE_SECONDS, RunLock, is_dead, is_locked, process_tags
from flowmbpo.tracking.reader import open_reader
from flowmbpo.tracking.recovery import mark_dead_runs, sync_runs
from flowmbpo.tracking.store import resolve_store
from tests.tracking.mlflow_server import delivered, history, wait_for

SCRIPT = Path(__file__).with_name("train_for_a_while.py")


def start(folder, seed, points, pause, rest=0.0):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, str(SCRIPT), str(folder), str(seed), str(points), str(pause), str(rest)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def killed_run(tmp_path) -> str:
    """A process that has logged 40 points and is killed before it could end its run."""
    process = start(tmp_path, 0, 40, 0.01, rest=600.0)  # the signal may come late
    try:
        run_id = process.stdout.readline().strip()
        assert process.stdout.readline() == "logged\n", process.stderr.read()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return run_id


def test_a_killed_run_is_completed_and_marked_by_whoever_reads_next(store, client, tmp_path):
    run_id = killed_run(tmp_path)
    runs = open_reader(store).runs()
    assert [(run.run_id, run.status) for run in runs] == [(run_id, "RUNNING")]
    assert mark_dead_runs(store, runs) == [run_id]
    (run,) = open_reader(store).runs()
    assert run.status == "KILLED"
    assert run.start_time <= run.end_time <= time.time()
    assert history(client, run_id, "train/epoch") == [(2048 * n, float(n)) for n in range(1, 41)]
    assert mark_dead_runs(store, open_reader(store).runs()) == []


def test_a_killed_run_whose_folder_is_gone_is_marked_too(store, tmp_path):
    run_id = killed_run(tmp_path)
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    assert mark_dead_runs(store, open_reader(store).runs()) == [run_id]
    assert open_reader(store).runs()[0].status == "KILLED"


def test_sync_closes_a_killed_run_that_the_store_never_saw(store, empty_database, tmp_path):
    """The process died while the store was away; later its folder is delivered to another store."""
    run_id = killed_run(tmp_path)
    other = resolve_store(None, tmp_path / "other")
    other.sqlite.parent.mkdir()
    shutil.copy(empty_database, other.sqlite)
    (synced,) = sync_runs(tmp_path / "runs", other)
    assert (synced.run_id, synced.status, synced.problem) == (run_id, "KILLED", "")
    (run,) = open_reader(other).runs()
    assert (run.run_id, run.name, run.seed, run.status, run.epoch) == (run_id, "short", 0, "KILLED", 40)


@pytest.mark.slow
def test_eight_processes_share_a_store_that_does_not_exist_yet(tmp_path):
    processes = [start(tmp_path, seed, 60, 0.02) for seed in range(8)]
    outputs = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, outputs
    reader = open_reader(resolve_store(None, tmp_path))
    runs = reader.runs()
    assert sorted(run.seed for run in runs) == list(range(8))
    assert {run.status for run in runs} == {"FINISHED"}
    assert {run.mlflow_run_id for run in runs} == {run.run_id for run in runs}
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=resolve_store(None, tmp_path).uri)
    for run in runs:
        assert history(client, run.run_id, "train/epoch") == [(2048 * n, float(n)) for n in range(1, 61)]
        expected = [(2048 * n, run.seed + n / 10) for n in range(1, 61)]
        assert history(client, run.run_id, "train/episode_reward") == expected
    assert sync_runs(tmp_path / "runs", None) == []


def test_the_lock_belongs_to_one_process_and_ends_with_it(tmp_path):
    lock = RunLock(tmp_path / "run")
    assert is_locked(tmp_path / "run") is None
    lock.acquire()
    assert is_locked(tmp_path / "run") is True
    with pytest.raises(UserError, match=f"process {os.getpid()}"):
        RunLock(tmp_path / "run").acquire()
    lock.release()
    assert is_locked(tmp_path / "run") is False


def test_who_counts_as_dead(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    now = time.time()
    here = process_tags(tmp_path / "no-such-folder")
    assert not is_dead(here)
    gone = {**here, "flowmbpo.pid": "999999999"}
    assert is_dead(gone)
    container = {**gone, "flowmbpo.pid_space": "another container with the same host name"}
    assert not is_dead(container, now=now)  # its process ids mean nothing here
    assert is_dead(container, now=now + SILENCE_SECONDS + 10)
    elsewhere = {**here, "flowmbpo.host": "another-machine", "flowmbpo.heartbeat": str(now)}
    assert not is_dead(elsewhere, now=now)
    assert not is_dead(elsewhere, now=now + SILENCE_SECONDS - 1)
    assert is_dead(elsewhere, now=now + SILENCE_SECONDS + 1)
    assert not is_dead({"flowmbpo.name": "written by another tool"})
    assert not is_dead({"flowmbpo.host": "another-machine"})


def test_a_run_that_was_marked_too_early_is_running_again(store, client, about, tmp_path, monkeypatch):
    """A reader elsewhere gave a silent run up; once the run reaches the store again it takes that back."""
    from flowmbpo.tracking import delivery
    from flowmbpo.tracking.mlflow_client import Unreachable
    from flowmbpo.tracking.mlflow_writer import MlflowWriter
    from flowmbpo.tracking.run_tracker import start_run

    monkeypatch.setattr(delivery, "DELIVERY_SECONDS", 0.05)
    monkeypatch.setattr(delivery, "_BACKOFF", (0.05,))
    with start_run(store, about, tmp_path / "runs") as tracker:
        tracker.log({"train/epoch": 1.0}, step=1)
        wait_for(lambda: delivered(tracker))
        write = MlflowWriter.write
        failed = []

        def away(*_):
            failed.append(1)
            raise Unreachable("the store is away")

        monkeypatch.setattr(MlflowWriter, "write", away)
        tracker.log({"train/epoch": 2.0}, step=2)
        wait_for(lambda: failed)
        client.set_terminated(tracker.run_id, "KILLED")
        monkeypatch.setattr(MlflowWriter, "write", write)
        wait_for(lambda: client.get_run(tracker.run_id).info.status == "RUNNING")
    assert client.get_run(tracker.run_id).info.status == "FINISHED"
