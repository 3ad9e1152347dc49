"""One run into one sqlite store: what stands in MLflow afterwards, read with a plain MLflow client."""

import json
import os
import time

import pytest

from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs.journal import Create, Metrics
from flowmbpo.tracking.mlflow_writer import MlflowWriter
from flowmbpo.tracking.run_tracker import flatten, resume_run, start_run
from tests.tracking.mlflow_server import history


def the_run(client):
    runs = client.search_runs([client.get_experiment_by_name("flowmbpo").experiment_id])
    assert len(runs) == 1
    return runs[0]


def deploy(tracker, epoch: int, metrics=None, **more):
    folder = tracker.files.root / "checkpoints" / f"epoch-{epoch:06d}"
    folder.mkdir(parents=True)
    (folder / "tensors.safetensors").write_bytes(b"weights")
    tracker.checkpoint(folder, epoch=epoch, step=epoch * 2048, metrics=metrics, **more)
    return folder


def test_a_finished_run_has_everything(store, about, client, tmp_path):
    picture = tmp_path / "curve.png"
    picture.write_bytes(b"png")
    with start_run(store, about, tmp_path / "runs") as tracker:
        for epoch in range(1, 6):
            tracker.log({"train/episode_reward": 10.5 * epoch, "train/epoch": epoch}, step=epoch * 2048)
        deploy(tracker, 5, {"eval/mean_reward": 1234.5})
        tracker.artifact(picture, "plots")
        picture.unlink()  # what was handed over is safe
        tracker.tags({"flowmbpo.collapsed_at_epoch": "4"})
    run = the_run(client)
    assert run.info.run_id == tracker.run_id == tracker.files.root.name
    assert run.info.run_name == "quickstart/seed-3"
    assert run.info.status == "FINISHED"
    assert history(client, tracker.run_id, "train/episode_reward") == [(2048 * n, 10.5 * n) for n in range(1, 6)]
    assert run.data.params["train.horizon"] == "16"
    assert run.data.params["train.adam_betas"] == "[0.7, 0.95]"
    assert run.data.params["world_model.multitask"] == "false"
    assert len(run.data.params["world_model.note"]) == 6000  # MLflow's limit; spec.json has all of it
    tags = run.data.tags
    assert {key: tags[f"flowmbpo.{key}"] for key in ("name", "seed", "spec_hash", "device", "run_id")} == {
        "name": "quickstart",
        "seed": "3",
        "spec_hash": "abc123",
        "device": "cpu",
        "run_id": tracker.run_id,
    }
    assert tags["flowmbpo.git_commit"]
    assert tags["flowmbpo.pid"] == str(os.getpid())
    assert tags["flowmbpo.collapsed_at_epoch"] == "4"
    artifacts = {file.path for file in client.list_artifacts(tracker.run_id)}
    assert {"spec.json", "provenance.json", "plots"} <= artifacts
    spec = json.loads((tmp_path / "mlartifacts" / tracker.run_id / "artifacts" / "spec.json").read_text())
    assert len(spec["world_model"]["note"]) == 7000
    assert not tracker.delivery.undelivered
    assert not list((tracker.files.root / "tracking" / "outbox").iterdir())


