"""`flowmbpo eval` on the checkpoints of a run that was really trained, and what it leaves in MLflow."""

import json
import shutil
import socket
import sqlite3

import pytest

from flowmbpo.tracking.reader import open_reader
from flowmbpo.tracking.records import Latest
from flowmbpo.tracking.run_tracker import RunDescription, start_run
from flowmbpo.tracking.store import resolve_store
from tests.command import run_process

KEYS = {
    "run_id", "name", "seed", "checkpoint", "epoch", "episodes",
    "mean_reward", "std_reward", "mean_length", "model_predicted_reward",
}  # fmt: skip
EPISODE_LENGTH = 50  # of the point mass; its episodes never end early


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which `flowmbpo run pointmass` has finished: checkpoints of epochs 20 and 40."""
    folder = tmp_path_factory.mktemp("trained")
    run_process("run", "pointmass", "--device", "cpu", folder=folder)
    return folder


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """The working directory is a copy of that folder's store and runs."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(trained / "mlflow.db", tmp_path)
    shutil.copytree(trained / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    _move_checkpoints(trained, tmp_path)
    return tmp_path


def _move_checkpoints(old, new):
    """The store says where checkpoints lie; the copy has its own."""
    with sqlite3.connect(new / "mlflow.db") as store:
        paths = "UPDATE logged_model_tags SET tag_value = replace(tag_value, ?, ?) WHERE tag_key = 'flowmbpo.path'"
        store.execute(paths, (str(old), str(new)))
        models = "UPDATE logged_models SET artifact_location = replace(artifact_location, ?, ?)"
        store.execute(models, (str(old), str(new)))


@pytest.fixture
def run_id(here):
    (folder,) = (here / "runs").iterdir()
    return folder.name


def checkpoints(folder):
    """Epoch -> what the store says of the checkpoint."""
    reader = open_reader(resolve_store(None, folder))
    return {found.epoch: found for found in reader.checkpoints(reader.runs())}


def break_weights(folder, epoch):
    (file,) = (folder / "runs").rglob(f"checkpoints/epoch-{epoch:06}/tensors.safetensors")
    file.write_bytes(file.read_bytes()[:-1])


def test_one_checkpoint_as_json(flowmbpo, here, run_id):
    outcome = flowmbpo("eval", run_id, "--json")
    assert outcome.code == 0, outcome.text
    (row,) = outcome.json()
    assert set(row) >= KEYS
    assert (row["run_id"], row["name"], row["seed"]) == (run_id, "pointmass", 0)
    assert (row["checkpoint"], row["epoch"], row["episodes"]) == (f"epoch-{row['epoch']:06}", row["epoch"], 128)
    assert row["mean_length"] == EPISODE_LENGTH
    assert 0 < row["mean_reward"] <= EPISODE_LENGTH  # a reward of at most 1 in each step
    assert row["min_reward"] <= row["q05_reward"] <= row["median_reward"] <= row["q95_reward"] <= row["max_reward"]
    assert row["std_reward"] > 0
    assert row["fall_share"] == 0
    assert row["error"] is None


def test_the_same_episodes_every_time(flowmbpo, here, run_id):
    arguments = ("eval", run_id, "--episodes", 8, "--checkpoint", "last", "--json")
    first, second = (flowmbpo(*arguments).json() for _ in range(2))
    assert first == second


@pytest.mark.parametrize(("which", "epochs"), [("last", [40]), ("all", [20, 40])])
def test_the_checkpoints_asked_for(flowmbpo, here, run_id, which, epochs):
    rows = flowmbpo("eval", run_id, "--episodes", 4, "--checkpoint", which, "--json").json()
    assert [row["epoch"] for row in rows] == epochs


def test_the_best_is_the_one_with_the_highest_evaluated_reward(flowmbpo, here, run_id):
    known = checkpoints(here)
    best = max(known, key=lambda epoch: known[epoch].mean_reward)
    (row,) = flowmbpo("eval", run_id, "--episodes", 4, "--json").json()
    assert row["epoch"] == best


@pytest.mark.parametrize("selector", ["pointmass", "pointmass/seed-0"])
def test_names_mean_the_same_as_ids(flowmbpo, here, run_id, selector):
    for name in (selector, run_id[:8]):
        (row,) = flowmbpo("eval", name, "--episodes", 4, "--checkpoint", "last", "--json").json()
        assert row["run_id"] == run_id
    both = flowmbpo("eval", selector, run_id, "--episodes", 4, "--checkpoint", "last", "--json")
    assert len(both.json()) == 1, "a run that is named twice is evaluated once"


def test_results_belong_to_the_checkpoints_in_mlflow(flowmbpo, here, run_id):
    rows = flowmbpo("eval", run_id, "--episodes", 4, "--checkpoint", "all", "--json").json()
    found = checkpoints(here)
    for row in rows:
        record = found[row["epoch"]]
        assert record.mean_reward == pytest.approx(row["mean_reward"])
        assert record.metrics["eval/model_predicted_reward"] == pytest.approx(row["model_predicted_reward"])
        assert json.loads(record.tags["flowmbpo.evaluation"])["episodes"] == 4

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{here / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("flowmbpo").experiment_id
    ranked = client.search_logged_models(
        [experiment], order_by=[{"field_name": "metrics.eval/mean_reward", "ascending": False}]
    )
    best_first = sorted(rows, key=lambda row: -row["mean_reward"])
    assert [model.name for model in ranked] == [row["checkpoint"] for row in best_first]
    linked = {metric.model_id for model in ranked for metric in model.metrics if metric.run_id == run_id}
    assert linked == {record.model_id for record in found.values()}

    (run,) = open_reader(resolve_store(None, here)).runs()
    assert run.metrics["eval/mean_reward"] == Latest(  # the run's own curve has the point at the steps of training
        pytest.approx(rows[-1]["mean_reward"]), found[40].env_steps, run.metrics["eval/mean_reward"].time
    )


def test_rerun_all_skips_what_is_up_to_date(flowmbpo, here):
    first = flowmbpo("eval", "--rerun-all", "--episodes", 4, "--json").json()
    assert [(row["epoch"], row["skipped"]) for row in first] == [(20, False), (40, False)]
    again = flowmbpo("eval", "--rerun-all", "--episodes", 4, "--json").json()
    assert [(row["epoch"], row["skipped"]) for row in again] == [(20, True), (40, True)]
    assert [row["mean_reward"] for row in again] == pytest.approx([row["mean_reward"] for row in first])
    other = flowmbpo("eval", "--rerun-all", "--episodes", 5, "--json").json()
    assert not any(row["skipped"] for row in other)


def test_one_read_one_client_and_no_learner(flowmbpo, here, monkeypatch):
    from flowmbpo.tracking import evaluations
    from flowmbpo.tracking.sqlite_reader import SqliteReader
    from flowmbpo.training import builder

    calls = []
    read, connect = SqliteReader.runs, evaluations.open_client
    monkeypatch.setattr(SqliteReader, "runs", lambda self: calls.append("read") or read(self))
    monkeypatch.setattr(evaluations, "open_client", lambda *a, **k: calls.append("client") or connect(*a, **k))
    monkeypatch.setattr(builder, "build_algorithm", lambda *_: pytest.fail("a policy needs no learner"))
    assert flowmbpo("eval", "--rerun-all", "--episodes", 4).code == 0
    assert calls == ["read", "client"]


def test_rerun_all_judges_as_the_run_itself_did(flowmbpo, here):
    rows = flowmbpo("eval", "--rerun-all", "--json").json()
    assert [(row["episodes"], row["skipped"]) for row in rows] == [(32, True)] * 2  # its spec says 32


def test_rerun_all_goes_on_where_it_was_interrupted(flowmbpo, here, run_id, monkeypatch):
    from flowmbpo.training.reevaluation import Reevaluator

    call = Reevaluator.evaluate
    done = []

    def interrupted(self, folder, how):
        if done:
            raise KeyboardInterrupt
        done.append(folder)
        return call(self, folder, how)

    monkeypatch.setattr(Reevaluator, "evaluate", interrupted)
    assert flowmbpo("eval", "--rerun-all", "--episodes", 4).code == 130
    monkeypatch.setattr(Reevaluator, "evaluate", call)
    rows = flowmbpo("eval", "--rerun-all", "--episodes", 4, "--json").json()
    assert [row["skipped"] for row in rows] == [True, False]


def test_a_broken_checkpoint_is_told_and_the_rest_goes_on(flowmbpo, here):
    before = checkpoints(here)[20].metrics
    break_weights(here, 20)
    outcome = flowmbpo("eval", "--rerun-all", "--episodes", 4, "--json")
    assert outcome.code == 1
    broken, intact = outcome.json()
    assert broken["epoch"] == 20
    assert "truncated" in broken["error"]
    assert broken["mean_reward"] is None
    assert "truncated" in outcome.err
    assert (intact["epoch"], intact["error"]) == (40, None)
    assert intact["mean_reward"] > 0
    assert checkpoints(here)[20].metrics == before


def test_a_checkpoint_of_another_recipe_is_told_and_the_rest_goes_on(flowmbpo, here):
    (file,) = (here / "runs").rglob("checkpoints/epoch-000020/manifest.json")
    manifest = json.loads(file.read_text())
    manifest["experiment"]["world_model"]["kind"] = "crystal-ball"
    file.write_text(json.dumps(manifest))
    outcome = flowmbpo("eval", "pointmass", "--checkpoint", "all", "--episodes", 4)
    assert outcome.code == 1
    assert "not valid for this version" in outcome.err
    assert "Traceback" not in outcome.text
    assert "epoch-000040" in outcome.out


def test_files_that_are_gone_from_the_run_come_from_the_artifact_store(flowmbpo, here, trained, run_id):
    shutil.copytree(trained / "mlartifacts", here / "mlartifacts")
    shutil.rmtree(here / "runs")
    outcome = flowmbpo("eval", run_id, "--episodes", 4, "--json")
    assert outcome.code == 0, outcome.text
    assert outcome.json()[0]["mean_reward"] > 0


def test_files_that_are_nowhere_are_told(flowmbpo, here, run_id):
    shutil.rmtree(here / "runs")
    outcome = flowmbpo("eval", run_id, "--episodes", 4, "--json")
    assert outcome.code == 1
    assert "neither in" in outcome.json()[0]["error"]


def test_the_table_says_what_the_models_guess_is_not(flowmbpo, here, run_id):
    outcome = flowmbpo("eval", run_id, "--episodes", 4)
    assert outcome.code == 0, outcome.text
    assert "model's guess" in outcome.out
    assert "not the result" in outcome.err
    assert "model's guess ┃\n" in outcome.out  # no column for remarks where there are none


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--rerun-all"),
        (["pointmas"], "did you mean 'pointmass'"),
        (["feedbeef"], "no run matches 'feedbeef'"),
        (["pointmass", "--checkpoint", "worst"], "allowed are best, last, all"),
        (["pointmass", "--episodes", "0"], "equal to 1"),
        (["pointmass", "--device", "abacus"], "abacus"),
    ],
)
def test_mistakes_are_answered(flowmbpo, here, arguments, message):
    outcome = flowmbpo("eval", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.text


def test_an_empty_store(flowmbpo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for arguments in (["quickstart"], ["--rerun-all"]):
        outcome = flowmbpo("eval", *arguments)
        assert outcome.code == 2
        assert "there are no runs" in outcome.err
    assert not list(tmp_path.iterdir()), "looking makes no store"


def test_a_run_without_checkpoints(flowmbpo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    about = RunDescription("point", 0, {"train": {"horizon": 16}}, "h", "cpu")
    with start_run(resolve_store(None, tmp_path), about, tmp_path / "runs") as tracker:
        tracker.log({"train/episode_reward": 5.0}, step=10)
    outcome = flowmbpo("eval", tracker.run_id)
    assert outcome.code == 2
    assert "no checkpoint" in outcome.err


def test_a_server_that_does_not_answer(flowmbpo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{probe.getsockname()[1]}"
    outcome = flowmbpo("eval", "quickstart", "--tracking-uri", uri)
    assert outcome.code == 1
    assert uri in outcome.err
    assert "Traceback" not in outcome.text


def test_a_later_evaluation_does_not_choose_another_best(flowmbpo, here, run_id):
    """What is kept on disk, what MLflow shows and what commands take by default must stay one checkpoint."""
    known = checkpoints(here)
    best = max(known, key=lambda epoch: known[epoch].mean_reward)
    with sqlite3.connect(here / "mlflow.db") as store:  # as a bad evaluation would leave it
        bad = (
            "UPDATE logged_model_metrics SET metric_value = -1 WHERE metric_name = 'eval/mean_reward' AND model_id = ?"
        )
        store.execute(bad, (known[best].model_id,))
    assert checkpoints(here)[best].mean_reward == -1.0
    (row,) = flowmbpo("eval", run_id, "--episodes", 2, "--json").json()
    assert row["epoch"] == best


def test_seed_0_is_a_seed_like_others(flowmbpo, here, run_id):
    with sqlite3.connect(here / "mlflow.db") as store:
        store.execute("UPDATE params SET value = '0' WHERE key = 'evaluation.seed'")
    flowmbpo("eval", run_id, "--episodes", 4, "--checkpoint", "last")
    assert json.loads(checkpoints(here)[40].tags["flowmbpo.evaluation"])["seed"] == 0


def test_rerun_all_leaves_alone_what_training_has_evaluated(flowmbpo, here):
    assert [row["skipped"] for row in flowmbpo("eval", "--rerun-all", "--json").json()] == [True, True]
