"""Readers on a store written with plain MLflow calls, whose numbers are known; file and server must agree."""

import math

import pytest

from flowmbpo.errors import UserError
from flowmbpo.tracking.evaluations import EvaluationProtocol, EvaluationWriter
from flowmbpo.tracking.mlflow_reader import MlflowReader
from flowmbpo.tracking.reader import open_reader, select_run, select_runs
from flowmbpo.tracking.sqlite_reader import SqliteReader

START = 1_700_000_000_000


def plain_run(client, experiment, name, seed, *, status="FINISHED", tags=None, points=30, params=None):
    """A run as CONTRACT-abiding tools write it: few tags, flattened spec, env steps as steps."""
    from mlflow.entities import Metric, Param

    run = client.create_run(experiment, START, tags or {}, f"{name}/seed-{seed}").info.run_id
    params = params or {"train.max_epochs": "100", "train.num_envs": "128", "train.horizon": "16"}
    metrics = []
    for n in range(1, points + 1):
        metrics.append(Metric("train/episode_reward", 10.0 * n + seed, START + 1000 * n, 2048 * n))
        metrics.append(Metric("perf/epoch_seconds", 0.5, START + 1000 * n, 2048 * n))
    client.log_batch(run, metrics=metrics, params=[Param(key, value) for key, value in params.items()])
    if status != "RUNNING":
        client.set_terminated(run, status, START + 60_000)
    return run


@pytest.fixture
def written(store, client):
    """Two experiments, three runs, one of them running; ids by run name."""
    experiment = client.create_experiment("flowmbpo", artifact_location=store.artifacts)
    other = client.create_experiment("something-else")
    plain_run(client, other, "5M-baseline", 9)
    ids = {
        "a0": plain_run(client, experiment, "5M-baseline", 0),
        "a1": plain_run(client, experiment, "5M-baseline", 1, status="FAILED"),
        "b0": plain_run(client, experiment, "48M-flow-v2", 0, status="RUNNING", tags={"flowmbpo.name": "48M-flow-v2"}),
    }
    deleted = plain_run(client, experiment, "5M-baseline", 5)
    client.delete_run(deleted)
    return ids


def both(store):
    return SqliteReader(store), MlflowReader(store)


def test_runs_of_other_tools(store, written):
    for reader in both(store):
        runs = {run.run_id: run for run in reader.runs()}
        assert set(runs) == set(written.values())
        run = runs[written["a1"]]
        assert (run.name, run.seed, run.status, run.env_steps) == ("5M-baseline", 1, "FAILED", 30 * 2048)
        assert (run.epoch, run.max_epochs, run.episode_reward) == (30, 100, 301.0)
        assert (run.start_time, run.end_time, run.wall_seconds) == (START / 1000, START / 1000 + 60, 60.0)
        assert run.eta_seconds is None
        running = runs[written["b0"]]
        assert (running.status, running.seed, running.eta_seconds) == ("RUNNING", 0, 70 * 0.5)
        assert running.wall_seconds == 30.0


def test_the_time_left_is_not_known_before_epochs_of_the_usual_kind(store, client, written):
    """Until the point after the first updates, epochs are at rest or hold them all."""
    client.set_tag(written["b0"], "flowmbpo.status", "RUNNING")
    for key, value in {"warmup_epochs": "21", "wm_first_epoch": "5", "log_interval": "10"}.items():
        client.log_param(written["b0"], f"train.{key}", value)
    for reader in both(store):
        run = next(run for run in reader.runs() if run.run_id == written["b0"])
        assert (run.epoch, run.settled, run.eta_seconds) == (30, False, None)


def test_curves_in_bulk(store, client, written):
    from mlflow.entities import Metric

    client.log_batch(written["a0"], metrics=[Metric("train/episode_reward", 999.0, START + 10**6, 2048)])  # newer wins
    client.log_batch(written["a0"], metrics=[Metric("train/episode_reward", math.nan, START + 10**6, 4096)])
    frames = []
    for reader in both(store):
        runs = reader.runs()
        frame = reader.curves(runs, ["train/episode_reward", "perf/epoch_seconds"])
        assert list(frame.columns) == ["run_id", "metric", "step", "time", "value"]
        curve = frame[(frame["run_id"] == written["a0"]) & (frame["metric"] == "train/episode_reward")]
        assert curve["step"].tolist() == [2048 * n for n in range(1, 31)]
        assert curve["value"].tolist()[0] == 999.0
        assert math.isnan(curve["value"].tolist()[1])
        assert curve["value"].tolist()[2:] == [10.0 * n for n in range(3, 31)]
        assert curve["time"].tolist()[2] == START / 1000 + 3
        assert len(frame) == 3 * 2 * 30
        assert reader.curves(runs[:1], ["eval/mean_reward"]).empty
        assert reader.curves([], ["train/episode_reward"]).empty
        frames.append(frame)
    import pandas as pd

    pd.testing.assert_frame_equal(*frames)