def test_checkpoints_are_logged_models_ranked_by_their_evaluation(store, about, client, tmp_path):
    with start_run(store, about, tmp_path / "runs") as tracker:
        for epoch, reward in ((1, 100.0), (2, 900.0), (3, 400.0)):
            evaluation = {"eval/mean_reward": reward, "eval/std_reward": 1.0}
            tracker.log(evaluation, step=epoch * 2048)
            deploy(tracker, epoch, evaluation, tags={"flowmbpo.evaluation": "{}"})
    experiment = client.get_experiment_by_name("flowmbpo").experiment_id
    models = client.search_logged_models(
        [experiment], order_by=[{"field_name": "metrics.eval/mean_reward", "ascending": False}]
    )
    assert [model.name for model in models] == ["epoch-000002", "epoch-000003", "epoch-000001"]
    best = models[0]
    assert best.params == {"epoch": "2", "env_steps": "4096"}
    assert best.source_run_id == tracker.run_id
    assert best.tags["flowmbpo.path"] == str(tracker.files.root / "checkpoints" / "epoch-000002")
    assert best.tags["flowmbpo.evaluation"] == "{}"
    assert {metric.key: metric.value for metric in best.metrics} == {"eval/mean_reward": 900.0, "eval/std_reward": 1.0}
    assert [file.path for file in client.list_logged_model_artifacts(best.model_id)] == ["tensors.safetensors"]
    assert [output.model_id for output in client.get_run(tracker.run_id).outputs.model_outputs].count(
        best.model_id
    ) == 1
    # Said twice (by the trainer and with the checkpoint), one point.
    assert history(client, tracker.run_id, "eval/mean_reward") == [(2048, 100.0), (4096, 900.0), (6144, 400.0)]


def test_a_checkpoint_that_retention_deletes_at_once_is_uploaded_all_the_same(store, about, client, tmp_path):
    with start_run(store, about, tmp_path / "runs") as tracker:
        folder = deploy(tracker, 7)
        (folder / "tensors.safetensors").unlink()
        folder.rmdir()
    experiment = client.get_experiment_by_name("flowmbpo").experiment_id
    (model,) = client.search_logged_models([experiment])
    assert [file.path for file in client.list_logged_model_artifacts(model.model_id)] == ["tensors.safetensors"]
    assert model.status == "READY"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("bug"), "FAILED"),
        (WorkFailed("diverged"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(143), "KILLED"),
    ],
)
def test_how_a_run_ends(store, about, client, tmp_path, error, status):
    tracker = start_run(store, about, tmp_path / "runs")

    def train():
        with tracker:
            tracker.log({"train/epoch": 1.0}, step=1)
            raise error

    with pytest.raises(type(error)):
        train()
    assert the_run(client).info.status == status
    assert history(client, tracker.run_id, "train/epoch") == [(1, 1.0)]


def test_a_status_that_was_said_before_stays(store, about, client, tmp_path):
    with start_run(store, about, tmp_path / "runs") as tracker:
        tracker.finish("KILLED")
    assert the_run(client).info.status == "KILLED"


def test_unknown_metrics_are_refused_and_nothing_is_written(store, about, client, tmp_path):
    with start_run(store, about, tmp_path / "runs") as tracker:
        with pytest.raises(ValueError, match="unknown metric"):
            tracker.log({"train/epoch": 1.0, "train/oops": 2.0}, step=1)
        with pytest.raises(ValueError, match="unknown metric"):
            tracker.checkpoint(tmp_path, epoch=1, step=1, metrics={"oops": 1.0})
    assert history(client, tracker.run_id, "train/epoch") == []


def test_a_resumed_run_has_no_point_twice_and_none_missing(store, about, client, tmp_path):
    with start_run(store, about, tmp_path / "runs") as tracker:
        for epoch in range(1, 8):
            tracker.log({"train/epoch": float(epoch), "perf/epoch_seconds": 0.1}, step=epoch * 100)
        deploy(tracker, 5, {"eval/mean_reward": 5.0})
        tracker.finish("KILLED")
    with resume_run(store, tracker.run_id, tmp_path / "runs") as again:  # from the checkpoint of epoch 5
        assert again.run_id == tracker.run_id
        again.checkpoint(
            tracker.files.root / "checkpoints" / "epoch-000005", epoch=5, step=500, metrics={"eval/mean_reward": 5.0}
        )
        for epoch in range(6, 12):
            again.log({"train/epoch": float(epoch), "perf/epoch_seconds": 0.2}, step=epoch * 100)
    assert the_run(client).info.status == "FINISHED"
    assert history(client, tracker.run_id, "train/epoch") == [(100 * n, float(n)) for n in range(1, 12)]
    assert len(history(client, tracker.run_id, "perf/epoch_seconds")) == 11
    assert len(client.search_logged_models([client.get_experiment_by_name("flowmbpo").experiment_id])) == 1


