"""A tracking server that is away, goes away, comes back or hangs: no record is lost, repeated or out of order."""

import socket
import threading

import pytest

from flowmbpo.errors import WorkFailed
from flowmbpo.runs.journal import Create, Metrics, read_entries
from flowmbpo.tracking import delivery
from flowmbpo.tracking.mlflow_writer import MlflowWriter
from flowmbpo.tracking.reader import open_reader
from flowmbpo.tracking.recovery import sync_runs, undelivered_runs
from flowmbpo.tracking.run_tracker import start_run
from flowmbpo.tracking.store import resolve_store
from tests.tracking.mlflow_server import delivered, history, wait_for

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """The same waits, shorter."""
    monkeypatch.setattr(delivery, "START_SECONDS", 60.0)
    monkeypatch.setattr(delivery, "FINISH_SECONDS", 60.0)
    monkeypatch.setattr(delivery, "DELIVERY_SECONDS", 0.1)
    monkeypatch.setattr(delivery, "_BACKOFF", (0.3,))


def log(tracker, epochs):
    for epoch in epochs:
        tracker.log({"train/epoch": float(epoch), "train/episode_reward": epoch / 7}, step=epoch * 10)


def check(run, client, last):
    assert history(client, run, "train/epoch") == [(10 * n, float(n)) for n in range(1, last + 1)]
    assert history(client, run, "train/episode_reward") == [(10 * n, n / 7) for n in range(1, last + 1)]


def plain_client(server):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=server.uri)


def test_a_server_that_is_killed_and_restarted_under_a_run(server, about, tmp_path, caplog):
    server.start()
    store = resolve_store(server.uri)
    with start_run(store, about, tmp_path / "runs") as tracker:
        log(tracker, range(1, 21))
        wait_for(lambda: delivered(tracker))
        server.kill()
        log(tracker, range(21, 61))
        wait_for(lambda: "Entries are kept" in caplog.text)
        checkpoint = tracker.files.root / "checkpoints" / "epoch-000050"
        checkpoint.mkdir(parents=True)
        (checkpoint / "state.json").write_text("{}")
        tracker.checkpoint(checkpoint, epoch=50, step=500, metrics={"eval/mean_reward": 7.0})
        server.start()
        wait_for(lambda: "answers again" in caplog.text)
        log(tracker, range(61, 81))
    client = plain_client(server)
    check(tracker.run_id, client, 80)
    assert client.get_run(tracker.run_id).info.status == "FINISHED"
    (model,) = open_reader(store).checkpoints(open_reader(store).runs())
    assert (model.epoch, model.mean_reward) == (50, 7.0)
    assert not tracker.delivery.undelivered


def test_a_server_that_is_away_from_start_to_end(server, about, tmp_path, caplog):
    store = resolve_store(server.uri)
    with start_run(store, about, tmp_path / "runs") as tracker:
        log(tracker, range(1, 31))
    assert "starts all the same" in caplog.text
    assert tracker.delivery.undelivered
    (failed,) = sync_runs(tmp_path / "runs", None)
    assert "cannot be reached" in failed.problem
    server.start()
    (synced,) = sync_runs(tmp_path / "runs", None)
    assert (synced.run_id, synced.status, synced.problem) == (tracker.run_id, "FINISHED", "")
    assert sync_runs(tmp_path / "runs", None) == []
    client = plain_client(server)
    (run,) = open_reader(store).runs()
    assert run.run_id == tracker.run_id  # our id, which folders and commands use
    assert run.status == "FINISHED"
    assert run.params["train.horizon"] == "16"
    check(run.mlflow_run_id, client, 30)
    assert {"spec.json", "provenance.json"} <= {file.path for file in client.list_artifacts(run.mlflow_run_id)}


def test_a_server_that_comes_during_the_run(server, about, tmp_path):
    store = resolve_store(server.uri)
    with start_run(store, about, tmp_path / "runs") as tracker:
        log(tracker, range(1, 11))
        server.start()
        wait_for(lambda: delivered(tracker))
        log(tracker, range(11, 21))
    (run,) = open_reader(store).runs()
    assert run.run_id == tracker.run_id != run.mlflow_run_id
    check(run.mlflow_run_id, plain_client(server), 20)


def test_repeating_everything_changes_nothing(server, about, tmp_path):
    """The cursor is lost (power failure): all entries are delivered a second time."""
    server.start()
    store = resolve_store(server.uri)
    with start_run(store, about, tmp_path / "runs") as tracker:
        log(tracker, range(1, 31))
    before = open_reader(store).runs()
    tracker.files.delivered.unlink()
    assert undelivered_runs(tmp_path / "runs", None) == [tracker.files]
    (synced,) = sync_runs(tmp_path / "runs", None)
    assert synced.problem == ""
    after = open_reader(store).runs()
    assert [(run.run_id, run.status, run.params, run.metrics) for run in after] == [
        (run.run_id, run.status, run.params, run.metrics) for run in before
    ]
    check(tracker.run_id, plain_client(server), 30)


def test_a_create_whose_answer_was_lost_is_not_repeated(store):
    writer = MlflowWriter(store)
    create = Create("0" * 32, "a/seed-0", 1, {}, store.uri)
    first = writer.find_or_create(create, look=False)
    assert MlflowWriter(store).find_or_create(create, look=True) == first


def test_training_goes_on_while_a_server_hangs(about, tmp_path, monkeypatch):
    """The server takes connections and never answers; only the start and the end wait, and not for long."""
    monkeypatch.setattr(delivery, "START_SECONDS", 0.5)
    monkeypatch.setattr(delivery, "FINISH_SECONDS", 0.5)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        store = resolve_store(f"http://127.0.0.1:{hanging.getsockname()[1]}")
        with start_run(store, about, tmp_path / "runs") as tracker:
            log(tracker, range(1, 2001))
    points = [entry for entry, _ in read_entries(tracker.files.journal) if isinstance(entry, Metrics)]
    steps = [point.step for point in points if "train/epoch" in point.metrics]
    assert steps == [10 * n for n in range(1, 2001)]
    assert tracker.delivery.undelivered


def test_a_refused_record_does_not_hold_up_the_others(store, about, client, tmp_path):
    with start_run(store, about, tmp_path / "runs") as tracker:
        log(tracker, range(1, 6))
        tracker._append(Metrics(1, 1, {"not/allowed/" + "x" * 300: 1.0}))
        log(tracker, range(6, 11))
    check(tracker.run_id, client, 10)
    assert "not/allowed" in tracker.files.refused.read_text()
    assert client.get_run(tracker.run_id).info.status == "FINISHED"


def test_a_reader_gives_up_on_an_absent_server_after_one_attempt(monkeypatch):
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    attempts = []
    with socket.create_server(("127.0.0.1", 0)) as closing:

        def hang_up():
            while True:
                try:
                    connection, _ = closing.accept()
                except OSError:
                    return
                attempts.append(1)
                connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(WorkFailed, match="cannot be reached"):
            open_reader(f"http://127.0.0.1:{closing.getsockname()[1]}").runs()
    assert len(attempts) == 1