def test_the_server_answers_the_same(store, server, written):
    """Over HTTP, with the bulk request in several pieces."""
    server.database = store.sqlite
    server.start()
    local, remote = open_reader(store), open_reader(server.uri)
    assert [(r.run_id, r.status, r.params, r.metrics, r.tags) for r in remote.runs()] == [
        (r.run_id, r.status, r.params, r.metrics, r.tags) for r in local.runs()
    ]
    metrics = ["train/episode_reward", "perf/epoch_seconds"]
    import pandas as pd

    pd.testing.assert_frame_equal(remote.curves(remote.runs(), metrics), local.curves(local.runs(), metrics))
    from flowmbpo.tracking import mlflow_reader

    whole = remote.curves(remote.runs(), metrics)
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # as if the answers were cut off: asked again in halves, then one by one
        patch.setattr(mlflow_reader, "_BULK_POINTS", 40)
        pd.testing.assert_frame_equal(remote.curves(remote.runs(), metrics), whole)


def test_checkpoints_with_their_newest_evaluation(store, client, written):
    experiment = client.get_experiment_by_name("flowmbpo").experiment_id
    model = client.create_logged_model(
        experiment, "epoch-000010", source_run_id=written["a0"], params={"epoch": "10", "env_steps": "20480"}
    )
    client.create_logged_model(experiment, "epoch-000020", source_run_id=written["a0"], tags={"epoch": "20"})
    client.create_logged_model(experiment, "of-nobody")
    reader = open_reader(store)
    run = select_run(reader.runs(), written["a0"])
    first, second = reader.checkpoints(reader.runs())
    assert (first.epoch, first.env_steps, first.mean_reward, first.model_id) == (10, 20480, None, model.model_id)
    assert (second.epoch, second.env_steps, second.name) == (20, None, "epoch-000020")
    old, new = EvaluationProtocol(1, 10_000, 128), EvaluationProtocol(2, 10_000, 128)
    EvaluationWriter(store).write(run, first, {"eval/mean_reward": 700.0, "eval/fall_share": 0.5}, old)
    evaluated = reader.checkpoints([run])[0]
    assert old.was_used_for(evaluated)
    assert not new.was_used_for(evaluated)
    EvaluationWriter(store).write(run, first, {"eval/mean_reward": 800.0}, new)
    for reader in both(store):
        record = reader.checkpoints([run])[0]
        assert record.mean_reward == 800.0
        assert record.metrics["eval/fall_share"] == 0.5
        assert new.was_used_for(record)
        assert reader.checkpoints([select_run(reader.runs(), written["a1"])]) == []


def test_selection(store, written):
    runs = open_reader(store).runs()
    chosen = select_runs(runs, ["5M-baseline", "5M-baseline"])
    assert sorted(run.seed for run in chosen) == [0, 1]
    assert [run.run_id for run in chosen if run.status == "FINISHED"] == [written["a0"]]
    assert select_run(runs, "5M-baseline/seed-1").run_id == written["a1"]
    assert select_run(runs, written["b0"]).run_id == written["b0"]
    assert select_run(runs, written["b0"][:12]).run_id == written["b0"]
    with pytest.raises(UserError, match=r"did you mean '48M-flow-v2'\?.*5M-baseline"):
        select_run(runs, "48M-flow-v")
    with pytest.raises(UserError, match="the store has no runs yet"):
        select_run([], "5M-baseline")


def test_an_ambiguous_beginning_names_the_runs(store, written):
    from dataclasses import replace

    runs = open_reader(store).runs()
    twins = [replace(runs[0], run_id="abcd1"), replace(runs[1], run_id="abcd2")]
    with pytest.raises(UserError, match="beginning of 2 run ids: abcd1, abcd2"):
        select_run(twins, "abcd")
    with pytest.raises(UserError, match="no run matches"):
        select_run(twins, "abc")  # too short to be meant as an id


def test_a_store_without_our_experiment_is_empty(store):
    for reader in both(store):
        assert reader.runs() == []
        assert reader.checkpoints([]) == []