def test_an_evaluation_whose_checkpoint_a_kill_prevented_is_one_point_after_all(store, about, client, tmp_path):
    """Killed between the two lines of the journal that both carry the evaluation."""
    evaluation, step = {"eval/mean_reward": 5.0}, 5 * 2048
    with start_run(store, about, tmp_path / "runs") as tracker:
        tracker.log({"train/epoch": 4.0}, step=4 * 2048)
        tracker.log(evaluation, step=step)
        tracker.finish("KILLED")
    time.sleep(0.002)  # MLflow's times are whole milliseconds
    with resume_run(store, tracker.run_id, tmp_path / "runs") as again:  # from the checkpoint of epoch 3
        for epoch in (4, 5, 6):
            again.log({"train/epoch": float(epoch)}, step=epoch * 2048)
            if epoch == 5:
                again.log(evaluation, step=step)
                deploy(again, 5, evaluation)
    assert history(client, tracker.run_id, "eval/mean_reward") == [(step, 5.0)]
    assert history(client, tracker.run_id, "train/epoch") == [(n * 2048, float(n)) for n in (4, 5, 6)]


def test_a_second_process_may_not_train_the_same_run(store, about, tmp_path):
    with start_run(store, about, tmp_path / "runs") as tracker:
        with pytest.raises(UserError, match=f"is being trained by process {os.getpid()}"):
            resume_run(store, tracker.run_id, tmp_path / "runs")
        tracker.log({"train/epoch": 1.0}, step=1)  # the first one goes on


def test_a_run_that_is_not_here_cannot_be_resumed(store, tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        resume_run(store, "0123456789abcdef", tmp_path / "runs")


def test_a_full_disk_is_an_error_and_the_run_still_ends_as_failed(store, about, client, tmp_path):
    tracker = start_run(store, about, tmp_path / "runs")

    def train():
        with tracker:
            tracker.log({"train/epoch": 1.0}, step=1)
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, tracker._journal._file.fileno())
            os.close(full)
            tracker.log({"train/epoch": 2.0}, step=2)

    with pytest.raises(WorkFailed, match="No space left on device"):
        train()
    assert the_run(client).info.status == "FAILED"
    assert history(client, tracker.run_id, "train/epoch") == [(1, 1.0)]


def test_an_unusable_directory_is_the_users_mistake_and_leaves_no_running_run(store, about, client, tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(UserError, match="cannot be written"):
        start_run(store, about, tmp_path / "runs")
    assert the_run(client).info.status == "FAILED"


def test_flatten():
    spec = {"a": {"b": {"c": 1, "d": None}, "e": [1, "x"]}, "f": "text", "g": True, "h": 5e-4}
    assert flatten(spec) == {"a.b.c": "1", "a.b.d": "null", "a.e": '[1, "x"]', "f": "text", "g": "true", "h": "0.0005"}


def test_what_counts_as_delivered_is_stored(store, client, monkeypatch):
    """Also where the user's shell asks MLflow to log in the background; a killed process would lose what is left."""
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    writer = MlflowWriter(store)
    run = writer.find_or_create(Create("k", "quickstart/seed-3", 0, {}, ""), look=False)
    writer.write(run, [Metrics(time=1, step=1, metrics={"train/epoch": 1.0})], None)
    assert history(client, run, "train/epoch") == [(1, 1.0)]


def test_a_byte_that_is_no_text_costs_only_itself(store, about, tmp_path):
    with start_run(store, about, tmp_path / "runs") as tracker:
        tracker._text("note.txt", "Größe \udcff")  # as a file name in a diff may have it
    (kept,) = tmp_path.rglob("mlartifacts/**/note.txt")
    assert kept.read_bytes() == "Größe ?".encode()
